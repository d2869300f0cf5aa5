"""Constant nodes become initializers, and bodies get copies of the integers that they read from outside."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from igonnx.graph.constants import settle_constants
from igonnx.model import Model


def test_constants_become_initializers(model):
    proto = model("""(float[2,3] x) => (float[3,2] y) {
        two = Constant<value = float {2.0}>() shape = Constant<value_ints = [3, 2]>()
        m = Mul(x, two) y = Reshape(m, shape)
    }""")
    settled = ir.from_proto(proto)
    settle_constants(settled)
    assert [node.op_type for node in settled.graph] == ["Mul", "Reshape"]
    assert set(settled.graph.initializers) == {"two", "shape"}


def test_shapes_behind_a_reshape_in_a_loop_are_known(model):
    """Its target lies outside; ONNX's inference sees values only in the graph they lie in."""
    proto = model("""(int64 n, float[6] x) => (float[6] y) {
        shape = Constant<value_ints = [2, 3]>() flat = Constant<value_ints = [6]>()
        y = Loop<body = step (int64 i, bool go, h) => (on, g) {
            on = Identity(go) r = Reshape(h, shape) s = Softmax(r) g = Reshape(s, flat) }>(n, , x)
    }""")
    loaded = Model.load(proto)
    shapes = {v.name: v.shape for node in loaded.ir.graph.all_nodes() for v in node.outputs}
    assert list(shapes["s"]) == [2, 3]
    assert list(shapes["g"]) == [6]


def test_copies_are_made_once_and_named_apart(model):
    proto = model("""(int64 n, float[6] x) => (float[6] y) {
        shape_1 = Constant<value_ints = [6]>() shape = Constant<value_ints = [2, 3]>()
        y = Loop<body = step (int64 i, bool go, h) => (on, g) {
            on = Identity(go) r = Reshape(h, shape) s = Softmax(r) q = Reshape(s, shape_1)
            u = Reshape(q, shape) v = Exp(u) g = Reshape(v, shape_1) }>(n, , x)
    }""")
    settled = ir.from_proto(proto)
    settle_constants(settled)
    body = (
        next(node for node in settled.graph if node.op_type == "Loop").attributes["body"].as_graph()
    )
    names = set(body.initializers)
    assert len(names) == 2
    settle_constants(settled)
    assert set(body.initializers) == names
    onnx.checker.check_model(ir.to_proto(settled), full_check=True)


def test_what_callers_may_override_is_not_copied(model):
    proto = model("""(int64 n, float[6] x, int64[2] shape = {2, 3}, int64[1] flat = {6}) => (float[6] y) {
        y = Loop<body = step (int64 i, bool go, h) => (on, g) {
            on = Identity(go) r = Reshape(h, shape) s = Softmax(r) g = Reshape(s, flat) }>(n, , x)
    }""")
    settled = ir.from_proto(proto)
    settle_constants(settled)
    body = next(iter(settled.graph)).attributes["body"].as_graph()
    assert not body.initializers


def test_large_tables_are_not_copied(model):
    proto = model(
        """(int64 n, int64[5000] x) => (int64[5000] y) {
            y = Loop<body = step (int64 i, bool go, h) => (on, g) { on = Identity(go) g = Add(h, table) }>(n, , x)
        }""",
        {"table": np.arange(5000)},
    )
    settled = ir.from_proto(proto)
    settle_constants(settled)
    assert not next(iter(settled.graph)).attributes["body"].as_graph().initializers
