"""Integrated Gradients and what is made of it: methods along the straight path from baseline to input."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Unpack

from igonnx.attribution import Attribution
from igonnx.autodiff.propagation import GRADIENT
from igonnx.baselines import Baselines
from igonnx.errors import InputError
from igonnx.inputs import Arrays
from igonnx.methods.adaptive import adaptive_mesh
from igonnx.methods.call import Call, Explaining, MethodResult, Options, Running
from igonnx.methods.path_integral import fixed_rule
from igonnx.quadrature import nodes_and_weights
from igonnx.targets import Target

__all__ = ["integrated_gradients", "smoothgrad_ig"]


def integrated_gradients(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    steps: int = 50,
    rule: str = "gauss_legendre",
    tolerance: float | None = None,
    max_steps: int = 1000,
    memory_limit: int | None = None,
    exact_sum: bool = False,
    propagation: str = GRADIENT,
    **options: Unpack[Options],
) -> Attribution:
    """Integrated Gradients (Sundararajan, Taly and Yan, 2017, arXiv:1703.01365).

    Args:
        inputs: array [N, ...] (a model with one input) or {name: array}.
        target: what is explained. None: the largest element of each example's output (after `apply`); an int or
            tuple: an index into the output without its batch axis; a list: one of these per example; an array of
            the output's shape: a mask or any weights.
        baseline: where the path starts, per explained tensor: None for zeros, a number that fills it, an array that
            broadcasts to its shape, a name such as "blurred" (see `igonnx.baselines`), or {name: one of these}; a list
            of these: the attributions are averaged over them. Where an inner tensor is explained, {name of a model
            input: array} stands for what the model makes of that input.
        seed: of noise and of random baselines. Every example gets the same draws.
        steps: number of steps of the rule. 50 is the custom, and often too few: see `Attribution.delta`.
        rule: "gauss_legendre", "trapezoid", "middle", "left" or "right".
        tolerance: refine adaptively instead, until the relative completeness error and the estimated relative L2
            error of the attribution are both at most this; `steps` and `rule` are then not used. With several baselines
            or noise this is for each copy; `error_estimate` is that of the result.
        max_steps: points per example at which `tolerance` may evaluate the gradient; what it then did not reach is
            said in a `ToleranceWarning`.
        memory_limit: bytes that the gradients kept for `tolerance` may take; None: as many as the explainer's limit
            has, else 512 MiB, or what 13 gradients need. Beyond it some are computed again: it costs time, not
            accuracy.
        exact_sum: make the values add up to the change in score by the smallest correction: each is moved by the
            same share of its size, which `Attribution.correction` records. A tolerance then is for the
            estimated error, the correction included, and takes fewer gradients.
        propagation: "gradient", or "guided_backprop" or "deconvnet", whose signals are then integrated instead (they
            do not add up to the change in score: no `tolerance`, no `exact_sum`).
        options: noise, noise_samples, noise_std (`igonnx.methods.call.Options`): the same on noisy copies of the
            input. progress: called with (gradients done, gradients in all) from time to time; an exception in it
            stops. timeout: seconds this call may take, waiting included; then it stops, also in the midst of a run
            that is not shared with another call (making the sessions, on the first call, is not interrupted). cancel:
            an `igonnx.CancelToken` or a `threading.Event` with which another thread stops this call likewise.

    Raises:
        InputError: inputs, baseline, target or settings that do not fit; the message says what was expected.
        EngineError: the runtime failed, or a gradient on the path is not finite.
        DeadlineError, CancelledError: kinds of it: `timeout` or `cancel` has stopped the call. The explainer, and
            other calls, go on.

    """
    if exact_sum and propagation != GRADIENT:
        raise InputError(f"exact_sum is for gradients; propagation is {propagation!r}")
    if exact_sum and options.get("noise") in ("smoothgrad_sq", "vargrad"):
        raise InputError(
            f"exact_sum is for values that add up to the change in score; those of noise={options['noise']!r} do not"
        )
    core = partial(
        _integral,
        steps=steps,
        rule=rule,
        tolerance=tolerance,
        max_steps=max_steps,
        memory_limit=explainer.memory_limit if memory_limit is None else memory_limit,
        exact_sum=exact_sum,
    )
    if tolerance is None:
        nodes_and_weights(rule, steps)  # refuses what is no rule before anything is run
        settings = f"rule={rule} steps={steps}"
    elif propagation != GRADIENT:
        raise InputError(
            f"tolerance is for gradients; with propagation={propagation!r} nothing adds up that could be refined"
        )
    else:
        settings = f"tolerance={tolerance} max_steps={max_steps}"
    if propagation != GRADIENT:
        settings += f" propagation={propagation}"
    return explainer.explain_with(
        core,
        inputs,
        method=f"integrated_gradients {settings}",
        target=target,
        baseline=baseline,
        seed=seed,
        propagation=propagation,
        exact_sum=exact_sum,
        **options,
    )


def smoothgrad_ig(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    steps: int = 50,
    rule: str = "gauss_legendre",
    noise: str = "smoothgrad",
    noise_samples: int = 10,
    noise_std: float | Mapping[str, float] | None = None,
    **running: Unpack[Running],
) -> Attribution:
    """Integrated Gradients on noisy copies of the input, averaged (SmoothGrad: Smilkov et al., 2017, arXiv:1706.03825).

    Args:
        inputs, target, baseline, seed, steps, rule: as for `integrated_gradients`.
        noise: what is made of the copies' attributions: "smoothgrad", their mean; "smoothgrad_sq", the mean of their
            squares; "vargrad", their variance. The latter two tell where attributions are large or unstable, without a
            sign, and do not add up to the change in score.
        noise_samples: copies of each input; each takes `steps` gradients.
        noise_std: standard deviation of the Gaussian noise in the units of the explained tensor, one number or
            {name: number}; None: 15 % of the range of each example's values.
        running: progress, timeout, cancel, as for `integrated_gradients`.

    Raises as `integrated_gradients`.

    """
    nodes_and_weights(rule, steps)
    if noise is None:
        raise InputError(
            "noise is None; smoothgrad_ig takes 'smoothgrad', 'smoothgrad_sq' or 'vargrad'"
        )
    return explainer.explain_with(
        partial(fixed_rule, rule=rule, steps=steps),
        inputs,
        method=f"smoothgrad_ig rule={rule} steps={steps}",
        target=target,
        baseline=baseline,
        seed=seed,
        noise=noise,
        noise_samples=noise_samples,
        noise_std=noise_std,
        **running,
    )


def _integral(
    call: Call,
    *,
    steps: int,
    rule: str,
    tolerance: float | None,
    max_steps: int,
    memory_limit: int | None,
    exact_sum: bool,
) -> MethodResult:
    if tolerance is None:
        return fixed_rule(call, rule=rule, steps=steps)
    return adaptive_mesh(
        call,
        tolerance=tolerance,
        max_steps=max_steps,
        memory_limit=memory_limit,
        exact_sum=exact_sum,
    )
