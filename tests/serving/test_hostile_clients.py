"""Clients that send nonsense, too much, or half of it get a 4xx; the server lives on and answers the next one."""

from __future__ import annotations

import base64
import io
import json
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray
from serving_process import ServingProcess

Images = NDArray[np.float32]
ONE = [[[0.0] * 8] * 8]  # an instance


@pytest.fixture(autouse=True)
def _still_serving(server: ServingProcess, images: Images) -> Iterator[None]:
    yield
    assert server.explain(images[:1].tolist(), steps=4).status == 200
    assert not [line for line in server.lines() if line["level"] == "error"]


def bomb(width: int, height: int) -> bytes:
    """A PNG file whose header promises this many pixels, and little else."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


def file_of(form: str) -> bytes:
    written = io.BytesIO()
    PIL.Image.new("L", (8, 8)).save(written, form)
    return written.getvalue()


BODIES: dict[str, Any] = {
    "empty": b"",
    "no JSON": b"{",
    "no UTF-8": b'{"instances": "\xff"}',
    "a list": b"[]",
    "null": b"null",
    "no instances": {},
    "no list": {"instances": 5},
    "none": {"instances": []},
    "deep": b'{"instances": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "deep but allowed": b'{"instances": ' + b"[" * 500 + b"]" * 500 + b"}",
    "ragged": {"instances": [[[[0.0] * 8] * 8], [[[0.0] * 7] * 8]]},
    "wrong shape": {"instances": [[1.0, 2.0]]},
    "texts": {"instances": [[[["a"] * 8] * 8]]},
    "objects": {"instances": [[[[{}] * 8] * 8]]},
    "null inside": {"instances": [[[[None] * 8] * 8]]},
    "NaN": b'{"instances": [[[[NaN]]]]}',
    "huge numbers": {"instances": [[[[10**400] * 8] * 8]]},
    "large numbers": {"instances": [[[[1e39] * 8] * 8]]},
    "unknown input": {"instances": [{"picture": ONE}]},
    "different inputs": {"instances": [{"image": ONE}, {"b64": ""}]},
    "no base64": {"instances": [{"b64": "§§§"}]},
    "base64 of nothing": {"instances": [{"b64": ""}]},
    "base64 of a number": {"instances": [{"b64": 5}]},
    "base64 of noise": {"instances": [{"b64": base64.b64encode(bytes(range(256))).decode()}]},
    "cut image": {"instances": [{"b64": base64.b64encode(file_of("PNG")[:40]).decode()}]},
    "TIFF": {"instances": [{"b64": base64.b64encode(file_of("TIFF")).decode()}]},
    "a pickle": {
        "instances": [{"b64": base64.b64encode(b"\x80\x04cos\nsystem\n(S'exit'\ntR.").decode()}]
    },
    "bomb": {"instances": [{"b64": base64.b64encode(bomb(60_000, 60_000)).decode()}]},
    "bomb of a line": {"instances": [{"b64": base64.b64encode(bomb(2_000_000_000, 1)).decode()}]},
    "too many": {"instances": [ONE] * 65},
}


@pytest.mark.parametrize("what", BODIES)
@pytest.mark.parametrize("verb", ["predict", "explain"])
def test_bad_bodies_are_refused(server: ServingProcess, what: str, verb: str) -> None:
    answer = server.post(f"/v1/models/digits:{verb}", BODIES[what])
    assert answer.status in (400, 413), answer.body[:300]
    assert set(answer.json) == {"error"}
    assert 0 < len(answer.json["error"]) < 1500
    assert "\n" not in answer.json["error"]


PARAMETERS: dict[str, Any] = {
    "unknown": {"stepps": 5},
    "no object": 5,
    "steps": {"steps": 1_000_000},
    "no steps": {"steps": 0},
    "negative steps": {"steps": -5},
    "fractions": {"steps": 2.5},
    "texts": {"steps": "many"},
    "truth": {"steps": True},
    "lists": {"steps": [5]},
    "infinite": {"tolerance": "inf"},
    "negative tolerance": {"tolerance": -1},
    "steps and tolerance": {"tolerance": 0.1, "steps": 4},
    "max_steps": {"tolerance": 0.1, "max_steps": 10**9},
    "samples": {"method": "gradient-shap", "samples": 10**9},
    "gradients": {"steps": 1000, "noise": "smoothgrad", "noise_samples": 1000},
    "method": {"method": "magic"},
    "private": {"method": "__init__"},
    "other function": {"method": "predict"},
    "no text": {"method": ["ig"]},
    "format": {"format": "svg"},
    "target outside": {"target": 10},
    "target far outside": {"target": 10**30},
    "unknown label": {"target": "eleven"},
    "several targets": {"target": [1, 2, 3]},
    "target of objects": {"target": {}},
    "baseline name": {"baseline": "/etc/passwd"},
    "baseline shape": {"baseline": [[1.0, 2.0]]},
    "baseline NaN": {"baseline": "nan"},
    "baseline of others": {"baseline": {"other": 0}},
    "many baselines": {"baseline": ["black"] * 2000},
    "timeout": {"timeout": 0},
    "negative timeout": {"timeout": -1},
    "seed": {"seed": -1},
    "not for this": {"method": "saliency", "steps": 5},
}


@pytest.mark.parametrize("what", PARAMETERS)
def test_bad_parameters_are_refused(server: ServingProcess, what: str) -> None:
    body = {"instances": [ONE], "parameters": PARAMETERS[what]}
    answer = server.post("/v1/models/digits:explain", body)
    assert answer.status in (400, 413), answer.body[:300]
    assert 0 < len(answer.json["error"]) < 1500


def v2(**changes: Any) -> dict[str, Any]:
    one = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.0] * 64}
    return {"inputs": [{**one, **changes}]}


V2_BODIES: dict[str, Any] = {
    "no JSON": b"{",
    "a list": b"[]",
    "no inputs": {},
    "inputs of numbers": {"inputs": [5]},
    "no name": v2(name=None),
    "no datatype": v2(datatype=None),
    "unknown datatype": v2(datatype="PICKLE"),
    "no shape": v2(shape=None),
    "negative shape": v2(shape=[1, 1, -8, -8]),
    "huge shape": v2(shape=[1 << 30, 1 << 30, 8, 8]),
    "long shape": v2(shape=[1] * 1000),
    "short data": v2(data=[0.0]),
    "no data": v2(data=None),
    "text": v2(data=["a"] * 64),
    "mixed": v2(data=[0.0, [1.0]]),
    "out of range": v2(datatype="INT8", data=[300] * 64),
    "twice": {"inputs": v2()["inputs"] * 2},
    "outputs": {**v2(), "outputs": [{"name": "nothing"}]},
    "no outputs": {**v2(), "outputs": [5]},
    "parameters": {**v2(), "parameters": [5]},
    "unknown parameter": {**v2(), "parameters": {"stepps": 5}},
    "binary without bytes": v2(parameters={"binary_data_size": 256}),
    "negative binary": v2(parameters={"binary_data_size": -1}),
}


@pytest.mark.parametrize("what", V2_BODIES)
@pytest.mark.parametrize("name", ["digits", "digits-explain"])
def test_bad_v2_bodies_are_refused(server: ServingProcess, what: str, name: str) -> None:
    answer = server.post(f"/v2/models/{name}/infer", V2_BODIES[what])
    assert answer.status == 400, answer.body[:300]
    assert 0 < len(answer.json["error"]) < 1500


@pytest.mark.parametrize("size", ["5", "-1", "99999", "many", ""])
def test_bad_lengths_of_the_json_part_are_refused(server: ServingProcess, size: str) -> None:
    body = json.dumps(v2()).encode()
    headers = {"Inference-Header-Content-Length": size, "Content-Type": "application/octet-stream"}
    answer = server.post("/v2/models/digits/infer", body, headers=headers)
    assert answer.status == 400


@pytest.mark.parametrize(
    "raw", [b"", b"\x00" * 5, b"\xff\xff\xff\xff", b"\x01\x00\x00\x00", b"\x05\x00\x00\x00abc"]
)
def test_bad_grpc_contents_are_refused(server: ServingProcess, raw: bytes) -> None:
    import grpc
    from tritonclient.grpc import service_pb2 as messages
    from tritonclient.grpc import service_pb2_grpc as services

    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = services.GRPCInferenceServiceStub(channel)
        for datatype, shape in (
            ("BYTES", [1]),
            ("FP32", [1, 1, 8, 8]),
            ("WHAT", [1]),
            ("FP16", [-1]),
        ):
            tensor = messages.ModelInferRequest.InferInputTensor(
                name="image", datatype=datatype, shape=shape
            )
            request = messages.ModelInferRequest(
                model_name="digits-explain",
                inputs=[tensor],
                raw_input_contents=[raw] if raw else [],
            )
            with pytest.raises(grpc.RpcError) as caught:
                stub.ModelInfer(request, timeout=30)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value.details()
        unknown = messages.ModelInferRequest(model_name="nothing")
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(unknown, timeout=30)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        large = messages.ModelInferRequest(
            model_name="digits", raw_input_contents=[bytes(3_000_000)]
        )
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(large, timeout=30)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_bodies_up_to_the_limit_are_taken(server: ServingProcess) -> None:
    body = json.dumps({"instances": [ONE]}).encode().ljust(2_000_000)
    assert server.post("/v1/models/digits:explain", body).status == 200
    assert server.post("/v1/models/digits:explain", body + b" ").status == 413


def test_large_bodies_are_refused_unread(server: ServingProcess) -> None:
    answer = server.request(
        "POST", "/v1/models/digits:explain", headers={"Content-Length": str(1 << 40)}
    )
    assert answer.status == 413
    with server.connection() as client:
        client.sendall(
            b"POST /v1/models/digits:explain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        try:
            for _ in range(100):
                client.sendall(chunk)
        except OSError:
            pass  # the server has closed the connection
        try:
            answered = client.recv(100)
        except OSError:
            answered = b""
        assert answered[:12] in (b"", b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET",
        b"\x00\x01\x02\x03\r\n\r\n",
        b"POST /v1/models/digits:explain HTTP/1.1\r\nContent-Le",
        b"POST /v1/models/digits:explain HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
        b"POST /v1/models/digits:explain HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ],
)
def test_half_requests_harm_nobody(server: ServingProcess, data: bytes) -> None:
    clients = [server.connection() for _ in range(5)]
    for client in clients:
        client.sendall(data)
    assert server.explain([ONE], steps=4).status == 200
    for client in clients:
        client.close()


def test_endless_headers_are_cut_off(server: ServingProcess) -> None:
    with server.connection() as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        sent = 0
        try:
            while sent < 10_000_000:
                sent += client.send(b"X-Header: " + b"x" * 10_000 + b"\r\n")
                time.sleep(0.001)
        except OSError:
            pass
        assert sent < 10_000_000


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/models/nothing:explain"),
        ("POST", "/v2/models/nothing/infer"),
        ("GET", "/v2/models/nothing"),
        ("GET", "/v1/models/..%2f..%2fetc"),
        ("GET", "/docs"),
        ("GET", "/openapi.json/x"),
        ("DELETE", "/v1/models/digits"),
        ("POST", "/v2/repository/models/digits/unload"),
        ("POST", "/v2/repository/models/digits/load"),
    ],
)
def test_other_paths(server: ServingProcess, method: str, path: str) -> None:
    answer = server.request(method, path, b"{}" if method == "POST" else None)
    assert answer.status in (404, 405, 501)


def test_request_headers_do_not_come_back(server: ServingProcess) -> None:
    answer = server.post(
        "/v1/models/digits:explain",
        {"instances": [ONE]},
        headers={"Cookie": "secret=1", "X-A": "b"},
    )
    assert answer.status == 200
    assert not {"cookie", "x-a"} & set(answer.headers)
