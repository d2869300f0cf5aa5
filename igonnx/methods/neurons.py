"""Methods that explain a neuron inside the model, an element of a layer, in the place of the output.

But for `neuron_conductance` they are the methods of the same name, of the model that ends at the layer. They take
`layer`, the name of any floating tensor between `wrt` and the output (or a pattern that one name matches) with the
examples along its first axis, and `neuron`, an index into the layer without that axis: an int, a tuple, a list of these
(one per example), or an array of the layer's shape, whose product with the layer is then what is explained. Explained
tensors that the layer does not depend on get zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, Unpack

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution
from igonnx.baselines import Baselines
from igonnx.checks import is_whole
from igonnx.errors import InputError
from igonnx.inputs import Arrays
from igonnx.layers import layers_between
from igonnx.methods import deep_lift, distributions, gradients, layers, straight_path
from igonnx.methods.call import (
    Array,
    Call,
    Explaining,
    MethodResult,
    Options,
    Running,
    times_path,
)
from igonnx.methods.inside import at_inputs, layers_of, rows_on_path, summed
from igonnx.quadrature import nodes_and_weights
from igonnx.row_layers import Inside
from igonnx.targets import Target, resolve

__all__ = [
    "neuron_conductance",
    "neuron_deconvnet",
    "neuron_deep_lift_shap",
    "neuron_gradient",
    "neuron_gradient_shap",
    "neuron_guided_backprop",
    "neuron_integrated_gradients",
]

_Values: TypeAlias = "NDArray[Any] | dict[str, NDArray[Any]]"


def neuron_gradient(
    explainer: Explaining,
    inputs: Arrays,
    *,
    layer: str,
    neuron: Target,
    baseline: Baselines = None,
    seed: int = 0,
    absolute: bool = False,
    **options: Unpack[Options],
) -> Attribution:
    """The gradient of a neuron by the input: `saliency` of it, with its sign unless `absolute`.

    layer, neuron: see `igonnx.methods.neurons`: a tensor's name and an index without the batch axis. The others are as
    for `saliency`; `scores` and `delta` are those of the neuron. Raises as `saliency`, and `InputError` for a layer or
    neuron that is not there.
    """
    return _explained(
        gradients.saliency,
        "neuron_gradient",
        explainer,
        inputs,
        layer,
        neuron,
        baseline=baseline,
        seed=seed,
        absolute=absolute,
        **options,
    )


def neuron_integrated_gradients(
    explainer: Explaining,
    inputs: Arrays,
    *,
    layer: str,
    neuron: Target,
    baseline: Baselines = None,
    seed: int = 0,
    steps: int = 50,
    rule: str = "gauss_legendre",
    tolerance: float | None = None,
    max_steps: int = 1000,
    memory_limit: int | None = None,
    exact_sum: bool = False,
    **options: Unpack[Options],
) -> Attribution:
    """Integrated Gradients of a neuron: the values add up to its change from the baseline.

    layer, neuron: as for `neuron_gradient`. The others, and what is raised, are those of `integrated_gradients`.
    """
    return _explained(
        straight_path.integrated_gradients,
        "neuron_integrated_gradients",
        explainer,
        inputs,
        layer,
        neuron,
        baseline=baseline,
        seed=seed,
        steps=steps,
        rule=rule,
        tolerance=tolerance,
        max_steps=max_steps,
        memory_limit=memory_limit,
        exact_sum=exact_sum,
        **options,
    )


def neuron_gradient_shap(
    explainer: Explaining,
    inputs: Arrays,
    *,
    layer: str,
    neuron: Target,
    baseline: Baselines = None,
    seed: int = 0,
    samples: int = 50,
    noise_std: float | Mapping[str, float] = 0.0,
    **running: Unpack[Running],
) -> Attribution:
    """GradientSHAP of a neuron.

    layer, neuron: as for `neuron_gradient`. The others, and what is raised, are those of `gradient_shap`.
    """
    return _explained(
        distributions.gradient_shap,
        "neuron_gradient_shap",
        explainer,
        inputs,
        layer,
        neuron,
        baseline=baseline,
        seed=seed,
        samples=samples,
        noise_std=noise_std,
        **running,
    )


def neuron_deep_lift_shap(
    explainer: Explaining,
    inputs: Arrays,
    *,
    layer: str,
    neuron: Target,
    baseline: Baselines = None,
    seed: int = 0,
    rule: str = "rescale",
    samples: int | None = None,
    **running: Unpack[Running],
) -> Attribution:
    """DeepLIFT-SHAP of a neuron.

    layer, neuron: as for `neuron_gradient`. The others, and what is raised, are those of `deep_lift_shap`.
    """
    return _explained(
        deep_lift.deep_lift_shap,
        "neuron_deep_lift_shap",
        explainer,
        inputs,
        layer,
        neuron,
        baseline=baseline,
        seed=seed,
        rule=rule,
        samples=samples,
        **running,
    )


def neuron_guided_backprop(
    explainer: Explaining,
    inputs: Arrays,
    *,
    layer: str,
    neuron: Target,
    baseline: Baselines = None,
    seed: int = 0,
    **options: Unpack[Options],
) -> Attribution:
    """Guided backpropagation from a neuron: the pattern in the input that it answers to.

    layer, neuron: as for `neuron_gradient`. The others, and what is raised, are those of `guided_backprop`.
    """
    return _explained(
        gradients.guided_backprop,
        "neuron_guided_backprop",
        explainer,
        inputs,
        layer,
        neuron,
        baseline=baseline,
        seed=seed,
        **options,
    )


def neuron_deconvnet(
    explainer: Explaining,
    inputs: Arrays,
    *,
    layer: str,
    neuron: Target,
    baseline: Baselines = None,
    seed: int = 0,
    **options: Unpack[Options],
) -> Attribution:
    """The deconvolutional network's signal from a neuron.

    layer, neuron: as for `neuron_gradient`. The others, and what is raised, are those of `deconvnet`.
    """
    return _explained(
        gradients.deconvnet,
        "neuron_deconvnet",
        explainer,
        inputs,
        layer,
        neuron,
        baseline=baseline,
        seed=seed,
        **options,
    )


def neuron_conductance(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    layer: str,
    neuron: Target,
    steps: int = 50,
    rule: str = "gauss_legendre",
    **options: Unpack[Options],
) -> Attribution:
    """Conductance of a neuron (Dhamdhere, Sundararajan and Yan, 2018, arXiv:1805.12233), feature by feature.

    The part of Integrated Gradients that flows through the neuron y: (x - baseline) times the integral along the path
    of dF/dy times dy/dx. Over all features it adds up to what `layer_conductance` gives for the neuron; over all
    neurons of a layer that everything goes through, to Integrated Gradients.

    Args:
        inputs, target, baseline, seed, steps, rule, options: as for `layer_conductance`.
        layer, neuron: as for `neuron_gradient`; an array sums over the neurons, with its elements as weights.

    `delta` is the sum of the values minus the whole change in score: what does not flow through the neuron. Raises as
    `layer_conductance`, and `InputError` for a neuron that is not there.

    """
    at = _Neuron.find(explainer, layer, neuron, end=False)
    nodes_and_weights(rule, steps)
    return explainer.explain_with(
        partial(_conductance, at=at, steps=steps, rule=rule),
        inputs,
        method=f"neuron_conductance {at} rule={rule} steps={steps}",
        target=target,
        baseline=baseline,
        seed=seed,
        propagation=None,
        **options,
    )


def _explained(
    method: Callable[..., Attribution],
    name: str,
    explainer: Explaining,
    inputs: Arrays,
    layer: str,
    neuron: Target,
    **settings: Any,
) -> Attribution:
    """What `method` finds for the model that ends at the layer, as the method `name` of the neuron."""
    at = _Neuron.find(explainer, layer, neuron)
    for one in {"baseline", "noise_std"} & set(settings):
        settings[one] = at.of_sources(settings[one])
    found = method(at.explainer, inputs, target=at.neuron, **settings)
    given = " ".join(found.method.split()[1:])
    return replace(
        found, method=f"{name} {at} {given}".strip(), values=at.of_all(found.values, inputs)
    )


def _conductance(call: Call, *, at: _Neuron, steps: int, rule: str) -> MethodResult:
    values = at_inputs(call, Inside(values=(at.layer,)))[f"value:{at.layer}"]
    # At noisy copies a list is for the examples that they are of.
    chosen, _ = resolve(at.of_examples(call), values, values.dtype)
    alpha, weight = nodes_and_weights(rule, steps)
    names, totals = tuple(call.requests.x), dict[str, Array]()
    asked = Inside(through=at.layer)
    for rows in rows_on_path(call, asked, alpha, weight, {"neuron": chosen}):
        summed(totals, len(call), rows, {name: rows.found[f"through:{name}"] for name in names})
    return MethodResult(
        attribution={name: times_path(totals[name], call.requests, name) for name in names},
        steps_used=np.full(len(call), len(alpha)),
    )


@dataclass(frozen=True)
class _Neuron:
    """A neuron that is there, as far as shapes tell, and an explainer of the model that ends at its layer."""

    explainer: Explaining
    layer: str
    neuron: Target
    order: tuple[str, ...]  # the explained tensors
    others: tuple[str, ...] = ()  # of these, those that the layer does not depend on

    @classmethod
    def find(
        cls, explainer: Explaining, layer: str, neuron: Target, *, end: bool = True
    ) -> _Neuron:
        """Check the layer and, where its shape is known, the neuron; `end`: the model is to end there."""
        (name,) = layers_of(explainer, layer, several=False)
        if end and name in explainer.wrt:
            raise InputError(
                f"layer {name!r} is explained itself: there is nothing between it and its neurons"
            )
        described = next(tensor for tensor in explainer.tensors() if tensor.name == name)
        for one in neuron if isinstance(neuron, list) else [neuron]:
            _require_neuron(one, name, described.shape)
        if not end:
            return cls(explainer, name, neuron, explainer.wrt)
        sources = _sources(explainer, name)
        others = tuple(one for one in explainer.wrt if one not in sources)
        model = explainer.sibling(output=name, wrt=sources)
        return cls(model, name, neuron, explainer.wrt, others)

    def of_examples(self, call: Call) -> Target:
        """The neuron for each request of a call."""
        given = self.neuron
        if not isinstance(given, list | np.ndarray) or np.ndim(given) == 0 or call.examples is None:
            return given
        count = int(call.examples.max()) + 1
        if len(given) != count:
            raise InputError(f"{len(given)} neurons were given for {count} examples")
        if isinstance(given, list):
            return [given[example] for example in call.examples]
        return given[call.examples]

    def of_sources(self, settings: Any) -> Any:
        """Settings by the names of explained tensors, without those that the neuron does not depend on."""
        if isinstance(settings, list):
            return [self.of_sources(one) for one in settings]
        if not isinstance(settings, Mapping):
            return settings
        return {name: one for name, one in settings.items() if name not in self.others}

    def of_all(self, values: _Values, inputs: Arrays) -> _Values:
        """`values` for every explained tensor: zeros where the neuron does not depend on it."""
        if not self.others:
            return values
        names = self.explainer.wrt
        found = values if isinstance(values, dict) else {names[0]: values}
        some = found[names[0]]
        for name in self.others:
            if isinstance(inputs, Mapping) and name in inputs:
                shape = np.shape(inputs[name])
            else:
                there = layers.layer_activation(
                    self.explainer, inputs, target=self.neuron, layer=name
                )
                shape = there.of().shape
            found = {**found, name: np.zeros(shape, some.dtype)}
        return {name: found[name] for name in self.order}

    def __str__(self) -> str:
        """As it is put on record."""
        weights = isinstance(self.neuron, np.ndarray)
        return f"layer={self.layer} neuron={'weights' if weights else self.neuron}".replace(
            ", ", ","
        )


def _sources(explainer: Explaining, layer: str) -> tuple[str, ...]:
    """The explained tensors that the layer depends on: one at least, as it lies behind them."""
    if len(explainer.wrt) == 1:
        return explainer.wrt
    return tuple(
        source
        for source in explainer.wrt
        if any(
            tensor.name == layer
            for tensor in layers_between(explainer.model, [source], explainer.output)
        )
    )


def _require_neuron(neuron: object, layer: str, shape: tuple[int | str | None, ...] | None) -> None:
    """Raise `InputError` for what is no index into a layer of this shape (None: it is not known), batch axis first."""
    if isinstance(neuron, np.ndarray) and neuron.ndim:
        return  # weights, or an index per example
    index = neuron if isinstance(neuron, tuple) else (neuron,)
    if not all(is_whole(i) for i in index):
        raise InputError(
            f"neuron is {neuron!r}; expected an index into layer {layer!r} without its batch axis: an int or a tuple"
        )
    if shape is None:
        return
    sizes = shape[1:]
    axes = ", ".join("?" if size is None else str(size) for size in sizes)
    fits = len(index) == len(sizes) and all(
        not isinstance(size, int) or -size <= i < size for i, size in zip(index, sizes, strict=True)
    )
    if not fits:
        expected = {0: "()", 1: "one index, smaller than its axis"}.get(
            len(sizes), f"a tuple of {len(sizes)} indices, each smaller than its axis"
        )
        raise InputError(
            f"neuron {neuron!r} is outside layer {layer!r}, whose shape is [{axes}] per example: expected {expected}"
        )
