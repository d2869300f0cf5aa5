"""Forward passes of a model that is cut open at the explained tensors: scores of rows, or values on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.engine.control import CallControl
from igonnx.engine.runtime import RuntimeSession
from igonnx.errors import InputError

__all__ = ["RowForward", "rows_together"]

TOGETHER = 2 << 20  # bytes of the explained tensors in one pass
MOST_POINTS = 64


def rows_together(points: Mapping[str, NDArray[Any]]) -> int:
    """How many of such points {name: [B, ...]} to take in one forward pass."""
    each = sum(array[0].nbytes for array in points.values())
    return int(min(max(TOGETHER // max(each, 1), 1), MOST_POINTS))


class RowForward:
    """A session on a graph of `igonnx.row_scores`; safe to share by threads.

    Its inputs are `z:<name>` per explained tensor, `fixed:<name>` and `cotangent`, as far as the graph needs them.
    """

    def __init__(
        self,
        session: RuntimeSession,
        *,
        dtypes: Mapping[str, np.dtype[Any]],
        batched: Sequence[str],
        fixed_rows: int | None,
    ) -> None:
        """`dtypes` are those of the graph's inputs; `batched` those of the fixed ones that have the rows' axis."""
        self._session = session
        self._dtypes = dict(dtypes)
        self._batched = frozenset(batched)
        self._fixed_rows = fixed_rows

    def run(
        self,
        rows: NDArray[np.int64],
        points: Mapping[str, NDArray[Any]],
        others: Mapping[str, NDArray[Any]],
        control: CallControl,
        beside: Mapping[str, NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Every output of the graph at B points {name: [B, ...]}, by name, [B, ...] each.

        `others` are the remaining inputs by their names in the graph; those with an axis of requests are taken at
        `rows` [B]. `beside` are inputs that each point has its own of, likewise by their names, [B, ...]. `control` may
        stop it between two passes.
        """
        size = self._fixed_rows or rows_together(points)
        parts = []
        for start in range(0, len(rows), size):
            control.check(self._session.name, "between two forward passes")
            count = min(size, len(rows) - start)
            missing = size - count if self._fixed_rows else 0
            here = np.concatenate(
                [np.arange(start, start + count), np.full(missing, start + count - 1)]
            )
            found = self._session.run(self._feeds(here, rows[here], points, others, beside or {}))
            parts.append(
                {
                    name: self._first(array, name, size if missing else count, count)
                    for name, array in found.items()
                }
            )
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _feeds(
        self,
        here: NDArray[np.int64],
        requests: NDArray[np.int64],
        points: Mapping[str, NDArray[Any]],
        others: Mapping[str, NDArray[Any]],
        beside: Mapping[str, NDArray[Any]],
    ) -> dict[str, NDArray[Any]]:
        feeds = {}
        for name, dtype in self._dtypes.items():
            if name.startswith("z:"):
                array = points[name.removeprefix("z:")][here]
            elif name in beside:
                array = beside[name][here]
            else:
                by_request = name == "cotangent" or name in self._batched
                array = others[name][requests] if by_request else others[name]
            feeds[name] = np.ascontiguousarray(array, dtype=dtype)
        return feeds

    def _first(self, array: NDArray[Any], name: str, rows: int, count: int) -> NDArray[Any]:
        """The first `count` of `rows` rows; an `InputError` for a tensor that does not count them."""
        if array.ndim == 0 or len(array) != rows:
            raise InputError(
                f"{self._session.name}: tensor {name.partition(':')[2]!r} has shape {list(array.shape)} for "
                f"{rows} examples; expected one that counts them along its first axis"
            )
        return array[:count]
