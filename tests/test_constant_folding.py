"""Arithmetic on shapes: what is computed ahead, what stays, and that nothing changes its meaning."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

import igonnx
from igonnx.graph.constant_folding import LIMIT, fold_constants
from igonnx.model import Model


def _graph(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(text))


def _model(signature: str, body: str, stored: str = "", opset: int = 17) -> str:
    initializers = f"<{stored}>" if stored else ""
    return (
        f'<ir_version: 8, opset_import: ["" : {opset}]> g {signature} {initializers} {{ {body} }}'
    )


def _operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def _folded(body: str, stored: str, name: str = "r") -> np.ndarray | None:
    """The value of `name` after folding, or None where it is still computed."""
    model = _graph(_model("(float[N] x) => (int64[M] y)", f"{body} y = Identity({name})", stored))
    fold_constants(model.graph)
    value = model.graph.initializers.get(name)
    return None if value is None or value.const_value is None else value.const_value.numpy()


# How exporters spell the target of a Reshape: which axis an index of -1 means, and the shape with it split in three.
_CHAIN = """
    s = Shape(x) axis = Add(minus, three) m = Mod(axis, three) f = Reshape(m, minus) up = Add(f, one)
    front = Slice(s, zero, minus) tail = Concat <axis = 0> (three, width) parts = Slice(tail, zero, up)
    target = Concat <axis = 0> (front, parts) r = Reshape(x, target) y = Mul(r, r)
"""
_CONSTANTS = """int64[1] minus = {-1}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] three = {3},
    int64[1] width = {4}"""


@pytest.mark.parametrize("batch", ["N", "2"])
def test_shape_behind_a_chain_is_known(batch: str):
    proto = onnx.parser.parse_model(
        _model(f"(float[{batch},5,12] x) => (float[a,b,c,d] y)", _CHAIN, _CONSTANTS)
    )
    onnx.checker.check_model(proto)
    with_shapes = Model.load(proto)
    assert str(with_shapes.find_tensor("r").shape) == f"[{batch},5,3,4]"
    assert "Mod" not in {node.op_type for node in with_shapes.ir.graph}
    result = igonnx.gradient(proto)
    onnx.checker.check_model(result, full_check=True)
    session = ort.InferenceSession(result.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((2, 5, 12)).astype(np.float32)
    feeds = {"x": x, "cotangent_y": np.ones((2, 5, 3, 4), np.float32)}
    np.testing.assert_allclose(session.run(["grad_x"], feeds)[0], 2 * x, rtol=1e-6)


@pytest.mark.parametrize(
    ("body", "stored", "expected"),
    [
        ("r = Mod(a, b)", "int64[2] a = {-5, 5}, int64[1] b = {3}", [1, 2]),
        ("r = Div(a, b)", "int64[2] a = {5, 6}, int64[1] b = {3}", [1, 2]),
        ("t = Neg(a) r = Concat <axis = 0> (t, a)", "int64[1] a = {4}", [-4, 4]),
        ("r = Slice(a, b, c)", "int64[3] a = {7, 8, 9}, int64[1] b = {1}, int64[1] c = {9}", [8, 9]),
        ("r = ConstantOfShape <value = int64[1] {3}> (a)", "int64[1] a = {2}", [3, 3]),
        ("e = Equal(a, b) r = Where(e, a, c)", "int64[2] a = {1, 2}, int64 b = {2}, int64 c = {0}", [0, 2]),
        ("r = Range(a, b, c)", "int64 a = {0}, int64 b = {6}, int64 c = {3}", [0, 3]),
        ("t = Cast <to = 6> (a) r = Cast <to = 7> (t)", "int64[1] a = {3}", [3]),
    ],
)  # fmt: skip
def test_values(body: str, stored: str, expected: list[int]):
    result = _folded(body, stored)
    assert result is not None
    assert result.dtype == np.int64
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        # Division by zero, an index out of bounds: the runtime is to say so.
        ("r = Div(a, b)", "int64[1] a = {1}, int64[1] b = {0}"),
        ("r = Mod(a, b)", "int64[1] a = {1}, int64[1] b = {0}"),
        ("r = Gather(a, b)", "int64[1] a = {1}, int64[1] b = {7}"),
        ("r = Reshape(a, b)", "int64[3] a = {1, 2, 3}, int64[1] b = {2}"),
        # Too large, before or after, and what would take all memory.
        ("r = ConstantOfShape <value = int64[1] {3}> (a)", f"int64[1] a = {{{LIMIT + 1}}}"),
        ("r = ConstantOfShape <value = int64[1] {3}> (a)", f"int64[1] a = {{{2**60}}}"),
        ("r = Expand(a, b)", f"int64[1] a = {{1}}, int64[1] b = {{{2**60}}}"),
        ("r = Range(a, b, c)", f"int64 a = {{0}}, int64 b = {{{2**60}}}, int64 c = {{1}}"),
        # Random, or real.
        ("t = RandomNormal <shape = [2]> () r = Cast <to = 7> (t)", ""),
        ("t = RandomNormalLike <dtype = 1> (a) r = Cast <to = 7> (t)", "int64[1] a = {1}"),
        ("t = Bernoulli(a) r = Cast <to = 7> (t)", "float[2] a = {0.5, 0.5}"),
        ("t = Add(a, a) r = Cast <to = 7> (t)", "float[1] a = {1.5}"),
        ("r = com.example.Add(a, a)", "int64[1] a = {1}"),
    ],
)
def test_what_is_not_folded(body: str, stored: str):
    assert _folded(body, stored) is None


def test_constants_that_a_caller_may_override_are_not_constant():
    model = _graph(
        _model("(float[N] x, int64[1] a = {1}) => (int64[1] y)", "r = Neg(a) y = Neg(r)")
    )
    assert not fold_constants(model.graph)


def test_outputs_keep_their_node_and_constants_without_use_go():
    model = _graph(
        _model("(float[N] x) => (int64[1] y)", "t = Neg(a) y = Add(t, b)", "int64[1] a = {1}, int64[1] b = {5}")
    )  # fmt: skip
    assert fold_constants(model.graph)
    assert _operators(model) == ["Add"]
    assert set(model.graph.initializers) == {"t", "b"}
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert not fold_constants(model.graph)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_static_part_of_a_shape():
    body = "s = Shape <start = 1> (x) t = Shape <start = -2, end = -1> (x) u = Shape(x) y = Concat <axis = 0> (s, t, u)"
    model = _graph(_model("(float[N,5,6] x) => (int64[6] y)", body))
    assert fold_constants(model.graph)
    assert _operators(model) == ["Shape", "Concat"]
    held = {
        name: value.const_value.numpy().tolist() for name, value in model.graph.initializers.items()
    }
    assert held == {"s": [5, 6], "t": [5]}


def test_batch_fixed_by_the_export_is_not_baked_in():
    body = "s = Shape(x) c = Concat <axis = 0> (s, one) y = Reshape(x, c)"
    model = _graph(_model("(float[1,5] x) => (float[1,5,1] y)", body, "int64[1] one = {1}"))
    assert not fold_constants(model.graph)


def test_values_captured_by_a_subgraph():
    body = (
        "t = Neg(a) y = If (c) <then_branch = yes () => (int64[1] p) { p = Add(t, t) },"
        " else_branch = no () => (int64[1] q) { q = Identity(t) }>"
    )
    model = _graph(_model("(bool c) => (int64[1] y)", body, "int64[1] a = {2}"))
    assert fold_constants(model.graph)
    assert _operators(model) == ["If"]
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    assert session.run(None, {"c": np.array(True)})[0].tolist() == [-4]
