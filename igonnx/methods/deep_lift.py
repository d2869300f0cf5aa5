"""DeepLIFT and DeepLIFT-SHAP: the change of the score from the baseline, carried back by multipliers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution
from igonnx.autodiff.propagation.deep_lift import DeepLift
from igonnx.baselines import Baselines
from igonnx.checks import require_whole
from igonnx.errors import warn_caller
from igonnx.inputs import Arrays
from igonnx.methods.call import Array, Explaining, Options, Running, per_request
from igonnx.methods.distributions import expected
from igonnx.methods.gradients import at_input
from igonnx.targets import Target

__all__ = ["deep_lift", "deep_lift_shap"]

# Summation to delta is exact but for rounding. A larger share of the change that is missing deserves a warning, unless
# the change itself is little beside what it is the difference of, and beside the values that cancel in it.
MISSING = 0.01
ROUNDING = 1e-4


def deep_lift(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    rule: str = "rescale",
    **options: Unpack[Options],
) -> Attribution:
    """DeepLIFT (Shrikumar, Greenside and Kundaje, 2017, arXiv:1704.02685).

    The difference of each tensor from what it is for the baseline is carried back from the output, operator by
    operator, so that the values add up to the change of the score exactly: one forward pass for the input, one for the
    baseline, and one back. What each operator does is told in `igonnx.autodiff.propagation.deep_lift`.

    Args:
        inputs, target, baseline: as for `integrated_gradients`; of several baselines the mean is taken.
        seed: of baselines that are drawn, and of the noise, if there is any.
        rule: at nonlinearities: "rescale", or "reveal_cancel", which tells positive from negative changes behind
            convolutions, matrix products and sums (and is "rescale" behind other operators).
        options: noise, noise_samples, noise_std, progress, timeout, cancel, as for `integrated_gradients`.

    Operators are handled as such, whatever a framework made of them: activations that are used twice, functions
    without a module, products of two tensors, attention. Other implementations take the plain gradient there, or
    subtract a mean from what a softmax gets, and their values do not add up; `delta` of these does, up to rounding.

    Raises as `integrated_gradients`, and `UnsupportedOperatorError` for an operator that DeepLIFT has no rule for.
    Warns (`UserWarning`) where more than 1 % of the change of a score is missing in the sum: a choice that depends on
    the input, or rounding to steps.

    """
    spec = DeepLift(rule)
    found = explainer.explain_with(
        partial(at_input, times=True),
        inputs,
        method=spec.name,
        target=target,
        baseline=baseline,
        seed=seed,
        propagation=spec,
        **options,
    )
    if options.get("noise") is None:  # else it is not the change of this score that is added up
        _warn_of_missing(found)
    return found


def deep_lift_shap(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    rule: str = "rescale",
    samples: int | None = None,
    **running: Unpack[Running],
) -> Attribution:
    """DeepLIFT's mean over a distribution of baselines (Lundberg and Lee, 2017, arXiv:1705.07874, section 4.2).

    It approximates SHAP values, for independent features.

    Args:
        inputs, target: as for `integrated_gradients`.
        baseline: the distribution, as for `expected_gradients`: examples [K, ...], the same for every input, or a list
            of baselines.
        seed: of the draws, if there are any, which are the same for every input.
        rule: as for `deep_lift`.
        samples: baselines that are used, drawn without repetition where there are more; None: all.
        running: progress, timeout, cancel, as for `integrated_gradients`.

    `baseline_scores` is the mean score of the baselines used. Raises and warns as `deep_lift`.

    """
    require_whole("samples", samples, 1, optional=True)
    spec = DeepLift(rule)
    found = explainer.explain_with(
        partial(expected, draw=partial(_without_repetition, samples), given=baseline, std=None),
        inputs,
        method=f"deep_lift_shap rule={rule} samples={samples}",
        target=target,
        seed=seed,
        propagation=spec,
        **running,
    )
    _warn_of_missing(found)
    return found


def _without_repetition(
    samples: int | None, baselines: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], Array]:
    """Numbers of baselines, and alpha 1 for each: multipliers are asked for at the input itself."""
    number = np.arange(baselines)
    if samples is not None and samples < baselines:
        number = np.sort(random.permutation(baselines)[:samples])
    return number, np.ones(len(number))


def _warn_of_missing(found: Attribution) -> None:
    arrays = found.values.values() if isinstance(found.values, Mapping) else [found.values]
    size = per_request([np.abs(array) for array in arrays])
    size += np.abs(found.scores) + np.abs(found.baseline_scores)
    change = np.abs(found.scores - found.baseline_scores)
    missing = np.abs(found.delta)
    short = np.flatnonzero((missing > MISSING * change) & (missing > ROUNDING * size))
    if short.size:
        worst = int(short[np.argmax(missing[short])])
        warn_caller(
            f"the values of {short.size} of {len(missing)} examples miss more than {MISSING:.0%} of the change of the "
            f"score (example {worst}: {missing[worst]:.4g} of {change[worst]:.4g}): an operator on the way makes "
            "choices or steps that no multiplier tells of"
        )
