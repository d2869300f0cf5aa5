"""What all methods share: options, stopping, threads, gradients anywhere, methods of one's own."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from tanh_net import TanhNet, as_dict, assert_close

import igonnx
from igonnx.methods import call as call_module
from igonnx.methods.call import Call, MethodResult, copies_together, gradients_at, scores_at

Build = Callable[..., onnx.ModelProto]
NET = TanhNet.make(7)
BOUND = [
    name
    for name, function in vars(igonnx.Explainer).items()
    if inspect.isfunction(function) and "target" in inspect.signature(function).parameters
    and name != "explain_with"
]  # fmt: skip

# Methods that take several gradients, and how many: each can be stopped in their midst.
LONG: dict[str, tuple[dict[str, Any], int]] = {
    "saliency": ({"noise": "smoothgrad", "noise_samples": 60}, 120),
    "integrated_gradients": ({"steps": 30, "baseline": [0.0, 1.0]}, 128),
    "smoothgrad_ig": ({"steps": 6, "noise_samples": 10}, 120),
    "expected_gradients": ({"samples": 60, "baseline": [0.0, 1.0, None]}, 120),
    "gradient_shap": ({"samples": 60, "noise_std": 0.1}, 120),
}


# -- options -----------------------------------------------------------------------------------


def test_methods_are_found() -> None:
    assert {*LONG, "input_x_gradient", "guided_backprop", "deconvnet"} <= set(BOUND)


@pytest.mark.parametrize("name", [name for name in BOUND if name != "xrai"])
def test_unknown_options_are_named(model: Build, name: str) -> None:
    method = getattr(igonnx.Explainer(NET.onnx(model)), name)
    with pytest.raises(TypeError) as caught:
        method(NET.inputs(1), nois="smoothgrad")
    message = str(caught.value)
    assert message.startswith(f"{name}() has no option 'nois'; it takes target, baseline, seed, ")
    assert "timeout" in message
    assert "options" not in message
    # nor what only `explain_with` takes
    for inner in {"method", "propagation", "core"} - set(inspect.signature(method).parameters):
        with pytest.raises(TypeError, match=f"has no option '{inner}'"):
            method(NET.inputs(1), **{inner: "gradient"})


@pytest.mark.parametrize("name", BOUND)
def test_signatures_are_spelled_out(name: str) -> None:
    method = getattr(igonnx.Explainer, name)
    parameters = inspect.signature(method).parameters
    assert list(parameters)[:5] == ["self", "inputs", "target", "baseline", "seed"]
    assert not {"options", "running"} & set(parameters)
    assert all(
        parameters[one].kind is inspect.Parameter.KEYWORD_ONLY for one in list(parameters)[2:5]
    )
    assert method.__doc__


def test_arguments_are_checked_before_anything_is_run(model: Build) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model)), NET.inputs(1)
    for options in (
        {"rule": "simpson"},
        {"steps": 0},
        {"seed": -1},
        {"noise_samples": 0},
        {"timeout": 0},
        {"progress": 3},
    ):
        with pytest.raises(igonnx.InputError):
            explainer.integrated_gradients(x, **options)
    assert not explainer._prepared


# -- stopping ----------------------------------------------------------------------------------


class StopError(Exception):
    """Raised by a caller's progress."""


def _stopping(
    after: int, action: Callable[[], object]
) -> tuple[list[int], Callable[[int, int], None]]:
    """What progress was told, and a function that does `action` once at least `after` gradients are done."""
    told: list[int] = []

    def progress(done: int, _: int) -> None:
        told.append(done)
        if done >= after:
            action()

    return told, progress


def _raise() -> None:
    raise StopError


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("name", LONG)
def test_stopped_by_progress(model: Build, name: str, engine: str) -> None:
    options, total = LONG[name]
    explainer = igonnx.Explainer(NET.onnx(model), batch_size=2, engine=engine, threads=1)
    told, progress = _stopping(total // 2, _raise)
    method, x = getattr(explainer, name), NET.inputs(2)
    with pytest.raises(StopError):
        method(x, progress=progress, **options)
    assert total // 2 <= told[-1] < total
    # the explainer goes on
    told, progress = _stopping(10**9, _raise)
    found = method(x, progress=progress, target=1, **options)
    assert told[-1] == total
    np.testing.assert_allclose(found.scores, NET.score(x, np.array([1, 1])), rtol=1e-5)


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("name", LONG)
def test_cancelled_in_the_midst(model: Build, name: str, engine: str) -> None:
    options, total = LONG[name]
    explainer = igonnx.Explainer(NET.onnx(model), batch_size=2, engine=engine, threads=1)
    token = igonnx.CancelToken()
    told, progress = _stopping(total // 2, token.cancel)
    with pytest.raises(igonnx.CancelledError):
        getattr(explainer, name)(NET.inputs(2), progress=progress, cancel=token, **options)
    assert told[-1] < total
    event = threading.Event()
    event.set()
    with pytest.raises(igonnx.CancelledError, match="before the first run"):
        getattr(explainer, name)(NET.inputs(2), cancel=event, **options)


@pytest.mark.parametrize("name", LONG)
def test_out_of_time(model: Build, name: str) -> None:
    """Progress takes so long that the deadline passes in the midst."""
    options, total = LONG[name]
    explainer = igonnx.Explainer(NET.onnx(model), batch_size=2, threads=1)
    method, x = getattr(explainer, name), NET.inputs(2)
    method(x, **options)  # making the sessions is not interrupted
    pause = threading.Event()
    told, progress = _stopping(total // 2, lambda: pause.wait(0.6))
    with pytest.raises(igonnx.DeadlineError):
        method(x, timeout=0.5, progress=progress, **options)
    assert total not in told


def test_forward_passes_are_stopped_too(model: Build) -> None:
    explainer, token = igonnx.Explainer(NET.onnx(model), threads=1), igonnx.CancelToken()
    x, sets = NET.inputs(1), NET.inputs(50, 3)
    _, progress = _stopping(
        50, token.cancel
    )  # with the last gradient, before the baselines' scores
    with pytest.raises(igonnx.CancelledError, match="between two forward passes"):
        explainer.expected_gradients(x, baseline=sets, samples=50, progress=progress, cancel=token)


# -- threads -----------------------------------------------------------------------------------


def test_threads_share_an_explainer(model: Build) -> None:
    explainer = igonnx.Explainer(NET.onnx(model))
    jobs: list[tuple[str, dict[str, Any], int]] = [
        (name, {**options, "seed": seed}, seed)
        for seed in range(4)
        for name, (options, _) in LONG.items()
    ]

    def run(job: tuple[str, dict[str, Any], int]) -> igonnx.Attribution:
        name, options, seed = job
        found = getattr(explainer, name)(NET.inputs(2, seed), target=[0, 2], **options)
        assert isinstance(found, igonnx.Attribution)
        return found

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, jobs))
    for job, found in zip(jobs, together, strict=True):
        alone = run(job)
        assert_close(found.values, as_dict(alone.values))
        np.testing.assert_allclose(found.delta, alone.delta, atol=1e-5)


# -- what a method of one's own works with -----------------------------------------------------


def _explained(
    explainer: igonnx.Explainer, core: Callable[[Call], MethodResult], **options: Any
) -> Any:
    return explainer.explain_with(core, NET.inputs(3), method="own", target=[1, 0, 2], **options)


def _zeros(call: Call) -> MethodResult:
    return MethodResult(
        {name: np.zeros(array.shape) for name, array in call.requests.x.items()},
        np.zeros(len(call), np.int64),
    )


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("wrt", [["a", "b"], ["b"], ["h"]])
def test_gradients_and_scores_anywhere(model: Build, engine: str, wrt: list[str]) -> None:
    explainer = igonnx.Explainer(NET.onnx(model), wrt=wrt, engine=engine, batch_size=2)
    examples, target = np.array([2, 0, 0, 1, 2, 2, 1]), np.array([1, 0, 2])[[2, 0, 0, 1, 2, 2, 1]]
    seen: dict[str, Any] = {}

    def core(call: Call) -> MethodResult:
        rng = np.random.default_rng(1)
        seen["at"] = {
            name: rng.normal(size=(7, *array.shape[1:])).astype(np.float32)
            for name, array in call.requests.x.items()
        }
        seen["found"] = gradients_at(call, examples, seen["at"])
        seen["scores"] = scores_at(call, examples, seen["at"])
        return _zeros(call)

    result = _explained(explainer, core)
    whole = {name: array[examples] for name, array in NET.inputs(3).items()} | seen["at"]
    if "h" in wrt:
        hidden = seen["at"]["h"].astype(np.float64)
        score = (np.tanh(hidden) * NET.weights["v"].T[target]).sum(axis=1)
        gradient = {"h": (1 - np.tanh(hidden) ** 2) * NET.weights["v"].T[target]}
    else:
        score, gradient = NET.score(whole, target), NET.gradient(whole, target)
    for scores in (seen["scores"], seen["found"].score):
        np.testing.assert_allclose(scores, score, rtol=1e-4, atol=1e-5)
    assert_close(seen["found"].gradient, {name: gradient[name] for name in wrt}, 1e-5)
    np.testing.assert_allclose(
        result.scores, NET.score(NET.inputs(3), np.array([1, 0, 2])), rtol=1e-5
    )


def test_points_reach_the_model_as_they_are(model: Build) -> None:
    """To the last bit: what is tiny beside another point, or at a kink, is not moved."""
    graph = model("(float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }")
    points = np.float32([[1e-38, -1e-38, 0, 3e38], [1e-45, -1e-45, 7e-8, -3e38]])
    seen: list[Any] = []

    def core(call: Call) -> MethodResult:
        found = gradients_at(call, np.array([0, 0]), {"x": points})
        seen.append(found)
        return _zeros(call)

    for engine in ("native", "reference"):
        explainer = igonnx.Explainer(graph, engine=engine)
        explainer.explain_with(
            core, np.ones((1, 4), np.float32), method="own", target=np.ones((1, 4))
        )
        np.testing.assert_array_equal(seen[-1].gradient["x"][0], [1, 0, 0, 1])
        np.testing.assert_array_equal(seen[-1].gradient["x"][1, 1:], [0, 1, 0])
        assert seen[-1].score[0] == np.float32(3e38)


@pytest.mark.parametrize("where", ["gradients_at", "scores_at"])
def test_points_that_have_no_gradient(model: Build, where: str) -> None:
    graph = model("(float[N, 1] x) => (float[N, 1] y) { y = Log(x) }")
    evaluate = {"gradients_at": gradients_at, "scores_at": scores_at}[where]

    def core(call: Call) -> MethodResult:
        evaluate(call, np.array([0, 1, 1]), {"x": np.float32([[1], [2], [0]])})  # type: ignore[operator]
        return _zeros(call)

    explainer, x = igonnx.Explainer(graph), np.float32([[1], [2]])
    for options in ({}, {"noise": "smoothgrad", "noise_std": 0.01}):
        with pytest.raises(igonnx.EngineError, match=r"at a point of example 1\b") as caught:
            explainer.explain_with(core, x, method="own", baseline=0.5, **options)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrt", [["b"], ["h"]])
def test_scores_at_points_of_copies(model: Build, wrt: list[str]) -> None:
    """With noise there are more requests than examples: each has its example's target and other inputs."""
    explainer = igonnx.Explainer(NET.onnx(model), wrt=wrt)
    counts: list[int] = []

    def core(call: Call) -> MethodResult:
        every = np.arange(len(call))[::-1].copy()
        points = {name: array[every] for name, array in call.requests.x.items()}
        expected = gradients_at(call, every, points).score
        np.testing.assert_allclose(scores_at(call, every, points), expected, rtol=1e-5)
        counts.append(len(call))
        return _zeros(call)

    _explained(explainer, core, noise="smoothgrad", noise_samples=4)
    assert sum(counts) == 12


@pytest.mark.parametrize("name", ["integrated_gradients", "idgi", "expected_gradients"])
def test_examples_of_copies_have_their_own_numbers_in_messages(model: Build, name: str) -> None:
    graph = model("(float[N, 1] x) => (float[N, 1] y) { y = Log(x) }")
    explainer = igonnx.Explainer(graph, batch_size=1)
    method, x = getattr(explainer, name), np.float32([[1], [-2]])
    with pytest.raises(igonnx.EngineError, match=r"^the score is not finite .* of example 1 "):
        method(x, baseline=[0.5, 0.6, 0.7])


def test_what_a_method_does_not_say_is_evaluated(model: Build) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model)), NET.inputs(3)
    found = _explained(explainer, _zeros, baseline=[0.0, 0.5], seed=3)
    target = np.array([1, 0, 2])
    base = [NET.score({n: np.full_like(a, v) for n, a in x.items()}, target) for v in (0, 0.5)]
    np.testing.assert_allclose(found.scores, NET.score(x, target), rtol=1e-5)
    np.testing.assert_allclose(found.baseline_scores, np.mean(base, axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.delta, found.baseline_scores - found.scores, rtol=1e-6)
    assert found.method == "own"


def test_copies_fill_the_lanes(model: Build) -> None:
    """As many copies as give every lane a batch, whatever they take; more only while they are small."""
    sizes: list[tuple[int, int, int]] = []

    def core(call: Call) -> MethodResult:
        sizes.append((copies_together(call), len(call), call.rows_together))
        return _zeros(call)

    for batch_size in (1, 5, 10**6):
        explainer = igonnx.Explainer(NET.onnx(model), batch_size=batch_size)
        _explained(explainer, core)
    for copies, count, together in sizes:
        assert copies * count >= together
    each = 3 * (6 + 4 + 3) * 4  # bytes
    assert sizes[0][0] * each <= call_module.TOGETHER < (sizes[0][0] + 64) * each
    assert sizes[2][0] == -(-sizes[2][2] // 3)


def test_ticking(model: Build) -> None:
    told: list[tuple[int, int]] = []

    def core(call: Call) -> MethodResult:
        tick = call.ticking(2 * len(call))
        tick(len(call))
        tick(len(call))
        return _zeros(call)

    explainer = igonnx.Explainer(NET.onnx(model))
    _explained(explainer, core, progress=lambda *at: told.append(at))
    assert told == [(3, 6), (6, 6)]
    told.clear()
    _explained(
        explainer, core, progress=lambda *at: told.append(at), noise="vargrad", noise_samples=4
    )
    assert told == [(12, 24), (24, 24)]


def test_draws_of_a_core_are_the_same_for_every_copy(model: Build) -> None:
    seeds: list[int] = []

    def core(call: Call) -> MethodResult:
        seeds.append(call.seed)
        return _zeros(call)

    explainer = igonnx.Explainer(NET.onnx(model))
    _explained(explainer, core, seed=12)
    _explained(explainer, core, seed=12, noise="smoothgrad")
    assert seeds == [12, 12]


def test_baselines_of_a_core_by_copy(model: Build) -> None:
    """What a core asks for is for its own requests, of which there are more with noise."""
    shapes: list[NDArray[np.int64]] = []

    def core(call: Call) -> MethodResult:
        several = call.baselines([0.0, {"a": 1.0}])
        shapes.append(np.array([len(several), *several[1]["a"].shape]))
        assert (several[1]["a"] == 1).all()
        assert (several[1]["b"] == 0).all()
        return _zeros(call)

    explainer = igonnx.Explainer(NET.onnx(model))
    _explained(explainer, core)
    _explained(explainer, core, noise="smoothgrad", noise_samples=5)
    assert [list(shape) for shape in shapes] == [[2, 3, 2, 3], [2, 15, 2, 3]]
