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

    Raises `InputError` naming the first that it does not take.
    """
    from igonnx import Explainer

    taken = set(inspect.signature(getattr(Explainer, name)).parameters)
    if name == "xrai":  # hands the rest on to the method whose attributions it gathers
        taken |= set(inspect.signature(Explainer.integrated_gradients).parameters)
    chosen = {option: value for option, value in given.items() if value is not None}
    for option in chosen:
        if option not in taken:
            flags = [f"--{one}".replace("_", "-") for one in given if one in taken]
            raise InputError(
                f"--{option.replace('_', '-')} is not for --method {name.replace('_', '-')}, which takes "
                + ", ".join(flags)
            )
    return chosen
