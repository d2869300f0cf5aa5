"""Lowerings of operators, one file per family. Importing a file registers its lowerings.

Definitions are those of https://onnx.ai/onnx/operators and, for the domain com.microsoft, of ONNX Runtime's
ContribOperators.md.
"""
