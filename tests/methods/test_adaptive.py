"""The adaptive mesh: it reaches its tolerance, is honest about its error, warns, and reuses every gradient."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import igonnx
from igonnx.attribution import relative_error
from igonnx.engine.plan import Engine, Requests, RowPlan, RowResult
from igonnx.methods import adaptive, path_integral
from igonnx.methods.call import Call, MethodResult
from igonnx.methods.exact_sum import made_exact
from igonnx.methods.kept_gradients import KeptGradients

Build = Callable[..., onnx.ModelProto]


class Net:
    """F(z) = cotangent . (relu(z W1 + b1) W2), with its gradient, in float64: an engine that counts its rows."""

    def __init__(self, seed: int, features: int = 12, hidden: int = 24, lanes: int = 1) -> None:
        self.lanes = lanes
        rng = np.random.default_rng(seed)
        self.w1, self.b1 = rng.normal(size=(features, hidden)), rng.normal(size=hidden)
        self.w2 = rng.normal(size=(hidden, 3))
        self.calls: list[NDArray[np.float64]] = []

    def run(
        self, requests: Requests, plan: RowPlan, *, batch_size: int, progress: Any = None
    ) -> RowResult:
        assert len(plan.row) <= batch_size * self.lanes or progress is None
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


def adaptive_mesh(
    engine: Engine, requests: Requests, *, batch_size: int, progress: Any = None, **options: Any
) -> MethodResult:
    call = Call(engine, requests, batch_size=batch_size, progress=progress)
    return adaptive.adaptive_mesh(call, **options)


def fixed_rule(
    engine: Engine, requests: Requests, *, batch_size: int, rule: str, steps: int
) -> MethodResult:
    call = Call(engine, requests, batch_size=batch_size)
    return path_integral.fixed_rule(call, rule=rule, steps=steps)


def _change(found: MethodResult) -> NDArray[np.float64]:
    assert found.scores is not None
    assert found.baseline_scores is not None
    return found.scores - found.baseline_scores


def _paths(found: MethodResult) -> list[igonnx.Path]:
    assert found.paths is not None
    return found.paths


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
        values, change = found.attribution["x"], _change(found)
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
    assert found.steps_used.tolist() == [len(path.alpha) for path in _paths(found)]
    assert max(map(len, net.calls)) <= 8
    for path in _paths(found):
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
    path = _paths(found)[0]
    again = net.run(
        one, RowPlan(np.zeros(len(path.alpha), np.int64), path.alpha, path.weight), batch_size=10**6
    )
    expected = again.weighted_gradient["x"] * (one.x["x"] - one.baseline["x"])
    np.testing.assert_allclose(found.attribution["x"][:1], expected, rtol=1e-10)


@pytest.mark.parametrize("max_steps", [13, 14, 40, 100])
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
    assert found.steps_used.tolist() == [13]
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


def _with(requests: Requests, x: NDArray[np.float64], baseline: NDArray[np.float64]) -> Requests:
    return replace(requests, x={"x": x}, baseline={"x": baseline})


def _alone(requests: Requests, index: int) -> Requests:
    return replace(
        _with(
            requests, requests.x["x"][index : index + 1], requests.baseline["x"][index : index + 1]
        ),
        cotangent=requests.cotangent[index : index + 1],
    )


# -- closed forms ----------------------------------------------------------------------------


class Curve:
    """G(alpha) = (f_1(alpha), ..., f_D(alpha)) given as functions, with their integrals for the score."""

    def __init__(self, gradient: Callable[[Any], Any], integral: Callable[[Any], Any]) -> None:
        self.gradient, self.integral = gradient, integral
        self.rows, self.lanes = 0, 1

    def run(
        self, requests: Requests, plan: RowPlan, *, batch_size: int, progress: Any = None
    ) -> RowResult:
        assert len(plan.row) <= batch_size
        assert progress is None
        self.rows += len(plan.row)
        gradient = self.gradient(plan.alpha[:, None])
        total = np.zeros_like(requests.x["x"])
        np.add.at(total, plan.row, plan.weight[:, None] * gradient)
        return RowResult(
            {"x": total}, self.integral(plan.alpha[:, None]).sum(axis=1), gradient.sum(axis=1)
        )


def _unit_path(features: int) -> Requests:
    return Requests(
        {"x": np.ones((1, features))}, {"x": np.zeros((1, features))}, {}, {}, np.ones((1, 1))
    )


@pytest.mark.parametrize("tolerance", [0.02, 0.002])
def test_jumps_at_known_places(tolerance: float) -> None:
    """G_k = c_k where alpha > t_k, else 0: the attribution is c_k (1 - t_k)."""
    rng = np.random.default_rng(0)
    places, heights = rng.uniform(0.55, 0.75, 300), rng.normal(size=300)
    curve = Curve(lambda a: heights * (a > places), lambda a: heights * np.maximum(a - places, 0))
    found = adaptive_mesh(
        curve, _unit_path(300), tolerance=tolerance, max_steps=4000, batch_size=16
    )
    truth = heights * (1 - places)
    error = np.linalg.norm(found.attribution["x"][0] - truth) / np.linalg.norm(truth)
    assert found.error_estimate is not None
    assert 0.5 < error / found.error_estimate[0] < 1.5
    alpha = _paths(found)[0].alpha
    assert np.mean((alpha > 0.5) & (alpha < 0.8)) > 0.5  # evenly it would be 0.3


def test_a_spike_beside_the_first_nodes_shows_in_the_scores() -> None:
    """G is nothing at all the first nodes; only the score, which rises by one, tells of the spike between two."""
    middle, width = 0.541, 0.004
    curve = Curve(
        lambda a: np.where(np.abs(a - middle) < width, 1 / (2 * width), 0.0),
        lambda a: np.clip((a - middle) / (2 * width) + 0.5, 0, 1),
    )
    found = adaptive_mesh(curve, _unit_path(1), tolerance=0.01, max_steps=500, batch_size=8)
    assert found.attribution["x"][0, 0] == pytest.approx(1, abs=0.02)
    assert found.steps_used[0] < 100


def test_a_smooth_gradient() -> None:
    curve = Curve(
        lambda a: np.concatenate([np.exp(a), np.cos(3 * a)], axis=1),
        lambda a: np.concatenate([np.exp(a) - 1, np.sin(3 * a) / 3], axis=1),
    )
    found = adaptive_mesh(curve, _unit_path(2), tolerance=0.01, max_steps=500, batch_size=8)
    np.testing.assert_allclose(
        found.attribution["x"][0], [np.e - 1, np.sin(3) / 3], rtol=0, atol=0.01
    )


# -- several requests, batches, memory -------------------------------------------------------


def test_requests_share_the_rounds() -> None:
    net, requests = Net(11), _requests(count=5, seed=11)
    adaptive_mesh(net, requests, tolerance=0.01, max_steps=500, batch_size=64)
    alone = 0
    for index in range(5):
        one = Net(11)
        adaptive_mesh(one, _alone(requests, index), tolerance=0.01, max_steps=500, batch_size=64)
        alone += len(one.calls)
    assert len(net.calls) < 0.6 * alone


def test_every_lane_has_a_batch() -> None:
    """Each call of the engine has a batch for every lane, but for the last of a round; the result stays the same."""
    requests = _requests(count=5, seed=11)
    one, three = Net(11), Net(11, lanes=3)
    options: dict[str, Any] = {"tolerance": 0.01, "max_steps": 500, "batch_size": 4}
    alone = adaptive_mesh(one, requests, **options)
    together = adaptive_mesh(three, requests, **options)
    assert [len(rows) for rows in three.calls[:6]] == [12, 12, 12, 12, 12, 5]  # 5 times 13 nodes
    assert max(map(len, three.calls)) == 12
    assert three.rows == one.rows
    np.testing.assert_allclose(together.attribution["x"], alone.attribution["x"], rtol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("limit", [None, 13 * 96, 40 * 96])
def test_the_mesh_depends_on_nothing_else(batch_size: int, limit: int | None) -> None:
    """Neither on the other requests nor on the batch size nor on the memory limit."""
    requests = _requests(count=4, seed=12)
    together = adaptive_mesh(
        Net(12), requests, tolerance=0.01, max_steps=500, batch_size=batch_size, memory_limit=limit
    )
    for index in range(4):
        alone = adaptive_mesh(
            Net(12), _alone(requests, index), tolerance=0.01, max_steps=500, batch_size=8
        )
        np.testing.assert_array_equal(_paths(together)[index].alpha, _paths(alone)[0].alpha)
        np.testing.assert_allclose(
            together.attribution["x"][index], alone.attribution["x"][0], rtol=1e-10, atol=1e-13
        )


@pytest.mark.parametrize("fit", [13, 20, 30])
def test_the_memory_limit_is_kept(fit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0
    add = KeptGradients.add

    def counted(self: KeptGradients, node: Any, contribution: NDArray[Any]) -> None:
        nonlocal most
        add(self, node, contribution)
        most = max(most, len(self))

    monkeypatch.setattr(KeptGradients, "add", counted)
    net, requests = Net(13), _requests(count=3, seed=13)
    options: dict[str, Any] = {"tolerance": 0.003, "max_steps": 1000, "batch_size": 8}
    found = adaptive_mesh(net, requests, memory_limit=fit * 12 * 8, **options)
    assert most <= fit
    spent = net.rows
    assert found.steps_used.sum() == spent
    points = sum(len(path.alpha) for path in _paths(found))
    assert points + (fit == 13) <= spent < 3 * points  # computed again: at most both ends of each
    ample = adaptive_mesh(net, requests, **options)
    assert net.rows - spent == points
    np.testing.assert_allclose(found.attribution["x"], ample.attribution["x"], rtol=1e-10)


@pytest.mark.parametrize("limit", [0, -1, True, 1e9, "1 GB", 12 * 96])
def test_a_memory_limit_that_makes_no_sense(limit: Any) -> None:
    with pytest.raises(igonnx.InputError, match=r"^memory_limit is .*; expected ") as caught:
        adaptive_mesh(
            Net(0), _requests(), tolerance=0.1, max_steps=50, batch_size=1, memory_limit=limit
        )
    assert "\n" not in str(caught.value)


def test_progress_rises_to_its_end() -> None:
    calls: list[tuple[int, int]] = []
    adaptive_mesh(
        Net(14),
        _requests(count=3, seed=14),
        tolerance=0.01,
        max_steps=400,
        batch_size=8,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert {total for _, total in calls} == {1200}
    assert calls == sorted(calls)
    assert calls[-1] == (1200, 1200)
    assert len(calls) > 3


def test_a_gradient_that_is_not_finite_names_its_example() -> None:
    class Broken(Net):
        def run(self, *args: Any, **options: Any) -> RowResult:
            result = super().run(*args, **options)
            requests, plan = args
            second = requests.x["x"][plan.row, 0] == 7
            slope = np.where(second & (plan.alpha == 0.5), np.nan, result.slope)
            return replace(result, slope=slope)

    requests = _requests(count=3, seed=15)
    requests.x["x"][1, 0] = 7
    with pytest.raises(igonnx.EngineError, match=r"at alpha = 0\.5 on the path of example 1 "):
        adaptive_mesh(Broken(15), requests, tolerance=0.01, max_steps=400, batch_size=5)


# -- adding up exactly -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"steps": 7, "rule": "middle"}, {"steps": 5, "rule": "left"}, {"tolerance": 0.02}],
    ids=str,
)
def test_exact_sum(mlp: onnx.ModelProto, options: dict[str, Any]) -> None:
    explainer = igonnx.Explainer(mlp)
    x = np.random.default_rng(1).normal(size=(3, 6)).astype(np.float32)
    found = explainer.integrated_gradients(x, exact_sum=True, **options)
    change = found.scores - found.baseline_scores
    np.testing.assert_allclose(found.values.sum(axis=1, dtype=np.float64), change, atol=1e-6)
    assert np.abs(found.delta).max() < 1e-12
    assert found.correction is not None
    assert "exact_sum" in found.method
    # undone as the documentation says, it is a plain result that misses by as much
    share = found.correction[:, None]
    plain = found.values / np.where(found.values > 0, 1 + share, 1 - share)
    np.testing.assert_allclose(
        (change - plain.sum(axis=1)) / np.abs(plain).sum(axis=1), found.correction, atol=1e-6
    )
    moved = np.linalg.norm(found.values - plain, axis=1) / np.linalg.norm(plain, axis=1)
    np.testing.assert_allclose(moved, np.abs(found.correction), rtol=1e-3, atol=1e-7)
    if "steps" in options:
        without = explainer.integrated_gradients(x, **options)
        np.testing.assert_allclose(plain, without.values, rtol=1e-5, atol=1e-7)
        assert without.correction is None
        assert np.abs(without.delta).max() > 1e-4  # there was something to correct


def test_exact_sum_takes_fewer_gradients_and_counts_the_correction() -> None:
    steps = np.zeros(2)
    for seed in range(10):
        options: dict[str, Any] = {"tolerance": 0.01, "max_steps": 2000, "batch_size": 8}
        plain = adaptive_mesh(Net(seed), _requests(seed=seed), **options)
        exact = adaptive_mesh(Net(seed), _requests(seed=seed), exact_sum=True, **options)
        exact = made_exact(exact, _change(exact))
        assert exact.error_estimate is not None
        assert exact.correction is not None
        assert abs(exact.correction[0]) <= exact.error_estimate[0] <= 0.01 * (1 + 1e-9)
        truth = _truth(Net(seed), _requests(seed=seed))
        assert _errors(exact.attribution["x"], truth)[0] < 0.03
        steps += plain.steps_used[0], exact.steps_used[0]
    assert steps[1] < steps[0]


def test_exact_sum_moves_no_nothing(model: Build) -> None:
    """What contributes nothing goes on contributing nothing, in every tensor."""
    graph = model(
        "(float[N, 2] a, float[N, 2] b) => (float[N, 1] y) { p = Mul(a, b) \n t = Tanh(p) \n "
        "y = ReduceSum<keepdims = 1>(t, one) }",
        {"one": np.array([1])},
    )
    inputs = {"a": np.float32([[2, 0]]), "b": np.float32([[1.5, 3]])}
    found = igonnx.Explainer(graph).integrated_gradients(inputs, steps=3, exact_sum=True)
    assert found.of("a")[0, 1] == found.of("b")[0, 1] == 0
    assert found.correction is not None
    assert abs(found.correction[0]) > 1e-4
    total = found.of("a").sum(dtype=np.float64) + found.of("b").sum(dtype=np.float64)
    assert total == pytest.approx(found.scores[0] - found.baseline_scores[0], abs=1e-6)


def test_contributions_too_small_to_add_up_are_left_alone(model: Build) -> None:
    """A step between the nodes: every gradient is nothing, and the score rises by one."""
    graph = model("(float[N, 1] x) => (float[N, 1] y) { c = Clip(x, lo, hi) \n y = Sub(c, lo) }",
        {"lo": np.float32(0.49), "hi": np.float32(0.51)})  # fmt: skip
    explainer, x = igonnx.Explainer(graph), np.ones((1, 1), np.float32)
    with pytest.warns(
        igonnx.ToleranceWarning, match="^example 0: the contributions cannot be made"
    ):
        found = explainer.integrated_gradients(x, steps=4, rule="middle", target=0, exact_sum=True)
    assert found.values[0, 0] == 0
    assert found.correction is not None
    assert found.correction[0] == 0
    assert found.delta[0] == pytest.approx(-0.02)


def test_the_correction_is_saved(mlp: onnx.ModelProto, tmp_path: Path) -> None:
    x = np.random.default_rng(2).normal(size=(2, 6)).astype(np.float32)
    found = igonnx.Explainer(mlp).integrated_gradients(x, steps=6, exact_sum=True)
    found.save(tmp_path / "found.npz")
    with np.load(tmp_path / "found.npz") as saved:
        np.testing.assert_array_equal(saved["correction"], found.correction)


# -- through the explainer -------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_input_equal_to_the_baseline_gives_zeros(mlp: onnx.ModelProto, engine: str) -> None:
    explainer = igonnx.Explainer(mlp, engine=engine)
    x = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    for baseline in (x, np.stack([x[0], 0 * x[1]])):
        found = explainer.integrated_gradients(x, baseline=baseline, tolerance=0.01)
        assert (found.values[0] == 0).all()
        assert found.delta[0] == 0
        assert found.steps_used[0] == 13
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
        explainer.integrated_gradients(x, tolerance=1e-7, max_steps=13)
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
