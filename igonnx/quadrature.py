"""Nodes and weights on [0, 1]: where a path integral evaluates the gradient, and how much each value counts.

Weights of every rule sum to 1 for every number of steps, so a linear model is integrated exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from igonnx.checks import require_whole
from igonnx.errors import InputError

__all__ = ["RULES", "nodes_and_weights", "trapezoid_weights"]

Quadrature: TypeAlias = "tuple[NDArray[np.float64], NDArray[np.float64]]"


def _left(steps: int) -> Quadrature:
    return np.arange(steps) / steps, np.full(steps, 1 / steps)


def _right(steps: int) -> Quadrature:
    return np.arange(1, steps + 1) / steps, np.full(steps, 1 / steps)


def _middle(steps: int) -> Quadrature:
    return (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)


def _trapezoid(steps: int) -> Quadrature:
    alpha = np.linspace(0.0, 1.0, steps + 1)
    return alpha, trapezoid_weights(alpha)


# numpy finds Gauss-Legendre nodes as eigenvalues of a dense matrix of steps x steps.
_MOST_GAUSS_STEPS = 5000


def _gauss_legendre(steps: int) -> Quadrature:
    if steps > _MOST_GAUSS_STEPS:
        raise InputError(
            f"steps is {steps:,}; gauss_legendre takes at most {_MOST_GAUSS_STEPS:,}: use rule='middle' for more"
        )
    nodes, weights = _legendre(steps)
    return (nodes + 1) / 2, weights / weights.sum()


@lru_cache(maxsize=64)
def _legendre(steps: int) -> Quadrature:
    """Nodes and weights on [-1, 1]; an eigenvalue problem, as long as some gradients of a small model."""
    return np.polynomial.legendre.leggauss(steps)


RULES: dict[str, Callable[[int], Quadrature]] = {
    "left": _left,
    "right": _right,
    "middle": _middle,
    "trapezoid": _trapezoid,
    "gauss_legendre": _gauss_legendre,
}


def nodes_and_weights(rule: str, steps: int) -> Quadrature:
    """Nodes and weights of `rule` with `steps` steps, both float64 [n].

    "left", "right" and "middle" are Riemann sums over `steps` equal intervals, "trapezoid" has steps + 1 nodes,
    "gauss_legendre" is exact for polynomials of degree 2 steps - 1 (Abramowitz and Stegun, 25.4.29).
    Raises `InputError` for an unknown rule or fewer than one step.
    """
    if not isinstance(rule, str) or rule not in RULES:
        raise InputError(f"unknown rule {rule!r}; expected one of {', '.join(RULES)}")
    require_whole("steps", steps, 1)
    return RULES[rule](int(steps))


def trapezoid_weights(alpha: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of the composite trapezoid rule on increasing nodes that start at 0 and end at 1; float64 [n]."""
    widths = np.diff(alpha)
    weights = np.zeros(len(alpha))
    weights[:-1] += widths / 2
    weights[1:] += widths / 2
    return weights
