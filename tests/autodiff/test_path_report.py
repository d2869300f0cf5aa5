"""What lies on the differentiable path, what serves it, and every refusal; in agreement with the gradient itself."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import igonnx
from igonnx.autodiff.path_report import path_report
from igonnx.errors import Error, InputError, ModelError

UNARY = "(float[2,3] x) => (float[2,3] y)"
EXAMPLE = ', "com.example" : 1'


def model(signature, body, *, initializers="", opset=18, more=""):
    stored = f"<{initializers}>" if initializers else ""
    imports = f'"" : {opset}{more}'
    return onnx.parser.parse_model(
        f"<ir_version: 8, opset_import: [{imports}]> g {signature} {stored} {{ {body} }}"
    )


def served(report):
    """{operator: (nodes, how)}."""
    return {entry.operator: (entry.nodes, str(entry.how)) for entry in report.served}


def stops(report):
    return {entry.operator: entry.nodes for entry in report.stops}


def refused(report):
    return [(refusal.operator, refusal.node) for refusal in report.refusals]


def agrees(proto, report, **options):
    """Whether `igonnx.gradient` succeeds exactly where the report says so."""
    try:
        igonnx.gradient(proto, **options)
    except Error:
        return not report.differentiable
    return report.differentiable


def test_rules_stops_and_what_lies_off_the_path():
    proto = model(
        "(float[2,3] x, float[2,3] z) => (float[2,3] y, float[2,3] other)",
        "a = Exp(x) f = Floor(a) b = Mul(f, a) y = Mul(b, z) other = Neg(z) unused = Sin(other)",
    )
    report = path_report(proto, wrt="x")
    assert (report.output, report.wrt) == ("y", ("x",))
    assert served(report) == {"Exp": (1, "rule"), "Mul": (2, "rule")}
    assert stops(report) == {"Floor": 1}
    assert (report.nodes_on_path, report.nodes_off_path) == (3, 2)
    assert report.differentiable
    assert agrees(proto, report, wrt="x")


def test_only_nodes_that_a_gradient_arrives_at_are_on_the_path():
    """What is computed only to be rounded, to choose or to shape is not."""
    proto = model(
        UNARY,
        "a = Sin(x) f = Floor(a) c = Cast <to = 9> (f) n = Neg(x) s = Shape(n)"
        " r = Reshape(x, s) y = Where(c, r, x)",
    )
    report = path_report(proto)
    assert served(report) == {"Reshape": (1, "rule"), "Where": (1, "rule")}
    # The shape is known, so that nothing is left of its arithmetic.
    assert stops(report)["Floor"] == 1
    assert "Sin" not in stops(report)


def test_every_refusal_is_found():
    proto = model(
        "(float[2,3] x) => (float[2,3] y)",
        "a = Exp(x) b = com.example.Odd(a) c = Dropout(x, half, yes) d = Add(c, b)"
        " e = com.example.Other(d) y = Neg(e)",
        initializers="float half = {0.5}, bool yes = {1}",
        more=EXAMPLE,
    )
    for node, name in zip(proto.graph.node, "pqrstu", strict=True):
        node.name = name
    report = path_report(proto)
    assert refused(report) == [
        ("com.example::Odd", "q"),
        ("Dropout", "r"),
        ("com.example::Other", "t"),
    ]
    assert report.refusals[1].reason == "no gradient for Dropout in training mode"
    assert [str(refusal.how) for refusal in report.refusals] == ["missing", "rule", "missing"]
    assert set(served(report)) == {"Exp", "Add", "Neg"}
    assert report.nodes_on_path == 6
    assert report.problem is None
    assert agrees(proto, report)


def test_what_follows_from_an_unknown_operator_is_no_refusal_of_its_own():
    """Behind it no rank is known, which Transpose has to know."""
    proto = model(UNARY, "a = com.example.Odd(x) b = Transpose(a) y = Transpose(b)", more=EXAMPLE)
    report = path_report(proto)
    assert refused(report) == [("com.example::Odd", "Odd_0")]
    assert agrees(proto, report)


def test_a_shape_that_is_lacking_is_a_refusal():
    proto = model(
        "(float[2,3] x, int64[n] shape) => (float[a,b] y)",
        "r = Reshape(x, shape) s = Transpose(r) y = Neg(s)",
    )
    report = path_report(proto, wrt="x")
    assert refused(report) == [("Transpose", "Transpose_1")]
    assert "the rank of tensor 'r' is unknown" in report.refusals[0].reason
    assert agrees(proto, report, wrt="x")


def recurrent(activation):
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)
        for name, shape in (("w", (1, 20, 4)), ("r", (1, 20, 5)))
    ]
    nodes = [
        helper.make_node(
            "LSTM", ["x", "w", "r"], ["h"], "cell",
            hidden_size=5, activations=["Sigmoid", activation, "Tanh"],
        ),
        helper.make_node("Swish", ["h"], ["y"], "swish"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "recurrent",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 1, 2, 5])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10)


def test_lowerings_and_function_bodies_count_as_the_node_they_stand_for():
    report = path_report(recurrent("Tanh"))
    assert served(report) == {"LSTM": (1, "lowering"), "Swish": (1, "function body")}
    assert (report.nodes_on_path, report.nodes_off_path) == (2, 0)
    assert report.stops == ()


def test_a_lowering_that_refuses_and_where_to_go_on():
    proto = recurrent("Odd")
    report = path_report(proto)
    assert refused(report) == [("LSTM", "cell")]
    assert "the activation 'odd'" in report.refusals[0].reason
    assert set(served(report)) == {"Swish"}
    assert report.restart == "h"
    assert path_report(proto, wrt=report.restart).differentiable
    assert agrees(proto, report)


def test_quantised_operators():
    number = numpy_helper.from_array
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["m"]),
        helper.make_node("Cast", ["m"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])],
        [
            number(np.float32(0.1), "s"),
            number(np.uint8(128), "z"),
            number(np.ones((3, 4), np.uint8), "w"),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    report = path_report(proto)
    assert served(report) == {
        "Cast": (1, "rule"),
        "MatMulInteger": (1, "straight-through"),
        "Mul": (1, "rule"),
        "QuantizeLinear": (1, "straight-through"),
    }
    assert report.differentiable
    rounding = path_report(proto, straight_through=False)
    assert "straight_through=False" in rounding.problem
    assert stops(rounding) == {"QuantizeLinear": 1}


def test_bodies_of_nodes_count():
    proto = model(
        "(float[2,3] x, bool c) => (float[2,3] y)",
        "t = Exp(x) y = If (c) <"
        "then_branch = yes () => (float[2,3] p) { m = Neg(t) p = com.example.Odd(m) },"
        "else_branch = no () => (float[2,3] q) { r = Floor(t) s = Mul(r, t) q = com.example.Odd(s) }>",
        more=EXAMPLE,
    )
    report = path_report(proto)
    assert served(report) == {
        "Exp": (1, "rule"),
        "If": (1, "rule"),
        "Mul": (1, "rule"),
        "Neg": (1, "rule"),
    }
    assert stops(report) == {"Floor": 1}
    assert [operator for operator, _ in refused(report)] == ["com.example::Odd"] * 2
    assert (report.nodes_on_path, report.nodes_off_path) == (6, 0)
    assert agrees(proto, report)


def test_body_of_a_loop():
    proto = model(
        "(float[2] x, int64 n) => (float[2] y)",
        "y = Loop (n, yes, x) <body = step (int64 i, bool go, float[2] v)"
        " => (bool on, float[2] w) { on = Identity(go) s = Sin(v) k = Floor(s) w = Mul(s, k) }>",
        initializers="bool yes = {1}",
    )
    report = path_report(proto)
    assert served(report) == {"Loop": (1, "rule"), "Mul": (1, "rule"), "Sin": (1, "rule")}
    assert stops(report) == {"Floor": 1}
    assert report.differentiable


def test_no_path_tells_where_it_ends():
    proto = model(UNARY, "e = Exp(x) i = Cast <to = 7> (e) y = Cast <to = 1> (i)")
    report = path_report(proto)
    assert report.wrt == ()
    assert "no differentiable path from 'x' to output 'y'" in report.problem
    assert stops(report) == {"Cast": 1}
    assert report.stops[0].description.startswith("its result here is no floating tensor")
    assert (report.nodes_on_path, report.nodes_off_path) == (0, 2)
    assert agrees(proto, report)


def test_wrong_names_and_models():
    proto = model(UNARY, "y = Exp(x)")
    for options in ({"output": "z"}, {"wrt": "z"}, {"wrt": ["x", "x"]}):
        with pytest.raises(InputError):
            path_report(proto, **options)
    with pytest.raises(ModelError):
        path_report(b"no model")


def test_the_model_is_not_changed():
    proto = recurrent("Tanh")
    loaded = igonnx.model.Model.load(proto)
    before = loaded.to_proto().SerializeToString(deterministic=True)
    path_report(loaded)
    assert loaded.to_proto().SerializeToString(deterministic=True) == before
