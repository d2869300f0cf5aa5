"""Normalisations that put out their statistics: gradients arrive at several outputs at once.

ONNX Runtime writes the running statistics over the given ones, so the function is differenced in NumPy here.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from rule_cases.case import newest_opset, wrap
from rule_cases.check import session

import igonnx

STEP = 1e-6


def _joined(outputs, used):
    return np.concatenate([outputs[index].reshape(-1) for index in used])


def _layer(x, scale, bias, *, axis, epsilon):
    axes = tuple(range(axis % x.ndim, x.ndim))
    mean = x.mean(axis=axes, keepdims=True)
    inverse = 1 / np.sqrt(((x - mean) ** 2).mean(axis=axes, keepdims=True) + epsilon)
    return (x - mean) * inverse * scale + bias, mean, inverse


def _batch(x, scale, bias, mean, variance, *, epsilon, momentum=0.9, training_mode=1):
    assert training_mode
    axes, columns = (0, *range(2, x.ndim)), (-1, *[1] * (x.ndim - 2))
    own, spread = x.mean(axis=axes), x.var(axis=axes)
    normalized = (x - own.reshape(columns)) / np.sqrt(spread.reshape(columns) + epsilon)
    y = normalized * scale.reshape(columns) + bias.reshape(columns)
    return (
        y,
        momentum * mean + (1 - momentum) * own,
        momentum * variance + (1 - momentum) * spread,
    )


def _model(operator, arrays, used, opset, symbolic, **attributes):
    """A node whose outputs `used` are joined into one."""
    inputs = [
        helper.make_tensor_value_info(
            name, TensorProto.FLOAT, [None] * array.ndim if symbolic else array.shape
        )
        for name, array in arrays.items()
    ]
    nodes = [helper.make_node(operator, list(arrays), ["y0", "y1", "y2"], **attributes)]
    nodes += [helper.make_node("Reshape", [f"y{i}", "flat"], [f"f{i}"]) for i in used]
    nodes.append(helper.make_node("Concat", [f"f{i}" for i in used], ["y"], axis=0))
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])
    flat = onnx.numpy_helper.from_array(np.array([-1]), "flat")
    return wrap(helper.make_graph(nodes, operator, inputs, [output], [flat]), opset)


def _compare(operator, function, arrays, used, opset, symbolic, **attributes):
    rng = np.random.default_rng(len(used))
    exact = _joined(function(*arrays.values(), **attributes), used)
    cotangent = rng.standard_normal(exact.shape)
    model = _model(operator, arrays, used, opset, symbolic, **attributes)
    reached = [name for name in arrays if _slope(function, arrays, name, used, **attributes)]
    proto = igonnx.gradient(model, wrt=reached)
    onnx.checker.check_model(proto, full_check=True)
    feeds = {name: array.astype(np.float32) for name, array in arrays.items()}
    results = session(proto).run(
        [f"grad_{name}" for name in reached], {**feeds, "cotangent_y": cotangent.astype(np.float32)}
    )
    for name, gradient in zip(reached, results, strict=True):
        expected = np.zeros_like(arrays[name])
        for index in np.ndindex(expected.shape):
            ends = []
            for sign in (1, -1):
                moved = arrays[name].copy()
                moved[index] += sign * STEP
                ends.append(
                    _joined(function(*{**arrays, name: moved}.values(), **attributes), used)
                )
            expected[index] = np.sum((ends[0] - ends[1]) * cotangent) / (2 * STEP)
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=2e-4, err_msg=name)


def _slope(function, arrays, name, used, **attributes):
    """Whether the outputs `used` depend on the input `name`."""
    moved = {**arrays, name: arrays[name] ** 2 + 0.1}
    before, after = (_joined(function(*a.values(), **attributes), used) for a in (arrays, moved))
    return not np.allclose(before, after, atol=1e-12)


USED = [(0,), (1,), (2,), (0, 1), (0, 2), (0, 1, 2)]


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("opset", [17, newest_opset()])
@pytest.mark.parametrize("used", USED, ids=str)
def test_layer_normalization(used, opset, symbolic):
    rng = np.random.default_rng(3)
    for shape, axis in [((2, 5), -1), ((2, 3, 4), 1), ((3, 2, 4), -2)]:
        inner = shape[axis:]
        arrays = {
            "x": rng.standard_normal(shape),
            "scale": rng.standard_normal(inner),
            "bias": rng.standard_normal(inner),
        }
        given = {"axis": axis, "epsilon": 0.05}
        _compare("LayerNormalization", _layer, arrays, used, opset, symbolic, **given)


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("opset", [17, newest_opset()])
@pytest.mark.parametrize("used", USED, ids=str)
def test_batch_normalization_in_training_mode(used, opset, symbolic):
    rng = np.random.default_rng(4)
    for shape, more in [((3, 2), {}), ((2, 3, 4), {"momentum": 0.6}), ((2, 2, 3, 2), {})]:
        arrays = {"x": rng.standard_normal(shape)}
        for name in ("scale", "bias", "mean", "variance"):
            arrays[name] = rng.uniform(0.3, 2, shape[1])
        given = {"training_mode": 1, "epsilon": 0.1, **more}
        _compare("BatchNormalization", _batch, arrays, used, opset, symbolic, **given)
