"""An If whose condition is settled is replaced by the branch that is taken."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from igonnx.graph.branches import inline_settled_branches
from igonnx.graph.constants import settle_constants
from igonnx.model import Model

X = np.array([0.5, -1.0, 2.0])
TEXT = """(double[3] x) => (double[3] y) {{
    c = Constant<value = bool {{{condition}}}>()
    t = Exp(x)
    a = If(c) <then_branch = yes () => (o) {{ t1 = Sin(x) o = Mul(t1, t) }},
               else_branch = no () => (o) {{ t1 = Cos(x) o = Mul(t1, t) }}>
    b = If(c) <then_branch = yes () => (o) {{ t1 = Cos(a) o = Mul(t1, t) }},
               else_branch = no () => (o) {{
                   o = If(c) <then_branch = yy () => (p) {{ p = Neg(a) }},
                              else_branch = nn () => (p) {{ t1 = Tanh(a) p = Add(t1, a) }}> }}>
    y = Identity(b)
}}"""


def inlined(proto):
    model = ir.from_proto(proto)
    settle_constants(model)
    changed = inline_settled_branches(model)
    result = ir.to_proto(model)
    onnx.checker.check_model(result, full_check=True)
    return result, changed


def run(proto, feeds):
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


@pytest.mark.parametrize("condition", [0, 1])
def test_the_branch_that_is_taken(model, condition):
    """Both branches use the same names, and one has another If in it."""
    proto = model(TEXT.format(condition=condition))
    result, changed = inlined(proto)
    assert changed
    assert "If" not in {node.op_type for node in result.graph.node}
    np.testing.assert_array_equal(run(result, {"x": X}), run(proto, {"x": X}))


def test_an_open_condition_stays(model):
    proto = model("""(bool c, double[3] x) => (double[3] y) {
        y = If(c) <then_branch = yes () => (o) { o = Sin(x) }, else_branch = no () => (o) { o = Cos(x) }>
    }""")
    result, changed = inlined(proto)
    assert not changed
    assert [node.op_type for node in result.graph.node] == ["If"]


def test_a_condition_that_callers_may_override_stays(model):
    proto = model("""(double[3] x, bool c = {1}) => (double[3] y) {
        y = If(c) <then_branch = yes () => (o) { o = Sin(x) }, else_branch = no () => (o) { o = Cos(x) }>
    }""")
    assert not inlined(proto)[1]


def test_names_that_other_bodies_use(model):
    """Inlined names must not be those of a body elsewhere that would hide them."""
    proto = model("""(double[3] x, int64 n) => (double[3] y) {
        c = Constant<value = bool {1}>()
        a = If(c) <then_branch = yes () => (o) { s = Sin(x) o = Mul(s, x) }, else_branch = no () => (o) { o = Cos(x) }>
        y = Loop<body = step (int64 i, bool go, h) => (on, g) { on = Identity(go) s = Exp(h) g = Mul(s, a) }>(n, , x)
    }""")  # fmt: skip
    result, _ = inlined(proto)
    feeds = {"x": X / 4, "n": np.array(2)}
    np.testing.assert_array_equal(run(result, feeds), run(proto, feeds))


def test_outputs_that_come_from_outside_or_twice():
    branch = onnx.helper.make_graph(
        [onnx.helper.make_node("Sin", ["x"], ["s"])],
        "yes",
        [],
        [onnx.helper.make_empty_tensor_value_info(name) for name in ("s", "s", "k")],
        [onnx.numpy_helper.from_array(X, "k")],
    )
    node = onnx.helper.make_node(
        "If", ["c"], ["a", "b", "k"], then_branch=branch, else_branch=branch
    )
    total = onnx.helper.make_node("Sum", ["a", "b", "k"], ["y"])
    kind = onnx.TensorProto.DOUBLE
    graph = onnx.helper.make_graph(
        [node, total],
        "main",
        [onnx.helper.make_tensor_value_info("x", kind, [3])],
        [onnx.helper.make_tensor_value_info("y", kind, [3])],
        [onnx.numpy_helper.from_array(np.array(True), "c")],
    )
    proto = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    before = proto.SerializeToString(deterministic=True)
    loaded = Model.load(proto).to_proto()
    assert "If" not in {found.op_type for found in loaded.graph.node}
    np.testing.assert_allclose(run(loaded, {"x": X})[0], 2 * np.sin(X) + X)
    assert proto.SerializeToString(deterministic=True) == before


def test_node_names_stay_unique(model):
    proto = model(TEXT.format(condition=1))
    for graph in [
        proto.graph,
        *(a.g for n in proto.graph.node for a in n.attribute if a.HasField("g")),
    ]:
        for index, node in enumerate(graph.node):
            node.name = f"node_{index}"
    result, _ = inlined(proto)
    names = [node.name for node in result.graph.node]
    assert len(set(names)) == len(names)
