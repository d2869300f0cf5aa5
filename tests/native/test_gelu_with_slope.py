"""The operator ai.igonnx::GeluWithSlope against SciPy in double precision."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from plugin_sessions import DTYPES, node, run
from scipy.special import expit, ndtr

LENGTHS = [0, 1, 2, 7, 15, 16, 17, 31, 33, 63, 65, 1000, 16383, 16385, 50001]


def expected(x: NDArray[Any], tanh: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gelu and its slope: x Phi(x), or x sigmoid(2 c (x + a x^3))."""
    x = x.astype(np.float64)
    if not tanh:
        return x * ndtr(x), ndtr(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    c, a = 2 * math.sqrt(2 / math.pi), 0.044715
    s = expit(c * (x + a * x**3))
    other = expit(-c * (x + a * x**3))
    return x * s, s + x * s * other * c * (1 + 3 * a * x * x)


def given(
    dtype: type, x: NDArray[Any], tanh: int, bias: NDArray[Any] | None = None
) -> list[NDArray[Any]]:
    names = ["x"] if bias is None else ["x", "bias"]
    feeds = {"x": x} if bias is None else {"x": x, "bias": bias}
    return run(
        [node("GeluWithSlope", names, ["y", "slope"], tanh=tanh)], dtype, feeds, ["y", "slope"]
    )


@pytest.mark.parametrize("tanh", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_length_equals_scipy(dtype: type, tanh: int) -> None:
    """In single precision to 3e-7 of the larger of 1 and |x|, in double to a few units in the last place."""
    tolerance = 3e-7 if dtype == np.float32 else 1e-14
    rng = np.random.default_rng(0)
    for length in LENGTHS:
        x = (4 * rng.standard_normal(length)).astype(dtype)
        for result, wanted in zip(given(dtype, x, tanh), expected(x, tanh), strict=True):
            assert result.dtype == dtype
            assert result.shape == x.shape
            error = np.abs(result - wanted) / np.maximum(1, np.abs(x))
            assert error.max(initial=0) <= tolerance, f"{length}"


@pytest.mark.parametrize("tanh", [0, 1])
def test_the_whole_range_of_single_precision(tanh: int) -> None:
    x = np.concatenate([np.linspace(-20, 20, 200001), -np.logspace(-38, 38, 500)])
    x = np.concatenate([x, -x]).astype(np.float32)
    value, slope = given(np.float32, x, tanh)
    with np.errstate(over="ignore"):
        wanted, wanted_slope = expected(np.clip(x.astype(np.float64), -1e6, 1e6), tanh)
    wanted = np.where(np.abs(x) > 1e6, np.maximum(x, 0), wanted)
    assert (np.abs(value - wanted) / np.maximum(1, np.abs(x))).max() <= 3e-7
    assert np.abs(slope - wanted_slope).max() <= 5e-7


@pytest.mark.parametrize("tanh", [0, 1])
def test_it_is_the_slope(tanh: int) -> None:
    x, step = np.linspace(-7, 7, 301), 1e-6
    ends = [given(np.float64, x + sign * step, tanh)[0] for sign in (1, -1)]
    slope = given(np.float64, x, tanh)[1]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=0, atol=1e-8)


@pytest.mark.parametrize("tanh", [0, 1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite(dtype: type, tanh: int) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1.0] * 9, dtype)
    value, slope = (result[:3] for result in given(dtype, x, tanh))
    np.testing.assert_array_equal(value, np.array([np.nan, np.inf, np.nan], dtype))
    np.testing.assert_allclose(slope, np.array([np.nan, 1, 0], dtype), atol=1e-30)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(5,), (3, 7), (2, 3, 33), (70, 1000), (3, 0), (1, 20000)], ids=str
)
def test_a_bias_is_added(dtype: type, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    x, bias = rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape[-1]).astype(dtype)
    for tanh in (0, 1):
        results = zip(given(dtype, x, tanh, bias), given(dtype, x + bias, tanh), strict=True)
        for result, wanted in results:
            np.testing.assert_allclose(result, wanted, rtol=0, atol=4 * np.finfo(dtype).eps)


def test_a_bias_of_another_length_is_refused() -> None:
    with pytest.raises(Exception, match="GeluWithSlope: the bias does not fit the last axis of x"):
        given(np.float32, np.zeros((2, 3), np.float32), 0, np.zeros(2, np.float32))
