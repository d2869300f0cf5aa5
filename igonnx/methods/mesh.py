"""The nodes of one path: the trapezoid sum of the gradient over them, and how far it may be off.

G is the gradient times (x - baseline), flattened: what the integral over alpha makes the attribution. An interval of
width h between nodes a and b is off by an unknown vector; it is judged by

- h^2 ||G_b - G_a||^2 / 12, the expectation of that vector's squared norm if G wanders like a Brownian bridge between
  the ends, and also if G jumps once at a uniformly random place (a kink of a ReLU network). For a smooth G it is more
  than the truth;
- its completeness residual h (slope_a + slope_b) / 2 - (score_b - score_a), known exactly.

The vectors of different intervals are taken as uncorrelated: the squares add up. On image networks that estimate was
within a tenth of the truth (docs/performance.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import relative_error
from igonnx.quadrature import trapezoid_weights

__all__ = ["Errors", "Mesh"]

Array: TypeAlias = "NDArray[np.float64]"


@dataclass(frozen=True)
class Errors:
    """How far a mesh may be off: the estimated relative L2 error, and the relative completeness error (known)."""

    estimate: float
    completeness: float


class Mesh:
    """Nodes in increasing order of `alpha`, with `score` and `slope` there (float64 [n]), and `total` (float64 [D]).

    `total` is the trapezoid sum of G; it is brought up to date when an interval is divided, which takes G at the nodes
    of that interval only. `change` (float64 [n - 1]) holds ||G_b - G_a|| of each interval.
    """

    def __init__(
        self, alpha: Array, score: Array, slope: Array, contributions: Sequence[NDArray[Any]]
    ) -> None:
        """Start with these nodes, from 0 to 1; `contributions` is G at each, [D]."""
        self.alpha, self.score, self.slope = alpha, score, slope
        self.change = _changes(contributions)
        self.total = np.zeros(contributions[0].shape)
        self._add(trapezoid_weights(alpha), contributions)

    def divide(
        self, nodes: Array, score: Array, slope: Array, contributions: Sequence[NDArray[Any]]
    ) -> None:
        """Put new nodes into an interval.

        `nodes` [k] and `contributions` [k] include the interval's two ends; `score` and `slope` [k - 2] do not.
        """
        at = int(np.searchsorted(self.alpha, nodes[0]))
        weights = trapezoid_weights(nodes)
        weights[[0, -1]] -= (nodes[-1] - nodes[0]) / 2  # what the undivided interval gave
        self._add(weights, contributions)
        self.alpha = np.insert(self.alpha, at + 1, nodes[1:-1])
        self.score = np.insert(self.score, at + 1, score)
        self.slope = np.insert(self.slope, at + 1, slope)
        self.change = np.concatenate(
            [self.change[:at], _changes(contributions), self.change[at + 1 :]]
        )

    def _add(self, weights: Array, contributions: Sequence[NDArray[Any]]) -> None:
        for weight, contribution in zip(weights, contributions, strict=True):
            self.total += weight * contribution.astype(np.float64)

    @property
    def size(self) -> float:
        """||total||: what errors of the attribution are relative to."""
        return _norm(self.total)

    def variances(self) -> Array:
        """The expected squared L2 error of each interval, float64 [n - 1]."""
        return np.asarray((np.diff(self.alpha) * self.change) ** 2 / 12)

    def residuals(self) -> Array:
        """The completeness residual of each interval, float64 [n - 1]."""
        integral = np.diff(self.alpha) * (self.slope[:-1] + self.slope[1:]) / 2
        return np.asarray(integral - np.diff(self.score))

    def errors(self, *, exact_sum: bool = False) -> Errors:
        """How far the sum over these nodes may be off.

        With `exact_sum` as it is after that correction: complete, and its estimated error grown by it.
        """
        size, error = self.size, float(np.sqrt(self.variances().sum()))
        estimate = error / size if size > 0 else float(error > 0)
        residual, total = abs(float(self.residuals().sum())), float(np.abs(self.total).sum())
        if exact_sum and residual < total:
            return Errors(float(np.hypot(estimate, residual / total)), 0.0)
        change = np.asarray(self.score[-1] - self.score[0])
        return Errors(
            estimate, float(relative_error(np.asarray(residual), change, np.asarray(total)))
        )


def _changes(contributions: Sequence[NDArray[Any]]) -> Array:
    """||G_b - G_a|| of neighbours, in float64: squares of small gradients would vanish in float32."""
    pairs = pairwise(contributions)
    return np.array([_norm(np.subtract(right, left, dtype=np.float64)) for left, right in pairs])


def _norm(vector: Array) -> float:
    """The L2 norm, without the BLAS threads of np.linalg.norm: they would wait for the runtime's to stop spinning."""
    return math.sqrt(np.square(vector).sum())
