"""An engine that is kept busy while calls queue up, so that tests know who shares a run with whom."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from toy_graph import Toy

from igonnx import CancelledError, CancelToken
from igonnx.engine import Requests, RowPlan
from igonnx.engine.control import CallControl
from igonnx.engine.native import NativeEngine
from igonnx.engine.workers import Workers

__all__ = [
    "FOREVER",
    "LONG",
    "PATIENCE",
    "Callers",
    "blocked",
    "loop_engine",
    "loop_requests",
    "one_row",
    "until",
]

FOREVER = 10**15  # turns of a loop; for calls that share no run, or those who share it wait as long
LONG = 10**4  # ten milliseconds or so
PATIENCE = 60  # seconds after which something has gone wrong


def loop_engine(model: Toy, **changes: Any) -> NativeEngine:
    """`turns` has a number per request, so that calls with different ones can share a chunk."""
    return model.engine(batched=("scale", "turns"), workers=Workers(1), **changes)


def loop_requests(model: Toy, count: int, turns: int = 1, seed: int = 0) -> Requests:
    requests = model.requests(count, seed)
    return replace(requests, batched={**requests.batched, "turns": np.full(count, turns)})


def one_row() -> RowPlan:
    return RowPlan(np.zeros(1, np.int64), np.full(1, 0.5), np.ones(1))


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


@contextmanager
def blocked(engine: NativeEngine, model: Toy) -> Iterator[Callable[[], None]]:
    """A call that keeps the engine busy until what this gives is called."""
    token = CancelToken()
    before = engine._session.calls
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(
            engine.run,
            loop_requests(model, 1, FOREVER),
            one_row(),
            batch_size=1,  # full: nobody joins
            control=CallControl(token=token),
        )
        try:
            until(lambda: engine._session.calls == before + 1)
            yield token.cancel
        finally:
            token.cancel()
            with pytest.raises(CancelledError, match=r"^toy: cancelled with 0 of 1 rows done$"):
                call.result(PATIENCE)


class Callers:
    """Threads that call an engine, one after the other into its queue."""

    def __init__(self, engine: NativeEngine, pool: ThreadPoolExecutor) -> None:
        self.engine, self.pool = engine, pool

    def queue(self, requests: Requests, plan: RowPlan, **options: Any) -> Future[Any]:
        before = self.engine._session.calls
        call = self.pool.submit(self.engine.run, requests, plan, **options)
        until(lambda: self.engine._session.calls == before + 1)
        return call
