"""How the functions of this package become methods of `Explainer`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Any, TypeVar, cast

from igonnx.methods.call import Explaining, Options, Running

__all__ = ["as_method"]

F = TypeVar("F", bound=Callable[..., Any])


def as_method(function: F) -> F:
    """The same function, for a class body: its signature spells out what stands behind **options, for `help()`.

    Calls are held to it, unless it takes any option: one that is not there is a `TypeError` that names it.
    """
    shared = {f"Unpack[{one.__name__}]": one.__optional_keys__ for one in (Options, Running)}
    defaults = inspect.signature(Explaining.explain_with).parameters
    _, *parameters = inspect.signature(function).parameters.values()
    spelled_out = [Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)]
    for parameter in parameters:
        names = shared.get(str(parameter.annotation))
        spelled_out += (
            [parameter] if names is None else [p for p in defaults.values() if p.name in names]
        )
    signature = inspect.signature(function).replace(parameters=spelled_out)
    closed = all(p.kind is not Parameter.VAR_KEYWORD for p in spelled_out)

    @functools.wraps(function)
    def method(*args: Any, **options: Any) -> Any:
        unknown = next((name for name in options if name not in signature.parameters), None)
        if unknown is not None and closed:
            known = ", ".join(p.name for p in spelled_out if p.kind is Parameter.KEYWORD_ONLY)
            raise TypeError(f"{function.__name__}() has no option {unknown!r}; it takes {known}")
        return function(*args, **options)

    method.__signature__ = signature  # type: ignore[attr-defined]
    return cast("F", method)
