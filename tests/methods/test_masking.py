"""Masked inputs: the engine in C++ against NumPy and the standard operators, streaming, shared batches, memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from tanh_net import TanhNet

import igonnx
from igonnx import preparation
from igonnx.engine.native import NativeMaskEngine
from igonnx.engine.plan import MaskPlan, Requests
from igonnx.engine.runtime import serialized
from igonnx.engine.workers import Workers
from igonnx.masked_rows import build_masked_rows
from igonnx.methods import masking
from igonnx.methods.call import Call, MethodResult
from igonnx.methods.masking import Features, features_of, masked_rows, masked_scores, rows_of_masks
from igonnx.model import Model
from igonnx.row_scores import build_row_scores

Build = Callable[..., onnx.ModelProto]
Array = NDArray[Any]
NET = TanhNet.make(11)
TARGET = np.array([1, 2, 0])
each_engine = pytest.mark.parametrize("engine", ["native", "reference"])


def _with_call(
    explainer: igonnx.Explainer, inputs: Any, ask: Callable[[Call], Any], **options: Any
) -> Any:
    """What `ask` gives for the call of a method of forward passes."""
    found = []

    def core(call: Call) -> MethodResult:
        found.append(ask(call))
        zeros = {name: np.zeros(array.shape) for name, array in call.requests.x.items()}
        return MethodResult(zeros, np.ones(len(call), np.int64))

    explainer.explain_with(core, inputs, method="asking", propagation=None, **options)
    return found[0]


def _question(call: Call, mask: Any, seed: int = 0) -> tuple[Array, Array, Features]:
    """40 masks for requests in no order; parts of features, too."""
    random = np.random.default_rng(seed)
    features = features_of(call, mask)
    keep = random.choice([0, 0.25, 1], size=(40, features.count))
    return random.integers(len(call), size=40), keep, features


@each_engine
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("batch_size", [None, 1, 7])
def test_scores_are_those_of_numpy(
    model: Build, engine: str, own: bool, batch_size: int | None
) -> None:
    x, baseline = (NET.inputs(3, seed, np.float64) for seed in (1, 2))
    mask = {"a": np.arange(6).reshape(2, 3) % 4 - 1, "b": np.array([2, -1, 3, 1])}
    if own:
        mask = {name: np.stack([array, array[::-1], array]) for name, array in mask.items()}

    def ask(call: Call) -> None:
        rows, keep, features = _question(call, mask)
        told: list[int] = []
        found = masked_scores(call, rows, keep, features, tick=told.append)
        at = {}
        for name, array in x.items():
            index = np.broadcast_to(features.index[name], array.shape)[rows]
            share = np.ones(index.shape)
            for row in range(len(rows)):
                share[row][index[row] >= 0] = keep[row][index[row][index[row] >= 0]]
            at[name] = baseline[name][rows] + share * (array - baseline[name])[rows]
        np.testing.assert_allclose(found, NET.score(at, TARGET[rows]), rtol=1e-12)
        assert sum(told) == len(rows)

    explainer = igonnx.Explainer(NET.onnx(model, np.float64), engine=engine, batch_size=batch_size)
    _with_call(explainer, x, ask, target=TARGET.tolist(), baseline=baseline)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_standard_operators_mask_alike(
    model: Build, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On other providers than the CPU they take the place of the plugin's operator.
    mask = {"a": np.arange(6).reshape(2, 3) % 4 - 1, "b": np.array([2, -1, 3, 1])}
    own = {name: np.stack([array, array[::-1], array]) for name, array in mask.items()}

    def ask(call: Call) -> list[Array]:
        questions = [_question(call, one) for one in (None, mask, own)]
        return [masked_scores(call, *question) for question in questions]

    x, graph = NET.inputs(3, dtype=dtype), NET.onnx(model, dtype)
    options: dict[str, Any] = {"target": TARGET.tolist(), "baseline": 0.3}
    plugin = _with_call(igonnx.Explainer(graph), x, ask, **options)
    built: list[bool] = []

    def standard(rows: Any, batched: Any, *, plugin: bool) -> Any:
        built.append(plugin)
        return build(rows, batched, plugin=False)

    build = preparation.build_masked_rows
    monkeypatch.setattr(preparation, "build_masked_rows", standard)
    found = _with_call(igonnx.Explainer(graph), x, ask, **options)
    assert built == [True]
    for got, want in zip(found, plugin, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6 if dtype == np.float32 else 1e-13)


@each_engine
@pytest.mark.parametrize("kind", ["float16", "int32", "uint8"])
def test_inputs_of_other_types(model: Build, engine: str, kind: str) -> None:
    graph = model(
        f"({kind}[N, 4] x) => (float[N, 1] y) {{ f = Cast<to = 1>(x)\n y = MatMul(f, w) }}",
        {"w": np.array([[1], [10], [100], [1000]], np.float32)},
    )
    x = np.array([[1, 1, 1, 1], [0, 1, 0, 1]]).astype(kind)

    def ask(call: Call) -> Array:
        keep = np.array([[1, 1, 0, 0], [0, 1, 0, 1], [1, 1, 1, 1]])
        return masked_scores(call, np.array([0, 0, 1]), keep, features_of(call))

    explainer = igonnx.Explainer(graph, engine=engine, wrt="x")
    np.testing.assert_array_equal(_with_call(explainer, x, ask), [11, 1010, 1010])


@each_engine
def test_strings_beside_what_is_explained(model: Build, engine: str) -> None:
    graph = model(
        """(float[N, 2] x, string[N] colour) => (float[N, 1] y) {
            c = ai.onnx.ml.LabelEncoder<keys_strings = ["red", "blue"], values_floats = [1.0, 3.0]>(colour)
            s = MatMul(x, w)
            k = Unsqueeze(c, one)
            y = Mul(s, k)
        }""",
        {"w": np.array([[1], [10]], np.float32), "one": np.array([1])},
        domains=', "ai.onnx.ml": 3',
    )
    x = {"x": np.ones((2, 2), np.float32), "colour": np.array(["blue", "red"])}
    explainer = igonnx.Explainer(graph, engine=engine, wrt="x")
    found = explainer.feature_ablation(x)
    np.testing.assert_allclose(found.values, [[3, 30], [1, 10]], rtol=1e-6)


@each_engine
def test_a_model_for_batches_of_one_size(model: Build, engine: str) -> None:
    weights = {"w": np.arange(6.0).reshape(3, 2)}
    free, fixed = (
        model(f"(double[{n}, 3] x) => (double[{n}, 2] y) {{ y = MatMul(x, w) }}", weights)
        for n in ("N", 4)
    )
    x = np.random.default_rng(0).normal(size=(4, 3))

    def ask(call: Call) -> Array:
        return masked_scores(call, *_question(call, None))

    first, second = (
        _with_call(igonnx.Explainer(graph, engine=engine), x, ask, target=1)
        for graph in (free, fixed)
    )
    np.testing.assert_allclose(first, second, rtol=1e-13)


def test_both_ends_are_exact(model: Build) -> None:
    # Rounding would leave 0.1 + 1 (1e8 - 0.1) beside 1e8; the model takes the difference apart.
    graph = model(
        "(float[N, 2] x) => (float[N, 1] y) { d = Sub(x, c)\n y = MatMul(d, w) }",
        {"c": np.array([1e8, 0.1], np.float32), "w": np.ones((2, 1), np.float32)},
    )

    def ask(call: Call) -> Array:
        keep = np.array([[1.0, 0.0]])
        return masked_scores(call, np.zeros(1, np.int64), keep, features_of(call))

    for engine in ("native", "reference"):
        found = _with_call(
            igonnx.Explainer(graph, engine=engine),
            np.array([[1e8, 1e8]], np.float32),
            ask,
            baseline=np.array([[0.1, 0.1]]),
        )
        np.testing.assert_array_equal(found, [0])


def test_many_callers_share_batches(model: Build) -> None:
    explainer = igonnx.Explainer(NET.onnx(model, np.float64), batch_size=64)
    inputs = [NET.inputs(2, seed, np.float64) for seed in range(6)]

    def ask(call: Call) -> Array:
        return masked_scores(call, *_question(call, None, 3))

    def explain(x: Any) -> Array:
        return np.asarray(_with_call(explainer, x, ask, target=[0, 1]))

    alone = [explain(x) for x in inputs]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(explain, inputs * 10))
    for number, found in enumerate(together):
        np.testing.assert_allclose(found, alone[number % 6], rtol=1e-12)


def test_calls_that_wait_run_together(model: Build) -> None:
    """Two calls of four rows each make one run of eight, and each gets its own scores."""
    # A batch of eight takes long enough for both to come while the first of all runs.
    graph = model(
        """(double[N, 3] x, int64[N] turns) => (double[N, 1] y) {
            most = ReduceMax<keepdims = 0>(turns)
            start = MatMul(x, w)
            y = Loop(most, go, start) <body = step (int64 i, bool c, double[N, 1] s) => (bool d, double[N, 1] t) {
                d = Identity(c)
                t = Identity(s)
            }>
        }""",
        {"w": np.array([[1.0], [2.0], [4.0]]), "go": np.array(True)},
    )
    rows = build_row_scores(Model.load(graph), output="y", wrt=["x"])
    built = build_masked_rows(rows, ["turns"], plugin=True)
    engine = NativeMaskEngine(
        serialized(built.model, "loop"),
        explained=built.explained,
        batched=built.batched,
        dtype=built.dtype,
        workers=Workers(1),
    )

    def run(turns: int, value: float) -> Array:
        requests = Requests(
            x={"x": np.full((1, 3), value)},
            baseline={"x": np.zeros((1, 3))},
            batched={"fixed:turns": np.array([turns])},
            shared={},
            cotangent=np.ones((1, 1)),
        )
        keep = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], np.float64)
        plan = MaskPlan(np.zeros(4, np.int64), keep, {"x": np.arange(3, dtype=np.int32)[None]})
        size = 4 if turns > 1 else 8
        return np.asarray(engine.run(requests, plan, batch_size=size).score)

    with ThreadPoolExecutor(3) as pool:
        for _ in range(100):  # who comes late runs alone
            long = pool.submit(run, 200_000, 1.0)
            shorts = [pool.submit(run, 1, value) for value in (2.0, 3.0)]
            np.testing.assert_array_equal(long.result(60), [1, 2, 4, 7])
            for value, short in zip((2.0, 3.0), shorts, strict=True):
                np.testing.assert_array_equal(short.result(60), value * np.array([1, 2, 4, 7]))
            if engine._session.shared_runs:
                break
    assert engine._session.shared_runs


def test_masks_are_streamed(model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many masks there are, only some exist at a time; the values are the same."""
    x = np.random.default_rng(0).normal(size=(2, 60)).astype(np.float32)
    graph = model(
        "(float[N, 60] x) => (float[N, 1] y) { t = Tanh(x)\n y = MatMul(t, w) }",
        {"w": np.ones((60, 1), np.float32)},
    )
    explainer = igonnx.Explainer(graph, batch_size=4)
    whole = [explainer.occlusion(x), explainer.feature_ablation(x)]
    sizes: list[int] = []

    def counted(call: Call, rows: Array, keep: Array, *rest: Any, **options: Any) -> Array:
        sizes.append(keep.nbytes)
        return masked_scores(call, rows, keep, *rest, **options)

    monkeypatch.setattr(masking, "TOGETHER", 4 * 60 * 20)  # twenty masks
    for module in ("occlusion", "ablation"):
        monkeypatch.setattr(f"igonnx.methods.{module}.masked_scores", counted)
    parts = [explainer.occlusion(x), explainer.feature_ablation(x)]
    assert len(sizes) == 2 * -(-2 * 61 // 20)
    assert max(sizes) <= 4 * 60 * 20
    for part, all_at_once in zip(parts, whole, strict=True):
        np.testing.assert_allclose(part.values, all_at_once.values, atol=1e-6)


def test_stopping_within(model: Build) -> None:
    """A call is stopped while its rows are run, by another thread."""
    graph = model(
        """(float[N, 3] x) => (float[N, 1] y) {
            start = MatMul(x, w)
            y = Loop(turns, go, start) <body = step (int64 i, bool c, float[N, 1] s) => (bool d, float[N, 1] t) {
                d = Identity(c)
                t = Identity(s)
            }>
        }""",
        {"w": np.ones((3, 1), np.float32), "turns": np.array(3000), "go": np.array(True)},
    )
    explainer = igonnx.Explainer(graph, batch_size=1)
    explainer.predict(np.zeros((1, 3), np.float32))
    many = np.arange(4000)[:, None] * np.ones(3)

    def ask(call: Call) -> Array:
        keep = (many % 2).astype(np.float32)
        return masked_scores(call, np.zeros(4000, np.int64), keep, features_of(call))

    x = np.ones((1, 3), np.float32)
    with pytest.raises(igonnx.DeadlineError):
        _with_call(explainer, x, ask, timeout=0.3)
    token = igonnx.CancelToken()
    timer = threading.Timer(0.3, token.cancel)
    timer.start()
    with pytest.raises(igonnx.CancelledError, match=r"rows done$"):
        _with_call(explainer, x, ask, cancel=token)
    timer.join()


def test_bfloat16_rounds_the_products(model: Build) -> None:
    try:
        coarse = igonnx.Explainer(NET.onnx(model), precision="bfloat16")
    except igonnx.EngineError as error:  # the processor, or oneDNN, does not have it
        pytest.skip(str(error))
    x = NET.inputs(3)
    exact, rounded = (
        explainer.occlusion(x, target=1).values
        for explainer in (igonnx.Explainer(NET.onnx(model)), coarse)
    )
    scale = np.abs(exact["a"]).max()
    assert 1e-5 * scale < np.abs(exact["a"] - rounded["a"]).max() < 0.05 * scale


def test_masks_of_another_shape(model: Build) -> None:
    def ask(call: Call) -> Array:
        return masked_scores(call, np.zeros(2, np.int64), np.ones((2, 9)), features_of(call))

    with pytest.raises(igonnx.InputError) as raised:
        _with_call(igonnx.Explainer(NET.onnx(model)), NET.inputs(1), ask, target=0)
    expected = "keep has shape [2, 9]; expected [2, 10], a number for each feature"
    assert str(raised.value) == expected


def test_masked_inputs_by_hand(model: Build) -> None:
    def ask(call: Call) -> Any:
        features = features_of(call, {"a": [[0, 1, 1]], "b": -1})
        assert rows_of_masks(call, features) >= call.rows_together
        assert features.counts_of(call).tolist() == [2, 2]
        spread = features.spread(call, np.array([[1, 2], [3, 4]]))
        np.testing.assert_array_equal(spread["a"][1], [[3, 4, 4], [3, 4, 4]])
        np.testing.assert_array_equal(spread["b"], 0)
        return masked_rows(call, np.array([1]), np.array([[0.5, 0.0]]), features)

    x = NET.inputs(2, dtype=np.float64)
    found = _with_call(igonnx.Explainer(NET.onnx(model, np.float64)), x, ask, target=0, baseline=2)
    np.testing.assert_allclose(found["a"][0, :, 0], (x["a"][1, :, 0] + 2) / 2)
    np.testing.assert_array_equal(found["a"][0, :, 1:], 2)
    np.testing.assert_array_equal(found["b"][0], x["b"][1])
