"""Small models and requests that the fuzzers start from."""

from __future__ import annotations

import json
from pathlib import Path

import onnx

_HEAD = '<ir_version: 8, opset_import: ["" : {opset}]>\n'
_MODELS = {
    "dense": (17, "g (float[N, 4] x) => (float[N, 2] y) <float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}> "
              "{ h = MatMul(x, w)\n y = Softmax<axis = 1>(h) }"),
    "convolution": (17, "g (float[N, 1, 4, 4] x) => (float[N, 1] y) <float[1, 1, 2, 2] w = {1, 2, 3, 4}> "
                    "{ h = Conv<strides = [2, 2]>(x, w)\n r = Relu(h)\n p = GlobalAveragePool(r)\n y = Flatten(p) }"),
    "shapes": (17, "g (float[N, 2, 3] x) => (float[N, 6] y) <int64[1] one = {1}, int64[1] six = {6}, int64 zero = {0}> "
               "{ s = Shape(x)\n n = Gather(s, zero)\n u = Unsqueeze(n, zero)\n t = Concat<axis = 0>(u, six)\n"
               " f = ConstantOfShape<value = int64[1] {1}>(one)\n v = Mul(t, f)\n y = Reshape(x, v) }"),
    "sizes": (17, "g (float[N, 4] x) => (float[N, 4] y) <int64 a = {0}, int64 b = {4}, int64 c = {1}, int64[1] d = {4}>"
              " { r = Range(a, b, c)\n e = Expand(r, d)\n k = Cast<to = 1>(e)\n t = Tile(k, d)\n"
              " p = Pad(t, d)\n s = ReduceSum<keepdims = 0>(t)\n y = Add(x, s) }"),
    "branches": (17, "g (float[N, 4] x) => (float[N, 4] y) <bool yes = {1}, int64 three = {3}> {"
                 " y0 = If(yes) <then_branch = a () => (float[N, 4] p) { p = Relu(x) }, "
                 "else_branch = b () => (float[N, 4] q) { q = Neg(x) }>\n"
                 " y = Loop(three, yes, y0) <body = c (int64 i, bool go, float[N, 4] v) => (bool on, float[N, 4] w) "
                 "{ on = Identity(go)\n w = Mul(v, v) }> }"),
    "old": (9, "g (float[N, 4] x) => (float[N, 4] y) { h = Clip<max = 1.0, min = 0.0>(x)\n s = Softmax(h)\n"
            " u = Unsqueeze<axes = [1]>(s)\n y = Squeeze<axes = [1]>(u) }"),
}  # fmt: skip
_FUNCTION = (
    '<ir_version: 8, opset_import: ["" : 17, "d" : 1]>\n'
    "g (float[N, 4] x) => (float[N, 4] y) { y = d.F(x) }\n"
    '<domain: "d", opset_import: ["" : 17]>\nF (a) => (b) { h = Relu(a)\n b = Mul(h, h) }'
)
_REQUESTS = [
    {"instances": [[0.0] * 64]},
    {"instances": [{"image": [0.5] * 64}], "parameters": {"target": 3, "steps": 8}},
    {"instances": [[[[0.5] * 8] * 8]], "parameters": {"tolerance": 0.01, "baseline": "black"}},
    {"instances": [{"b64": "iVBORw0KGgo="}], "parameters": {"baseline": [0, 1], "format": "png"}},
    {"instances": [[1]], "parameters": {"noise": "smoothgrad", "noise_samples": 3, "seed": 1}},
    {
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2]}],
        "raw": "AACAPw==",
    },
    {
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["a"]}],
        "raw": "AQAAAGE=",
    },
]


def write_corpus(folder: Path) -> None:
    """Write the seeds to folder/models and folder/requests."""
    models, requests = folder / "models", folder / "requests"
    for one in (models, requests):
        one.mkdir(parents=True, exist_ok=True)
    for name, (opset, text) in _MODELS.items():
        model = onnx.parser.parse_model(_HEAD.format(opset=opset) + text)
        (models / name).write_bytes(model.SerializeToString())
    function = onnx.parser.parse_model(_FUNCTION)
    (models / "function").write_bytes(function.SerializeToString())
    for index, request in enumerate(_REQUESTS):
        (requests / str(index)).write_text(json.dumps(request))
