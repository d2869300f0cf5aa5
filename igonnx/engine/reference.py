"""The reference engine: NumPy interpolates, weighs and sums in float64; one session computes scores and gradients."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.engine.control import CallControl
from igonnx.engine.plan import Requests, RowPlan, RowResult
from igonnx.engine.runtime import RuntimeSession

__all__ = ["ReferenceEngine"]


class ReferenceEngine:
    """Runs row plans on a row gradient (`igonnx.row_gradient`), the oracle the native engine is tested against."""

    lanes = 1

    def __init__(
        self,
        session: RuntimeSession,
        *,
        explained: Sequence[str],
        dtypes: Sequence[Any],
        fixed_rows: int | None,
        referenced: Collection[str] = (),
    ) -> None:
        """`dtypes` are those of the tensors z:<name>, one per explained tensor.

        `referenced` are those explained tensors whose baseline the row gradient reads too.
        """
        self._session = session
        self._explained = tuple(explained)
        self._dtypes = tuple(np.dtype(dtype) for dtype in dtypes)
        self._fixed_rows = fixed_rows
        self._referenced = frozenset(referenced)

    def run(
        self,
        requests: Requests,
        plan: RowPlan,
        *,
        batch_size: int,
        progress: Callable[[int, int], None] | None = None,
        control: CallControl | None = None,
    ) -> RowResult:
        """Run a plan as `igonnx.engine.plan.Engine` says; `control` can stop it between two runs only."""
        sums = {name: np.zeros(requests.x[name].shape) for name in self._explained}
        score, slope = np.zeros(len(plan.row)), np.zeros(len(plan.row))
        for chunk in self._chunks(len(plan.row), batch_size):
            if control is not None:
                control.check(self._session.name, f"with {chunk[0]} of {len(plan.row)} rows done")
            count = len(np.unique(chunk))
            results = self._session.run(self._feeds(requests, plan, chunk))
            rows = chunk[:count]
            score[rows] = results["score"][:count]
            for name in self._explained:
                gradient = results[f"gradient:{name}"][:count].astype(np.float64)
                request = plan.row[rows]
                path = (requests.x[name] - requests.baseline[name])[request].astype(np.float64)
                column = plan.weight[rows].reshape(-1, *[1] * (gradient.ndim - 1))
                with np.errstate(
                    invalid="ignore"
                ):  # infinite gradients: the slope tells the caller
                    slope[rows] += (gradient * path).reshape(count, -1).sum(axis=1)
                    np.add.at(sums[name], request, column * gradient)
            if progress is not None:
                progress(int(rows[-1]) + 1, len(plan.row))
        return RowResult(sums, score, slope)

    def _chunks(self, total: int, batch_size: int) -> Iterator[NDArray[np.int64]]:
        """Row numbers of each run; where the model takes batches of one size only, the last row fills up the last."""
        size = self._fixed_rows or batch_size
        for start in range(0, total, size):
            rows = np.arange(start, min(start + size, total))
            missing = size - len(rows) if self._fixed_rows else 0
            yield np.concatenate([rows, np.repeat(rows[-1:], missing)])

    def _feeds(
        self, requests: Requests, plan: RowPlan, rows: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        request = plan.row[rows]
        feeds: dict[str, NDArray[Any]] = {}
        for name, dtype in zip(self._explained, self._dtypes, strict=True):
            x, baseline = requests.x[name][request], requests.baseline[name][request]
            alpha = plan.alpha[rows].astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
            feeds[f"z:{name}"] = (baseline + alpha * (x - baseline)).astype(dtype)
            if name in self._referenced:
                feeds[f"reference:{name}"] = baseline.astype(dtype)
        feeds.update({name: array[request] for name, array in requests.batched.items()})
        feeds.update(requests.shared)
        feeds["cotangent"] = requests.cotangent[request]
        return feeds
