"""Blur IG: the blur against scipy, the integral against closed forms and a second, plain implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from scipy import ndimage

import igonnx
from igonnx.methods import blur_ig as blur_module
from igonnx.methods.blur_ig import gaussian_blur
from igonnx.models import digits

Build = Callable[..., onnx.ModelProto]
Array = NDArray[np.float64]
ENGINES = ["native", "reference"]
HEIGHT, WIDTH = 11, 7


def _sharp(count: int, *shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(count, *shape))


def _blurred(x: Array, sigma: float, axes: tuple[int, ...] = (2, 3)) -> Array:
    """One element after another along each axis, out of zeros: [N, ...]."""
    if sigma == 0:
        return x
    return np.asarray(ndimage.gaussian_filter(x, sigma, axes=axes, mode="constant"))


class TanhImage:
    """y = tanh(x K + c) V for images x [N, 3, HEIGHT, WIDTH], in NumPy with its gradient."""

    def __init__(self, seed: int = 5) -> None:
        rng = np.random.default_rng(seed)
        self.k = rng.normal(size=(3 * HEIGHT * WIDTH, 6)) / 8
        self.c, self.v = rng.normal(size=6), rng.normal(size=(6, 4))

    def onnx(self, build: Build, dtype: Any = np.float64, *, last: bool = False) -> Any:
        kind = {np.float32: "float", np.float64: "double"}[dtype]
        shape = f"{HEIGHT}, {WIDTH}, 3" if last else f"3, {HEIGHT}, {WIDTH}"
        first = "Transpose<perm = [0, 3, 1, 2]>(x)" if last else "Identity(x)"
        return build(
            f"""({kind}[N, {shape}] x) => ({kind}[N, 4] y) {{
                i = {first}
                f = Flatten(i)
                h = Gemm(f, k, c)
                t = Tanh(h)
                y = MatMul(t, v)
            }}""",
            {"k": self.k.astype(dtype), "c": self.c.astype(dtype), "v": self.v.astype(dtype)},
        )

    def hidden(self, x: Array) -> Array:
        return np.asarray(np.tanh(x.reshape(len(x), -1) @ self.k + self.c))

    def score(self, x: Array, target: int) -> Array:
        return np.asarray(self.hidden(x) @ self.v[:, target])

    def gradient(self, x: Array, target: int) -> Array:
        back = (1 - self.hidden(x) ** 2) * self.v[:, target]
        return np.asarray((back @ self.k.T).reshape(x.shape))


NET = TanhImage()


def _expected(
    x: Array, steps: int, max_sigma: float, grad_step: float | None, *, sqrt: bool
) -> tuple[Array, Array]:
    """The values, and the scores from the blurred image to the sharp one."""
    even = [i / steps for i in range(steps + 1)]
    sigmas = [max_sigma * (e**0.5 if sqrt else e) for e in even]
    gradients = [NET.gradient(_blurred(x, sigma), 2) for sigma in sigmas]
    total = np.zeros(x.shape)
    for i in range(steps):
        sharp = _blurred(x, sigmas[i])
        if grad_step is None:
            mean = (gradients[i] + gradients[i + 1]) / 2
            total += mean * (sharp - _blurred(x, sigmas[i + 1]))
        else:
            slope = (_blurred(x, sigmas[i] + grad_step) - sharp) / grad_step
            total -= gradients[i] * slope * (sigmas[i + 1] - sigmas[i])
    scores = [NET.score(_blurred(x, sigma), 2) for sigma in reversed(sigmas)]
    return total, np.stack(scores, axis=1)


# -- the blur ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.0, 0.01, 0.124, 0.126, 0.3, 1.0, 2.71, 10.0, 50.0])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((2, 3, 11, 7), (2, 3)),
        ((2, 9, 8, 3), (1, 2)),
        ((1, 4, 65), (2,)),
        ((1, 1, 5, 6, 7), (2, 3, 4)),
        ((1, 2, 1, 3), (2, 3)),
    ],
)
def test_blur_is_that_of_scipy(shape: tuple[int, ...], axes: tuple[int, ...], sigma: float) -> None:
    x = _sharp(*shape)
    found = gaussian_blur(x, sigma, axes)
    assert found.shape == x.shape
    np.testing.assert_allclose(found, _blurred(x, sigma, axes), atol=1e-14)


def test_long_axes_are_blurred_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    x = _sharp(2, 3, 40, 50)
    short = gaussian_blur(x, 3.0, (2, 3))
    monkeypatch.setattr(blur_module, "_LONGEST_MATRIX", 45)
    np.testing.assert_allclose(gaussian_blur(x, 3.0, (2, 3)), short, atol=1e-14)
    monkeypatch.setattr(blur_module, "_LONGEST_MATRIX", 10)
    np.testing.assert_allclose(gaussian_blur(x, 3.0, (2, 3)), short, atol=1e-14)


# -- the integral ------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("sqrt", [False, True])
@pytest.mark.parametrize("grad_step", [None, 0.01, 0.5])
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_second_implementation(
    model: Build, steps: int, grad_step: float | None, sqrt: bool, engine: str
) -> None:
    x = _sharp(3, 3, HEIGHT, WIDTH)
    found = igonnx.Explainer(NET.onnx(model), engine=engine).blur_ig(
        x, target=2, steps=steps, max_sigma=4.0, grad_step=grad_step, sqrt=sqrt
    )
    values, scores = _expected(x, steps, 4.0, grad_step, sqrt=sqrt)
    np.testing.assert_allclose(found.values, values, atol=1e-11 * np.abs(values).max(initial=1))
    np.testing.assert_allclose([path.score for path in found.path], scores, atol=1e-12)
    np.testing.assert_allclose(found.scores, NET.score(x, 2), atol=1e-12)
    np.testing.assert_allclose(found.baseline_scores, NET.score(_blurred(x, 4.0), 2), atol=1e-12)
    np.testing.assert_allclose(
        found.delta, found.values.sum(axis=(1, 2, 3)) - scores[:, -1] + scores[:, 0], atol=1e-10
    )
    assert (found.steps_used == steps + (grad_step is None)).all()
    for path, example in zip(found.path, found.values, strict=True):
        np.testing.assert_allclose(path.alpha, np.arange(steps + 1) / steps)
        assert path.weight.sum() == pytest.approx(1)
        assert path.weight @ path.slope == pytest.approx(example.sum(), abs=1e-10)


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize(
    ("text", "integral"),
    [
        ("y = MatMul(f, w)", lambda w, z: w * z),
        ("s = Mul(f, f) y = MatMul(s, w)", lambda w, z: w * z**2),
    ],
    ids=["linear", "quadratic"],
)
def test_closed_forms(model: Build, text: str, integral: Any, steps: int) -> None:
    # The trapezoid rule is exact where the gradient of each element is linear in that element.
    w = np.random.default_rng(1).normal(size=2 * 9 * 6)
    graph = model(f"(double[N, 2, 9, 6] x) => (double[N] y) {{ f = Flatten(x) {text} }}", {"w": w})
    x = _sharp(2, 2, 9, 6)
    found = igonnx.Explainer(graph).blur_ig(x, steps=steps, max_sigma=3.0)
    weights = w.reshape(2, 9, 6)
    expected = integral(weights, x) - integral(weights, _blurred(x, 3.0))
    np.testing.assert_allclose(found.values, expected, atol=1e-12)
    assert np.abs(found.delta).max() < 1e-11


def test_values_add_up_as_steps_get_smaller(model: Build) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model)), 3 * _sharp(4, 3, HEIGHT, WIDTH)
    few, many = (
        np.abs(explainer.blur_ig(x, target=2, steps=steps, max_sigma=4.0).delta).max()
        for steps in (40, 400)
    )
    assert many < few / 30  # of second order: a hundredth
    assert many < 2e-3


def test_channels_last(model: Build) -> None:
    x = _sharp(2, 3, HEIGHT, WIDTH)
    options = {"target": 1, "steps": 5, "max_sigma": 2.0}
    first = igonnx.Explainer(NET.onnx(model)).blur_ig(x, **options)
    last = igonnx.Explainer(NET.onnx(model, last=True)).blur_ig(
        np.moveaxis(x, 1, 3).copy(), **options
    )
    np.testing.assert_allclose(np.moveaxis(last.values, 3, 1), first.values, atol=1e-12)


def test_a_series_and_an_image_at_once(model: Build) -> None:
    rng = np.random.default_rng(2)
    weights = {"u": rng.normal(size=2 * 33), "w": rng.normal(size=1 * 5 * 5)}
    graph = model(
        """(double[N, 2, 33] series, double[N, 1, 5, 5] image) => (double[N] y) {
            f = Flatten(series)
            g = Flatten(image)
            a = MatMul(f, u)
            b = MatMul(g, w)
            y = Add(a, b)
        }""",
        weights,
    )
    inputs = {"series": _sharp(3, 2, 33), "image": _sharp(3, 1, 5, 5)}
    found = igonnx.Explainer(graph).blur_ig(inputs, steps=3, max_sigma=2.5)
    assert isinstance(found.values, dict)
    expected = {
        "series": weights["u"].reshape(2, 33)
        * (inputs["series"] - _blurred(inputs["series"], 2.5, (2,))),
        "image": weights["w"].reshape(1, 5, 5)
        * (inputs["image"] - _blurred(inputs["image"], 2.5, (2, 3))),
    }
    for name, array in expected.items():
        np.testing.assert_allclose(found.values[name], array, atol=1e-12)


def test_inner_tensors(model: Build) -> None:
    rng = np.random.default_rng(3)
    weights = {"k": rng.normal(size=(4, 3, 3, 3)), "w": rng.normal(size=4 * 6 * 6)}
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    graph = model(
        """(float[N, 3, 6, 6] x) => (float[N] y) {
            c = Conv<pads = [1, 1, 1, 1]>(x, k)
            f = Flatten(c)
            y = MatMul(f, w)
        }""",
        weights,
    )
    x = _sharp(2, 3, 6, 6).astype(np.float32)
    found = igonnx.Explainer(graph, wrt="c").blur_ig(x, steps=2, max_sigma=1.5)
    assert found.values.shape == (2, 4, 6, 6)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    maps = np.einsum("nchwij,mcij->nmhw", windows, weights["k"])
    expected = weights["w"].reshape(4, 6, 6) * (maps - _blurred(maps, 1.5))
    np.testing.assert_allclose(found.values, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("engine", ENGINES)
def test_examples_do_not_depend_on_each_other(model: Build, engine: str, dtype: Any) -> None:
    x = _sharp(5, 3, HEIGHT, WIDTH).astype(dtype)
    graph, options = NET.onnx(model, dtype), {"target": 0, "steps": 6, "max_sigma": 3.0}
    bound = 1e-5 if dtype == np.float32 else 1e-12
    results = [
        igonnx.Explainer(graph, engine=engine, batch_size=size).blur_ig(x, **options)
        for size in (3, 1, 7, 50)
    ]
    for found in results[1:]:
        np.testing.assert_allclose(found.values, results[0].values, atol=bound)
    alone = igonnx.Explainer(graph, engine=engine).blur_ig(x[3:4], **options)
    np.testing.assert_allclose(alone.values, results[0].values[3:4], atol=bound)
    assert results[0].values.dtype == dtype


def test_noise_goes_around_it(model: Build) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model)), _sharp(2, 3, HEIGHT, WIDTH)
    options: dict[str, Any] = {"target": 1, "steps": 4, "max_sigma": 2.0, "noise_samples": 3}
    first, again, other = (
        explainer.blur_ig(x, seed=seed, noise="smoothgrad", noise_std=0.2, **options)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.values, again.values)
    assert not np.allclose(first.values, other.values)
    still = explainer.blur_ig(x, noise="smoothgrad", noise_std=0.0, **options)
    plain = explainer.blur_ig(x, target=1, steps=4, max_sigma=2.0)
    np.testing.assert_allclose(still.values, plain.values, atol=1e-12)
    np.testing.assert_allclose(still.baseline_scores, plain.baseline_scores, atol=1e-12)


def test_progress_ends_with_all(model: Build) -> None:
    told: list[tuple[int, int]] = []
    explainer = igonnx.Explainer(NET.onnx(model), batch_size=2)
    explainer.blur_ig(
        _sharp(5, 3, HEIGHT, WIDTH), steps=4, progress=lambda *counts: told.append(counts)
    )
    assert told[-1] == (25, 25)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0; expected a whole number of at least 1"),
        ({"max_sigma": 0}, "max_sigma is 0; expected a number above 0 and at most 100000"),
        (
            {"max_sigma": 1e9},
            "max_sigma is 1000000000.0; expected a number above 0 and at most 100000",
        ),
        ({"max_sigma": np.inf}, "max_sigma is inf; expected a number above 0 and at most 100000"),
        ({"max_sigma": None}, "max_sigma is None; expected a number above 0 and at most 100000"),
        ({"grad_step": 0.0}, "grad_step is 0.0; expected a number above 0"),
        ({"grad_step": "x"}, "grad_step is 'x'; expected a number above 0"),
    ],
)
def test_what_is_refused(model: Build, options: dict[str, Any], message: str) -> None:
    with pytest.raises(igonnx.InputError) as caught:
        igonnx.Explainer(NET.onnx(model)).blur_ig(_sharp(1, 3, HEIGHT, WIDTH), **options)
    assert str(caught.value) == message


def test_tables_are_refused(mlp: onnx.ModelProto) -> None:
    with pytest.raises(igonnx.InputError, match=r"images and series; 'x' has shape \[2, 6\]"):
        igonnx.Explainer(mlp).blur_ig(np.ones((2, 6), np.float32))


def test_a_baseline_is_not_used_and_said_so() -> None:
    explainer = igonnx.Explainer(digits.load(), batch_size=2)
    image = np.random.default_rng(3).random((1, 1, 8, 8), np.float32)
    plain = explainer.blur_ig(image, steps=3)
    with pytest.warns(UserWarning, match=r"^blur_ig makes no use of a baseline"):
        given = explainer.blur_ig(image, steps=3, baseline=0.5)
    np.testing.assert_array_equal(plain.values, given.values)
