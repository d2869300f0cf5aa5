"""Guided IG and Blur IG against the PAIR library `saliency` 0.2.1, its known errors apart.

Both are given the same gradients, and differ by rounding. On EfficientNet-Lite0 these are those of igonnx, to the last
bit: which elements Guided IG moves depends on the order of the gradients, and with gradients that differ by a
millionth the path of a network of ReLUs soon is another one (a third of the values' L2 norm after 20 steps).

What the library gets wrong, and what is compared instead:

- Guided IG passes `interpolation` to numpy.quantile, which NumPy 2.4 refuses; here it is translated.
- Guided IG takes distances below 1e-9 for zero: the path of tiny inputs stops short, or never starts.
- Blur IG with sqrt ends at the square root of max_sigma; it is given the square of it.
- Blur IG weighs all points of a batch with the last one's step, which only sqrt makes visible; batches are of one.
- Blur IG blurs integers to integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import igonnx

saliency = pytest.importorskip("saliency.core")

pytestmark = pytest.mark.parity

Array = NDArray[Any]
SHAPE = (9, 8, 3)  # channels last, as the library has it


class Net:
    """y = tanh(x W + c) v on images [N, 9, 8, 3], in double precision."""

    def __init__(self) -> None:
        rng = np.random.default_rng(4)
        size = int(np.prod(SHAPE))
        self.w = rng.normal(size=(size, 10)) / np.sqrt(size)
        self.c, self.v = rng.normal(size=10), rng.normal(size=10)

    def explainer(self, build: Callable[..., Any]) -> igonnx.Explainer:
        graph = """(double[N, 9, 8, 3] x) => (double[N] y) {
            f = Flatten(x)
            h = Gemm(f, w, c)
            t = Tanh(h)
            y = MatMul(t, v)
        }"""
        return igonnx.Explainer(build(graph, {"w": self.w, "c": self.c, "v": self.v}))

    def __call__(self, x: Array, **_: Any) -> dict[str, Array]:
        hidden = np.tanh(x.reshape(len(x), -1) @ self.w + self.c)
        gradient = ((1 - hidden**2) * self.v) @ self.w.T
        return {saliency.INPUT_OUTPUT_GRADIENTS: gradient.reshape(x.shape)}


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture(autouse=True)
def _quantile(monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy.quantile with the argument that NumPy had until 2.3."""
    quantile = np.quantile

    def old(*arguments: Any, interpolation: str | None = None, **options: Any) -> Any:
        if interpolation is not None:
            options["method"] = interpolation
        return quantile(*arguments, **options)

    monkeypatch.setattr(np, "quantile", old)


def _images(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(count, *SHAPE))


@pytest.mark.parametrize(
    ("steps", "fraction", "max_distance"),
    [
        (200, 0.25, 0.02),
        (50, 0.25, 0.1),
        (20, 0.1, 1.0),
        (7, 1.0, 0.3),
        (10, 0.0, 0.2),
        (30, 0.5, 0),
        (1, 0.25, 0.02),
    ],
)
def test_guided_ig(
    model: Any, net: Net, measured: Any, steps: int, fraction: float, max_distance: float
) -> None:
    x, baseline = _images(3), _images(3, 1) / 4
    found = net.explainer(model).guided_ig(
        x, baseline=baseline, steps=steps, fraction=fraction, max_distance=max_distance
    )
    expected = [
        saliency.GuidedIG().GetMask(one, net, None, b, steps, fraction, max_distance)
        for one, b in zip(x, baseline, strict=True)
    ]
    assert measured.relative_l2(found.values, np.stack(expected)) < 1e-9


def test_guided_ig_of_tiny_inputs(model: Any, net: Net, measured: Any) -> None:
    x = _images(1) * 1e-13
    found = net.explainer(model).guided_ig(x, steps=20, max_distance=1.0)
    assert (saliency.GuidedIG().GetMask(x[0], net, x_steps=20, max_dist=1.0) == 0).all()
    gradient = net(np.zeros((1, *SHAPE)))[saliency.INPUT_OUTPUT_GRADIENTS]
    assert measured.relative_l2(found.values, gradient * x) < 1e-9


@pytest.mark.parametrize("max_sigma", [2.0, 5.0])
@pytest.mark.parametrize("steps", [1, 13, 40])
@pytest.mark.parametrize("grad_step", [0.01, 0.3])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_blur_ig(
    model: Any,
    net: Net,
    measured: Any,
    steps: int,
    max_sigma: float,
    grad_step: float,
    batch_size: int,
) -> None:
    x = _images(2)
    found = net.explainer(model).blur_ig(x, steps=steps, max_sigma=max_sigma, grad_step=grad_step)
    expected = [
        saliency.BlurIG().GetMask(
            one, net, None, max_sigma, steps, grad_step, batch_size=batch_size
        )
        for one in x
    ]
    measured("largest difference", np.abs(found.values - expected).max())
    np.testing.assert_allclose(found.values, expected, atol=1e-11)


def test_blur_ig_with_sqrt(model: Any, net: Net, measured: Any) -> None:
    x = _images(1)
    found = net.explainer(model).blur_ig(x, steps=16, max_sigma=3.0, grad_step=0.01, sqrt=True)
    expected = saliency.BlurIG().GetMask(x[0], net, None, 3.0**2, 16, sqrt=True)
    assert measured.relative_l2(found.values[0], expected) < 1e-10
    batched = saliency.BlurIG().GetMask(x[0], net, None, 3.0**2, 16, sqrt=True, batch_size=4)
    assert measured.relative_l2(batched, expected, "batches of 4 there") > 0.1


def test_blur_ig_of_integers(model: Any, net: Net) -> None:
    x = np.random.default_rng(0).integers(0, 9, (1, *SHAPE))
    explainer = net.explainer(model)
    found = explainer.blur_ig(x, steps=9, max_sigma=3.0, grad_step=0.01)
    expected = saliency.BlurIG().GetMask(x[0].astype(float), net, None, 3.0, 9)
    np.testing.assert_allclose(found.values[0], expected, atol=1e-11)
    np.testing.assert_array_equal(
        found.values,
        explainer.blur_ig(x.astype(float), steps=9, max_sigma=3.0, grad_step=0.01).values,
    )


def test_blur_ig_adds_up_where_the_library_does_not(model: Any, measured: Any) -> None:
    """A linear model: its steps of the blur, summed, are the difference of the ends; the library's are not."""
    w = np.random.default_rng(3).normal(size=int(np.prod(SHAPE)))
    linear = igonnx.Explainer(
        model(
            "(double[N, 9, 8, 3] x) => (double[N] y) { f = Flatten(x) y = MatMul(f, w) }", {"w": w}
        )
    )
    x = _images(1)

    def gradient(at: Array, **_: Any) -> dict[str, Array]:
        return {saliency.INPUT_OUTPUT_GRADIENTS: np.broadcast_to(w.reshape(SHAPE), at.shape)}

    found = linear.blur_ig(x, steps=10, max_sigma=5.0)
    change = float(found.scores[0] - found.baseline_scores[0])
    assert measured("ours", abs(found.delta[0] / change)) < 1e-12
    theirs = saliency.BlurIG().GetMask(x[0], gradient, None, 5.0, 10).sum()
    assert measured("theirs", abs(theirs / change - 1)) > 0.1


# -- a trained network -------------------------------------------------------------------------


class Photo:
    """EfficientNet-Lite0's logit 285 (Egyptian cat) on the photo of a cat, for both."""

    def __init__(self) -> None:
        import skimage.data

        from igonnx.images import PRESETS, Preprocessing
        from igonnx.models import efficientnet_lite0

        settings = efficientnet_lite0.PREPROCESSING
        preset = PRESETS[settings.preset]
        self.preprocessing = Preprocessing(
            (settings.size, settings.size), mean=preset.mean, std=preset.std
        )
        self.x = self.preprocessing.apply((skimage.data.chelsea() / 255).astype(np.float32))
        self.explainer = igonnx.Explainer(efficientnet_lite0.build(), batch_size=1)

    def __call__(self, x: Array, **_: Any) -> dict[str, Array]:
        """The gradient for images with their channels last."""
        images = np.moveaxis(x, 3, 1).astype(np.float32)
        found = self.explainer.saliency(images, target=285, absolute=False)
        return {saliency.INPUT_OUTPUT_GRADIENTS: np.moveaxis(found.values, 1, 3)}


@pytest.fixture(scope="module")
def photo() -> Photo:
    return Photo()


def test_guided_ig_of_a_photo(photo: Photo, measured: Any) -> None:
    baseline = np.broadcast_to(photo.preprocessing.constant(0.0), photo.x.shape).astype(np.float32)
    found = photo.explainer.guided_ig(photo.x, baseline=baseline, target=285, steps=20)
    last = [np.moveaxis(array[0], 0, 2) for array in (photo.x, baseline)]
    expected = saliency.GuidedIG().GetMask(last[0], photo, None, last[1], 20)
    assert measured.relative_l2(np.moveaxis(found.values[0], 0, 2), expected) < 1e-5


def test_blur_ig_of_a_photo(photo: Photo, measured: Any) -> None:
    found = photo.explainer.blur_ig(photo.x, target=285, steps=20, grad_step=0.01)
    last = np.moveaxis(photo.x[0], 0, 2).astype(np.float64)
    expected = saliency.BlurIG().GetMask(last, photo, None, 50, 20)
    assert measured.relative_l2(np.moveaxis(found.values[0], 0, 2), expected) < 1e-5
