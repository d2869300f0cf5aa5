"""Expected gradients and GradientSHAP: their draws, closed forms, what they converge to, what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from tanh_net import Arrays, TanhNet, as_dict, assert_close

import igonnx
from igonnx.methods import call as call_module
from igonnx.methods.distributions import _stratified

Build = Callable[..., onnx.ModelProto]
NET = TanhNet.make(3)
METHODS = ["expected_gradients", "gradient_shap"]
TARGET = np.array([1, 2, 0])


def _alphas(method: str, samples: int, size: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Number of the baseline and alpha of each sample, as they are documented."""
    if method == "gradient_shap":
        return rng.integers(size, size=samples), rng.random(samples)
    rounds = [rng.permutation(size) for _ in range((samples + size - 1) // size)]
    return np.concatenate(rounds)[:samples], (np.arange(samples) + rng.random(samples)) / samples


def _expected(
    method: str,
    x: Arrays,
    sets: Arrays,
    samples: int,
    seed: int,
    std: dict[str, float] | None = None,
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
    """Attribution and mean score of the baselines, sample by sample."""
    rng, count = np.random.default_rng(seed), len(x["a"])
    number, alpha = _alphas(method, samples, len(sets["a"]), rng)
    total = {name: np.zeros(array.shape) for name, array in x.items()}
    base, target = np.zeros(count), TARGET[:count]
    for k, share in zip(number, alpha, strict=True):
        noisy = {
            name: array + rng.standard_normal(array.shape[1:], dtype=array.dtype) * std[name]
            if std
            else array
            for name, array in x.items()
        }
        start = {name: np.broadcast_to(sets[name][k], a.shape) for name, a in x.items()}
        at = {name: start[name] + share * (noisy[name] - start[name]) for name in x}
        for name, gradient in NET.gradient(at, target).items():
            total[name] += gradient * (noisy[name] - start[name]) / samples
        base += NET.score(start, target) / samples
    return total, base


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("size", [1, 3, 8, 40])  # 3 is the number of examples, too
@pytest.mark.parametrize("method", METHODS)
def test_draws(model: Build, method: str, size: int, engine: str) -> None:
    """The very numbers that a second implementation gives, baseline scores and delta included."""
    explainer, x, sets = (
        igonnx.Explainer(NET.onnx(model), engine=engine),
        NET.inputs(3),
        NET.inputs(size, 5),
    )
    found = getattr(explainer, method)(x, target=TARGET.tolist(), baseline=sets, samples=19, seed=4)
    values, base = _expected(method, x, sets, 19, 4)
    assert_close(found.values, values, 1e-5)
    np.testing.assert_allclose(found.scores, NET.score(x, TARGET), rtol=1e-5)
    np.testing.assert_allclose(found.baseline_scores, base, rtol=1e-5, atol=1e-6)
    sums = sum(array.reshape(3, -1).sum(axis=1) for array in values.values())
    np.testing.assert_allclose(found.delta, sums - (found.scores - base), atol=1e-5)
    assert found.steps_used.tolist() == [19] * 3
    assert found.path == []
    assert found.method.startswith(f"{method} samples=19")


@pytest.mark.parametrize("std", [0.3, {"a": 0.2, "b": 0.5}, {"b": 0.4}], ids=str)
def test_noise_of_gradient_shap(model: Build, std: Any) -> None:
    explainer, x, sets = igonnx.Explainer(NET.onnx(model)), NET.inputs(3), NET.inputs(4, 5)
    by_name = {"a": 0.0, "b": 0.0} | (std if isinstance(std, dict) else dict.fromkeys(x, std))
    found = explainer.gradient_shap(
        x, target=TARGET.tolist(), baseline=sets, samples=11, seed=6, noise_std=std
    )
    values, base = _expected("gradient_shap", x, sets, 11, 6, by_name)
    assert_close(found.values, values, 1e-5)
    np.testing.assert_allclose(found.scores, NET.score(x, TARGET), rtol=1e-5)  # without noise
    np.testing.assert_allclose(found.baseline_scores, base, rtol=1e-5, atol=1e-6)
    assert f"noise_std={std}" in found.method


def test_double_precision(model: Build) -> None:
    explainer = igonnx.Explainer(NET.onnx(model, np.float64))
    x, sets = NET.inputs(2, dtype=np.float64), NET.inputs(4, 5, np.float64)
    for method in METHODS:
        found = getattr(explainer, method)(x, target=[1, 2], baseline=sets, samples=9)
        assert_close(found.values, _expected(method, x, sets, 9, 0)[0], 1e-12)


# -- closed forms ------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 4, 5, 12, 13])
def test_linear_models(model: Build, samples: int) -> None:
    """The gradient is the same everywhere: what is left is x less the mean of the baselines that were drawn."""
    w = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    explainer = igonnx.Explainer(
        model("(float[N, 5] x) => (float[N, 3] y) { y = MatMul(x, w) }", {"w": w})
    )
    x = np.random.default_rng(1).normal(size=(2, 5)).astype(np.float32)
    sets = np.eye(5, dtype=np.float32)[:4]
    found = explainer.expected_gradients(x, target=1, baseline=sets, samples=samples)
    times = np.round((x - found.values / w[:, 1])[0, :4] * samples).astype(int)
    assert times.sum() == samples
    assert times.max() - times.min() == (samples % 4 > 0)  # as often as any other, give or take one
    assert np.abs(found.delta).max() < 1e-5
    np.testing.assert_allclose(
        found.values, w[:, 1] * (x - times @ sets / samples), rtol=1e-4, atol=1e-5
    )


def test_which_baseline_is_drawn_once_more_is_random() -> None:
    rng, often = np.random.default_rng(0), np.zeros(3)
    for _ in range(300):
        often += np.bincount(_stratified(4, 3, rng)[0], minlength=3)
    assert often.sum() == 1200
    assert np.abs(often / 300 - 4 / 3).max() < 0.15


@pytest.mark.parametrize(("samples", "size"), [(200, 20), (7, 3), (5, 9), (1, 1), (30, 30)])
def test_strata(samples: int, size: int) -> None:
    number, alpha = _stratified(samples, size, np.random.default_rng(5))
    assert np.floor(alpha * samples).astype(int).tolist() == list(range(samples))
    for start in range(0, samples, size):  # so that the alphas of each baseline are spread, too
        some = number[start : start + size]
        assert len(set(some.tolist())) == len(some)
    assert set(number.tolist()) <= set(range(size))


def test_a_quadratic_model(model: Build) -> None:
    """IG of x^2 from b is x^2 - b^2; strata leave an error of the order of 1 / samples^1.5."""
    graph = model("(float[N, 4] x) => (float[N, 1] y) { q = Mul(x, x) \n y = MatMul(q, w) }",
        {"w": np.ones((4, 1), np.float32)})  # fmt: skip
    explainer, rng = igonnx.Explainer(graph), np.random.default_rng(2)
    x, sets = (rng.normal(size=(n, 4)).astype(np.float32) for n in (2, 10))
    truth = x**2 - (sets**2).mean(axis=0)
    errors: dict[str, list[float]] = {name: [] for name in METHODS}
    for seed in range(8):
        for name in METHODS:
            found = getattr(explainer, name)(x, target=0, baseline=sets, samples=200, seed=seed)
            errors[name].append(np.sqrt(np.mean((found.values - truth) ** 2)))
    assert max(errors["expected_gradients"]) < 0.02
    assert np.mean(errors["gradient_shap"]) > 10 * np.mean(errors["expected_gradients"])


@pytest.mark.parametrize("method", METHODS)
def test_converges_to_the_mean_over_the_baselines(model: Build, method: str) -> None:
    explainer, x, sets = igonnx.Explainer(NET.onnx(model)), NET.inputs(2), NET.inputs(6, 5)
    truth = [
        NET.integrated_gradients(
            x, {n: np.broadcast_to(sets[n][k], a.shape) for n, a in x.items()}, TARGET[:2], 30
        )
        for k in range(6)
    ]
    mean = {name: np.mean([one[name] for one in truth], axis=0) for name in x}
    found = getattr(explainer, method)(x, target=[1, 2], baseline=sets, samples=20_000)
    assert_close(found.values, mean, 1e-3 if method == "expected_gradients" else 0.05)
    listed = [{n: np.broadcast_to(sets[n][k], a.shape) for n, a in x.items()} for k in range(6)]
    averaged = explainer.integrated_gradients(x, target=[1, 2], baseline=listed)
    assert_close(averaged.values, mean, 1e-5)
    if method == "expected_gradients":
        assert np.abs(found.delta).max() < 1e-3


# -- what may be given -------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_forms_of_the_same_distribution(model: Build, method: str) -> None:
    explainer, x, sets = igonnx.Explainer(NET.onnx(model)), NET.inputs(3), NET.inputs(4, 5)
    zeros = {name: np.zeros_like(array) for name, array in sets.items()}

    def values(baseline: Any) -> Any:
        return getattr(explainer, method)(x, target=0, baseline=baseline, samples=9, seed=2).values

    listed = [{n: np.broadcast_to(sets[n][k], a.shape) for n, a in x.items()} for k in range(4)]
    assert_close(values(listed), values(sets))
    wide = {name: array.astype(np.float64) for name, array in sets.items()}
    assert_close(values(wide), values(sets))
    # beside a set, a number or nothing fills as many
    filled = {"a": sets["a"], "b": zeros["b"]}
    for partly in ({"a": sets["a"]}, {"a": sets["a"], "b": 0}, {"a": sets["a"], "b": None}):
        assert_close(values(partly), values(filled))
    # one example is a set of one; no set at all is one baseline
    first = {name: array[0] for name, array in zeros.items()}
    for single in (None, 0.0, first, {name: a[None] for name, a in first.items()}, {"a": 0.0}):
        assert_close(values(single), values(None))
    assert_close(values([0.0, 1.0]), values({"a": np.stack([first["a"], first["a"] + 1]),
                                             "b": np.stack([first["b"], first["b"] + 1])}))  # fmt: skip


def test_a_single_array(mlp: onnx.ModelProto) -> None:
    explainer, rng = igonnx.Explainer(mlp), np.random.default_rng(0)
    x, sets = rng.normal(size=(3, 6)).astype(np.float32), rng.normal(size=(5, 6))
    for method in METHODS:
        explain = getattr(explainer, method)
        found = explain(x, target=0, baseline=sets, samples=10)
        named = explain(x, target=0, baseline={"x": sets}, samples=10)
        np.testing.assert_allclose(found.values, named.values, atol=1e-7)
        assert isinstance(found.values, np.ndarray)


@pytest.mark.parametrize("method", METHODS)
def test_names(model: Build, method: str) -> None:
    graph = model(
        "(float[N, 2, 3, 4] x) => (float[N, 2] y) { s = Sin(x) \n y = ReduceSum<keepdims = 0>(s, axes) }",
        {"axes": np.array([2, 3])},
    )
    explainer = igonnx.Explainer(graph)
    x = np.random.default_rng(0).normal(size=(2, 2, 3, 4)).astype(np.float32)
    found = getattr(explainer, method)(
        x, target=0, baseline=["black", "white"], samples=4000, seed=1
    )
    sure = explainer.integrated_gradients(x, target=0, baseline=["black", "white"])
    np.testing.assert_allclose(found.values, sure.values, atol=0.1)
    alone = getattr(explainer, method)(x, target=0, baseline="blurred", samples=4000)
    sure = explainer.integrated_gradients(x, target=0, baseline="blurred")
    np.testing.assert_allclose(alone.values, sure.values, atol=0.1)


def test_inner_tensors(model: Build) -> None:
    """Of inner tensors, sets are of their own shape; baselines of the input are given as a list."""
    weights = {"k": np.eye(4, dtype=np.float32) * 2, "w": np.ones((4, 2), np.float32)}
    graph = model(
        """(float[N, 4] x) => (float[N, 2] y) {
            p = MatMul(x, k)
            h = Tanh(p)
            q = Mul(h, h)
            y = MatMul(q, w)
        }""",
        weights,
    )
    rng = np.random.default_rng(0)
    x, sets = (rng.normal(size=(n, 4)).astype(np.float32) for n in (3, 5))
    explainer = igonnx.Explainer(graph, wrt="h")
    for method in METHODS:
        explain = getattr(explainer, method)
        inner = explain(x, target=0, baseline=np.tanh(2 * sets), samples=15, seed=2)
        listed = explain(x, target=0, baseline=[{"x": one} for one in sets], samples=15, seed=2)
        np.testing.assert_allclose(inner.values, listed.values, atol=1e-6)
        np.testing.assert_allclose(inner.baseline_scores, listed.baseline_scores, atol=1e-5)
        np.testing.assert_allclose(inner.scores, (np.tanh(2 * x) ** 2).sum(axis=1), rtol=1e-5)


EMPTY, FIVE = np.zeros((0, 2, 3), np.float32), np.zeros((5, 2, 3))
REFUSED: list[tuple[Any, str]] = [
    ({"a": EMPTY, "b": np.zeros((0, 4))}, "baselines of 'a' are an empty set; expected at least one example"),
    ([], "baseline is an empty list; expected at least one baseline"),
    (FIVE, "one set of baselines was given for 2 explained tensors: pass a dict of ['a', 'b']"),
    ({"a": FIVE, "b": np.zeros((4, 4))}, "baselines hold different numbers of examples: {'a': 5, 'b': 4}"),
    ({"a": np.zeros((5, 3))}, "baselines of 'a' have shape [5, 3]; expected [K, ...] with K examples of shape [2, 3]"),
    ({"a": np.zeros(7)}, "baselines of 'a' have shape [7]; expected [K, ...] with K examples of shape [2, 3]"),
    ({"a": np.full((2, 2, 3), np.nan)}, "baselines of 'a' hold values that are not finite"),
    ({"a": np.full((2, 2, 3), 1e300)}, "baselines of 'a' hold values that are not finite"),
    ({"a": np.full((2, 2, 3), 1j)}, "baselines of 'a' are complex128; expected numbers"),
    ({"a": np.full((2, 2, 3), "1")}, "baselines of 'a' are <U1; expected numbers"),
    ({"z": 0.0}, "baseline for 'z', which is not explained; expected 'a', 'b'"),
    ({"a": FIVE, "z": 0.0}, "baseline for 'z', which is not explained; expected 'a', 'b'"),
    ({"a": FIVE, "b": "mean"}, "baseline of 'b' is 'mean' beside a set of examples; expected "),
    ("greyish", "baseline is 'greyish'; expected 'black', "),
    (["black"], "baseline 'black' is for images and series; "),
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("baseline", "message"), REFUSED, ids=[m[:40] for _, m in REFUSED])
def test_refused_baselines(model: Build, method: str, baseline: Any, message: str) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model)), NET.inputs(3)
    with pytest.raises(igonnx.InputError) as caught:
        getattr(explainer, method)(x, baseline=baseline)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("samples", [0, -1, 1.0, True, None])
@pytest.mark.parametrize("method", METHODS)
def test_refused_samples(mlp: onnx.ModelProto, method: str, samples: Any) -> None:
    x = np.zeros((1, 6), np.float32)
    with pytest.raises(
        igonnx.InputError, match=r"^samples is .*; expected a whole number of at least 1$"
    ):
        getattr(igonnx.Explainer(mlp), method)(x, samples=samples)


@pytest.mark.parametrize(
    "std", [-1, np.nan, "1", None, {"x": -1}, {"x": None}, {"z": 1}, True], ids=str
)
def test_refused_noise(mlp: onnx.ModelProto, std: Any) -> None:
    x = np.zeros((1, 6), np.float32)
    with pytest.raises(igonnx.InputError, match=r"^noise_std .*; expected ") as caught:
        igonnx.Explainer(mlp).gradient_shap(x, noise_std=std)
    assert "\n" not in str(caught.value)


# -- batches -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "noise"),
    [*((name, {}) for name in METHODS), ("gradient_shap", {"noise_std": 0.3})],
    ids=str,
)
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_an_example_does_not_depend_on_the_others(
    model: Build, method: str, batch_size: int, noise: dict[str, float]
) -> None:
    explainer = igonnx.Explainer(NET.onnx(model), batch_size=batch_size)
    x, explain = NET.inputs(3), getattr(explainer, method)
    options = {"baseline": NET.inputs(3, 5), "samples": 10, "seed": 3, **noise}
    together = explain(x, target=TARGET.tolist(), **options)
    for index in range(3):
        one = {name: array[index : index + 1] for name, array in x.items()}
        alone = explain(one, target=int(TARGET[index]), **options)
        rows = {name: a[index : index + 1] for name, a in as_dict(together.values).items()}
        assert_close(rows, as_dict(alone.values))
        assert alone.baseline_scores[0] == pytest.approx(together.baseline_scores[index], abs=1e-6)


@pytest.mark.parametrize("noise", [{}, {"noise_std": 0.3}], ids=["", "noise"])
def test_groups_of_paths_change_nothing(
    model: Build, noise: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model), batch_size=3, threads=1), NET.inputs(2)
    method = "gradient_shap" if noise else "expected_gradients"
    options = {"baseline": NET.inputs(7, 5), "samples": 25, "target": 0, **noise}
    whole = getattr(explainer, method)(x, **options)
    monkeypatch.setattr(call_module, "TOGETHER", 1)
    calls: list[tuple[int, int]] = []
    parts = getattr(explainer, method)(x, progress=lambda *at: calls.append(at), **options)
    assert_close(parts.values, as_dict(whole.values))
    np.testing.assert_allclose(parts.baseline_scores, whole.baseline_scores, atol=1e-6)
    assert {total for _, total in calls} == {50}
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1] == (50, 50)
    assert len(calls) > 6


@pytest.mark.parametrize("method", METHODS)
def test_errors_name_the_example(model: Build, method: str) -> None:
    graph = model("(float[N, 2] x) => (float[N, 1] y) { s = Sqrt(x) \n y = MatMul(s, w) }",
        {"w": np.ones((2, 1), np.float32)})  # fmt: skip
    explainer, x = igonnx.Explainer(graph), np.float32([[4, 4], [-4, 4]])
    with pytest.raises(igonnx.EngineError, match=r"^the score is not finite .* example 1 "):
        getattr(explainer, method)(x, target=0, baseline=np.ones((3, 2)))
    with pytest.raises(igonnx.EngineError, match=r"^the score is not finite .* example 0 "):
        getattr(explainer, method)(x[:1], target=0, baseline=-np.ones((3, 2)))


def test_scores_that_are_not_finite_at_the_ends(model: Build) -> None:
    """Where no gradient is evaluated at the input itself, its score is looked at all the same."""
    graph = model("(float[N, 1] x) => (float[N, 1] y) { y = Log(x) }")
    explainer = igonnx.Explainer(graph)
    with pytest.raises(igonnx.EngineError, match=r"^the score is -inf at a point of example 1"):
        explainer.expected_gradients(np.float32([[2], [0]]), baseline=np.ones((1, 1)))
    with pytest.raises(igonnx.EngineError, match=r"^the score is -inf at a point of example 0"):
        explainer.expected_gradients(np.float32([[2]]), baseline=np.zeros((1, 1)))


def test_a_distribution_of_inputs_before_an_inner_tensor(model: Build) -> None:
    rng = np.random.default_rng(3)
    table = rng.normal(size=(9, 4)).astype(np.float32)
    graph = model(
        """(int64[N, T] ids) => (float[N, 4] y) {
            z = Gather(e, ids)
            t = Tanh(z)
            y = ReduceMean<axes = [1], keepdims = 0>(t)
        }""",
        {"e": table},
    )
    explainer, ids, rows = (
        igonnx.Explainer(graph),
        rng.integers(9, size=(3, 5)),
        rng.integers(9, size=(4, 5)),
    )
    found = explainer.expected_gradients(ids, baseline=[{"ids": row} for row in rows], samples=9)
    expected = explainer.expected_gradients(ids, baseline={"z": table[rows]}, samples=9)
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.baseline_scores, expected.baseline_scores, atol=1e-6)
