"""Infidelity: whether what an attribution says of a perturbation is what the model does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution
from igonnx.baselines import OneBaseline
from igonnx.checks import require_flag, require_whole
from igonnx.engine.control import Cancel, call_control
from igonnx.errors import InputError
from igonnx.explainer import Explainer
from igonnx.inputs import Arrays
from igonnx.methods.call import Array, Progress, Tensors, per_request
from igonnx.metrics.perturbations import Perturbation, SquareRemoval
from igonnx.metrics.subject import Given, Subject, require_run, sampled_scores, subject_of
from igonnx.targets import Target, TargetIndex

__all__ = ["Infidelity", "infidelity"]

# Methods whose values are slopes, score per unit of the input; those of the others carry the way from the baseline.
SLOPES = frozenset(
    "saliency guided_backprop deconvnet neuron_gradient neuron_guided_backprop neuron_deconvnet".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Infidelity:
    """What `infidelity` found for N examples and S perturbations.

    expected: float64 [N, S], the change in score that the attribution tells: I . values.
    change: float64 [N, S], the change there is: score(x) - score(perturbed).
    scale: float64 [N], what `expected` is multiplied by: 1, or with `normalise` what fits best.
    target: per example the index whose score it is, None for a mask.
    """

    expected: Array
    change: Array
    scale: Array
    target: list[TargetIndex | None]

    @property
    def score(self) -> Array:
        """The mean of (scale expected - change)^2 over the perturbations, float64 [N]: the lower, the better."""
        return np.asarray(self._squares.mean(axis=1))

    @property
    def standard_error(self) -> Array:
        """Of `score`, by the spread of the perturbations: float64 [N]; infinite for a single one."""
        squares = self._squares
        if squares.shape[1] == 1:
            return np.full(len(squares), np.inf)
        return np.asarray(squares.std(axis=1, ddof=1) / np.sqrt(squares.shape[1]))

    @property
    def _squares(self) -> Array:
        return np.square(self.scale[:, None] * self.expected - self.change)


def infidelity(
    explainer: Explainer,
    inputs: Arrays,
    attribution: Given,
    *,
    target: Target = None,
    baseline: OneBaseline = None,
    seed: int = 0,
    perturbation: Perturbation | None = None,
    samples: int = 50,
    times_input: bool | None = None,
    normalise: bool = False,
    progress: Progress = None,
    timeout: float | None = None,
    cancel: Cancel = None,
) -> Infidelity:
    """Infidelity (Yeh et al., 2019, arXiv:1901.09392): E[(I . values - (score(x) - score(x - I)))^2] over random I.

    As Captum's `infidelity`, at the same perturbations. It is in the square of the score's units: compare it between
    attributions of the same score only, or `normalise`.

    Args:
        explainer: the model, its output and what is explained.
        inputs: as for its methods.
        attribution: what one of its methods gave for them, or values by tensor, of the tensors' shapes.
        target: as for its methods; default: that of the `Attribution`, else the largest element.
        baseline: what removed squares become, and what `times_input` counts from: as for the methods, but one only.
        seed: of the perturbations.
        perturbation: `SquareRemoval` (the default), `GaussianNoise`, or a function: see `Perturbation`. Perturbations
            are the same for every example.
        samples: perturbations, a forward pass each.
        times_input: whether the values carry the factor x - baseline already, as those of IG do and slopes do not: then
            I is divided by it, and 0 where that is 0. Default: of an `Attribution` what its method makes (saliency,
            guided_backprop and deconvnet give slopes), of other values False, as in Captum.
        normalise: multiply I . values, per example, by the number with which it fits the changes best in the sense of
            least squares, E[I . values change] / E[(I . values)^2]: then the scale of the values does not count.
        progress: called with (passes done, passes in all) from time to time; an exception in it stops.
        timeout: as for the methods.
        cancel: as for the methods.

    Raises `InputError` for values of other shapes, NaN, settings that make no sense, a mask without `target`, and
    scores that are not finite; else as the methods do.

    """
    require_whole("samples", samples, 1)
    require_flag("times_input", times_input, optional=True)
    require_flag("normalise", normalise)
    require_run(baseline, seed, progress, "infidelity")
    drawn = SquareRemoval() if perturbation is None else perturbation
    if not callable(drawn):
        raise InputError(
            f"perturbation is {drawn!r}; expected a function, see igonnx.metrics.Perturbation"
        )
    if times_input is None:
        times_input = isinstance(attribution, Attribution) and not _is_slope(attribution)
    subject = subject_of(
        explainer,
        inputs,
        attribution,
        target=target,
        baseline=baseline,
        seed=seed,
        control=call_control(timeout, cancel),
    )
    factors = _factors(subject, times_input=times_input)
    expected = np.empty((len(subject), samples))

    def made(k: int) -> Tensors:
        random = np.random.default_rng([seed, k])
        removed, perturbed = _drawn(drawn(subject.x, subject.baseline, random), subject.x)
        expected[:, k] = per_request(
            [np.asarray(removed[name]) * factors[name] for name in factors]
        )
        return perturbed

    change = subject.scores[:, None] - sampled_scores(subject, samples, made, progress)
    if not np.isfinite(expected).all():
        raise InputError("the perturbation is not finite")
    scale = _best_scale(expected, change) if normalise else np.ones(len(subject))
    return Infidelity(expected, change, scale, subject.target)


def _is_slope(attribution: Attribution) -> bool:
    return attribution.method.split(" ", 1)[0] in SLOPES


def _factors(subject: Subject, *, times_input: bool) -> dict[str, Array]:
    """What I is multiplied by, [N, ...] per tensor: score per unit."""
    factors = {}
    for name, values in subject.values.items():
        x = subject.x[name]
        if values.shape != x.shape:
            raise InputError(
                f"the attribution of {name!r} has shape {list(values.shape)}; expected {list(x.shape)}"
            )
        factors[name] = values
        if times_input:
            way = x.astype(np.float64) - subject.baseline[name]
            factors[name] = np.divide(values, way, out=np.zeros_like(way), where=way != 0)
    return factors


def _best_scale(expected: Array, change: Array) -> Array:
    """The least-squares factor from `expected` to `change`, [N]; 0 where nothing is expected."""
    together, alone = (expected * change).sum(axis=1), np.square(expected).sum(axis=1)
    return np.asarray(np.divide(together, alone, out=np.zeros_like(alone), where=alone > 0))


def _drawn(given: Any, x: Mapping[str, NDArray[Any]]) -> tuple[Tensors, Tensors]:
    """What a perturbation gave: I and the perturbed inputs, of the inputs' names and shapes. Raises `InputError`."""
    if not isinstance(given, tuple) or [isinstance(one, Mapping) for one in given] != [True, True]:
        raise InputError(
            f"the perturbation gives a {type(given).__name__}; expected a tuple of I and the perturbed inputs, "
            "{name: array} both"
        )
    removed, perturbed = given
    for what, arrays in (("I", removed), ("perturbed inputs", perturbed)):
        shapes = {name: list(np.shape(array)) for name, array in arrays.items()}
        expected = {name: list(array.shape) for name, array in x.items()}
        if shapes != expected:
            raise InputError(
                f"the perturbation gives {what} of shapes {shapes}; expected {expected}"
            )
    return removed, perturbed
