"""Methods that explain by the layers inside a model: any floating tensors, by name.

All of them return an attribution whose values have the shape of the layer, {name: values} where several are named.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution
from igonnx.baselines import Baselines
from igonnx.inputs import Arrays
from igonnx.methods.call import Array, Call, Explaining, MethodResult, Options
from igonnx.methods.inside import at_inputs, layers_of, rows_on_path, summed
from igonnx.quadrature import nodes_and_weights
from igonnx.row_layers import Inside
from igonnx.targets import Target

__all__ = [
    "internal_influence",
    "layer_activation",
    "layer_conductance",
    "layer_gradient_x_activation",
]

Layers = str | Sequence[str]


def layer_activation(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    layer: Layers,
    **options: Unpack[Options],
) -> Attribution:
    """What a layer gives for the inputs: one forward pass, and no gradient is needed.

    Args:
        inputs: as for `integrated_gradients`.
        target, baseline: change nothing in the values; scores and `delta` are those of the target, from the baseline.
        seed: of the noise, if there is any.
        layer: name of any floating tensor that the model computes, or a pattern such as "*conv5*" that one name
            matches, or a list of these: then the values are {name: values}.
        options: noise, noise_samples, noise_std, progress, timeout, cancel, as for `integrated_gradients`.

    Activations do not add up to a change in score: `delta`, the sum of the values minus that change, tells nothing.
    Raises as `integrated_gradients`; `InputError` for a layer that is not there, with names that are close, and for one
    that does not count the examples along its first axis.

    """
    layers = layers_of(explainer, layer, anywhere=True)
    return explainer.explain_with(
        partial(_activation, layers=layers),
        inputs,
        method=f"layer_activation layer={_joined(layers)}",
        target=target,
        baseline=baseline,
        seed=seed,
        propagation=None,
        **options,
    )


def layer_gradient_x_activation(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    layer: Layers,
    **options: Unpack[Options],
) -> Attribution:
    """The activation of a layer times the gradient of the score by it, for each element.

    Args:
        inputs, target: as for `integrated_gradients`.
        baseline: changes nothing in the values; `baseline_scores` and `delta` are counted from it.
        seed, options: as for `layer_activation`.
        layer: name of any floating tensor between `wrt` and the output, or a pattern that one name matches, or a list
            of these: the gradients come from one backward pass.

    The values are the first term of the score's Taylor series from the activation to zero; `delta` is their sum minus
    the change in score from the baseline, and is zero where what follows the layer is linear without bias and the
    baseline's score is zero. Raises as `layer_activation`.

    """
    layers = layers_of(explainer, layer)
    return explainer.explain_with(
        partial(_gradient_x_activation, layers=layers),
        inputs,
        method=f"layer_gradient_x_activation layer={_joined(layers)}",
        target=target,
        baseline=baseline,
        seed=seed,
        propagation=None,
        **options,
    )


def layer_conductance(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    layer: Layers,
    steps: int = 50,
    rule: str = "gauss_legendre",
    differences: bool = False,
    **options: Unpack[Options],
) -> Attribution:
    """Conductance (Dhamdhere, Sundararajan and Yan, 2018, arXiv:1805.12233): Integrated Gradients by a layer's neurons.

    For a neuron y of the layer it is the integral along the straight path z from baseline to input, in terms of what
    is explained (`wrt`), of dF/dy (z) times dy/dalpha: what of the change in score flows through y.

    Args:
        inputs, target, baseline, steps, rule: as for `integrated_gradients`.
        seed, options: as for `layer_activation`.
        layer: as for `layer_gradient_x_activation`.
        differences: put the differences of y from node to node in the place of dy/dalpha, with the gradient at the
            first of the two, over steps + 1 nodes ("trapezoid" has one more): what Captum computes, for comparisons. It
            leaves out what lies before the first node and behind the last, and is off by the order of one step. By
            default dy/dalpha is computed exactly, by two walks back (see `igonnx.row_layers`).

    Where every path from `wrt` to the output goes through the layer, the values add up to the change in score: `delta`
    is their sum minus that change, as for Integrated Gradients, and vanishes with more steps. Where something bypasses
    the layer (a residual connection, say) it tells how much. Raises as `integrated_gradients` and `layer_activation`;
    `UnsupportedOperatorError` where dy/dalpha needs the derivative of an operator that has none: then take differences.

    """
    layers = layers_of(explainer, layer)
    nodes_and_weights(rule, steps)
    core = _conductance_by_differences if differences else _conductance
    settings = f"rule={rule} steps={steps}" + " differences" * bool(differences)
    return explainer.explain_with(
        partial(core, layers=layers, steps=steps, rule=rule),
        inputs,
        method=f"layer_conductance layer={_joined(layers)} {settings}",
        target=target,
        baseline=baseline,
        seed=seed,
        propagation=None,
        **options,
    )


def internal_influence(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    layer: Layers,
    steps: int = 50,
    rule: str = "gauss_legendre",
    **options: Unpack[Options],
) -> Attribution:
    """Internal influence (Leino et al., 2018, arXiv:1802.03788): the gradient by a layer, averaged along the path.

    The path is the straight one from baseline to input, in terms of what is explained (`wrt`); the distribution of
    interest is the uniform one on it. The arguments are those of `layer_conductance`.

    The values are slopes, not shares: `delta` is their sum minus the change in score, and tells nothing.
    """
    layers = layers_of(explainer, layer)
    nodes_and_weights(rule, steps)
    return explainer.explain_with(
        partial(_influence, layers=layers, steps=steps, rule=rule),
        inputs,
        method=f"internal_influence layer={_joined(layers)} rule={rule} steps={steps}",
        target=target,
        baseline=baseline,
        seed=seed,
        propagation=None,
        **options,
    )


def _joined(layers: Sequence[str]) -> str:
    return ",".join(layers)


# -- cores -------------------------------------------------------------------------------------


def _activation(call: Call, *, layers: tuple[str, ...]) -> MethodResult:
    found = at_inputs(call, Inside(values=layers))
    return _result(call, {name: _float64(found[f"value:{name}"]) for name in layers}, 0)


def _gradient_x_activation(call: Call, *, layers: tuple[str, ...]) -> MethodResult:
    found = at_inputs(call, Inside(values=layers, gradients=layers))
    products = {
        name: _float64(found[f"value:{name}"]) * found[f"gradient:{name}"] for name in layers
    }
    return _result(call, products, 1)


def _conductance(call: Call, *, layers: tuple[str, ...], steps: int, rule: str) -> MethodResult:
    alpha, weight = nodes_and_weights(rule, steps)
    totals: dict[str, Array] = {}
    for rows in rows_on_path(call, Inside(gradients=layers, changes=layers), alpha, weight):
        found = rows.found
        terms = {name: found[f"gradient:{name}"] * found[f"change:{name}"] for name in layers}
        summed(totals, len(call), rows, terms)
    return _result(call, totals, len(alpha))


def _influence(call: Call, *, layers: tuple[str, ...], steps: int, rule: str) -> MethodResult:
    alpha, weight = nodes_and_weights(rule, steps)
    totals: dict[str, Array] = {}
    for rows in rows_on_path(call, Inside(gradients=layers), alpha, weight):
        summed(totals, len(call), rows, {name: rows.found[f"gradient:{name}"] for name in layers})
    return _result(call, totals, len(alpha))


def _conductance_by_differences(
    call: Call, *, layers: tuple[str, ...], steps: int, rule: str
) -> MethodResult:
    alpha = np.sort(nodes_and_weights(rule, steps + 1)[0])
    asked = Inside(values=layers, gradients=layers)
    totals: dict[str, Array] = {}
    # The node before, of the same request: (request, its gradient, its value) by layer.
    before: dict[str, tuple[int, NDArray[Any], NDArray[Any]]] = {}
    for rows in rows_on_path(call, asked, alpha, np.ones(len(alpha))):
        for name in layers:
            gradient, value = rows.found[f"gradient:{name}"], _float64(rows.found[f"value:{name}"])
            if name not in totals:
                totals[name] = np.zeros((len(call), *value.shape[1:]))
            for i, request in enumerate(rows.row):
                if name in before and before[name][0] == request:
                    totals[name][request] += before[name][1] * (value[i] - before[name][2])
                before[name] = int(request), gradient[i], value[i]
    return _result(call, totals, len(alpha))


def _result(call: Call, attribution: dict[str, Array], gradients: int) -> MethodResult:
    """The result, of which each example took so many gradients."""
    return MethodResult(attribution=attribution, steps_used=np.full(len(call), gradients))


def _float64(array: NDArray[Any]) -> Array:
    return array.astype(np.float64)
