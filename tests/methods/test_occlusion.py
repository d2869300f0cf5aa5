"""Occlusion: against a plain loop over windows, a linear model by hand, kinds of models, and what is refused."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from tanh_net import TanhNet, as_dict, assert_close

import igonnx

Build = Callable[..., onnx.ModelProto]
Array = NDArray[Any]
NET = TanhNet.make(3)
TARGET = np.array([2, 0, 1])
each_engine = pytest.mark.parametrize("engine", ["native", "reference"])


def _places(
    shape: Sequence[int], window: Sequence[int], strides: Sequence[int]
) -> list[tuple[slice, ...]]:
    """What each window covers; the last ones reach beyond the end, which slices cut off."""
    starts = [
        [k * step for k in range(math.ceil((n - size) / step) + 1)]
        for n, size, step in zip(shape, window, strides, strict=True)
    ]
    return [
        tuple(slice(at, at + size) for at, size in zip(corner, window, strict=True))
        for corner in itertools.product(*starts)
    ]


def _expected(
    score: Callable[[Array], Array],
    x: Array,
    baseline: Array,
    window: Sequence[int],
    strides: Sequence[int],
) -> Array:
    """The mean loss over the windows that cover an element, for x [N, ...] and scores [N]."""
    total, times, whole = np.zeros(x.shape), np.zeros(x.shape), score(x)
    for place in _places(x.shape[1:], window, strides):
        at = (slice(None), *place)
        masked = x.copy()
        masked[at] = baseline[at]
        total[at] += (whole - score(masked)).reshape(-1, *[1] * (x.ndim - 1))
        times[at] += 1
    return np.asarray(total / times)


def _squares(build: Build, shape: Sequence[int], seed: int) -> tuple[onnx.ModelProto, Any]:
    """A model of x [N, *shape] whose score is (sum of w x)^2, and that score in NumPy."""
    w = np.random.default_rng(seed).normal(size=(math.prod(shape), 1))
    sizes = ", ".join(map(str, shape))
    graph = build(
        f"""(double[N, {sizes}] x) => (double[N, 1] y) {{
            f = Flatten(x)
            s = MatMul(f, w)
            y = Mul(s, s)
        }}""",
        {"w": w},
    )
    return graph, lambda x: (x.reshape(len(x), -1) @ w)[:, 0] ** 2


@each_engine
@pytest.mark.parametrize("seed", range(6))
def test_a_plain_loop(model: Build, engine: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = random.integers(2, 7, size=1 + seed % 4)
    window = random.integers(1, shape + 1)
    strides = random.integers(1, window + 1)
    graph, score = _squares(model, shape.tolist(), seed)
    x, baseline = random.normal(size=(2, 3, *shape))
    explainer = igonnx.Explainer(graph, engine=engine, batch_size=5)
    found = explainer.occlusion(
        x, baseline=baseline, window=tuple(window), strides=strides.tolist()
    )
    expected = _expected(score, x, baseline, window.tolist(), strides.tolist())
    np.testing.assert_allclose(found.values, expected, atol=1e-12 * np.abs(expected).max())
    passes = len(_places(shape.tolist(), window.tolist(), strides.tolist())) + 1
    assert (found.steps_used == passes).all()
    np.testing.assert_allclose(found.scores, score(x), rtol=1e-12)
    np.testing.assert_allclose(found.baseline_scores, score(baseline), rtol=1e-12)


def test_a_linear_model_by_hand(model: Build) -> None:
    # Under windows of two, one step at a time, the losses of y = x0 + 10 x1 + 100 x2 from zero are 11, 110.
    graph = model(
        "(float[N, 3] x) => (float[N, 1] y) { y = MatMul(x, w) }",
        {"w": np.array([[1], [10], [100]], np.float32)},
    )
    explainer = igonnx.Explainer(graph)
    found = explainer.occlusion(np.ones((1, 3), np.float32), window=2)
    np.testing.assert_allclose(found.values, [[11, 60.5, 110]], rtol=1e-6)
    # In steps of two, the last window reaches beyond the end.
    found = explainer.occlusion(np.ones((1, 3), np.float32), window=2, strides=2)
    np.testing.assert_allclose(found.values, [[11, 11, 100]], rtol=1e-6)
    alone = explainer.occlusion(np.ones((1, 3), np.float32))
    np.testing.assert_allclose(alone.values, [[1, 10, 100]], rtol=1e-6)
    np.testing.assert_allclose(alone.delta, 0, atol=1e-4)


@each_engine
def test_tensors_are_covered_one_after_the_other(model: Build, engine: str) -> None:
    x, baseline = (NET.inputs(3, seed, np.float64) for seed in (1, 2))
    explainer = igonnx.Explainer(NET.onnx(model, np.float64), engine=engine)
    options = {"window": {"a": (2, 2), "b": 3}, "strides": {"a": (1, 1), "b": 2}}
    found = explainer.occlusion(x, target=TARGET.tolist(), baseline=baseline, **options)
    for name, window, strides in (("a", (2, 2), (1, 1)), ("b", (3,), (2,))):

        def score(z: Array, name: str = name) -> Array:
            return NET.score(x | {name: z}, TARGET)

        expected = _expected(score, x[name], baseline[name], window, strides)
        np.testing.assert_allclose(as_dict(found.values)[name], expected, atol=1e-12)
    assert (found.steps_used == 2 + 2 + 1).all()


@each_engine
def test_batches_change_nothing(model: Build, engine: str) -> None:
    x, graph = NET.inputs(3), NET.onnx(model)
    options: dict[str, Any] = {"target": TARGET.tolist(), "window": 2, "baseline": 0.1}
    first, *others = [
        igonnx.Explainer(graph, engine=engine, batch_size=size).occlusion(x, **options)
        for size in (1, 2, 7, 500)
    ]
    for other in others:
        assert_close(other.values, as_dict(first.values), 1e-5)
    for example in range(3):
        one = {name: array[example : example + 1] for name, array in x.items()}
        explainer = igonnx.Explainer(graph, engine=engine)
        alone = explainer.occlusion(one, **options | {"target": int(TARGET[example])})
        expected = {n: array[example : example + 1] for n, array in as_dict(first.values).items()}
        assert_close(alone.values, expected, 1e-5)


def test_several_baselines_and_noise(model: Build) -> None:
    x, graph = NET.inputs(2, dtype=np.float64), NET.onnx(model, np.float64)
    explainer = igonnx.Explainer(graph)
    options: dict[str, Any] = {"target": [1, 2], "window": 2}
    both = explainer.occlusion(x, baseline=[0.5, -1.0], **options)
    parts = [as_dict(explainer.occlusion(x, baseline=b, **options).values) for b in (0.5, -1.0)]
    mean = {name: (parts[0][name] + parts[1][name]) / 2 for name in x}
    assert_close(both.values, mean, 1e-12)
    noisy = [explainer.occlusion(x, noise="smoothgrad", seed=s, **options) for s in (3, 3, 4)]
    assert_close(noisy[1].values, as_dict(noisy[0].values), 1e-12)
    assert np.abs(as_dict(noisy[2].values)["a"] - as_dict(noisy[0].values)["a"]).max() > 1e-3


@each_engine
def test_what_the_model_does_not_look_at(model: Build, engine: str) -> None:
    w = np.array([[1], [0], [0], [2]], np.float32)
    graph = model("(float[N, 4] x) => (float[N, 1] y) { y = MatMul(x, w) }", {"w": w})
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    found = igonnx.Explainer(graph, engine=engine).occlusion(x, window=1)
    assert (found.values[:, 1:3] == 0).all()


def test_pictures_get_a_window_of_their_own(model: Build) -> None:
    for shape in ([3, 28, 42], [28, 42, 3]):
        graph, score = _squares(model, shape, 1)
        x = np.random.default_rng(1).normal(size=(1, *shape))
        found = igonnx.Explainer(graph).occlusion(x)
        window = [3 if n == 3 else n // 14 for n in shape]
        strides = [math.ceil(size / 2) for size in window]
        expected = _expected(score, x, np.zeros_like(x), window, strides)
        np.testing.assert_allclose(found.values, expected, atol=1e-11 * np.abs(expected).max())


@each_engine
def test_models_without_gradient(model: Build, engine: str) -> None:
    # Whole numbers in, a lookup, and a step on the way out.
    table = np.random.default_rng(2).normal(size=(5, 2)).astype(np.float32)
    graph = model(
        """(int64[N, 4] ids) => (float[N, 2] y) {
            e = Gather(table, ids)
            s = ReduceSum<keepdims = 0>(e, one)
            y = Floor(s)
        }""",
        {"table": table, "one": np.array([1])},
    )
    ids = np.array([[0, 1, 2, 3], [4, 4, 1, 0]])
    found = igonnx.Explainer(graph, engine=engine, wrt="ids").occlusion(
        ids, target=1, window=2, baseline=3
    )

    def score(z: Array) -> Array:
        return np.asarray(np.floor(table[z].sum(axis=1, dtype=np.float32))[:, 1])

    expected = _expected(score, ids, np.full_like(ids, 3), (2,), (1,))
    np.testing.assert_allclose(found.values, expected, atol=1e-6)


@each_engine
def test_inner_tensors_and_fixed_batches(model: Build, engine: str) -> None:
    weights = {"w": np.eye(3, dtype=np.float32), "v": np.arange(6, dtype=np.float32).reshape(3, 2)}
    text = "{ h = MatMul(x, w)\n t = Tanh(h)\n y = MatMul(t, v) }"
    x = np.random.default_rng(3).normal(size=(5, 3)).astype(np.float32)
    free, fixed = (model(f"(float[{n}, 3] x) => (float[{n}, 2] y) {text}", weights) for n in "N2")
    options: dict[str, Any] = {"target": 1, "window": 2}
    explainers = [
        igonnx.Explainer(graph, engine=engine, wrt=wrt) for graph in (free, fixed) for wrt in "xh"
    ]
    first, *others = [explainer.occlusion(x, **options).values for explainer in explainers]
    for other in others:  # h is x
        np.testing.assert_allclose(other, first, atol=1e-6)


@each_engine
def test_examples_that_are_single_numbers(model: Build, engine: str) -> None:
    explainer = igonnx.Explainer(
        model("(float[N] x) => (float[N] y) { y = Exp(x) }"), engine=engine
    )
    x = np.array([0.5, -1, 2], np.float32)
    np.testing.assert_allclose(explainer.occlusion(x).values, np.exp(x) - 1, rtol=1e-5)


NUMBERS = "expected a whole number of at least 1 for each axis of [2, 4]"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, f"window of 'x' is 0; {NUMBERS}"),
        ({"window": (1, 2, 3)}, f"window of 'x' is (1, 2, 3); {NUMBERS}"),
        ({"window": (1, 2.0)}, f"window of 'x' is (1, 2.0); {NUMBERS}"),
        ({"window": (3, 2)}, "window of 'x' is 3 along axis 0 of 2; expected at most that"),
        (
            {"window": 2, "strides": 3},
            "strides of 'x' is 3 along axis 0, where the window is 2: what lies between two windows would have no "
            "value",
        ),
        ({"window": {"z": 2}}, "window is for 'z'; explained are 'x'"),
    ],
)
def test_what_is_refused(model: Build, options: dict[str, Any], message: str) -> None:
    graph, _ = _squares(model, [2, 4], 0)
    with pytest.raises(igonnx.InputError) as raised:
        igonnx.Explainer(graph).occlusion(np.zeros((1, 2, 4)), **options)
    assert str(raised.value) == message


def test_sizes_for_several_tensors_have_names(model: Build) -> None:
    with pytest.raises(igonnx.InputError, match=r"^window is one size; 2 tensors are explained"):
        igonnx.Explainer(NET.onnx(model)).occlusion(NET.inputs(1), window=(1, 2))


@each_engine
def test_nan_is_refused(model: Build, engine: str) -> None:
    text = "(float[N, 2] x) => (float[N, 1] y) { l = Log(x)\n y = MatMul(l, w) }"
    graph = model(text, {"w": np.ones((2, 1), np.float32)})
    explainer = igonnx.Explainer(graph, engine=engine)
    with pytest.raises(igonnx.InputError, match=r"^input 'x' is nan at \[0, 1\]"):
        explainer.occlusion(np.array([[1, np.nan]], np.float32))
    with pytest.raises(igonnx.EngineError, match=r"the score is -inf at a point of example 1"):
        explainer.occlusion(np.ones((2, 2), np.float32), baseline=np.array([[1, 1], [0, 1]]))


@each_engine
def test_progress_and_stopping(model: Build, engine: str) -> None:
    explainer = igonnx.Explainer(NET.onnx(model), engine=engine, batch_size=2)
    x = NET.inputs(2)
    seen: list[tuple[int, int]] = []
    explainer.occlusion(x, target=0, progress=lambda *counts: seen.append(counts))
    assert seen[-1] == (22, 22)
    assert sorted(seen) == seen
    stop = igonnx.CancelToken()
    with pytest.raises(igonnx.CancelledError):
        explainer.occlusion(x, target=0, cancel=stop, progress=lambda *_: stop.cancel())
    with pytest.raises(ZeroDivisionError):
        explainer.occlusion(x, target=0, progress=lambda done, _: 1 // 0)
    event = threading.Event()
    event.set()
    with pytest.raises(igonnx.CancelledError):
        explainer.occlusion(x, target=0, cancel=event)
    with pytest.raises(igonnx.DeadlineError):
        explainer.occlusion(x, target=0, timeout=1e-9)
