"""Guided IG: against a second, plain implementation, closed forms, and what its path has to keep to."""

from __future__ import annotations

import threading
from collections.abc import Callable
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


def _steps_of_one(
    x: Array, baseline: Array, here: Array, gradient: Array, settings: dict[str, Any], step: int
) -> Array:
    """The point after `step`, all float64 [D]: coordinate by coordinate, as the paper's Algorithm 1 is worded."""
    steps, parts = settings["steps"], settings.get("anchors", 0) + 1
    goal = (step + 1) / steps
    stops = [part * steps // parts / steps for part in range(parts + 1)]
    low = max([goal - settings["max_distance"]] + [s for s in stops if s < goal])
    high = min([goal + settings["max_distance"]] + [s for s in stops if s >= goal])
    furthest = [b + high * (t - b) for t, b in zip(x, baseline, strict=True)]
    point = [
        b + low * (t - b) if abs(p - b) < abs(low * (t - b)) else p
        for p, t, b in zip(here, x, baseline, strict=True)
    ]
    wanted = (1 - goal) * np.abs(x - baseline).sum()
    together = int(settings["fraction"] * (len(x) - 1)) + 1
    free = {
        i for i in range(len(x)) if abs(furthest[i] - point[i]) > 1e-14 * abs(x[i] - baseline[i])
    }
    while free:
        lack = sum(abs(t - p) for t, p in zip(x, point, strict=True)) - wanted
        if lack <= 1e-12:
            break
        sizes = sorted(abs(gradient[i]) for i in free)
        bound = sizes[min(together, len(sizes)) - 1]
        group = [i for i in free if abs(gradient[i]) <= bound]
        gain = sum(abs(furthest[i] - point[i]) for i in group)
        for i in group:
            point[i] += min(lack / gain, 1.0) * (furthest[i] - point[i])
        free -= set(group)
    return np.array(point)


def _expected(
    x: Arrays, baseline: Arrays, rule: str = "left", **settings: Any
) -> tuple[dict[str, Array], Array]:
    """Attributions {name: [N, ...]} on `NET`, and the scores along the path [N, steps + 1]."""
    count = len(x["a"])
    target = TARGET[:count]
    point = {name: array.astype(np.float64) for name, array in baseline.items()}
    total = {name: np.zeros(array.shape) for name, array in x.items()}
    scores = [NET.score(point, target)]
    for step in range(settings["steps"]):
        gradient, after = NET.gradient(point, target), {}
        for name in x:
            after[name] = np.stack(
                [
                    _steps_of_one(
                        x[name][i].ravel(),
                        baseline[name][i].ravel(),
                        point[name][i].ravel(),
                        gradient[name][i].ravel(),
                        settings,
                        step,
                    )
                    for i in range(count)
                ]
            ).reshape(x[name].shape)
        following = NET.gradient(after, target)
        for name in x:
            start, end = {"left": (1, 0), "right": (0, 1), "trapezoid": (0.5, 0.5)}[rule]
            mean = start * gradient[name] + end * following[name]
            total[name] += mean * (after[name] - point[name])
        point = after
        scores.append(NET.score(point, target))
    return total, np.stack(scores, axis=1)


def _guided(build: Build, x: Arrays, baseline: Any, **options: Any) -> igonnx.Attribution:
    keys = ("engine", "batch_size")
    settings = {key: options.pop(key) for key in keys if key in options}
    explainer = igonnx.Explainer(NET.onnx(build, x["a"].dtype.type), **settings)
    return explainer.guided_ig(
        x, baseline=baseline, target=TARGET[: len(x["a"])].tolist(), **options
    )


SETTINGS: list[dict[str, Any]] = [
    {"steps": 20, "fraction": 0.25, "max_distance": 0.02},
    {"steps": 7, "fraction": 0.5, "max_distance": 0.3},
    {"steps": 13, "fraction": 0.0, "max_distance": 1.0},
    {"steps": 10, "fraction": 1.0, "max_distance": 0.1},
    {"steps": 11, "fraction": 0.1, "max_distance": 1.0, "anchors": 3},
    {"steps": 1, "fraction": 0.25, "max_distance": 0.02},
    {"steps": 2, "fraction": 0.3, "max_distance": 0.9, "anchors": 1},
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rule", ["left", "right", "trapezoid"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_second_implementation(
    model: Build, settings: dict[str, Any], rule: str, engine: str
) -> None:
    x, baseline = (NET.inputs(5, seed, np.float64) for seed in (1, 2))
    found = _guided(model, x, baseline, engine=engine, rule=rule, **settings)
    expected, scores = _expected(x, baseline, rule, **settings)
    assert_close(found.values, expected, 1e-9)
    np.testing.assert_allclose([path.score for path in found.path], scores, atol=1e-10)
    np.testing.assert_allclose(found.scores, scores[:, -1], atol=1e-12)
    np.testing.assert_allclose(found.baseline_scores, scores[:, 0], atol=1e-12)
    assert (found.steps_used == settings["steps"] + (rule == "trapezoid")).all()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_linear_model_has_its_closed_form(model: Build, settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    w, x, baseline = rng.normal(size=(3, 4, 12))
    linear = igonnx.Explainer(
        model("(double[N, 12] x) => (double[N] y) { y = MatMul(x, w) }", {"w": w[0]})
    )
    found = linear.guided_ig(x, baseline=baseline, **settings)
    np.testing.assert_allclose(found.values, w[0] * (x - baseline), atol=1e-12)
    assert np.abs(found.delta).max() < 1e-12


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_trapezoid_is_exact_on_a_sum_of_squares(model: Build, settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    w, x, baseline = rng.normal(size=(3, 4, 12))
    text = "(double[N, 12] x) => (double[N] y) { s = Mul(x, x) y = MatMul(s, w) }"
    squares = igonnx.Explainer(model(text, {"w": w[0]}))
    found = squares.guided_ig(x, baseline=baseline, rule="trapezoid", **settings)
    np.testing.assert_allclose(found.values, w[0] * (x**2 - baseline**2), atol=1e-12)


@pytest.mark.parametrize("rule", ["left", "right", "trapezoid"])
@pytest.mark.parametrize(
    "settings", [{"max_distance": 0.0}, {"max_distance": 1.0, "anchors": 15}], ids=str
)
def test_a_path_that_may_not_leave_is_straight(
    model: Build, settings: dict[str, Any], rule: str
) -> None:
    x, baseline = (NET.inputs(3, seed, np.float64) for seed in (1, 2))
    found = _guided(model, x, baseline, steps=16, rule=rule, **settings)
    explainer = igonnx.Explainer(NET.onnx(model, np.float64))
    straight = explainer.integrated_gradients(
        x, baseline=baseline, target=TARGET[:3].tolist(), steps=16, rule=rule
    )
    assert_close(found.values, as_dict(straight.values), 1e-12)
    for ours, theirs in zip(found.path, straight.path, strict=True):
        inner = slice(1, -1)  # ends without weight are given a slope of their own
        np.testing.assert_allclose(ours.slope[inner], theirs.slope[-16:-1], atol=1e-10)


def test_values_add_up_as_steps_get_smaller(model: Build) -> None:
    x, baseline = (NET.inputs(5, seed, np.float64) for seed in (1, 2))
    errors = {
        rule: [
            np.abs(_guided(model, x, baseline, rule=rule, steps=steps, max_distance=0.1).delta)
            for steps in (50, 800)
        ]
        for rule in ("left", "trapezoid")
    }
    for few, many in errors.values():
        assert many.max() < few.max() / 4
    assert errors["left"][1].max() < 0.01
    assert errors["trapezoid"][1].max() < 1e-4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("engine", ENGINES)
def test_examples_do_not_depend_on_each_other(model: Build, engine: str, dtype: Any) -> None:
    x, baseline = (NET.inputs(5, seed, dtype) for seed in (1, 2))
    options = {"steps": 9, "fraction": 0.3, "max_distance": 0.4, "engine": engine}
    bound = 2e-5 if dtype == np.float32 else 1e-12
    together = as_dict(_guided(model, x, baseline, batch_size=3, **options).values)
    for batch_size in (1, 7):
        found = _guided(model, x, baseline, batch_size=batch_size, **options)
        assert_close(found.values, together, bound)
    first = {name: array[:1] for name, array in x.items()}
    alone = _guided(model, first, {n: a[:1] for n, a in baseline.items()}, **options)
    assert_close(alone.values, {name: array[:1] for name, array in together.items()}, bound)


def test_noise_and_baselines_go_around_it(model: Build) -> None:
    x, baseline = (NET.inputs(2, seed, np.float64) for seed in (1, 2))
    options = {"steps": 6, "noise": "smoothgrad", "noise_samples": 3, "noise_std": 0.1}
    first, again, other = (_guided(model, x, baseline, seed=seed, **options) for seed in (3, 3, 4))
    for name, array in as_dict(first.values).items():
        np.testing.assert_array_equal(array, as_dict(again.values)[name])
        assert not np.allclose(array, as_dict(other.values)[name])
    assert (first.steps_used == 18).all()
    several = _guided(model, x, [0.0, baseline], steps=6)
    single = [as_dict(_guided(model, x, one, steps=6).values) for one in (0.0, baseline)]
    assert_close(several.values, {n: (single[0][n] + single[1][n]) / 2 for n in single[0]}, 1e-12)


def test_path_tells_score_and_slope(model: Build) -> None:
    x, baseline = (NET.inputs(3, seed, np.float64) for seed in (1, 2))
    for rule, weights in (
        ("left", [0.25, 0.25, 0.25, 0.25, 0]),
        ("right", [0, 0.25, 0.25, 0.25, 0.25]),
        ("trapezoid", [0.125, 0.25, 0.25, 0.25, 0.125]),
    ):
        found = _guided(model, x, baseline, steps=4, rule=rule)
        sums = sum(array.reshape(3, -1).sum(axis=1) for array in as_dict(found.values).values())
        for example, path in enumerate(found.path):
            np.testing.assert_allclose(path.alpha, [0, 0.25, 0.5, 0.75, 1])
            np.testing.assert_allclose(path.weight, weights)
            assert path.weight @ path.slope == pytest.approx(sums[example], rel=1e-12)
            assert np.abs(path.slope).min() > 0


def test_elements_that_do_not_move_get_nothing(model: Build) -> None:
    x = NET.inputs(2, 1, np.float64)
    baseline = {name: array.copy() for name, array in NET.inputs(2, 2, np.float64).items()}
    baseline["a"][:, 0], baseline["b"][1] = x["a"][:, 0], x["b"][1]
    found = as_dict(_guided(model, x, baseline, steps=5, max_distance=0.5).values)
    assert (found["a"][:, 0] == 0).all()
    assert (found["b"][1] == 0).all()
    assert (found["a"][:, 1] != 0).all()
    nowhere = _guided(model, x, x, steps=5)
    assert all((array == 0).all() for array in as_dict(nowhere.values).values())
    np.testing.assert_array_equal(nowhere.delta, 0)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_units_of_the_input_do_not_matter(model: Build, scale: float) -> None:
    rng = np.random.default_rng(3)
    w = rng.normal(size=(6, 5))
    text = "(double[N, 6] x) => (double[N, 5] y) { s = Mul(x, u) t = MatMul(s, w) y = Tanh(t) }"
    x = rng.normal(size=(2, 6))
    found = [
        igonnx.Explainer(model(text, {"u": np.array(1 / size), "w": w})).guided_ig(
            x * size, target=1, steps=12, max_distance=0.2
        )
        for size in (1.0, scale)
    ]
    np.testing.assert_allclose(found[1].values, found[0].values, rtol=1e-6)
    assert np.abs(found[0].values).min() > 0


def test_equal_gradients_move_together(model: Build) -> None:
    # Every gradient is the same: one group, which moves as the straight path does.
    square = model(
        "(double[N, 8] x) => (double[N] y) { s = ReduceSum<keepdims = 0>(x, one) y = Mul(s, s) }",
        {"one": np.array([1])},
    )
    x = np.random.default_rng(0).normal(size=(3, 8)) + 1
    explainer = igonnx.Explainer(square)
    found = explainer.guided_ig(x, steps=10, max_distance=0.5, fraction=0.1)
    straight = explainer.integrated_gradients(x, steps=10, rule="left")
    np.testing.assert_allclose(found.values, straight.values, rtol=1e-12)


def test_inner_tensors(model: Build) -> None:
    x = NET.inputs(3, 1, np.float64)
    explainer = igonnx.Explainer(NET.onnx(model, np.float64), wrt="h")
    found = explainer.guided_ig(x, target=1, steps=400, rule="trapezoid")
    # What follows h is a sum over its elements: the path makes no difference.
    start = igonnx.Explainer(NET.onnx(model, np.float64), wrt="h").integrated_gradients(
        x, target=1, steps=100
    )
    assert found.values.shape == (3, 8)
    np.testing.assert_allclose(found.values, start.values, atol=1e-4)


def test_progress_ends_with_all(model: Build) -> None:
    told: list[tuple[int, int]] = []
    _guided(
        model,
        NET.inputs(5, 1),
        0.0,
        steps=4,
        batch_size=1,
        progress=lambda *counts: told.append(counts),
    )
    assert told[-1] == (25, 25)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_it_can_be_stopped(model: Build) -> None:
    stop = threading.Event()

    def tell(done: int, total: int) -> None:
        assert done < total
        stop.set()

    with pytest.raises(igonnx.CancelledError):
        _guided(model, NET.inputs(2, 1), 0.0, steps=50, progress=tell, cancel=stop)
    with pytest.raises(igonnx.DeadlineError):
        _guided(model, NET.inputs(2, 1), 0.0, steps=50, timeout=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0; expected a whole number of at least 1"),
        ({"steps": 2.0}, "steps is 2.0; expected a whole number of at least 1"),
        ({"fraction": 1.1}, "fraction is 1.1; expected a number from 0 to 1"),
        ({"fraction": "x"}, "fraction is 'x'; expected a number from 0 to 1"),
        ({"fraction": True}, "fraction is True; expected a number from 0 to 1"),
        ({"max_distance": -0.1}, "max_distance is -0.1; expected a number from 0 to 1"),
        ({"max_distance": np.nan}, "max_distance is nan; expected a number from 0 to 1"),
        ({"anchors": -1}, "anchors is -1; expected a whole number of at least 0"),
        ({"steps": 3, "anchors": 3}, "anchors is 3; expected fewer than the 3 steps"),
        ({"rule": "middle"}, "rule is 'middle'; expected 'left', 'right', 'trapezoid'"),
    ],
)
def test_what_is_refused(model: Build, options: dict[str, Any], message: str) -> None:
    with pytest.raises(igonnx.InputError) as caught:
        _guided(model, NET.inputs(1), 0.0, **options)
    assert str(caught.value) == message
