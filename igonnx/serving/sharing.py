"""Requests of many callers, computed together.

Jobs of one kind that wait at the same moment are handed to `run` as one list. A worker that is free takes what is
there, so that a lone request is as fast as it can be, and the more callers there are the larger the lists grow. Only
where several came together last time, and their callers are likely to ask again, it lingers for a part of what they
took. A list is cut where it would take longer than `TURN` seconds, by the rate of those before, so that models whose
single explanation is long keep serving in the order of arrival.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from igonnx.engine.control import CancelToken
from igonnx.errors import EngineError, InputError
from igonnx.serving.refusals import RequestError, as_request_error

__all__ = ["Job", "SharedQueue", "Together", "outcome_of"]

TURN = 0.25  # seconds that one list should take at most
LINGER = 0.25  # of the last list's time that a worker waits for as many jobs as it had
_MOST_RETRY = 60  # seconds that a client is told to wait, at most


@dataclass(eq=False)
class Job:
    """One request's part of the work.

    kind: jobs of equal kind can be computed together. work: what `run` is given. examples, cost: how much it is, in
    examples and in gradients. deadline: of `time.monotonic`.
    """

    kind: Hashable
    work: Any
    examples: int
    cost: float
    deadline: float
    future: Future[Any] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)
    begun: float | None = None  # when its turn came
    gone: bool = False  # nobody waits for it any more
    together: Together | None = None


@dataclass(eq=False)
class Together:
    """Jobs that are computed in one go; the token stops it when nobody waits for any of them."""

    jobs: list[Job]
    token: CancelToken
    alive: int

    @property
    def timeout(self) -> float:
        """Seconds until the last of the jobs is too late."""
        return max(0.001, max(job.deadline for job in self.jobs) - time.monotonic())


class SharedQueue:
    """Runs jobs by `workers` threads, those of a kind together.

    run: is given a `Together` and returns one result per job, in order. waiting: jobs that may wait. most: examples
    in one list; 1 computes every request by itself. seen: told of each list when it is over, with the seconds that it
    took; for metrics.
    """

    def __init__(
        self,
        run: Callable[[Together], Sequence[Any]],
        *,
        name: str,
        workers: int,
        waiting: int,
        most: int,
        seen: Callable[[Together, float], None] | None = None,
    ) -> None:
        self._run = run
        self._waiting: deque[Job] = deque()
        self._limit = waiting
        self._most = most
        self._seen = seen
        self._closed = False
        self._rate = 0.0  # seconds per gradient, of late
        self._last_jobs, self._last_seconds = 1, 0.0  # of the last list
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True)
            for index in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that wait for their turn."""
        return len(self._waiting)

    def submit(self, job: Job) -> None:
        """Take a job; raises `RequestError`: 429 where too many wait, 503 behind `close`."""
        with self._changed:
            if self._closed:
                raise RequestError(503, "the server is shutting down", retry_after=1)
            if len(self._waiting) >= self._limit:
                cost = sum(other.cost for other in self._waiting)
                seconds = min(_MOST_RETRY, max(1, math.ceil(cost * self._rate)))
                raise RequestError(429, f"{self._limit} requests wait already", retry_after=seconds)
            self._waiting.append(job)
            self._changed.notify()

    def abandon(self, job: Job) -> None:
        """Nobody waits for `job` any more: it is taken out, or stopped unless others are computed with it."""
        with self._changed:
            if job.gone or job.future.done():
                return
            job.gone = True
            if job.together is not None:
                job.together.alive -= 1
                if job.together.alive == 0:
                    job.together.token.cancel()
            else:
                self._waiting.remove(job)

    def close(self, timeout: float | None = None) -> None:
        """Take no more, finish what was taken (at most `timeout` seconds) and end the threads."""
        end = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))

    def _work(self) -> None:
        while (together := self._next()) is not None:
            start = time.monotonic()
            self._compute(together)
            seconds = time.monotonic() - start
            rate = seconds / max(1.0, sum(job.cost for job in together.jobs))
            self._rate = rate if self._rate == 0 else (self._rate + rate) / 2
            self._last_jobs, self._last_seconds = len(together.jobs), seconds
            if self._seen is not None:
                self._seen(together, seconds)

    def _next(self) -> Together | None:
        """The jobs whose turn it is; None at the end."""
        with self._changed:
            while True:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return None
                self._linger()
                jobs = self._taken()
                if jobs:
                    break
            together = Together(jobs, CancelToken(), len(jobs))
            for job in jobs:
                job.together, job.begun = together, time.monotonic()
            return together

    def _linger(self) -> None:
        """Wait for as many as came together last time, for a part of what that took; not for company unheard of."""
        end = time.monotonic() + min(LINGER * self._last_seconds, TURN / 10)
        while len(self._waiting) < self._last_jobs and not self._closed:
            left = end - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def _taken(self) -> list[Job]:
        """Take the first that waits, and others of its kind as far as they fit into one turn."""
        now = time.monotonic()
        first, jobs, left = None, list[Job](), deque[Job]()
        examples, cost = 0, 0.0
        for job in self._waiting:
            if job.deadline <= now:
                late = RequestError(504, "the deadline passed while the request waited")
                job.future.set_exception(late)
                continue
            first = first or job
            fits = examples + job.examples <= self._most
            fits &= (cost + job.cost) * self._rate <= TURN
            if job is first or (job.kind == first.kind and fits):
                jobs.append(job)
                examples, cost = examples + job.examples, cost + job.cost
            else:
                left.append(job)
        self._waiting = left
        return jobs

    def _compute(self, together: Together) -> None:
        try:
            results: Sequence[Any] = self._run(together)
        except Exception as error:
            self._fail(together, error)
            return
        for job, result in zip(together.jobs, results, strict=True):
            _finish(job, result)

    def _fail(self, together: Together, error: Exception) -> None:
        """Tell the jobs; where one of several may be at fault for all, try them one by one."""
        if len(together.jobs) > 1 and isinstance(error, (InputError, EngineError, MemoryError)):
            for job in together.jobs:
                alone = self._alone(job)
                if alone is not None:
                    self._compute(alone)
            return
        refusal = as_request_error(error)
        if refusal.status == 500:
            logging.getLogger("igonnx.serving").error("a computation failed", exc_info=error)
        for job in together.jobs:
            _finish(job, refusal)

    def _alone(self, job: Job) -> Together | None:
        """The job by itself, for another try; None where nobody waits for it."""
        with self._changed:
            if job.gone:
                return None
            job.together = Together([job], CancelToken(), 1)
            return job.together


def _finish(job: Job, result: Any) -> None:
    if isinstance(result, BaseException):
        job.future.set_exception(result)
    else:
        job.future.set_result(result)


async def outcome_of(queue: SharedQueue, job: Job) -> Any:
    """Hand a job to the queue and wait for its result, no longer than it may take."""
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake(done: Future[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_pass_on, waiter, done)

    job.future.add_done_callback(wake)
    queue.submit(job)
    try:
        async with asyncio.timeout(job.deadline - time.monotonic()):
            return await waiter
    except TimeoutError:
        queue.abandon(job)
        raise RequestError(504, "the deadline of the request has passed") from None
    except asyncio.CancelledError:
        queue.abandon(job)
        raise


def _pass_on(waiter: asyncio.Future[Any], done: Future[Any]) -> None:
    if waiter.done():
        return
    error = done.exception()
    if error is None:
        waiter.set_result(done.result())
    else:
        waiter.set_exception(error)
