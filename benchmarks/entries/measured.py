"""What an entry can be asked: to show its result, and to take the time of one repetition.

A repetition is the work of one explanation of `steps` steps: as many forward passes, as many gradients, or the whole
call. Entries that compute rows (points of the path) are judged by what an explanation would make of their rows.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.materials import Material

__all__ = ["Measured", "RowGradients"]


class Measured(ABC):
    """One entry, ready to run on `material`; making it loads and compiles whatever is needed."""

    # Mostly numbers of rows at once: each is tried, and the fastest measured. (0,): the program chooses by itself.
    settings: tuple[int, ...] = (0,)

    def __init__(self, material: Material, threads: int) -> None:
        self.material = material
        self.threads = threads

    @abstractmethod
    def error(self, setting: int) -> float:
        """Run once and return how far the result is from the right one, relative."""

    @abstractmethod
    def run(self, setting: int) -> None:
        """One repetition."""

    def seconds(self, setting: int) -> float:
        """The time of one repetition."""
        start = time.perf_counter()
        self.run(setting)
        return time.perf_counter() - start

    def batches(self, size: int) -> Iterator[slice]:
        """The path's points in parts of `size` rows, the last perhaps shorter."""
        for start in range(0, self.material.steps, size):
            yield slice(start, min(start + size, self.material.steps))

    def attribution_error(self, attribution: NDArray[Any]) -> float:
        """Relative L2 distance of Integrated Gradients from those in float64."""
        right = self.material.attribution
        wrong = np.asarray(attribution, np.float64).reshape(right.shape)
        return float(np.linalg.norm(wrong - right) / np.linalg.norm(right))


class RowGradients(Measured):
    """An entry that computes the gradient at every point of the path."""

    settings: tuple[int, ...] = (1, 2, 4, 10)

    @abstractmethod
    def gradients(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """The target's gradient at each row of `points`, same shape."""

    def run(self, setting: int) -> None:
        """All gradients of the path."""
        for rows in self.batches(setting):
            self.gradients(self.material.points[rows])

    def error(self, setting: int) -> float:
        """The error of the attribution that the weighted gradients add up to."""
        total = np.zeros(self.material.x.shape)
        for rows in self.batches(setting):
            gradients = self.gradients(self.material.points[rows]).astype(np.float64)
            total += np.tensordot(self.material.weights[rows], gradients, 1)[None]
        return self.attribution_error(total * self.material.x)
