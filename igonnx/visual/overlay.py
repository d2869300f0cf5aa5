"""A heat map laid over the image it explains."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.channels import Layout, fits
from igonnx.errors import InputError
from igonnx.visual.arguments import require_part
from igonnx.visual.colours import AGAINST, COLD_GLOW, FOR, GLOW, luminance, ramp
from igonnx.visual.heatmap import Heat, Sign, heat_map

__all__ = [
    "OPACITY",
    "as_rgb",
    "glowing",
    "lay_over",
    "render",
    "require_fit",
    "resize_heat",
    "to_uint8",
]

OPACITY = 0.85  # of the strongest pixels


def render(
    values: NDArray[Any],
    image: NDArray[Any],
    *,
    layout: Layout | None = None,
    sign: Sign = "absolute",
    smooth: float | None = None,
    share: float = 1.0,
    outlier_percentile: float = 1.0,
    opacity: float = OPACITY,
) -> NDArray[np.uint8]:
    """Draw the attribution of one example over its image: uint8 RGB [H, W, 3] of the image's size.

    values: [H, W], [C, H, W] or [H, W, C], with or without a leading axis of 1; a map of another
    size than the image (of an inner layer, say) is scaled to it. image: integers 0..255 or floats
    0..1, grey or RGB. opacity in [0, 1] is that of the strongest pixels; the other arguments are
    those of `heat_map`. Raises `InputError` for NaN, infinity, shapes that are no picture, and a map
    whose proportions are not the image's.
    """
    require_part("opacity", opacity)
    picture = as_rgb(image)
    size = (picture.shape[0], picture.shape[1])
    heat = heat_map(
        values,
        layout=layout,
        size=size,
        sign=sign,
        smooth=smooth,
        share=share,
        outlier_percentile=outlier_percentile,
    )
    return lay_over(picture, resize_heat(heat, size), sign, opacity)


def lay_over(
    picture: NDArray[np.float64], heat: Heat, sign: Sign, opacity: float
) -> NDArray[np.uint8]:
    """Draw a heat map [H, W] over a picture [H, W, 3] in [0, 1] in the colours of its sign."""
    if sign == "all":
        return _tint(picture, heat, opacity)
    colours = ramp(heat, COLD_GLOW if sign == "negative" else GLOW)
    return to_uint8(glowing(picture, colours, heat, opacity))


def glowing(
    picture: NDArray[np.float64],
    colours: NDArray[np.float64],
    heat: Heat,
    opacity: float = OPACITY,
) -> NDArray[np.float64]:
    """Let strong pixels glow on a picture, turned grey so that every colour is a meaning: [H, W, 3] in [0, 1].

    picture and colours: [H, W, 3] in [0, 1]; heat: [H, W] in [0, 1], how much of the colours is seen.
    """
    cover = opacity * heat[..., None]
    return 0.9 * luminance(picture)[..., None] * (1 - cover) + colours * cover


def _tint(picture: NDArray[np.float64], heat: Heat, opacity: float) -> NDArray[np.uint8]:
    """Tint the image, turned to a light grey, warm and cool by the sign of each pixel."""
    magnitude = np.abs(heat)
    colours = np.where((heat >= 0)[..., None], ramp(magnitude, FOR), ramp(magnitude, AGAINST))
    # The square root lifts weak pixels: attributions have long tails, and most of them are weak.
    cover = opacity * np.sqrt(magnitude)[..., None]
    return to_uint8((0.25 + 0.72 * luminance(picture)[..., None]) * (1 - cover) + colours * cover)


def as_rgb(image: NDArray[Any]) -> NDArray[np.float64]:
    """Bring an image to RGB [H, W, 3], float64 in [0, 1].

    Takes [H, W], [H, W, 1], [H, W, 3] or the same with channels first, with or without a leading
    axis of 1, as integers of any width (0..255), bool, or floats in [0, 1].
    """
    array = np.asarray(image)
    given = f"shape {array.shape} and dtype {array.dtype}"
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim == 3 and array.shape[2] not in (1, 3) and array.shape[0] in (1, 3):
        array = np.moveaxis(array, 0, 2)
    if array.ndim != 3 or array.shape[2] not in (1, 3) or array.size == 0:
        raise InputError(f"the image has {given}, expected [H, W], [H, W, 3] or [3, H, W]")
    if array.dtype.kind not in "fiub":
        raise InputError(f"the image has {given}, expected integers (0 to 255) or floats (0 to 1)")
    full = 255 if array.dtype.kind in "iu" else 1
    # A little slack: resizing and undoing a normalisation leave rounding errors beyond the ends.
    if not ((array >= -1e-3) & (array <= full + 1e-3)).all():
        raise InputError(
            f"the image has {array.dtype} values from {array.min():g} to {array.max():g}, "
            f"expected {'0 to 255' if full == 255 else '0 to 1 (or integers, 0 to 255)'}"
        )
    array = array.astype(np.float64) / full
    return np.broadcast_to(np.clip(array, 0.0, 1.0), (*array.shape[:2], 3))


def resize_heat(heat: Heat, size: tuple[int, int]) -> Heat:
    """Scale a heat map to the image's (H, W), smoothly; values stay within their range.

    Raises `InputError` if the map's proportions are not the image's.
    """
    if heat.shape == size:
        return heat
    require_fit(heat.shape, size)
    from skimage.transform import resize  # slow to import

    shrinks = heat.shape[0] > size[0] or heat.shape[1] > size[1]
    resized = resize(heat, size, order=1, mode="edge", anti_aliasing=shrinks)
    return np.clip(np.asarray(resized, dtype=np.float64), heat.min(), heat.max())


def require_fit(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    """Raise `InputError` unless a map of this shape `fits` an image of this size (H, W).

    A map of other proportions explains another crop of the image: laid over this one it would mark
    the wrong things.
    """
    if not fits(shape, size):
        raise InputError(
            f"the attribution has {shape[0]} x {shape[1]} pixels and the image {size[0]} x {size[1]}, "
            "expected the same proportions: pass the image as the model sees it"
        )


def to_uint8(picture: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Round colours in [0, 1] to 0..255."""
    return np.asarray(np.rint(np.clip(picture, 0.0, 1.0) * 255), dtype=np.uint8)
