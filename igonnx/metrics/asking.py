"""A method of explanation, by name or as a function, to be asked again and again about the same target."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from igonnx.attribution import Attribution
from igonnx.checks import as_finite
from igonnx.engine.control import CallControl
from igonnx.errors import InputError
from igonnx.explainer import Explainer
from igonnx.methods.call import Array, Tensors
from igonnx.metrics.subject import asked_of
from igonnx.targets import Target, TargetIndex

__all__ = ["Explained", "Method", "asked_method", "bound_method"]

Method: TypeAlias = "str | Callable[..., Any]"
Explained: TypeAlias = "tuple[dict[str, Array], list[TargetIndex | None]]"


def bound_method(explainer: Explainer, method: Method) -> Callable[..., Any]:
    """The method of `explainer` of that name, or the function itself. Raises `InputError`."""
    if callable(method):
        return method
    found = None
    if isinstance(method, str) and not method.startswith("_"):
        found = getattr(type(explainer), method, None)
    if not callable(found) or "target" not in inspect.signature(found).parameters:
        raise InputError(
            f"method is {method!r}; expected the name of a method of Explainer, such as 'saliency', or a function"
        )
    bound: Callable[..., Any] = getattr(explainer, str(method))
    return bound


def asked_method(
    explainer: Explainer,
    method: Method,
    arrays: Tensors,
    target: Target,
    control: CallControl,
    options: Mapping[str, Any],
    *,
    explainers: bool = False,
) -> Callable[[Explainer, Tensors], Explained]:
    """A function of an explainer and inputs {name: [N, ...]} that gives what `method` says of them, and the target.

    The target is the one that `target` stands for at `arrays`, also where the model would now find another one.
    A method that is a function is called with the inputs, or with `explainers` with the explainer and the inputs.
    """
    bound_method(explainer, method)
    settled = _settled(explainer, arrays, target)

    def explain(asked: Explainer, inputs: Tensors) -> Explained:
        control.check(asked.model.name, "between two explanations")
        given: Any
        if callable(method):
            given = method(*[asked] * explainers, inputs, target=settled, **options)
        else:
            running = {"timeout": control.remaining(), "cancel": control.token}
            given = bound_method(asked, method)(inputs, target=settled, **running, **options)
        indices: list[TargetIndex | None] = [None] * len(next(iter(inputs.values())))
        if isinstance(given, Attribution):
            indices, given = given.target, given.values
        named = given if isinstance(given, Mapping) else {asked.wrt[0]: given}
        return {name: as_finite(array) for name, array in named.items()}, indices

    return explain


def _settled(explainer: Explainer, arrays: Tensors, target: Target) -> Any:
    """The indices that `target` stands for at these inputs; a mask stays as it is."""
    _, asked = asked_of(explainer, arrays, target)
    known = [index for index in asked.indices if index is not None]
    return known if len(known) == len(asked.indices) else target
