"""The methods by the names that the command line has for them, and the options that each takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from igonnx.cli.choices import Method
from igonnx.errors import InputError

__all__ = ["ADDING_UP", "chosen_options", "function_name"]


# Their values are meant to sum to the change in score; of the others no completeness error is told, nor of what has
# been through the noise tunnel, which sums to the change from noisy copies.
ADDING_UP = frozenset(
    [
        "integrated_gradients",
        "guided_ig",
        "blur_ig",
        "idgi",
        "expected_gradients",
        "gradient_shap",
        "input_x_gradient",
        "xrai",
    ]
)


def function_name(method: Method) -> str:
    """The name of the method of `Explainer`."""
    name = "integrated-gradients" if method is Method.ig else method.value
    return name.replace("-", "_")


def chosen_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given (those that are not None), checked to be such as the method `name` takes.

    Raises `InputError` naming the first that it does not take, or that changes nothing beside the others.
    """
    from igonnx import Explainer

    taken = dict(inspect.signature(getattr(Explainer, name)).parameters)
    if name == "xrai":  # hands the rest on to the method whose attributions it gathers
        taken |= inspect.signature(Explainer.integrated_gradients).parameters
    chosen = {option: value for option, value in given.items() if value is not None}
    for option in chosen:
        if option not in taken:
            flags = [_flag(one) for one in given if one in taken]
            raise InputError(
                f"{_flag(option)} is not for --method {name.replace('_', '-')}, which takes "
                + ", ".join(flags)
            )
    _require_use(chosen, noisy="noise" not in taken or taken["noise"].default is not None)
    return chosen


def _require_use(chosen: Mapping[str, Any], *, noisy: bool) -> None:
    """Raise `InputError` for options that would change nothing; `noisy`: there is noise without --noise, too."""
    without = [("max_steps", "tolerance")]
    without += [] if noisy else [("noise_samples", "noise"), ("noise_std", "noise")]
    for option, needed in without:
        if option in chosen and needed not in chosen:
            raise InputError(f"{_flag(option)} changes nothing without {_flag(needed)}")
    for option in ("steps", "rule"):
        if option in chosen and "tolerance" in chosen:
            raise InputError(
                f"{_flag(option)} changes nothing with --tolerance, which chooses the points itself"
            )


def _flag(option: str) -> str:
    return f"--{option}".replace("_", "-")
