"""The native engine on explanation graphs written by hand, against NumPy in double precision."""

import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from toy_graph import assert_same, random_plan, toy

from igonnx import _core
from igonnx.engine import Requests, RowPlan, native
from igonnx.engine.native import NativeEngine
from igonnx.errors import EngineError, Error, InputError


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
@pytest.mark.parametrize("requests", [1, 3, 9])
def test_equals_numpy(dtype: type, tolerance: float, batch_size: int, requests: int) -> None:
    model = toy(dtype)
    arrays, plan = model.requests(requests), random_plan(requests, 23)
    result = model.engine().run(arrays, plan, batch_size=batch_size)
    assert_same(result, model.expected(arrays, plan), tolerance)


def test_several_explained_tensors() -> None:
    model = toy(np.float64, {"left": (5,), "right": (2, 2)})
    arrays, plan = model.requests(4), random_plan(4, 17)
    result = model.engine().run(arrays, plan, batch_size=5)
    assert_same(result, model.expected(arrays, plan), 1e-14)


def test_requests_without_rows_get_zeros() -> None:
    model = toy(np.float64)
    arrays = model.requests(5)
    plan = RowPlan(np.array([1, 1, 4]), np.array([0.1, 0.5, 0.9]), np.ones(3))
    result = model.engine().run(arrays, plan, batch_size=2)
    assert_same(result, model.expected(arrays, plan), 1e-14)
    assert not result.weighted_gradient["image"][[0, 2, 3]].any()


def test_no_rows() -> None:
    model = toy()
    plan = RowPlan(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    calls: list[tuple[int, int]] = []
    result = model.engine().run(
        model.requests(2), plan, batch_size=4, progress=lambda *args: calls.append(args)
    )
    assert result.score.shape == result.slope.shape == (0,)
    assert not result.weighted_gradient["image"].any()
    assert calls == []


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 11])
def test_a_fixed_number_of_rows_is_padded(rows: int) -> None:
    model = toy(np.float64, fixed_rows=4)
    arrays, plan = model.requests(3), random_plan(3, rows)
    # The graph's own batch size wins over the one asked for.
    result = model.engine().run(arrays, plan, batch_size=3)
    assert_same(result, model.expected(arrays, plan), 1e-14)


@pytest.mark.parametrize(
    "fixed",
    [
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "bool"),
    ],
)
def test_dtypes_of_fixed_inputs(fixed: str) -> None:
    onnx_type = helper.np_dtype_to_tensor_dtype(np.dtype(fixed))
    model = toy(np.float64, scale=onnx_type, gate=onnx_type)
    arrays = model.requests(3)
    arrays = replace(
        arrays,
        batched={"scale": arrays.batched["scale"].astype(fixed)},
        shared={"gate": arrays.shared["gate"].astype(fixed)},
    )
    plan = random_plan(3, 8)
    result = model.engine().run(arrays, plan, batch_size=3)
    assert_same(result, model.expected(arrays, plan), 1e-14)


def test_batch_size_changes_only_rounding() -> None:
    model = toy()
    arrays, plan = model.requests(6), random_plan(6, 60)
    engine = model.engine()
    whole = engine.run(arrays, plan, batch_size=60)
    for batch_size in (1, 2, 7, 13, 59):
        assert_same(engine.run(arrays, plan, batch_size=batch_size), whole, 1e-6)


def test_progress_after_every_chunk() -> None:
    model = toy()
    calls: list[tuple[int, int]] = []
    model.engine(threads=1).run(
        model.requests(2),
        random_plan(2, 10),
        batch_size=4,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(4, 10), (8, 10), (10, 10)]


def test_an_exception_of_progress_stops_the_run() -> None:
    model = toy()
    calls: list[int] = []

    def stop(done: int, _total: int) -> None:
        calls.append(done)
        raise KeyError("enough")

    engine = model.engine(threads=1)
    arrays, plan = model.requests(2), random_plan(2, 10)
    with pytest.raises(KeyError, match="enough"):
        engine.run(arrays, plan, batch_size=4, progress=stop)
    assert calls == [4]
    assert_same(engine.run(arrays, plan, batch_size=4), model.expected(arrays, plan), 2e-6)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
def test_a_signal_stops_the_run() -> None:
    class AlarmError(Exception):
        pass

    def handler(_number: int, _frame: object) -> None:
        raise AlarmError

    model = toy()
    engine, arrays, plan = model.engine(), model.requests(1), random_plan(1, 300_000)
    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(AlarmError):
            engine.run(arrays, plan, batch_size=1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_threads_share_an_engine() -> None:
    model = toy(np.float64)
    engine = model.engine(threads=1)
    cases = [(model.requests(3, seed), random_plan(3, 40, seed)) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda case: engine.run(*case, batch_size=3), cases * 3))
    for (arrays, plan), result in zip(cases * 3, results, strict=True):
        assert_same(result, model.expected(arrays, plan), 1e-14)


def test_read_only_arrays_are_taken_as_they_are() -> None:
    model = toy(np.float64)
    arrays, plan = model.requests(2), random_plan(2, 5)
    for array in (arrays.x["image"], arrays.cotangent, plan.row, plan.alpha, plan.weight):
        array.flags.writeable = False
    result = model.engine().run(arrays, plan, batch_size=2)
    assert_same(result, model.expected(arrays, plan), 1e-14)


def test_external_data(tmp_path: Path) -> None:
    model = toy(np.float64)
    path = tmp_path / "toy.onnx"
    onnx.save(model.model, path, save_as_external_data=True, size_threshold=64)
    without = replace(model, model=onnx.load(path, load_external_data=False))
    assert any(
        tensor.data_location == TensorProto.EXTERNAL for tensor in without.model.graph.initializer
    )
    arrays, plan = model.requests(2), random_plan(2, 5)
    result = without.engine(external_data_folder=tmp_path).run(arrays, plan, batch_size=5)
    assert_same(result, model.expected(arrays, plan), 1e-14)
    with pytest.raises(EngineError, match=r"^toy: cannot create a session: "):
        without.engine(external_data_folder=tmp_path / "nowhere")


def test_a_session_knows_its_names_and_the_operators_of_the_library() -> None:
    model = toy()
    graph = model.model.graph
    # F, masked where it is not positive: the domain is known without further ado.
    graph.node[-2].output[0] = "raw"
    graph.node.append(
        helper.make_node("ActivationMask", ["raw", "raw"], ["score"], domain="ai.igonnx")
    )
    model.model.opset_import.append(helper.make_opsetid("ai.igonnx", 1))
    session = _core.Session(model.model.SerializeToString(), None, 1, [], "toy")
    assert session.input_names == [value.name for value in graph.input]
    assert session.output_names == ["weighted_gradient:image", "score", "slope"]
    arrays, plan = model.requests(3), random_plan(3, 12)
    result = model.engine().run(arrays, plan, batch_size=5)
    want = np.maximum(model.expected(arrays, plan).score, 0)
    np.testing.assert_allclose(result.score, want, rtol=1e-4, atol=1e-4)


Change = Callable[[Requests], Requests]


def in_x(change: Callable[[np.ndarray], Any]) -> Change:
    return lambda arrays: replace(arrays, x={"image": change(arrays.x["image"])})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (in_x(lambda x: x.astype(np.float16)),
         "x of 'image' has dtype float16; expected float32 or float64"),
        (in_x(lambda x: x.astype(np.complex64)),
         "x of 'image' has dtype complex64; expected bool, an integer, float16, float32 or float64 "
         "in native byte order"),
        (in_x(lambda x: x.astype(">f4")),
         "x of 'image' has dtype >f4; expected bool, an integer, float16, float32 or float64 in "
         "native byte order"),
        (in_x(lambda x: np.asfortranarray(x)),
         "x of 'image' is not C-contiguous; pass numpy.ascontiguousarray of it"),
        (in_x(lambda x: np.asarray(x[0, 0, 0, 0])),
         "x of 'image' has shape []; expected [R, ...], one slice per request"),
        (in_x(lambda x: x.astype(np.float64)),
         "baseline of 'image' has dtype float32; expected float64 as x of 'image'"),
        (in_x(lambda x: x[:1]),
         "baseline of 'image' has shape [2, 2, 3, 4]; expected [1, 2, 3, 4] as x of 'image'"),
        (lambda arrays: replace(arrays, x={}), "x lacks 'image'; given: none"),
        (lambda arrays: replace(arrays, cotangent=arrays.cotangent.astype(np.float64)),
         "cotangent has dtype float64; expected float32 as x of 'image'"),
        (lambda arrays: replace(arrays, cotangent=arrays.cotangent[:1]),
         "cotangent has shape [1, 3]; expected [2, ...], one slice per request"),
        (lambda arrays: replace(arrays, batched={"scale": np.ones(3, np.int64)}),
         "fixed input 'scale' has shape [3]; expected [2, ...], one slice per request"),
        (lambda arrays: replace(arrays, batched={"scale": np.ones(2, np.int32)}),
         "input 'scale' has dtype int32; toy takes int64"),
        (lambda arrays: replace(arrays, shared={"gate": np.array(["a", "b"])}),
         "fixed input 'gate' has dtype <U1; expected bool, an integer, float16, float32 or float64 "
         "in native byte order"),
    ],
)  # fmt: skip
def test_wrong_arrays(change: Change, message: str) -> None:
    model = toy()
    with pytest.raises(InputError) as caught:
        model.engine().run(change(model.requests(2)), random_plan(2, 3), batch_size=2)
    assert str(caught.value) == message


def test_a_float64_plan_on_a_float32_graph() -> None:
    engine, model = toy(np.float32).engine(dtype=np.float64), toy(np.float64)
    with pytest.raises(InputError, match=r"^input 'x:image' has dtype float64; toy takes float32$"):
        engine.run(model.requests(2), random_plan(2, 3), batch_size=2)


def test_a_graph_that_breaks_the_contract() -> None:
    model = toy()
    arrays, plan = model.requests(2), random_plan(2, 3)
    message = r"^toy takes an input 'gate', which was not given$"
    with pytest.raises(InputError, match=message):
        model.engine(shared=()).run(arrays, plan, batch_size=2)
    more = replace(arrays, shared={"gate": arrays.shared["gate"], "other": np.zeros(1)})
    message = r"^toy takes no input 'other'; it takes 'x:image', 'baseline:image', 'scale', "
    with pytest.raises(InputError, match=message):
        model.engine(shared=("gate", "other")).run(more, plan, batch_size=2)
    del model.model.graph.output[-1]
    message = r"^toy has no output 'slope'; it has 'weighted_gradient:image', 'score'$"
    with pytest.raises(InputError, match=message):
        model.engine().run(arrays, plan, batch_size=2)


@pytest.mark.parametrize(
    ("row", "rows", "batch_size", "message"),
    [
        ([0, 1, 2], 3, 2, "row[2] is 2; expected an index of one of the 2 requests"),
        ([0, 1, 1], 3, 0, "batch_size is 0; expected at least 1"),
    ],
)
def test_wrong_plans(row: list[int], rows: int, batch_size: int, message: str) -> None:
    model = toy()
    plan = RowPlan(np.array(row), np.zeros(rows), np.zeros(rows))
    with pytest.raises(InputError) as caught:
        model.engine().run(model.requests(2), plan, batch_size=batch_size)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("row", "alpha", "weight", "message"),
    [
        (np.zeros(2, np.int32), np.zeros(2), np.zeros(2), "row has dtype int32; expected int64"),
        (np.zeros(2, np.int64), np.zeros(2, np.float32), np.zeros(2),
         "alpha has dtype float32; expected float64"),
        (np.zeros(2, np.int64), np.zeros(2), np.zeros(3),
         "weight has shape [3]; expected [2], one per row"),
        (np.zeros((2, 1), np.int64), np.zeros(2), np.zeros(2),
         "row has shape [2, 1]; expected [2], one per row"),
        (np.array([0, 3, 2]), np.zeros(3), np.zeros(3),
         "row[2] is 2 after 3; expected rows in the order of their requests"),
        (np.array([-1, 3]), np.zeros(2), np.zeros(2),
         "row[0] is -1; expected the index of a request, from 0 on"),
    ],
)  # fmt: skip
def test_a_plan_checks_itself(
    row: np.ndarray, alpha: np.ndarray, weight: np.ndarray, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        RowPlan(row, alpha, weight)
    assert str(caught.value) == message


def test_a_failure_names_model_and_rows_on_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    model = toy()
    engine = model.engine(threads=1)  # with several, whichever chunk fails first is named
    arrays, plan = model.requests(2), random_plan(2, 5)
    wrong = replace(arrays, shared={"gate": np.ones(5, bool)})  # fails in the graph's first Mul
    with pytest.raises(EngineError) as caught:
        engine.run(wrong, plan, batch_size=2)
    assert re.match(r"toy: rows 0\.\.1: .*gate", str(caught.value))
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, Error)
    assert capfd.readouterr() == ("", "")  # the runtime does not log it as well


def test_a_failure_in_a_later_chunk_names_its_rows(capfd: pytest.CaptureFixture[str]) -> None:
    model = toy()
    graph = model.model.graph
    # A Reshape to two rows: holds for all chunks but the last.
    graph.node[-1].output[0] = "raw"
    graph.node.append(helper.make_node("Reshape", ["raw", "[2]"], ["pair"], name="to_two"))
    graph.node.append(helper.make_node("ReduceSum", ["pair"], ["sum"]))
    graph.node.append(helper.make_node("Add", ["raw", "sum"], ["slope"]))
    graph.initializer.append(numpy_helper.from_array(np.array([2]), "[2]"))
    with pytest.raises(EngineError, match=r"^toy: rows 4\.\.4: .*Reshape.*to_two") as caught:
        model.engine().run(model.requests(2), random_plan(2, 5), batch_size=2)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_model_that_is_none(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(EngineError, match=r"^toy: cannot create a session: .*") as caught:
        NativeEngine(b"not a model", explained=("x",), name="toy")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_provider_that_is_not_there() -> None:
    message = r"^onnxruntime .* has no 'NoSuchExecutionProvider'; this build has .*CPUExecution"
    with pytest.raises(EngineError, match=message):
        toy().engine(providers=["NoSuchExecutionProvider"])
    # The same without the check in Python, for both ways of naming a provider to the runtime.
    for name in ("NoSuchExecutionProvider", "CUDAExecutionProvider"):
        if name not in onnxruntime.get_available_providers():
            with pytest.raises(EngineError, match=r"^toy: cannot create a session: "):
                _core.Session(toy().model.SerializeToString(), None, 0, [(name, {})], "toy")


def test_the_cpu_provider_by_name() -> None:
    model = toy(np.float64)
    arrays, plan = model.requests(2), random_plan(2, 3)
    engine = model.engine(providers=["CPUExecutionProvider"], threads=2)
    assert_same(engine.run(arrays, plan, batch_size=2), model.expected(arrays, plan), 1e-14)


def test_cuda_graphs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    options = {"device_id": 1, "enable_cuda_graph": True}
    message = r"^enable_cuda_graph of CUDAExecutionProvider is not supported; leave it out$"
    with pytest.raises(InputError, match=message):
        toy().engine(providers=[("CUDAExecutionProvider", options)])


def test_options_of_a_provider_reach_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(_core, "Session", lambda **arguments: given.update(arguments))
    toy().engine(providers=[("CUDAExecutionProvider", {"device_id": 1})])
    assert given["providers"] == [("CUDAExecutionProvider", {"device_id": "1"})]
    assert given["runs_at_once"] == 1


def test_the_version_of_the_runtime() -> None:
    native.attach()
    assert _core.is_attached()
    assert _core.runtime_version() == onnxruntime.__version__


def test_an_old_runtime_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "is_attached", lambda: False)
    monkeypatch.setattr(onnxruntime, "__version__", "1.22.1")
    message = (
        r"^onnxruntime 1\.22\.1 was found; the native engine needs 1\.23 or later: upgrade it, or "
        r'pass engine="reference"$'
    )
    with pytest.raises(EngineError, match=message):
        native.attach()


def test_a_missing_runtime_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "is_attached", lambda: False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    message = r"^no ONNX Runtime is installed: pip install 'igonnx\[cpu\]' or 'igonnx\[gpu\]'$"
    with pytest.raises(EngineError, match=message):
        native.attach()


FAKE_RUNTIME = """
    import ctypes
    from igonnx import _core
    from igonnx.errors import EngineError

    class Base(ctypes.Structure):
        get_api = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)
        get_version = ctypes.CFUNCTYPE(ctypes.c_void_p)
        _fields_ = [("api", get_api), ("version", get_version)]

    nothing = ctypes.CFUNCTYPE(ctypes.c_void_p)(lambda: None)
    table = (type(nothing) * 500)(*[nothing] * 500)
    get_api = {{"none": lambda version: None,
               "empty": lambda version: ctypes.addressof(table)}}["{table}"]
    version = ctypes.create_string_buffer(b"{version}")
    base = Base(Base.get_api(get_api), Base.get_version(lambda: ctypes.addressof(version)))
    register = ctypes.CDLL(_core.__file__).RegisterCustomOps
    register.restype = ctypes.c_void_p
    register(None, ctypes.byref(base))
    assert not _core.is_attached()
    try:
        _core.Session(b"", None, 0, [], "toy")
    except EngineError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("version", "table", "message"),
    [
        ("1.16.3", "none", "onnxruntime 1.16.3 is too old: igonnx needs 1.17 or later"),
        (
            "1.99.0",
            "empty",
            "onnxruntime 1.99.0 has another C API than igonnx expects: "
            "a status did not survive a round trip",
        ),
    ],
)
def test_a_runtime_with_another_abi_is_refused(version: str, table: str, message: str) -> None:
    code = textwrap.dedent(FAKE_RUNTIME).format(version=version, table=table)
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.stderr == ""
    assert run.stdout.strip() == message


def test_without_a_runtime_attached() -> None:
    code = "from igonnx import _core; _core.Session(b'', None, 0, [], 'toy')"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert "EngineError: no onnxruntime is attached" in run.stderr.splitlines()[-1]


DAEMON_THREAD = """
    import threading
    import numpy as np
    from igonnx import _core
    from igonnx.engine import native

    native.attach()
    session = _core.Session(open({path!r}, "rb").read(), None, 1, [], "toy")
    started, rows = threading.Event(), 1_000_000
    zeros = np.zeros(rows, np.float32)
    image = np.zeros((1, 2, 3, 4), np.float32)
    threading.Thread(daemon=True, target=lambda: session.run_plan(
        ["image"], [image], [image], ["scale", "gate"], [np.ones(1, np.int64), np.ones(3, bool)],
        [True, False], np.ones((1, 3), np.float32), np.zeros(rows, np.int64), zeros, zeros, 1, False,
        lambda *_: started.set())).start()
    assert started.wait(30)
"""


def test_a_process_may_end_while_a_daemon_thread_runs_a_plan(tmp_path: Path) -> None:
    path = tmp_path / "toy.onnx"
    onnx.save(toy().model, path)
    code = textwrap.dedent(DAEMON_THREAD).format(path=str(path))
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
