"""What an engine is asked to run, and what it gives back.

Letters in shapes: R requests (one input to explain, its baseline and its target each), B rows (one
gradient evaluation each).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import InputError

if TYPE_CHECKING:
    from igonnx.engine.control import CallControl

__all__ = [
    "AnyPlan",
    "Engine",
    "MaskEngine",
    "MaskPlan",
    "NoGradients",
    "PlanEngine",
    "PlanT_contra",
    "Requests",
    "RowPlan",
    "RowResult",
    "part_of_progress",
]


@dataclass(frozen=True)
class Requests:
    """The arrays of R requests, C-contiguous.

    `x` and `baseline` hold the two ends of the path per explained tensor, [R, ...] each. `batched`
    are the fixed inputs with the requests axis, [R, ...]; `shared` are those handed to the model as
    they are. `cotangent` [R, output shape] says what is explained. x, baseline and cotangent have
    the dtype of the explanation graph, float32 or float64.
    """

    x: Mapping[str, NDArray[Any]]
    baseline: Mapping[str, NDArray[Any]]
    batched: Mapping[str, NDArray[Any]]
    shared: Mapping[str, NDArray[Any]]
    cotangent: NDArray[Any]


@dataclass(frozen=True)
class RowPlan:
    """B rows: the gradient of request `row[b]` at `alpha[b]` on its path, summed with `weight[b]`.

    `row` is int64 [B], in non-decreasing order; `alpha` and `weight` are float64 [B]. Anything else
    raises InputError.
    """

    row: NDArray[np.int64]
    alpha: NDArray[np.float64]
    weight: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Check dtypes, shapes and order."""
        for name, array, dtype in (
            ("row", self.row, np.int64),
            ("alpha", self.alpha, np.float64),
            ("weight", self.weight, np.float64),
        ):
            if array.dtype != dtype:
                expected = np.dtype(dtype).name
                raise InputError(f"{name} has dtype {array.dtype}; expected {expected}")
            if array.shape != (self.row.size,):
                raise InputError(
                    f"{name} has shape {list(array.shape)}; expected [{self.row.size}], one per row"
                )
        _require_order(self.row)

    def part(self, rows: slice, requests: slice) -> RowPlan:
        """The rows `rows` alone, for the requests `requests` that they touch."""
        return RowPlan(self.row[rows] - requests.start, self.alpha[rows], self.weight[rows])


@dataclass(frozen=True)
class MaskPlan:
    """B rows: the score of request `row[b]` with its features masked by `keep[b]`; no gradients.

    `row` is int64 [B], in non-decreasing order. `keep` [B, F], of the dtype of the requests: how much of each feature
    is taken from x, and the rest from the baseline. `feature` says per explained tensor which feature each element
    belongs to: int32, [1, ...] or [R, ...] with the axes of x; elements with any other number are kept.
    """

    row: NDArray[np.int64]
    keep: NDArray[Any]
    feature: Mapping[str, NDArray[np.int32]]

    def __post_init__(self) -> None:
        """Check dtypes, shapes and order."""
        if self.row.dtype != np.int64 or self.row.ndim != 1:
            raise InputError(
                f"row is {self.row.dtype} of shape {list(self.row.shape)}; expected int64 [B]"
            )
        if self.keep.ndim != 2 or len(self.keep) != len(self.row):
            raise InputError(
                f"keep has shape {list(self.keep.shape)}; expected [{self.row.size}, F], features per row"
            )
        _require_order(self.row)

    def part(self, rows: slice, requests: slice) -> MaskPlan:
        """The rows `rows` alone, for the requests `requests` that they touch."""
        feature = {
            name: index if len(index) == 1 else index[requests]
            for name, index in self.feature.items()
        }
        return MaskPlan(self.row[rows] - requests.start, self.keep[rows], feature)


def _require_order(row: NDArray[np.int64]) -> None:
    """Refuse rows that are not in the order of their requests."""
    if row.size and row[0] < 0:
        raise InputError(f"row[0] is {row[0]}; expected the index of a request, from 0 on")
    descents = np.flatnonzero(np.diff(row) < 0)
    if descents.size:
        at = int(descents[0]) + 1
        raise InputError(
            f"row[{at}] is {row[at]} after {row[at - 1]}; "
            "expected rows in the order of their requests"
        )


class AnyPlan(Protocol):
    """What the plans of all kinds have."""

    @property
    def row(self) -> NDArray[np.int64]:
        """The request of each row, int64 [B], in non-decreasing order."""
        ...  # pragma: no cover

    def part(self, rows: slice, requests: slice) -> Self:
        """The rows `rows` alone, for the requests `requests` that they touch."""
        ...  # pragma: no cover


PlanT_contra = TypeVar("PlanT_contra", bound=AnyPlan, contravariant=True)


@dataclass(frozen=True)
class RowResult:
    """What a plan computed: all float64.

    `weighted_gradient` [R, ...] per explained tensor is the weighted sum of gradients over the rows
    of each request; `score` [B] is the explained output at each row and `slope` [B] its derivative
    along the path there. Of a `MaskPlan` there are no gradients, and slopes are zero.
    """

    weighted_gradient: dict[str, NDArray[np.float64]]
    score: NDArray[np.float64]
    slope: NDArray[np.float64]


class PlanEngine(Protocol, Generic[PlanT_contra]):
    """Runs plans of one kind on one graph."""

    @property
    def lanes(self) -> int:
        """How many batches of one call run at the same time."""
        ...  # pragma: no cover

    def run(
        self,
        requests: Requests,
        plan: PlanT_contra,
        *,
        batch_size: int,
        progress: Callable[[int, int], None] | None = None,
        control: CallControl | None = None,
    ) -> RowResult:
        """Run `plan`, `batch_size` rows at a time.

        `progress(rows done, all rows)` is called after each chunk; an exception it raises stops the run and is passed
        on. `control` may stop it too: DeadlineError, CancelledError. The result depends on `batch_size` only by
        rounding. A graph that takes only batches of one size gets batches of that size whatever `batch_size` is. Rows
        of several threads that call at once may share a batch. Raises InputError where the arrays do not fit the graph
        or each other, EngineError where the runtime fails.
        """
        ...  # pragma: no cover


Engine: TypeAlias = "PlanEngine[RowPlan]"
MaskEngine: TypeAlias = "PlanEngine[MaskPlan]"


class NoGradients:
    """An engine in name, of calls that make forward passes only."""

    lanes = 1

    def __init__(self, name: str) -> None:
        """`name` stands for the model in messages."""
        self._name = name

    def run(
        self,
        requests: Requests,
        plan: RowPlan,
        *,
        batch_size: int,
        progress: Callable[[int, int], None] | None = None,
        control: CallControl | None = None,
    ) -> RowResult:
        """Raise `InputError`: there is nothing to run."""
        del requests, plan, batch_size, progress, control
        raise InputError(
            f"{self._name}: gradients were asked for in a call of forward passes only (propagation=None)"
        )


def part_of_progress(
    progress: Callable[[int, int], None] | None, before: int, total: int
) -> Callable[[int, int], None] | None:
    """What to tell a part of a run that begins after `before` rows of `total`: its progress as that of the whole."""
    if progress is None:
        return None

    def tick(done: int, _: int) -> None:
        progress(before + done, total)

    return tick
