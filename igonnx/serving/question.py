"""What is asked about the inputs: method, target, baseline, settings; read from JSON or from V2 parameters."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx import Explainer
from igonnx.baselines import NAMED
from igonnx.cli.choices import Method, Noise, Rule
from igonnx.cli.labels import parse_target
from igonnx.cli.methods import function_name
from igonnx.errors import InputError
from igonnx.images import Preprocessing
from igonnx.serving.limits import Limits
from igonnx.serving.reading import Received

__all__ = ["FORMATS", "PARAMETERS", "Asker", "Question"]

FORMATS = ("arrays", "png", "both")

Baseline = Any  # None, a number, a name, {name: array of the input's shape}, or a tuple of numbers and names


@dataclass(frozen=True)
class Question:
    """One request's question, checked.

    method: of `Explainer`. options: of the method, sorted by name. targets: one index per example, or None for the
    highest score. baseline: as `Explainer` takes it; arrays are of the inputs' shapes. gradients: about how many it
    takes. form: one of `FORMATS`. seconds: that it may take.
    """

    method: str
    options: tuple[tuple[str, Any], ...]
    targets: list[Any] | None
    baseline: Baseline
    gradients: float
    form: str
    seconds: float

    @property
    def kind(self) -> Hashable:
        """What must be equal for two questions to be asked as one."""
        baseline = (
            tuple(sorted(self.baseline)) if isinstance(self.baseline, dict) else self.baseline
        )
        return self.method, self.options, self.targets is None, type(baseline).__name__, baseline


def _whole(value: Any, name: str) -> int:
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal() and len(value) < 20:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{name} is {_shown(value)}; expected a whole number")
    return value


def _real(value: Any, name: str) -> float:
    number = None
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            number = float(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value) if abs(value) < 1e300 else None
    if number is None or not np.isfinite(number):
        raise InputError(f"{name} is {_shown(value)}; expected a number")
    return number


def _flag(value: Any, name: str) -> bool:
    known = {"true": True, "false": False, "1": True, "0": False}
    if isinstance(value, str) and value.lower() in known:
        return known[value.lower()]
    if not isinstance(value, bool):
        raise InputError(f"{name} is {_shown(value)}; expected true or false")
    return value


def _choice(*names: str) -> Callable[[Any, str], str]:
    def read(value: Any, name: str) -> str:
        if not isinstance(value, str) or value not in names:
            raise InputError(f"{name} is {_shown(value)}; expected one of {', '.join(names)}")
        return value

    return read


# The options that methods take, by their names in `Explainer`, and how each is read.
_OPTIONS: dict[str, Callable[[Any, str], Any]] = {
    "steps": _whole,
    "rule": _choice(*Rule),
    "tolerance": _real,
    "max_steps": _whole,
    "exact_sum": _flag,
    "samples": _whole,
    "noise": _choice(*Noise),
    "noise_samples": _whole,
    "noise_std": _real,
    "seed": _whole,
}

PARAMETERS = ("method", "target", "baseline", "format", "timeout", *_OPTIONS)


@dataclass(frozen=True)
class Asker:
    """Reads the questions to one model."""

    labels: Sequence[str]
    explained: Sequence[str]
    preprocessing: Mapping[str, Preprocessing]
    limits: Limits

    def question(self, given: Any, received: Received) -> Question:
        """The question that `given`, parameters by name, asks about inputs; raises `InputError` or `RequestError`."""
        if not isinstance(given, Mapping):
            raise InputError("'parameters' is no object")
        unknown = next((name for name in given if name not in PARAMETERS), None)
        if unknown is not None:
            raise InputError(
                f"there is no parameter {_shown(unknown)}; expected {', '.join(PARAMETERS)}"
            )
        method = _method(given.get("method", "integrated-gradients"))
        options = _options(method, given)
        if "tolerance" in options:
            options.setdefault("max_steps", min(1000, self.limits.steps))
        baseline = self._baseline(given.get("baseline"), method, received)
        several = len(baseline) if isinstance(baseline, tuple) else 1
        gradients = self._gradients(options, received.examples, several)
        seconds = _real(given.get("timeout", self.limits.seconds), "timeout")
        if seconds <= 0:
            raise InputError(f"timeout is {seconds:g}; expected seconds above 0")
        return Question(
            method=method,
            options=tuple(sorted(options.items())),
            targets=self._targets(given.get("target"), received.examples),
            baseline=baseline,
            gradients=gradients,
            form=_choice(*FORMATS)(given.get("format", "arrays"), "format"),
            seconds=min(seconds, self.limits.seconds),
        )

    def _gradients(self, options: Mapping[str, Any], examples: int, baselines: int) -> float:
        """About how many gradients it takes, held to the limits."""
        asked = {
            "steps": self.limits.steps,
            "max_steps": self.limits.steps,
            "samples": self.limits.samples,
            "noise_samples": self.limits.samples,
        }
        for name, most in asked.items():
            if not 1 <= options.get(name, 1) <= most:
                raise InputError(f"{name} is {options[name]}; expected 1 to {most}")
        steps = options.get("steps", 50)
        if "tolerance" in options:
            steps = options["max_steps"]
        noisy = options.get("noise_samples", 10) if "noise" in options else 1
        count = examples * baselines * steps * noisy * options.get("samples", 1)
        self.limits.require_gradients(count)
        return float(count)

    def _targets(self, given: Any, examples: int) -> list[Any] | None:
        """One for all, or a list of one per example."""
        if given is None:
            return None
        if isinstance(given, np.ndarray):
            if given.dtype.kind not in "iu" or given.ndim not in (1, 2):
                raise InputError("the tensor 'target' holds no indices [N] or [N, axes]")
            given = given.tolist()
        if not isinstance(given, list):
            return [self._target(given)] * examples
        if len(given) != examples:
            raise InputError(
                f"{len(given)} targets for {examples} examples: give one, or a list of one per example"
            )
        return [self._target(one) for one in given]

    def _target(self, given: Any) -> int | tuple[int, ...]:
        if isinstance(given, str):
            return parse_target(given[:200], self.labels)
        if isinstance(given, list):
            index = tuple(_whole(one, "target") for one in given)
            return index[0] if len(index) == 1 else index
        return _whole(given, "target")

    def _baseline(self, given: Any, method: str, received: Received) -> Baseline:
        """As `Explainer` takes it: of what came as images the default is black, of others zero."""
        if given is None:
            if not received.pictures or method == "blur_ig":
                return None
            given = ["black", "white"] if method == "xrai" else "black"
        if isinstance(given, str):
            words = given.split(",")
            given = words if len(words) > 1 else given
        if isinstance(given, list) and given and all(isinstance(one, str) for one in given):
            if len(given) > self.limits.samples:
                raise InputError(
                    f"{len(given)} baselines; at most {self.limits.samples} are averaged over"
                )
            return tuple(self._named(one, received) for one in given)
        if isinstance(given, dict):
            unknown = next((name for name in given if name not in self.explained), None)
            if unknown is not None:
                raise InputError(f"there is no explained input {_shown(unknown)}")
            return {
                name: self._filled(given.get(name, 0.0), name, received) for name in self.explained
            }
        if isinstance(given, list | np.ndarray):
            if len(self.explained) != 1:
                raise InputError("several inputs are explained: give baseline as an object of them")
            name = self.explained[0]
            return {name: self._filled(given, name, received)}
        return self._named(given, received)

    def _named(self, given: Any, received: Received) -> float | str | tuple[str, float]:
        """A number, a name, or ("constant", shade): black and white of what is known to be a picture."""
        if isinstance(given, str) and given in NAMED:
            shown = any(name in self.preprocessing for name in received.pictures)
            return (
                ("constant", float(given == "white"))
                if shown and given in ("black", "white")
                else given
            )
        if isinstance(given, str) and not _is_number(given):
            raise InputError(
                f"baseline is {_shown(given)}; expected {', '.join(NAMED)}, a number or an array"
            )
        return _real(given, "baseline")

    def _filled(self, given: Any, name: str, received: Received) -> NDArray[Any]:
        """A baseline of one input as an array of its shape."""
        if name not in received.arrays:
            raise InputError(f"the baseline of {name!r}, which is no input, can only be a number")
        like = received.arrays[name]
        try:
            array = np.asarray(given, dtype=np.float64)
            return np.broadcast_to(array, like.shape).astype(like.dtype)
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(
                f"the baseline of {name!r} is no array that fits {list(like.shape)}"
            ) from error


def _method(given: Any) -> str:
    name = given.replace("_", "-") if isinstance(given, str) else ""
    if name not in list(Method):
        raise InputError(f"method is {_shown(given)}; expected one of {', '.join(Method)}")
    return function_name(Method(name))


@cache
def _taken(method: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """The options that a method takes, and those that it cannot do without."""
    function = getattr(Explainer, method)
    parameters = dict(inspect.signature(function).parameters)
    if method == "xrai":  # hands the rest on to the method whose attributions it gathers
        parameters |= inspect.signature(Explainer.integrated_gradients).parameters
    needed = [
        one.name
        for one in inspect.signature(function).parameters.values()
        if one.kind is one.KEYWORD_ONLY and one.default is one.empty
    ]
    return frozenset(parameters), tuple(needed)


def _options(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The method's own options, read; only such as it takes."""
    taken, needed = _taken(method)
    if needed:
        raise InputError(
            f"method {method.replace('_', '-')} needs {', '.join(needed)}, which cannot be given here"
        )
    options = {}
    for name, read in _OPTIONS.items():
        value = given.get(name)
        if value is None:
            continue
        if name not in taken:
            known = ", ".join(one for one in _OPTIONS if one in taken)
            raise InputError(f"method {method.replace('_', '-')} takes no {name}; it takes {known}")
        options[name] = read(value, name)
    if "max_steps" in options and "tolerance" not in options:
        raise InputError("max_steps changes nothing without tolerance")
    if "tolerance" in options and {"steps", "rule"} & options.keys():
        raise InputError(
            "steps and rule change nothing with tolerance, which chooses the points itself"
        )
    return options


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shown(value: Any) -> str:
    """What a client gave, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
