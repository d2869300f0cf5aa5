"""Rows of one call in several lanes: the same result, and one call to the outside."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import numpy as np
import pytest
from busy_engine import FOREVER, PATIENCE, loop_requests
from toy_graph import assert_same, random_plan, toy, with_lookup, with_loop

from igonnx import CancelToken
from igonnx.engine import workers
from igonnx.engine.control import call_control
from igonnx.engine.plan import RowPlan, RowResult
from igonnx.engine.workers import Workers, physical_cores, shared_out
from igonnx.errors import CancelledError, EngineError

LANES = [Workers(1, lanes, lanes) for lanes in (2, 3, 8)]


@pytest.mark.parametrize("shared", LANES)
@pytest.mark.parametrize(("requests", "rows"), [(1, 1), (1, 2), (1, 17), (2, 9), (5, 23), (20, 61)])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_result_is_that_of_one_lane(
    shared: Workers, requests: int, rows: int, batch_size: int
) -> None:
    model = toy(np.float64)
    arrays, plan = model.requests(requests), random_plan(requests, rows)
    found = model.engine(workers=shared).run(arrays, plan, batch_size=batch_size)
    assert_same(found, model.expected(arrays, plan), 1e-14)


def test_every_run_gives_the_same_bits() -> None:
    model = toy()
    engine = model.engine(workers=Workers(1, 3, 3))
    arrays, plan = model.requests(2), random_plan(2, 40)
    first, *others = (engine.run(arrays, plan, batch_size=2) for _ in range(20))

    def bits(result: RowResult) -> list[bytes]:
        return [a.tobytes() for a in (*result.weighted_gradient.values(), result.score)]

    assert all(bits(other) == bits(first) for other in others)


def test_a_fixed_number_of_rows() -> None:
    model = toy(np.float64, fixed_rows=4)
    arrays, plan = model.requests(3), random_plan(3, 30)
    found = model.engine(workers=Workers(1, 2, 2)).run(arrays, plan, batch_size=1)
    assert_same(found, model.expected(arrays, plan), 1e-14)


def test_progress_is_of_the_whole_call() -> None:
    model = toy()
    told: list[tuple[int, int]] = []
    model.engine(workers=Workers(1, 4, 4)).run(
        model.requests(2),
        random_plan(2, 50),
        batch_size=1,
        progress=lambda done, total: told.append((done, total)),
    )
    done = [rows for rows, _ in told]
    assert done == sorted(set(done))
    assert done[-1] == 50
    assert {total for _, total in told} == {50}


def test_an_exception_of_progress_stops_all_lanes() -> None:
    model = toy()
    engine = model.engine(workers=Workers(1, 3, 3))

    def stop(_done: int, _total: int) -> None:
        raise KeyError("enough")

    arrays, plan = model.requests(2), random_plan(2, 4000)
    with pytest.raises(KeyError, match="enough"):
        engine.run(arrays, plan, batch_size=1, progress=stop)
    assert engine._session.calls == 0
    assert_same(engine.run(arrays, plan, batch_size=8), model.expected(arrays, plan), 2e-6)


def test_a_token_ends_all_lanes() -> None:
    model = with_loop(toy(np.float64))
    engine = model.engine(batched=("scale", "turns"), workers=Workers(1, 2, 2))
    token = CancelToken()
    token.cancel()
    control = call_control(None, token)
    with pytest.raises(CancelledError, match=r"^toy: cancelled with 0 of 6 rows done$"):
        engine.run(
            loop_requests(model, 1, FOREVER), random_plan(1, 6), batch_size=1, control=control
        )


def test_a_token_cancelled_in_the_midst_ends_all_lanes() -> None:
    """Both lanes are in a run then; neither begins another."""
    model = with_loop(toy(np.float64))
    engine = model.engine(batched=("scale", "turns"), workers=Workers(1, 2, 2))
    token = CancelToken()
    timer = threading.Timer(0.1, token.cancel)
    timer.start()
    with pytest.raises(CancelledError, match=r"^toy: cancelled with 0 of 40 rows done$"):
        engine.run(
            loop_requests(model, 1, FOREVER),
            random_plan(1, 40),
            batch_size=1,
            control=call_control(PATIENCE, token),
        )
    timer.join()
    assert engine._session.runs <= 2
    assert engine._session.calls == 0
    requests, plan = loop_requests(model, 1), random_plan(1, 6)
    assert_same(engine.run(requests, plan, batch_size=1), model.expected(requests, plan), 1e-14)


def test_a_failure_in_one_lane_names_its_rows_and_ends_the_others() -> None:
    model = with_lookup(toy())
    engine = model.engine(workers=Workers(1, 4, 4))
    arrays, plan = model.requests(8), random_plan(8, 40)
    scale = np.zeros_like(arrays.batched["scale"])
    scale[6] = 4
    row = np.flatnonzero(plan.row == 6)[0]
    with pytest.raises(EngineError, match=rf"rows {row}\.\.{row}: "):
        engine.run(replace(arrays, batched={"scale": scale}), plan, batch_size=1)
    assert engine._session.calls == 0


def test_a_failure_in_one_lane_ends_a_run_of_another() -> None:
    """The second lane would be in its first run until the deadline."""
    model = with_loop(with_lookup(toy(np.float64)))
    engine = model.engine(batched=("scale", "turns"), workers=Workers(1, 2, 2))
    arrays = loop_requests(model, 2)
    arrays.batched["scale"][0] = 9
    arrays.batched["turns"][1] = FOREVER
    plan = RowPlan(np.repeat([0, 1], 20), np.linspace(0, 1, 40), np.ones(40))
    with pytest.raises(EngineError, match=r"^toy: rows 0\.\.0: .*look_up"):
        engine.run(arrays, plan, batch_size=1, control=call_control(PATIENCE, None))
    assert engine._session.runs <= 2
    assert engine._session.calls == 0


@pytest.mark.parametrize(
    ("threads", "cores", "expected"),
    [
        (None, 2, Workers(1, 2, 2)),
        (None, 64, Workers(8, 8, 8)),
        (1, 8, Workers(1, 1, 8)),
        (3, 8, Workers(1, 3, 8)),
        (16, 16, Workers(2, 8, 8)),
        (20, 4, Workers(2, 8, 8)),
    ],
)
def test_threads_are_shared_out_among_rows_first(
    monkeypatch: pytest.MonkeyPatch, threads: int | None, cores: int, expected: Workers
) -> None:
    monkeypatch.setattr(workers, "physical_cores", lambda: cores)
    assert shared_out(threads) == expected


def test_this_machine_has_cores() -> None:
    assert 1 <= physical_cores() <= (os.cpu_count() or 1)
