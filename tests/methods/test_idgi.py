"""IDGI: against a second, plain implementation; it adds up to the last bit; gradients that are zero."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from tanh_net import Arrays, TanhNet, as_dict, assert_close

import igonnx

Build = Callable[..., onnx.ModelProto]
Array = NDArray[np.float64]
NET = TanhNet.make()
TARGET = np.array([2, 0, 1, 1, 2])
ENGINES = ["native", "reference"]
RULES = {"left": (1.0, 0.0), "right": (0.0, 1.0), "trapezoid": (0.5, 0.5)}


def _expected(x: Arrays, baseline: Arrays, steps: int, rule: str) -> dict[str, Array]:
    target = TARGET[: len(x["a"])]
    points = []
    for k in range(steps + 1):
        at = {name: baseline[name] + k / steps * (x[name] - baseline[name]) for name in x}
        gradient = NET.gradient(at, target)
        size = sum((g.reshape(len(g), -1) ** 2).sum(axis=1) for g in gradient.values())
        points.append((gradient, size, NET.score(at, target)))
    total = {name: np.zeros(array.shape) for name, array in x.items()}
    for start, end in pairwise(points):
        for share, (gradient, size, _) in zip(RULES[rule], (start, end), strict=True):
            factor = share * (end[2] - start[2]) / size
            for name, g in gradient.items():
                total[name] += factor.reshape(-1, *[1] * (g.ndim - 1)) * g**2
    return total


def _idgi(build: Build, x: Arrays, baseline: Any, **options: Any) -> igonnx.Attribution:
    keys = ("engine", "batch_size")
    settings = {key: options.pop(key) for key in keys if key in options}
    explainer = igonnx.Explainer(NET.onnx(build, x["a"].dtype.type), **settings)
    return explainer.idgi(x, baseline=baseline, target=TARGET[: len(x["a"])].tolist(), **options)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [1, 2, 13])
def test_second_implementation(model: Build, steps: int, rule: str, engine: str) -> None:
    x, baseline = (NET.inputs(5, seed, np.float64) for seed in (1, 2))
    found = _idgi(model, x, baseline, steps=steps, rule=rule, engine=engine)
    assert_close(found.values, _expected(x, baseline, steps, rule), 1e-11)
    assert np.abs(found.delta).max() < 1e-13
    assert (found.steps_used == steps + (rule == "trapezoid")).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("engine", ENGINES)
def test_examples_do_not_depend_on_each_other(model: Build, engine: str, dtype: Any) -> None:
    x, baseline = (NET.inputs(5, seed, dtype) for seed in (1, 2))
    bound = 1e-5 if dtype == np.float32 else 1e-12
    options = {"steps": 7, "engine": engine}
    together = _idgi(model, x, baseline, batch_size=3, **options)
    for batch_size in (1, 7, 50):
        found = _idgi(model, x, baseline, batch_size=batch_size, **options)
        assert_close(found.values, as_dict(together.values), bound)
    alone = _idgi(
        model, {n: a[:1] for n, a in x.items()}, {n: a[:1] for n, a in baseline.items()}, **options
    )
    assert_close(alone.values, {n: a[:1] for n, a in as_dict(together.values).items()}, bound)
    scale = np.abs(together.scores).max()
    assert np.abs(together.delta).max() < (1e-6 if dtype == np.float32 else 1e-14) * scale


@pytest.mark.parametrize("rule", RULES)
def test_a_linear_model_shares_by_squares(model: Build, rule: str) -> None:
    w = np.array([2.0, -3.0, 0.0, 1.0])
    explainer = igonnx.Explainer(
        model("(double[N, 4] x) => (double[N] y) { y = MatMul(x, w) }", {"w": w})
    )
    x = np.random.default_rng(0).normal(size=(3, 4))
    found = explainer.idgi(x, steps=3, rule=rule)
    np.testing.assert_allclose(found.values, (x @ w)[:, None] * w**2 / (w @ w), atol=1e-14)


# F(x) = relu(u . x - 1) - floor(v . x): up to u . x = 1 the gradient is zero, but the score has steps.
_STAIRS = """(double[N, 2] x) => (double[N] y) {
    a = MatMul(x, u)
    b = Sub(a, one)
    c = Relu(b)
    d = MatMul(x, v)
    e = Floor(d)
    y = Sub(c, e)
}"""


def _stairs(build: Build, v: float) -> igonnx.Explainer:
    weights = {"u": np.array([1.0, 2.0]), "v": np.array([0.0, v]), "one": np.array(1.0)}
    return igonnx.Explainer(build(_STAIRS, weights))


@pytest.mark.parametrize("rule", RULES)
def test_where_the_gradient_is_zero_the_next_one_shares_out(model: Build, rule: str) -> None:
    x = np.array([[1.0, 2.0], [1.0, 0.5], [0.0, 0.5]])  # u . x is 5, 2, 1
    found = _stairs(model, 1.5).idgi(x, steps=9, rule=rule)
    change = found.scores - found.baseline_scores
    np.testing.assert_allclose(change, [4 - 3, 1, 0])
    np.testing.assert_allclose(found.values[:2], change[:2, None] * [0.2, 0.8], atol=1e-14)
    np.testing.assert_array_equal(found.values[2], 0)
    assert np.abs(found.delta).max() < 1e-14


@pytest.mark.parametrize("rule", RULES)
def test_where_no_gradient_follows_the_last_one_shares_out(model: Build, rule: str) -> None:
    found = _stairs(model, 1.5).idgi(np.zeros((1, 2)), baseline=np.array([[1.0, 2.0]]), rule=rule)
    np.testing.assert_allclose(found.values, [[-0.2, -0.8]], atol=1e-14)
    np.testing.assert_allclose(found.delta, 0, atol=1e-14)


def test_where_it_is_zero_throughout_delta_tells(model: Build) -> None:
    found = _stairs(model, 10.0).idgi(np.array([[0.0, 0.45]]), steps=4)
    np.testing.assert_array_equal(found.values, 0)
    np.testing.assert_allclose(found.delta, 4)


def test_a_gradient_that_is_not_needed_may_be_singular(model: Build) -> None:
    text = (
        "(double[N, 3] x) => (double[N] y) { s = Mul(x, x) t = ReduceSum<keepdims = 0>(s, one) "
        "y = Pow(t, half) }"
    )
    explainer = igonnx.Explainer(model(text, {"one": np.array([1]), "half": np.array(0.5)}))
    x = np.array([[1.0, 2.0, 2.0]])
    found = explainer.idgi(x, steps=5, rule="right")
    np.testing.assert_allclose(found.values, 3 * x**2 / 9, atol=1e-12)
    with pytest.raises(igonnx.EngineError, match="alpha = 0 on the path of example 0"):
        explainer.idgi(x, steps=5, rule="left")


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_sizes_of_gradients_do_not_matter(model: Build, scale: float) -> None:
    w = np.array([3.0, 4.0]) * scale
    explainer = igonnx.Explainer(
        model("(double[N, 2] x) => (double[N] y) { y = MatMul(x, w) }", {"w": w})
    )
    found = explainer.idgi(np.array([[1.0, 1.0]]), steps=2)
    np.testing.assert_allclose(found.values / scale, [[7 * 9 / 25, 7 * 16 / 25]])


def test_path_is_the_straight_one(model: Build) -> None:
    x, baseline = (NET.inputs(2, seed, np.float64) for seed in (1, 2))
    found = _idgi(model, x, baseline, steps=6, rule="trapezoid")
    explainer = igonnx.Explainer(NET.onnx(model, np.float64))
    straight = explainer.integrated_gradients(
        x, baseline=baseline, target=TARGET[:2].tolist(), steps=6, rule="trapezoid"
    )
    for ours, theirs in zip(found.path, straight.path, strict=True):
        for field in ("alpha", "weight", "score", "slope"):
            np.testing.assert_allclose(getattr(ours, field), getattr(theirs, field), atol=1e-12)


def test_images_and_inner_tensors(model: Build) -> None:
    rng = np.random.default_rng(3)
    weights = {"k": rng.normal(size=(4, 3, 3, 3)), "w": rng.normal(size=4 * 5 * 7)}
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    graph = model(
        """(float[N, 3, 5, 7] x) => (float[N] y) {
            c = Conv<pads = [1, 1, 1, 1]>(x, k)
            t = Tanh(c)
            f = Flatten(t)
            y = MatMul(f, w)
        }""",
        weights,
    )
    x = rng.normal(size=(2, 3, 5, 7)).astype(np.float32)
    for wrt, shape in ((None, (2, 3, 5, 7)), ("c", (2, 4, 5, 7)), ("t", (2, 4, 5, 7))):
        found = igonnx.Explainer(graph, wrt=wrt).idgi(x, steps=4)
        assert found.values.shape == shape
        assert np.abs(found.relative_delta).max() < 1e-5
    shares = weights["w"].reshape(4, 5, 7) ** 2 / (weights["w"] ** 2).sum()  # of the linear rest
    change = (found.scores - found.baseline_scores).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(found.values, change * shares, rtol=1e-5)


def test_noise_and_baselines_go_around_it(model: Build) -> None:
    x, baseline = (NET.inputs(2, seed, np.float64) for seed in (1, 2))
    options = {"steps": 6, "noise": "vargrad", "noise_samples": 3, "noise_std": 0.1}
    first, again, other = (_idgi(model, x, baseline, seed=seed, **options) for seed in (3, 3, 4))
    for name, array in as_dict(first.values).items():
        np.testing.assert_array_equal(array, as_dict(again.values)[name])
        assert not np.allclose(array, as_dict(other.values)[name])
    several = _idgi(model, x, [0.0, baseline], steps=6)
    single = [as_dict(_idgi(model, x, one, steps=6).values) for one in (0.0, baseline)]
    assert_close(several.values, {n: (single[0][n] + single[1][n]) / 2 for n in single[0]}, 1e-12)


def test_progress_ends_with_all(model: Build) -> None:
    told: list[tuple[int, int]] = []
    _idgi(
        model,
        NET.inputs(5, 1),
        0.0,
        steps=4,
        batch_size=2,
        progress=lambda *counts: told.append(counts),
    )
    assert told[-1] == (25, 25)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0; expected a whole number of at least 1"),
        ({"steps": True}, "steps is True; expected a whole number of at least 1"),
        ({"rule": "middle"}, "rule is 'middle'; expected 'left', 'right', 'trapezoid'"),
        ({"rule": ["left"]}, "rule is ['left']; expected 'left', 'right', 'trapezoid'"),
    ],
)
def test_what_is_refused(model: Build, options: dict[str, Any], message: str) -> None:
    with pytest.raises(igonnx.InputError) as caught:
        _idgi(model, NET.inputs(1), 0.0, **options)
    assert str(caught.value) == message
