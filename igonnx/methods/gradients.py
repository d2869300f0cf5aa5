"""Methods of one backward pass at the input itself: fast, local, and blind to saturation."""

from __future__ import annotations

from functools import partial
from typing import Unpack

import numpy as np

from igonnx.attribution import Attribution
from igonnx.baselines import Baselines
from igonnx.engine.plan import RowPlan
from igonnx.inputs import Arrays
from igonnx.methods.call import Call, Explaining, MethodResult, Options, run_rows, times_path
from igonnx.targets import Target

__all__ = ["at_input", "deconvnet", "guided_backprop", "input_x_gradient", "saliency"]


def saliency(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    absolute: bool = True,
    **options: Unpack[Options],
) -> Attribution:
    """The gradient of the score by the input (Simonyan, Vedaldi and Zisserman, 2013, arXiv:1312.6034).

    Args:
        inputs, target: as for `integrated_gradients`.
        baseline: changes nothing in the values; `baseline_scores` and `delta` are counted from it.
        seed: of the noise, if there is any.
        absolute: the magnitude of the gradient, as the paper has it, and Captum; False: with its sign.
        options: noise, noise_samples, noise_std, progress, timeout, cancel, as for `integrated_gradients`; with
            noise="smoothgrad" this is SmoothGrad.

    Raises as `integrated_gradients`.

    """
    return explainer.explain_with(
        partial(at_input, absolute=absolute),
        inputs,
        method=f"saliency absolute={bool(absolute)}",
        target=target,
        baseline=baseline,
        seed=seed,
        **options,
    )


def input_x_gradient(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    **options: Unpack[Options],
) -> Attribution:
    """The input times the gradient there (Shrikumar et al., 2016, arXiv:1605.01713): IG with one step, at the input.

    With a `baseline` other than zeros it is (input - baseline) times the gradient, the first term of the Taylor series
    from the input to the baseline. The other arguments are those of `saliency`.
    """
    return explainer.explain_with(
        partial(at_input, times=True),
        inputs,
        method="input_x_gradient",
        target=target,
        baseline=baseline,
        seed=seed,
        **options,
    )


def guided_backprop(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    **options: Unpack[Options],
) -> Attribution:
    """Guided backpropagation (Springenberg et al., 2015, arXiv:1412.6806).

    On the way back, a ReLU lets pass what is positive, where its input was positive. What counts as a ReLU is said in
    `igonnx.autodiff.propagation`. It shows which patterns the network looks at rather than what decides: it hardly
    depends on the target (Adebayo et al., 2018, arXiv:1810.03292). The arguments are those of `saliency`. Warns where
    no ReLU lies on the way.
    """
    return explainer.explain_with(
        at_input,
        inputs,
        method="guided_backprop",
        target=target,
        baseline=baseline,
        seed=seed,
        propagation="guided_backprop",
        **options,
    )


def deconvnet(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    **options: Unpack[Options],
) -> Attribution:
    """The deconvolutional network's signal (Zeiler and Fergus, 2014, arXiv:1311.2901).

    On the way back, a ReLU lets pass what is positive, whatever its input was. Else as `guided_backprop`.
    """
    return explainer.explain_with(
        at_input,
        inputs,
        method="deconvnet",
        target=target,
        baseline=baseline,
        seed=seed,
        propagation="deconvnet",
        **options,
    )


def at_input(call: Call, *, absolute: bool = False, times: bool = False) -> MethodResult:
    """The gradient at x of each request."""
    count = len(call)
    plan = RowPlan(np.arange(count), np.ones(count), np.ones(count))
    result = run_rows(call, plan)
    gradients = result.weighted_gradient
    if times:
        gradients = {name: times_path(g, call.requests, name) for name, g in gradients.items()}
    if absolute:
        gradients = {name: np.abs(g, out=g) for name, g in gradients.items()}
    return MethodResult(
        attribution=gradients,
        steps_used=np.ones(count, np.int64),
        scores=result.score,
    )
