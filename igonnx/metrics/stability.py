"""Max-sensitivity: how much an explanation changes when its input hardly does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from igonnx.checks import require_number, require_whole
from igonnx.engine.control import Cancel, call_control
from igonnx.errors import InputError
from igonnx.explainer import Explainer
from igonnx.inputs import Arrays, checked_inputs
from igonnx.methods.call import Array, Progress, Tensors
from igonnx.metrics.asking import Method, asked_method
from igonnx.metrics.subject import require_run
from igonnx.targets import Target, TargetIndex

__all__ = ["MaxSensitivity", "max_sensitivity"]

# (x {name: [N, ...]}, radius, generator) to inputs of the same shapes.
Neighbour: TypeAlias = "Callable[[Tensors, float, np.random.Generator], Tensors]"


@dataclass(frozen=True)
class MaxSensitivity:
    """What `max_sensitivity` found for N examples and S neighbours each.

    distance: float64 [N, S], of each neighbour's explanation from the input's, as a share of the latter's norm; where
    that is 0, the distance itself.
    target: per example the index that is explained, None for a mask.
    """

    distance: Array
    target: list[TargetIndex | None]

    @property
    def score(self) -> Array:
        """The largest distance, float64 [N]: the lower, the better."""
        return np.asarray(self.distance.max(axis=1))


def max_sensitivity(
    explainer: Explainer,
    inputs: Arrays,
    method: Method,
    *,
    target: Target = None,
    seed: int = 0,
    radius: float = 0.02,
    samples: int = 10,
    order: float = 2,
    perturbation: Neighbour | None = None,
    progress: Progress = None,
    timeout: float | None = None,
    cancel: Cancel = None,
    **options: Any,
) -> MaxSensitivity:
    """Max-sensitivity (Yeh et al., 2019, arXiv:1901.09392): max ||E(x + e) - E(x)|| / ||E(x)|| over e in a small ball.

    As Captum's `sensitivity_max`, at the same neighbours. What is explained is the target of the input itself,
    also where a neighbour's largest score is another. A method that draws makes the same draws each time.

    Args:
        explainer: the model, its output and what is explained; tensors inside the model have no neighbours of their
            own: inputs are perturbed in any case.
        inputs: as for its methods.
        method: the name of one of its methods, or a function that is called as these are, with (inputs, target=, and
            the options), and returns an `Attribution`, an array or {tensor: array}, [N, ...] each.
        target: as for its methods.
        seed: of the neighbours.
        radius: neighbours are uniform in the cube of this half-width around each input, in the units of the model's
            floating inputs; the same draws for every example.
        samples: neighbours per example.
        order: of the norm: 1, 2, infinity or any positive number.
        perturbation: a function of (inputs {name: [N, ...]}, radius, generator) that makes neighbours in another way.
        progress: called with (explanations done, explanations in all); an exception in it stops.
        timeout: as for the methods, of all together.
        cancel: as for the methods.
        options: of the method: baseline, steps and so on.

    Raises `InputError` for settings that make no sense, and as the method does.

    """
    require_whole("samples", samples, 1)
    require_number("radius", radius, 0, above=True)
    if order != np.inf:
        require_number("order", order, 0, above=True)
    require_run(None, seed, progress, "max-sensitivity")
    if perturbation is not None and not callable(perturbation):
        raise InputError(f"perturbation is {perturbation!r}; expected a function, or None")
    control = call_control(timeout, cancel)
    arrays = checked_inputs(explainer.model, inputs, explainer.wrt)
    floats = [name for name, array in arrays.items() if array.dtype.kind == "f"]
    if not floats:
        raise InputError(f"{explainer.model.name}: no input is floating, so none has neighbours")
    explain = asked_method(explainer, method, arrays, target, control, options)
    neighbours = perturbation or _in_cube
    original, indices = explain(explainer, arrays)
    size = _norm(original, order)
    distance = np.empty((len(size), samples))
    for k in range(samples):
        if progress is not None:
            progress(k + 1, samples + 1)
        some = {name: arrays[name] for name in floats}
        moved = neighbours(some, float(radius), np.random.default_rng([seed, k]))
        if not isinstance(moved, Mapping):
            raise InputError(
                f"the perturbation gives a {type(moved).__name__}; expected {{name: array}}, like its inputs"
            )
        values, _ = explain(explainer, {**arrays, **moved})
        differences = {name: values[name] - original[name] for name in original}
        distance[:, k] = _norm(differences, order) / np.where(size > 0, size, 1.0)
    if progress is not None:
        progress(samples + 1, samples + 1)
    return MaxSensitivity(distance, indices)


def _in_cube(x: Tensors, radius: float, random: np.random.Generator) -> Tensors:
    """`x` plus uniform noise, the same for every example."""
    return {
        name: (array + random.uniform(-radius, radius, array.shape[1:])).astype(array.dtype)
        for name, array in x.items()
    }


def _norm(values: Mapping[str, NDArray[np.float64]], order: float) -> Array:
    """The norm of each example's values over all tensors, [N]."""
    rows = np.concatenate([array.reshape(len(array), -1) for array in values.values()], axis=1)
    return np.asarray(np.linalg.norm(rows, ord=order, axis=1))
