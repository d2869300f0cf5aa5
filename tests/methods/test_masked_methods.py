"""Shapley values, KernelSHAP, LIME and RISE alike: kinds of models, batches, progress, stopping, what is refused."""

from __future__ import annotations

import threading
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
TARGET = [0, 2, 1]
each_engine = pytest.mark.parametrize("engine", ["native", "reference"])

# With settings under which none is slow.
METHODS: dict[str, dict[str, Any]] = {
    "shapley_value_sampling": {"samples": 6, "exact": False},
    "kernel_shap": {"samples": 60},
    "lime": {"samples": 30},
    "rise": {"masks": 40, "centred": True},
}
GAMES = [name for name in METHODS if name != "rise"]


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "lime":
        pytest.importorskip("sklearn")
    return name


def _random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _explained(explainer: igonnx.Explainer, method: str, inputs: Any, **options: Any) -> Any:
    return getattr(explainer, method)(inputs, **METHODS[method] | options)


# -- batches ------------------------------------------------------------------------------------


@each_engine
def test_batches_change_nothing(model: Build, engine: str, method: str) -> None:
    x, graph = NET.inputs(3), NET.onnx(model)
    x["b"][1, :2] = 0.1  # as the baseline
    explainers = [igonnx.Explainer(graph, engine=engine, batch_size=n) for n in (1, 2, 7, 500)]
    options = {"target": TARGET, "seed": 2, "baseline": 0.1}
    first, *others = [_explained(explainer, method, x, **options) for explainer in explainers]
    for other in others:
        assert_close(other.values, as_dict(first.values), 1e-5)
        np.testing.assert_array_equal(other.steps_used, first.steps_used)
        np.testing.assert_allclose(other.scores, first.scores, atol=1e-6)
    for example in range(3):
        rows = slice(example, example + 1)
        alone = _explained(
            explainers[1],
            method,
            {name: array[rows] for name, array in x.items()},
            **options | {"target": TARGET[example]},
        )
        assert_close(alone.values, {n: a[rows] for n, a in as_dict(first.values).items()}, 1e-5)
        np.testing.assert_array_equal(alone.steps_used, first.steps_used[rows])


def test_examples_that_are_alike_get_the_same(model: Build, method: str) -> None:
    x = {name: array[[0, 1, 0]] for name, array in NET.inputs(2).items()}
    values = as_dict(_explained(igonnx.Explainer(NET.onnx(model)), method, x, target=1).values)
    for array in values.values():
        np.testing.assert_allclose(array[0], array[2], atol=1e-6)
        assert np.abs(array[0] - array[1]).max() > 1e-3


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch(model: Build, method: str, batch: int) -> None:
    weights = {"w": _random(6, 4), "flat": np.array([batch, 6])}
    fixed, free = (
        igonnx.Explainer(
            model(
                f"(float[{n}, 2, 3] x) => (float[{n}, 4] y) {{ f = {f} \n h = MatMul(f, w) \n y = Tanh(h) }}",
                weights,
            )
        )
        for n, f in ((batch, "Reshape(x, flat)"), ("N", "Flatten(x)"))
    )
    x = _random(3, 2, 3, seed=1)
    one, any_ = (_explained(e, method, x, target=[0, 1, 3], baseline=0.2) for e in (fixed, free))
    np.testing.assert_allclose(one.values, any_.values, atol=1e-5)
    np.testing.assert_allclose(one.baseline_scores, any_.baseline_scores, atol=1e-6)


# -- kinds of models ----------------------------------------------------------------------------


def _trees(model: Build) -> onnx.ModelProto:
    """Two trees with one question each: 2 if x[0] <= 0.5 else 5, and 1 if x[2] <= -1 else 3."""
    return model(
        """(float[N, 4] x) => (float[N, 1] y) {
            y = ai.onnx.ml.TreeEnsembleRegressor <
                n_targets = 1, nodes_treeids = [0, 0, 0, 1, 1, 1], nodes_nodeids = [0, 1, 2, 0, 1, 2],
                nodes_featureids = [0, 0, 0, 2, 0, 0],
                nodes_modes = ["BRANCH_LEQ", "LEAF", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"],
                nodes_values = [0.5, 0.0, 0.0, -1.0, 0.0, 0.0],
                nodes_truenodeids = [1, 0, 0, 1, 0, 0], nodes_falsenodeids = [2, 0, 0, 2, 0, 0],
                target_treeids = [0, 0, 1, 1], target_nodeids = [1, 2, 1, 2], target_ids = [0, 0, 0, 0],
                target_weights = [2.0, 5.0, 1.0, 3.0]
            > (x)
        }""",
        domains=', "ai.onnx.ml": 3',
    )


def test_tree_ensembles(model: Build, method: str) -> None:
    """A sum of functions of one number each: its Shapley values are their changes."""
    explainer = igonnx.Explainer(_trees(model))
    x = np.array([[1.0, 9, 0.0, -7], [1.0, 2, -3.0, 1], [0.2, 1, -3.0, 4]], np.float32)
    found = _explained(explainer, method, x, target=0)
    np.testing.assert_allclose(found.scores, [8, 6, 3])
    np.testing.assert_allclose(found.baseline_scores, 5)
    expected = np.array([[3.0, 0, 0, 0], [3.0, 0, -2, 0], [0, 0, -2, 0]])
    if method in ("shapley_value_sampling", "kernel_shap"):
        np.testing.assert_allclose(found.values, expected, atol=1e-6)
    else:  # no more than in the mean: what decides stands out
        for value, goal in zip(np.abs(found.values), np.abs(expected), strict=True):
            assert value[goal > 0].min() > value[goal == 0].max()


def test_inputs_of_integers(model: Build, method: str) -> None:
    """No gradient, no embedding: they are masked like any numbers."""
    graph = model(
        """(int64[N, 5] x) => (float[N, 5] y) {
            c = CumSum(x, one)
            s = Mul(c, c)
            y = Cast<to = 1>(s)
        }""",
        {"one": np.array(1)},
    )
    explainer = igonnx.Explainer(graph)
    assert explainer.wrt == ("x",)
    x = np.random.default_rng(0).integers(1, 9, size=(3, 5))
    found = _explained(explainer, method, x, target=3)
    np.testing.assert_allclose(found.scores, x[:, :4].sum(axis=1) ** 2)
    if method in ("shapley_value_sampling", "kernel_shap"):
        # (x0 + ... + x3)^2: products in halves
        expected = x * x[:, :4].sum(axis=1, keepdims=True)
        expected[:, 4] = 0
        np.testing.assert_allclose(found.values, expected, atol=1e-4)


def test_an_embedding(model: Build, method: str) -> None:
    """A tensor inside the model: the words of a text, one feature each."""
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
    explainer = igonnx.Explainer(graph, batch_size=2)
    ids = np.array([[1, 5, 9], [2, 2, 10], [0, 7, 7]])
    words: dict[str, Any] = {"feature_mask": [[0], [1], [2]]}
    if method == "rise":
        words = {"axes": (0,), "masks": 3000}
    elif method == "lime":
        words["alpha"] = 0
    found = _explained(explainer, method, ids, target=1, baseline=0.3, **words)
    assert explainer.wrt == ("e",)
    values = np.asarray(found.values)
    assert values.shape == (3, 3, 4)
    assert (np.ptp(values, axis=2) == 0).all()
    each = np.tanh(table[ids]) @ w[:, 1] - (np.tanh(np.full(4, 0.3)) @ w)[1]
    if method == "rise":  # each word by itself, seen half of the time
        np.testing.assert_allclose(values[:, :, 0], each / 2, atol=0.25)
    else:
        np.testing.assert_allclose(values[:, :, 0], each, atol=1e-5)


def test_other_inputs(model: Build, method: str) -> None:
    """A mask with the batch axis, a table without: each masked copy of an example goes with its own."""
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
    explainer = igonnx.Explainer(graph, wrt="x")
    found = _explained(explainer, method, inputs, target=np.ones((3, 5)), baseline=0.1)
    for index in range(3):
        rows = slice(index, index + 1)
        one = {name: a if name == "table" else a[rows] for name, a in inputs.items()}
        alone = _explained(explainer, method, one, target=np.ones((1, 5)), baseline=0.1)
        np.testing.assert_allclose(alone.values, found.values[rows], atol=1e-6)
    if method in ("shapley_value_sampling", "kernel_shap"):  # a sum of functions of one number each
        scale = inputs["table"][inputs["row"]]
        each = np.sin(inputs["x"] * scale) - np.sin(0.1 * scale)
        np.testing.assert_allclose(found.values, np.where(inputs["mask"], each, 0), atol=1e-6)


def test_applied_to_the_output(model: Build, method: str) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model), apply="softmax"), NET.inputs(3)
    found = _explained(explainer, method, x, target=1)
    shares = np.exp(NET.outputs(x)) / np.exp(NET.outputs(x)).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.scores, shares[:, 1], rtol=1e-5)
    most = max(np.abs(array).max() for array in as_dict(found.values).values())
    assert most < 1


def test_half_precision(model: Build, method: str) -> None:
    graph = model("(float16[N, 3] x) => (float16[N, 3] y) { y = Sin(x) }")
    x = _random(2, 3).astype(np.float16)
    found = _explained(igonnx.Explainer(graph), method, x, target=1)
    assert found.values.dtype == np.float32
    np.testing.assert_allclose(found.scores, np.sin(x[:, 1].astype(float)), rtol=3e-3)


# -- several baselines, noise -------------------------------------------------------------------


def test_baselines_are_averaged(model: Build, method: str) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model)), NET.inputs(2)
    found = _explained(explainer, method, x, target=0, baseline=[0.2, {"a": -0.3}])
    parts = [_explained(explainer, method, x, target=0, baseline=b) for b in (0.2, {"a": -0.3})]
    for name, array in as_dict(found.values).items():
        np.testing.assert_allclose(
            array, np.mean([p.values[name] for p in parts], axis=0), atol=1e-6
        )
    np.testing.assert_allclose(found.delta, np.mean([p.delta for p in parts], axis=0), atol=1e-5)


@pytest.mark.parametrize("noise", ["smoothgrad", "vargrad"])
def test_noise(model: Build, method: str, noise: str) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model)), NET.inputs(2)
    options = {"noise": noise, "noise_samples": 3, "noise_std": 0.2, "seed": 1}
    found = _explained(explainer, method, x, target=0, **options)
    again = _explained(explainer, method, x, target=0, **options)
    assert_close(again.values, as_dict(found.values))
    plain = _explained(explainer, method, x, target=0, seed=1)
    assert np.abs(as_dict(found.values)["a"] - as_dict(plain.values)["a"]).max() > 1e-3
    np.testing.assert_array_equal(found.steps_used, 3 * plain.steps_used)


# -- progress, stopping, what is refused --------------------------------------------------------


def test_progress(model: Build, method: str) -> None:
    """In forward passes, to the last one."""
    calls: list[tuple[int, int]] = []
    explainer = igonnx.Explainer(NET.onnx(model), batch_size=4)
    found = _explained(
        explainer, method, NET.inputs(3), target=0, progress=lambda *at: calls.append(at)
    )
    total = int(found.steps_used.sum())
    assert {whole for _, whole in calls} == {total}
    done = [part for part, _ in calls]
    assert done == sorted(done)
    assert done[-1] == total
    assert len(done) > 3


def test_an_exception_in_progress_stops(model: Build, method: str) -> None:
    def enough(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _explained(
            igonnx.Explainer(NET.onnx(model)), method, NET.inputs(3), target=0, progress=enough
        )


def test_a_deadline(model: Build, method: str) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model), batch_size=1), NET.inputs(3)
    much = {
        "rise": {"masks": 10**7},
        "kernel_shap": {"samples": 1000},
        "shapley_value_sampling": {"samples": 2000},  # with more it would warn of so many passes
    }
    options = much.get(method, {"samples": 10**5})
    explainer.predict(x)  # sessions are made before
    with pytest.raises(igonnx.DeadlineError):
        _explained(explainer, method, x, target=0, timeout=0.02, **options)


def test_cancelled_inside(model: Build, method: str) -> None:
    stop, calls = threading.Event(), list[int]()
    token = igonnx.CancelToken()

    def watch(done: int, _: int) -> None:
        calls.append(done)
        if done > 20:
            token.cancel()

    explainer = igonnx.Explainer(NET.onnx(model), batch_size=2)
    with pytest.raises(igonnx.CancelledError):
        _explained(explainer, method, NET.inputs(3), target=0, progress=watch, cancel=token)
    assert calls[-1] > 20
    stop.set()
    with pytest.raises(igonnx.CancelledError):
        _explained(explainer, method, NET.inputs(3), target=0, cancel=stop)


def test_scores_that_are_no_numbers_are_refused(model: Build, method: str) -> None:
    """log(x) is not there where x is masked to zero."""
    graph = model(
        "(float[N, 4] x) => (float[N] y) { z = Log(x) \n y = ReduceSum<keepdims = 0>(z, one) }",
        {"one": np.array([1])},
    )
    with pytest.raises(igonnx.EngineError, match="the score is -inf") as caught:
        _explained(igonnx.Explainer(graph), method, np.ones((2, 4), np.float32))
    assert "\n" not in str(caught.value)
    assert "example" in str(caught.value)


@pytest.mark.parametrize("method", GAMES)
def test_superpixels(model: Build, method: str) -> None:
    """Two halves of a picture are two features, in every channel."""
    if method == "lime":
        pytest.importorskip("sklearn")
    x = np.zeros((1, 3, 12, 16), np.float32)
    x[:, :, :, 8:] = 1
    x += 0.01
    graph = model(
        """(float[N, 3, 12, 16] x) => (float[N] y) {
            f = Flatten(x)
            y = ReduceSum<keepdims = 0>(f, one)
        }""",
        {"one": np.array([1])},
    )
    found = _explained(igonnx.Explainer(graph), method, x, segments=2)
    values = np.asarray(found.values)
    assert "segments=2" in found.method
    assert len(np.unique(values)) == 2
    assert (values[..., :8] == values[0, 0, 0, 0]).all()
    assert (values[..., 8:] == values[0, 0, 0, 8]).all()
    if method != "lime":
        np.testing.assert_allclose(found.delta, 0, atol=1e-3)
    with pytest.raises(igonnx.InputError, match="feature_mask and segments are both given"):
        _explained(igonnx.Explainer(graph), method, x, segments=2, feature_mask=np.zeros(16, int))
