"""Heat maps: how strongly each pixel contributes.

A heat map is a float64 array [H, W]: in [-1, 1] where both signs are kept, in [0, 1] where one
sign or the magnitude is. Zero means "no contribution" and stays zero at every stage, whatever the
other pixels are: nothing is ever shifted, so a diverging colour scale always has zero at its
centre.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from igonnx.channels import Layout, reduce_channels
from igonnx.checks import is_number, require_choice
from igonnx.errors import InputError
from igonnx.visual.arguments import require_outlier_percentile
from igonnx.visual.polarity import apply_polarity
from igonnx.visual.threshold import keep_share

__all__ = [
    "Heat",
    "Sign",
    "automatic_smoothing",
    "contributions",
    "full_scale",
    "heat_map",
    "in_scale",
    "normalise",
    "require_sign",
    "smoothed",
]

Heat = NDArray[np.float64]
Sign = Literal["all", "positive", "negative", "absolute"]

# Pictures smaller than this are shown pixel by pixel; larger ones are smoothed by 4 pixels in 224.
SMALLEST_SMOOTHED = 64
SMOOTHING = 4 / 224  # of the shorter side


def heat_map(
    values: NDArray[Any],
    *,
    layout: Layout | None = None,
    size: tuple[int, int] | None = None,
    sign: Sign = "all",
    smooth: float | None = 0.0,
    share: float = 1.0,
    outlier_percentile: float = 1.0,
) -> Heat:
    """Turn the attribution of one example into a heat map [H, W].

    values: [H, W], [C, H, W] or [H, W, C], with or without a leading axis of 1. layout: where the
    channels are; found from the shape and from `size`, the image's (H, W), if not given. sign:
    "all" keeps both signs, "positive" and "negative" one of them (as values >= 0), "absolute" the
    sum of magnitudes over the channels. smooth: standard deviation of a Gaussian, in pixels; None
    picks one by the size of the map. share: keep only the strongest pixels that together hold this
    part of the total. outlier_percentile: this percentage of the pixels may saturate the scale.
    Raises `InputError` for NaN or infinity and for shapes that are no picture.
    """
    heat = contributions(values, layout=layout, size=size, sign=sign, smooth=smooth)
    return normalise(keep_share(heat, share), outlier_percentile)


def contributions(
    values: NDArray[Any],
    *,
    layout: Layout | None = None,
    size: tuple[int, int] | None = None,
    sign: Sign = "all",
    smooth: float | None = 0.0,
) -> Heat:
    """Reduce an attribution to one contribution per pixel [H, W], in the attribution's own units.

    The arguments are those of `heat_map`, of which this is the part before thresholding and
    scaling.
    """
    require_sign(sign)
    heat = reduce_channels(values, layout, size=size, absolute=sign == "absolute")
    if smooth is None:
        smooth = automatic_smoothing(heat.shape)
    return apply_polarity(smoothed(heat, smooth), sign)


def require_sign(sign: str) -> None:
    """Raise `InputError` for anything but a `Sign`."""
    require_choice("sign", sign, Sign)


def smoothed(heat: Heat, smooth: float) -> Heat:
    """Blur a map [H, W], or each slice of a volume [D, H, W], by a Gaussian; the sum is kept."""
    if not (is_number(smooth) and 0 <= smooth < np.inf):
        raise InputError(f"smooth is {smooth!r}, expected a number of pixels >= 0")
    if smooth == 0:
        return heat
    from scipy import ndimage  # slow to import

    # "reflect" keeps the sum: contributions are shares of a score, none may get lost
    return np.asarray(ndimage.gaussian_filter(heat, smooth, mode="reflect", axes=(-2, -1)))


def automatic_smoothing(shape: tuple[int, ...], part: float = SMOOTHING) -> float:
    """Smoothing in pixels, a part of the shorter side, by which the map of a picture of this shape is easy to read."""
    shorter = min(shape)
    return shorter * part if shorter >= SMALLEST_SMOOTHED else 0.0


def normalise(heat: Heat, outlier_percentile: float = 1.0) -> Heat:
    """Scale a map to [-1, 1] by `full_scale`; zeros stay zero.

    A constant map becomes constant 1 or -1; an all-zero map stays zero.
    """
    return in_scale(heat, full_scale(heat, outlier_percentile))


def in_scale(heat: Heat, scale: float) -> Heat:
    """Bring a map of any shape to [-1, 1] by the magnitude that is to be 1; what is larger becomes 1, too.

    A scale of 0, that of an all-zero map, gives zeros.
    """
    return np.clip(heat, -scale, scale) / scale if scale else np.zeros_like(heat)


def full_scale(heat: Heat, outlier_percentile: float = 1.0) -> float:
    """Tell which magnitude is drawn at full strength; 0 for an all-zero map.

    The `outlier_percentile` per cent of pixels with the largest magnitude are at or above it, so
    that a few extreme pixels do not darken all others. A map so sparse that this percentile is
    zero is scaled by its maximum.
    """
    require_outlier_percentile(outlier_percentile)
    if not np.isfinite(heat).all():
        raise InputError("the heat map has values that are NaN or infinite")
    magnitude = np.abs(heat)
    return float(np.percentile(magnitude, 100 - outlier_percentile)) or float(magnitude.max())
