"""Slices of axes shorter than the cut, and many gathered elements that meet in one place."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from rule_cases.check import session

import igonnx

FAR = 2**63 - 1


def _slice(start: int, end: int) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,L] x) => (float[N,M] y)'
        f" <int64[1] start = {{{start}}}, int64[1] end = {{{end}}}, int64[1] axis = {{1}}>"
        " { s = Slice(x, start, end, axis) y = Mul(s, s) }"
    )


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, -3), (3, FAR), (1, -2), (-3, FAR), (-4, -1), (2, 4), (0, 3), (4, 2), (-2, 3), (-FAR, -1)],
)
def test_slice_of_every_length(start: int, end: int):
    runtime = session(igonnx.gradient(_slice(start, end)))
    for length in range(8):
        x = 1 + np.arange(2 * length, dtype=np.float32).reshape(2, length)
        expected = np.zeros_like(x)
        expected[:, start:end] = 2 * x[:, start:end]
        cotangent = np.ones_like(x[:, start:end])
        (gradient,) = runtime.run(["grad_x"], {"x": x, "cotangent_y": cotangent})
        np.testing.assert_array_equal(gradient, expected, err_msg=f"length {length}")


def test_slice_of_a_static_axis_is_padded_by_constants():
    proto = _slice(1, -2)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 6
    operators = [node.op_type for node in igonnx.gradient(proto).graph.node]
    assert "Pad" in operators
    assert not {"Shape", "ScatterElements"} & set(operators)


def test_threads_lose_no_term():
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[3,2] x, int64[n] i) => (float[n,2] y)'
        " { y = Gather(x, i) }"
    )
    count = 500_000
    options = ort.SessionOptions()
    options.intra_op_num_threads = 4
    runtime = ort.InferenceSession(
        igonnx.gradient(proto).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {"x": np.zeros((3, 2), np.float32), "i": np.full(count, -2, np.int64)}
    (gradient,) = runtime.run(["grad_x"], {**feeds, "cotangent_y": np.ones((count, 2), np.float32)})
    np.testing.assert_array_equal(gradient, [[0, 0], [count, count], [0, 0]])
