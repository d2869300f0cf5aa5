"""Explanations as a service: a request handler that knows no protocol, and the KServe server around it.

`handler.Handler` turns a request, as JSON or as tensors, into an explanation; concurrent requests are explained
together (`sharing`). `kserve_app` serves it over the V1 and V2 protocols, REST and gRPC.
"""
