"""Integrated Gradients to a tolerance: gradients are spent where the gradient changes, and every one is reused.

The rule is the composite trapezoid on a mesh per request (`mesh`), which is refined in rounds (`refinement`) until the
estimated error of the attribution and the completeness error are within the tolerance. All unfinished requests share
each round, so that batches stay full; a request's own rounds depend on neither the others nor the batch size. The
gradients whose weight may still change are kept within a memory limit (`kept_gradients`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Path
from igonnx.checks import is_real, require_whole
from igonnx.engine.plan import Requests, RowPlan
from igonnx.errors import InputError, ToleranceWarning, warn_caller
from igonnx.methods.call import Call, MethodResult, Progress, call_for, run_rows
from igonnx.methods.kept_gradients import KeptGradients, Node, gradients_that_fit
from igonnx.methods.mesh import Array, Errors, Mesh
from igonnx.methods.refinement import divisions
from igonnx.quadrature import trapezoid_weights

__all__ = ["adaptive_mesh"]

_FIRST_NODES = 13

# Requests join the rounds while their gradients are likely to fit: what an image takes for a tolerance of 1 to 2 %.
_USUAL_NODES = 128

# Nodes of one interval of one request, with both ends.
_Division: TypeAlias = tuple[int, Array]


def adaptive_mesh(
    call: Call,
    *,
    tolerance: float,
    max_steps: int,
    memory_limit: int | None = None,
    exact_sum: bool = False,
) -> MethodResult:
    """Integrate until the estimated relative L2 error and the relative completeness error are at most `tolerance`.

    At most `max_steps` points are evaluated per request; what is not reached by then is said in a
    `ToleranceWarning`. Where `memory_limit` (bytes; None: 512 MiB) cannot hold all gradients, some are evaluated
    again; `steps_used` counts them too. With `exact_sum` the errors are judged as they will be after that correction
    (`made_exact`), which is for the caller to make. Raises `InputError` for settings that make no sense, `EngineError`
    where the engine fails.
    """
    if not is_real(tolerance) or not 0 < tolerance < 1:
        raise InputError(
            f"tolerance is {tolerance!r}; expected a number between 0 and 1, such as 0.01"
        )
    require_whole("max_steps", max_steps, _FIRST_NODES)
    kept = KeptGradients(gradients_that_fit(memory_limit, call.requests, _FIRST_NODES))
    meshes = _Meshes(call, kept)
    errors = _refine(meshes, float(tolerance), int(max_steps), exact_sum, call.progress)
    _warn(call, errors, tolerance, max_steps)
    done = [meshes.of[index] for index in range(len(call))]
    return MethodResult(
        attribution=_split(np.stack([mesh.total for mesh in done]), call.requests),
        paths=[
            Path(mesh.alpha, trapezoid_weights(mesh.alpha), mesh.score, mesh.slope) for mesh in done
        ],
        scores=np.array([mesh.score[-1] for mesh in done]),
        baseline_scores=np.array([mesh.score[0] for mesh in done]),
        steps_used=meshes.evaluations,
        error_estimate=np.array([mesh.errors().estimate for mesh in done]),
    )


def _refine(
    meshes: _Meshes, tolerance: float, max_steps: int, exact_sum: bool, progress: Progress
) -> list[Errors]:
    """Go round by round until every request is done; return the errors that were reached."""
    count = len(meshes.call)
    together = max(meshes.kept.capacity // _USUAL_NODES, 1)
    waiting, active = list(range(count)), list[int]()
    errors: dict[int, Errors] = {}
    while waiting or active:
        round_: list[_Division] = []
        for index in list(active):
            mesh = meshes.of[index]
            errors[index] = mesh.errors(exact_sum=exact_sum)
            more = divisions(mesh, errors[index], tolerance, max_steps - len(mesh.alpha))
            round_ += [(index, nodes) for nodes in more]
            if not more:
                active.remove(index)
                meshes.kept.forget(index)
        while waiting and len(active) < together:
            active.append(waiting.pop(0))
            round_.append((active[-1], np.linspace(0.0, 1.0, _FIRST_NODES)))
        meshes.divide(round_)
        if progress is not None:
            spent = sum(len(meshes.of[index].alpha) for index in active)
            finished = count - len(waiting) - len(active)
            progress(finished * max_steps + spent, count * max_steps)
    return [errors[index] for index in range(count)]


class _Meshes:
    """The meshes of all requests that were begun, and the evaluation of new nodes."""

    def __init__(self, call: Call, kept: KeptGradients) -> None:
        self.call, self.kept = call, kept
        self.of: dict[int, Mesh] = {}
        self.evaluations = np.zeros(len(call), np.int64)

    def divide(self, divisions: Sequence[_Division]) -> None:
        """Evaluate the nodes that are new, and put them into the meshes; a request's first division begins its mesh."""
        for group in self._groups(divisions):
            needed = {(index, float(alpha)) for index, nodes in group for alpha in nodes}
            if self.kept.is_short_of(needed):
                self.kept.make_room(needed, self._worth())
            values = self._evaluate(sorted(node for node in needed if node not in self.kept))
            for index, nodes in group:
                contributions = [self.kept[index, float(alpha)] for alpha in nodes]
                if index in self.of:
                    new = np.array([values[index, float(alpha)] for alpha in nodes[1:-1]])
                    self.of[index].divide(nodes, new[:, 0], new[:, 1], contributions)
                else:
                    new = np.array([values[index, float(alpha)] for alpha in nodes])
                    self.of[index] = Mesh(nodes, new[:, 0], new[:, 1], contributions)

    def _groups(self, divisions: Sequence[_Division]) -> Iterator[list[_Division]]:
        """Divisions one behind the other whose gradients can be kept at once."""
        group: list[_Division] = []
        size = 0
        for division in divisions:
            length = len(division[1])
            if group and size + length > self.kept.capacity:
                yield group
                group, size = [], 0
            group.append(division)
            size += length
        if group:
            yield group

    def _worth(self) -> dict[Node, float]:
        """How soon each node's gradient may be needed: the larger share in the error of the intervals beside it."""
        worth = {}
        for index in self.kept.requests():
            mesh = self.of[index]
            shares = mesh.variances() / (mesh.size**2 or 1.0)
            beside = np.maximum(np.append(shares, 0.0), np.append(0.0, shares))
            worth.update({(index, float(a)): w for a, w in zip(mesh.alpha, beside, strict=True)})
        return worth

    def _evaluate(self, nodes: Sequence[Node]) -> dict[Node, tuple[float, float]]:
        """Score and slope at each node; the gradients are put where they are kept."""
        values: dict[Node, tuple[float, float]] = {}
        call, together = self.call, self.call.rows_together  # fewer would leave lanes idle
        for start in range(0, len(nodes), together):
            chunk = nodes[start : start + together]
            examples = np.array([index for index, _ in chunk])
            alpha = np.array([alpha for _, alpha in chunk])
            of_chunk = call_for(call, examples)
            rows = of_chunk.requests
            plan = RowPlan(np.arange(len(chunk)), alpha, np.ones(len(chunk)))
            result = run_rows(of_chunk, plan)
            parts = [_contribution(result.weighted_gradient[name], rows, name) for name in rows.x]
            for row, node in enumerate(chunk):
                # A copy of its own: a view would hold on to the whole chunk.
                self.kept.add(node, np.concatenate([part[row] for part in parts]))
                values[node] = float(result.score[row]), float(result.slope[row])
            np.add.at(self.evaluations, examples, 1)
        return values


def _contribution(gradient: NDArray[Any], rows: Requests, name: str) -> NDArray[Any]:
    """The gradient of one tensor times its path, [B, D], in the tensor's own precision."""
    path = rows.x[name] - rows.baseline[name]
    product = np.multiply(gradient, path, dtype=path.dtype, casting="same_kind")
    return np.asarray(product.reshape(len(product), -1))


def _split(flat: Array, requests: Requests) -> dict[str, Array]:
    """Explained tensors [R, ...] from the flattened ones behind one another, [R, D]."""
    ends = np.cumsum([array[0].size for array in requests.x.values()])
    parts = np.split(flat, ends[:-1], axis=1)
    return {
        name: part.reshape(array.shape)
        for (name, array), part in zip(requests.x.items(), parts, strict=True)
    }


def _warn(call: Call, errors: Sequence[Errors], tolerance: float, max_steps: int) -> None:
    """Say which examples missed the tolerance: once each, by its worst copy."""
    missed: dict[int, Errors] = {}
    for example, error in zip(call.examples_of(np.arange(len(call))), errors, strict=True):
        if _largest(error) > max(tolerance, _largest(missed.get(int(example)))):
            missed[int(example)] = error
    for example, error in missed.items():
        warn_caller(
            f"example {example}: the tolerance {tolerance:g} was not reached in {max_steps} steps: estimated relative "
            f"error {error.estimate:.3g}, relative completeness error {error.completeness:.3g}; raise max_steps or "
            "the tolerance",
            ToleranceWarning,
        )


def _largest(error: Errors | None) -> float:
    return 0.0 if error is None else max(error.estimate, error.completeness)
