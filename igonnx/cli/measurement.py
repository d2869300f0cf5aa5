"""What a forward pass and a gradient of one example take, for `igonnx inspect`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import InputError
from igonnx.images import DEFAULT_SIZE, format_shape, image_shape
from igonnx.model import Model, TensorInfo

if TYPE_CHECKING:
    from igonnx import Explainer

__all__ = ["Cost", "example_inputs", "measure"]


@dataclass(frozen=True)
class Cost:
    """Seconds that a forward pass and a gradient take, and the shapes of the inputs that was measured with."""

    forward_seconds: float
    gradient_seconds: float
    shapes: Mapping[str, tuple[int, ...]]

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {format_shape(shape)}" for name, shape in self.shapes.items())
        passes = ""
        if self.forward_seconds > 0:
            passes = f" ({self.gradient_seconds / self.forward_seconds:.1f} forward passes)"
        return (
            f"a gradient takes {_duration(self.gradient_seconds)}{passes}, "
            f"a forward pass {_duration(self.forward_seconds)}; measured with {shapes}"
        )


def measure(explainer: Explainer, size: tuple[int, int] | None, length: int) -> Cost:
    """Measure a forward pass and a gradient of one example; free axes as in `example_inputs`."""
    arrays = example_inputs(explainer.model, size, length)

    def integrate(steps: int) -> Callable[[], object]:
        return lambda: explainer.integrated_gradients(arrays, rule="trapezoid", steps=steps)

    forward = _seconds(lambda: explainer.predict(arrays))
    # Whatever else an explanation does is in both times, and cancels.
    few, many = 2, 12
    gradient = (_seconds(integrate(many)) - _seconds(integrate(few))) / (many - few)
    return Cost(forward, max(gradient, 0.0), {name: a.shape for name, a in arrays.items()})


def example_inputs(
    model: Model, size: tuple[int, int] | None, length: int
) -> dict[str, NDArray[Any]]:
    """Make inputs of one example for measuring: random floats in [0, 1], ones for integers.

    Free axes get `size` (height, width) in images and `length` elsewhere, axes of one name the
    same.
    """
    random = np.random.default_rng(0)
    named: dict[str, int] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for info in model.inputs:
        wanted = _wanted_lengths(info, size or (DEFAULT_SIZE, DEFAULT_SIZE), length)
        shape = [
            axis if isinstance(axis, int) else named.setdefault(axis or f"{info.name}:{i}", want)
            for i, (axis, want) in enumerate(zip(info.shape, wanted, strict=True))
        ]
        if info.dtype.startswith("float"):
            arrays[info.name] = random.random(shape).astype(info.dtype)
        elif info.dtype.startswith(("int", "uint", "bool")):
            arrays[info.name] = np.ones(shape, dtype=info.dtype)
        else:
            raise InputError(f"input '{info.name}' is {info.dtype}: no example can be made")
    return arrays


def _wanted_lengths(info: TensorInfo, size: tuple[int, int], length: int) -> list[int]:
    """Length of each axis of an input if it is free: 1 for the batch, which comes first."""
    wanted = [1, *[length] * (len(info.shape) - 1)][: len(info.shape)]
    try:
        first = 2 if image_shape(info.shape, name=info.name).layout == "NCHW" else 1
    except InputError:
        return wanted
    wanted[first : first + 2] = size
    return wanted


def _seconds(work: Callable[[], object]) -> float:
    """Time a piece of work: the best of three, after once for warming up."""
    work()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def _duration(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
