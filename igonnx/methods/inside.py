"""Running what `igonnx.row_layers` computes: at each example, or summed along the straight path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.engine.plan import Requests
from igonnx.engine.row_forward import rows_together
from igonnx.errors import EngineError, InputError
from igonnx.layers import find_layers
from igonnx.methods.call import Array, Call, Explaining, Tensors, tensor_shape
from igonnx.row_layers import Inside

__all__ = ["PathRows", "at_inputs", "inside_at", "layers_of", "rows_on_path", "summed"]


def layers_of(
    explainer: Explaining,
    layer: str | Sequence[str],
    *,
    anywhere: bool = False,
    several: bool = True,
) -> tuple[str, ...]:
    """The names of the layers that a method's `layer` stands for: on the way to the output, or anywhere in the model.

    Raises `InputError` as `igonnx.layers.find_layers`.
    """
    known = explainer.tensors()
    if anywhere:
        known = [*known, *(one for one in explainer.tensors(anywhere=True) if one not in known)]
        where = "of the model"
    else:
        sources = ", ".join(map(repr, explainer.wrt))
        where = f"between {sources} and output {explainer.output!r}"
    return find_layers(known, layer, where, several=several)


def inside_at(
    call: Call,
    asked: Inside,
    examples: NDArray[np.int64],
    points: Tensors,
    beside: Tensors | None = None,
) -> dict[str, NDArray[Any]]:
    """What is asked of inner tensors at B points {name: [B, ...]} of requests `examples` [B], by names of the graph.

    `beside` holds the directions, and neurons, of each point. Raises `EngineError` for what is not finite.
    """
    if call.inside is None:
        raise InputError("this call has no inner tensors: it was made without a model")
    found = call.inside(asked, examples, points, beside or {})
    for name, array in found.items():
        finite = np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        if not finite.all():
            first = int(np.flatnonzero(~finite)[0])
            known = call.examples_of(examples[first : first + 1])[0]
            what, _, tensor = name.partition(":")
            raise EngineError(
                f"the {what} of {tensor!r} is not finite at a point of example {known} ({int((~finite).sum())} of "
                f"{len(array)} points): try another baseline, or a layer behind the singularity"
            )
    return found


def at_inputs(call: Call, asked: Inside) -> dict[str, NDArray[Any]]:
    """What is asked of inner tensors at x of every request, [R, ...] each."""
    x, parts = call.requests.x, []
    size = rows_together(x)
    tick = call.ticking(len(call))
    for start in range(0, len(call), size):
        rows = np.arange(start, min(start + size, len(call)))
        parts.append(inside_at(call, asked, rows, {name: a[rows] for name, a in x.items()}))
        tick(len(rows))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class PathRows:
    """Some rows of a path: which request, where, with what weight, and what was asked for there."""

    row: NDArray[np.int64]  # [B]
    weight: Array  # [B]
    found: dict[str, NDArray[Any]]  # [B, ...]


def rows_on_path(
    call: Call, asked: Inside, alpha: Array, weight: Array, beside: Tensors | None = None
) -> Iterator[PathRows]:
    """Every request at every node of the straight path, some rows at a time, in order of requests.

    The points are baseline + alpha (x - baseline); the direction, if it is asked for, is x - baseline. `beside` is what
    each request has beside it, [R, ...].
    """
    count, nodes = len(call), len(alpha)
    size = rows_together(call.requests.x)
    tick = call.ticking(count * nodes)
    for start in range(0, count * nodes, size):
        number = np.arange(start, min(start + size, count * nodes))
        row = number // nodes
        points, directions = _on_path(call.requests, row, alpha[number % nodes])
        extra = {name: array[row] for name, array in (beside or {}).items()}
        if asked.changes:
            extra |= {f"direction:{name}": array for name, array in directions.items()}
        yield PathRows(row, weight[number % nodes], inside_at(call, asked, row, points, extra))
        tick(len(number))


def _on_path(
    requests: Requests, row: NDArray[np.int64], alpha: Array
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    points, directions = {}, {}
    for name, x in requests.x.items():
        start = requests.baseline[name][row]
        directions[name] = x[row] - start
        points[name] = start + tensor_shape(alpha.astype(x.dtype), x) * directions[name]
    return points, directions


def summed(
    totals: dict[str, Array], count: int, rows: PathRows, terms: Mapping[str, NDArray[Any]]
) -> None:
    """Add the weighted `terms` {name: [B, ...]} of some rows to `totals` {name: [R, ...]}, which begin empty."""
    for name, term in terms.items():
        if name not in totals:
            totals[name] = np.zeros((count, *term.shape[1:]))
        for request in np.unique(rows.row):
            of_it = rows.row == request
            totals[name][request] += np.tensordot(
                rows.weight[of_it], term[of_it].astype(np.float64), axes=1
            )
