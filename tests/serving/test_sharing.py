"""The queue of requests that are computed together: what goes into one list, who is refused, who may leave."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from igonnx.errors import InputError
from igonnx.serving.refusals import RequestError
from igonnx.serving.sharing import Job, SharedQueue, Together


def job(work: Any, kind: str = "a", examples: int = 1, seconds: float = 60.0) -> Job:
    return Job(kind, work, examples, float(examples), time.monotonic() + seconds)


class Gated:
    """Computes nothing until it is let; notes the lists that it is given."""

    def __init__(self, compute: Callable[[Any], Any] = lambda work: work) -> None:
        self.open = threading.Event()
        self.begun = threading.Event()
        self.lists: list[list[Any]] = []
        self.given: list[Together] = []
        self._compute = compute

    def __call__(self, together: Together) -> Sequence[Any]:
        self.lists.append([one.work for one in together.jobs])
        self.given.append(together)
        self.begun.set()
        self.open.wait(30)
        return [self._compute(one.work) for one in together.jobs]


def queue_of(run: Callable[[Together], Sequence[Any]], **options: Any) -> SharedQueue:
    return SharedQueue(run, **{"name": "test", "workers": 1, "waiting": 100, "most": 64, **options})


def behind_a_first_one(run: Gated, jobs: Sequence[Job], **options: Any) -> SharedQueue:
    """The jobs, submitted while a first one is computed."""
    queue = queue_of(run, **options)
    queue.submit(job("first", "other"))
    assert run.begun.wait(30)
    for one in jobs:
        queue.submit(one)
    return queue


def test_those_of_a_kind_that_wait_are_computed_together() -> None:
    run = Gated()
    jobs = [job(1), job(2, "b"), job(3), job(4, "b"), job(5)]
    queue = behind_a_first_one(run, jobs)
    assert queue.waiting == 5
    run.open.set()
    assert [one.future.result(30) for one in jobs] == [1, 2, 3, 4, 5]
    assert run.lists == [["first"], [1, 3, 5], [2, 4]]
    queue.close(30)


def test_lists_are_no_longer_than_allowed() -> None:
    run = Gated()
    jobs = [job(i, examples=3) for i in range(5)]
    queue = behind_a_first_one(run, jobs, most=7)
    run.open.set()
    assert [one.future.result(30) for one in jobs] == [0, 1, 2, 3, 4]
    assert run.lists[1:] == [[0, 1], [2, 3], [4]]
    queue.close(30)


def test_a_request_larger_than_a_list_is_computed_by_itself() -> None:
    run = Gated()
    run.open.set()
    queue = queue_of(run, most=1)
    large = job("large", examples=10)
    queue.submit(large)
    assert large.future.result(30) == "large"
    queue.close(30)


def test_a_full_queue_refuses() -> None:
    run = Gated()
    queue = behind_a_first_one(run, [job(1), job(2)], waiting=2)
    with pytest.raises(RequestError, match="2 requests wait already") as refused:
        queue.submit(job(3))
    assert refused.value.status == 429
    assert refused.value.retry_after is not None
    run.open.set()
    queue.close(30)
    assert run.lists[1:] == [[1, 2]]


def test_who_leaves_is_not_computed() -> None:
    run = Gated()
    jobs = [job(1), job(2)]
    queue = behind_a_first_one(run, jobs)
    queue.abandon(jobs[0])
    queue.abandon(jobs[0])
    assert queue.waiting == 1
    run.open.set()
    assert jobs[1].future.result(30) == 2
    assert run.lists[1:] == [[2]]
    queue.close(30)


def test_the_work_stops_when_all_have_left_and_not_before() -> None:
    first, rest = threading.Event(), Gated()

    def run(together: Together) -> Sequence[Any]:
        if together.jobs[0].work == "first":
            first.wait(30)
            return ["first"]
        return rest(together)

    queue = queue_of(run)
    opening, jobs = job("first", "other"), [job(1), job(2)]
    for one in (opening, *jobs):
        queue.submit(one)
    first.set()
    assert rest.begun.wait(30)
    assert rest.lists == [[1, 2]]
    queue.abandon(jobs[0])
    assert not rest.given[0].token.cancelled
    queue.abandon(jobs[1])
    assert rest.given[0].token.cancelled
    rest.open.set()
    queue.close(30)


def test_jobs_that_are_too_late_are_told_so() -> None:
    run = Gated()
    late, early = job(1, seconds=0.0), job(2)
    queue = behind_a_first_one(run, [late, early])
    run.open.set()
    with pytest.raises(RequestError, match="deadline") as refused:
        late.future.result(30)
    assert refused.value.status == 504
    assert early.future.result(30) == 2
    assert run.lists[1:] == [[2]]
    queue.close(30)


def test_one_bad_job_does_not_spoil_the_others() -> None:
    def compute(work: Any) -> Any:
        if work == "bad":
            raise InputError("this one is bad")
        return work

    run = Gated(compute)
    jobs = [job(1), job("bad"), job(3)]
    queue = behind_a_first_one(run, jobs)
    run.open.set()
    assert [jobs[0].future.result(30), jobs[2].future.result(30)] == [1, 3]
    with pytest.raises(RequestError, match="this one is bad") as refused:
        jobs[1].future.result(30)
    assert refused.value.status == 400
    queue.close(30)


def test_a_worker_outlives_what_nobody_foresaw() -> None:
    def compute(work: Any) -> Any:
        if work == "bad":
            raise ZeroDivisionError("secret")
        return work

    run = Gated(compute)
    run.open.set()
    queue = queue_of(run)
    bad, good = job("bad"), job("good", "b")
    queue.submit(bad)
    with pytest.raises(RequestError) as refused:
        bad.future.result(30)
    assert refused.value.status == 500
    assert "secret" not in refused.value.message
    queue.submit(good)
    assert good.future.result(30) == "good"
    queue.close(30)


def test_closing_finishes_what_was_taken() -> None:
    run = Gated()
    jobs = [job(i) for i in range(4)]
    queue = behind_a_first_one(run, jobs, most=1)
    closing = threading.Thread(target=queue.close)
    closing.start()
    refused = None
    while refused is None:
        try:
            queue.submit(job(9, "late"))
        except RequestError as error:
            refused = error
    assert refused.status == 503
    run.open.set()
    closing.join(30)
    assert [one.future.result(0) for one in jobs] == [0, 1, 2, 3]
