"""How many rows run at once: tried out on the work itself, remembered, within the memory limit."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import igonnx
from igonnx import CancelToken, user_cache
from igonnx.engine import Requests, RowPlan, RowResult, calibration
from igonnx.engine.calibration import CHUNKS, CalibratedEngine
from igonnx.engine.control import CallControl
from igonnx.model import Model
from igonnx.working_memory import fingerprint, working_memory

Build = Callable[..., onnx.ModelProto]


class Machine:
    """An engine and a clock: a chunk of s rows takes `seconds(s)`, and nothing else takes time.

    The gradient of request r at alpha is alpha (r + 1), so that sums tell whether each row was run once.
    """

    def __init__(self, seconds: Callable[[int], float], lanes: int = 1) -> None:
        self.seconds = seconds
        self.lanes = lanes
        self.now = 0.0
        self.chunks: list[int] = []
        self.controls: list[CallControl] = []
        self.between_chunks: Callable[[], None] = lambda: None

    def run(
        self,
        requests: Requests,
        plan: RowPlan,
        *,
        batch_size: int,
        progress: Any = None,
        control: CallControl | None = None,
    ) -> RowResult:
        self.controls.append(control or CallControl())
        total = len(plan.row)
        number = requests.batched["number"][plan.row]
        score = plan.alpha * number
        sums = np.zeros(requests.x["image"].shape)
        np.add.at(sums, plan.row, (plan.weight * score)[:, None])
        for start in range(0, total, batch_size):
            count = min(batch_size, total - start)
            self.chunks.append(count)
            self.now += self.seconds(count)
            self.between_chunks()
            if progress is not None:
                progress(start + count, total)
        return RowResult({"image": sums}, score, -score)


def requests(count: int = 1, length: int = 5) -> Requests:
    zeros = np.zeros((count, length), np.float32)
    return Requests(
        x={"image": zeros},
        baseline={"image": zeros},
        batched={"number": np.arange(1.0, count + 1)},
        shared={},
        cotangent=np.ones((count, 2), np.float32),
    )


def plan(rows: int, count: int = 1) -> RowPlan:
    rng = np.random.default_rng(0)
    return RowPlan(np.sort(rng.integers(0, count, rows)), rng.random(rows), rng.random(rows))


@pytest.fixture
def calibrated(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[CalibratedEngine, Machine]]:
    def make(
        seconds: Callable[[int], float],
        *,
        limit: int | None = None,
        each: int = 100,
        usual: int | None = calibration.USUAL_CHUNK,
        **key: Any,
    ) -> tuple[CalibratedEngine, Machine]:
        machine = Machine(seconds)
        monkeypatch.setattr(calibration.time, "perf_counter", lambda: machine.now)
        engine = CalibratedEngine(
            machine,
            bytes_per_row=lambda shapes: each,
            memory_limit=limit,
            usual_chunk=usual,
            key=key,
        )
        return engine, machine

    return make


def per_row(**seconds: float) -> Callable[[int], float]:
    """A chunk's seconds from those per row, s1=, s2=, ...; sizes in between as the next larger one."""
    table = {int(name[1:]): value for name, value in seconds.items()}

    def of(size: int) -> float:
        return size * table[min((known for known in table if known >= size), default=max(table))]

    return of


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        (per_row(s1=10, s2=9, s4=12), 2),
        (per_row(s1=10, s2=9.95, s4=9.9, s8=12), 1),  # not worth the memory
        (per_row(s1=10, s2=10.5, s4=8, s8=9), 4),  # slower before it gets faster
        (per_row(s1=1, s2=2), 1),
        (lambda size: 50 + size, 256),  # a fixed cost per chunk
    ],
)
def test_the_best_size_is_found(calibrated: Any, seconds: Any, best: int) -> None:
    engine, machine = calibrated(seconds)
    engine.run(requests(), plan(3000), batch_size=7)
    assert engine.rows_at_once(requests()) == best
    tried = len(machine.chunks)
    engine.run(requests(), plan(3000), batch_size=7)
    assert set(machine.chunks[tried:-1]) == {best}


@pytest.mark.parametrize("count", [1, 3, 50])
@pytest.mark.parametrize("rows", [1, 39, 40, 41, 100, 1001])
def test_every_row_is_run_once(calibrated: Any, rows: int, count: int) -> None:
    engine, machine = calibrated(per_row(s1=4, s2=3, s4=3.1, s8=2, s16=9))
    told: list[tuple[int, int]] = []
    arrays, rows_of = requests(count), plan(rows, count)
    got = engine.run(arrays, rows_of, batch_size=7, progress=lambda *args: told.append(args))
    want = Machine(lambda size: 0).run(arrays, rows_of, batch_size=rows)
    np.testing.assert_array_equal(got.score, want.score)
    np.testing.assert_array_equal(got.slope, want.slope)
    np.testing.assert_allclose(
        got.weighted_gradient["image"], want.weighted_gradient["image"], rtol=1e-12
    )
    assert sum(machine.chunks) == rows
    assert [done for done, _ in told] == list(np.cumsum(machine.chunks))
    assert {total for _, total in told} == {rows}


@pytest.mark.parametrize("rows", [3, 100])
def test_what_stops_a_call_reaches_all_of_its_parts(calibrated: Any, rows: int) -> None:
    engine, machine = calibrated(per_row(s1=4, s2=3, s4=9))
    control = CallControl(7.5, CancelToken())
    engine.run(requests(), plan(rows), batch_size=7, control=control)
    assert {(c.deadline, c.token) for c in machine.controls} == {(7.5, control.token)}


def test_short_calls_are_run_as_asked(calibrated: Any) -> None:
    engine, machine = calibrated(per_row(s1=1, s2=2))
    engine.run(requests(), plan(calibration.ENOUGH_ROWS - 1), batch_size=13)
    assert machine.chunks == [13, 13, 13]
    engine.run(requests(), plan(0), batch_size=13)
    assert machine.chunks == [13, 13, 13]


def test_calls_of_the_usual_length_go_on_where_the_last_one_ended(calibrated: Any) -> None:
    engine, machine = calibrated(per_row(s1=4, s2=3, s4=2, s8=1, s16=0.5, s32=9))
    engine.run(requests(), plan(52), batch_size=2)
    assert engine.rows_at_once(requests()) == 8
    engine.run(requests(), plan(52), batch_size=2)
    assert engine.rows_at_once(requests()) == 16
    assert machine.chunks[-4:] == [16, 16, 16, 4]


def test_memory_bounds_what_is_tried_and_what_is_chosen(calibrated: Any) -> None:
    engine, machine = calibrated(lambda size: 5 + size, limit=599)  # 100 bytes a row: 5 rows
    engine.run(requests(), plan(500), batch_size=64)
    assert max(machine.chunks) == 4
    engine.run(requests(), plan(20), batch_size=64)
    assert max(machine.chunks) == 4
    engine, machine = calibrated(lambda size: 5 + size, limit=1)
    engine.run(requests(), plan(500), batch_size=64)
    assert set(machine.chunks) == {1}


@pytest.mark.parametrize(
    ("usual", "limit", "best"),
    [
        (calibration.USUAL_CHUNK, None, 8),  # of the sizes tried: 12 rows of 10 MiB would fit
        (None, None, 64),  # what else bounds them is a quarter of the machine's memory
        (calibration.USUAL_CHUNK, 1 << 30, 64),  # a limit that was asked for goes before it
    ],
)
def test_chunks_keep_within_the_usual_size_unless_a_limit_is_given(
    calibrated: Any,
    monkeypatch: pytest.MonkeyPatch,
    usual: int | None,
    limit: int | None,
    best: int,
) -> None:
    monkeypatch.setattr(calibration, "machine_memory", lambda: 4 << 30)
    engine, machine = calibrated(lambda size: 50 + size, each=10 << 20, usual=usual, limit=limit)
    engine.run(requests(), plan(3000), batch_size=2000)
    assert engine.rows_at_once(requests()) == best
    assert max(machine.chunks) == best


def test_one_disturbed_trial_does_not_decide(calibrated: Any) -> None:
    """Something else keeps the machine busy while chunks of 2 are tried for the first time."""
    disturbed = iter([True] * CHUNKS)
    good = per_row(s1=10, s2=8, s4=11)
    engine, _ = calibrated(lambda size: good(size) * (3 if size == 2 and next(disturbed, 0) else 1))
    engine.run(requests(), plan(500), batch_size=1)
    assert engine.rows_at_once(requests()) == 2


def test_the_first_chunk_of_a_size_does_not_count(calibrated: Any) -> None:
    seen: set[int] = set()

    def seconds(size: int) -> float:
        first = size not in seen
        seen.add(size)
        return per_row(s1=10, s2=9, s4=20)(size) + 100 * first

    engine, _ = calibrated(seconds)
    engine.run(requests(), plan(500), batch_size=1)
    assert engine.rows_at_once(requests()) == 2


def test_calls_at_the_same_time_are_not_measured(calibrated: Any) -> None:
    engine, machine = calibrated(per_row(s1=1, s2=2))
    inside = threading.Event()

    def another_call() -> None:
        machine.between_chunks = lambda: None
        other = threading.Thread(target=lambda: engine.run(requests(), plan(3), batch_size=3))
        other.start()
        other.join()
        inside.set()

    machine.between_chunks = another_call
    engine.run(requests(), plan(100), batch_size=5)
    assert inside.is_set()
    assert engine.rows_at_once(requests()) == 64  # still the guess: nothing was learnt
    assert 5 in machine.chunks


def test_sizes_of_inputs_are_told_apart(calibrated: Any) -> None:
    engine, _ = calibrated(per_row(s1=1, s2=2))
    engine.run(requests(length=5), plan(100), batch_size=5)
    assert engine.rows_at_once(requests(length=8)) == 1  # 5 and 8 are about the same
    assert engine.rows_at_once(requests(length=9)) == 64


def test_an_error_is_passed_on_and_leaves_the_engine_usable(calibrated: Any) -> None:
    engine, machine = calibrated(per_row(s1=3, s2=2, s4=9))

    def fail() -> None:
        raise KeyError("chunk")

    machine.between_chunks = fail
    with pytest.raises(KeyError, match="chunk"):
        engine.run(requests(), plan(100), batch_size=5)
    machine.between_chunks = lambda: None
    engine.run(requests(), plan(100), batch_size=5)
    assert engine.rows_at_once(requests()) == 2


# -- what is remembered ------------------------------------------------------------------------


def test_another_process_finds_what_was_measured(
    calibrated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IGONNX_CACHE_DIR", str(tmp_path))
    engine, _ = calibrated(per_row(s1=3, s2=2, s4=9), graph="a")
    engine.run(requests(), plan(100), batch_size=5)
    again, machine = calibrated(per_row(s1=3, s2=2, s4=9), graph="a")
    assert again.rows_at_once(requests()) == 2
    again.run(requests(), plan(100), batch_size=5)
    assert set(machine.chunks) == {2}
    other, _ = calibrated(per_row(s1=3, s2=2, s4=9), graph="b")
    assert other.rows_at_once(requests()) == 64
    within, _ = calibrated(per_row(s1=3, s2=2, s4=9), graph="a", limit=100)
    assert within.rows_at_once(requests()) == 1


def test_a_call_without_a_trial_leaves_no_record(
    calibrated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IGONNX_CACHE_DIR", str(tmp_path))
    engine, machine = calibrated(per_row(s1=3, s2=2, s4=9))

    def another_call() -> None:
        machine.between_chunks = lambda: None
        engine.run(requests(), plan(1), batch_size=1)

    machine.between_chunks = another_call
    engine.run(requests(), plan(100), batch_size=5)
    assert not list(tmp_path.rglob("*.json"))
    engine.run(requests(), plan(100), batch_size=5)
    assert len(list(tmp_path.rglob("*.json"))) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe{",
        b"[1]",
        b'{"key": 3, "record": {}}',
        {"seconds_per_row": {"x": 1}},
        {"seconds_per_row": {"0": 1.0}},
        {"seconds_per_row": {"2": -1.0}},
        {"seconds_per_row": {"2": None}},
        {"seconds_per_row": [1]},
        {},
        3,
    ],
)
def test_damaged_records_count_as_absent(
    calibrated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any
) -> None:
    monkeypatch.setenv("IGONNX_CACHE_DIR", str(tmp_path))
    engine, _ = calibrated(per_row(s1=3, s2=2, s4=9))
    engine.run(requests(), plan(100), batch_size=5)
    (path,) = tmp_path.rglob("*.json")
    if not isinstance(content, bytes):
        whole = json.loads(path.read_text())
        content = json.dumps({**whole, "record": content}).encode()
    path.write_bytes(content)
    again, _ = calibrated(per_row(s1=3, s2=2, s4=9))
    assert again.rows_at_once(requests()) == 64
    again.run(requests(), plan(100), batch_size=5)
    assert again.rows_at_once(requests()) == 2


def test_a_cache_that_cannot_be_written_is_no_error(
    calibrated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("IGONNX_CACHE_DIR", str(tmp_path / "file" / "cache"))
    engine, _ = calibrated(per_row(s1=3, s2=2, s4=9))
    engine.run(requests(), plan(100), batch_size=5)
    assert engine.rows_at_once(requests()) == 2


def test_where_records_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for off in ("", "off", " OFF "):
        monkeypatch.setenv("IGONNX_CACHE_DIR", off)
        assert user_cache.cache_directory() is None
        user_cache.write_record("kind", {"a": 1}, {"b": 2})
        assert user_cache.read_record("kind", {"a": 1}) is None
    monkeypatch.setenv("IGONNX_CACHE_DIR", str(tmp_path))
    user_cache.write_record("kind", {"a": 1}, {"b": 2})
    user_cache.write_record("kind", {"a": 1}, {"b": 3})
    assert user_cache.read_record("kind", {"a": 1}) == {"b": 3}
    assert user_cache.read_record("kind", {"a": 2}) is None
    assert user_cache.read_record("other", {"a": 1}) is None
    assert [path.suffix for path in (tmp_path / "kind").iterdir()] == [".json"]
    monkeypatch.delenv("IGONNX_CACHE_DIR")
    for platform, expected in (
        ("linux", tmp_path / ".cache" / "igonnx"),
        ("darwin", tmp_path / "Library" / "Caches" / "igonnx"),
        ("win32", tmp_path / "AppData" / "Local" / "igonnx"),
    ):
        monkeypatch.setattr(user_cache.sys, "platform", platform)
        monkeypatch.setattr(Path, "home", lambda: tmp_path)
        for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
            monkeypatch.delenv(name, raising=False)
        assert user_cache.cache_directory() == expected
    monkeypatch.setattr(user_cache.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert user_cache.cache_directory() == tmp_path / "xdg" / "igonnx"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the specification
    assert user_cache.cache_directory() == tmp_path / ".cache" / "igonnx"


# -- memory of a row -----------------------------------------------------------------------------


def test_working_memory_is_the_largest_sum_of_what_is_alive(model: Build) -> None:
    graph = Model.load(
        model(
            """(float[N, 10] x) => (float[N, 10] y) {
                wide = MatMul(x, w)
                sine = Sin(wide)
                narrow = MatMul(sine, v)
                y = Add(narrow, x)
            }""",
            {"w": np.ones((10, 1000), np.float32), "v": np.ones((1000, 10), np.float32)},
        )
    ).ir.graph
    memory = working_memory(graph, ["x"])
    # x, wide and sine; whatever N is
    assert memory.bytes_per_row({"x": (1, 10)}) == 4 * (10 + 1000 + 1000)
    assert memory.bytes_per_row({"x": (9, 10)}) == 4 * (10 + 1000 + 1000)


def test_working_memory_of_axes_known_when_run(model: Build) -> None:
    graph = Model.load(
        model("(float[N, T, 8] x) => (float[N, T, 8] y) { s = Sin(x) \n y = Mul(s, x) }")
    ).ir.graph
    memory = working_memory(graph, ["x"])
    assert memory.bytes_per_row({"x": (1, 100, 8)}) == 4 * 3 * 800
    assert memory.bytes_per_row({"x": (1, 50, 8)}) == 4 * 3 * 400


def test_fingerprints_tell_structures_apart_not_weights(model: Build) -> None:
    def of(text: str, weight: float, size: int = 3) -> str:
        graph = model(text, {"w": np.full(size, weight, np.float32)})
        return fingerprint(Model.load(graph).ir.graph)

    text = "(float[N, 3] x) => (float[N, 3] y) { y = Mul(x, w) }"
    assert of(text, 1) == of(text, 2)
    assert of(text, 1) != of(text.replace("Mul", "Add"), 1)
    assert of(text, 1) != of(text, 1, size=1)


# -- explainers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_explainers_calibrate_and_results_differ_by_rounding(
    mlp: onnx.ModelProto, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IGONNX_CACHE_DIR", str(tmp_path))
    x = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    fixed = igonnx.Explainer(mlp, engine=engine, batch_size=5)
    want = fixed.integrated_gradients(x, target=1)
    assert not list(tmp_path.rglob("*.json"))
    explainer = igonnx.Explainer(mlp, engine=engine)
    for _ in range(3):
        found = explainer.integrated_gradients(x, target=1)
        np.testing.assert_allclose(found.values, want.values, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.path[2].score, want.path[2].score, rtol=1e-5, atol=1e-6)
    assert len(list(tmp_path.rglob("*.json"))) == 1
    again = fixed.integrated_gradients(x, target=1)
    np.testing.assert_array_equal(again.values, want.values)


def test_a_memory_limit_bounds_chunks(mlp: onnx.ModelProto) -> None:
    explainer = igonnx.Explainer(mlp, memory_limit=1, threads=1)
    done: list[int] = []
    explainer.integrated_gradients(
        np.ones((1, 6), np.float32), target=1, progress=lambda rows, _: done.append(rows)
    )
    assert set(np.diff([0, *done])) == {1}
    assert done[-1] == 52


@pytest.mark.parametrize(
    ("limit", "lanes", "most"), [(99, 1, 1), (350, 3, 1), (800, 8, 1), (2400, 8, 3), (10**6, 8, 64)]
)
def test_a_memory_limit_bounds_what_all_lanes_have(limit: int, lanes: int, most: int) -> None:
    machine = Machine(lambda size: size, lanes=8)
    engine = CalibratedEngine(machine, bytes_per_row=lambda shapes: 100, memory_limit=limit, key={})
    engine.run(requests(), plan(20), batch_size=64)
    assert {control.lanes for control in machine.controls} == {lanes}
    assert max(machine.chunks) == min(most, 20)


@pytest.mark.parametrize("limit", [0, -1, 2.5, True, "1 GB"])
def test_memory_limits_that_make_no_sense(mlp: onnx.ModelProto, limit: Any) -> None:
    with pytest.raises(igonnx.InputError, match=r"^memory_limit is .*; expected a whole number"):
        igonnx.Explainer(mlp, memory_limit=limit)
