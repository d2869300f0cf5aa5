"""Blur Integrated Gradients: the path from a blurred image to a sharp one.

No colour is the baseline here: the input loses its details, the finest first, until only light and dark are left. What
counts is at which scale, and where, detail brings the score.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution
from igonnx.baselines import Baselines, within_channel
from igonnx.checks import require_number, require_whole
from igonnx.errors import InputError, warn_caller
from igonnx.inputs import Arrays
from igonnx.methods.call import (
    Array,
    Call,
    Explaining,
    MethodResult,
    Options,
    PointGradients,
    gradients_at,
    picked,
)
from igonnx.methods.line_integral import LineIntegral, request_groups
from igonnx.methods.results import joined
from igonnx.targets import Target

__all__ = ["blur_ig", "gaussian_blur"]

_REACH = (
    4.0  # standard deviations, where scipy.ndimage and the library `saliency` cut the Gaussian off
)

_WIDEST = 1e5  # pixels: of anything smaller this leaves the mean, and the filter's taps still fit in memory

# Up to here an axis is blurred by a matrix product, many times faster than tap by tap; the matrix has this squared.
_LONGEST_MATRIX = 2048


def blur_ig(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    steps: int = 100,
    max_sigma: float = 50.0,
    sqrt: bool = False,
    grad_step: float | None = None,
    **options: Unpack[Options],
) -> Attribution:
    """Blur IG (Xu, Venugopalan and Sundararajan, 2020, arXiv:2004.03383).

    The gradient is integrated along L(sigma), the input blurred by a Gaussian of standard deviation sigma, from
    sigma = max_sigma to 0: the values add up to the score less that of the blurred input, `baseline_scores`. What
    lies beyond the borders counts as zero.

    Args:
        inputs, target: as for `integrated_gradients`; images or series, [N, C, H, W], [N, H, W, C], [N, C, T] or
            [N, C, D, H, W]. Several explained tensors are blurred alike.
        baseline: not used, with a UserWarning where one is given: the blurred input is the baseline.
        seed: of noise.
        steps: steps of sigma; one gradient each, and one at the end. The sum is the trapezoid rule's. Scores change
            most where the image is nearly sharp: a smaller max_sigma helps them add up as more steps do.
        max_sigma: standard deviation at the far end, in pixels. 50 suits images of some 224 by 224; of smaller ones it
            leaves little but the fading borders.
        sqrt: take even steps of sigma squared, so that few are spent on sharp images, many on blurred ones.
        grad_step: None: each step counts with the difference of the two images. A number: with the derivative by sigma
            at its sharper end, estimated by a forward difference of this size, as the library `saliency` does.
        options: noise, noise_samples, noise_std, progress, timeout, cancel, as for `integrated_gradients`.

    With grad_step=0.01 this is what the PAIR library `saliency` 0.2.1 computes, but for its errors: with sqrt its blur
    ends at the square root of max_sigma, and batches of several points are all weighed by their last one's step;
    images of integers are blurred to integers. Its derivative at the input itself is always zero, so the whole first
    step, the finest detail, counts for nothing, and the values do not add up even for a linear model; that is why
    grad_step is None here.

    Raises as `integrated_gradients`; `InputError` also for tensors that are neither images nor
    series.

    """
    if baseline is not None:
        warn_caller("blur_ig makes no use of a baseline: its path starts at the blurred input")
    require_whole("steps", steps, 1)
    require_number("max_sigma", max_sigma, 0, _WIDEST, above=True)
    if grad_step is not None:
        require_number("grad_step", grad_step, 0, above=True)
    even = np.arange(steps, -1, -1) / steps
    sigma = float(max_sigma) * (np.sqrt(even) if sqrt else even)
    return explainer.explain_with(
        partial(_along_blur, sigma=sigma, grad_step=grad_step),
        inputs,
        method=f"blur_ig steps={steps} max_sigma={max_sigma} sqrt={bool(sqrt)} grad_step={grad_step}",
        target=target,
        seed=seed,
        **options,
    )


def gaussian_blur(x: Array, sigma: float, axes: tuple[int, ...]) -> Array:
    """`x` float64, smoothed along `axes` by a Gaussian cut off at 4 sigma; beyond the borders are zeros.

    The numbers are those of scipy.ndimage.gaussian_filter(mode="constant"), but for rounding.
    """
    from scipy import ndimage  # slow to import

    for axis in axes:
        if int(_REACH * sigma + 0.5) == 0:
            continue  # only the pixel itself is within reach
        if x.shape[axis] > _LONGEST_MATRIX:
            x = ndimage.gaussian_filter1d(x, sigma, axis, mode="constant", truncate=_REACH)
        else:
            smooth = np.tensordot(x, _blurring(x.shape[axis], sigma), axes=(axis, 0))
            x = np.moveaxis(smooth, -1, axis)
    return x


def _blurring(length: int, sigma: float) -> Array:
    """The matrix [length, length] by which a row of pixels is blurred."""
    reach = int(_REACH * sigma + 0.5)
    taps = np.exp(-0.5 * np.square(np.arange(reach + 1) / sigma))
    taps /= taps[0] + 2 * taps[1:].sum()
    by_distance = np.append(taps, np.zeros(length))[:length]
    place = np.arange(length)
    return np.asarray(by_distance[np.abs(place[:, None] - place)])


@dataclass(frozen=True)
class _Blur:
    """Explained tensors {name: [R, ...]} at any blur."""

    x: Mapping[str, Array]

    def at(self, sigma: float) -> dict[str, Array]:
        """The tensors blurred within their channels."""
        return {
            name: gaussian_blur(array, sigma, within_channel(array))
            for name, array in self.x.items()
        }

    def derivative(self, sharp: Mapping[str, Array], sigma: float, step: float) -> dict[str, Array]:
        """The change of `sharp`, the tensors at `sigma`, per unit by which the blur lessens: a forward difference."""
        blurred = self.at(sigma + step)
        return {name: (array - blurred[name]) / step for name, array in sharp.items()}


@dataclass(frozen=True)
class _Point:
    """One point of the path, of several requests."""

    sigma: float
    x: dict[str, Array]  # [R, ...]
    found: PointGradients


def _along_blur(call: Call, *, sigma: Array, grad_step: float | None) -> MethodResult:
    """Integrate along `sigma`, falling to zero."""
    _require_images(call.requests.x)
    tick, parts = call.ticking(len(call) * len(sigma)), []
    for examples in request_groups(call):
        x = picked(call.requests, examples).x
        blur = _Blur({name: array.astype(np.float64) for name, array in x.items()})
        rule = "trapezoid" if grad_step is None else "right"
        integral = LineIntegral(x, len(sigma) - 1, rule)
        before: _Point | None = None
        for step, here in enumerate(_points(call, examples, blur, sigma), -1):
            if before is None:
                integral.begin(here.found)
            elif grad_step is None:
                change = {name: array - before.x[name] for name, array in here.x.items()}
                integral.add(step, change, before.found, here.found)
            else:
                slope = blur.derivative(here.x, here.sigma, grad_step)
                change = {
                    name: (before.sigma - here.sigma) * array for name, array in slope.items()
                }
                integral.add(step, change, before.found, here.found)
            before = here
            tick(len(examples))
        parts.append(integral.result())
    return joined(parts)


def _points(call: Call, examples: NDArray[np.int64], blur: _Blur, sigma: Array) -> Iterator[_Point]:
    """The points of the path, each of all examples; as many are computed at once as fill every lane."""
    together = -(-call.rows_together // len(examples))
    for start in range(0, len(sigma), together):
        some = sigma[start : start + together]
        x = [blur.at(float(one)) for one in some]
        every = {name: np.concatenate([one[name] for one in x]) for name in x[0]}
        found = gradients_at(call, np.tile(examples, len(some)), every)
        for i, one in enumerate(some):
            rows = slice(i * len(examples), (i + 1) * len(examples))
            gradient = {name: array[rows] for name, array in found.gradient.items()}
            yield _Point(float(one), x[i], PointGradients(gradient, found.score[rows]))


def _require_images(x: Mapping[str, NDArray[Any]]) -> None:
    for name, array in x.items():
        if array.ndim < 3:
            raise InputError(
                f"blur_ig is for images and series; {name!r} has shape {list(array.shape)}: expected [N, C, H, W], "
                "[N, H, W, C] or [N, C, T]"
            )
