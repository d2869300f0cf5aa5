"""The gradient integrated along points one behind the other, for paths that are not straight.

Between two points the path is taken to be straight. With "left" and "right" the gradient at the start or at the end of
each piece counts for all of it; with "trapezoid" it is the mean of both, whose error falls with the square of the
length of the pieces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Path
from igonnx.errors import InputError
from igonnx.methods.call import Array, Call, MethodResult, PointGradients

__all__ = ["ENDS", "LineIntegral", "point_weights", "request_groups", "require_ends"]

# How much the gradient at the start and at the end of a piece counts.
ENDS: dict[str, tuple[float, float]] = {
    "left": (1.0, 0.0),
    "right": (0.0, 1.0),
    "trapezoid": (0.5, 0.5),
}


def require_ends(rule: object) -> None:
    """Raise `InputError` unless `rule` is one of `ENDS`."""
    if not isinstance(rule, str) or rule not in ENDS:
        raise InputError(f"rule is {rule!r}; expected {', '.join(map(repr, ENDS))}")


def point_weights(rule: str, steps: int) -> Array:
    """The share of the path that each of `steps` + 1 points stands for, float64; they sum to 1."""
    start, end = ENDS[rule]
    weight = np.zeros(steps + 1)
    weight[:-1] += start / steps
    weight[1:] += end / steps
    return weight


class LineIntegral:
    """The attribution of R requests along `steps` pieces of a path, from the baseline on."""

    def __init__(self, like: Mapping[str, NDArray[Any]], steps: int, rule: str) -> None:
        """`like` are the explained tensors {name: [R, ...]}."""
        self._rule = rule
        self._start, self._end = ENDS[rule]
        self.total: dict[str, Array] = {name: np.zeros(array.shape) for name, array in like.items()}
        count = len(next(iter(like.values())))
        self._ahead, self._behind = np.zeros((2, count, steps + 1))
        self._score = np.empty((count, steps + 1))

    def begin(self, first: PointGradients) -> None:
        """The point that the path starts from."""
        self._score[:, 0] = first.score

    def add(
        self, step: int, change: Mapping[str, Array], start: PointGradients, end: PointGradients
    ) -> None:
        """The piece from point `step` to the next: how far each element moves, {name: [R, ...]}, and what is there."""
        self._score[:, step + 1] = end.score
        for name, moved in change.items():
            before, after = start.gradient[name] * moved, end.gradient[name] * moved
            self._ahead[:, step] += before.reshape(len(moved), -1).sum(axis=1)
            self._behind[:, step + 1] += after.reshape(len(moved), -1).sum(axis=1)
            if self._start:
                self.total[name] += before if self._start == 1 else self._start * before
            if self._end:
                self.total[name] += after if self._end == 1 else self._end * after

    def result(self) -> MethodResult:
        """What a method returns for these requests; the points are alike far from each other in alpha."""
        count, points = self._score.shape
        steps = points - 1
        weight = point_weights(self._rule, steps)
        slope = steps * (self._ahead + self._behind)  # where there is one of them, or no weight
        counted = self._start * self._ahead + self._end * self._behind
        np.divide(counted, weight, out=slope, where=weight > 0)
        alpha = np.arange(points) / steps
        return MethodResult(
            attribution=self.total,
            steps_used=np.full(count, int((weight > 0).sum())),
            scores=self._score[:, -1],
            baseline_scores=self._score[:, 0],
            paths=[Path(alpha, weight, self._score[r], slope[r]) for r in range(count)],
        )


def request_groups(call: Call) -> list[NDArray[np.int64]]:
    """The numbers of the requests in groups that fill every lane once, so that memory does not grow with the call."""
    return np.array_split(np.arange(len(call)), -(-len(call) // call.rows_together))
