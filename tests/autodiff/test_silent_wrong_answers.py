"""Gradients that other tools are known to get wrong without a word, each against central differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import igonnx

from rule_cases.check import session  # isort: skip

Array = NDArray[Any]
Build = Callable[..., onnx.ModelProto]


def wrong_by(proto: onnx.ModelProto, feeds: Mapping[str, Array], wrt: str, step: float) -> float:
    """The largest difference between the gradient and central differences, over the largest of these."""
    rng = np.random.default_rng(11)
    output = proto.graph.output[0].name
    forward = session(proto)
    above = np.asarray(forward.run([output], dict(feeds))[0])
    cotangent = np.asarray(rng.standard_normal(above.shape), above.dtype)
    gradient_model = igonnx.gradient(proto, wrt=[wrt], output=output)
    (given,) = session(gradient_model).run(
        [f"grad_{wrt}"], {**feeds, f"cotangent_{output}": cotangent}
    )
    expected = np.zeros(given.shape)
    for index in np.ndindex(given.shape):
        ends = []
        for sign in (1, -1):
            moved = feeds[wrt].copy()
            moved[index] += sign * step
            ends.append(forward.run([output], {**feeds, wrt: moved})[0].astype(np.float64))
        expected[index] = np.sum((ends[0] - ends[1]) * cotangent) / (2 * step)
    assert np.abs(expected).max() > 0
    return float(np.abs(given - expected).max() / max(1.0, np.abs(expected).max()))


def ramp(*shape: int, low: float = -1.0, high: float = 1.0) -> Array:
    """Values that all differ, in no order."""
    rng = np.random.default_rng(3)
    size = int(np.prod(shape))
    return (low + (high - low) * (rng.permutation(size) + 0.5) / size).reshape(shape)


SMOOTH = {
    "ReduceSum over no axes is all": (
        "(double[2, 3] x) => (double[N, M] y) { s = Mul(x, x) y = ReduceSum(s, axes) }",
        {"x": ramp(2, 3)},
        {"axes": np.array([], np.int64)},
    ),
    "ReduceMean over no axes is nothing": (
        "(double[2, 3] x) => (double[N, M] y) { s = Mul(x, x) y = ReduceMean<noop_with_empty_axes=1>(s, axes) }",
        {"x": ramp(2, 3)},
        {"axes": np.array([], np.int64)},
    ),
    "ReduceMax over axes fed at run time": (
        "(double[2, 3] x, int64[K] axes) => (double[N, M] y) { y = ReduceMax(x, axes) }",
        {"x": ramp(2, 3), "axes": np.array([1])},
        {},
    ),
    "Split with one part used": (
        "(double[2, 6] x) => (double[2, 2] y) { a, b, c = Split<axis=1, num_outputs=3>(x) y = Mul(b, b) }",
        {"x": ramp(2, 6)},
        {},
    ),
    "Dropout at inference": (
        "(double[2, 6] x) => (double[2, 6] y) { d = Dropout(x, ratio) y = Mul(d, d) }",
        {"x": ramp(2, 6)},
        {"ratio": np.array(0.5, np.float32)},
    ),
    "Slice with step 2": (
        "(double[7] x) => (double[3] y) { s = Slice(x, a, b, c, d) y = Mul(s, s) }",
        {"x": ramp(7)},
        {"a": np.array([1]), "b": np.array([7]), "c": np.array([0]), "d": np.array([2])},
    ),
    "Slice backwards": (
        "(double[7] x) => (double[N] y) { s = Slice(x, a, b, c, d) y = Mul(s, s) }",
        {"x": ramp(7)},
        {"a": np.array([-2]), "b": np.array([-8]), "c": np.array([0]), "d": np.array([-3])},
    ),
    **{
        f"Pad {mode}": (
            f'(double[2, 4] x) => (double[N, M] y) {{ p = Pad<mode="{mode}">(x, pads) y = Mul(p, p) }}',
            {"x": ramp(2, 4)},
            {"pads": np.array([1, 2, 0, 3])},
        )
        for mode in ("reflect", "edge", "wrap")
    },
    **{
        f"Scatter{kind} {reduction}": (
            "(double[4, 3] x, double[5, 3] u) => (double[4, 3] y) "
            f'{{ s = Scatter{kind}<reduction="{reduction}">(x, i, u) y = Mul(s, s) }}',
            {"x": ramp(4, 3, low=0.4, high=2.0), "u": ramp(5, 3, low=0.5, high=1.7)},
            {"i": index},
        )
        for kind, index in {
            "ND": np.array([[1], [3], [1], [1], [0]]),
            "Elements": np.array([[1, 0, 2], [3, 0, 0], [1, 1, 1], [1, -4, 2], [0, 2, 3]]),
        }.items()
        for reduction in ("add", "mul", "max", "min")
    },
}


@pytest.mark.parametrize("name", list(SMOOTH))
def test_in_double_precision(model: Build, name: str) -> None:
    text, feeds, weights = SMOOTH[name]
    proto = model(text, weights, opset=19, ir_version=9)
    for wrt in (key for key, value in feeds.items() if value.dtype.kind == "f"):
        assert wrong_by(proto, feeds, wrt, 1e-6) < 1e-6


# Without double kernels in onnxruntime; linear in x, so that a long step does no harm.
LINEAR = {
    "AveragePool with ceil_mode": "AveragePool<kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1>(x)",
    "AveragePool over its padding": (
        "AveragePool<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1>(x)"
    ),
    "AveragePool beside its padding": "AveragePool<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]>(x)",
    **{
        f"AveragePool {same}": f'AveragePool<kernel_shape=[2, 3], strides=[2, 2], auto_pad="{same}">(x)'
        for same in ("SAME_UPPER", "SAME_LOWER")
    },
    **{
        f"Conv {same}": f'Conv<strides=[2, 2], auto_pad="{same}">(x, w)'
        for same in ("SAME_UPPER", "SAME_LOWER", "VALID")
    },
}


@pytest.mark.parametrize("sizes", ["[1, 2, 7, 6]", "[N, 2, H, W]"])
@pytest.mark.parametrize("name", list(LINEAR))
def test_windows(model: Build, name: str, sizes: str) -> None:
    text = f"(float{sizes} x) => (float[n, c, h, w] y) {{ y = {LINEAR[name]} }}"
    weights = {"w": ramp(3, 2, 3, 2).astype(np.float32)} if "Conv" in name else {}
    proto = model(text, weights, opset=19, ir_version=9)
    assert wrong_by(proto, {"x": ramp(1, 2, 7, 6).astype(np.float32)}, "x", 0.5) < 1e-5


def test_determinant(model: Build) -> None:
    proto = model("(float[2, 3, 3] x) => (float[2] y) { y = Det(x) }")
    # Linear in every single element.
    assert wrong_by(proto, {"x": ramp(2, 3, 3).astype(np.float32)}, "x", 0.5) < 1e-5


@pytest.mark.parametrize("wrt", ["x", "scale", "shift", "mean", "variance"])
def test_batch_normalisation_by_its_statistics(model: Build, wrt: str) -> None:
    proto = model(
        """(float[2, 3, 4] x, float[3] scale, float[3] shift, float[3] mean, float[3] variance) => (float[2, 3, 4] y) {
            y = BatchNormalization(x, scale, shift, mean, variance)
        }"""
    )
    feeds = {name: ramp(3).astype(np.float32) for name in ("scale", "shift", "mean")}
    feeds |= {"x": ramp(2, 3, 4).astype(np.float32)}
    feeds |= {"variance": ramp(3, low=1.0, high=2.0).astype(np.float32)}
    assert wrong_by(proto, feeds, wrt, 1e-2) < 2e-3


def test_exponent_of_a_negative_base(model: Build) -> None:
    proto = model("(double[4] x, double[4] p) => (double[4] y) { y = Pow(x, p) }")
    feeds = {"x": np.array([-2.0, 2.0, -1.5, 3.0]), "p": np.array([2.0, 1.5, 3.0, -0.5])}
    gradients = session(igonnx.gradient(proto)).run(
        ["grad_x", "grad_p"], {**feeds, "cotangent_y": np.ones(4)}
    )
    x, p = feeds["x"], feeds["p"]
    np.testing.assert_allclose(gradients[0], p * x ** (p - 1), rtol=1e-12)
    # A negative base has powers at whole exponents only: no derivative by the exponent, and no NaN either.
    positive = np.log(np.abs(x)) * x**p * (x > 0)
    np.testing.assert_allclose(gradients[1], positive, rtol=1e-12)


def test_masked_attention(model: Build) -> None:
    """Some entries of minus infinity, a whole row of them replaced by zeros: finite gradients, and right ones."""
    proto = model(
        """(double[3, 4] q, double[5, 4] k, bool[3, 5] mask) => (double[3, 4] y) {
            t = Transpose<perm=[1, 0]>(k)
            s = MatMul(q, t)
            m = Where(mask, s, low)
            a = Softmax(m)
            n = IsNaN(a)
            p = Where(n, zero, a)
            y = MatMul(p, k)
        }""",
        {"low": np.array(-np.inf), "zero": np.array(0.0)},
    )
    mask = np.array([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]], bool)
    feeds = {"q": ramp(3, 4), "k": ramp(5, 4), "mask": mask}
    for wrt in ("q", "k"):
        assert wrong_by(proto, feeds, wrt, 1e-6) < 1e-6


@pytest.mark.parametrize("condition", [True, False])
def test_branches_of_different_shapes(model: Build, condition: bool) -> None:
    proto = model(
        """(bool c, double[2, 3] x) => (double[n] y) {
            y = If(c)<
                then_branch = t () => (ty) { a = Exp(x) ty = ReduceSum<keepdims=0>(a, axis) },
                else_branch = e () => (ey) { b = Sin(x) ey = Reshape(b, flat) }
            >
        }""",
        {"axis": np.array([0]), "flat": np.array([-1])},
    )
    assert wrong_by(proto, {"c": np.array(condition), "x": ramp(2, 3)}, "x", 1e-6) < 1e-6


@pytest.mark.parametrize("condition", [True, False])
def test_lstm_in_a_branch(model: Build, condition: bool) -> None:
    rng = np.random.default_rng(0)
    proto = model(
        """(bool c, float[4, 2, 3] x) => (float[t, b, h] y) {
            y = If(c)<
                then_branch = th () => (ty) {
                    s, f, g = LSTM<hidden_size=5, direction="bidirectional">(x, w, r, b)
                    ty = ReduceSum<keepdims=0>(s, axis)
                },
                else_branch = el () => (ey) { ey = Mul(x, x) }
            >
        }""",
        {
            "w": rng.standard_normal((2, 20, 3)).astype(np.float32),
            "r": rng.standard_normal((2, 20, 5)).astype(np.float32),
            "b": rng.standard_normal((2, 40)).astype(np.float32),
            "axis": np.array([1]),
        },
    )
    feeds = {"c": np.array(condition), "x": ramp(4, 2, 3).astype(np.float32)}
    assert wrong_by(proto, feeds, "x", 1e-2) < 3e-3


@pytest.mark.parametrize("operator", ["ReduceL2<keepdims=0>(x, axes)", "LpNormalization(x)"])
def test_norms_at_exactly_zero(model: Build, operator: str) -> None:
    proto = model(
        f"(double[2, 3] x) => (double y) {{ z = {operator} y = ReduceSum<keepdims=0>(z) }}",
        {"axes": np.array([1])},
        opset=22,
        ir_version=10,
    )
    x = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0]])
    (given,) = session(igonnx.gradient(proto)).run(
        ["grad_x"], {"x": x, "cotangent_y": np.array(1.0)}
    )
    np.testing.assert_array_equal(given[0], 0.0)
    assert np.isfinite(given).all()


def test_a_gradient_that_is_not_finite_is_reported(model: Build) -> None:
    root = model("(float[N, 2] x) => (float[N, 2] y) { y = Sqrt(x) }")
    with pytest.raises(igonnx.EngineError, match=r"not finite.*alpha"):
        igonnx.Explainer(root).integrated_gradients(
            np.ones((1, 2), np.float32), target=0, rule="trapezoid", steps=4
        )
