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
    operator,
    inputs,
    outputs=1,
    *,
    constants=(),
    dtype=TensorProto.FLOAT,
    rank=None,
    **attributes,
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


def test_training_mode_of_dropout_is_refused():
    x, ratio = f32(np.ones([2, 3])), f32(0.5)
    model = node_model("Dropout", [x, ratio, np.array(True)], constants=(1, 2))
    with pytest.raises(ModelError, match="Dropout in training mode") as caught:
        igonnx.gradient(model, wrt=["x0"])
    assert "operator Dropout (node 'n')" in str(caught.value)
    assert "\n" not in str(caught.value)
    # Nothing is random about dropping nothing, nor about a ratio that inference ignores.
    for inputs in ([x, f32(0), np.array(True)], [x, ratio, np.array(False)], [x, ratio], [x]):
        model = node_model("Dropout", inputs, constants=(1, 2))
        np.testing.assert_array_equal(pull_back(model, ["x0"], x0=x)[0], np.ones([2, 3]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_dropout_whose_mode_and_ratio_are_fed(dtype):
    x = np.ones([40, 5], dtype)
    element = helper.np_dtype_to_tensor_dtype(x.dtype)
    model = node_model("Dropout", [x, f32(0.75), np.array(True)], dtype=element)
    runtime = session(igonnx.gradient(model, wrt=["x0"]))
    for training, ratio in ((False, 0.75), (True, 0.0), (True, 0.75)):
        feeds = {"x0": x, "x1": f32(ratio), "x2": np.array(training), "cotangent_y": x}
        y, gradient = runtime.run(["y", "grad_x0"], feeds)
        # Of what is linear in ones, the slope is the output.
        np.testing.assert_allclose(gradient, y)
        assert np.any(y == 0) == (training and ratio > 0)
    without_ratio = node_model("Dropout", [x, None, np.array(False)], dtype=element)
    gradient = pull_back(without_ratio, ["x0"], x0=x, x2=np.array(False))[0]
    np.testing.assert_array_equal(gradient, x)


@pytest.mark.parametrize("operator", ["AveragePool", "LpPool", "Conv"])
@pytest.mark.parametrize("size", [6, None])
def test_negative_same_padding_is_refused(operator, size):
    given = {"kernel_shape": [1], "strides": [3], "auto_pad": "SAME_UPPER"}
    inputs = [(TensorProto.FLOAT, [1, 1, size]), f32([[[1]]])][: 2 if operator == "Conv" else 1]
    with pytest.raises(ModelError, match="padding is negative"):
        igonnx.gradient(node_model(operator, inputs, constants=(1,), **given))
    # A last element that no window meets is no trouble: there is nothing in front.
    given["strides"] = [2]
    model = node_model(operator, inputs, constants=(1,), **given)
    x = f32([[[1, 2, 3, 4, 5, 6]]])
    np.testing.assert_array_equal(pull_back(model, ["x0"], x0=x)[0], [[[1, 0, 1, 0, 1, 0]]])


@pytest.mark.parametrize("operator", ["AveragePool", "LpPool"])
def test_same_padding_of_dilated_windows_is_refused(operator):
    given = {"kernel_shape": [2], "dilations": [2], "auto_pad": "SAME_UPPER"}
    model = node_model(operator, [f32(np.ones([1, 1, 5]))], **given)
    with pytest.raises(ModelError, match="SAME padding of dilated windows"):
        igonnx.gradient(model)


@pytest.mark.parametrize(
    ("bounds", "to_x", "to_lower", "to_upper"),
    [
        ((-1, 1), [0, 1, 1, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]),
        ((0, 0), [0, 0, 1, 0, 0], [0] * 5, [0, 0, 0, 1, 1]),
        ((1, -1), [0] * 5, [0] * 5, [1] * 5),
    ],
)
def test_bounds_of_clip_as_torch_clamp(bounds, to_x, to_lower, to_upper):
    x, lower, upper = f32([-2, -1, 0, 1, 2]), *map(f32, bounds)
    for index in range(5):
        one = x[index : index + 1]
        model = node_model("Clip", [one, lower, upper])
        gradients = pull_back(model, ["x0", "x1", "x2"], x0=one, x1=lower, x2=upper)
        expected = [to_x[index]], to_lower[index], to_upper[index]
        for gradient, slope in zip(gradients, expected, strict=True):
            np.testing.assert_array_equal(gradient, slope)


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize(
    ("operator", "attributes"),
    [
        ("LpPool", {"kernel_shape": [2], "strides": [2]}),
        ("LpNormalization", {"axis": -1}),
        ("GlobalLpPool", {}),
    ],
)
def test_norms_of_zeros_in_pooling_have_slope_zero(operator, attributes, p):
    p = min(p, 2) if operator == "LpNormalization" else p
    x = f32(np.zeros([1, 2, 4]))
    model = node_model(operator, [x], p=p, **attributes)
    np.testing.assert_array_equal(pull_back(model, ["x0"], x0=x)[0], x)


def test_masked_softmax_is_finite():
    """Entries of minus infinity have no weight and pass nothing on, however they came about."""
    scores, shift = f32([[1, 2, 3], [4, 5, 6]]), f32([[0, -np.inf, 0], [-np.inf, -np.inf, 0]])
    for operator, other in (("Add", shift), ("Where", None)):
        if operator == "Add":
            names, stored = ["x", "shift"], [numpy_helper.from_array(other, "shift")]
        else:
            names = ["keep", "x", "low"]
            stored = [
                numpy_helper.from_array(shift == 0, "keep"),
                numpy_helper.from_array(f32(-np.inf), "low"),
            ]
        nodes = [
            helper.make_node(operator, names, ["masked"]),
            helper.make_node("Softmax", ["masked"], ["p"], axis=-1),
            helper.make_node("Mul", ["p", "p"], ["y"]),
        ]
        x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in "xy")
        model = wrap(helper.make_graph(nodes, "masked", [x], [y], stored), 17)
        (gradient,) = pull_back(model, ["x"], x=scores)
        p = 1 / (1 + np.exp(2))
        slope = 2 * p * (1 - p) * (2 * p - 1)
        np.testing.assert_allclose(gradient, [[slope, 0, -slope], [0, 0, 0]], atol=1e-6)


def test_softmax_of_rows_masked_throughout():
    """Where the model replaces what is not a number, nothing depends on it."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g (float[2,2] x, float[2,2] mask) => (float[2,2] y)
        <float zero = {0.0}> {
            masked = Add(x, mask)
            p = Softmax <axis = -1> (masked)
            nothing = IsNaN(p)
            y = Where(nothing, zero, p)
        }"""
    )
    x, mask = f32([[0, 0], [0, 0]]), f32([[-np.inf, -np.inf], [0, 0]])
    runtime = session(igonnx.gradient(model, wrt=["x"]))
    feeds = {"x": x, "mask": mask, "cotangent_y": f32([[1, 2], [1, 2]])}
    (gradient,) = runtime.run(["grad_x"], feeds)
    np.testing.assert_allclose(gradient, [[0, 0], [-0.25, 0.25]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(
    ("operator", "attributes", "slopes"),
    [
        ("Softplus", {}, [0, 1]),
        ("Mish", {}, [0, 1]),
        ("Gelu", {}, [0, 1]),
        ("Gelu", {"approximate": "tanh"}, [0, 1]),
        ("Sigmoid", {}, [0, 0]),
        ("Tanh", {}, [0, 0]),
        ("Softsign", {}, [0, 0]),
        ("Elu", {}, [0, 1]),
        ("HardSwish", {}, [0, 1]),
    ],
)
def test_far_out_activations_are_flat_or_straight(operator, attributes, slopes, dtype):
    x = np.array([-1, 1], dtype) * dtype(np.finfo(dtype).max / 2)
    element = helper.np_dtype_to_tensor_dtype(x.dtype)
    model = node_model(operator, [x], dtype=element, **attributes)
    np.testing.assert_allclose(pull_back(model, ["x0"], x0=x)[0], slopes, atol=1e-7)


def test_batch_normalization_passes_gradients_to_its_statistics():
    """Not zero, as other gradient builders have it."""
    x, scale, shift, mean, variance = f32([[1], [3]]), f32([2]), f32([0]), f32([1]), f32([3])
    model = node_model("BatchNormalization", [x, scale, shift, mean, variance], epsilon=1.0)
    feeds = {f"x{i}": array for i, array in enumerate((x, scale, shift, mean, variance))}
    gradients = pull_back(model, list(feeds), **feeds)
    # y = (x - mean) scale / 2
    for gradient, expected in zip(gradients, ([[1], [1]], [1], [2], [-2], [-0.25]), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_operator_without_a_rule():
    model = node_model("Relu", [f32([[1.0]])])
    model.graph.node[0].domain = "elsewhere"
    model.opset_import.append(helper.make_opsetid("elsewhere", 1))
    with pytest.raises(UnsupportedOperatorError, match="elsewhere::Relu"):
        igonnx.gradient(model)


def test_aspect_ratio_of_axes_counted_from_the_last_is_refused():
    """ONNX Runtime 1.31 leaves such axes as they are when it keeps the aspect ratio."""
    given = {"axes": [2, -1], "keep_aspect_ratio_policy": "not_larger", "mode": "linear"}
    x, sizes = f32(np.ones([1, 1, 4, 6])), np.array([2, 2])
    model = node_model("Resize", [x, None, None, sizes], constants=(3,), **given)
    with pytest.raises(ModelError, match="negative axes"):
        igonnx.gradient(model)
