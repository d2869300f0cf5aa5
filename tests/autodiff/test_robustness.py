"""Forms of a graph that people's files have: names, constants, uses and outputs of every kind, and great depth."""

from __future__ import annotations

import re
import time

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from rule_cases.check import session, validate
from slopes import check, parse

import igonnx
from igonnx.errors import InputError, ModelError

X = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])
W = np.array([1.5, -0.5, 2.0])
UNARY = "(double[2,3] x) => (double[2,3] y)"


def graph(nodes, inputs, outputs, initializers=None, *, ir_version=8, opset=17):
    """A model of nodes made by hand; inputs and outputs are double unless another type is given."""

    def described(items):
        return [helper.make_tensor_value_info(n, *_typed(kind)) for n, kind in items.items()]

    stored = [numpy_helper.from_array(a, n) for n, a in (initializers or {}).items()]
    main = helper.make_graph(nodes, "main", described(inputs), described(outputs), stored)
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(main, opset_imports=imports, ir_version=ir_version)


def _typed(kind):
    return kind if isinstance(kind, tuple) else (TensorProto.DOUBLE, kind)


def gradients(proto, feeds, *, wrt=None, output=None):
    """Outputs and gradients of `proto` by name, at a cotangent of ones."""
    result = igonnx.gradient(proto, wrt=wrt, output=output)
    runtime = session(result)
    entry = runtime.get_inputs()[-1]
    assert entry.name.startswith("cotangent_")
    (y,) = session(proto).run([entry.name.removeprefix("cotangent_")], feeds)
    names = [value.name for value in runtime.get_outputs()]
    values = runtime.run(None, {**feeds, entry.name: np.ones_like(y)})
    return dict(zip(names, values, strict=True))


# -- names ---------------------------------------------------------------------------------------

COLLISIONS = [
    *("gradient/Mul", "gradient/constant", "gradient/Mul_1", "gradient/residual", "lowered/Mul"),
    *("lowered/constant", "cotangent_z", "grad_w", "row", "alpha", "weight", "score", "slope"),
    *("x:x", "z:x", "baseline:x", "fixed:x", "gradient:x", "plan/Mul", "igonnx/Mul", "constant"),
    *("of_model/row", "cotangent", "unk__0", "None", "0", "a b", "ü"),
]


@pytest.mark.parametrize("name", COLLISIONS)
def test_tensors_called_like_what_is_made(name):
    nodes = [
        helper.make_node("Mul", ["x", "w"], [name], name=name),
        helper.make_node("LpPool", [name], ["p"], kernel_shape=[1], name=name + "_1"),
        helper.make_node("Mul", ["p", name], ["y"], name="gradient/Mul_2"),
    ]
    proto = graph(nodes, {"x": ["N", 2, 3]}, {"y": ["N", 2, 3]}, {"w": W.astype(np.float32)})
    for value in [*proto.graph.input, *proto.graph.output]:
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    x = np.stack([X, 2 * X]).astype(np.float32)
    found = gradients(proto, {"x": x}, wrt="x")
    np.testing.assert_allclose(found["grad_x"], 2 * np.abs(x * W) * W, rtol=1e-5)
    attribution = igonnx.Explainer(proto).integrated_gradients(x, target=(0, 1), steps=4)
    assert np.all(np.abs(attribution.delta) < 1e-5)


@pytest.mark.parametrize("name", ["row", "alpha", "score", "cotangent", "x:x", "weight", "fixed:w"])
def test_inputs_and_outputs_called_like_those_of_the_explanation(name):
    x = X.astype(np.float32)
    typed = (TensorProto.FLOAT, ["N", 3])
    nodes = [helper.make_node("Mul", [name, name], ["y"])]
    first = igonnx.Explainer(graph(nodes, {name: typed}, {"y": typed}))
    assert np.all(np.abs(first.integrated_gradients(x, target=1, steps=3).delta) < 1e-5)
    nodes = [helper.make_node("Mul", ["x", "x"], [name])]
    second = igonnx.Explainer(graph(nodes, {"x": typed}, {name: typed}))
    assert np.all(np.abs(second.integrated_gradients(x, target=1, steps=3).delta) < 1e-5)


def test_initializers_called_like_our_constants():
    nodes = [
        helper.make_node("Mul", ["x", "gradient/constant"], ["m"]),
        helper.make_node("Pow", ["m", "gradient/constant_1"], ["y"]),
    ]
    stored = {"gradient/constant": W, "gradient/constant_1": np.array(3.0)}
    check(graph(nodes, {"x": [2, 3]}, {"y": [2, 3]}, stored), {"x": X})


def test_nodes_without_names():
    nodes = [
        helper.make_node("Sin", ["x"], ["a"]),
        helper.make_node("Exp", ["a"], ["b"], name=""),
        helper.make_node("Mul", ["b", "a"], ["y"], name="Exp_1"),
    ]
    check(graph(nodes, {"x": [2, 3]}, {"y": [2, 3]}), {"x": X})


# -- uses ----------------------------------------------------------------------------------------

BODIES = {
    "the same input twice": "y = Mul(x, x)",
    "the same input thrice": "y = Sum(x, x, x)",
    "two nodes alike": "a = Exp(x) b = Exp(x) y = Mul(a, b)",
    "an input of every kind of node": "a = Sub(x, x) b = Div(a, x) c = Add(b, x) y = Mul(c, x)",
    "results nobody uses": "a = Exp(x) b = Sin(a) c = Mul(b, b) y = Mul(x, a)",
    "outputs left out": "s, = Split<axis = 1>(x, one) y = Mul(x, s)",
    "shape and value": "s = Shape(x) r = Reshape(x, s) y = Mul(r, x)",
    "optional inputs left out": "y = Clip(x, , top)",
    "no optional inputs": "y = Clip(x)",
    "a residual connection": "a = Tanh(x) b = Add(a, x) c = Tanh(b) d = Add(c, b) y = Add(d, x)",
}


@pytest.mark.parametrize("case", [name for name in BODIES if name != "outputs left out"])
def test_uses(case):
    check(parse(f"{UNARY} {{ {BODIES[case]} }}", top=np.array(1.25)), {"x": X})


def test_outputs_left_out():
    nodes = [
        helper.make_node("Split", ["x"], ["", "s", ""], axis=1),
        helper.make_node("Mul", ["x", "s"], ["a"]),
        helper.make_node("TopK", ["a", "k"], ["v", "unused"]),
        helper.make_node("Dropout", ["v"], ["y", ""]),
    ]
    proto = graph(nodes, {"x": [2, 3]}, {"y": [2, 2]}, {"k": np.array([2])})
    x = X.astype(np.float32)
    for value in [*proto.graph.input, *proto.graph.output]:
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    expected = igonnx.gradient(
        parse(
            "(float[2,3] x) => (float[2,2] y) { p, s, q = Split<axis = 1>(x) a = Mul(x, s) y, i = TopK(a, k) }",
            k=np.array([2]),
        )
    )
    # The runtime itself crashes where the output of a Split has no name.
    given = {"x": x, "cotangent_y": np.ones((2, 2), np.float32)}
    found, wanted = (
        session(m).run(["grad_x"], given)[0] for m in (igonnx.gradient(proto), expected)
    )
    np.testing.assert_array_equal(found, wanted)


def test_output_that_is_an_input_and_one_that_is_a_constant():
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"])]
    proto = graph(nodes, {"x": [2, 3]}, {"y": [2, 3], "x": [2, 3], "w": [3]}, {"w": W})
    found = gradients(proto, {"x": X}, wrt="x", output="y")
    np.testing.assert_array_equal(found["grad_x"], np.ones((2, 1)) * W)
    np.testing.assert_array_equal(found["w"], W)
    np.testing.assert_array_equal(found["x"], X)


def test_output_that_is_a_constant_has_no_gradient():
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(W)),
        helper.make_node("Mul", ["x", "x"], ["y"]),
    ]
    proto = graph(nodes, {"x": [2, 3]}, {"c": [3], "y": [2, 3]})
    with pytest.raises(ModelError, match="no differentiable path from 'x' to output 'c'"):
        igonnx.gradient(proto)
    np.testing.assert_array_equal(gradients(proto, {"x": X}, output="y")["grad_x"], 2 * X)


def test_output_listed_twice_is_what_the_runtime_says():
    nodes = [helper.make_node("Mul", ["x", "x"], ["y"])]
    proto = graph(nodes, {"x": [2, 3]}, {"y": [2, 3]})
    proto.graph.output.append(proto.graph.output[0])
    try:
        session(proto)
    except Exception:
        with pytest.raises(ModelError):
            igonnx.gradient(proto)
    else:
        np.testing.assert_array_equal(gradients(proto, {"x": X})["grad_x"], 2 * X)


# -- what is explained ---------------------------------------------------------------------------


def test_tensors_along_a_chain():
    nodes = [helper.make_node("Sin", [f"t{i}"], [f"t{i + 1}"]) for i in range(30)]
    proto = graph(nodes, {"t0": ["N", 3]}, {"t30": ["N", 3]})
    names = ["t17", "t0", "t29", "t5"]
    found = gradients(proto, {"t0": X}, wrt=names)
    values = [X]
    for _ in range(30):
        values.append(np.sin(values[-1]))
    for name in names:
        at = int(name[1:])
        expected = np.prod([np.cos(value) for value in values[at:30]], axis=0)
        np.testing.assert_allclose(found[f"grad_{name}"], expected, rtol=1e-12)


def test_a_tensor_named_twice_is_refused():
    with pytest.raises(InputError, match="twice"):
        igonnx.gradient(parse(f"{UNARY} {{ y = Exp(x) }}"), wrt=["x", "x"])


# -- initializers and constants ------------------------------------------------------------------


def test_initializers_that_callers_may_override():
    """IR 4 and later: the gradient follows what is fed."""
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["m"]),
        helper.make_node("Pow", ["m", "e"], ["p"]),
        helper.make_node("Reshape", ["p", "s"], ["y"]),
    ]
    stored = {"w": W, "e": np.array(2.0), "s": np.array([3, 2])}
    inputs = {"x": [2, 3], "w": [3], "e": [], "s": (TensorProto.INT64, [2])}
    proto = graph(nodes, inputs, {"y": ["a", "b"]}, stored)
    plain = {"x": X}
    np.testing.assert_allclose(gradients(proto, plain, wrt="x")["grad_x"], 2 * X * W**2)
    fed = {"x": X, "w": 2 * W, "e": np.array(3.0), "s": np.array([6, 1])}
    found = gradients(proto, fed, wrt="x")
    np.testing.assert_allclose(found["grad_x"], 3 * (2 * X * W) ** 2 * 2 * W)
    assert found["y"].shape == (6, 1)


@pytest.mark.parametrize("ir_version", [3, 4])
def test_weights_listed_as_inputs(ir_version):
    """Every weight of a model of IR 3 is an input too; nobody means to feed it."""
    nodes = [
        helper.make_node("Reshape", ["x", "s"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    weights = np.arange(6.0).reshape(3, 2)
    stored = {"s": np.array([-1, 3]), "w": weights}
    inputs = {"x": ["N", 3], "s": (TensorProto.INT64, [2]), "w": [3, 2]}
    proto = graph(nodes, inputs, {"y": ["N", 2]}, stored, ir_version=ir_version, opset=9)
    found = gradients(proto, {"x": X})
    np.testing.assert_allclose(found["grad_x"], np.ones((2, 1)) * weights.sum(axis=1))
    listed = [value.name for value in igonnx.gradient(proto, wrt="x").graph.input]
    assert listed == (["x", "cotangent_y"] if ir_version == 3 else ["x", "s", "w", "cotangent_y"])


def test_unused_initializers():
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"])]
    proto = graph(nodes, {"x": [2, 3]}, {"y": [2, 3]}, {"w": W, "unused": np.zeros(7)})
    check(proto, {"x": X})


def test_constants_of_every_kind():
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.array([2.0], np.float32)),
        numpy_helper.from_array(np.array([1])),
        [3],
    )
    nodes = [
        helper.make_node("Constant", [], ["number"], value_float=2.0),
        helper.make_node("Constant", [], ["numbers"], value_floats=[1.0, 2.0, 3.0]),
        helper.make_node("Constant", [], ["axis"], value_int=1),
        helper.make_node("Constant", [], ["sizes"], value_ints=[2, 3]),
        helper.make_node("Constant", [], ["word"], value_string="word"),
        helper.make_node("Constant", [], ["words"], value_strings=["a", "b"]),
        helper.make_node("Constant", [], ["sparse"], sparse_value=sparse),
        helper.make_node("Constant", [], ["tensor"], value=numpy_helper.from_array(W.astype("f"))),
        helper.make_node("Identity", ["words"], ["said"]),
        helper.make_node("Mul", ["x", "number"], ["a"]),
        helper.make_node("Mul", ["a", "numbers"], ["b"]),
        helper.make_node("CumSum", ["b", "axis"], ["c"]),
        helper.make_node("Reshape", ["c", "sizes"], ["d"]),
        helper.make_node("Add", ["d", "sparse"], ["e"]),
        helper.make_node("Mul", ["e", "tensor"], ["y"]),
    ]
    typed = (TensorProto.FLOAT, [2, 3])
    proto = graph(nodes, {"x": typed}, {"y": typed, "said": (TensorProto.STRING, [2])})
    found = gradients(proto, {"x": X.astype(np.float32)})
    later = np.cumsum(W[::-1])[::-1]
    np.testing.assert_allclose(
        found["grad_x"], np.ones((2, 1)) * (later * 2 * [1, 2, 3]), rtol=1e-6
    )
    assert found["said"].tolist() == ["a", "b"]


# -- order and depth -----------------------------------------------------------------------------


def test_nodes_out_of_order():
    """The runtime sorts them, whatever the standard says."""
    nodes = [helper.make_node("Exp", ["a"], ["y"]), helper.make_node("Sin", ["x"], ["a"])]
    found = gradients(graph(nodes, {"x": [2, 3]}, {"y": [2, 3]}), {"x": X})
    np.testing.assert_allclose(found["grad_x"], np.exp(np.sin(X)) * np.cos(X))


def test_nodes_in_a_circle_are_refused_in_one_line():
    nodes = [helper.make_node("Add", ["x", "y"], ["a"]), helper.make_node("Sin", ["a"], ["y"])]
    with pytest.raises(ModelError, match="topologically sorted") as caught:
        igonnx.gradient(graph(nodes, {"x": [2, 3]}, {"y": [2, 3]}))
    assert "\n" not in str(caught.value)


def test_what_the_runtime_does_not_need_to_be_told(tmp_path):
    """No name of the graph, and no import of the runtime's own operators."""
    node = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")
    kind = (TensorProto.FLOAT, ["N", 3])
    proto = graph([node], {"x": kind}, {"y": kind})
    proto.graph.ClearField("name")
    session(proto)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    for source in (proto, path, proto.SerializeToString()):
        result = igonnx.gradient(source)
        assert {entry.domain for entry in result.opset_import} == {""}
        session(result)
    assert len(proto.opset_import) == 1


def _chain(length: int) -> onnx.ModelProto:
    operators = ["Tanh", "Mul", "Sin", "Add", "Sigmoid"]
    nodes, last = [], "x"
    for i in range(length):
        operator = operators[i % len(operators)]
        inputs = [last, "w"] if operator in ("Mul", "Add") else [last]
        nodes.append(helper.make_node(operator, inputs, [last := f"v{i}"]))
    kind = (TensorProto.FLOAT, ["N", 3])
    return graph(nodes, {"x": kind}, {last: kind}, {"w": np.ones(3, np.float32)})


def test_ten_thousand_nodes_in_a_chain():
    """No recursion, and nothing that grows with the square: that would take minutes."""
    started = time.process_time()
    result = igonnx.gradient(_chain(10_000))
    assert time.process_time() - started < 30
    assert sum(node.op_type == "Cos" for node in result.graph.node) == 2000


def test_deep_models_are_explained():
    proto = _chain(2_000)
    found = igonnx.Explainer(proto).integrated_gradients(X.astype(np.float32), target=0, steps=2)
    assert np.all(np.isfinite(found.of("x")))


def test_deep_models_are_refused_in_time():
    """The path that the message shows is found without walking all paths."""
    nodes = [helper.make_node("com.example", ["x"], ["v0"])]
    nodes = [helper.make_node("Mystery", ["x"], ["v0"], domain="com.example")]
    nodes += [helper.make_node("Add", [f"v{i}", f"v{i}"], [f"v{i + 1}"]) for i in range(3000)]
    proto = graph(nodes, {"x": [2, 3]}, {"v3000": [2, 3]})
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    started = time.process_time()
    with pytest.raises(igonnx.UnsupportedOperatorError, match=re.escape("com.example::Mystery")):
        igonnx.gradient(proto)
    assert time.process_time() - started < 20


def test_many_consumers_of_one_tensor():
    nodes = [helper.make_node("Mul", ["x", "x"], [f"a{i}"]) for i in range(500)]
    nodes.append(helper.make_node("Sum", [f"a{i}" for i in range(500)], ["y"]))
    found = gradients(graph(nodes, {"x": [2, 3]}, {"y": [2, 3]}), {"x": X})
    np.testing.assert_allclose(found["grad_x"], 1000 * X)


# -- sizes and shapes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case", ["MatMul", "ReduceMean", "Concat", "Softmax", "Gather", "Transpose"]
)
@pytest.mark.parametrize("rows", [0, 1])
def test_batches_of_nothing(case, rows):
    body = {
        "MatMul": "y = MatMul(x, w)",
        "ReduceMean": "y = ReduceMean<axes = [1]>(x)",
        "Concat": "y = Concat<axis = 0>(x, x)",
        "Softmax": "s = Softmax(x) y = Mul(s, x)",
        "Gather": "y = Gather<axis = 1>(x, i)",
        "Transpose": "t = Transpose<perm = [1, 0]>(x) y = Exp(t)",
    }[case]
    proto = parse(
        f"(double[n,3] x) => (double[a,b] y) {{ {body} }}", w=np.ones((3, 4)), i=np.array([2, 0, 2])
    )
    check(proto, {"x": X[:rows]})


def test_axes_of_nothing():
    proto = parse(
        "(double[2,0,3] x) => (double[2,3] y) { y = ReduceSum<keepdims = 0>(x, one) }",
        one=np.array([1]),
    )
    check(proto, {"x": np.zeros((2, 0, 3))})


def test_shapes_that_nobody_wrote_down():
    """No value_info, and an output without a shape: the runtime takes it."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Tanh", ["a"], ["y"]),
    ]
    proto = graph(nodes, {"x": ["N", 3]}, {"y": ["N", 3]}, {"w": np.diag(W)})
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    session(proto)
    found = gradients(proto, {"x": X})
    np.testing.assert_allclose(found["grad_x"], (1 - np.tanh(X * W) ** 2) * W)


def test_output_without_a_type():
    proto = graph([helper.make_node("Exp", ["x"], ["y"])], {"x": ["N", 3]}, {"y": ["N", 3]})
    proto.graph.output[0].ClearField("type")
    session(proto)
    np.testing.assert_allclose(gradients(proto, {"x": X})["grad_x"], np.exp(X))


def test_newer_ir_version_than_the_checker_knows():
    proto = graph([helper.make_node("Exp", ["x"], ["y"])], {"x": ["N", 3]}, {"y": ["N", 3]})
    proto.ir_version = onnx.IR_VERSION + 1
    with pytest.raises(ModelError, match=r"(?i)ir.version") as caught:
        igonnx.gradient(proto)
    assert "\n" not in str(caught.value)


# -- types ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float", "double"])
def test_gradients_have_the_type_of_what_is_explained(dtype):
    proto = parse(f"({dtype}[2,3] x) => ({dtype}[2,3] y) {{ a = Sigmoid(x) y = Mul(a, x) }}")
    array = X.astype({"float16": "e", "float": "f", "double": "d"}[dtype])
    found = gradients(proto, {"x": array})["grad_x"]
    sigmoid = 1 / (1 + np.exp(-X))
    assert found.dtype == array.dtype
    np.testing.assert_allclose(found, sigmoid + X * sigmoid * (1 - sigmoid), rtol=2e-2, atol=2e-3)


def test_bfloat16_graph_is_valid():
    """The runtime's CPU provider has hardly a kernel for it."""
    proto = parse("(bfloat16[2,3] x) => (bfloat16[2,3] y) { a = Sigmoid(x) y = Mul(a, x) }")
    result = igonnx.gradient(proto)
    validate(result)
    assert result.graph.output[-1].type.tensor_type.elem_type == TensorProto.BFLOAT16


def test_mixed_precision_keeps_its_casts():
    proto = parse("""(float[2,3] x) => (float[2,1] y) {
        half = Cast<to = 10>(x) e = Mul(half, half) single = Cast<to = 1>(e) y = ReduceSum(single, one)
    }""", one=np.array([1]))  # fmt: skip
    result = igonnx.gradient(proto)
    validate(result)
    given = {"x": X.astype(np.float32), "cotangent_y": np.ones((2, 1), np.float32)}
    (gradient,) = session(result).run(["grad_x"], given)
    assert gradient.dtype == np.float32
    np.testing.assert_allclose(gradient, 2 * X, rtol=2e-3)


@pytest.mark.parametrize("body", ["y = Add(x, w)", "m = Mul(x, w) y = Neg(m)"])
def test_half_precision_adds_up_accurately(body):
    """4,096 ones along a broadcast axis: one by one, half precision would stop at 2,048."""
    proto = parse(f"(float16[4096,2] x, float16[2] w) => (float16[4096,2] y) {{ {body} }}")
    feeds = {"x": np.ones((4096, 2), np.float16), "w": np.ones(2, np.float16)}
    found = gradients(proto, feeds, wrt="w")["grad_w"]
    np.testing.assert_array_equal(np.abs(found), np.full(2, 4096, np.float16))


# -- external data -------------------------------------------------------------------------------


def test_external_data_stay_where_they_are(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Mul", ["a", "a"], ["y"]),
    ]
    weights = np.random.default_rng(0).standard_normal((64, 64))
    proto = graph(nodes, {"x": ["N", 64]}, {"y": ["N", 64]}, {"w": weights})
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=64)
    result = igonnx.gradient(path)
    (stored,) = (tensor for tensor in result.graph.initializer if tensor.name == "w")
    assert stored.data_location == TensorProto.EXTERNAL
    assert not stored.raw_data
    assert result.ByteSize() < 4096
    beside = tmp_path / "gradient.onnx"
    onnx.save(result, beside)
    x = np.random.default_rng(1).standard_normal((2, 64))
    runtime = ort.InferenceSession(str(beside), providers=["CPUExecutionProvider"])
    (gradient,) = runtime.run(["grad_x"], {"x": x, "cotangent_y": np.ones((2, 64))})
    np.testing.assert_allclose(gradient, 2 * (x @ weights) @ weights.T, rtol=1e-10)


def test_models_of_more_than_two_gigabytes(tmp_path):
    """The weights are a file of zeros with holes, so that they take no room; nothing reads them."""
    rows = 2**19 + 1
    path, weights = tmp_path / "model.onnx", tmp_path / "weights.bin"
    with weights.open("wb") as file:
        file.truncate(rows * 1024 * 4)
    stored = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1024, rows])
    stored.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", str(rows * 4096))):
        stored.external_data.add(key=key, value=value)
    nodes = [
        helper.make_node("Tanh", ["x"], ["t"]),
        helper.make_node("MatMul", ["t", "w"], ["a"]),
        helper.make_node("ReduceMean", ["a"], ["y"], axes=[1]),
    ]
    kind = (TensorProto.FLOAT, ["N", 1024])
    proto = graph(nodes, {"x": kind}, {"y": (TensorProto.FLOAT, ["N", 1])})
    proto.graph.initializer.append(stored)
    path.write_bytes(proto.SerializeToString())
    assert weights.stat().st_size > 2**31
    result = igonnx.gradient(path)
    assert result.ByteSize() < 4096
    assert result.graph.initializer[0].data_location == TensorProto.EXTERNAL
