"""Where an operator has no derivative the choice is PyTorch's; where a rule does not reach, it says so."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from rule_cases.case import newest_opset, wrap
from rule_cases.check import session

import igonnx
from igonnx.errors import ModelError, UnsupportedOperatorError


def node_model(
    operator, inputs, outputs=1, *, constants=(), dtype=TensorProto.FLOAT, rank=None, **attributes
):
    """A model of one node called "n": `inputs` are arrays or (dtype, shape) pairs, `constants` their positions."""
    names, declared, stored = [], [], []
    for index, given in enumerate(inputs):
        name = f"x{index}"
        names.append("" if given is None else name)
        if isinstance(given, tuple):
            declared.append(helper.make_tensor_value_info(name, *given))
        elif given is not None and index in constants:
            stored.append(numpy_helper.from_array(given, name))
        elif given is not None:
            element = helper.np_dtype_to_tensor_dtype(given.dtype)
            declared.append(helper.make_tensor_value_info(name, element, given.shape))
    results = ["y", *(f"y{i}" for i in range(1, outputs))]
    node = helper.make_node(operator, names, results, name="n", **attributes)
    if rank is None:
        rank = len(inputs[0][1]) if isinstance(inputs[0], tuple) else inputs[0].ndim
    output = helper.make_tensor_value_info("y", dtype, [None] * rank)
    return wrap(helper.make_graph([node], "g", declared, [output], stored), min(20, newest_opset()))


def pull_back(model, wrt, **feeds):
    """Gradients of the sum of the output with respect to `wrt`."""
    proto = igonnx.gradient(model, wrt=wrt)
    onnx.checker.check_model(proto, full_check=True)
    output = session(model).run(["y"], feeds)[0]
    names = [f"grad_{name}" for name in wrt]
    return session(proto).run(names, {**feeds, "cotangent_y": np.ones_like(output)})


def f32(values):
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("operator", "attributes", "bounds", "points", "slopes"),
    [
        ("Relu", {}, (), [-1, 0, 1], [0, 0, 1]),
        ("LeakyRelu", {"alpha": 0.25}, (), [-1, 0, 1], [0.25, 0.25, 1]),
        ("Abs", {}, (), [-1, 0, 1], [-1, 0, 1]),
        ("Elu", {"alpha": 2.0}, (), [0, 1], [2, 1]),
        ("Celu", {"alpha": 2.0}, (), [0, 1], [1, 1]),
        ("Selu", {}, (), [0], [1.6732632 * 1.0507010]),
        ("ThresholdedRelu", {"alpha": 1.0}, (), [1, 1.5], [0, 1]),
        ("HardSigmoid", {"alpha": 0.25, "beta": 0.5}, (), [-2, 0, 2], [0, 0.25, 0]),
        ("HardSwish", {}, (), [-3, 3, -4, 4], [0, 1, 0, 1]),
        ("Softsign", {}, (), [0], [1]),
        ("Clip", {}, (0, 6), [-1, 0, 3, 6, 7], [0, 0, 1, 0, 0]),
        ("Clip", {}, (0, 1), [-1, 0, 1, 2], [0, 1, 1, 0]),
        ("Clip", {}, (-1, 1), [-1, 1], [1, 1]),
        ("Clip", {}, (0,), [-1, 0, 1], [0, 1, 1]),
        ("Sign", {}, (), None, None),
    ],
)
def test_slope_at_a_kink(operator, attributes, bounds, points, slopes):
    if points is None:
        with pytest.raises(ModelError, match="no differentiable path"):
            igonnx.gradient(node_model(operator, [f32([1.0])], **attributes), wrt=["x0"])
        return
    inputs = [f32(points), *(f32(bound) for bound in bounds)]
    model = node_model(operator, inputs, constants=(1, 2), **attributes)
    np.testing.assert_allclose(pull_back(model, ["x0"], x0=inputs[0])[0], slopes, rtol=1e-6)


def test_prelu_at_zero_takes_the_slope():
    x, slope = f32([0, -1, 2]), f32([0.25])
    to_x, to_slope = pull_back(node_model("PRelu", [x, slope]), ["x0", "x1"], x0=x, x1=slope)
    np.testing.assert_array_equal(to_x, f32([0.25, 0.25, 1]))
    np.testing.assert_array_equal(to_slope, [-1])


@pytest.mark.parametrize("operator", ["Max", "Min"])
def test_elements_that_tie_share_the_gradient(operator):
    a, b, c = f32([1, 2, 3]), f32([1, 5, 3]), f32([1, 2, 3])
    gradients = pull_back(node_model(operator, [a, b, c]), ["x0", "x1", "x2"], x0=a, x1=b, x2=c)
    np.testing.assert_allclose(np.sum(gradients, axis=0), 1)
    np.testing.assert_allclose([g[0] for g in gradients], 1 / 3)
    np.testing.assert_allclose(
        [g[1] for g in gradients], [0, 1, 0] if operator == "Max" else [0.5, 0, 0.5]
    )


@pytest.mark.parametrize("operator", ["ReduceMax", "ReduceMin"])
def test_reduced_elements_that_tie_share_the_gradient(operator):
    x = f32([[1, 1, 1], [0, 2, 2], [0, 0, 2]])
    model = node_model(operator, [x, np.array([1])], constants=(1,))
    shared = {
        "ReduceMax": [[1 / 3] * 3, [0, 0.5, 0.5], [0, 0, 1]],
        "ReduceMin": [[1 / 3] * 3, [1, 0, 0], [0.5, 0.5, 0]],
    }
    np.testing.assert_allclose(pull_back(model, ["x0"], x0=x)[0], shared[operator], rtol=1e-6)


@pytest.mark.parametrize(
    ("operator", "attributes"), [("MaxPool", {"kernel_shape": [2, 2]}), ("GlobalMaxPool", {})]
)
def test_pooled_elements_that_tie_leave_it_to_the_first(operator, attributes):
    x = f32([[[[1, 2], [2, 2]], [[0, 0], [0, 0]]]])
    first = [[[[0, 1], [0, 0]], [[1, 0], [0, 0]]]]
    np.testing.assert_array_equal(
        pull_back(node_model(operator, [x], **attributes), ["x0"], x0=x)[0], first
    )


def test_norm_of_zeros_has_slope_zero():
    x = f32([[0, 0], [3, -4], [0, 1e-30]])
    model = node_model("ReduceL2", [x, np.array([1])], constants=(1,))
    np.testing.assert_allclose(
        pull_back(model, ["x0"], x0=x)[0], f32([[0, 0], [0.6, -0.8], [0, 0]]), rtol=1e-6
    )
    whole = node_model("ReduceL2", [np.zeros(3, np.float32)], rank=0, keepdims=0)
    np.testing.assert_array_equal(pull_back(whole, ["x0"], x0=np.zeros(3, np.float32))[0], 0)


def test_powers_of_zero():
    x, p = f32([0, 0, 0, 2]), f32([0, 1, 2, 0])
    to_x, to_p = pull_back(node_model("Pow", [x, p]), ["x0", "x1"], x0=x, x1=p)
    np.testing.assert_array_equal(to_x, [0, 1, 0, 0])
    np.testing.assert_allclose(to_p, [0, 0, 0, np.log(2)], rtol=1e-6)


def test_exponent_that_a_caller_may_override_is_not_a_constant():
    x = f32([1, 2, 3])
    model = node_model("Pow", [x, f32(2)], constants=(1,))
    model.graph.input.append(helper.make_tensor_value_info("x1", TensorProto.FLOAT, []))
    np.testing.assert_allclose(pull_back(model, ["x0"], x0=x)[0], 2 * x, rtol=1e-6)
    np.testing.assert_allclose(pull_back(model, ["x0"], x0=x, x1=f32(3))[0], 3 * x**2, rtol=1e-6)


@pytest.mark.parametrize("given", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16])
@pytest.mark.parametrize("to", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16])
@pytest.mark.parametrize("operator", ["Cast", "CastLike"])
def test_casts_between_floating_types(operator, given, to):
    x = np.array([1, -2], helper.tensor_dtype_to_np_dtype(given))
    if operator == "Cast":
        model = node_model("Cast", [x], dtype=to, to=to)
        (gradient,) = pull_back(model, ["x0"], x0=x)
    else:
        like = np.zeros(3, helper.tensor_dtype_to_np_dtype(to))
        (gradient,) = pull_back(node_model("CastLike", [x, like], dtype=to), ["x0"], x0=x, x1=like)
    assert gradient.dtype == x.dtype
    np.testing.assert_array_equal(gradient, 1)


def test_half_precision():
    x = np.array([[0.5, -1, 2]], np.float16)
    for operator, expected in [("Relu", [[1, 0, 1]]), ("Softplus", 1 / (1 + np.exp(-x)))]:
        (gradient,) = pull_back(node_model(operator, [x], dtype=TensorProto.FLOAT16), ["x0"], x0=x)
        assert gradient.dtype == np.float16
        np.testing.assert_allclose(gradient, expected, rtol=5e-3)


_X = f32(np.ones([1, 2, 4, 4]))
_W = f32(np.ones([2, 2, 3, 3]))
_C = f32(np.ones(2))


@pytest.mark.parametrize(
    ("operator", "inputs", "wrt", "attributes", "what"),
    [
        ("Conv", [_X, _W], ["x1"], {}, "the weights of Conv"),
        ("Conv", [_X, (TensorProto.FLOAT, [None] * 4)], ["x0"], {}, "weights of unknown shape"),
        ("ConvTranspose", [_X, _W], ["x1"], {}, "the weights or bias of ConvTranspose"),
        ("ConvTranspose", [_X, _W], ["x0"], {"auto_pad": "SAME_UPPER"}, "auto_pad"),
        ("Clip", [_X, f32(0)], ["x1"], {}, "the bounds of Clip"),
        (
            "BatchNormalization",
            [_X, _C, _C, _C, _C],
            ["x1"],
            {},
            "the parameters of BatchNormalization",
        ),
        ("MaxPool", [_X], ["x0"], {"kernel_shape": [2, 2], "storage_order": 1}, "column-major"),
        (
            "AveragePool",
            [(TensorProto.FLOAT, [None] * 4)],
            ["x0"],
            {"kernel_shape": [2, 2]},
            "an unknown number of channels",
        ),
    ],
)
def test_forms_without_a_gradient_are_refused_by_name(operator, inputs, wrt, attributes, what):
    with pytest.raises(ModelError) as caught:
        igonnx.gradient(node_model(operator, inputs, **attributes), wrt=wrt)
    message = str(caught.value)
    assert what in message
    assert f"operator {operator} (node 'n')" in message
    assert "\n" not in message


def test_training_mode_is_refused():
    dropout = [_X, f32(0.5), np.array(True)]
    with pytest.raises(ModelError, match="Dropout in training mode"):
        igonnx.gradient(node_model("Dropout", dropout, constants=(1, 2)), wrt=["x0"])
    model = node_model("BatchNormalization", [_X, _C, _C, _C, _C], 3, training_mode=1)
    with pytest.raises(ModelError, match="BatchNormalization in training mode"):
        igonnx.gradient(model, wrt=["x0"])


def test_mean_of_layer_normalization_is_refused():
    model = node_model("LayerNormalization", [f32(np.ones([2, 3])), f32(np.ones(3))], 3)
    model.graph.output.append(helper.make_tensor_value_info("y1", TensorProto.FLOAT, [2, 1]))
    igonnx.gradient(model, output="y")
    with pytest.raises(ModelError, match="LayerNormalization"):
        igonnx.gradient(model, output="y1")


def test_operator_without_a_rule():
    model = node_model("Det", [f32(np.eye(2)[None])], rank=1)
    with pytest.raises(UnsupportedOperatorError, match="Det"):
        igonnx.gradient(model)
