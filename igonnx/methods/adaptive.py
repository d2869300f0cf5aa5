"""An adaptive mesh: spend gradients where the gradient changes, and stop when both errors are small enough.

Every gradient is kept and reused. The rule is the composite trapezoid on the mesh's nodes; a round bisects the worst
intervals, an eighth of all. An interval of width h with ends a, b is judged by

- its completeness residual |h (slope_a + slope_b) / 2 - (score_b - score_a)|, known exactly, and
- h ||G_a - G_b|| with G the gradient times (x - baseline).

The L2 error of the attribution is estimated as the root of the sum of h^2 ||G_a - G_b||^2 / 12. That is its expectation
when the gradient jumps once in the interval at a uniformly random place (a kink of a ReLU network), and also when it
wanders like a Brownian bridge between the ends; for a smooth gradient it is an overestimate.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Path, relative_error
from igonnx.engine.plan import Engine, Requests, RowPlan
from igonnx.errors import InputError, ToleranceWarning
from igonnx.methods.path_integral import (
    Array,
    Integral,
    Progress,
    one_request,
    repeated,
    run_rows,
)
from igonnx.quadrature import trapezoid_weights

__all__ = ["adaptive_mesh"]

_FIRST_INTERVALS = 16
_ROUND = 8


@dataclass
class _Mesh:
    """Nodes of one request in increasing order, and what was computed there."""

    alpha: Array = field(default_factory=lambda: np.zeros(0))
    score: Array = field(default_factory=lambda: np.zeros(0))
    slope: Array = field(default_factory=lambda: np.zeros(0))
    # G [D] per node, all explained tensors flattened one behind the other.
    contributions: list[NDArray[np.floating]] = field(default_factory=list)
    change: Array = field(default_factory=lambda: np.zeros(0))  # ||G_a - G_b|| per interval

    def insert(
        self,
        alpha: Array,
        score: Array,
        slope: Array,
        contributions: Sequence[NDArray[np.floating]],
    ) -> None:
        known = {
            (self.alpha[i], self.alpha[i + 1]): self.change[i] for i in range(len(self.alpha) - 1)
        }
        order = np.argsort(np.concatenate([self.alpha, alpha]), kind="stable")
        everything = [*self.contributions, *contributions]
        self.alpha = np.concatenate([self.alpha, alpha])[order]
        self.score = np.concatenate([self.score, score])[order]
        self.slope = np.concatenate([self.slope, slope])[order]
        self.contributions = [everything[i] for i in order]
        self.change = np.array(
            [
                known[a, b] if (a, b) in known else float(np.linalg.norm(right - left))
                for a, b, left, right in zip(
                    self.alpha,
                    self.alpha[1:],
                    self.contributions,
                    self.contributions[1:],
                    strict=False,
                )
            ]
        )

    def attribution(self) -> Array:
        """The integral of G, [D]."""
        total = np.zeros(self.contributions[0].shape)
        for weight, contribution in zip(
            trapezoid_weights(self.alpha), self.contributions, strict=True
        ):
            total += weight * contribution
        return total

    def residuals(self) -> Array:
        """Completeness residual of each interval."""
        widths = np.diff(self.alpha)
        integral = widths * (self.slope[:-1] + self.slope[1:]) / 2
        return integral - np.diff(self.score)

    def estimated_error(self) -> float:
        return float(np.sqrt(np.sum((np.diff(self.alpha) * self.change) ** 2) / 12))


def adaptive_mesh(
    engine: Engine,
    requests: Requests,
    *,
    tolerance: float,
    max_steps: int,
    batch_size: int,
    progress: Progress = None,
) -> Integral:
    """Integrate until the relative completeness error and the estimated relative L2 error are at most `tolerance`.

    At most `max_steps` gradients are evaluated per request; what is not reached by then is said in a
    `ToleranceWarning`. Requests are refined one after the other: each keeps its gradients, max_steps times the size of
    the explained tensors at most.
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, Real) or not 0 < tolerance < 1:
        raise InputError(
            f"tolerance is {tolerance!r}; expected a number between 0 and 1, such as 0.01"
        )
    whole = isinstance(max_steps, int | np.integer) and not isinstance(max_steps, bool)
    if not whole or max_steps < _FIRST_INTERVALS + 1:
        raise InputError(
            f"max_steps is {max_steps!r}; expected a whole number of at least {_FIRST_INTERVALS + 1}"
        )
    count = len(requests.cotangent)
    meshes, errors = [], []
    for index in range(count):
        mesh = _Mesh()
        tick = None if progress is None else _offset(progress, index * max_steps, count * max_steps)
        errors.append(
            _refine(
                engine, one_request(requests, index), mesh, tolerance, max_steps, batch_size, tick
            )
        )
        meshes.append((mesh.alpha, mesh.score, mesh.slope, _split(mesh.attribution(), requests)))
    _warn(errors, tolerance, max_steps)
    if progress is not None:
        progress(count * max_steps, count * max_steps)
    return Integral(
        attribution={name: np.stack([parts[name] for *_, parts in meshes]) for name in requests.x},
        paths=[
            Path(alpha, trapezoid_weights(alpha), score, slope) for alpha, score, slope, _ in meshes
        ],
        scores=np.array([score[-1] for _, score, _, _ in meshes]),
        baseline_scores=np.array([score[0] for _, score, _, _ in meshes]),
        steps_used=np.array([len(alpha) for alpha, *_ in meshes]),
        error_estimate=np.array([error for error, _ in errors]),
    )


def _refine(
    engine: Engine,
    request: Requests,
    mesh: _Mesh,
    tolerance: float,
    max_steps: int,
    batch_size: int,
    progress: Progress,
) -> tuple[float, float]:
    """Refine the mesh of one request; return the relative L2 and completeness errors that were reached."""
    new = np.linspace(0.0, 1.0, _FIRST_INTERVALS + 1)
    while True:
        _evaluate(engine, request, mesh, new, batch_size)
        if progress is not None:
            progress(len(mesh.alpha), max_steps)
        attribution = mesh.attribution()
        size = float(np.linalg.norm(attribution))
        estimate = mesh.estimated_error() / size if size > 0 else float(mesh.estimated_error() > 0)
        residuals = mesh.residuals()
        completeness = float(
            relative_error(
                residuals.sum(), mesh.score[-1] - mesh.score[0], np.abs(attribution).sum()
            )
        )
        budget = max_steps - len(mesh.alpha)
        if (estimate <= tolerance and completeness <= tolerance) or budget <= 0:
            return estimate, completeness
        judged = (estimate > tolerance, completeness > tolerance)
        count = min(budget, _round_size(mesh))
        new = _bisected(mesh, residuals, size, count, judged)


def _round_size(mesh: _Mesh) -> int:
    """Intervals to bisect in one round: an eighth of them, in eights, which fills batches of the usual sizes.

    It must not depend on the batch size: the result would.
    """
    return _ROUND * -(-len(mesh.alpha) // (8 * _ROUND))


def _bisected(
    mesh: _Mesh, residuals: Array, size: float, count: int, judged: tuple[bool, bool]
) -> Array:
    """Midpoints of the `count` intervals with the largest error, each measure relative to its whole.

    `judged` says which measures still miss the tolerance, change and completeness: only those count.
    """
    widths = np.diff(mesh.alpha)
    total = abs(mesh.score[-1] - mesh.score[0])
    by_change = widths * mesh.change / (size or 1.0)
    by_residual = np.abs(residuals) / total if total > 0 else np.zeros_like(residuals)
    badness = np.maximum(by_change * judged[0], by_residual * judged[1])
    worst = np.argsort(-badness, kind="stable")[:count]
    return np.sort(mesh.alpha[worst] + widths[worst] / 2)


def _evaluate(
    engine: Engine, request: Requests, mesh: _Mesh, alpha: Array, batch_size: int
) -> None:
    """Evaluate scores, slopes and gradients at `alpha` and put them into the mesh."""
    for start in range(0, len(alpha), batch_size):
        points = alpha[start : start + batch_size]
        count = len(points)
        plan = RowPlan(np.arange(count), points, np.ones(count))
        result = run_rows(engine, repeated(request, count), plan, batch_size=batch_size)
        rows: list[list[NDArray[np.floating]]] = [[] for _ in range(count)]
        for name, gradient in result.weighted_gradient.items():
            path = request.x[name].astype(np.float64) - request.baseline[name]
            contribution = (gradient * path).astype(request.x[name].dtype)
            for row, values in zip(rows, contribution, strict=True):
                row.append(values.reshape(-1))
        mesh.insert(points, result.score, result.slope, [np.concatenate(row) for row in rows])


def _split(flat: Array, requests: Requests) -> dict[str, Array]:
    parts, start = {}, 0
    for name, array in requests.x.items():
        shape = array.shape[1:]
        length = int(np.prod(shape, dtype=np.int64))
        parts[name] = flat[start : start + length].reshape(shape)
        start += length
    return parts


def _offset(progress: Progress, done_before: int, total: int) -> Progress:
    def tick(done: int, _: int) -> None:
        if progress is not None:
            progress(done_before + done, total)

    return tick


def _warn(errors: Sequence[tuple[float, float]], tolerance: float, max_steps: int) -> None:
    for index, (estimate, completeness) in enumerate(errors):
        if estimate > tolerance or completeness > tolerance:
            warnings.warn(
                f"example {index}: the tolerance {tolerance:g} was not reached in {max_steps} steps: estimated "
                f"relative error {estimate:.3g}, relative completeness error {completeness:.3g}; raise max_steps "
                "or the tolerance",
                ToleranceWarning,
                stacklevel=4,
            )
