"""Results of methods put together, and taken apart: of groups of requests that were computed by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.methods.call import Array, MethodResult

__all__ = ["joined", "split"]


def joined(parts: Sequence[MethodResult]) -> MethodResult:
    """The results of groups of requests, one behind the other, each with scores and paths."""

    def all_of(arrays: Sequence[Array | None]) -> Array:
        return np.concatenate([array for array in arrays if array is not None])

    return MethodResult(
        attribution={
            name: np.concatenate([part.attribution[name] for part in parts])
            for name in parts[0].attribution
        },
        steps_used=np.concatenate([part.steps_used for part in parts]),
        scores=all_of([part.scores for part in parts]),
        baseline_scores=all_of([part.baseline_scores for part in parts]),
        paths=[path for part in parts for path in part.paths or []],
    )


def split(result: MethodResult, copies: int, count: int) -> Iterator[MethodResult]:
    """The results of the copies, each of `count` requests."""

    def part(array: NDArray[Any] | None, rows: slice) -> Any:
        return None if array is None else array[rows]

    for index in range(copies):
        rows = slice(index * count, (index + 1) * count)
        yield MethodResult(
            attribution={name: array[rows] for name, array in result.attribution.items()},
            steps_used=result.steps_used[rows],
            scores=part(result.scores, rows),
            baseline_scores=part(result.baseline_scores, rows),
            paths=None if result.paths is None else result.paths[rows],
            error_estimate=part(result.error_estimate, rows),
            total=part(result.total, rows),
            r_squared=part(result.r_squared, rows),
        )
