"""Many threads at one session: shared chunks, turns, the queue, deadlines and cancellation."""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from busy_engine import (
    FOREVER,
    LONG,
    PATIENCE,
    Callers,
    blocked,
    loop_engine,
    loop_requests,
    one_row,
    until,
)
from toy_graph import Toy, assert_same, random_plan, toy, with_lookup, with_loop

import igonnx
from igonnx import CancelledError, CancelToken, DeadlineError, EngineError, InputError
from igonnx.engine import Requests, RowPlan
from igonnx.engine.control import CallControl, call_control
from igonnx.engine.native import NativeEngine
from igonnx.engine.workers import Workers

# -- shared chunks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize("fixed_rows", [None, 16])
def test_waiting_callers_share_a_run(dtype: type, tolerance: float, fixed_rows: int | None) -> None:
    model = with_loop(toy(dtype, {"left": (5,), "right": (2, 2)}, fixed_rows=fixed_rows))
    engine = loop_engine(model)
    plan = RowPlan(np.array([0, 2, 2]), np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.3, 0.5]))
    requests = [loop_requests(model, 3, seed=seed) for seed in range(5)]
    with ThreadPoolExecutor(5) as pool:
        callers = Callers(engine, pool)
        with blocked(engine, model) as release:
            calls = [callers.queue(each, plan, batch_size=16) for each in requests]
            before = engine._session.runs
            release()
            results = [call.result(PATIENCE) for call in calls]
    assert engine._session.runs == before + 2  # the one that was cancelled, and one for all
    assert engine._session.shared_runs == 1
    for each, result in zip(requests, results, strict=True):
        assert_same(result, model.expected(each, plan), tolerance)


def test_chunks_are_filled_up() -> None:
    model = with_loop(toy(np.float64))
    engine = loop_engine(model)
    plans = [random_plan(2, rows, seed=rows) for rows in (5, 6, 7, 8)]  # 26 rows: 7 chunks of 4
    with ThreadPoolExecutor(4) as pool:
        callers = Callers(engine, pool)
        with blocked(engine, model) as release:
            requests = loop_requests(model, 2)
            calls = [callers.queue(requests, plan, batch_size=4) for plan in plans]
            before = engine._session.runs
            release()
            for plan, call in zip(plans, calls, strict=True):
                assert_same(call.result(PATIENCE), model.expected(requests, plan), 1e-14)
    assert engine._session.runs == before + 1 + 7


def test_the_smallest_batch_size_of_those_who_share_holds() -> None:
    model = with_loop(toy(np.float64))
    engine = loop_engine(model)
    with ThreadPoolExecutor(2) as pool:
        callers = Callers(engine, pool)
        with blocked(engine, model) as release:
            requests = loop_requests(model, 1)
            calls = [
                callers.queue(requests, random_plan(1, 3), batch_size=size) for size in (64, 4)
            ]
            before = engine._session.runs
            release()
            for call in calls:
                assert_same(
                    call.result(PATIENCE), model.expected(requests, random_plan(1, 3)), 1e-14
                )
    assert engine._session.runs == before + 1 + 2  # 4 and 2 rows


@pytest.mark.parametrize("what", ["shared input", "trailing shape"])
def test_callers_that_do_not_fit_do_not_share(what: str) -> None:
    model = with_loop(toy(np.float64))
    if what == "trailing shape":  # a second tensor, of any length, that the result does not need
        value = model.model.graph.input.add()
        value.CopyFrom(
            onnx.helper.make_tensor_value_info("extra", onnx.TensorProto.FLOAT, ["R", "L"])
        )
    batched = ("scale", "turns", "extra") if what == "trailing shape" else ("scale", "turns")
    engine = model.engine(batched=batched, workers=Workers(1))

    def with_extra(requests: Requests, length: int) -> Requests:
        extra = {"extra": np.zeros((1, length), np.float32)}
        return replace(requests, batched={**requests.batched, **extra})

    first, second = loop_requests(model, 1), loop_requests(model, 1)
    busy = loop_requests(model, 1, FOREVER)
    if what == "trailing shape":
        first, second, busy = with_extra(first, 2), with_extra(second, 3), with_extra(busy, 1)
    else:
        second = replace(second, shared={"gate": np.array([False, True, True])})
    token = CancelToken()
    with ThreadPoolExecutor(3) as pool:
        callers = Callers(engine, pool)
        blocker = callers.queue(busy, one_row(), batch_size=1, control=CallControl(token=token))
        calls = [callers.queue(each, one_row(), batch_size=8) for each in (first, second)]
        token.cancel()
        for each, call in zip((first, second), calls, strict=True):
            assert_same(call.result(PATIENCE), model.expected(each, one_row()), 1e-14)
        assert isinstance(blocker.exception(PATIENCE), CancelledError)
    assert (engine._session.runs, engine._session.shared_runs) == (3, 0)


def test_a_lone_caller_runs_as_ever() -> None:
    model = toy(np.float64)
    engine, requests, plan = model.engine(threads=1), model.requests(3), random_plan(3, 10)
    for _ in range(3):
        engine.run(requests, plan, batch_size=4)
    session = engine._session
    assert (session.runs, session.shared_runs, session.calls) == (9, 0, 0)


def test_calls_take_turns() -> None:
    model = with_loop(toy(np.float64))
    engine = loop_engine(model)
    done: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        callers = Callers(engine, pool)
        with blocked(engine, model) as release:
            requests = loop_requests(model, 1)
            long = callers.queue(
                requests,
                random_plan(1, 5000),
                batch_size=1,
                progress=lambda rows, _: done.append(rows),
            )
            short = callers.queue(requests, random_plan(1, 5), batch_size=1)
            short.add_done_callback(lambda _: done.append(-1))
            release()
            long.result(PATIENCE)
            short.result(PATIENCE)
    assert done.index(-1) < 2500
    assert done[-1] == 5000


def test_two_runs_at_once() -> None:
    model = with_loop(toy(np.float64))
    engine = model.engine(batched=("scale", "turns"), workers=Workers(1, runs_at_once=2))
    with blocked(engine, model):
        # A full chunk runs beside the one that does not end; a chunk that is not full would wait.
        requests, plan = loop_requests(model, 2), random_plan(2, 8)
        assert_same(engine.run(requests, plan, batch_size=4), model.expected(requests, plan), 1e-14)


# -- deadlines and cancellation --------------------------------------------------------------------


@pytest.mark.parametrize("queue_limit", [None, 1])
@pytest.mark.parametrize("lanes", [1, 2])
def test_a_deadline_ends_a_run(lanes: int, queue_limit: int | None) -> None:
    model = with_loop(toy(np.float64))
    engine = model.engine(
        batched=("scale", "turns"), workers=Workers(1, lanes, lanes), queue_limit=queue_limit
    )
    plan = random_plan(1, 6)
    with pytest.raises(DeadlineError, match=r"^toy: the deadline passed with 0 of 6 rows done$"):
        engine.run(
            loop_requests(model, 1, FOREVER), plan, batch_size=2, control=call_control(0.05, None)
        )
    requests = loop_requests(model, 1)
    result = engine.run(requests, plan, batch_size=2, control=call_control(PATIENCE, None))
    assert_same(result, model.expected(requests, plan), 1e-14)


def test_a_deadline_that_has_passed() -> None:
    model = toy()
    engine = model.engine()
    with pytest.raises(DeadlineError, match=r"^toy: the deadline passed with 0 of 5 rows done$"):
        engine.run(
            model.requests(1), random_plan(1, 5), batch_size=2, control=CallControl(deadline=0.0)
        )
    assert engine._session.runs == 0


@pytest.mark.parametrize("kind", [CancelToken, threading.Event])
def test_cancelling_ends_a_run(kind: Callable[[], Any]) -> None:
    model = with_loop(toy(np.float64))
    engine, switch = loop_engine(model), kind()
    timer = threading.Timer(0.1, switch.cancel if isinstance(switch, CancelToken) else switch.set)
    timer.start()
    with pytest.raises(CancelledError, match=r"^toy: cancelled with 0 of 1 rows done$"):
        engine.run(
            loop_requests(model, 1, FOREVER),
            one_row(),
            batch_size=1,
            control=call_control(None, switch),
        )
    timer.join()
    with pytest.raises(CancelledError):  # it stays cancelled
        engine.run(
            loop_requests(model, 1),
            one_row(),
            batch_size=1,
            control=call_control(None, switch),
        )


def test_who_gives_up_does_not_harm_who_shares_the_run() -> None:
    model = with_loop(toy(np.float64))
    engine, token = loop_engine(model), CancelToken()
    with ThreadPoolExecutor(2) as pool:
        callers = Callers(engine, pool)
        with blocked(engine, model) as release:
            slow = loop_requests(model, 1, 3_000_000)  # a second or two, which both have to wait
            stays = callers.queue(slow, one_row(), batch_size=2)  # first in line: it leads
            leaves = callers.queue(
                loop_requests(model, 1, seed=1),
                one_row(),
                batch_size=2,
                control=CallControl(token=token),
            )
            before = engine._session.runs
            release()
            until(lambda: engine._session.runs == before + 1)
            time.sleep(0.05)  # the shared run has begun
            token.cancel()
            assert isinstance(leaves.exception(PATIENCE), CancelledError)
            assert not stays.done()
            assert_same(stays.result(PATIENCE), model.expected(slow, one_row()), 1e-14)
    assert engine._session.shared_runs == 1


def test_a_full_queue_makes_calls_wait() -> None:
    model = with_loop(toy(np.float64))
    engine = loop_engine(model, queue_limit=1)
    requests = loop_requests(model, 1)
    with ThreadPoolExecutor(1) as pool:
        callers = Callers(engine, pool)
        with blocked(engine, model) as release:
            patient = callers.queue(requests, one_row(), batch_size=1)
            message = r"^toy: the deadline passed in the queue, which is full at 1 calls$"
            with pytest.raises(DeadlineError, match=message):
                engine.run(requests, one_row(), batch_size=1, control=call_control(0.05, None))
            assert not patient.done()
            release()
            assert_same(patient.result(PATIENCE), model.expected(requests, one_row()), 1e-14)
    assert engine._session.calls == 0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
def test_a_signal_reaches_a_call_that_waits() -> None:
    class AlarmError(Exception):
        pass

    def handler(_number: int, _frame: object) -> None:
        raise AlarmError

    model = with_loop(toy(np.float64))
    engine = loop_engine(model)
    previous = signal.signal(signal.SIGALRM, handler)
    try:
        with blocked(engine, model):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(AlarmError):
                engine.run(loop_requests(model, 1), one_row(), batch_size=1)
            assert engine._session.calls == 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_an_exception_of_progress_concerns_its_call_alone() -> None:
    model = with_loop(toy(np.float64))
    engine = loop_engine(model)
    plan, requests = random_plan(2, 12), loop_requests(model, 2)

    def stop(_done: int, _total: int) -> None:
        raise KeyError("enough")

    with ThreadPoolExecutor(4) as pool:
        callers = Callers(engine, pool)
        with blocked(engine, model) as release:
            bad = [callers.queue(requests, plan, batch_size=8, progress=stop) for _ in range(2)]
            good = [callers.queue(requests, plan, batch_size=8) for _ in range(2)]
            release()
            for call in bad:
                with pytest.raises(KeyError, match="enough"):
                    call.result(PATIENCE)
            for call in good:
                assert_same(call.result(PATIENCE), model.expected(requests, plan), 1e-14)


# -- everything at once ----------------------------------------------------------------------------


class Storm:
    """A thread's worth of calls of all kinds; what each must give is known."""

    def __init__(self, model: Toy, engine: NativeEngine, seed: int) -> None:
        self.model, self.engine = model, engine
        self.rng = random.Random(seed)

    def run(self, calls: int) -> dict[str, int]:
        seen: dict[str, int] = {}
        for _ in range(calls):
            kind = self.rng.choice(["plain", "plain", "cancel", "deadline", "fault", "stop"])
            seen[kind] = seen.get(kind, 0) + getattr(self, kind)()
        return seen

    def call(self, turns: int = 1, scale: int | None = None, **options: Any) -> None:
        count = self.rng.randint(1, 4)
        requests = loop_requests(self.model, count, turns, self.rng.randint(0, 9))
        if scale is not None:
            requests.batched["scale"][self.rng.randrange(count)] = scale  # type: ignore[index]
        if self.rng.random() < 0.3:
            requests = replace(requests, shared={"gate": np.array([False, True, True])})
        if scale is not None:  # every request has rows
            row = np.repeat(np.arange(count), 3)
            plan = RowPlan(row, np.linspace(0, 1, len(row)), np.ones(len(row)))
        else:
            plan = random_plan(count, self.rng.randint(1, 30), self.rng.randint(0, 9))
        result = self.engine.run(
            requests, plan, batch_size=self.rng.choice([1, 4, 8, 16]), **options
        )
        assert_same(result, self.model.expected(requests, plan), 1e-13)

    def plain(self) -> int:
        done: list[tuple[int, int]] = []
        self.call(progress=(lambda *args: done.append(args)) if self.rng.random() < 0.5 else None)
        assert done == sorted(set(done))
        return 1

    def cancel(self) -> int:
        token = CancelToken()
        timer = threading.Timer(self.rng.random() * 0.01, token.cancel)
        timer.start()
        try:
            self.call(LONG, control=CallControl(token=token))
        except CancelledError:
            return 1
        finally:
            timer.join()
        return 0

    def deadline(self) -> int:
        try:
            self.call(LONG, control=call_control(0.001 + self.rng.random() * 0.01, None))
        except DeadlineError:
            return 1
        return 0

    def fault(self) -> int:
        with pytest.raises(EngineError, match=r"^toy: rows \d+\.\.\d+: .*look_up"):
            self.call(scale=7)
        return 1

    def stop(self) -> int:
        def stop(_done: int, _total: int) -> None:
            raise KeyError

        with pytest.raises(KeyError):
            self.call(progress=stop)
        return 1


@pytest.mark.parametrize(
    ("lanes", "runs_at_once", "queue_limit"),
    [(1, 1, None), (1, 2, None), (1, 2, 3), (2, 2, None), (3, 2, 2), (2, 4, 1)],
)
def test_calls_of_all_kinds_at_once(lanes: int, runs_at_once: int, queue_limit: int | None) -> None:
    model = with_loop(with_lookup(toy(np.float64)))
    engine = model.engine(
        batched=("scale", "turns"),
        workers=Workers(1, lanes, runs_at_once),
        queue_limit=queue_limit,
    )
    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(Storm(model, engine, seed).run, 40) for seed in range(6)]
        seen = [call.result(10 * PATIENCE) for call in calls]
    for kind in ("plain", "cancel", "deadline", "fault", "stop"):
        assert sum(each.get(kind, 0) for each in seen) > 0, kind
    assert engine._session.calls == 0
    assert engine._session.shared_runs > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow() -> None:
    model = toy()
    engine = model.engine(threads=1)
    requests, plan = model.requests(4), random_plan(4, 16)

    def calls(count: int) -> None:
        for _ in range(count):
            engine.run(requests, plan, batch_size=8, control=call_control(PATIENCE, CancelToken()))

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    def burst(count: int) -> None:
        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(calls, count) for _ in range(4)]:
                future.result(10 * PATIENCE)

    burst(250)
    before = resident()
    burst(1000)
    assert resident() - before < 4 << 20  # a kilobyte per call would show


# -- through Explainer -----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_an_explainer_that_is_told_to_stop(mlp: onnx.ModelProto, engine: str) -> None:
    explainer = igonnx.Explainer(mlp, engine=engine, batch_size=1)
    x = np.ones((1, 6), np.float32)
    explainer.integrated_gradients(x, steps=4)
    with pytest.raises(DeadlineError, match=r"the deadline passed with \d+ of \d+ rows done$"):
        explainer.integrated_gradients(x, steps=1_000_000, rule="middle", timeout=0.5)
    token = CancelToken()

    def cancel(_done: int, _total: int) -> None:
        token.cancel()

    with pytest.raises(CancelledError, match=r"cancelled with [1-9]\d* of \d+ rows done$"):
        explainer.integrated_gradients(x, cancel=token, progress=cancel)
    event = threading.Event()
    event.set()
    with pytest.raises(CancelledError, match=r"cancelled before the first run$"):
        explainer.integrated_gradients(x, cancel=event)
    free = explainer.integrated_gradients(x, timeout=PATIENCE, cancel=threading.Event())
    np.testing.assert_array_equal(free.values, explainer.integrated_gradients(x).values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "timeout is 0; expected seconds above 0, or None"),
        ({"timeout": float("nan")}, "timeout is nan; expected seconds above 0, or None"),
        ({"timeout": "1"}, "timeout is '1'; expected seconds above 0, or None"),
        ({"timeout": True}, "timeout is True; expected seconds above 0, or None"),
        ({"cancel": 3}, "cancel is 3; expected an igonnx.CancelToken or a threading.Event"),
    ],
)
def test_wrong_options(mlp: onnx.ModelProto, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        igonnx.Explainer(mlp).integrated_gradients(np.ones((1, 6), np.float32), **options)
    assert str(caught.value) == message


def test_a_wrong_queue_limit(mlp: onnx.ModelProto) -> None:
    with pytest.raises(InputError, match=r"^queue_limit is 0; expected a whole number from 1 to "):
        igonnx.Explainer(mlp, queue_limit=0)


def test_a_deadline_is_a_timeout() -> None:
    assert issubclass(DeadlineError, TimeoutError)
    assert issubclass(CancelledError, EngineError)
