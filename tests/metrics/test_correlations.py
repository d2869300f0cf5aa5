"""Sensitivity-n and faithfulness correlation: 1 for the exact attribution of a linear model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import igonnx
from igonnx.metrics import (
    faithfulness_correlation,
    infidelity,
    insertion_deletion,
    sensitivity_n,
)

Array = np.ndarray[Any, np.dtype[Any]]


def test_the_exact_attribution_of_a_linear_model(linear: igonnx.Explainer) -> None:
    x = np.random.default_rng(2).normal(size=(4, 6))
    exact = linear.integrated_gradients(x, target=1, baseline=0.4, steps=1)
    found = sensitivity_n(linear, x, exact, baseline=0.4, sizes=[1, 2, 5])
    np.testing.assert_array_equal(found.n, [1, 2, 5])
    np.testing.assert_allclose(found.correlation, np.ones((4, 3)))
    np.testing.assert_allclose(found.score, np.ones(4))
    assert found.target == [(1,)] * 4
    opposite = sensitivity_n(linear, x, -exact.of(), baseline=0.4, target=1)
    np.testing.assert_allclose(opposite.score, -np.ones(4))
    whole = faithfulness_correlation(linear, x, exact, baseline=0.4)
    assert whole.size == 1
    np.testing.assert_allclose(whole.score, np.ones(4))
    np.testing.assert_allclose(whole.expected, whole.change, atol=1e-12)


def test_the_definition(pictures: igonnx.Explainer) -> None:
    rng = np.random.default_rng(3)
    x, values = rng.normal(size=(2, 2, 3, 8, 9)).astype(np.float32)
    found = faithfulness_correlation(pictures, x, values, target=0, size=20, samples=30, seed=4)
    sums, losses = np.empty((2, 2, 30))
    for k in range(30):
        chosen = np.random.default_rng([4, 20, k]).choice(72, 20, replace=False, shuffle=False)
        mask = np.zeros(72, bool)
        mask[chosen] = True
        mask = mask.reshape(8, 9)
        sums[:, k] = values.sum(axis=1)[:, mask].sum(axis=1)
        gone = np.where(mask, np.float32(0), x)
        losses[:, k] = (pictures.predict(x)["y"] - pictures.predict(gone)["y"])[:, 0]
    np.testing.assert_allclose(found.expected, sums, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.change, losses, rtol=1e-3, atol=1e-5)
    expected = [np.corrcoef(sums[i], losses[i])[0, 1] for i in range(2)]
    np.testing.assert_allclose(found.score, expected, rtol=1e-3)
    curve = sensitivity_n(pictures, x, values, target=0, sizes=[3, 20], samples=30, seed=4)
    np.testing.assert_allclose(curve.correlation[:, 1], found.score)
    heat = values.sum(axis=1)
    again = faithfulness_correlation(pictures, x, heat, target=0, size=20, samples=30, seed=4)
    np.testing.assert_allclose(again.score, found.score, rtol=1e-5)


def test_patches_and_usual_sizes(pictures: igonnx.Explainer) -> None:
    x = np.random.default_rng(5).normal(size=(1, 3, 8, 9)).astype(np.float32)
    found = sensitivity_n(pictures, x, x, samples=5)
    assert found.n[0] == 1
    assert found.n[-1] == round(0.8 * 72)
    assert len(found.n) == 8
    patched = sensitivity_n(pictures, x, x, samples=5, patch=4)
    assert patched.n[-1] == round(0.8 * 2 * 3)


def test_where_nothing_varies_there_is_no_correlation(linear: igonnx.Explainer, model: Any) -> None:
    x = np.random.default_rng(6).normal(size=(2, 6))
    whole = sensitivity_n(linear, x, x, sizes=[6])
    assert np.isnan(whole.correlation).all()
    assert np.isnan(whole.score).all()
    assert np.isnan(sensitivity_n(linear, x, np.ones_like(x) / 3, sizes=[2]).score).all()
    dead = igonnx.Explainer(
        model(
            "(double[N, 6] x) => (double[N, 1] y) { s = ReduceSum<keepdims = 1>(x, one) \n z = Mul(s, zero) \n"
            " y = Add(z, third) }",
            {"one": np.array([1]), "zero": np.zeros(1), "third": np.array([1 / 3])},
        )
    )
    assert np.isnan(faithfulness_correlation(dead, x, x, target=0).score).all()
    some = sensitivity_n(linear, x, x, sizes=[2, 6])
    np.testing.assert_array_equal(some.score, some.correlation[:, 0])


def test_examples_and_sizes_do_not_depend_on_each_other(pictures: igonnx.Explainer) -> None:
    rng = np.random.default_rng(7)
    x, values = rng.normal(size=(2, 40, 3, 8, 9)).astype(np.float32)
    settings: dict[str, Any] = {"target": 0, "samples": 6, "seed": 2}
    together = sensitivity_n(pictures, x, values, sizes=[5, 9], **settings)
    alone = sensitivity_n(pictures, x[3:4], values[3:4], sizes=[9], **settings)
    np.testing.assert_allclose(alone.correlation[:, 0], together.correlation[3:4, 1], rtol=1e-3)
    other = sensitivity_n(pictures, x, values, sizes=[5, 9], **{**settings, "seed": 3})
    assert not np.array_equal(other.correlation, together.correlation)


def test_progress_timeout_and_cancel(linear: igonnx.Explainer) -> None:
    x = np.ones((3, 6))
    told: list[tuple[int, int]] = []
    sensitivity_n(
        linear,
        x,
        x,
        sizes=[1, 2],
        samples=20,
        progress=lambda done, all_: told.append((done, all_)),
    )
    assert told[-1] == (120, 120)
    token = igonnx.CancelToken()
    token.cancel()
    with pytest.raises(igonnx.CancelledError):
        faithfulness_correlation(linear, x, x, cancel=token)
    with pytest.raises(igonnx.DeadlineError):
        sensitivity_n(linear, x, x, timeout=1e-9)


@pytest.mark.parametrize(
    ("measure", "arguments", "message"),
    [
        (sensitivity_n, {"sizes": []}, r"^sizes is \[\]; expected whole numbers from 1 to 6"),
        (sensitivity_n, {"sizes": [0]}, r"^sizes is \[0\]"),
        (sensitivity_n, {"sizes": [7]}, r"^sizes is \[7\]; expected whole numbers from 1 to 6"),
        (sensitivity_n, {"sizes": [2.0]}, r"^sizes is \[2.0\]"),
        (sensitivity_n, {"samples": 1}, r"^samples is 1; expected a whole number of at least 2$"),
        (sensitivity_n, {"patch": 0}, r"^patch is 0"),
        (faithfulness_correlation, {"size": 7}, r"^size is 7; expected a whole number from 1 to 6"),
        (faithfulness_correlation, {"size": 0}, r"^size is 0"),
        (faithfulness_correlation, {"baseline": [0.0]}, r"one baseline for faithfulness correl"),
    ],
)
def test_settings_that_make_no_sense(
    linear: igonnx.Explainer, measure: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(igonnx.InputError, match=message):
        measure(linear, np.ones((1, 6)), np.ones((1, 6)), **arguments)


def test_models_without_a_gradient_are_measured_too(model: Any) -> None:
    """y = 3 where x_0 > 0, plus the sign of x_1: exact contributions from the baseline are known."""
    explainer = igonnx.Explainer(
        model(
            """(float[N, 3] x) => (float[N, 1] y) {
                t = Greater(x, zero)
                f = Cast<to = 1>(t)
                y = MatMul(f, w)
            }""",
            {"zero": np.float32(0), "w": np.array([[3], [1], [0]], np.float32)},
        )
    )
    x = np.array([[1, 2, 3], [2, 1, 1]], np.float32)
    exact = np.array([[3.0, 1, 0], [3, 1, 0]])
    found = sensitivity_n(explainer, x, exact, target=0, baseline=-1.0, sizes=[1, 2])
    np.testing.assert_allclose(found.correlation, 1, atol=1e-6)
    curves = insertion_deletion(explainer, x, exact, target=0, baseline=-1.0, apply=None)
    np.testing.assert_allclose(curves.insertion, [[0, 3, 4, 4]] * 2)
    removed = infidelity(explainer, x, exact, target=0, baseline=-1.0, times_input=True)
    np.testing.assert_allclose(removed.score, 0, atol=1e-10)
