"""Attributions of volumes, three axes of space, shown slice by slice.

Every slice of a volume is drawn on one scale, and one threshold holds for all of them: a slice
without colour is one that contributes little, beside the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.channels import Layout, reduce_channels
from igonnx.checks import require_whole
from igonnx.errors import InputError
from igonnx.visual.arguments import require_part
from igonnx.visual.colours import Colour
from igonnx.visual.heatmap import (
    Heat,
    Sign,
    automatic_smoothing,
    normalise,
    require_sign,
    smoothed,
)
from igonnx.visual.outlines import AGAINST_COLOUR, FOR_COLOUR, draw_outlines, paired
from igonnx.visual.overlay import OPACITY, as_rgb, lay_over
from igonnx.visual.polarity import apply_polarity
from igonnx.visual.regions import find_regions
from igonnx.visual.threshold import keep_share

__all__ = ["montage", "outline_slices", "render_slices"]


def render_slices(
    values: NDArray[Any],
    volume: NDArray[Any],
    *,
    axis: int = 0,
    layout: Layout | None = None,
    sign: Sign = "absolute",
    smooth: float | None = None,
    share: float = 1.0,
    outlier_percentile: float = 1.0,
    opacity: float = OPACITY,
) -> NDArray[np.uint8]:
    """Draw the attribution of a volume over its slices: uint8 RGB [D, H, W, 3], D slices along `axis`.

    values: [D, H, W], [C, D, H, W] or [D, H, W, C], with or without a leading axis of 1. volume:
    the same without channels, with 1 or with 3 (RGB), integers 0..255 or floats 0..1; its three
    axes of space must be those of the values. axis: 0, 1 or 2, counted without channels, the one
    across which slices are cut. layout: where the values' channels are, "NCHW" first or "NHWC"
    last, found from the shapes if not given. smooth blurs within slices; share and
    outlier_percentile are those of the volume, not of a slice. The rest as for `render`. Raises
    `InputError` for NaN, infinity and other shapes.
    """
    require_part("opacity", opacity)
    heat, slices = _aligned(values, volume, axis, layout, sign)
    smooth = automatic_smoothing(heat.shape[1:]) if smooth is None else smooth
    heat = apply_polarity(smoothed(heat, smooth), sign)
    heat = normalise(keep_share(heat, share), outlier_percentile)
    return np.stack(
        [lay_over(one, strength, sign, opacity) for one, strength in zip(slices, heat, strict=True)]
    )


def outline_slices(
    values: NDArray[Any],
    volume: NDArray[Any],
    *,
    axis: int = 0,
    layout: Layout | None = None,
    sign: Sign = "absolute",
    smooth: float | None = None,
    share: float | None = None,
    percentage: float = 90.0,
    at_most: int | None = 3,
    hug: bool = True,
    colour: Colour = FOR_COLOUR,
    against: Colour = AGAINST_COLOUR,
    width: float | None = None,
    dim: float = 0.0,
) -> NDArray[np.uint8]:
    """Outline the regions that hold the attribution of a volume on its slices: uint8 RGB [D, H, W, 3].

    A region goes through the slices: `percentage` and `at_most` choose among bodies of the volume,
    by what they hold in all slices together. values, volume, axis and layout are those of
    `render_slices`, the rest as for `outline`.
    """
    heat, slices = _aligned(values, volume, axis, layout, sign)
    masks = find_regions(
        apply_polarity(heat, sign),
        slices if hug else None,
        smooth=smooth,
        share=share,
        percentage=percentage,
        at_most=at_most,
    )
    colours = paired(sign, colour, against)
    return np.stack(
        [
            draw_outlines(one, cuts, colours, width=width, dim=dim)
            for one, *cuts in zip(slices, *masks, strict=True)
        ]
    )


def montage(slices: NDArray[Any], *, columns: int | None = None, gap: int = 2) -> NDArray[np.uint8]:
    """Put pictures side by side in rows, on white: uint8 [rows * H + gaps, columns * W + gaps, 3].

    slices: uint8 [S, H, W, 3]; columns: None for as many as make the montage about square; gap: in
    pixels. Raises `InputError` for anything else.
    """
    pictures = np.asarray(slices)
    if (
        pictures.ndim != 4
        or pictures.shape[3] != 3
        or pictures.dtype != np.uint8
        or not pictures.size
    ):
        raise InputError(
            f"the slices have shape {pictures.shape} and dtype {pictures.dtype}, "
            "expected [S, H, W, 3] and uint8"
        )
    count, height, width, _ = pictures.shape
    if columns is None:
        columns = max(1, min(count, round(float(np.sqrt(count * height / width)))))
    require_whole("columns", columns, 1)
    require_whole("gap", gap, 0)
    rows = -(-count // columns)
    page = np.full(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8
    )
    for number, picture in enumerate(pictures):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        page[top : top + height, left : left + width] = picture
    return page


def _aligned(
    values: NDArray[Any], volume: NDArray[Any], axis: int, layout: Layout | None, sign: Sign
) -> tuple[Heat, NDArray[np.float64]]:
    """Bring values to [D, H, W] and the volume to RGB [D, H, W, 3], D being the axis to be sliced."""
    require_sign(sign)
    if axis not in (0, 1, 2):
        raise InputError(f"axis is {axis}, expected 0, 1 or 2")
    slices = _rgb_slices(volume)
    size = slices.shape[:3]
    heat = reduce_channels(values, layout, size=size, absolute=sign == "absolute", rank=3)
    if heat.shape != size:
        raise InputError(
            f"the attribution has {heat.shape} values in space, expected the volume's {size}"
        )
    return np.moveaxis(heat, axis, 0), np.moveaxis(slices, axis, 0)


def _rgb_slices(volume: NDArray[Any]) -> NDArray[np.float64]:
    """Bring a volume to RGB [D, H, W, 3], float64 in [0, 1]."""
    array = np.asarray(volume)
    if array.ndim == 5 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim == 4 and array.shape[3] not in (1, 3) and array.shape[0] in (1, 3):
        array = np.moveaxis(array, 0, 3)
    if array.ndim != 4 or array.shape[3] not in (1, 3) or array.size == 0:
        raise InputError(
            f"the volume has shape {np.shape(volume)}, "
            "expected [D, H, W], [D, H, W, 3] or [3, D, H, W]"
        )
    depth, height, width, channels = array.shape
    # As one tall picture, so that it is checked and scaled as pictures are.
    return as_rgb(array.reshape(depth * height, width, channels)).reshape(depth, height, width, 3)
