"""The few regions of a picture that hold its attribution: what outlines are drawn around."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.checks import as_finite, is_number
from igonnx.errors import InputError
from igonnx.visual.components import top_components
from igonnx.visual.edge_aware import follow_edges
from igonnx.visual.heatmap import Heat, automatic_smoothing, normalise, smoothed
from igonnx.visual.morphology import fill_holes
from igonnx.visual.threshold import share_threshold

__all__ = ["find_regions", "otsu_threshold"]

# Smoothing as a part of the shorter side. Chosen by looking at photos: with less the regions fall
# apart, with more they lose their object's shape.
SMOOTHING = 3 / 224
# Window of the edge-aware filter and radius of specks and gaps, as multiples of that smoothing.
WINDOW = 2.0
SPECK = 0.7


def find_regions(
    heat: NDArray[Any],
    picture: NDArray[np.float64] | None = None,
    *,
    smooth: float | None = None,
    share: float | None = None,
    percentage: float = 90.0,
    at_most: int | None = 3,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Find the regions that speak for the score and those that speak against it: two masks [H, W].

    heat: contributions [H, W], signed or not; where nothing is negative the second mask is empty.
    A volume [D, H, W] is smoothed and tidied slice by slice, but has one threshold, and its regions
    are connected through the slices. picture: float64 [H, W, 3] (or [D, H, W, 3]) in [0, 1], along
    whose edges the regions' borders are drawn; None leaves them where the contributions put them.
    smooth: standard deviation in pixels of the smoothing before anything else, None for what suits
    the size.

    Attributions are grainy: of a person's face single pixels, not the face, pass a threshold. So
    outliers are cut off, the map is smoothed (`follow_edges`), then thresholded: at the magnitudes
    that together hold `share` of the total, or where share is None at what divides it best into
    weak and strong (Otsu). Gaps, specks and whiskers are taken away, holes filled; the components
    that together hold `percentage` per cent of the attribution in the mask are kept, `at_most` so
    many of each sign. An all-zero map has no region, a constant one is a region. Raises
    `InputError` for NaN, infinity and numbers out of range.
    """
    grainy = as_finite(heat, "the heat map")
    if grainy.ndim not in (2, 3) or grainy.size == 0:
        raise InputError(f"the heat map has shape {grainy.shape}, expected [H, W] or [D, H, W]")
    if picture is not None and picture.shape != (*grainy.shape, 3):
        raise InputError(
            f"the picture has shape {picture.shape}, expected that of the heat map and 3 colours, "
            f"{(*grainy.shape, 3)}"
        )
    if smooth is None:
        smooth = automatic_smoothing(grainy.shape[-2:], SMOOTHING)
    calm = _calm(normalise(grainy), picture, smooth)
    magnitude = np.abs(calm)
    if share is None:
        threshold = otsu_threshold(magnitude)
    elif is_number(share) and 0 < share <= 1:
        threshold = share_threshold(calm, 100 * share)
    else:
        raise InputError(f"share is {share!r}, expected more than 0 and at most 1, or None")
    strong = (magnitude >= threshold) & (magnitude > 0)

    def kept(sign: int) -> NDArray[np.bool_]:
        mask, weight = _tidy(strong & (sign * calm > 0), smooth), np.maximum(sign * grainy, 0.0)
        return top_components(mask, weight, percentage=percentage, at_most=at_most)

    return kept(1), kept(-1)


def otsu_threshold(magnitude: NDArray[np.float64]) -> float:
    """Tell the value that divides numbers best into low and high (Otsu, 1979): the smallest high one.

    It is the division with the largest variance between the two classes. All numbers being equal,
    it is that number.
    """
    values = np.sort(magnitude, axis=None)
    below = np.arange(1, values.size)
    sums = np.cumsum(values)
    # Only between different values is there a division.
    divides = values[1:] > values[:-1]
    if not divides.any():
        return float(values[0])
    low = sums[:-1] / below
    high = (sums[-1] - sums[:-1]) / (values.size - below)
    between = np.where(divides, below * (values.size - below) * np.square(high - low), -1.0)
    return float(values[1 + int(between.argmax())])


def _calm(heat: Heat, picture: NDArray[np.float64] | None, smooth: float) -> Heat:
    """Smooth a map, along the picture's edges if there is one; `smooth` 0 leaves it as it is."""
    calm = smoothed(heat, smooth)
    if picture is None or smooth == 0:
        return calm
    if heat.ndim == 3:
        slices = zip(calm, picture, strict=True)
        calm = np.stack([follow_edges(*one, WINDOW * smooth) for one in slices])
    else:
        calm = follow_edges(calm, picture, WINDOW * smooth)
    # What the filter overshoots is nobody's contribution.
    return np.clip(calm, heat.min(), heat.max())


def _tidy(mask: NDArray[np.bool_], smooth: float) -> NDArray[np.bool_]:
    """Take gaps, specks and whiskers away, unless nothing else is there, and fill holes."""
    if mask.ndim == 3:
        return np.stack([_tidy(one, smooth) for one in mask])
    radius = round(SPECK * smooth)
    if radius:
        from scipy import ndimage  # slow to import
        from skimage.morphology import disk

        # Mirrored beyond the frame: an opening would else cut off what reaches it.
        wide = np.pad(mask, 2 * radius, mode="symmetric")
        closed = ndimage.binary_closing(wide, structure=disk(radius))
        opened = ndimage.binary_opening(closed, structure=disk(radius))
        inner = slice(2 * radius, -2 * radius)
        mask = opened[inner, inner] if opened[inner, inner].any() else mask
    return fill_holes(mask)
