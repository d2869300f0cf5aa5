"""How many rows to run at once, measured on the work itself and remembered.

On a CPU few rows at a time may be as fast as many, or faster: their activations stay in the cache. Which number is
best depends on the model, the machine and the runtime, so it is tried out: the first chunks of a long call have 1, 2,
4 and so on rows, as long as more rows are not slower, and the rest of the call is run with the best number. No row is
computed twice.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache, partial
from typing import Any, Generic, TypeAlias

import numpy as np
from numpy.typing import NDArray

from igonnx.engine.control import CallControl
from igonnx.engine.plan import PlanEngine, PlanT_contra, Requests, RowResult, part_of_progress
from igonnx.user_cache import read_record, write_record

__all__ = ["USUAL_CHUNK", "CalibratedEngine", "first_guess", "machine"]

ENOUGH_ROWS = 40  # a call with fewer is not used for trials
CHUNKS = 3  # per trial and lane
MOST_ROWS = 256
SLOWER = 1.1  # with so much more time per row than the best, larger chunks are not tried any more
WORTHWHILE = 0.97  # a larger chunk must need at most this much of a smaller one's time per row
USUAL_CHUNK = 128 << 20  # bytes of working memory; chunks that take more gain nothing on a CPU
RECORDS = "chunks"  # kind of record in the user's cache

Progress: TypeAlias = "Callable[[int, int], None] | None"
Shape: TypeAlias = "tuple[int, ...]"


@dataclass
class _Trials:
    """Seconds per row by chunk size, for inputs of about one size."""

    seconds: dict[int, float] = field(default_factory=dict)
    confirmed: bool = True  # False: the last size was slow, once

    def next_size(self, most: int, rows: int) -> int | None:
        """Chunk size to try next, of at most `most` rows and with `rows` a lane; None: there is none worth trying."""
        if not self.seconds:
            return 1 if rows >= CHUNKS else None
        last = max(self.seconds)
        if not self.is_slow(last):
            following = 2 * last
        elif not self.confirmed:
            following = last
        else:
            return None
        return following if following <= min(most, MOST_ROWS, rows // CHUNKS) else None

    def is_slow(self, size: int) -> bool:
        return self.seconds[size] > SLOWER * min(self.seconds.values())

    def add(self, size: int, seconds: float) -> None:
        """Take note of a trial. A size that is slow is tried twice: something else may have kept the machine busy."""
        self.confirmed = size in self.seconds
        self.seconds = {**self.seconds, size: min(seconds, self.seconds.get(size, seconds))}
        if not self.is_slow(size):
            self.confirmed = True

    def best(self, most: int) -> int | None:
        """The best size of at most `most` rows: the smallest that no larger one clearly beats; None: none was tried."""
        chosen = None
        for size in sorted(size for size in self.seconds if size <= most):
            if chosen is None or self.seconds[size] < WORTHWHILE * self.seconds[chosen]:
                chosen = size
        return chosen

    def as_record(self) -> dict[str, Any]:
        return {"seconds_per_row": {str(size): time for size, time in self.seconds.items()}}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> _Trials:
        """Trials of an earlier process; none where the record is not what `as_record` gives."""
        found = record.get("seconds_per_row")
        if not isinstance(found, dict):
            return cls()
        try:
            seconds = {int(size): float(time) for size, time in found.items()}
        except (TypeError, ValueError):
            return cls()
        usable = all(1 <= size <= MOST_ROWS and time > 0 for size, time in seconds.items())
        return cls(seconds if usable else {})


class CalibratedEngine(Generic[PlanT_contra]):
    """An engine that finds out by itself how many rows to run at once; `batch_size` is only its first guess.

    Several threads may call `run` at once; only a call that has the engine to itself is measured.
    """

    def __init__(
        self,
        engine: PlanEngine[PlanT_contra],
        *,
        bytes_per_row: Callable[[Mapping[str, Shape]], int],
        memory_limit: int | None,
        usual_chunk: int | None = USUAL_CHUNK,
        key: Mapping[str, Any],
    ) -> None:
        """`bytes_per_row` estimates the working memory of one row, from the shapes of x and of batched inputs.

        By it all chunks that run together are kept within `memory_limit` bytes; None: a quarter of the machine's
        memory, and `usual_chunk` bytes each (None: no such bound). `key`, of JSON values, is what else the time of a
        chunk depends on: in the user's cache, measurements are kept under it.
        """
        self._engine = engine
        self._bytes_per_row = bytes_per_row
        self._usual_chunk = usual_chunk if memory_limit is None else None
        self._memory_limit = memory_limit or machine_memory() // 4
        self._key = {**key, "lanes": engine.lanes}
        self._fitting = lru_cache(maxsize=64)(self._count_fitting)
        self._lock = threading.Lock()
        self._trials: dict[str, _Trials] = {}
        self._running = 0  # calls at this moment
        self._started = 0  # calls so far

    @property
    def lanes(self) -> int:
        """Those of the engine; where the memory limit allows fewer, `run` takes fewer."""
        return self._engine.lanes

    def rows_at_once(self, requests: Requests) -> int:
        """Rows per chunk for requests like these: the best measured, else a guess; within the memory limit."""
        _, most = self._fitting(_shapes(requests))
        return self._trials_of(requests).best(most) or min(first_guess(requests), most)

    def run(
        self,
        requests: Requests,
        plan: PlanT_contra,
        *,
        batch_size: int,
        progress: Progress = None,
        control: CallControl | None = None,
    ) -> RowResult:
        """Run a plan as `igonnx.engine.plan.Engine` says, in chunks of the sizes that trials call for."""
        trials, (fitting, most) = self._trials_of(requests), self._fitting(_shapes(requests))
        control = control or CallControl()
        lanes = min(control.lanes or fitting, fitting)
        run = partial(self._engine.run, control=replace(control, lanes=lanes))
        total, done = len(plan.row), 0
        size = trials.next_size(most, total // lanes) if total >= ENOUGH_ROWS else None
        if size is None:
            with self._call():
                at_once = min(trials.best(most) or batch_size, most)
                return run(requests, plan, batch_size=at_once, progress=progress)
        sums = _Sums(len(requests.cotangent), total)
        warm_up = not trials.seconds  # the first run in each lane makes room for its activations
        while done < total:
            count = lanes * (1 if warm_up else CHUNKS * (size or 1))
            rows = slice(done, total if size is None else done + count)
            at_once = size or trials.best(most) or min(batch_size, most)
            share, part = _part(requests, plan, rows)
            tick = part_of_progress(progress, done, total)
            with self._call() as undisturbed:
                start = time.perf_counter()
                found = run(*part, batch_size=at_once, progress=tick)
                seconds = (time.perf_counter() - start) / (rows.stop - done)
                if size is not None and undisturbed():
                    if not warm_up:
                        with self._lock:
                            trials.add(size, seconds)
                    size = trials.next_size(most, (total - rows.stop) // lanes)
                else:
                    size = None
            warm_up = False
            sums.add(found, rows, share)
            done = rows.stop
        if trials.seconds:
            write_record(RECORDS, self._key_of(requests), trials.as_record())
        return sums.result

    @contextmanager
    def _call(self) -> Iterator[Callable[[], bool]]:
        """Count a call while it lasts; gives a function that tells whether there has been no other meanwhile."""
        with self._lock:
            self._running += 1
            self._started += 1
            alone, number = self._running == 1, self._started
        try:
            yield lambda: alone and self._started == number
        finally:
            with self._lock:
                self._running -= 1

    def _count_fitting(self, shapes: tuple[tuple[str, Shape], ...]) -> tuple[int, int]:
        """Lanes, and rows in each, whose working memory keeps within the limit; one of each at least."""
        bytes_per_row = max(1, self._bytes_per_row(dict(shapes)))
        rows = self._memory_limit // bytes_per_row
        lanes = max(1, min(self.lanes, rows))
        most = rows // lanes
        if self._usual_chunk is not None:
            most = min(most, self._usual_chunk // bytes_per_row)
        return lanes, max(1, most)

    def _trials_of(self, requests: Requests) -> _Trials:
        """Trials with inputs of about this size; those of earlier processes are read from the user's cache."""
        size = _about(requests)
        with self._lock:
            if size not in self._trials:
                record = read_record(RECORDS, self._key_of(requests)) or {}
                self._trials[size] = _Trials.from_record(record)
            return self._trials[size]

    def _key_of(self, requests: Requests) -> dict[str, Any]:
        return {**self._key, "size": _about(requests)}


class _Sums:
    """The result of a whole plan, put together from those of its parts."""

    def __init__(self, requests: int, rows: int) -> None:
        self._requests = requests
        self.result = RowResult({}, np.zeros(rows), np.zeros(rows))

    def add(self, part: RowResult, rows: slice, share: slice) -> None:
        """Add what rows `rows`, which are of the requests `share`, have given."""
        sums = self.result.weighted_gradient
        for name, gradient in part.weighted_gradient.items():
            if name not in sums:
                sums[name] = np.zeros((self._requests, *gradient.shape[1:]))
            sums[name][share] += gradient
        self.result.score[rows] = part.score
        self.result.slope[rows] = part.slope


def _part(
    requests: Requests, plan: PlanT_contra, rows: slice
) -> tuple[slice, tuple[Requests, PlanT_contra]]:
    """The requests that `rows` of a plan touch, and these rows as a plan for them."""
    row = plan.row[rows]
    share = slice(int(row[0]), int(row[-1]) + 1)

    def of(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {name: array[share] for name, array in arrays.items()}

    touched = replace(
        requests,
        x=of(requests.x),
        baseline=of(requests.baseline),
        batched=of(requests.batched),
        cotangent=requests.cotangent[share],
    )
    return share, (touched, plan.part(rows, share))


def first_guess(requests: Requests) -> int:
    """Rows at once before anything is measured: 1 of an image of 224 by 224, more of smaller inputs; 1 to 64."""
    per_row = sum(array[0].nbytes for array in requests.x.values())
    return int(min(max(1_000_000 // max(per_row, 1), 1), 64))


def _shapes(requests: Requests) -> tuple[tuple[str, Shape], ...]:
    """Shapes of x and of batched inputs by their names."""
    arrays = {**requests.x, **requests.batched}
    return tuple((name, array.shape) for name, array in arrays.items())


def _about(requests: Requests) -> str:
    """Shapes without the axis of requests, rounded up to powers of two: inputs of so alike a size share trials."""
    return "; ".join(
        f"{name} {[1 << max(0, size - 1).bit_length() for size in shape[1:]]}"
        for name, shape in _shapes(requests)
    )


def machine_memory() -> int:
    """Bytes of memory that the machine has; 8 GB where it does not tell."""
    try:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 8 << 30


@cache
def machine() -> str:
    """The processor's name and how many there are."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
        name = names[0] if names else name
    except OSError:
        pass
    return f"{name}, {os.cpu_count()}"
