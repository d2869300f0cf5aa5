"""Saliency and input x gradient, and with them what every method has from `explain_with`: kinds of models, batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from tanh_net import TanhNet, as_dict, assert_close

import igonnx

Build = Callable[..., onnx.ModelProto]
NET = TanhNet.make(5)
TARGET = np.array([0, 2, 1])
each_engine = pytest.mark.parametrize("engine", ["native", "reference"])

# Every method, with settings under which none is slow.
METHODS: dict[str, dict[str, Any]] = {
    "saliency": {},
    "input_x_gradient": {},
    "integrated_gradients": {"steps": 8},
    "smoothgrad_ig": {"steps": 4, "noise_samples": 3},
    "expected_gradients": {"samples": 9},
    "gradient_shap": {"samples": 9, "noise_std": 0.1},
}


def _random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# -- closed forms ------------------------------------------------------------------------------


@each_engine
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saliency(model: Build, engine: str, dtype: Any) -> None:
    explainer = igonnx.Explainer(NET.onnx(model, dtype), engine=engine)
    x, bound = NET.inputs(3, dtype=dtype), 1e-5 if dtype is np.float32 else 1e-12
    gradient = NET.gradient(x, TARGET)
    signed = explainer.saliency(x, target=TARGET.tolist(), absolute=False)
    assert_close(signed.values, gradient, bound)
    plain = explainer.saliency(x, target=TARGET.tolist())
    assert_close(plain.values, {name: np.abs(g) for name, g in gradient.items()}, bound)
    assert all(array.dtype == dtype for array in as_dict(plain.values).values())
    assert plain.steps_used.tolist() == [1, 1, 1]
    assert plain.path == []
    assert (plain.method, signed.method) == ("saliency absolute=True", "saliency absolute=False")


@pytest.mark.parametrize("baseline", [None, 0.4, {"b": 0.3}, [0.0, 1.0]], ids=str)
def test_baselines_only_count_in_the_delta_of_saliency(model: Build, baseline: Any) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model)), NET.inputs(3)
    found = explainer.saliency(x, target=TARGET.tolist(), baseline=baseline)
    assert_close(found.values, {n: np.abs(g) for n, g in NET.gradient(x, TARGET).items()}, 1e-5)
    several = baseline if isinstance(baseline, list) else [baseline]
    base = []
    for one in several:
        filled = {n: (one or {}).get(n, 0.0) if isinstance(one, dict | None) else one for n in x}
        start = {name: np.full_like(array, filled[name]) for name, array in x.items()}
        base.append(NET.score(start, TARGET))
    np.testing.assert_allclose(found.scores, NET.score(x, TARGET), rtol=1e-5)
    np.testing.assert_allclose(found.baseline_scores, np.mean(base, axis=0), rtol=1e-5)
    sums = sum(a.reshape(3, -1).sum(axis=1) for a in as_dict(found.values).values())
    np.testing.assert_allclose(found.delta, sums - found.scores + found.baseline_scores, atol=1e-5)


@each_engine
def test_input_x_gradient(model: Build, engine: str) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model), engine=engine), NET.inputs(3)
    gradient = NET.gradient(x, TARGET)
    found = explainer.input_x_gradient(x, target=TARGET.tolist())
    assert_close(found.values, {name: g * x[name] for name, g in gradient.items()}, 1e-5)
    found = explainer.input_x_gradient(x, target=TARGET.tolist(), baseline=0.7)
    assert_close(found.values, {name: g * (x[name] - 0.7) for name, g in gradient.items()}, 1e-5)
    found = explainer.input_x_gradient(x, target=TARGET.tolist(), baseline=[0.7, {"a": 0.1}])
    mean = {"a": 0.4, "b": 0.35}
    assert_close(found.values, {n: g * (x[n] - mean[n]) for n, g in gradient.items()}, 1e-5)


def test_masks_and_weights_as_targets(model: Build) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model)), NET.inputs(3)
    weights = np.random.default_rng(0).normal(size=(3, 3))
    expected = {
        name: sum(
            weights[:, k].reshape(-1, *[1] * (a.ndim - 1)) * NET.gradient(x, np.full(3, k))[name]
            for k in range(3)
        )
        for name, a in x.items()
    }
    found = explainer.saliency(x, target=weights, absolute=False)
    assert_close(found.values, expected, 1e-5)
    np.testing.assert_allclose(found.scores, (weights * NET.outputs(x)).sum(axis=1), rtol=1e-5)
    assert found.target == [None] * 3


# -- every method, batches ---------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@each_engine
def test_batches_change_nothing(model: Build, engine: str, method: str) -> None:
    x, graph = NET.inputs(3), NET.onnx(model)
    explainers = [igonnx.Explainer(graph, engine=engine, batch_size=n) for n in (1, 2, 7, 500)]
    options = {"target": TARGET.tolist(), "seed": 2, **METHODS[method]}
    first, *others = [getattr(explainer, method)(x, **options) for explainer in explainers]
    for other in others:
        assert_close(other.values, as_dict(first.values))
        np.testing.assert_allclose(other.baseline_scores, first.baseline_scores, atol=1e-6)
        np.testing.assert_array_equal(other.steps_used, first.steps_used)
    alone = getattr(explainers[0], method)(
        {name: array[1:2] for name, array in x.items()}, **options | {"target": int(TARGET[1])}
    )
    assert_close(alone.values, {n: a[1:2] for n, a in as_dict(first.values).items()})


@pytest.mark.parametrize("method", METHODS)
def test_both_engines_agree(model: Build, method: str) -> None:
    x, graph = NET.inputs(3), NET.onnx(model)
    native, reference = [
        getattr(igonnx.Explainer(graph, engine=engine), method)(x, **METHODS[method])
        for engine in ("native", "reference")
    ]
    assert_close(native.values, as_dict(reference.values), 1e-5)
    for name in ("scores", "baseline_scores", "delta"):
        np.testing.assert_allclose(getattr(native, name), getattr(reference, name), atol=1e-5)
    assert native.method == reference.method


# -- every method, kinds of models -------------------------------------------------------------

STUCK = """s = Squeeze(x, zero)
           f = Reshape(s, flat)
           h = MatMul(f, w)
           y = Tanh(h)"""


@each_engine
@pytest.mark.parametrize("method", METHODS)
def test_a_fixed_batch_of_one(model: Build, method: str, engine: str) -> None:
    w = _random(6, 4)
    weights = {"w": w, "flat": np.array([1, -1]), "zero": np.array([0])}
    fixed = model(f"(float[1, 2, 3] x) => (float[1, 4] y) {{ {STUCK} }}", weights)
    free = model(
        "(float[N, 2, 3] x) => (float[N, 4] y) { f = Flatten(x) \n h = MatMul(f, w) \n y = Tanh(h) }",
        {"w": w},
    )
    x = _random(3, 2, 3, seed=1)
    options = {"target": [0, 1, 3], "baseline": 0.2, **METHODS[method]}
    one, any_ = [
        getattr(igonnx.Explainer(graph, engine=engine), method)(x, **options)
        for graph in (fixed, free)
    ]
    np.testing.assert_allclose(one.values, any_.values, atol=1e-5)
    np.testing.assert_allclose(one.baseline_scores, any_.baseline_scores, atol=1e-6)
    np.testing.assert_allclose(one.scores, any_.scores, atol=1e-6)


@each_engine
@pytest.mark.parametrize("method", METHODS)
def test_a_fixed_batch_of_four(model: Build, method: str, engine: str) -> None:
    w = _random(6, 4)
    weights = {"w": w, "flat": np.array([4, 6]), "halves": np.array([2, 2])}
    graph = model(
        """(float[4, 2, 3] x) => (float[4, 4] y) {
            a, b = Split<axis = 0>(x, halves)
            j = Concat<axis = 0>(a, b)
            f = Reshape(j, flat)
            h = MatMul(f, w)
            y = Tanh(h)
        }""",
        weights,
    )
    x = _random(3, 2, 3, seed=1)
    options = {"target": [0, 1, 3], "baseline": 0.2, **METHODS[method]}
    explainer = igonnx.Explainer(graph, engine=engine)
    found = getattr(explainer, method)(x, **options)
    picked = (np.arange(3), [0, 1, 3])
    np.testing.assert_allclose(found.scores, np.tanh(x.reshape(3, 6) @ w)[picked], rtol=1e-4)
    base = np.tanh(np.full((3, 6), 0.2) @ w)[picked]
    np.testing.assert_allclose(found.baseline_scores, base, rtol=1e-4)
    alone = getattr(explainer, method)(x[1:2], **options | {"target": 1})
    np.testing.assert_allclose(alone.values, found.values[1:2], atol=1e-6)


@each_engine
@pytest.mark.parametrize("method", METHODS)
def test_other_inputs(model: Build, method: str, engine: str) -> None:
    """A mask with the batch axis, a table without: each copy of an example goes with its own mask."""
    graph = model(
        """(float[N, 5] x, bool[N, 5] mask, int64[N] row, float[4, 5] table) => (float[N, 5] y) {
            z = Where(mask, x, zero)
            scale = Gather(table, row)
            p = Mul(z, scale)
            y = Sin(p)
        }""",
        {"zero": np.float32(0)},
    )
    inputs: dict[str, Any] = {
        "x": _random(3, 5),
        "mask": np.array([[1, 1, 0, 1, 1], [0, 1, 1, 1, 1], [1, 1, 1, 1, 0]], bool),
        "row": np.array([2, 0, 3]),
        "table": _random(4, 5, seed=1),
    }
    explainer = igonnx.Explainer(graph, wrt="x", engine=engine)
    options = {"target": np.ones((3, 5)), "seed": 1, "baseline": [0.1, -0.2], **METHODS[method]}
    found = getattr(explainer, method)(inputs, **options)
    assert (found.values[~inputs["mask"]] == 0).all()
    assert (found.values[inputs["mask"]] != 0).all()
    for index in range(3):
        rows = slice(index, index + 1)
        one = {name: a if name == "table" else a[rows] for name, a in inputs.items()}
        alone = getattr(explainer, method)(one, **options | {"target": np.ones((1, 5))})
        np.testing.assert_allclose(alone.values, found.values[rows], atol=1e-6)
        np.testing.assert_allclose(alone.baseline_scores, found.baseline_scores[rows], atol=1e-6)
        start = np.where(inputs["mask"][index], 0.1, 0) * inputs["table"][inputs["row"][index]]
        stop = np.where(inputs["mask"][index], -0.2, 0) * inputs["table"][inputs["row"][index]]
        if method not in ("expected_gradients", "gradient_shap"):
            base = (np.sin(start) + np.sin(stop)).sum() / 2
            assert found.baseline_scores[index] == pytest.approx(base, abs=1e-5)


@each_engine
@pytest.mark.parametrize("method", METHODS)
def test_a_model_fed_with_integers(model: Build, method: str, engine: str) -> None:
    """Its embedding is explained, where scores come from gradients, for it cannot be fed."""
    table, w = _random(11, 4, seed=1), _random(4, 3, seed=2)
    graph = model(
        """(int64[N, L] ids) => (float[N, 3] y) {
            e = Gather(table, ids)
            t = Tanh(e)
            s = ReduceSum<keepdims = 0>(t, one)
            y = MatMul(s, w)
        }""",
        {"table": table, "w": w, "one": np.array([1])},
    )
    explainer = igonnx.Explainer(graph, engine=engine, batch_size=2)
    ids = np.array([[1, 5, 9], [2, 2, 10], [0, 7, 7]])
    calls: list[tuple[int, int]] = []
    found = getattr(explainer, method)(
        ids, target=1, baseline=0.3, progress=lambda *at: calls.append(at), **METHODS[method]
    )
    assert explainer.wrt == ("e",)
    assert found.values.shape == (3, 3, 4)
    np.testing.assert_allclose(found.scores, np.tanh(table[ids]).sum(axis=1) @ w[:, 1], rtol=1e-4)
    base = (np.tanh(np.full((3, 4), 0.3)).sum(axis=0) @ w)[1]
    np.testing.assert_allclose(found.baseline_scores, np.full(3, base), rtol=1e-4)
    assert calls[-1][0] == calls[-1][1]
    if method == "saliency":
        slope = np.abs((1 - np.tanh(table[ids]) ** 2) * w[:, 1])
        np.testing.assert_allclose(found.values, slope, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_inner_and_outer_tensors_together(model: Build, method: str) -> None:
    graph = model(
        "(float[N, 3] x, float[N, 3] z) => (float[N, 3] y) { h = Sin(x) \n p = Mul(h, z) \n y = Tanh(p) }"
    )
    explainer = igonnx.Explainer(graph, wrt=["h", "z"])
    inputs = {"x": _random(4, 3), "z": _random(4, 3, seed=1)}
    found = getattr(explainer, method)(
        inputs, target=2, baseline={"h": 0.1, "z": 0.2}, **METHODS[method]
    )
    assert set(as_dict(found.values)) == {"h", "z"}
    np.testing.assert_allclose(
        found.scores, np.tanh(np.sin(inputs["x"]) * inputs["z"])[:, 2], rtol=1e-4
    )
    np.testing.assert_allclose(found.baseline_scores, np.full(4, np.tanh(0.02)), rtol=1e-4)
    for array in as_dict(found.values).values():
        assert (array[:, :2] == 0).all()
        assert (array[:, 2] != 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_examples_that_influence_each_other(model: Build, method: str) -> None:
    """Each is explained as a batch of one, its copies as well; who called is told so."""
    graph = model(
        "(float[N, 3] x) => (float[N, 3] y) { m = ReduceMean<keepdims = 1>(x) \n y = Mul(x, m) }"
    )
    explainer, x = igonnx.Explainer(graph), _random(3, 3)
    with pytest.warns(UserWarning, match="influence each other") as caught:
        found = getattr(explainer, method)(x, target=0, baseline=0.5, **METHODS[method])
    assert {w.filename for w in caught} == {__file__}
    np.testing.assert_allclose(found.scores, x[:, 0] * x.mean(axis=1), rtol=1e-4)
    np.testing.assert_allclose(found.baseline_scores, np.full(3, 0.25), rtol=1e-5)
    alone = getattr(explainer, method)(x[2:], target=0, baseline=0.5, **METHODS[method])
    np.testing.assert_allclose(found.values[2:], alone.values, atol=1e-6)


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
def test_without_relu_the_caller_is_told(model: Build, method: str) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model)), NET.inputs(3)
    with pytest.warns(UserWarning, match="no ReLU lies on the way") as caught:
        found = getattr(explainer, method)(x, target=TARGET.tolist())
    assert {w.filename for w in caught} == {__file__}
    assert_close(found.values, NET.gradient(x, TARGET), 1e-5)


@each_engine
@pytest.mark.parametrize("method", METHODS)
def test_an_output_without_batch_axis(model: Build, method: str, engine: str) -> None:
    weights = {"w": _random(6, 4), "flat": np.array([1, -1]), "zero": np.array([0])}
    graph = model(
        """(float[1, 2, 3] x) => (float[4] v) {
            f = Reshape(x, flat)
            h = MatMul(f, w)
            y = Tanh(h)
            v = Squeeze(y, zero)
        }""",
        weights,
    )
    x = _random(3, 2, 3, seed=1)
    found = getattr(igonnx.Explainer(graph, engine=engine), method)(x, target=1, **METHODS[method])
    np.testing.assert_allclose(
        found.scores, np.tanh(x.reshape(3, 6) @ weights["w"])[:, 1], rtol=1e-4
    )
    np.testing.assert_allclose(found.baseline_scores, 0, atol=1e-6)


@pytest.mark.parametrize("apply", ["softmax", "log_softmax", "sigmoid", ("softmax", 1)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_applied_to_the_output(model: Build, method: str, apply: Any) -> None:
    """Scores of forward passes are those after `apply`, as those of gradients are."""
    explainer, x = igonnx.Explainer(NET.onnx(model), apply=apply), NET.inputs(3)
    found = getattr(explainer, method)(x, target=1, **METHODS[method])

    def applied(logits: NDArray[np.float64]) -> NDArray[np.float64]:
        if apply == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-logits)))
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return np.asarray(np.log(shares) if apply == "log_softmax" else shares)

    zeros = {name: np.zeros_like(array) for name, array in x.items()}
    np.testing.assert_allclose(found.scores, applied(NET.outputs(x))[:, 1], rtol=1e-5)
    np.testing.assert_allclose(found.baseline_scores, applied(NET.outputs(zeros))[:, 1], rtol=1e-5)


def test_half_precision(model: Build) -> None:
    """Points between are float32 up to the model's door."""
    graph = model(
        "(float16[N, 3] x) => (float16[N, 3] y) { s = Sin(x) \n y = Mul(s, two) }",
        {"two": np.float16(2)},
    )
    explainer, x = igonnx.Explainer(graph), _random(2, 3).astype(np.float16)
    for method, options in METHODS.items():
        found = getattr(explainer, method)(x, target=1, **options)
        assert found.values.dtype == np.float32
        np.testing.assert_allclose(found.scores, 2 * np.sin(x[:, 1].astype(float)), rtol=3e-3)
        assert (found.values[:, [0, 2]] == 0).all()
