"""Layer-wise relevance propagation."""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike

from igonnx.attribution import Attribution
from igonnx.autodiff.propagation.lrp import (
    AlphaBeta,
    Box,
    Epsilon,
    Flat,
    Gamma,
    InputRule,
    LayerRule,
    Lrp,
)
from igonnx.baselines import Baselines
from igonnx.checks import as_finite, require_number
from igonnx.engine.plan import RowPlan
from igonnx.errors import InputError
from igonnx.inputs import Arrays
from igonnx.methods.call import Call, Explaining, MethodResult, Options, run_rows
from igonnx.targets import Target

__all__ = ["RULES", "lrp"]

GAMMA, ALPHA = 0.25, 2.0

# Rules by kind of layer: dense, convolution, and what reads the input.
_KINDS = {
    "epsilon": ("epsilon", "epsilon", None),
    "gamma": ("gamma", "gamma", None),
    "alpha_beta": ("alpha_beta", "alpha_beta", None),
    "z_plus": ("z_plus", "z_plus", None),
    "epsilon_plus": ("epsilon", "z_plus", None),
    "epsilon_plus_flat": ("epsilon", "z_plus", "flat"),
    "epsilon_alpha_beta": ("epsilon", "alpha_beta", None),
    "epsilon_alpha_beta_flat": ("epsilon", "alpha_beta", "flat"),
    "epsilon_gamma": ("epsilon", "gamma", None),
    "epsilon_gamma_box": ("epsilon", "gamma", "box"),
}
RULES = tuple(_KINDS)


def lrp(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    rule: str = "epsilon",
    epsilon: float = 1e-9,
    gamma: float | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    bias: bool = True,
    **options: Unpack[Options],
) -> Attribution:
    """Layer-wise relevance propagation (Bach et al., 2015, doi 10.1371/journal.pone.0130140).

    The score is dealt out backwards from layer to layer, one forward and one backward pass. The values are the
    relevance itself, in the units of the score.

    Args:
        inputs, target: as for `integrated_gradients`. Scores before the softmax, without `apply`, are what the rules
            are made for.
        baseline: changes nothing: relevance counts from zero, and so do `baseline_scores` and `delta`.
        seed: of the noise, if there is any.
        rule: for layers with weights; all others, and dense layers where nothing else is said, go by the epsilon rule:

            "epsilon"                   in proportion to each input's contribution
            "gamma"                     what agrees with the sign of an output counts 1 + gamma times
            "alpha_beta"                positive contributions get alpha, negative ones -beta of the relevance
            "z_plus"                    positive contributions alone: alpha 1, beta 0
            "epsilon_plus"              convolutions z_plus, dense layers epsilon
            "epsilon_alpha_beta"        convolutions alpha_beta, dense layers epsilon
            "epsilon_plus_flat",        the same, and layers that read the input spread relevance evenly over all that
            "epsilon_alpha_beta_flat"   they read
            "epsilon_gamma"             convolutions gamma, dense layers epsilon
            "epsilon_gamma_box"         the same, and layers that read the input take it to lie between `low` and `high`

            A layer reads the input if only moves of elements and element-wise maps by constants lie in between; where
            there is none (an embedding, say), the other rules alone hold.
            The composites are those of Kohlbrenner et al., 2020, arXiv:1910.09840, and Montavon et al., 2019,
            doi 10.1007/978-3-030-28954-6_10; formulas are in `igonnx.autodiff.propagation.lrp_layers` and
            `lrp_input_layer`, and what happens at every other operator in `lrp`.
        epsilon: how far denominators are moved away from zero, in the units of the model's tensors; larger values
            absorb what is weak or contradictory.
        gamma: of the gamma rule; default: 0.25.
        alpha, beta: of the alpha-beta rule, with alpha - beta = 1; default: 2 and 1.
        low, high: of the box rule: the range of the inputs, numbers or arrays that broadcast to one example, in the
            units in which they are fed (after standardisation, say).
        bias: biases keep their share of relevance, as the definitions have it; False: in layers by the gamma,
            alpha-beta and z-plus rules it goes to the inputs, so that these conserve relevance.
        options: noise, noise_samples, noise_std, progress, timeout, cancel, as for `integrated_gradients`.

    How much of the relevance is conserved shows in `delta`, the sum of the values minus the score: it is minus what
    biases, epsilon and the constant term of each softmax took. Without these it is zero up to rounding. On networks of
    ReLUs without biases, "epsilon" with epsilon=0 is `input_x_gradient`. With "z_plus" an output that nothing
    contributes to positively loses its relevance, too; "alpha_beta" gives the whole of it to contributions that all
    have one sign. Rules see the operators of the graph: layers that are used twice, residual sums and attention
    (Achtibat et al., 2024, arXiv:2402.05602) without modules are handled like all others.

    Raises as `integrated_gradients`, and `UnsupportedOperatorError` for an operator that relevance cannot cross.

    """
    spec = _specification(rule, epsilon, gamma, alpha, beta, low, high, bias)
    return explainer.explain_with(
        _relevance,
        inputs,
        method=spec.name,
        target=target,
        baseline=baseline,
        seed=seed,
        propagation=spec,
        **options,
    )


def _relevance(call: Call) -> MethodResult:
    """What arrives at x of each request."""
    count = len(call)
    given = call.requests
    # From zero: 0 + 1 (x - 0) is x to the last bit.
    origin = {name: np.zeros_like(array) for name, array in given.x.items()}
    plan = RowPlan(np.arange(count), np.ones(count), np.ones(count))
    result = run_rows(replace(call, requests=replace(given, baseline=origin)), plan)
    return MethodResult(
        attribution=result.weighted_gradient,
        steps_used=np.ones(count, np.int64),
        scores=result.score,
        baseline_scores=np.zeros(count),
    )


def _specification(
    rule: str,
    epsilon: float,
    gamma: float | None,
    alpha: float | None,
    beta: float | None,
    low: ArrayLike | None,
    high: ArrayLike | None,
    bias: bool,
) -> Lrp:
    """The propagation that the arguments ask for, or an `InputError` that says what is wrong with them."""
    if rule not in RULES:  # which may be anything, hashable or not
        raise InputError(f"rule is {rule!r}; expected one of {', '.join(map(repr, RULES))}")
    kinds = _KINDS[rule]
    _require_used("gamma", gamma, "gamma" in kinds, rule)
    _require_used("alpha", alpha, "alpha_beta" in kinds, rule)
    _require_used("beta", beta, "alpha_beta" in kinds, rule)
    _require_used("low", low, "box" in kinds, rule)
    _require_used("high", high, "box" in kinds, rule)
    require_number("epsilon", epsilon, 0)
    name = f"lrp rule={rule} epsilon={epsilon}"
    rules: dict[str, LayerRule] = {"epsilon": Epsilon(), "z_plus": AlphaBeta(1.0, 0.0)}
    if "gamma" in kinds:
        chosen = GAMMA if gamma is None else gamma
        require_number("gamma", chosen, 0)
        rules["gamma"] = Gamma(float(chosen))
        name += f" gamma={chosen}"
    if "alpha_beta" in kinds:
        rules["alpha_beta"] = pair = _alpha_beta(alpha, beta)
        name += f" alpha={pair.alpha} beta={pair.beta}"
    if not bias and not {"gamma", "alpha_beta", "z_plus"} & set(kinds):
        raise InputError(
            f"bias is False, but the rule {rule!r} has no layers that do without biases"
        )
    if not bias:
        name += " bias=False"
    dense, convolution, first = kinds
    reads: InputRule | None = None
    if first is not None:
        reads = Flat() if first == "flat" else _box(low, high)
    return Lrp(name, rules[dense], rules[convolution], reads, float(epsilon), bool(bias))


def _alpha_beta(alpha: float | None, beta: float | None) -> AlphaBeta:
    for name, number in (("alpha", alpha), ("beta", beta)):
        if number is not None:
            require_number(name, number, 0)
    if alpha is None:
        alpha = ALPHA if beta is None else beta + 1
    if beta is None:
        beta = alpha - 1
    if beta < 0 or abs(alpha - beta - 1) > 1e-6:
        raise InputError(f"alpha is {alpha} and beta is {beta}; expected alpha - beta = 1")
    return AlphaBeta(float(alpha), float(beta))


def _box(low: ArrayLike | None, high: ArrayLike | None) -> Box:
    if low is None or high is None:
        missing = "low" if low is None else "high"
        raise InputError(
            f"{missing} is None; the box rule needs the range of the inputs, low and high"
        )
    ends = [
        np.array(as_finite(end, name), order="C") for name, end in (("low", low), ("high", high))
    ]
    try:
        ordered = np.broadcast_arrays(*ends)
    except ValueError:
        shapes = " and ".join(str(list(end.shape)) for end in ends)
        raise InputError(
            f"low and high have shapes {shapes}; expected ones that broadcast"
        ) from None
    if not (ordered[0] <= ordered[1]).all():
        raise InputError("low is above high in places; expected the range of the inputs")
    return Box(*((end.tobytes(), end.shape) for end in ends))


def _require_used(name: str, given: object, used: bool, rule: str) -> None:
    if given is not None and not used:
        raise InputError(f"{name} is given, but the rule {rule!r} does not have it")
