"""The adaptive mesh: it reaches its tolerance, is honest about its error, warns, and reuses every gradient."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import igonnx
from igonnx.attribution import relative_error
from igonnx.engine.plan import Engine, Requests, RowPlan, RowResult
from igonnx.methods.adaptive import adaptive_mesh
from igonnx.methods.path_integral import fixed_rule

Build = Callable[..., onnx.ModelProto]


class Net:
    """F(z) = cotangent . (relu(z W1 + b1) W2), with its gradient, in float64: an engine that counts its rows."""

    def __init__(self, seed: int, features: int = 12, hidden: int = 24) -> None:
        rng = np.random.default_rng(seed)
        self.w1, self.b1 = rng.normal(size=(features, hidden)), rng.normal(size=hidden)
        self.w2 = rng.normal(size=(hidden, 3))
        self.calls: list[NDArray[np.float64]] = []

    def run(
        self, requests: Requests, plan: RowPlan, *, batch_size: int, progress: Any = None
    ) -> RowResult:
        assert len(plan.row) <= batch_size or progress is None
        self.calls.append(plan.alpha)
        x, baseline, cotangent = (
            a[plan.row] for a in (requests.x["x"], requests.baseline["x"], requests.cotangent)
        )
        z = baseline + plan.alpha[:, None] * (x - baseline)
        h = z @ self.w1 + self.b1
        score = ((np.maximum(h, 0) @ self.w2) * cotangent).sum(axis=1)
        gradient = ((cotangent @ self.w2.T) * (h > 0)) @ self.w1.T
        total = np.zeros_like(requests.x["x"])
        np.add.at(total, plan.row, plan.weight[:, None] * gradient)
        return RowResult({"x": total}, score, (gradient * (x - baseline)).sum(axis=1))

    @property
    def rows(self) -> int:
        return sum(map(len, self.calls))


def _requests(count: int = 1, seed: int = 0, features: int = 12) -> Requests:
    rng = np.random.default_rng(seed)
    return Requests(
        {"x": rng.normal(size=(count, features))},
        {"x": rng.normal(size=(count, features))},
        {},
        {},
        np.eye(3)[rng.integers(0, 3, count)],
    )


def _truth(engine: Engine, requests: Requests) -> NDArray[np.float64]:
    return fixed_rule(engine, requests, rule="trapezoid", steps=4000, batch_size=4001).attribution[
        "x"
    ]


def _errors(found: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(found - truth, axis=1) / np.linalg.norm(truth, axis=1))


@pytest.mark.parametrize("tolerance", [0.05, 0.01, 0.003])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_its_estimate_is_honest(tolerance: float, batch_size: int) -> None:
    true, estimated, completeness = [], [], []
    for seed in range(40):
        net, requests = Net(seed), _requests(seed=seed)
        found = adaptive_mesh(
            net, requests, tolerance=tolerance, max_steps=2000, batch_size=batch_size
        )
        assert found.error_estimate is not None
        true += _errors(found.attribution["x"], _truth(net, requests)).tolist()
        estimated += found.error_estimate.tolist()
        values, change = found.attribution["x"], found.scores - found.baseline_scores
        delta, total = values.sum(axis=1) - change, np.abs(values).sum(axis=1)
        completeness += relative_error(delta, change, total).tolist()
    assert max(estimated) <= tolerance
    assert max(completeness) <= tolerance * (1 + 1e-6)
    ratio = np.array(true) / np.maximum(estimated, 1e-12)
    assert np.mean(ratio < 2) > 0.9, np.sort(ratio)[-8:]
    assert np.median(ratio) > 0.1  # nor far too careful
    assert np.mean(np.array(true) < 2 * tolerance) > 0.95


def test_fewer_gradients_than_equal_steps_for_the_same_error() -> None:
    def localised(seed: int) -> tuple[Net, Requests]:
        """All kinks in the last fifth of the path."""
        net, requests = Net(seed), _requests(seed=seed)
        direction = (requests.x["x"] - requests.baseline["x"])[0] @ net.w1
        start = requests.baseline["x"][0] @ net.w1
        where = np.random.default_rng(seed).uniform(0.8, 1, len(start))
        net.b1 = -(start + where * direction)
        return net, requests

    for seed in range(5):
        net, requests = localised(seed)
        truth = _truth(net, requests)
        found = adaptive_mesh(net, requests, tolerance=0.01, max_steps=2000, batch_size=4)
        error = _errors(found.attribution["x"], truth)[0]
        steps = int(found.steps_used[0])
        equal = fixed_rule(net, requests, rule="trapezoid", steps=steps, batch_size=64)
        assert error < _errors(equal.attribution["x"], truth)[0]


def test_every_gradient_is_evaluated_once_and_kept() -> None:
    net, requests = Net(3), _requests(count=2, seed=3)
    found = adaptive_mesh(net, requests, tolerance=0.004, max_steps=500, batch_size=8)
    assert net.rows == found.steps_used.sum()
    assert found.steps_used.tolist() == [len(path.alpha) for path in found.paths]
    assert max(map(len, net.calls)) <= 8
    for path in found.paths:
        assert (np.diff(path.alpha) > 0).all()  # no point twice
        assert path.alpha[[0, -1]].tolist() == [0, 1]
        assert path.weight.sum() == pytest.approx(1)
    # what came back is the trapezoid sum over those very points
    one = replace(
        requests,
        x={"x": requests.x["x"][:1]},
        baseline={"x": requests.baseline["x"][:1]},
        cotangent=requests.cotangent[:1],
    )
    path = found.paths[0]
    again = net.run(
        one, RowPlan(np.zeros(len(path.alpha), np.int64), path.alpha, path.weight), batch_size=10**6
    )
    expected = again.weighted_gradient["x"] * (one.x["x"] - one.baseline["x"])
    np.testing.assert_allclose(found.attribution["x"][:1], expected, rtol=1e-10)


@pytest.mark.parametrize("max_steps", [17, 18, 40, 100])
def test_the_budget_is_kept_and_said(max_steps: int) -> None:
    net, requests = Net(4), _requests(seed=4)
    with pytest.warns(igonnx.ToleranceWarning) as caught:
        found = adaptive_mesh(net, requests, tolerance=1e-5, max_steps=max_steps, batch_size=64)
    assert net.rows == found.steps_used[0] == max_steps
    (warning,) = caught
    message = str(warning.message)
    assert message.startswith(
        f"example 0: the tolerance 1e-05 was not reached in {max_steps} steps: estimated relative error "
    )
    assert "raise max_steps or the tolerance" in message
    assert "\n" not in message
    assert found.error_estimate is not None
    assert f"{found.error_estimate[0]:.3g}" in message


def test_only_examples_that_missed_it_are_named() -> None:
    net, requests = Net(5), _requests(count=3, seed=5)
    requests.x["x"][1] = requests.baseline["x"][1]  # nothing to integrate
    with pytest.warns(igonnx.ToleranceWarning) as caught:
        adaptive_mesh(net, requests, tolerance=1e-5, max_steps=50, batch_size=64)
    assert [str(w.message)[:9] for w in caught] == ["example 0", "example 2"]


def test_an_easy_path_needs_the_first_mesh_only() -> None:
    net, requests = Net(6), _requests(seed=6)
    net.b1 = np.full(24, 1e6)  # every unit on: linear
    found = adaptive_mesh(net, requests, tolerance=1e-6, max_steps=1000, batch_size=64)
    assert found.steps_used.tolist() == [17]
    assert found.error_estimate is not None
    assert found.error_estimate[0] < 1e-12


def test_a_tighter_tolerance_takes_more_steps() -> None:
    steps = []
    for tolerance in (0.1, 0.03, 0.01, 0.003, 0.001):
        found = adaptive_mesh(
            Net(7), _requests(seed=7), tolerance=tolerance, max_steps=5000, batch_size=4
        )
        steps.append(int(found.steps_used[0]))
    assert steps == sorted(steps)
    assert steps[-1] > 3 * steps[0]


def test_scores_that_cancel_do_not_exhaust_the_budget(model: Build) -> None:
    """The score does not change from the baseline to x, so no share of its change could ever be small."""
    graph = model(
        "(float[N, 2] x) => (float[N, 1] y) { t = Tanh(x) \n y = MatMul(t, w) }",
        {"w": np.array([[3.0], [-3.0]], np.float32)},
    )
    x = np.array([[1.3, 1.3000002]], np.float32)
    found = igonnx.Explainer(graph).integrated_gradients(x, tolerance=0.01, target=0)
    assert found.steps_used[0] < 100
    assert found.relative_delta[0] <= 0.01


# -- through the explainer -------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_input_equal_to_the_baseline_gives_zeros(mlp: onnx.ModelProto, engine: str) -> None:
    explainer = igonnx.Explainer(mlp, engine=engine)
    x = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    for baseline in (x, np.stack([x[0], 0 * x[1]])):
        found = explainer.integrated_gradients(x, baseline=baseline, tolerance=0.01)
        assert (found.values[0] == 0).all()
        assert found.delta[0] == 0
        assert found.steps_used[0] == 17
        assert found.error_estimate is not None
        assert found.error_estimate[0] == 0
        assert found.relative_delta[0] == 0
    assert (explainer.integrated_gradients(x, baseline=x).values == 0).all()


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_on_a_trained_network(engine: str) -> None:
    from igonnx.models import digits

    images = digits.test_set()[0][:3]
    explainer = igonnx.Explainer(digits.load(), engine=engine)
    truth = explainer.integrated_gradients(images, rule="trapezoid", steps=4000)
    found = explainer.integrated_gradients(images, tolerance=0.01, target=truth.target)
    assert found.error_estimate is not None
    flat = [values.reshape(3, -1).astype(np.float64) for values in (found.values, truth.values)]
    errors = _errors(*flat)
    assert (found.error_estimate <= 0.01).all()
    assert (errors < 0.02).all()
    assert (found.relative_delta < 0.0101).all()
    assert found.method == "integrated_gradients tolerance=0.01 max_steps=1000"
    assert found.steps_used.tolist() == [len(path.alpha) for path in found.path]


def test_the_warning_points_at_the_caller(mlp: onnx.ModelProto) -> None:
    explainer = igonnx.Explainer(mlp)
    x = np.full((1, 6), 2, np.float32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        explainer.integrated_gradients(x, tolerance=1e-7, max_steps=17)
    (warning,) = [w for w in caught if w.category is igonnx.ToleranceWarning]
    assert warning.filename == __file__


def test_several_explained_tensors(model: Build) -> None:
    graph = model("(float[N, 2] a, float[N, 3] b) => (float[N, 1] y) { s = ReduceSum<keepdims = 1>(a, one) \n"
        " t = ReduceSum<keepdims = 1>(b, one) \n p = Mul(s, t) \n y = Tanh(p) }", {"one": np.array([1])})  # fmt: skip
    inputs = {
        "a": np.float32([[0.5, 1], [1, 0]]),
        "b": np.float32([[0.3, 0.2, 0.4], [1, -0.5, 0.1]]),
    }
    explainer = igonnx.Explainer(graph)
    found = explainer.integrated_gradients(inputs, tolerance=0.001)
    truth = explainer.integrated_gradients(inputs, steps=300)
    for name in inputs:
        assert found.of(name).shape == inputs[name].shape
        np.testing.assert_allclose(found.of(name), truth.of(name), atol=1e-3)
