"""The operator ai.igonnx::SoftmaxGradient against NumPy in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper
from plugin_sessions import DTYPES, node, run

# Around the 32 and 16 lanes of a sum, and around the 32,768 elements that a thread takes at once.
SHAPES = [
    *((3, n) for n in (1, 2, 7, 15, 16, 17, 31, 32, 33, 63, 65, 197, 1000)),
    *((5, 0), (0, 5), (1,), (2, 3, 4, 5), (12, 128, 128), (401, 83), (2, 40000)),
]


def softmax(x: NDArray[Any]) -> NDArray[np.float64]:
    powers = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True, initial=-np.inf))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def expected(g: NDArray[Any], y: NDArray[Any], scale: float = 1.0) -> NDArray[np.float64]:
    g, y = g.astype(np.float64), y.astype(np.float64)
    return np.asarray(scale * y * (g - (g * y).sum(-1, keepdims=True)))


def given(dtype: type, g: NDArray[Any], y: NDArray[Any], **attributes: Any) -> NDArray[Any]:
    nodes = [node("SoftmaxGradient", ["g", "y"], ["dx"], **attributes)]
    (dx,) = run(nodes, dtype, {"g": g, "y": y}, ["dx"])
    assert dx.dtype == dtype
    assert dx.shape == g.shape
    return dx


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_equals_numpy(dtype: type, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    g = rng.standard_normal(shape).astype(dtype)
    y = softmax(3 * rng.standard_normal(shape)).astype(dtype)
    for scale in (1.0, 0.125):
        dx = given(dtype, g, y, scale=scale)
        tolerance = 8 * np.finfo(dtype).eps * np.abs(g).max(initial=1.0)
        np.testing.assert_allclose(dx, expected(g, y, scale), rtol=0, atol=tolerance)


def test_it_is_the_slope_of_softmax() -> None:
    rng = np.random.default_rng(1)
    x, g, direction = rng.standard_normal((3, 4, 33))
    step = 1e-6
    difference = softmax(x + step * direction) - softmax(x - step * direction)
    slope = (g * difference).sum() / (2 * step)
    assert (given(np.float64, g, softmax(x)) * direction).sum() == pytest.approx(slope, rel=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_rows_count_as_zeros(dtype: type) -> None:
    """Rows of NaN give zeros; one element that is NaN leaves the others to themselves."""
    rng = np.random.default_rng(2)
    g = rng.standard_normal((4, 37)).astype(dtype)
    y = softmax(rng.standard_normal((4, 37))).astype(dtype)
    y[1], y[2, 5] = np.nan, np.nan
    g[1, :3] = np.nan
    clean = np.where(np.isnan(y), 0, y)
    wanted = expected(np.where(np.isnan(y), 0, g), clean)
    np.testing.assert_allclose(given(dtype, g, y, masked=1), wanted, rtol=0, atol=1e-6)
    plain = given(dtype, g, y)
    assert np.isnan(plain[1:3]).all()
    assert np.isfinite(plain[[0, 3]]).all()


@pytest.mark.parametrize("kept", ["g", "y"])
def test_in_place_of_an_intermediate(kept: str) -> None:
    nodes = [
        helper.make_node("Neg", ["g"], ["h"]),
        helper.make_node("Neg", ["y"], ["z"]),
        node("SoftmaxGradient", ["h", "z"], ["d"]),
        helper.make_node("Sum", ["d", "h" if kept == "g" else "z"], ["dx"]),
    ]
    rng = np.random.default_rng(3)
    g, y = rng.standard_normal((2, 60, 700)).astype(np.float32)
    (dx,) = run(nodes, np.float32, {"g": g, "y": y}, ["dx"])
    wanted = expected(-g, -y) - (g if kept == "g" else y)
    np.testing.assert_allclose(dx, wanted, rtol=1e-4, atol=1e-3)


def test_threads_do_not_change_the_numbers() -> None:
    rng = np.random.default_rng(4)
    g, y = rng.standard_normal((2, 900, 197)).astype(np.float32)
    nodes = [node("SoftmaxGradient", ["g", "y"], ["dx"])]
    one, two = (run(nodes, np.float32, {"g": g, "y": y}, ["dx"], threads=n)[0] for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_different_shapes_are_refused() -> None:
    g = np.zeros((2, 3), np.float32)
    with pytest.raises(Exception, match="SoftmaxGradient: gradient and output differ in shape"):
        given(np.float32, g, g[:1])
