"""KernelSHAP: over all coalitions the Shapley values, over some of them near to those, and adding up in any case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from coalition_games import PLAYERS, flat, shapley_by_definition, worths
from numpy.typing import NDArray
from tanh_net import TanhNet

import igonnx

Build = Callable[..., onnx.ModelProto]
NET = TanhNet.make(3)
TARGET = np.array([0, 2, 1])
X = NET.inputs(3, dtype=np.float64)


@pytest.fixture(scope="module")
def explainer(model: Build) -> igonnx.Explainer:
    return igonnx.Explainer(NET.onnx(model, np.float64))


@pytest.fixture(scope="module")
def exact() -> NDArray[np.float64]:
    """[3, 10] at baseline 0.3."""
    scores = worths(NET, X, 0.3, TARGET, np.arange(PLAYERS))
    return shapley_by_definition(scores).T


def _wide(model: Build, features: int) -> onnx.ModelProto:
    rng = np.random.default_rng(features)
    weights = {"w": rng.normal(size=(features, 12)) / 2, "v": rng.normal(size=12)}
    return model(
        f"(double[N, {features}] x) => (double[N] y) {{ h = MatMul(x, w) \n t = Tanh(h) \n y = MatMul(t, v) }}",
        weights,
    )


# -- all coalitions -----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ten_features_against_the_definition(
    model: Build, engine: str, dtype: Any, exact: NDArray[np.float64]
) -> None:
    x = {name: array.astype(dtype) for name, array in X.items()}
    found = igonnx.Explainer(NET.onnx(model, dtype), engine=engine).kernel_shap(
        x, target=TARGET.tolist(), baseline=0.3
    )
    bound = 2e-6 if dtype is np.float32 else 1e-12
    np.testing.assert_allclose(flat(found.values), exact, rtol=0, atol=bound)
    np.testing.assert_allclose(found.delta, 0, atol=bound)
    assert found.steps_used.tolist() == [1024] * 3
    assert found.error_estimate is not None
    assert found.error_estimate.tolist() == [0] * 3
    assert found.method == "kernel_shap samples=2F+2048"


@pytest.mark.parametrize("features", [1, 2, 3])
def test_few_features(model: Build, features: int) -> None:
    explainer = igonnx.Explainer(_wide(model, features))
    x = np.random.default_rng(0).normal(size=(2, features))
    found = explainer.kernel_shap(x, samples=6)
    expected = explainer.shapley_value_sampling(x, exact=True)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-14)
    assert found.steps_used.tolist() == [2**features] * 2


# -- samples ------------------------------------------------------------------------------------


def test_samples_converge(explainer: igonnx.Explainer, exact: NDArray[np.float64]) -> None:
    """By the square root of their number at least, and as far from the truth as they say."""

    def errors(samples: int) -> tuple[float, float]:
        runs = [
            explainer.kernel_shap(
                X, target=TARGET.tolist(), baseline=0.3, samples=samples, seed=seed
            )
            for seed in range(16)
        ]
        told = [np.square(np.asarray(run.error_estimate, dtype=float)) for run in runs]
        norms = np.linalg.norm(exact, axis=1)
        true = [np.square(np.linalg.norm(flat(run.values) - exact, axis=1) / norms) for run in runs]
        for run in runs:
            np.testing.assert_allclose(run.delta, 0, atol=1e-14)
        return float(np.mean(true) ** 0.5), float(np.mean(told) ** 0.5)

    (few, few_told), (many, many_told) = errors(60), errors(240)
    assert few / many > 1.6
    assert 0.6 < few_told / few < 1.67
    assert 0.6 < many_told / many < 1.67


@pytest.mark.parametrize("samples", [60, 170, 400])
def test_interactions_of_two_are_exact(model: Build, samples: int) -> None:
    """What is drawn comes with its complement; sizes that are not drawn are there entirely."""
    rng = np.random.default_rng(0)
    matrix, x = rng.normal(size=(12, 12)), rng.normal(size=(2, 12))
    graph = model(
        """(double[N, 12] x) => (double[N] y) {
            m = MatMul(x, w)
            p = Mul(m, x)
            y = ReduceSum<keepdims = 0>(p, one)
        }""",
        {"w": matrix, "one": np.array([1])},
    )
    found = igonnx.Explainer(graph).kernel_shap(x, samples=samples)
    np.testing.assert_allclose(found.values, x * (x @ (matrix + matrix.T) / 2), atol=1e-11)
    assert found.error_estimate is not None
    assert (found.error_estimate < 1e-10).all()
    # 24 of one or eleven features, 132 more of two or ten; what was drawn twice is computed once
    assert (found.steps_used <= samples + 2).all()
    assert (found.steps_used > 0.8 * samples).all()


def test_better_than_orders_at_the_same_cost(model: Build) -> None:
    explainer = igonnx.Explainer(_wide(model, 14))
    x = np.random.default_rng(0).normal(size=(2, 14))
    exact = np.asarray(explainer.shapley_value_sampling(x, exact=True).values)

    def error(method: str, samples: int) -> float:
        runs = [
            getattr(explainer, method)(x, samples=samples, seed=seed).values for seed in range(8)
        ]
        return float(np.mean([np.linalg.norm(run - exact) for run in runs]))

    assert error("kernel_shap", 520) < error("shapley_value_sampling", 40)  # 520 coalitions


def test_many_features(model: Build) -> None:
    """300 of them, by the default number of samples; a linear model's are exact."""
    rng = np.random.default_rng(4)
    w, x = rng.normal(size=300), rng.normal(size=(1, 300))
    graph = model("(double[N, 300] x) => (double[N] y) { y = MatMul(x, w) }", {"w": w})
    found = igonnx.Explainer(graph).kernel_shap(x, baseline=0.5)
    np.testing.assert_allclose(found.values, w * (x - 0.5), atol=1e-10)
    assert 2300 < found.steps_used[0] <= 2 + 2 * 300 + 2048  # less what was drawn twice


def test_seeds(explainer: igonnx.Explainer) -> None:
    def run(seed: int) -> NDArray[np.float64]:
        return flat(explainer.kernel_shap(X, target=0, samples=80, seed=seed).values)

    np.testing.assert_array_equal(run(4), run(4))
    assert np.abs(run(4) - run(5)).max() > 1e-3


# -- axioms and features ------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [40, 2000])
def test_dead_features_get_nothing(model: Build, samples: int) -> None:
    """Exactly what does not differ from the baseline; what the model does not look at, where all are tried."""
    graph = model(
        "(double[N, 8] x) => (double[N] y) { z = Mul(x, w) \n s = ReduceSum<keepdims = 0>(z, one) \n y = Tanh(s) }",
        {"w": np.array([1.0, 0, 2, 1, -1, 1, 0.5, 0.1]), "one": np.array([1])},
    )
    x = np.random.default_rng(0).normal(size=(2, 8))
    x[1, 2] = 0.25
    found = igonnx.Explainer(graph).kernel_shap(x, baseline=0.25, samples=samples)
    values = np.asarray(found.values)
    assert values[1, 2] == 0
    assert abs(values[0, 2]) > 0.01
    if samples == 2000:
        np.testing.assert_allclose(values[:, 1], 0, atol=1e-15)
        assert found.steps_used.tolist() == [256, 128]


def test_features_across_tensors(explainer: igonnx.Explainer) -> None:
    masks = {"a": np.array([[0, 5, 5], [9, 9, 9]]), "b": np.array([9, 5, 7, 7])}
    owner = np.array([0, 1, 1, 3, 3, 3, 3, 1, 2, 2])
    exact = shapley_by_definition(worths(NET, X, 0.3, TARGET, owner)).T
    found = explainer.kernel_shap(X, target=TARGET.tolist(), baseline=0.3, feature_mask=masks)
    np.testing.assert_allclose(flat(found.values), exact[:, owner], atol=1e-13)
    np.testing.assert_allclose(found.delta, 0, atol=1e-13)
    assert found.steps_used.tolist() == [16] * 3


def test_features_of_each_example(model: Build) -> None:
    """The others' change nothing, neither values nor draws."""
    rng = np.random.default_rng(1)
    explainer, x = igonnx.Explainer(_wide(model, 12)), rng.normal(size=(2, 12))
    masks = np.stack([np.arange(12), np.minimum(np.arange(12), 8)])
    both = explainer.kernel_shap(x, feature_mask=masks, samples=100)
    for example in range(2):
        rows = slice(example, example + 1)
        alone = explainer.kernel_shap(x[rows], feature_mask=masks[rows], samples=100)
        np.testing.assert_allclose(alone.values, both.values[rows], atol=1e-13)
        np.testing.assert_array_equal(alone.steps_used, both.steps_used[rows])


def test_input_and_baseline_alike(explainer: igonnx.Explainer) -> None:
    found = explainer.kernel_shap(X, target=1, baseline=X)
    assert not flat(found.values).any()
    assert found.steps_used.tolist() == [2] * 3


# -- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [0, 1, 2.0, "many"])
def test_wrong_samples(explainer: igonnx.Explainer, samples: Any) -> None:
    with pytest.raises(igonnx.InputError, match="expected a whole number of at least 2, or None"):
        explainer.kernel_shap(X, target=0, samples=samples)


def test_too_few_samples(explainer: igonnx.Explainer) -> None:
    """Nine pairs would be the least for ten features; it is said before anything is computed."""
    calls: list[Any] = []
    with pytest.raises(
        igonnx.InputError, match="samples is 10: too few coalitions for the values of 10 features"
    ) as caught:
        explainer.kernel_shap(X, target=0, samples=10, progress=lambda *at: calls.append(at))
    assert "\n" not in str(caught.value)
    assert calls == []


def test_it_names_the_samples_that_were_given(model: Build) -> None:
    """Not the fewer ones that are left of them, as some are drawn twice."""
    graph = model("(float[N, 30] x) => (float[N, 30] y) { y = Tanh(x) }")
    with pytest.raises(igonnx.InputError, match="samples is 60: too few coalitions for the values"):
        igonnx.Explainer(graph).kernel_shap(np.ones((1, 30), np.float32), target=0, samples=60)


def test_too_many_features(model: Build) -> None:
    explainer = igonnx.Explainer(model("(float[N, 5001] x) => (float[N, 5001] y) { y = Tanh(x) }"))
    with pytest.raises(
        igonnx.InputError, match="kernel_shap of 5001 features; expected at most 5000: group"
    ):
        explainer.kernel_shap(np.ones((1, 5001), np.float32), target=0)
