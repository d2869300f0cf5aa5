"""The reverse walk: accumulation, pruning, names, and what it says when it cannot go on."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from rule_cases.check import session, validate

import igonnx
from igonnx.autodiff import registry
from igonnx.errors import InputError, ModelError, UnsupportedOperatorError
from igonnx.graph.builder import GraphBuilder

X = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]], np.float32)
ONES = np.ones_like(X)


def model(signature, body, *, initializers="", opset=18, functions="", more=""):
    """A model in onnx's text format: `signature` is "(inputs) => (outputs)"."""
    imports = f'"" : {opset}{more}'
    stored = f"<{initializers}>" if initializers else ""
    text = f"<ir_version: 8, opset_import: [{imports}]> g {signature} {stored} {{ {body} }} {functions}"
    return onnx.parser.parse_model(text)


def differentiate(proto, feeds, *, wrt=None, output=None, cotangent=None):
    """Gradients by tensor name, after checking that the outputs are as before."""
    result = igonnx.gradient(proto, wrt=wrt, output=output)
    validate(result)
    names = [value.name for value in proto.graph.output]
    before = dict(zip(names, session(proto).run(names, feeds), strict=True))
    runtime = session(result)
    (entry,) = (v.name for v in runtime.get_inputs() if v.name.startswith("cotangent_"))
    if cotangent is None:
        cotangent = np.ones_like(before[entry.removeprefix("cotangent_")])
    given = [value.name for value in runtime.get_outputs()]
    after = dict(zip(given, runtime.run(None, {**feeds, entry: cotangent}), strict=True))
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
    assert given[: len(names)] == names
    return {name.removeprefix("grad_"): after[name] for name in given[len(names) :]}


UNARY = "(float[2,3] x) => (float[2,3] y)"
EXAMPLE = ', "com.example" : 1'  # a domain that nobody knows


# -- accumulation and pruning --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("y = Mul(x, x)", 2 * X),
        ("t = Mul(x, x) y = Mul(t, x)", 3 * X**2),
        ("a = Exp(x) b = Mul(x, x) c = Add(a, b) y = Add(c, x)", np.exp(X) + 2 * X + 1),
        ("y = Sum(x, x, x)", 3 * ONES),
        ("a = Mul(x, x) b = Neg(a) c = Mul(a, b) y = Add(c, a)", -4 * X**3 + 2 * X),
        ("y = Identity(x)", ONES),
    ],
    ids=["twice", "in two nodes", "in three nodes", "thrice in one node", "diamond", "identity"],
)
def test_uses_of_a_value_add_up(body, expected):
    np.testing.assert_allclose(
        differentiate(model(UNARY, body), {"x": X})["x"], expected, rtol=1e-5
    )


def test_input_that_is_also_an_output():
    proto = model("(float[2,3] x) => (float[2,3] x, float[2,3] y)", "y = Exp(x)")
    np.testing.assert_array_equal(differentiate(proto, {"x": X}, output="x", cotangent=X)["x"], X)
    np.testing.assert_allclose(
        differentiate(proto, {"x": X}, output="y")["x"], np.exp(X), rtol=1e-6
    )


def test_output_that_is_used_further():
    proto = model("(float[2,3] x) => (float[2,3] y, float[2,3] z)", "y = Exp(x) z = Mul(y, x)")
    np.testing.assert_allclose(differentiate(proto, {"x": X})["x"], np.exp(X), rtol=1e-6)
    expected = np.exp(X) * (1 + X)
    np.testing.assert_allclose(differentiate(proto, {"x": X}, output="z")["x"], expected, rtol=1e-5)


def test_cotangent_weighs_the_outputs():
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    gradients = differentiate(model(UNARY, "y = Mul(x, x)"), {"x": X}, cotangent=weights)
    np.testing.assert_allclose(gradients["x"], 2 * X * weights)


def test_unused_outputs_of_a_node():
    proto = model(
        "(float[2,3] x) => (float[2,1] y)",
        "y, rest = Split <axis = 1> (x, sizes)",
        initializers="int64[2] sizes = {1, 2}",
    )
    np.testing.assert_array_equal(differentiate(proto, {"x": X})["x"], [[1, 0, 0], [1, 0, 0]])


def test_only_what_is_needed_is_emitted():
    """The branch beside the path gets no backward nodes, and no rule is asked about it."""
    proto = model(
        "(float[2,3] x, float[2,2,2] other) => (float[2,3] y, float[2] d)",
        "y = Exp(x) d = Det(other)",
    )
    result = igonnx.gradient(proto, wrt="x", output="y")
    validate(result)
    assert [node.op_type for node in result.graph.node] == ["Exp", "Det", "Mul", "Identity"]


def test_node_without_a_rule_before_what_is_explained():
    """A tree of one threshold: 0.5 divides x into 3 and 5."""
    tree = """d = ai.onnx.ml.TreeEnsembleRegressor <
        nodes_treeids = [0, 0, 0], nodes_nodeids = [0, 1, 2], nodes_featureids = [0, 0, 0],
        nodes_values = [0.5, 0.0, 0.0], nodes_modes = ["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_truenodeids = [1, 0, 0], nodes_falsenodeids = [2, 0, 0],
        target_treeids = [0, 0], target_nodeids = [1, 2], target_ids = [0, 0], target_weights = [3.0, 5.0],
        n_targets = 1> (x) y = Mul(d, d)"""
    proto = model("(float[2,3] x) => (float[2,1] y)", tree, more=', "ai.onnx.ml" : 3')
    runtime = session(igonnx.gradient(proto, wrt="d"))
    feeds = {"x": X, "cotangent_y": np.ones((2, 1), np.float32)}
    np.testing.assert_array_equal(runtime.run(["grad_d"], feeds)[0], [[6], [10]])
    with pytest.raises(UnsupportedOperatorError, match="trees are piecewise constant"):
        igonnx.gradient(proto, wrt="x")


def test_node_that_is_refused_before_what_is_explained():
    proto = model(
        "(float[2,1,3] x, float[1,12,3] w, float[1,12,3] r) => (float[2,1,1,3] y)",
        'd = LSTM <hidden_size = 3, activations = ["Odd", "Tanh", "Tanh"]> (x, w, r) y = Mul(d, d)',
    )
    assert [v.name for v in igonnx.gradient(proto, wrt="d").graph.output] == ["y", "grad_d"]
    with pytest.raises(UnsupportedOperatorError, match="the activation"):
        igonnx.gradient(proto, wrt="x")


# -- what is explained ---------------------------------------------------------------------------


def test_intermediate_tensors_and_inputs_at_once():
    proto = model(UNARY, "a = Exp(x) b = Mul(a, x) y = Mul(b, b)")
    gradients = differentiate(proto, {"x": X}, wrt=["b", "x", "a"])
    assert list(gradients) == ["b", "x", "a"]
    a, b = np.exp(X), np.exp(X) * X
    np.testing.assert_allclose(gradients["b"], 2 * b, rtol=1e-5)
    np.testing.assert_allclose(gradients["a"], 2 * b * X, rtol=1e-5)
    np.testing.assert_allclose(gradients["x"], 2 * b * (X * a + a), rtol=1e-5)


def test_output_itself_is_refused():
    with pytest.raises(InputError, match="'y' is the output itself"):
        igonnx.gradient(model(UNARY, "y = Exp(x)"), wrt="y")


def test_default_is_every_floating_input_with_a_path():
    proto = model(
        "(float[2,3] x, int64[2] i, float[3] w, float[2,3] unused) => (float[2,3] y, float[2,3] z)",
        "s = Mul(x, w) y = Gather(s, i) z = Identity(unused)",
    )
    feeds = {"x": X, "i": np.array([1, 1]), "w": np.array([1, 2, 3], np.float32), "unused": X}
    gradients = differentiate(proto, feeds)
    assert list(gradients) == ["x", "w"]
    np.testing.assert_array_equal(gradients["x"], [[0, 0, 0], [2, 4, 6]])


def test_model_of_integers_explains_its_embedding():
    proto = model(
        "(int64[batch,length] ids) => (float[batch] y)",
        "e = Gather(table, ids) s = Mul(e, e) y = ReduceSum <keepdims = 0> (s, axes)",
        initializers="float[3,2] table = {1, 2, 3, 4, 5, 6}, int64[2] axes = {1, 2}",
    )
    gradients = differentiate(proto, {"ids": np.array([[2, 0]])})
    assert list(gradients) == ["e"]
    np.testing.assert_array_equal(gradients["e"], [[[10, 12], [2, 4]]])


def test_integer_paths_carry_nothing():
    proto = model(UNARY, "i = Cast <to = 7> (x) f = CastLike(i, x) y = Mul(f, x)")
    np.testing.assert_array_equal(differentiate(proto, {"x": X})["x"], np.trunc(X))
    with pytest.raises(ModelError, match="no differentiable path from 'x' to output 'y'"):
        igonnx.gradient(model(UNARY, "i = Cast <to = 7> (x) y = Cast <to = 1> (i)"))


@pytest.mark.parametrize("operator", ["Floor", "Ceil", "Round", "Sign"])
def test_piecewise_constants_carry_nothing(operator):
    np.testing.assert_allclose(
        differentiate(model(UNARY, f"f = {operator}(x) y = Mul(f, x)"), {"x": X})["x"],
        {"Floor": np.floor, "Ceil": np.ceil, "Round": np.round, "Sign": np.sign}[operator](X),
    )


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"wrt": "z"}, InputError, "z"),
        ({"wrt": ["x", "x"]}, InputError, "twice"),
        ({"wrt": []}, InputError, "empty"),
        ({"wrt": "i"}, InputError, "only floating tensors"),
        ({"output": "z"}, InputError, "z"),
        ({"output": "n"}, InputError, "only floating outputs"),
        ({"wrt": "alone"}, ModelError, "no differentiable path from 'alone'"),
    ],
)
def test_wrong_names(options, error, words):
    proto = model(
        "(float[2,3] x, int64[1] i, float[2,3] alone) => (float[2,3] y, int64[1] n)",
        "y = Exp(x) n = Add(i, i) unused = Exp(alone)",
    )
    with pytest.raises(error, match=words) as caught:
        igonnx.gradient(proto, **options)
    assert "\n" not in str(caught.value)


# -- names ---------------------------------------------------------------------------------------


def test_names_of_the_model_are_left_alone():
    body = "'gradient/Mul' = Exp(x) 'gradient/constant' = Cos('gradient/Mul') y = Mul('gradient/constant', x)"
    proto = model(UNARY, re.sub(r"'([^']*)'", lambda m: m[1].replace("/", "_SLASH_"), body))
    for node in proto.graph.node:
        node.input[:] = [name.replace("_SLASH_", "/") for name in node.input]
        node.output[:] = [name.replace("_SLASH_", "/") for name in node.output]
    proto.graph.node[0].name = "gradient/Sin"
    proto.graph.node[1].name = "gradient/Mul_1"
    gradients = differentiate(proto, {"x": X}, wrt=["x", "gradient/Mul"])
    expected = np.cos(np.exp(X)) - X * np.exp(X) * np.sin(np.exp(X))
    np.testing.assert_allclose(gradients["x"], expected, rtol=1e-4, atol=1e-5)
    assert list(gradients) == ["x", "gradient/Mul"]


def test_names_added():
    result = igonnx.gradient(model(UNARY, "y = Exp(x)"))
    assert [value.name for value in result.graph.input] == ["x", "cotangent_y"]
    assert [value.name for value in result.graph.output] == ["y", "grad_x"]


@pytest.mark.parametrize("name", ["grad_x", "cotangent_y"])
def test_names_taken(name):
    proto = model(UNARY, f"{name} = Exp(x) y = Mul({name}, x)")
    with pytest.raises(ModelError, match=f"already has a tensor called '{name}'"):
        igonnx.gradient(proto)


def test_names_of_nodes_and_values_are_unique():
    result = igonnx.gradient(
        model(UNARY, "a = Mul(x, x) b = Mul(a, a) c = Mul(b, b) y = Softmax(c)")
    )
    nodes = [node.name for node in result.graph.node]
    assert len(set(nodes)) == len(nodes)


# -- what cannot be crossed ----------------------------------------------------------------------


def test_operator_without_a_rule_on_the_path():
    proto = model(UNARY, "a = Exp(x) d = com.example.Mystery(a) y = Neg(d)", more=EXAMPLE)
    for node, name in zip(proto.graph.node, ["first", "second", "third"], strict=True):
        node.name = name
    with pytest.raises(UnsupportedOperatorError) as caught:
        igonnx.gradient(proto)
    message = str(caught.value)
    for words in (
        "operator com.example::Mystery",
        "'second'",
        "x -> first -> [com.example::Mystery] -> third -> y",
        "explain a tensor between it and the output with wrt=",
        "register a rule",
    ):
        assert words in message
    assert "\n" not in message


def test_long_paths_are_shortened():
    chain = " ".join(f"a{i + 1} = Neg(a{i})" for i in range(40))
    proto = model(UNARY, f"a0 = Exp(x) {chain} y = com.example.Mystery(a40)", more=EXAMPLE)
    with pytest.raises(UnsupportedOperatorError) as caught:
        igonnx.gradient(proto)
    assert " -> ... -> " in str(caught.value)
    assert len(str(caught.value)) < 500


def test_operator_of_another_domain():
    proto = model(UNARY, "a = com.example.Mystery(x) y = Exp(a)", more=EXAMPLE)
    # That no shape is known behind it is not what the message should be about.
    with pytest.raises(UnsupportedOperatorError, match=re.escape("operator com.example::Mystery")):
        igonnx.gradient(proto, wrt="x")


def test_value_captured_by_a_subgraph():
    proto = model(
        "(float[2,3] x, bool c) => (float[2,3] y)",
        "t = Exp(x) y = If (c) <then_branch = yes () => (float[2,3] p) { p = Neg(t) },"
        " else_branch = no () => (float[2,3] q) { q = Identity(t) }>",
    )
    for condition, slope in ((True, -np.exp(X)), (False, np.exp(X))):
        gradients = differentiate(proto, {"x": X, "c": np.array(condition)})
        np.testing.assert_allclose(gradients["x"], slope, rtol=1e-5)


def test_unknown_rank():
    proto = model(
        "(float[2,3] x, int64[n] shape) => (float[a,b] y)",
        "r = Reshape(x, shape) s = Transpose(r) y = Neg(s)",
    )
    with pytest.raises(ModelError, match=r"the rank of tensor '[rs]' is unknown") as caught:
        igonnx.gradient(proto, wrt="x")
    assert "\n" not in str(caught.value)


# -- forms of a model ----------------------------------------------------------------------------


def test_functions_are_inlined():
    proto = model(
        UNARY,
        "y = local.Swish(x)",
        more=', "local" : 1',
        functions='<domain: "local", opset_import: ["" : 18]> Swish (a) => (b) { s = Sigmoid(a) b = Mul(a, s) }',
    )
    s = 1 / (1 + np.exp(-X))
    np.testing.assert_allclose(differentiate(proto, {"x": X})["x"], s + X * s * (1 - s), rtol=1e-5)


def test_constant_nodes():
    proto = model(
        UNARY,
        "two = Constant <value = float {2.0}> () n = Constant <value_floats = [1.0, 2.0, 3.0]> ()"
        " p = Pow(x, two) y = Mul(p, n)",
    )
    np.testing.assert_allclose(differentiate(proto, {"x": X})["x"], 2 * X * [1, 2, 3], rtol=1e-6)


def test_initializer_that_is_also_an_input():
    proto = model("(float[2,3] x, float[3] w = {1, 2, 3}) => (float[2,3] y)", "y = Mul(x, w)")
    assert [t.name for t in proto.graph.initializer] == ["w"]
    np.testing.assert_array_equal(differentiate(proto, {"x": X})["x"], ONES * [1, 2, 3])
    other = np.array([4, 5, 6], np.float32)
    gradients = differentiate(proto, {"x": X, "w": other})
    np.testing.assert_array_equal(gradients["x"], ONES * other)
    with pytest.raises(InputError, match="'w' is filled by an initializer"):
        igonnx.gradient(proto, wrt="w")


def test_old_model_is_upgraded():
    """Opset 9 and IR version 3: axes are attributes, weights are inputs, Softmax flattens, Dropout has a ratio."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((4, 3, 3, 3)), "b": rng.standard_normal(4)}
    nodes = [
        helper.make_node("Slice", ["x"], ["cut"], starts=[1, 0], ends=[5, 100], axes=[2, 3]),
        helper.make_node("Conv", ["cut", "w", "b"], ["conv"]),
        helper.make_node("Clip", ["conv"], ["clipped"], min=-1.5, max=1.5),
        helper.make_node("Dropout", ["clipped"], ["kept"], ratio=0.5),
        helper.make_node("ReduceMean", ["kept"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean"], ["wider"], axes=[0]),
        helper.make_node("Squeeze", ["wider"], ["back"], axes=[0]),
        helper.make_node("Softmax", ["back"], ["y"], axis=1),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 6, 5])]
    inputs += [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in weights.items()
    ]
    stored = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])
    proto = helper.make_model(
        helper.make_graph(nodes, "old", inputs, [output], stored),
        opset_imports=[helper.make_opsetid("", 9)],
        ir_version=3,
    )
    onnx.checker.check_model(proto)
    result = igonnx.gradient(proto)
    validate(result)
    assert [value.name for value in result.graph.input] == ["x", "cotangent_y"]
    runtime = session(result)
    x = rng.standard_normal((2, 3, 6, 5)).astype(np.float32)
    cotangent = rng.standard_normal((2, 4)).astype(np.float32)
    direction = rng.standard_normal(x.shape).astype(np.float32)
    step = np.float32(1e-2)
    scores = [
        np.sum(
            runtime.run(["y"], {"x": x + d * direction, "cotangent_y": cotangent})[0] * cotangent
        )
        for d in (step, -step)
    ]
    gradient = runtime.run(["grad_x"], {"x": x, "cotangent_y": cotangent})[0]
    assert np.all(gradient[:, :, [0, 5]] == 0)
    assert (scores[0] - scores[1]) / (2 * step) == pytest.approx(
        np.sum(gradient * direction), rel=0.05
    )


def test_deep_chain():
    chain = " ".join(f"a{i + 1} = {'Neg' if i % 2 else 'Sin'}(a{i})" for i in range(3000))
    proto = model("(float[2] x) => (float[2] y)", f"a0 = Identity(x) {chain} y = Identity(a3000)")
    x = np.array([0.1, -0.2], np.float32)
    expected, value = np.ones(2), x.astype(np.float64)
    for i in range(3000):
        expected *= -1 if i % 2 else np.cos(value)
        value = -value if i % 2 else np.sin(value)
    np.testing.assert_allclose(differentiate(proto, {"x": x})["x"], expected, rtol=1e-3)


def test_the_given_model_is_not_changed():
    proto = model(UNARY, "y = Softmax(x)")
    before = proto.SerializeToString(deterministic=True)
    igonnx.gradient(proto)
    assert proto.SerializeToString(deterministic=True) == before


# -- builder and registry ------------------------------------------------------------------------


@pytest.fixture
def builder():
    return GraphBuilder(ir.from_proto(model(UNARY, "y = Exp(x)")), scope="test")


def test_equal_constants_are_stored_once(builder):
    first = builder.constant(np.array([1, 2], np.int64))
    assert builder.constant(np.array([1, 2], np.int64)) is first
    assert builder.ints([1, 2]) is first
    different = [
        builder.constant(np.array([1, 2], np.int32)),
        builder.constant(np.array([[1, 2]], np.int64)),
        builder.constant(np.array([1, 3], np.int64)),
        builder.ints(1),
        builder.scalar(1, builder.graph.inputs[0]),
    ]
    values = {id(value) for value in (first, *different)}
    assert len(values) == 6
    assert len({value.name for value in (first, *different)}) == 6


def test_positive_and_negative_zero_are_different_constants(builder):
    like = builder.graph.inputs[0]
    assert builder.scalar(0.0, like) is not builder.scalar(-0.0, like)


def test_numbers_take_the_dtype_beside_them(builder):
    x = builder.graph.inputs[0]
    result = builder.Mul(x, 2)
    assert result.dtype == ir.DataType.FLOAT
    assert result.producer().inputs[1].dtype == ir.DataType.FLOAT
    assert builder.Greater(x, 0.0).dtype == ir.DataType.BOOL
    with pytest.raises(TypeError, match="dtype"):
        builder.Mul(1.0, 2.0)


def test_attributes_that_are_no_operators(builder):
    with pytest.raises(AttributeError):
        builder.no_such_thing  # noqa: B018


def test_unknown_dtype_is_named(builder):
    with pytest.raises(ModelError, match="the dtype of tensor 'mystery' is unknown"):
        builder.scalar(1.0, ir.Value(name="mystery"))


@pytest.mark.parametrize(
    "register",
    [
        lambda: registry.rule("Add")(lambda _: []),
        lambda: registry.elementwise("Exp", None),
        lambda: registry.nondifferentiable("MatMul"),
        lambda: registry.rule("Shape")(lambda _: []),
        lambda: registry.nondifferentiable("Shape"),
    ],
)
def test_second_registration_is_an_error(register):
    before = registry.registered()
    with pytest.raises(ValueError, match="registered twice"):
        register()
    assert registry.registered() == before
