"""What the entries of masked inputs have in common: windows, features, and how their results are judged.

Occlusion: windows of (3, 15, 15) in steps of (3, 8, 8), the example of Captum's tutorial. KernelSHAP: 49 squares, 500
coalitions. The baseline is zero. For occlusion, some elements are computed anew, window by window; KernelSHAP draws,
each program its own coalitions: its values must add up to the change in score.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.entries.measured import Measured
from benchmarks.materials import Material

__all__ = ["COALITIONS", "SQUARES", "STRIDES", "WINDOW", "KernelShap", "Occlusion", "squares"]

WINDOW, STRIDES = (3, 15, 15), (3, 8, 8)
SQUARES = 7  # along each side
COALITIONS = 500


def squares(shape: Sequence[int]) -> NDArray[np.int64]:
    """The square that each pixel of [C, H, W] is in, [1, H, W]."""
    row, column = (np.arange(n) * SQUARES // n for n in shape[1:])
    return (row[:, None] * SQUARES + column)[None]


class _Judge:
    """Scores of single inputs by onnxruntime."""

    def __init__(self, material: Material) -> None:
        self._material = material
        self._session = onnxruntime.InferenceSession(
            material.onnx_path, providers=["CPUExecutionProvider"]
        )

    def score(self, x: NDArray[np.float32]) -> float:
        (logits,) = self._session.run([self._material.output_name], {self._material.input_name: x})
        return float(logits[0, self._material.target])

    def loss(self, kept: NDArray[Any]) -> float:
        """What the score loses where only `kept` is left of the example."""
        x = self._material.x
        return self.score(x) - self.score(x * kept.astype(np.float32))


class Occlusion(Measured):
    """Occlusion; subclasses call a program."""

    @abstractmethod
    def values(self, setting: int) -> NDArray[Any]:
        """The attribution, [1, C, H, W]."""

    def run(self, setting: int) -> None:
        """One explanation."""
        self.values(setting)

    def error(self, setting: int) -> float:
        """The largest error of some elements on the diagonal, relative to the largest of them."""
        values, judge = self.values(setting)[0], _Judge(self.material)
        places = [int(share * (self.material.size - 1)) for share in (0.0, 0.3, 0.55, 1.0)]
        right = np.array([self._mean_loss(judge, place) for place in places])
        wrong = np.array([values[1, place, place] for place in places])
        return float(np.abs(wrong - right).max() / np.abs(right).max())

    def _mean_loss(self, judge: _Judge, place: int) -> float:
        """The mean loss over the windows that cover the pixel in row and column `place`."""
        size, window, stride = self.material.size, WINDOW[1], STRIDES[1]
        starts = [k * stride for k in range(math.ceil((size - window) / stride) + 1)]
        covering = [start for start in starts if start <= place < start + window]
        losses = []
        for row, column in itertools.product(covering, repeat=2):
            kept = np.ones(self.material.x.shape, bool)
            kept[:, :, row : row + window, column : column + window] = False
            losses.append(judge.loss(kept))
        return float(np.mean(losses))


class KernelShap(Measured):
    """KernelSHAP; subclasses call a program."""

    @abstractmethod
    def values(self, setting: int) -> NDArray[Any]:
        """The attribution, [1, C, H, W]: each element has the value of its square."""

    def run(self, setting: int) -> None:
        """One explanation."""
        self.values(setting)

    def error(self, setting: int) -> float:
        """How far the values of all squares together are from the change in score, relative."""
        values, square = self.values(setting)[0, 0], squares(self.material.x.shape[1:])[0]
        total = sum(float(values[square == number][0]) for number in range(SQUARES**2))
        change = _Judge(self.material).loss(np.zeros(1))
        return abs(total - change) / abs(change)
