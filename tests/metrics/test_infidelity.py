"""Infidelity where it is known: nothing for the slopes of a linear model, the definition for others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import igonnx
from igonnx.metrics import GaussianNoise, SquareRemoval, infidelity

Array = np.ndarray[Any, np.dtype[Any]]


@pytest.mark.parametrize(
    "perturbation", [None, GaussianNoise(), GaussianNoise(0.3), SquareRemoval(2)]
)
def test_a_linear_model_does_what_its_slopes_tell(
    linear: igonnx.Explainer, perturbation: Any
) -> None:
    x = np.random.default_rng(2).normal(size=(4, 6))
    slopes = linear.saliency(x, target=[0, 1, 2, 1], absolute=False)
    found = infidelity(linear, x, slopes, baseline=0.7, perturbation=perturbation)
    assert found.expected.shape == found.change.shape == (4, 50)
    assert np.abs(found.change).max() > 0.1
    assert found.target == [(0,), (1,), (2,), (1,)]
    np.testing.assert_allclose(found.score, 0, atol=1e-24)
    # Contributions are counted from the same baseline: taken back to slopes, they tell the same.
    contributions = linear.integrated_gradients(x, target=[0, 1, 2, 1], baseline=0.7, steps=1)
    again = infidelity(linear, x, contributions, baseline=0.7, perturbation=perturbation)
    np.testing.assert_allclose(again.expected, found.expected, rtol=1e-9, atol=1e-12)


def test_the_definition(linear: igonnx.Explainer, slopes: Array) -> None:
    rng = np.random.default_rng(3)
    x, values = rng.normal(size=(2, 3, 6))
    draws = rng.normal(size=(7, 6))
    numbers = iter(range(7))

    def shifted(x: Mapping[str, Array], *_: Any) -> Any:
        removed = np.broadcast_to(draws[next(numbers)], x["x"].shape)
        return {"x": removed}, {"x": x["x"] - removed}

    found = infidelity(linear, x, values, target=2, perturbation=shifted, samples=7)
    expected, change = values @ draws.T, np.tile(slopes[:, 2] @ draws.T, (3, 1))
    np.testing.assert_allclose(found.expected, expected)
    np.testing.assert_allclose(found.change, change)
    np.testing.assert_allclose(found.score, np.square(expected - change).mean(axis=1))
    squares = np.square(expected - change)
    np.testing.assert_allclose(found.standard_error, squares.std(axis=1, ddof=1) / np.sqrt(7))


def test_normalised_values_have_no_scale(linear: igonnx.Explainer) -> None:
    rng = np.random.default_rng(4)
    x, values = rng.normal(size=(2, 3, 6))
    plain = infidelity(linear, x, values, target=0, normalise=True)
    scaled = infidelity(linear, x, 10 * values, target=0, normalise=True)
    np.testing.assert_allclose(scaled.score, plain.score)
    np.testing.assert_allclose(scaled.scale, plain.scale / 10)
    # No other factor fits better.
    for factor in (0.9, 1.1):
        other = infidelity(linear, x, factor * plain.scale[:, None] * values, target=0)
        assert (other.score > plain.score).all()
    nothing = infidelity(linear, x, np.zeros_like(x), target=0, normalise=True)
    np.testing.assert_array_equal(nothing.scale, 0)


def test_squares_are_removed_from_all_channels() -> None:
    x = {"x": np.random.default_rng(5).normal(size=(3, 3, 8, 9)).astype(np.float32)}
    baseline = {"x": np.zeros_like(x["x"])}
    for k in range(20):
        removed, perturbed = SquareRemoval(3)(x, baseline, np.random.default_rng(k))
        changed = perturbed["x"] != x["x"]
        assert (changed == changed[:1, :1]).all()
        rows, columns = np.nonzero(changed[0, 0])
        assert len(rows) == 9
        assert np.ptp(rows) == np.ptp(columns) == 2
        np.testing.assert_array_equal(removed["x"], np.where(changed, x["x"], 0))
    _, perturbed = SquareRemoval()(x, baseline, np.random.default_rng(0))
    assert (perturbed["x"] != x["x"]).sum() == 3 * 3 * 2 * 2
    _, perturbed = SquareRemoval(100)(x, baseline, np.random.default_rng(0))
    assert not perturbed["x"].any()


def test_examples_do_not_depend_on_each_other(pictures: igonnx.Explainer) -> None:
    rng = np.random.default_rng(6)
    x, values = rng.normal(size=(2, 40, 3, 8, 9)).astype(np.float32)
    for perturbation in (GaussianNoise(), SquareRemoval()):
        settings = {"target": 1, "perturbation": perturbation, "samples": 5, "seed": 3}
        together = infidelity(pictures, x, values, **settings)
        alone = infidelity(pictures, x[7:9], values[7:9], **settings)
        np.testing.assert_allclose(alone.change, together.change[7:9], rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(alone.expected, together.expected[7:9])


def test_the_seed_is_of_the_perturbations(pictures: igonnx.Explainer) -> None:
    x = np.ones((1, 3, 8, 9), np.float32)
    first, same, other = (infidelity(pictures, x, x, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.expected, same.expected)
    np.testing.assert_array_equal(first.change, same.change)
    assert not np.array_equal(first.change, other.change)


def test_progress_timeout_and_cancel(linear: igonnx.Explainer) -> None:
    x = np.ones((5, 6))
    told: list[tuple[int, int]] = []
    infidelity(linear, x, x, samples=50, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (250, 250)
    assert len(told) > 2
    token = igonnx.CancelToken()
    token.cancel()
    with pytest.raises(igonnx.CancelledError):
        infidelity(linear, x, x, cancel=token)
    with pytest.raises(igonnx.DeadlineError):
        infidelity(linear, x, x, timeout=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 0}, r"^samples is 0; expected a whole number of at least 1$"),
        ({"seed": -1}, r"^seed is -1"),
        ({"baseline": [0.0, 1.0]}, r"^baseline is a list; expected one baseline for infidelity$"),
        ({"perturbation": "noise"}, r"^perturbation is 'noise'; expected a function"),
        ({"perturbation": lambda x, b, r: (x, {})}, r"gives perturbed inputs of shapes \{\}; exp"),
        ({"perturbation": lambda x, b, r: ({"x": x["x"][:, :2]}, x)}, r"gives I of shapes \{'x': "),
        ({"perturbation": lambda x, b, r: 5}, r"^the perturbation gives a int; expected a tuple"),
        ({"perturbation": lambda x, b, r: (1, x)}, r"^the perturbation gives a tuple; expected a "),
        ({"times_input": "no"}, r"^times_input is 'no'; expected True, False or None$"),
        ({"normalise": "no"}, r"^normalise is 'no'; expected True or False$"),
        ({"progress": 3}, r"^progress is 3"),
        ({"timeout": -1}, r"^timeout is -1"),
    ],
)
def test_settings_that_make_no_sense(
    linear: igonnx.Explainer, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(igonnx.InputError, match=message):
        infidelity(linear, np.ones((1, 6)), np.ones((1, 6)), **arguments)


def test_values_that_do_not_fit(linear: igonnx.Explainer) -> None:
    x = np.ones((2, 6))
    with pytest.raises(igonnx.InputError, match=r"^the attribution of 'x' has shape \[2, 5\]; exp"):
        infidelity(linear, x, np.ones((2, 5)))
    with pytest.raises(igonnx.InputError, match="NaN"):
        infidelity(linear, x, np.full((2, 6), np.nan))
    for number in (0, -1.0, np.nan, "a"):
        with pytest.raises(igonnx.InputError, match=r"^std is .*; expected a number above 0$"):
            GaussianNoise(number)  # type: ignore[arg-type]
    with pytest.raises(igonnx.InputError, match=r"^length is 0"):
        SquareRemoval(0)
