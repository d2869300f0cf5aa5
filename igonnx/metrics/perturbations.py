"""Perturbations of inputs for `infidelity`: what is taken away from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from igonnx.checks import require_number, require_whole
from igonnx.methods.call import Tensors
from igonnx.metrics.features import spatial_axes

__all__ = ["GaussianNoise", "Perturbation", "SquareRemoval"]

USUAL_NOISE = 0.15  # of the range of an example's values, as the noise tunnel has it
USUAL_LENGTH = 4  # a square is one of so many along an axis


class Perturbation(Protocol):
    """One random perturbation of N examples.

    Called with the inputs and the baseline, {name: [N, ...]} each, and a generator. Returns I and the perturbed inputs,
    {name: [N, ...]} both: usually x - I, but that is not required (Captum's `perturb_func` has the same two). Every
    example should get the same draws, so that none depends on the others.
    """

    def __call__(
        self, x: Tensors, baseline: Tensors, random: np.random.Generator, /
    ) -> tuple[Tensors, Tensors]:
        """Draw one."""
        ...  # pragma: no cover


@dataclass(frozen=True)
class GaussianNoise:
    """I is Gaussian noise on every element.

    std: its standard deviation, in the units of the tensors; None: 15 % of the range of each example's values.
    """

    std: float | None = None

    def __post_init__(self) -> None:
        """Check the number."""
        if self.std is not None:
            require_number("std", self.std, 0, above=True)

    def __call__(
        self,
        x: Tensors,
        baseline: Tensors,  # noqa: ARG002 - one signature for all perturbations
        random: np.random.Generator,
        /,
    ) -> tuple[Tensors, Tensors]:
        """Draw one."""
        perturbed = {}
        for name, array in x.items():
            draws = random.standard_normal(array.shape[1:])
            perturbed[name] = (array - self._std(array) * draws).astype(array.dtype)
        return _removed(x, perturbed), perturbed

    def _std(self, array: NDArray[Any]) -> Any:
        if self.std is not None:
            return self.std
        axes = tuple(range(1, array.ndim))
        low, high = (
            end(axis=axes, keepdims=True).astype(np.float64) for end in (array.min, array.max)
        )
        return USUAL_NOISE * (high - low)


@dataclass(frozen=True)
class SquareRemoval:
    """I is what the input has over the baseline in a square at a random place: there it becomes the baseline.

    length: of its sides in pixels, at most an axis' own (of series: of the piece; of tables: how many columns, drawn at
    random, as they have no neighbours); None: a quarter of each axis. channel_axis: as for `insertion_deletion`.
    """

    length: int | None = None
    channel_axis: int | None = None

    def __post_init__(self) -> None:
        """Check the number."""
        require_whole("length", self.length, 1, optional=True)

    def __call__(
        self, x: Tensors, baseline: Tensors, random: np.random.Generator, /
    ) -> tuple[Tensors, Tensors]:
        """Draw one."""
        perturbed = {}
        for name, array in x.items():
            inside = self._square(array.shape, random)
            perturbed[name] = np.where(inside, baseline[name], array)
        return _removed(x, perturbed), perturbed

    def _square(self, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.bool_]:
        """Where it is, bool [1, ...] with 1 for channels."""
        axes = spatial_axes(shape, self.channel_axis)
        inside = np.ones([size if axis in axes else 1 for axis, size in enumerate(shape)], bool)
        for axis in axes:
            size = shape[axis]
            length = min(self.length or max(1, size // USUAL_LENGTH), size)
            along = np.zeros(size, bool)
            if len(shape) == 2:
                along[random.choice(size, length, replace=False)] = True
            else:
                start = random.integers(size - length + 1)
                along[start : start + length] = True
            inside &= along.reshape([size if axis == other else 1 for other in range(len(shape))])
        return inside


def _removed(x: Tensors, perturbed: Tensors) -> Tensors:
    """What the perturbed inputs lack, exactly."""
    return {name: x[name].astype(np.float64) - perturbed[name] for name in x}
