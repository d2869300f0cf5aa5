"""The convention for rounding: torch.fake_quantize's, by input, scale and axis; and the flag that turns it off."""

from __future__ import annotations

from collections.abc import Callable
from string import Template
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import igonnx

Build = Callable[..., onnx.ModelProto]
RNG = np.random.default_rng(7)
RANGES = {
    "uint8": (TensorProto.UINT8, 0, 255),
    "int8": (TensorProto.INT8, -128, 127),
    "uint16": (TensorProto.UINT16, 0, 65535),
    "int16": (TensorProto.INT16, -32768, 32767),
    "uint4": (TensorProto.UINT4, 0, 15),
    "int4": (TensorProto.INT4, -8, 7),
}


def pair(
    kind: int,
    scale: NDArray[Any],
    zero_point: NDArray[Any],
    shape: list[Any],
    *,
    opset: int = 21,
    fed_scale: bool = False,
    **attributes: int,
) -> onnx.ModelProto:
    """X to codes and back; codes of type `kind`."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **attributes),
    ]
    stored = [helper.make_tensor("z", kind, zero_point.shape, zero_point.reshape(-1).tolist())]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    if fed_scale:
        inputs.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, scale.shape))
    else:
        stored.append(numpy_helper.from_array(scale, "s"))
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "pair", inputs, [result], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def spread(value: NDArray[Any], shape: tuple[int, ...], axis: int, block: int) -> NDArray[Any]:
    """A scale or zero point for every element of a tensor."""
    if block:
        value = np.repeat(value, block, axis=axis)
        return np.take(value, np.arange(shape[axis]), axis=axis)
    if value.ndim:
        value = value.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return np.broadcast_to(value, shape)


def reference(
    x: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any], low: int, high: int, v: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Gradients of v . fake_quantize(x) by x and, per element, by the scale.

    By x: v where the code needs no clipping. By the scale: v (code - zero point) for the way back, of which the way
    there takes v x / scale where the code is not clipped (Esser et al., 2019, arXiv:1902.08153, equation 3).
    """
    code = np.round(x / scale) + zero
    inside = (code >= low) & (code <= high)
    kept = np.clip(code, low, high) - zero
    return np.where(inside, v, 0), v * (kept - np.where(inside, x / scale, 0))


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("layout", ["static", "named"])
def test_one_scale(name: str, layout: str, run: Any) -> None:
    kind, low, high = RANGES[name]
    scale, zero = np.float32(0.25), np.array((low + high) // 2 + 1, np.int32)
    width = float(scale) * (high - low)
    x = RNG.uniform(-width, width, size=(4, 9)).astype(np.float32)
    check(kind, np.array(scale), zero, low, high, x, layout, run)


@pytest.mark.parametrize("layout", ["static", "named"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_scale_per_slice(axis: int, layout: str, run: Any) -> None:
    x = RNG.uniform(-40, 40, size=(3, 4, 5)).astype(np.float32)
    count = x.shape[axis]
    scale = RNG.uniform(0.1, 0.3, size=count).astype(np.float32)
    zero = RNG.integers(-20, 20, size=count)
    check(TensorProto.INT8, scale, zero, -128, 127, x, layout, run, axis=axis)


@pytest.mark.parametrize("layout", ["static", "named"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_scale_per_block(axis: int, layout: str, run: Any) -> None:
    x = RNG.uniform(-40, 40, size=(4, 6, 8)).astype(np.float32)
    shape = list(x.shape)
    shape[axis] //= 2
    scale = RNG.uniform(0.1, 0.3, size=shape).astype(np.float32)
    zero = RNG.integers(-20, 20, size=shape)
    check(TensorProto.INT8, scale, zero, -128, 127, x, layout, run, axis=axis, block_size=2)


def check(
    kind: int,
    scale: NDArray[Any],
    zero: NDArray[Any],
    low: int,
    high: int,
    x: NDArray[Any],
    layout: str,
    run: Any,
    **attributes: int,
) -> None:
    shape = list(x.shape) if layout == "static" else [f"n{i}" for i in range(x.ndim)]
    model = pair(kind, scale, zero, shape, fed_scale=True, **attributes)
    v = RNG.normal(size=x.shape).astype(np.float32)
    feeds = {"x": x, "s": scale, "cotangent_y": v}
    _, by_x, by_scale = run(igonnx.gradient(model, wrt=["x", "s"]), feeds)
    axis, block = attributes.get("axis", 1) % x.ndim, attributes.get("block_size", 0)
    real = [spread(value, x.shape, axis, block) for value in (scale, zero)]
    expected, terms = reference(x, *real, low, high, v)
    np.testing.assert_allclose(by_x, expected, rtol=1e-5)
    assert 0 < np.count_nonzero(by_x) < by_x.size
    if block:
        split = list(x.shape)
        split[axis : axis + 1] = [x.shape[axis] // block, block]
        total = terms.reshape(split).sum(axis=axis + 1)
    elif scale.ndim:
        total = terms.sum(axis=tuple(i for i in range(x.ndim) if i != axis))
    else:
        total = terms.sum()
    np.testing.assert_allclose(by_scale, total, rtol=1e-3, atol=1e-3 * np.abs(terms).max())


@pytest.mark.parametrize("opset", [10, 13, 17, 19, 21, 23, 24, 25])
def test_every_opset(opset: int, run: Any) -> None:
    model = pair(TensorProto.UINT8, np.array(0.1, np.float32), np.array(3), ["n"], opset=opset)
    x = np.array([-0.36, -0.34, 0, 25.24, 25.26], np.float32)
    (_, gradient) = run(igonnx.gradient(model), {"x": x, "cotangent_y": np.ones(5, np.float32)})
    np.testing.assert_allclose(gradient, [0, 1, 1, 1, 0], rtol=1e-6)


def test_small_floats(run: Any) -> None:
    model = pair(TensorProto.FLOAT8E4M3FN, np.array(0.5, np.float32), np.zeros(()), ["n"])
    x = np.array([-300, -223, 0.1, 224, 225], np.float32)
    (_, gradient) = run(igonnx.gradient(model), {"x": x, "cotangent_y": np.ones(5, np.float32)})
    np.testing.assert_allclose(gradient, [0, 1, 1, 1, 0])


def test_dynamic_quantisation_passes_everything(model: Build, run: Any) -> None:
    proto = model(
        "(float[n] x) => (float[n] y) { q, s, z = DynamicQuantizeLinear(x)\n y = DequantizeLinear(q, s, z) }"
    )
    x, v = RNG.normal(size=(2, 9)).astype(np.float32)
    _, gradient = run(igonnx.gradient(proto), {"x": x, "cotangent_y": v})
    np.testing.assert_allclose(gradient, v, rtol=1e-6)


# Operators that hand codes on, the same on codes and on reals: x becomes y. `fill` stands for zero.
MOVING = {
    "Reshape": "$y = Reshape($x, four)",
    "Flatten": "$y = Flatten<axis=2>($x)",
    "Squeeze": "u = Unsqueeze($x, two)\n $y = Squeeze(u, two)",
    "Transpose": "$y = Transpose<perm=[2,0,1,3]>($x)",
    "Identity": "$y = Identity($x)",
    "Concat": "$y = Concat<axis=1>($x, $x)",
    "Split": "$y, rest = Split<axis=3>($x, parts)",
    "Slice": "$y = Slice($x, one, last, two)",
    "Gather": "$y = Gather<axis=1>($x, picked)",
    "GatherElements": "i = Expand(zero, shape)\n $y = GatherElements<axis=3>($x, i)",
    "MaxPool": "$y = MaxPool<kernel_shape=[2,2], strides=[2,1]>($x)",
    "Pad": "$y = Pad($x, pads, $fill)",
    "Expand": "u = Unsqueeze($x, zero)\n $y = Expand(u, copies)",
    "Tile": "$y = Tile($x, repeats)",
    "DepthToSpace": "$y = DepthToSpace<blocksize=2>($x)",
    "SpaceToDepth": "$y = SpaceToDepth<blocksize=2>($x)",
    "Where": "i = Expand(zero, shape)\n m = Equal(i, zero)\n $y = Where(m, $x, $fill)",
    "Max": "$y = Max($x, $fill)",
    "Resize": '$y = Resize<mode="nearest">($x, , scales)',
}
# The number of axes of y where it is not four.
AXES = {"Expand": 5, "Gather": 5, "Reshape": 2, "Flatten": 2}
CONSTANTS = {
    "zero": np.array([0]),
    "one": np.array([1]),
    "two": np.array([2]),
    "last": np.array([-1]),
    "four": np.array([4, -1]),
    "parts": np.array([1, 3]),
    "picked": np.array([[0, 3, 3]]),
    "shape": np.array([2, 4, 4, 4]),
    "pads": np.array([0, 1, 0, 2, 0, 0, 1, 0]),
    "copies": np.array([2, 2, 4, 4, 4]),
    "repeats": np.array([1, 2, 1, 1]),
    "scales": np.array([1, 1, 2, 1.5], np.float32),
    "s": np.float32(0.02),
    "z": np.uint8(120),
    "none": np.float32(0),
}


@pytest.mark.parametrize("name", MOVING)
def test_codes_are_handed_on(name: str, model: Build, run: Any) -> None:
    operator = Template(MOVING[name])
    axes = ", ".join(f"n{i}" for i in range(AXES.get(name, 4)))
    signature = f"(float[2, 4, 4, 4] x) => (float[{axes}] y)"
    codes = operator.substitute(x="q", y="c", fill="z")
    quantised = model(
        f"{signature} {{ q = QuantizeLinear(x, s, z)\n {codes}\n y = DequantizeLinear(c, s, z) }}",
        CONSTANTS,
    )
    reals = operator.substitute(x="x", y="y", fill="none")
    twin = model(f"{signature} {{ {reals} }}", CONSTANTS)
    x = (RNG.integers(-100, 100, size=(2, 4, 4, 4)) * 0.02).astype(np.float32)
    (expected,) = run(twin, {"x": x})
    v = RNG.normal(size=expected.shape).astype(np.float32)
    y, gradient = run(igonnx.gradient(quantised, wrt="x"), {"x": x, "cotangent_y": v})
    _, real_gradient = run(igonnx.gradient(twin, wrt="x"), {"x": x, "cotangent_y": v})
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(gradient, real_gradient, rtol=1e-4, atol=1e-5)


def test_integer_arithmetic_on_codes_is_refused(model: Build) -> None:
    proto = model(
        """(float[n] x) => (float[n] y) {
            q = QuantizeLinear(x, s)
            i = Cast<to=6>(q)
            k = Mul(i, i)
            y = Cast<to=1>(k)
        }""",
        {"s": np.float32(0.1)},
    )
    with pytest.raises(igonnx.UnsupportedOperatorError, match="integer arithmetic on the codes"):
        igonnx.gradient(proto)


def test_whole_numbers_that_are_no_codes_carry_nothing(model: Build, run: Any) -> None:
    proto = model(
        """(float[n] x) => (float[n] y) {
            i = Cast<to=7>(x)
            f = Cast<to=1>(i)
            g = Gather(table, i)
            t = Add(f, g)
            y = Mul(t, x)
        }""",
        {"table": np.arange(5, dtype=np.float32)},
    )
    x = np.array([1.5, 2.5], np.float32)
    y, gradient = run(igonnx.gradient(proto), {"x": x, "cotangent_y": np.ones(2, np.float32)})
    np.testing.assert_allclose(gradient, y / x)


def test_the_flag_stops_at_rounding(model: Build, run: Any) -> None:
    proto = model(
        """(float[n, 2] x) => (float[n, 2] y) {
            q = QuantizeLinear(x, s)
            d = DequantizeLinear(q, s)
            y = Mul(d, x)
        }""",
        {"s": np.float32(0.5)},
    )
    x, ones = np.array([[1.1, 3.2]], np.float32), np.ones((1, 2), np.float32)
    feeds = {"x": x, "cotangent_y": ones}
    rounded = np.array([[1.0, 3.0]])
    _, through = run(igonnx.gradient(proto), feeds)
    _, stopped = run(igonnx.gradient(proto, straight_through=False), feeds)
    np.testing.assert_allclose(through, rounded + x, rtol=1e-6)
    np.testing.assert_allclose(stopped, rounded, rtol=1e-6)
    attributions = [
        igonnx.Explainer(proto, straight_through=given).integrated_gradients(x, target=0).values
        for given in (True, False)
    ]
    assert np.abs(attributions[0]).sum() > np.abs(attributions[1]).sum() > 0


@pytest.mark.parametrize(
    "text",
    [
        "q = QuantizeLinear(x, s)\n y = DequantizeLinear(q, s)",
        "y = com.microsoft.DynamicQuantizeMatMul(x, w, s)",
    ],
)
def test_the_flag_is_named_where_it_leaves_no_path(text: str, model: Build) -> None:
    weights = {"s": np.float32(0.5), "w": np.ones((2, 2), np.int8)}
    proto = model(
        f"(float[n, 2] x) => (float[n, 2] y) {{ {text} }}", weights, domains=', "com.microsoft": 1'
    )
    igonnx.gradient(proto)
    with pytest.raises(igonnx.ModelError, match="straight_through=False"):
        igonnx.gradient(proto, straight_through=False)
