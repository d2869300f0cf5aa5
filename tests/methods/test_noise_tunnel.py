"""The noise tunnel: its draws, what is made of them, and that nothing else depends on them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from tanh_net import Arrays, TanhNet, as_dict, assert_close

import igonnx
from igonnx.methods import call as call_module
from igonnx.models import digits

Build = Callable[..., onnx.ModelProto]
NET = TanhNet.make()
KINDS = ("smoothgrad", "smoothgrad_sq", "vargrad")
STDS: list[Any] = [None, 0.3, {"a": 0.2, "b": 0.7}, {"b": 0.5}, {"a": None, "b": 0.1}]
TARGET = np.array([2, 0, 1])

Method = Callable[[Arrays], dict[str, NDArray[np.float64]]]


def _copies(x: Arrays, std: Any, seed: int, samples: int) -> list[dict[str, NDArray[Any]]]:
    """The draws as they are documented: the same for every example, tensor by tensor, scaled by each one's width."""
    rng = np.random.default_rng(seed)
    copies = []
    for _ in range(samples):
        copy = {}
        for name, array in x.items():
            draw = rng.standard_normal(array.shape[1:], dtype=array.dtype)
            flat = array.reshape(len(array), -1)
            own = std.get(name, 0.0) if isinstance(std, dict) else std
            width = (
                0.15 * (flat.max(axis=1) - flat.min(axis=1))
                if own is None
                else np.full(len(array), own)
            )
            noisy = array + draw * width.reshape(-1, *[1] * draw.ndim)
            copy[name] = noisy.astype(array.dtype)
        copies.append(copy)
    return copies


def _tunnel(kind: str, results: list[dict[str, NDArray[np.float64]]]) -> dict[str, Any]:
    stacked = {name: np.stack([one[name] for one in results]) for name in results[0]}
    made = {
        "smoothgrad": lambda a: a.mean(axis=0),
        "smoothgrad_sq": lambda a: (a**2).mean(axis=0),
        "vargrad": lambda a: a.var(axis=0),
    }[kind]
    return {name: made(array) for name, array in stacked.items()}


def _saliency(x: Arrays) -> dict[str, NDArray[np.float64]]:
    return {name: np.abs(g) for name, g in NET.gradient(x, TARGET).items()}


def _input_x_gradient(x: Arrays) -> dict[str, NDArray[np.float64]]:
    return {name: g * x[name] for name, g in NET.gradient(x, TARGET).items()}


def _integrated(x: Arrays) -> dict[str, NDArray[np.float64]]:
    zeros = {name: np.zeros_like(array) for name, array in x.items()}
    return NET.integrated_gradients(x, zeros, TARGET, 5)


METHODS: dict[str, tuple[Method, dict[str, Any]]] = {
    "saliency": (_saliency, {}),
    "input_x_gradient": (_input_x_gradient, {}),
    "integrated_gradients": (_integrated, {"steps": 5}),
    "smoothgrad_ig": (_integrated, {"steps": 5}),
}


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("std", STDS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_draws(model: Build, kind: str, std: Any, engine: str) -> None:
    """The very numbers that a second implementation gives."""
    explainer = igonnx.Explainer(NET.onnx(model), engine=engine)
    x = NET.inputs(3)
    options: dict[str, Any] = {"noise": kind, "noise_samples": 4, "noise_std": std, "seed": 9}
    for name, (method, own) in METHODS.items():
        found = getattr(explainer, name)(x, target=TARGET.tolist(), **own, **options)
        assert_close(found.values, _tunnel(kind, [method(c) for c in _copies(x, std, 9, 4)]), 1e-5)
        assert f"noise={kind} noise_samples=4" in found.method
        assert found.steps_used.tolist() == [4 * own.get("steps", 1)] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_double_precision(model: Build, kind: str) -> None:
    explainer = igonnx.Explainer(NET.onnx(model, np.float64))
    x = NET.inputs(3, dtype=np.float64)
    found = explainer.input_x_gradient(
        x, target=TARGET.tolist(), noise=kind, noise_samples=3, noise_std=1e-4
    )
    expected = _tunnel(kind, [_input_x_gradient(c) for c in _copies(x, 1e-4, 0, 3)])
    # A variance of numbers this close is lost where their squares are subtracted.
    assert_close(found.values, expected, 1e-9)
    assert all(array.dtype == np.float64 for array in as_dict(found.values).values())


def test_scores_are_those_of_the_input_itself(model: Build) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model)), NET.inputs(3)
    zeros = {name: np.zeros_like(array) for name, array in x.items()}
    for rule in ("gauss_legendre", "trapezoid", "left"):
        found = explainer.integrated_gradients(
            x, target=TARGET.tolist(), noise="smoothgrad", noise_std=0.5, rule=rule, steps=6
        )
        np.testing.assert_allclose(found.scores, NET.score(x, TARGET), rtol=1e-5)
        np.testing.assert_allclose(found.baseline_scores, NET.score(zeros, TARGET), rtol=1e-5)
        total = sum(a.reshape(3, -1).sum(axis=1) for a in as_dict(found.values).values())
        change = found.scores - found.baseline_scores
        np.testing.assert_allclose(found.delta, total - change, atol=1e-5)
        assert len(found.path) == 3
        assert found.path[0].weight.sum() == pytest.approx(1)


def test_seeds(model: Build) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model), batch_size=4), NET.inputs(2)

    def found(seed: int) -> NDArray[Any]:
        values = explainer.saliency(x, target=0, noise="smoothgrad", noise_std=0.3, seed=seed)
        return as_dict(values.values)["a"]

    np.testing.assert_array_equal(found(5), found(5))
    assert np.abs(found(5) - found(6)).max() > 1e-3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("std", [None, 0.3])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_an_example_does_not_depend_on_the_others(
    model: Build, method: str, std: Any, batch_size: int
) -> None:
    explainer = igonnx.Explainer(NET.onnx(model), batch_size=batch_size)
    x, (_, own) = NET.inputs(3), METHODS[method]
    explain = getattr(explainer, method)
    options = {"noise": "smoothgrad", "noise_std": std, "noise_samples": 5, "seed": 3, **own}
    together = explain(x, target=TARGET.tolist(), **options)
    for index in range(3):
        one = {name: array[index : index + 1] for name, array in x.items()}
        alone = explain(one, target=int(TARGET[index]), **options)
        rows = {name: a[index : index + 1] for name, a in as_dict(together.values).items()}
        assert_close(rows, as_dict(alone.values))


@pytest.mark.parametrize("kind", KINDS)
def test_groups_of_copies_change_nothing(
    model: Build, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model), batch_size=3, threads=1), NET.inputs(2)
    options: dict[str, Any] = {"noise": kind, "noise_samples": 11, "noise_std": 0.3, "steps": 4}
    options |= {"target": 0, "baseline": [0.0, 1.0, None]}
    whole = explainer.integrated_gradients(x, **options)
    monkeypatch.setattr(call_module, "TOGETHER", 1)
    calls: list[tuple[int, int]] = []
    parts = explainer.integrated_gradients(x, progress=lambda *at: calls.append(at), **options)
    assert_close(parts.values, as_dict(whole.values))
    for name in ("scores", "baseline_scores", "delta"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-6)
    np.testing.assert_array_equal(parts.steps_used, whole.steps_used)
    np.testing.assert_allclose(parts.path[1].score, whole.path[1].score, atol=1e-6)
    # in groups, whose last is smaller, progress is still that of all
    total = 11 * 3 * 2 * 4
    assert {most for _, most in calls} == {total}
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert calls[-1] == (total, total)


@pytest.mark.parametrize("method", METHODS)
def test_progress_ends_at_its_total(model: Build, method: str) -> None:
    explainer = igonnx.Explainer(NET.onnx(model), batch_size=2)
    calls: list[tuple[int, int]] = []
    getattr(explainer, method)(
        NET.inputs(3),
        noise="vargrad",
        noise_samples=7,
        progress=lambda *at: calls.append(at),
        **METHODS[method][1],
    )
    total = 7 * 3 * METHODS[method][1].get("steps", 1)
    assert {most for _, most in calls} == {total}
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1][0] == total
    assert len(calls) > 3


def test_without_width_there_is_no_noise(model: Build) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model)), NET.inputs(2)
    plain = as_dict(explainer.saliency(x, target=0).values)
    still = {"noise_samples": 4, "noise_std": 0, "target": 0}
    assert_close(explainer.saliency(x, noise="smoothgrad", **still).values, plain)
    for array in as_dict(explainer.saliency(x, noise="vargrad", **still).values).values():
        assert np.abs(array).max() < 1e-12
    # a share of the range of what is constant
    flat = {name: np.ones_like(array) for name, array in x.items()}
    for array in as_dict(explainer.saliency(flat, target=0, noise="vargrad").values).values():
        assert np.abs(array).max() < 1e-12


def test_one_sample(model: Build) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model)), NET.inputs(3)
    found = explainer.saliency(x, target=TARGET.tolist(), noise="smoothgrad", noise_samples=1)
    assert_close(found.values, _saliency(_copies(x, None, 0, 1)[0]), 1e-5)
    found = explainer.saliency(x, target=0, noise="vargrad", noise_samples=1)
    assert all((array == 0).all() for array in as_dict(found.values).values())


# -- with a tolerance --------------------------------------------------------------------------


def test_tolerance(model: Build) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model)), NET.inputs(3)
    zeros = {name: np.zeros_like(array) for name, array in x.items()}
    calls: list[tuple[int, int]] = []
    options: dict[str, Any] = {"target": TARGET.tolist(), "noise_samples": 4, "noise_std": 0.4}
    found = explainer.integrated_gradients(
        x, noise="smoothgrad", tolerance=0.01, progress=lambda *at: calls.append(at), **options
    )
    exact = [NET.integrated_gradients(copy, zeros, TARGET, 40) for copy in _copies(x, 0.4, 0, 4)]
    expected = _tunnel("smoothgrad", exact)
    error = sum(((as_dict(found.values)[n] - a) ** 2).reshape(3, -1).sum(axis=1)
                for n, a in expected.items())  # fmt: skip
    size = sum((a**2).reshape(3, -1).sum(axis=1) for a in expected.values())
    assert found.error_estimate is not None
    assert (np.sqrt(error / size) < 2 * found.error_estimate).all()
    assert (found.error_estimate < 0.02).all()
    assert calls[-1][0] == calls[-1][1] == 4 * 3 * 1000
    assert calls == sorted(calls)
    for kind in ("smoothgrad_sq", "vargrad"):
        found = explainer.integrated_gradients(x, noise=kind, tolerance=0.01, **options)
        assert_close(found.values, _tunnel(kind, exact), 0.03)
        assert found.error_estimate is None


def test_the_estimate_is_that_of_the_mean(model: Build) -> None:
    """Where attributions cancel in their mean, the relative error is larger than that of each."""
    graph = model("(float[N, 2] x) => (float[N, 1] y) { t = Mul(x, x) \n y = MatMul(t, w) }",
        {"w": np.ones((2, 1), np.float32)})  # fmt: skip
    x = np.float32([[1.0, 0.1]])
    away = igonnx.Explainer(graph).integrated_gradients(
        x, target=0, tolerance=0.05, baseline=[0.0, np.float32([[1.4, 0.1]])]
    )
    single = igonnx.Explainer(graph).integrated_gradients(x, target=0, tolerance=0.05)
    assert away.error_estimate is not None
    assert single.error_estimate is not None
    exact = np.array([[(1 + (1 - 1.96)) / 2, 0.005]])
    np.testing.assert_allclose(away.values, exact, atol=0.01)
    assert away.error_estimate[0] > 5 * single.error_estimate[0]


@pytest.mark.parametrize(
    "options",
    [
        {"baseline": ["uniform"] * 4},
        {"noise": "smoothgrad", "noise_samples": 6, "noise_std": 0.02},
        {"noise": "smoothgrad", "noise_samples": 3, "baseline": ["black", "uniform"]},
    ],
    ids=["baselines", "noise", "both"],
)
def test_the_estimate_is_honest(options: dict[str, Any]) -> None:
    """With kinks: the errors of baselines cancel in part, those of copies that are alike hardly do."""
    images = digits.test_set()[0][:6]
    explainer = igonnx.Explainer(digits.load(), batch_size=64)
    truth = explainer.integrated_gradients(
        images, rule="trapezoid", steps=1200, target=0, **options
    )
    found = explainer.integrated_gradients(images, tolerance=0.02, target=0, **options)
    assert found.error_estimate is not None
    gap, size = (
        np.linalg.norm(array.reshape(6, -1), axis=1)
        for array in (found.values - truth.values, truth.values)
    )
    ratio = gap / size / found.error_estimate
    assert 0.2 < np.median(ratio) < 1.7, np.sort(ratio)
    assert ratio.max() < 3, np.sort(ratio)


def test_a_missed_tolerance_is_said_once_per_example(mlp: onnx.ModelProto) -> None:
    explainer = igonnx.Explainer(mlp)
    x = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        explainer.integrated_gradients(
            x,
            baseline=[0.0, 1.0],
            noise="smoothgrad",
            noise_samples=3,
            tolerance=1e-6,
            max_steps=13,
        )
    messages = [str(w.message) for w in caught if w.category is igonnx.ToleranceWarning]
    assert [message[:9] for message in messages] == ["example 0", "example 1"]
    assert {w.filename for w in caught} == {__file__}


def test_errors_name_the_example_not_its_copy(model: Build) -> None:
    graph = model("(float[N, 2] x) => (float[N, 1] y) { s = Sqrt(x) \n y = MatMul(s, w) }",
        {"w": np.ones((2, 1), np.float32)})  # fmt: skip
    explainer, x = igonnx.Explainer(graph), np.float32([[4, 4], [0.01, 4]])
    options: dict[str, Any] = {"target": 0, "noise": "smoothgrad", "noise_std": 0.2, "seed": 1}
    for name in ("saliency", "integrated_gradients"):
        with pytest.raises(igonnx.EngineError, match=r"of example 1 "):
            getattr(explainer, name)(x, noise_samples=20, **options)


# -- adding up ---------------------------------------------------------------------------------


def test_exact_sum(model: Build) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model)), NET.inputs(2)
    found = explainer.integrated_gradients(x, noise="smoothgrad", noise_std=0.1, exact_sum=True)
    assert np.abs(found.delta).max() < 1e-12
    for kind in ("smoothgrad_sq", "vargrad"):
        with pytest.raises(igonnx.InputError, match=f"^exact_sum is for .*noise='{kind}'"):
            explainer.integrated_gradients(x, noise=kind, exact_sum=True)


# -- what makes no sense -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_samples": 0}, "noise_samples is 0; expected a whole number of at least 1"),
        ({"noise_samples": 2.0}, "noise_samples is 2.0; expected a whole number of at least 1"),
        ({"noise_std": -0.1}, "noise_std is -0.1; expected a number of at least 0"),
        ({"noise_std": np.nan}, "noise_std is nan; expected a number of at least 0"),
        ({"noise_std": np.inf}, "noise_std is inf; expected a number of at least 0"),
        ({"noise_std": "0.1"}, "noise_std is '0.1'; expected a number of at least 0"),
        ({"noise_std": True}, "noise_std is True; expected a number of at least 0"),
        ({"noise_std": {"a": -1}}, "noise_std is -1; expected a number of at least 0"),
        ({"noise_std": {"z": 1}}, "noise_std for 'z', which is not explained; expected 'a', 'b'"),
        ({"noise": "smooth"}, "noise is 'smooth'; expected None, 'smoothgrad', 'smoothgrad_sq', 'vargrad'"),
        ({"seed": -1}, "seed is -1; expected a whole number of at least 0"),
        ({"seed": 1.5}, "seed is 1.5; expected a whole number of at least 0"),
        ({"seed": None}, "seed is None; expected a whole number of at least 0"),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("noise", [{}, {"noise": "vargrad"}], ids=["no noise", "noise"])
def test_refused(model: Build, noise: Any, options: dict[str, Any], message: str) -> None:
    explainer = igonnx.Explainer(NET.onnx(model))
    for name in METHODS:
        with pytest.raises(igonnx.InputError) as caught:
            getattr(explainer, name)(NET.inputs(1), **(noise | options))
        assert str(caught.value) == message


def test_smoothgrad_ig_needs_noise(model: Build) -> None:
    explainer = igonnx.Explainer(NET.onnx(model))
    with pytest.raises(igonnx.InputError, match=r"^noise is None; "):
        explainer.smoothgrad_ig(NET.inputs(1), noise=None)


def test_a_width_beyond_the_dtype_is_one_error(mlp: onnx.ModelProto) -> None:
    """And no warnings of NumPy's beside it, which are errors here."""
    explainer, x = igonnx.Explainer(mlp), np.ones((2, 6), np.float32)
    wide = {"noise": "smoothgrad", "noise_std": 1e39, "noise_samples": 2}
    with pytest.raises(igonnx.EngineError, match=r"^the (score|gradient) is not finite"):
        explainer.saliency(x, **wide)
    with pytest.raises(igonnx.EngineError, match=r"^the (score|gradient) is not finite"):
        explainer.gradient_shap(x, noise_std=1e39, samples=2)
    far = np.array([[-3e38, 3e38, 0, 0, 0, 0]], np.float32)
    found = explainer.saliency(far, noise="smoothgrad", noise_samples=2)  # the range itself is not
    assert np.isfinite(found.of()).all()
