"""The methods by the names that the command line has for them, and the options that each takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from inspect import Parameter
from typing import Any

from igonnx.cli.choices import Method, Rule
from igonnx.errors import InputError

__all__ = [
    "ADDING_UP",
    "FORWARD_ONLY",
    "NOT_SET",
    "OF_LAYERS",
    "chosen_options",
    "function_name",
    "settings_taken",
]


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
        "deep_lift",
        "deep_lift_shap",
        "layer_conductance",
        "shapley_value_sampling",
        "kernel_shap",
        "neuron_integrated_gradients",
        "neuron_gradient_shap",
        "neuron_deep_lift_shap",
    ]
)
# They count forward passes, not gradients.
FORWARD_ONLY = frozenset(
    [
        "occlusion",
        "feature_ablation",
        "feature_permutation",
        "shapley_value_sampling",
        "kernel_shap",
        "lime",
        "rise",
    ]
)
# Their values have the shape of a layer.
OF_LAYERS = frozenset(
    ["layer_activation", "layer_gradient_x_activation", "layer_conductance", "internal_influence"]
)


# What the command line gives otherwise.
NOT_SET = frozenset(
    ["self", "inputs", "target", "baseline", "seed", "progress", "timeout", "cancel"]
)


def function_name(method: Method) -> str:
    """The name of the method of `Explainer`."""
    name = "integrated-gradients" if method is Method.ig else method.value
    return name.replace("-", "_")


def chosen_options(
    name: str, given: Mapping[str, Any], settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The options that were given (those that are not None), checked to be such as the method `name` takes.

    `settings` are those that were given by --set. Raises `InputError` naming the first that the method does not take,
    or that changes nothing beside the others, or one that it cannot do without.
    """
    taken = settings_taken(name)
    chosen = {option: value for option, value in given.items() if value is not None}
    for option in chosen:
        if option not in taken:
            flags = [_flag(one) for one in given if one in taken]
            raise InputError(
                f"{_flag(option)} is not for --method {name.replace('_', '-')}, which takes "
                + ", ".join([*flags, *_others(taken, given)])
            )
    for option, value in (settings or {}).items():
        if option in chosen:
            raise InputError(f"{option} was given twice: as {_flag(option)} and by --set")
        if option not in taken or option in NOT_SET:
            known = ", ".join(one for one in taken if one not in NOT_SET) or "none"
            raise InputError(
                f"--set {option} is not for --method {name.replace('_', '-')}; its settings: {known}"
            )
        chosen[option] = value
    for option, parameter in taken.items():
        needed = parameter.kind is Parameter.KEYWORD_ONLY and parameter.default is Parameter.empty
        if needed and option not in chosen:
            raise InputError(f"--method {name.replace('_', '-')} needs {_flag(option)}")
    usual = taken["rule"].default if "rule" in taken else None
    if usual in list(Rule) and chosen.get("rule", usual) not in list(Rule):
        raise InputError(f"--rule is '{chosen['rule']}', expected one of {', '.join(Rule)}")
    _require_use(chosen, noisy="noise" not in taken or taken["noise"].default is not None)
    return chosen


def settings_taken(name: str) -> dict[str, Parameter]:
    """The parameters of the method `name` of `Explainer`."""
    from igonnx import Explainer

    taken = dict(inspect.signature(getattr(Explainer, name)).parameters)
    if name == "xrai":  # hands the rest on to the method whose attributions it gathers
        taken |= inspect.signature(Explainer.integrated_gradients).parameters
    return taken


def _others(taken: Mapping[str, Parameter], given: Mapping[str, Any]) -> list[str]:
    """The settings of a method that have no option of their own."""
    names = [name for name in taken if name not in given and name not in NOT_SET]
    return [f"--set {name}=" for name in names]


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
