"""LIME: closed forms, the kernel, and what is fitted, against NumPy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from coalition_games import flat
from numpy.typing import NDArray
from tanh_net import TanhNet

import igonnx

linear_model = pytest.importorskip("sklearn.linear_model")

Build = Callable[..., onnx.ModelProto]
NET = TanhNet.make(3)
TARGET = np.array([0, 2, 1])
X = NET.inputs(3, dtype=np.float64)


@pytest.fixture(scope="module")
def explainer(model: Build) -> igonnx.Explainer:
    return igonnx.Explainer(NET.onnx(model, np.float64))


@pytest.fixture(scope="module")
def linear(model: Build) -> tuple[igonnx.Explainer, NDArray[np.float64]]:
    w = np.random.default_rng(0).normal(size=(6, 2))
    graph = model("(double[N, 6] x) => (double[N, 2] y) { y = MatMul(x, w) }", {"w": w})
    return igonnx.Explainer(graph), w


# -- closed forms -------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_a_linear_model_gives_its_weights(
    linear: tuple[igonnx.Explainer, NDArray[np.float64]], distance: Any
) -> None:
    explainer, w = linear
    x = np.random.default_rng(1).normal(size=(3, 6))
    found = explainer.lime(x, target=1, baseline=0.5, samples=40, alpha=0, distance=distance)
    np.testing.assert_allclose(found.values, w[:, 1] * (x - 0.5), atol=1e-12)
    np.testing.assert_allclose(found.r_squared, 1)
    np.testing.assert_allclose(found.delta, 0, atol=1e-12)
    assert found.steps_used.tolist() == [42] * 3
    assert found.error_estimate is None


def test_lasso_shrinks_to_zero(linear: tuple[igonnx.Explainer, NDArray[np.float64]]) -> None:
    """Small weights vanish, large ones lose alpha over the variance of a mask, about four times alpha."""
    explainer, w = linear
    x = np.array([[1.0, 0.01, -0.01, 1.0, -1.0, 1.0]]) / w[:, 1]
    found = explainer.lime(x, target=1, samples=3000, surrogate="lasso", kernel_width=100)
    values = np.asarray(found.values)[0]
    assert values[[1, 2]].tolist() == [0, 0]
    np.testing.assert_allclose(np.abs(values[[0, 3, 4, 5]]), 0.96, atol=0.01)
    assert "Lasso(alpha=0.01)" in found.method


@pytest.mark.parametrize(
    ("settings", "weigh"),
    [
        ({}, lambda kept: np.exp(-((1 - np.sqrt(kept / 10)) ** 2) / (2 * 0.25**2))),
        ({"kernel_width": 2}, lambda kept: np.exp(-((1 - np.sqrt(kept / 10)) ** 2) / 8)),
        ({"distance": "euclidean"}, lambda kept: np.exp(-(10 - kept) / (2 * 0.75**2 * 10))),
        ({"distance": "euclidean", "kernel_width": 3}, lambda kept: np.exp(-(10 - kept) / 18)),
    ],
    ids=["cosine", "wide", "euclidean", "wide euclidean"],
)
def test_ridge_by_the_normal_equations(
    explainer: igonnx.Explainer,
    settings: dict[str, Any],
    weigh: Callable[[NDArray[Any]], NDArray[np.float64]],
) -> None:
    """Weights, the penalty on all but the intercept, and the weighted R squared."""
    samples, seed = 60, 9
    keep = np.random.default_rng(seed).random((samples, 10)) < 0.5
    keep[0] = True
    found = explainer.lime(X, target=TARGET.tolist(), samples=samples, seed=seed, **settings)
    weight = weigh(keep.sum(axis=1))
    design = np.concatenate([keep, np.ones((samples, 1))], axis=1).astype(float)
    penalty = np.diag([1.0] * 10 + [0.0])
    for example in range(3):
        at = np.where(keep, flat(X)[example], 0)
        scores = NET.score(
            {"a": at[:, :6].reshape(-1, 2, 3), "b": at[:, 6:]}, np.full(samples, TARGET[example])
        )
        normal = design.T @ (weight[:, None] * design) + penalty
        fit = np.linalg.solve(normal, design.T @ (weight * scores))
        np.testing.assert_allclose(flat(found.values)[example], fit[:10], atol=1e-10)
        mean = np.average(scores, weights=weight)
        left = weight @ (scores - design @ fit) ** 2
        assert found.r_squared is not None
        expected = 1 - left / (weight @ (scores - mean) ** 2)
        assert found.r_squared[example] == pytest.approx(expected)


def test_a_regressor_of_ones_own(explainer: igonnx.Explainer) -> None:
    own = linear_model.BayesianRidge()
    found = explainer.lime(X, target=0, samples=200, surrogate=own)
    near = explainer.lime(X, target=0, samples=200, alpha=0.1)
    np.testing.assert_allclose(flat(found.values), flat(near.values), atol=0.1)
    assert not hasattr(own, "coef_")  # a copy was fitted
    assert "surrogate=BayesianRidge()" in found.method
    assert "\n" not in found.method


# -- draws and features -------------------------------------------------------------------------


def test_samples_converge(explainer: igonnx.Explainer) -> None:
    """To the fit over all masks, by the square root of their number."""

    def run(samples: int, seed: int) -> NDArray[np.float64]:
        found = explainer.lime(X, target=0, samples=samples, seed=seed, alpha=0)
        return flat(found.values)

    best = np.mean([run(4000, seed) for seed in range(100, 104)], axis=0)
    few, many = (
        np.mean([np.linalg.norm(run(samples, seed) - best) for seed in range(8)])
        for samples in (50, 800)
    )
    assert 2.5 < few / many < 7  # 4, on the average


def test_seeds(explainer: igonnx.Explainer) -> None:
    def run(seed: int) -> NDArray[np.float64]:
        return flat(explainer.lime(X, target=0, samples=80, seed=seed).values)

    np.testing.assert_array_equal(run(4), run(4))
    assert np.abs(run(4) - run(5)).max() > 1e-3


def test_dead_features_get_nothing(explainer: igonnx.Explainer) -> None:
    x = {name: array.copy() for name, array in X.items()}
    x["a"][1, 0, 2] = 0.25
    found = explainer.lime(x, target=0, baseline=0.25, samples=80)
    values = flat(found.values)
    assert values[1, 2] == 0
    assert (np.delete(values.ravel(), 12) != 0).all()


def test_input_and_baseline_alike(explainer: igonnx.Explainer) -> None:
    found = explainer.lime(X, target=1, baseline=X)
    assert not flat(found.values).any()
    assert found.steps_used.tolist() == [2] * 3
    assert found.r_squared is not None
    assert found.r_squared.tolist() == [1] * 3


def test_features_share_their_value(explainer: igonnx.Explainer) -> None:
    masks = {"a": np.array([[0, 1, 1], [2, 2, 2]]), "b": np.array([2, 1, 3, -3])}
    found = explainer.lime(X, target=0, samples=50, feature_mask=masks)
    values = flat(found.values)
    owner = np.array([0, 1, 1, 2, 2, 2, 2, 1, 3])
    for player in range(4):
        assert (np.ptp(values[:, :9][:, owner == player], axis=1) == 0).all()
    assert not values[:, 9].any()
    each = values[:, [0, 1, 3, 8]].sum(axis=1)
    np.testing.assert_allclose(found.delta, each - found.scores + found.baseline_scores)


def test_r_squared_is_kept(explainer: igonnx.Explainer, tmp_path: Any) -> None:
    """In the archive, and over several baselines as the mean."""
    several = [
        explainer.lime(X, target=0, baseline=baseline, samples=40).r_squared
        for baseline in (0.0, 0.5)
    ]
    found = explainer.lime(X, target=0, baseline=[0.0, 0.5], samples=40)
    np.testing.assert_allclose(found.r_squared, np.mean(several, axis=0))  # type: ignore[arg-type]
    found.save(tmp_path / "found.npz")
    with np.load(tmp_path / "found.npz") as archive:
        np.testing.assert_array_equal(archive["r_squared"], found.r_squared)


# -- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 1}, "samples is 1; expected a whole number of at least 2"),
        ({"distance": "l2"}, "distance is 'l2'; expected 'cosine' or 'euclidean'"),
        ({"kernel_width": 0}, "kernel_width is 0; expected a number above 0"),
        ({"alpha": -1}, "alpha is -1; expected a number of at least 0"),
        ({"surrogate": "lasso", "alpha": 0}, "alpha is 0; expected a number above 0"),
        ({"surrogate": "tree"}, "surrogate is 'tree'; expected 'ridge', 'lasso' or a regressor"),
        ({"surrogate": linear_model.Ridge}, "expected 'ridge', 'lasso' or a regressor"),
        ({"surrogate": linear_model.LogisticRegression()}, "a regressor of scikit-learn that"),
        (
            {"surrogate": linear_model.Lars()},
            "a regressor of scikit-learn that takes sample_weight",
        ),
        ({"surrogate": linear_model.Ridge(), "alpha": 1}, "alpha is that of the surrogate"),
    ],
    ids=str,
)
def test_wrong_arguments(
    explainer: igonnx.Explainer, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(igonnx.InputError) as caught:
        explainer.lime(X, target=0, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_regressor_that_is_not_linear(explainer: igonnx.Explainer) -> None:
    trees = pytest.importorskip("sklearn.tree").DecisionTreeRegressor()
    with pytest.raises(igonnx.InputError, match="has no coefficient for each of 10 features"):
        explainer.lime(X, target=0, samples=20, surrogate=trees)


def test_too_many_features(model: Build) -> None:
    graph = model("(float[N, 10001] x) => (float[N, 10001] y) { y = Tanh(x) }")
    with pytest.raises(igonnx.InputError, match="lime of 10001 features; expected at most 10000"):
        igonnx.Explainer(graph).lime(np.ones((1, 10001), np.float32), target=0)


def test_without_scikit_learn(explainer: igonnx.Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(igonnx.InputError, match=r"pip install igonnx\[lime\]"):
        explainer.lime(X, target=0)
