"""The runtime fails in a run: the call that is to blame gets an error, everything else goes on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from busy_engine import PATIENCE, Callers, blocked, loop_engine, loop_requests
from onnx import helper, numpy_helper
from toy_graph import assert_same, random_plan, toy, with_lookup, with_loop

import igonnx
from igonnx import EngineError
from igonnx.engine import RowPlan
from igonnx.engine.runtime import CPU, RuntimeSession

RealSession = onnxruntime.InferenceSession


def test_a_failure_leaves_the_engine_usable() -> None:
    model = with_lookup(toy(np.float64))
    engine, requests, plan = model.engine(), model.requests(2), random_plan(2, 9)
    bad = replace(requests, batched={"scale": np.array([1, 9])})
    first = int(np.flatnonzero(plan.row == 1)[0]) // 2 * 2  # of the first chunk that has such a row
    for _ in range(2):
        with pytest.raises(EngineError, match=rf"^toy: rows {first}\.\.{first + 1}: .*look_up"):
            engine.run(bad, plan, batch_size=2)
        assert_same(engine.run(requests, plan, batch_size=2), model.expected(requests, plan), 1e-14)


@pytest.mark.parametrize("fixed_rows", [None, 8])
def test_a_failure_in_a_shared_run_concerns_its_caller_alone(fixed_rows: int | None) -> None:
    model = with_loop(with_lookup(toy(np.float64, fixed_rows=fixed_rows)))
    engine, plan = loop_engine(model), RowPlan(np.array([0, 1]), np.array([0.2, 0.7]), np.ones(2))
    requests = [loop_requests(model, 2, seed=seed) for seed in range(4)]
    requests[2].batched["scale"][1] = 8
    with ThreadPoolExecutor(4) as pool:
        callers = Callers(engine, pool)
        with blocked(engine, model) as release:
            calls = [callers.queue(each, plan, batch_size=8) for each in requests]
            before = engine._session.runs
            release()
            for i, (each, call) in enumerate(zip(requests, calls, strict=True)):
                if i == 2:
                    with pytest.raises(EngineError, match=r"^toy: rows 0\.\.1: .*look_up"):
                        call.result(PATIENCE)
                else:
                    assert_same(call.result(PATIENCE), model.expected(each, plan), 1e-14)
    assert engine._session.runs == before + 1 + 1 + 4  # the blocker, all together, one by one
    assert engine._session.shared_runs == 1


def test_an_explainer_survives_a_model_that_fails(
    model: Callable[..., onnx.ModelProto],
) -> None:
    """Its Gather takes its index from another input, which may lie outside the table."""
    explainer = igonnx.Explainer(
        model(
            """(float[N, 3] x, int64[N] index) => (float[N, 2] y) {
                row = Gather(table, index)
                z = Mul(x, row)
                t = Tanh(z)
                y = MatMul(t, w)
            }""",
            {
                "table": np.arange(12, dtype=np.float32).reshape(4, 3) / 12,
                "w": np.ones((3, 2), np.float32),
            },
        ),
        wrt="x",
        batch_size=4,
    )
    x = np.full((2, 3), 0.5, np.float32)
    good = {"x": x, "index": np.array([1, 3])}
    before = explainer.integrated_gradients(good, target=0)
    with pytest.raises(EngineError, match=r"indices element out of data bounds, idx=4"):
        explainer.integrated_gradients({"x": x, "index": np.array([1, 4])}, target=0)
    after = explainer.integrated_gradients(good, target=0)
    np.testing.assert_array_equal(before.values, after.values)


def test_a_provider_that_does_not_start_is_not_passed_over(
    mlp: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime itself would warn and go on with the CPU."""
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["AbsentExecutionProvider", CPU]
    )
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda model, options, providers: RealSession(model, options, providers=[CPU]),
    )
    with pytest.raises(EngineError, match=r"onnxruntime could not start AbsentExecutionProvider: "):
        RuntimeSession(mlp.SerializeToString(), name="mlp", providers="AbsentExecutionProvider")


# -- memory that runs out --------------------------------------------------------------------------

PER_ROW = 32 << 20  # bytes of an intermediate tensor of the toy model

OUT_OF_MEMORY = """
    import resource, sys
    import numpy as np
    sys.path.insert(0, {tests!r})
    from dataclasses import replace
    import onnx
    from toy_graph import assert_same, random_plan, toy
    from igonnx.errors import EngineError

    model = replace(toy(np.float64), model=onnx.load({path!r}))
    engine = model.engine(threads=1)
    requests, plan = model.requests(3), random_plan(3, 40)
    small = random_plan(3, 3)
    # Before there is a limit: OpenBLAS ends the process if it cannot have its buffers.
    np.linalg.inv(np.ones((64, 64)) @ np.ones((64, 64)) + np.eye(64))
    expected, few_expected = model.expected(requests, plan), model.expected(requests, small)
    if {warm}:  # else the first run has to ask for all it needs
        engine.run(requests, small, batch_size=1)

    def leave(room):
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + room, resource.RLIM_INFINITY))

    results = []
    leave({room})
    try:
        for _ in range(2):
            calls = []
            result = engine.run(
                requests, plan, batch_size=32, progress=lambda done, _: calls.append(done)
            )
            results.append((result, engine.row_limit, calls[0], calls[-1]))
    except EngineError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for result, *numbers in results:
        assert_same(result, expected, 1e-13)
        print(*numbers)
    assert_same(engine.run(requests, small, batch_size=1), few_expected, 1e-13)
    print("usable")
"""

# What others take of the address space as they please: buffers per thread, heaps per thread.
SPARING = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}


def run_with_little_memory(folder: Path, room: int, per_row: int, warm: bool) -> list[str]:
    """Lines printed by a process whose model needs `per_row` bytes for each row, and which may take `room` more."""
    model = toy(np.float64).model
    for node in model.graph.node:
        for i, name in enumerate(node.output):
            if name == "score":
                node.output[i] = "raw"
    column = [
        helper.make_node("Unsqueeze", ["raw", "axis1"], ["column"]),
        helper.make_node("Mul", ["column", "zeros"], ["wide"]),  # [B, per_row / 8]
        helper.make_node("Neg", ["wide"], ["also_wide"]),
        helper.make_node("ReduceMax", ["also_wide"], ["nothing"], axes=[1], keepdims=0),
        helper.make_node("Add", ["raw", "nothing"], ["score"]),
    ]
    model.graph.node.extend(column)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, per_row // 8)), "zeros"))
    path = folder / "wide.onnx"
    onnx.save(model, path)
    code = textwrap.dedent(OUT_OF_MEMORY).format(
        tests=str(Path(__file__).parent), path=str(path), room=room, warm=warm
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | SPARING,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space")
def test_memory_that_runs_out_halves_the_chunk(tmp_path: Path) -> None:
    # 32 rows want 1 GB, twice; there are 300 MB.
    *calls, last = run_with_little_memory(tmp_path, 300 << 20, PER_ROW, warm=True)
    assert last == "usable"
    assert len(calls) == 2
    limits = [[int(number) for number in line.split()] for line in calls]
    for limit, first, end in limits:
        assert limit in (1, 2, 4, 8)
        assert first == limit
        assert end == 40
    assert limits[0] == limits[1]  # it is remembered


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space")
def test_memory_that_does_not_suffice_for_one_row(tmp_path: Path) -> None:
    message, last = run_with_little_memory(tmp_path, 60 << 20, 3 * PER_ROW, warm=False)
    assert re.match(r"toy: rows 0\.\.0: .*(allocate memory|bad_alloc)", message)
    assert last == "usable"
