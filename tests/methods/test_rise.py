"""RISE: its masks, closed forms, and that it finds what a model looks at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from skimage.transform import resize

import igonnx
from igonnx.methods.rise import Masking

Build = Callable[..., onnx.ModelProto]


def _dot(model: Build, w: NDArray[Any]) -> igonnx.Explainer:
    """y = sum(w x), for x of the shape of w."""
    shape = ", ".join(map(str, w.shape))
    graph = model(
        f"""(float[N, {shape}] x) => (float[N] y) {{
            p = Mul(x, w)
            f = Flatten(p)
            y = ReduceSum<keepdims = 0>(f, one)
        }}""",
        {"w": w.astype(np.float32), "one": np.array([1])},
    )
    return igonnx.Explainer(graph)


# -- masks --------------------------------------------------------------------------------------


def test_masks_are_interpolated_and_shifted() -> None:
    """As the paper has them, by scikit-image: seven cells of 4 by 3 pixels, eight of them large, cut at the shift."""
    stencil = Masking(20, 7, 0.5, {}).stencils({"x": np.zeros((2, 3, 28, 21))}, seed=3)["x"]
    found = stencil.masks(4, 16).reshape(12, 28, 21)
    shifts = set()
    for mask, number in zip(found, range(4, 16), strict=True):
        large = resize(
            stencil.cells[number].astype(float), (32, 24), order=1, mode="edge", anti_aliasing=False
        )
        down, right = (int(shift[number]) for shift in stencil.shifts)
        np.testing.assert_allclose(mask, large[down : down + 28, right : right + 21], atol=1e-6)
        shifts.add((down, right))
    assert len(shifts) > 4
    assert {down for down, _ in shifts} <= set(range(4))
    assert {right for _, right in shifts} <= set(range(3))


@pytest.mark.parametrize("probability", [0.2, 0.5, 0.9])
def test_a_place_is_as_often_seen_as_it_should(probability: float) -> None:
    stencil = Masking(3000, 5, probability, {}).stencils({"x": np.zeros((1, 23, 17))}, seed=0)["x"]
    masks = stencil.masks(0, 3000)
    assert masks.min() == 0
    assert masks.max() == 1
    np.testing.assert_allclose(masks.mean(axis=0), probability, atol=0.05)
    assert abs(masks.mean() - probability) < 0.01


@pytest.mark.parametrize(
    ("shape", "axes", "masked"),
    [
        ((3, 8, 9), None, (8, 9)),
        ((8, 9, 3), None, (8, 9)),
        ((8, 9), None, (8, 9)),
        ((8,), None, (8,)),
        ((1, 4, 5, 6), None, (4, 5, 6)),
        ((4, 5, 6, 3), None, (4, 5, 6)),
        ((5, 6), (0,), (5,)),
        ((4, 5, 6), (2, 0), (4, 6)),
        ((), None, ()),
    ],
    ids=str,
)
def test_masked_axes(shape: tuple[int, ...], axes: Any, masked: tuple[int, ...]) -> None:
    masking = Masking(6, 3, 0.5, {} if axes is None else {"x": axes})
    stencil = masking.stencils({"x": np.zeros((2, *shape))}, seed=0)["x"]
    assert stencil.masks(0, 6).shape == (6, int(np.prod(masked)))
    index = stencil.index(10)
    assert index.shape == (1, *shape)
    assert sorted(set(index.ravel().tolist())) == list(range(10, 10 + int(np.prod(masked))))


# -- what comes out -----------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_it_finds_where_a_model_looks(model: Build, layout: str) -> None:
    w = np.zeros((24, 20))
    w[12:18, 3:8] = 1
    channels = 0 if layout == "NCHW" else -1
    explainer = _dot(model, np.stack([w] * 3, axis=channels))
    x = 1 + np.random.default_rng(0).random((2, *((3, 24, 20) if channels == 0 else (24, 20, 3))))
    found = explainer.rise(x.astype(np.float32), masks=600, centred=True)
    values = np.asarray(found.values)
    assert values.shape == x.shape
    maps = np.moveaxis(values, 1 + channels if channels == 0 else -1, 1)
    np.testing.assert_array_equal(maps[:, 0], maps[:, 1])
    for picture in maps[:, 0]:
        peak = np.unravel_index(picture.argmax(), picture.shape)
        assert w[peak] == 1
        assert picture[w == 1].min() > np.quantile(picture[w == 0], 0.85)
    assert found.steps_used.tolist() == [600, 600]
    assert found.path == []


@pytest.mark.parametrize("probability", [0.3, 0.5])
def test_a_linear_model_of_single_places(model: Build, probability: float) -> None:
    """Each place seen or not by itself: the mean score while it is seen, (1 - p) w x above p sum(w x)."""
    rng = np.random.default_rng(2)
    w, x = rng.normal(size=6), rng.normal(size=(2, 6)).astype(np.float32)
    settings: dict[str, Any] = {"masks": 20_000, "grid": 6, "probability": probability}
    explainer = _dot(model, w)
    plain, centred = (explainer.rise(x, **settings, centred=c) for c in (False, True))
    own = (1 - probability) * w * x
    start = probability * (w * x).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(plain.values, start + own, atol=0.1)
    np.testing.assert_allclose(centred.values, own, atol=0.1)
    apart = np.asarray(plain.values) - centred.values
    np.testing.assert_allclose(apart, np.broadcast_to(apart[:, :1], (2, 6)), atol=1e-5)


def test_by_the_definition(model: Build) -> None:
    """sum(score mask) / sum(mask), with a baseline behind the masks."""
    rng = np.random.default_rng(4)
    w, x = rng.normal(size=(3, 10, 11)), rng.normal(size=(2, 3, 10, 11)).astype(np.float32)
    found = _dot(model, w).rise(x, masks=50, grid=4, seed=6, baseline=0.5)
    masks = Masking(50, 4, 0.5, {}).stencils({"x": x}, seed=6)["x"].masks(0, 50)
    masks = masks.reshape(50, 1, 10, 11).astype(float)
    for example in range(2):
        scores = ((0.5 + masks * (x[example] - 0.5)) * w).sum(axis=(1, 2, 3))
        expected = np.tensordot(scores, masks, axes=1) / masks.sum(axis=0)
        np.testing.assert_allclose(
            found.values[example],  # type: ignore[index]
            np.broadcast_to(expected, (3, 10, 11)),
            atol=1e-4,
        )


def test_a_place_never_seen_is_zero(model: Build) -> None:
    x = np.ones((1, 5), np.float32)
    found = _dot(model, np.ones(5)).rise(x, masks=1, grid=5, seed=1)
    values = np.asarray(found.values)[0]
    masks = Masking(1, 5, 0.5, {}).stencils({"x": x}, seed=1)["x"].masks(0, 1)[0]
    assert 0 < masks.sum() < 5
    np.testing.assert_allclose(values, masks * masks.sum())


def test_masks_converge(model: Build) -> None:
    rng = np.random.default_rng(0)
    explainer, x = _dot(model, rng.normal(size=(9, 8))), rng.normal(size=(1, 9, 8))
    x = x.astype(np.float32)

    def run(masks: int, seed: int) -> NDArray[np.float64]:
        return np.asarray(explainer.rise(x, masks=masks, seed=seed, centred=True).values)

    best = np.mean([run(4000, seed) for seed in range(100, 108)], axis=0)
    few, many = (
        np.mean([np.linalg.norm(run(masks, seed) - best) for seed in range(10)])
        for masks in (50, 800)
    )
    assert 2.5 < few / many < 6.5  # 4, on the average


def test_several_tensors(model: Build) -> None:
    """Each by masks of its own: what one decides says nothing of the other."""
    graph = model(
        """(float[N, 1, 8, 8] picture, float[N, 12] series) => (float[N] y) {
            f = Flatten(picture)
            s = ReduceSum<keepdims = 0>(f, one)
            z = Mul(series, none)
            t = ReduceSum<keepdims = 0>(z, one)
            y = Add(s, t)
        }""",
        {"one": np.array([1]), "none": np.float32(0)},
    )
    inputs = {"picture": np.ones((2, 1, 8, 8), np.float32), "series": np.ones((2, 12), np.float32)}
    explainer = igonnx.Explainer(graph)
    found = explainer.rise(inputs, masks=2000, grid=2, centred=True, axes={"series": (0,)})
    values = found.values
    assert isinstance(values, dict)
    assert values["series"].shape == (2, 12)
    assert values["picture"].min() > 3
    assert np.abs(values["series"]).max() < 1


def test_seeds(model: Build) -> None:
    explainer, x = _dot(model, np.arange(40.0)), np.ones((1, 40), np.float32)

    def run(seed: int) -> NDArray[np.float64]:
        return np.asarray(explainer.rise(x, masks=20, seed=seed).values)

    np.testing.assert_array_equal(run(1), run(1))
    assert np.abs(run(1) - run(2)).max() > 1


# -- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"masks": 0}, "masks is 0; expected a whole number of at least 1"),
        ({"grid": 0}, "grid is 0; expected a whole number of at least 1"),
        ({"probability": 0}, "probability is 0; expected a number above 0 and at most 1"),
        ({"probability": 1}, "probability is 1; expected less"),
        ({"centred": "no"}, "centred is 'no'; expected True or False"),
        ({"axes": 1}, "axes is 1; expected whole numbers of at least 0"),
        ({"axes": ()}, "axes is (); expected whole numbers of at least 0"),
        ({"axes": (-1,)}, "axes is (-1,); expected whole numbers of at least 0"),
        ({"axes": (2,)}, "axes is (2,); expected axes of 'x', which has 1 beside that"),
        ({"axes": {"z": (0,)}}, "axes for 'z', which is not explained; expected 'x'"),
    ],
    ids=str,
)
def test_wrong_arguments(model: Build, settings: dict[str, Any], message: str) -> None:
    explainer = _dot(model, np.ones(5))
    with pytest.raises(igonnx.InputError) as caught:
        explainer.rise(np.ones((1, 5), np.float32), **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
