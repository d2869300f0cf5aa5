"""Baselines by name, several of them, and those of inner tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from scipy import ndimage

import igonnx
from igonnx.baselines import NAMED, baselines_of

Build = Callable[..., onnx.ModelProto]

# Layouts, and for each the axes that lie within a channel.
SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "NCHW": ((2, 3, 16, 9), (2, 3)),
    "NHWC": ((2, 16, 9, 3), (1, 2)),
    "grey": ((2, 1, 16, 9), (2, 3)),
    "NCT": ((2, 4, 21), (2,)),
    "NCDHW": ((2, 3, 5, 6, 7), (2, 3, 4)),
}
CLOSED_FORMS: dict[str, Callable[..., NDArray[Any]]] = {
    "black": np.min,
    "white": np.max,
    "mean": np.mean,
}


def _random(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _one(given: Any, x: NDArray[Any], seed: int = 0) -> NDArray[Any]:
    (found,) = baselines_of(given, {"x": x}, x.dtype, seed)
    assert found["x"].flags.c_contiguous
    return found["x"]


# -- by name -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLOSED_FORMS)
@pytest.mark.parametrize("layout", SHAPES)
def test_one_colour(layout: str, name: str) -> None:
    shape, axes = SHAPES[layout]
    x = _random(shape)
    expected = CLOSED_FORMS[name](x.astype(np.float64), axis=axes, keepdims=True)
    found = _one(name, x)
    assert found.shape == shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.broadcast_to(expected, shape), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("layout", SHAPES)
def test_blurred(layout: str) -> None:
    shape, axes = SHAPES[layout]
    x, width = _random(shape), min(shape[axis] for axis in axes) / 8
    expected = x.astype(np.float64)
    for axis in axes:  # a Gaussian is one along each axis after the other
        expected = ndimage.gaussian_filter1d(expected, width, axis=axis, mode="nearest")
    np.testing.assert_allclose(_one("blurred", x), expected, atol=1e-6)
    plain = np.full(shape, 3, np.float32)
    np.testing.assert_allclose(_one("blurred", plain), plain, rtol=1e-6)


@pytest.mark.parametrize("layout", SHAPES)
def test_uniform(layout: str) -> None:
    shape, axes = SHAPES[layout]
    x = _random(shape)
    found = _one("uniform", x, seed=3)
    low, high = x.min(axis=axes, keepdims=True), x.max(axis=axes, keepdims=True)
    assert ((low <= found) & (found <= high)).all()
    # the same draws for every example, between its own ends
    share = (found - low) / (high - low)
    np.testing.assert_allclose(share[0], share[1], atol=1e-5)
    assert 0.4 < share.mean() < 0.6
    assert share.min() < 0.1 < 0.9 < share.max()
    np.testing.assert_array_equal(found, _one("uniform", x, seed=3))
    assert np.abs(found - _one("uniform", x, seed=4)).max() > 0.1
    np.testing.assert_array_equal(
        found[:1], _one("uniform", x[:1], seed=3)
    )  # whatever else there is


def test_each_of_several_draws_is_another() -> None:
    x = {name: _random((2, 3, 8, 8)) for name in ("a", "b")}
    several = baselines_of(["uniform"] * 3, x, np.float32, 0)
    arrays = [one[name] for one in several for name in x]
    for i, first in enumerate(arrays):
        assert all(np.abs(first - second).max() > 0.1 for second in arrays[:i])
    (alone,) = baselines_of("uniform", x, np.float32, 0)
    for name in x:
        np.testing.assert_array_equal(alone[name], several[0][name])
    (named,) = baselines_of({"a": "uniform", "b": "uniform"}, x, np.float32, 0)
    assert np.abs(named["a"] - named["b"]).max() > 0.1


@pytest.mark.parametrize("name", NAMED)
def test_tables_are_refused(name: str) -> None:
    with pytest.raises(igonnx.InputError, match=rf"^baseline '{name}' is for images and series; "):
        _one(name, _random((4, 7)))


@pytest.mark.parametrize("name", NAMED)
def test_double_precision(name: str) -> None:
    x = _random((2, 3, 8, 8)).astype(np.float64)
    assert _one(name, x).dtype == np.float64


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 3, 1, 1), (2, 1, 1)])
def test_single_points(name: str, shape: tuple[int, ...]) -> None:
    x = _random(shape)
    np.testing.assert_allclose(_one(name, x), x, rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("blur", "baseline is 'blur'; expected 'black', 'white', 'mean', 'blurred', 'uniform', a number or an array"),
        ([], "baseline is an empty list; expected at least one baseline"),
        ([0.0, "grey"], "baseline is 'grey'; expected 'black', "),
        ({"z": 0.0}, "baseline for 'z', which is not explained; expected 'x'"),
        ([np.zeros((5, 5))], "baseline of 'x' has shape [5, 5]; expected [2, 3, 8, 8], or a shape that broadcasts"),
        ([0.0] * 8, "baseline is a list of 8 numbers: one array of them, or 8 baselines? Pass "),
        ([[0.0], [1.0]], "baseline is a list of 2 lists: one array of them, or 2 baselines? Pass "),
        (np.nan, "baseline of 'x' is nan; expected finite numbers"),
    ],
    ids=str,
)  # fmt: skip
def test_refused(given: Any, message: str) -> None:
    with pytest.raises(igonnx.InputError) as caught:
        _one(given, _random((2, 3, 8, 8)))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


# -- several, through the explainer ------------------------------------------------------------


@pytest.fixture(scope="module")
def images(model: Build) -> onnx.ModelProto:
    """Images [N, 2, 4, 5] -> three classes, with a tensor "inner" [N, 2, 4, 5] on the way."""
    weights = {"k": _random((2, 2, 3, 3), 1) / 3, "w": _random((40, 3), 2) / 3}
    return model(
        """(float[N, 2, 4, 5] x) => (float[N, 3] y) {
            c = Conv<pads = [1, 1, 1, 1]>(x, k)
            inner = Tanh(c)
            f = Flatten(inner)
            t = MatMul(f, w)
            y = Tanh(t)
        }""",
        weights,
    )


LISTS: list[list[Any]] = [
    [0.0, 1.0],
    ["black", "white"],
    ["uniform"] * 5,
    [None, "blurred", np.float32(0.3)],
    [_random((2, 4, 5), 5)],
    [{"x": "mean"}, {"x": 0.5}, {"x": _random((1, 2, 4, 5), 6)}],
]


@pytest.mark.parametrize("options", [{}, {"tolerance": 0.01}, {"rule": "trapezoid"}], ids=str)
@pytest.mark.parametrize("engine", ["native", "reference"])
def test_the_mean_over_several(images: onnx.ModelProto, engine: str, options: Any) -> None:
    explainer, x = igonnx.Explainer(images, engine=engine), _random((3, 2, 4, 5))
    for several in LISTS:
        found = explainer.integrated_gradients(x, target=1, baseline=several, seed=7, **options)
        arrays = [one["x"] for one in baselines_of(several, {"x": x}, np.float32, 7)]
        runs = [
            explainer.integrated_gradients(x, target=1, baseline=array, **options)
            for array in arrays
        ]
        np.testing.assert_allclose(
            found.values, np.mean([r.values for r in runs], axis=0), atol=1e-6
        )
        base = np.mean([r.baseline_scores for r in runs], axis=0)
        np.testing.assert_allclose(found.baseline_scores, base, atol=1e-6)
        np.testing.assert_allclose(found.scores, runs[0].scores, atol=1e-6)
        np.testing.assert_array_equal(found.steps_used, sum(r.steps_used for r in runs))
        sums = found.values.reshape(3, -1).sum(axis=1, dtype=np.float64)
        np.testing.assert_allclose(found.delta, sums - found.scores + base, atol=1e-6)
        assert (found.error_estimate is None) == ("tolerance" not in options)
        _check_path(found, runs)


def _check_path(found: igonnx.Attribution, runs: list[igonnx.Attribution]) -> None:
    """The points of all; weights that integrate; at the ends the mean scores."""
    for index, path in enumerate(found.path):
        points = [run.path[index].alpha for run in runs]
        np.testing.assert_array_equal(path.alpha, np.unique(np.concatenate(points)))
        assert path.weight.sum() == pytest.approx(1)
        assert path.score[-1] == pytest.approx(found.scores[index], abs=1e-6)
        assert path.score[0] == pytest.approx(found.baseline_scores[index], abs=1e-6)
        for alpha, *values in zip(path.alpha[::7], path.score[::7], path.slope[::7], strict=True):
            for value, name in zip(values, ("score", "slope"), strict=True):
                own = [np.interp(alpha, r.path[index].alpha, getattr(r.path[index], name))
                       for r in runs]  # fmt: skip
                assert value == pytest.approx(np.mean(own), abs=1e-5)


def test_random_baselines_run_after_run(images: onnx.ModelProto) -> None:
    """Keras averages runs of IG from random baselines: a list does so in one call, and gives the same again."""
    explainer, x = igonnx.Explainer(images), _random((2, 2, 4, 5))
    options: dict[str, Any] = {"target": 0, "steps": 9}
    first = explainer.integrated_gradients(x, baseline=["uniform"] * 5, seed=1, **options)
    again = explainer.integrated_gradients(x, baseline=["uniform"] * 5, seed=1, **options)
    np.testing.assert_allclose(first.values, again.values, atol=1e-7)
    other = explainer.integrated_gradients(x, baseline=["uniform"] * 5, seed=2, **options)
    assert np.abs(first.values - other.values).max() > 1e-3
    many = explainer.integrated_gradients(x, baseline=["uniform"] * 400, seed=3, **options)
    gap = [np.linalg.norm(f.values - many.values) for f in (first, other)]
    single = explainer.integrated_gradients(x, baseline="uniform", seed=1, **options)
    assert max(gap) < np.linalg.norm(single.values - many.values)


def test_exact_sum_of_several(images: onnx.ModelProto) -> None:
    explainer, x = igonnx.Explainer(images), _random((2, 2, 4, 5))
    for options in ({"steps": 3}, {"tolerance": 0.02}):
        found = explainer.integrated_gradients(
            x, baseline=["black", "white", 0.0], exact_sum=True, **options
        )
        sums = found.values.reshape(2, -1).sum(axis=1, dtype=np.float64)
        np.testing.assert_allclose(sums, found.scores - found.baseline_scores, atol=1e-6)
        assert np.abs(found.delta).max() < 1e-12
        assert found.correction is not None
        assert found.correction.any()


def test_a_list_is_the_same_alone_and_in_a_batch(images: onnx.ModelProto) -> None:
    explainer, x = igonnx.Explainer(images), _random((3, 2, 4, 5))
    options: dict[str, Any] = {"target": 2, "baseline": ["uniform", "black", "blurred"], "seed": 4}
    together = explainer.integrated_gradients(x, **options)
    for index in range(3):
        alone = explainer.integrated_gradients(x[index : index + 1], **options)
        np.testing.assert_allclose(alone.values[0], together.values[index], atol=1e-6)


# -- of inner tensors --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", [0.7, "uniform", "blurred", _random((3, 2, 4, 5), 8), None], ids=str
)
def test_baseline_of_the_input_for_an_inner_tensor(images: onnx.ModelProto, given: Any) -> None:
    """As in Captum's LayerIntegratedGradients: the baseline is what the model makes of that input."""
    x = _random((3, 2, 4, 5))
    explainer = igonnx.Explainer(images, wrt="inner")
    start = _one(given, x, seed=11)
    kernel = onnx.numpy_helper.to_array(images.graph.initializer[0])
    plain = explainer.integrated_gradients(x, baseline=np.tanh(_convolved(start, kernel)), target=1)
    found = explainer.integrated_gradients(x, baseline={"x": given}, target=1, seed=11)
    np.testing.assert_allclose(found.values, plain.values, atol=1e-6)
    scores = igonnx.Explainer(images).predict(start)["y"][:, 1]
    np.testing.assert_allclose(found.baseline_scores, scores, atol=1e-6)
    assert np.abs(found.delta).max() < 1e-4


def test_several_inputs_for_an_inner_tensor(images: onnx.ModelProto) -> None:
    x, explainer = _random((2, 2, 4, 5)), igonnx.Explainer(images, wrt="inner")
    several = explainer.integrated_gradients(
        x, baseline=[{"x": 0.5}, {"x": "black"}, 0.0], target=0
    )
    runs = [
        explainer.integrated_gradients(x, baseline=one, target=0)
        for one in ({"x": 0.5}, {"x": "black"}, 0.0)
    ]
    np.testing.assert_allclose(several.values, np.mean([r.values for r in runs], axis=0), atol=1e-6)
    drawn = explainer.integrated_gradients(x, baseline=[{"x": "uniform"}] * 2, target=0, seed=1)
    once = explainer.integrated_gradients(x, baseline={"x": "uniform"}, target=0, seed=1)
    assert np.abs(drawn.values - once.values).max() > 1e-3  # the second draw is another


def test_token_ids_for_an_embedding(model: Build) -> None:
    weights = {"table": _random((11, 4), 1), "w": _random((4, 3), 2), "one": np.array([1])}
    graph = model(
        """(int64[N, L] ids) => (float[N, 3] y) {
            e = Gather(table, ids)
            t = Tanh(e)
            s = ReduceSum<keepdims = 0>(t, one)
            y = MatMul(s, w)
        }""",
        weights,
    )
    explainer, ids = igonnx.Explainer(graph), np.array([[1, 5, 9], [2, 2, 10]])
    found = explainer.integrated_gradients(ids, baseline={"ids": 3}, target=1)
    padded = explainer.integrated_gradients(ids, baseline=weights["table"][3], target=1)
    np.testing.assert_allclose(found.values, padded.values, atol=1e-6)
    assert found.values.shape == (2, 3, 4)
    per_token = explainer.integrated_gradients(ids, baseline={"ids": np.array([[0, 3, 0]])})
    assert np.abs(per_token.delta).max() < 1e-4
    with pytest.raises(igonnx.InputError, match=r"^baseline of 'ids' is float64; expected int64"):
        explainer.integrated_gradients(ids, baseline={"ids": 0.5})
    with pytest.raises(
        igonnx.InputError, match=r"^baseline of 'ids' has shape \[2\]; expected \[2, 3\]"
    ):
        explainer.integrated_gradients(ids, baseline={"ids": np.array([1, 2])})
    with pytest.raises(igonnx.InputError, match="baseline for 'words', which is not explained"):
        explainer.integrated_gradients(ids, baseline={"words": 0})


def test_a_baseline_of_one_input_leaves_another_explained_one_at_zeros(model: Build) -> None:
    graph = model(
        "(float[N, 2] x, float[N, 2] z) => (float[N, 2] y) { h = Sin(x) \n p = Mul(h, z) \n y = Tanh(p) }"
    )
    explainer = igonnx.Explainer(graph, wrt=["h", "z"])
    inputs = {"x": _random((2, 2)), "z": _random((2, 2), 1)}
    found = explainer.integrated_gradients(inputs, baseline={"x": 0.3}, target=0)
    start = {"h": np.sin(np.full((2, 2), 0.3)), "z": np.zeros((2, 2))}
    plain = explainer.integrated_gradients(inputs, baseline=start, target=0)
    for name in ("h", "z"):
        np.testing.assert_allclose(found.of(name), plain.of(name), atol=1e-6)


def _convolved(x: NDArray[Any], kernel: NDArray[Any]) -> NDArray[Any]:
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.asarray(np.einsum("nchwij,ocij->nohw", windows, kernel))
