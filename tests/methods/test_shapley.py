"""Shapley values: exact against the definition, sampled against exact, and the axioms."""

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
from igonnx.methods.shapley import shapley_values

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


def _distance(found: Any, expected: NDArray[np.float64]) -> NDArray[np.float64]:
    difference = np.linalg.norm(flat(found.values) - expected, axis=1)
    return np.asarray(difference / np.linalg.norm(expected, axis=1))


# -- all coalitions -----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ten_features_against_the_definition(
    model: Build, engine: str, dtype: Any, exact: NDArray[np.float64]
) -> None:
    x = {name: array.astype(dtype) for name, array in X.items()}
    found = igonnx.Explainer(NET.onnx(model, dtype), engine=engine).shapley_value_sampling(
        x, target=TARGET.tolist(), baseline=0.3, exact=True
    )
    bound = 2e-6 if dtype is np.float32 else 1e-13
    np.testing.assert_allclose(flat(found.values), exact, rtol=0, atol=bound)
    np.testing.assert_allclose(found.delta, 0, atol=bound)
    assert found.steps_used.tolist() == [1024] * 3
    assert found.error_estimate is not None
    assert found.error_estimate.tolist() == [0] * 3
    assert found.path == []
    assert all(array.dtype == dtype for array in found.values.values())  # type: ignore[union-attr]


def test_gloves() -> None:
    """One has a left glove, two a right one; a pair is worth 1 (Shapley's values: 2/3, 1/6, 1/6)."""
    worth = [float(number & 1 and number & 6 > 0) for number in range(8)]
    np.testing.assert_allclose(shapley_values(np.array(worth)), [2 / 3, 1 / 6, 1 / 6])


def test_all_are_tried_where_that_costs_no_more(explainer: igonnx.Explainer) -> None:
    """Ten features: 1022 coalitions, or nine for each order."""
    few = explainer.shapley_value_sampling(X, target=0, samples=113)
    many = explainer.shapley_value_sampling(X, target=0, samples=114)
    never = explainer.shapley_value_sampling(X, target=0, samples=114, exact=False)
    assert [int(found.steps_used[0]) for found in (few, many, never)] == [1019, 1024, 1028]
    assert few.error_estimate is not None
    assert (few.error_estimate > 0).all()


# -- samples ------------------------------------------------------------------------------------


@pytest.mark.parametrize("antithetic", [True, False])
def test_samples_converge(
    explainer: igonnx.Explainer, exact: NDArray[np.float64], antithetic: bool
) -> None:
    """By the square root of their number, and as far from the truth as they say."""

    def errors(samples: int) -> tuple[float, float]:
        runs = [
            explainer.shapley_value_sampling(
                X,
                target=TARGET.tolist(),
                baseline=0.3,
                samples=samples,
                seed=seed,
                exact=False,
                antithetic=antithetic,
            )
            for seed in range(12)
        ]
        told = [run.error_estimate for run in runs]
        true = np.mean([_distance(run, exact) ** 2 for run in runs]) ** 0.5
        return float(true), float(np.mean(np.square(np.array(told, dtype=float))) ** 0.5)

    (few, few_told), (many, many_told) = errors(16), errors(256)
    assert 2.5 < few / many < 6.5  # 4, on the average
    assert 0.75 < few_told / few < 1.33
    assert 0.75 < many_told / many < 1.33


def test_pairs_are_closer_than_as_many_orders(
    explainer: igonnx.Explainer, exact: NDArray[np.float64]
) -> None:
    errors = [
        np.mean(
            [
                _distance(
                    explainer.shapley_value_sampling(
                        X,
                        target=TARGET.tolist(),
                        baseline=0.3,
                        samples=20,
                        seed=seed,
                        exact=False,
                        antithetic=antithetic,
                    ),
                    exact,
                )
                for seed in range(8)
            ]
        )
        for antithetic in (True, False)
    ]
    assert errors[0] < 0.7 * errors[1]


def test_a_pair_is_exact_for_interactions_of_two(model: Build) -> None:
    rng = np.random.default_rng(0)
    matrix, x = rng.normal(size=(9, 9)), rng.normal(size=(2, 9))
    graph = model(
        """(double[N, 9] x) => (double[N] y) {
            m = MatMul(x, w)
            p = Mul(m, x)
            y = ReduceSum<keepdims = 0>(p, one)
        }""",
        {"w": matrix, "one": np.array([1])},
    )
    found = igonnx.Explainer(graph).shapley_value_sampling(x, samples=2, exact=False)
    # x' M x: each square to its own, each product in halves
    both = (matrix + matrix.T) / 2
    np.testing.assert_allclose(found.values, x * (x @ both), atol=1e-12)


def test_seeds(explainer: igonnx.Explainer) -> None:
    def run(seed: int) -> NDArray[np.float64]:
        found = explainer.shapley_value_sampling(X, target=0, samples=3, exact=False, seed=seed)
        return flat(found.values)

    np.testing.assert_array_equal(run(4), run(4))
    assert np.abs(run(4) - run(5)).max() > 1e-3


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_too_few_samples_for_an_error(explainer: igonnx.Explainer, samples: int) -> None:
    found = explainer.shapley_value_sampling(X, target=0, samples=samples, exact=False)
    assert found.error_estimate is None
    np.testing.assert_allclose(found.delta, 0, atol=1e-14)
    assert found.steps_used.tolist() == [2 + 9 * samples] * 3


# -- axioms -------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"exact": True}, {"samples": 3, "exact": False}], ids=str)
def test_a_linear_model(model: Build, settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(2)
    w, x, baseline = rng.normal(size=(7, 2)), rng.normal(size=(3, 7)), rng.normal(size=(3, 7))
    graph = model("(double[N, 7] x) => (double[N, 2] y) { y = MatMul(x, w) }", {"w": w})
    found = igonnx.Explainer(graph).shapley_value_sampling(
        x, target=1, baseline=baseline, **settings
    )
    np.testing.assert_allclose(found.values, w[:, 1] * (x - baseline), atol=1e-13)


@pytest.mark.parametrize("settings", [{"exact": True}, {"samples": 4, "exact": False}], ids=str)
def test_dead_features_get_nothing(model: Build, settings: dict[str, Any]) -> None:
    """What the model does not look at, and, exactly, what does not differ from the baseline."""
    graph = model(
        "(double[N, 6] x) => (double[N, 6] y) { z = Mul(x, w) \n s = CumSum(z, one) \n y = Tanh(s) }",
        {"w": np.array([1.0, 0, 2, 1, -1, 1]), "one": np.array(1)},
    )
    x = np.random.default_rng(0).normal(size=(2, 6))
    x[1, 2] = 0.25
    found = igonnx.Explainer(graph).shapley_value_sampling(x, target=4, baseline=0.25, **settings)
    values = np.asarray(found.values)
    np.testing.assert_allclose(values[:, [1, 5]], 0, atol=1e-15)
    assert values[1, 2] == 0
    assert (np.abs(values[0, [0, 2, 3, 4]]) > 1e-3).all()
    if "samples" in settings:  # nor does it cost anything
        assert found.steps_used.tolist() == [2 + 4 * 5, 2 + 4 * 4]


def test_symmetric_features_get_the_same(model: Build) -> None:
    graph = model(
        "(double[N, 4] x) => (double[N] y) { m = ReduceMax<keepdims = 0>(x, one) \n y = Exp(m) }",
        {"one": np.array([1])},
        opset=18,
    )
    x = np.array([[1.5, 1.5, 0.5, 1.5]])
    values = np.asarray(igonnx.Explainer(graph).shapley_value_sampling(x, exact=True).values)[0]
    np.testing.assert_allclose(values[[0, 1]], values[3])
    assert values[0] > values[2] > 0


def test_input_and_baseline_alike(explainer: igonnx.Explainer) -> None:
    found = explainer.shapley_value_sampling(X, target=1, baseline=X)
    assert not flat(found.values).any()
    np.testing.assert_array_equal(found.delta, 0)
    assert found.steps_used.tolist() == [2] * 3
    assert found.error_estimate is not None
    assert not found.error_estimate.any()


# -- features -----------------------------------------------------------------------------------


def test_features_across_tensors(explainer: igonnx.Explainer) -> None:
    """Elements share a value, and the delta counts it once."""
    masks = {"a": np.array([[0, 5, 5], [9, 9, 9]]), "b": np.array([9, 5, 7, 7])}
    owner = np.array([0, 1, 1, 3, 3, 3, 3, 1, 2, 2])
    exact = shapley_by_definition(worths(NET, X, 0.3, TARGET, owner)).T
    found = explainer.shapley_value_sampling(
        X, target=TARGET.tolist(), baseline=0.3, feature_mask=masks
    )
    np.testing.assert_allclose(flat(found.values), exact[:, owner], atol=1e-13)
    np.testing.assert_allclose(found.delta, 0, atol=1e-13)
    assert found.steps_used.tolist() == [16] * 3
    np.testing.assert_allclose(exact.sum(axis=1), found.scores - found.baseline_scores)


def test_features_of_each_example(model: Build) -> None:
    """As many as it has: the others' change nothing, neither values nor draws."""
    rng = np.random.default_rng(1)
    graph = model(
        "(double[N, 6] x) => (double[N, 4] y) { h = MatMul(x, w) \n y = Tanh(h) }",
        {"w": rng.normal(size=(6, 4))},
    )
    explainer, x = igonnx.Explainer(graph), rng.normal(size=(2, 6))
    masks = np.array([[0, 1, 2, 3, 4, 5], [3, 3, 8, 8, 8, 1]])
    settings: dict[str, Any] = {"target": 2, "samples": 4, "exact": False, "seed": 3}
    both = explainer.shapley_value_sampling(x, feature_mask=masks, **settings)
    for example in range(2):
        rows = slice(example, example + 1)
        alone = explainer.shapley_value_sampling(x[rows], feature_mask=masks[rows], **settings)
        np.testing.assert_allclose(alone.values, both.values[rows], atol=1e-14)
        np.testing.assert_array_equal(alone.steps_used, both.steps_used[rows])
    assert both.steps_used.tolist() == [2 + 4 * 5, 2 + 4 * 2]
    np.testing.assert_allclose(both.delta, 0, atol=1e-14)


def test_what_is_never_masked(explainer: igonnx.Explainer) -> None:
    """It is no part of the game, which starts from a score with it."""
    masks = {"a": np.full((2, 3), -1), "b": np.array([0, 1, 2, 2])}
    found = explainer.shapley_value_sampling(
        X, target=TARGET.tolist(), baseline=0.3, feature_mask=masks
    )
    values = found.values
    assert isinstance(values, dict)
    assert not values["a"].any()
    start = NET.score({"a": X["a"], "b": np.full((3, 4), 0.3)}, TARGET)
    np.testing.assert_allclose(found.baseline_scores, start)
    np.testing.assert_allclose(found.delta, 0, atol=1e-13)


# -- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "samples is 0; expected a whole number of at least 1"),
        ({"samples": 2.5}, "samples is 2.5; expected a whole number of at least 1"),
        ({"antithetic": "no"}, "antithetic is 'no'; expected True or False"),
        ({"exact": "yes"}, "exact is 'yes'; expected True, False or None"),
        ({"feature_mask": {"a": np.zeros((2, 3), int)}}, "feature_mask is for 'a'; expected one"),
    ],
    ids=str,
)
def test_wrong_arguments(
    explainer: igonnx.Explainer, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(igonnx.InputError) as caught:
        explainer.shapley_value_sampling(X, target=0, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_many_features_to_try_all(model: Build) -> None:
    explainer = igonnx.Explainer(model("(float[N, 21] x) => (float[N, 21] y) { y = Tanh(x) }"))
    x = np.ones((1, 21), np.float32)
    with pytest.raises(igonnx.InputError, match="exact is True, and there are 21 features"):
        explainer.shapley_value_sampling(x, target=0, exact=True)
    x[0, 3] = 0  # one less
    with (
        pytest.warns(UserWarning, match="forward passes for each example, as it has 21 features"),
        pytest.raises(igonnx.DeadlineError),
    ):
        explainer.shapley_value_sampling(x, target=0, exact=True, timeout=0.05)
