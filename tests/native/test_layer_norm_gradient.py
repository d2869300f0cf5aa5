"""The operator ai.igonnx::LayerNormGradient against NumPy in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper
from plugin_sessions import DTYPES, node, run

EPSILON = 1e-5
NAMES = ["g", "x", "scale", "mean", "inverse"]
SHAPES = [
    *(((3, n), 1) for n in (1, 2, 7, 15, 16, 17, 31, 32, 33, 65, 384, 1000)),
    *(((2, 5, 8), 1), ((2, 3, 4, 5), 2), ((7,), 1), ((0, 5), 1), ((401, 83), 1), ((2, 40000), 1)),
]


def feeds_for(shape: tuple[int, ...], axes: int, dtype: type, seed: int = 0) -> dict[str, Any]:
    """Random inputs normalised over the last `axes` axes."""
    rng = np.random.default_rng(seed)
    g, x = rng.standard_normal((2, *shape))
    over = tuple(range(-axes, 0))
    x = 3 * x + 2
    feeds = {
        "g": g,
        "x": x,
        "scale": rng.standard_normal(shape[-axes:]),
        "mean": x.mean(over, keepdims=True),
        "inverse": 1 / np.sqrt(x.var(over, keepdims=True) + EPSILON),
    }
    return {name: array.astype(dtype) for name, array in feeds.items()}


def expected(feeds: dict[str, Any], axes: int) -> NDArray[np.float64]:
    g, x, scale, mean, inverse = (feeds[name].astype(np.float64) for name in NAMES)
    over = tuple(range(-axes, 0))
    h, n = g * scale, (x - mean) * inverse
    along = (h * n).mean(over, keepdims=True)
    return np.asarray((h - h.mean(over, keepdims=True) - n * along) * inverse)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axes"), SHAPES, ids=str)
def test_it_equals_numpy(dtype: type, shape: tuple[int, ...], axes: int) -> None:
    feeds = feeds_for(shape, axes, dtype)
    (dx,) = run([node("LayerNormGradient", NAMES, ["dx"])], dtype, feeds, ["dx"])
    assert dx.dtype == dtype
    assert dx.shape == shape
    wanted = expected(feeds, axes)
    size = np.abs(feeds["g"]).max(initial=1) * np.abs(feeds["inverse"]).max(initial=1)
    np.testing.assert_allclose(dx, wanted, rtol=0, atol=64 * np.finfo(dtype).eps * size)
    other = np.random.default_rng(9).standard_normal(shape).astype(dtype)
    nodes = [node("LayerNormGradient", [*NAMES, "other"], ["dx"])]
    (total,) = run(nodes, dtype, {**feeds, "other": other}, ["dx"])
    np.testing.assert_allclose(total, dx + other, rtol=0, atol=4 * np.finfo(dtype).eps * size)


def test_it_is_the_slope_of_the_normalisation() -> None:
    feeds = feeds_for((4, 33), 1, np.float64)
    direction = np.random.default_rng(1).standard_normal((4, 33))

    def value(x: NDArray[Any]) -> float:
        centred = x - x.mean(-1, keepdims=True)
        normal = centred / np.sqrt(x.var(-1, keepdims=True) + EPSILON)
        return float((feeds["g"] * normal * feeds["scale"]).sum())

    step = 1e-6
    ends = [value(feeds["x"] + sign * step * direction) for sign in (1, -1)]
    (dx,) = run([node("LayerNormGradient", NAMES, ["dx"])], np.float64, feeds, ["dx"])
    assert (dx * direction).sum() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)


def test_in_place_of_an_intermediate() -> None:
    """The gradient's own buffer, and the residual's."""
    feeds = feeds_for((90, 800), 1, np.float32)
    nodes = [
        helper.make_node("Neg", ["g"], ["h"]),
        helper.make_node("Neg", ["x"], ["r"]),
        node("LayerNormGradient", ["h", *NAMES[1:], "r"], ["dx"]),
    ]
    (dx,) = run(nodes, np.float32, feeds, ["dx"])
    np.testing.assert_allclose(dx, -expected(feeds, 1) - feeds["x"], rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("x", (2, 3), "gradient and x differ in shape"),
        ("other", (4, 1), "residual and x differ in shape"),
        ("scale", (2,), "scale, mean and inverse do not fit the rows of x"),
        ("mean", (3, 1), "scale, mean and inverse do not fit the rows of x"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, shape: tuple[int, ...], message: str) -> None:
    feeds = {**feeds_for((4, 3), 1, np.float32), "other": np.zeros((4, 3), np.float32)}
    feeds[name] = np.zeros(shape, np.float32)
    nodes = [node("LayerNormGradient", [*NAMES, "other"], ["dx"])]
    with pytest.raises(Exception, match=f"LayerNormGradient: {message}"):
        run(nodes, np.float32, feeds, ["dx"])
