"""Anti-aliased lines along the borders of masks, by distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import InputError
from igonnx.visual.arguments import one_number
from igonnx.visual.overlay import resize_heat

__all__ = ["coverage", "draw_line", "require_line_width", "signed_distance"]

# In a picture whose shorter side has 224 pixels, in pixels: width of the line, rounding of corners.
USUAL_SIDE = 224
WIDTH = 2.0
NARROWEST = 1.4
ROUNDING = 1.5
# A dark seam on both sides keeps the line visible on any ground; a share of the line's width.
SEAM = 0.4
SEAM_OPACITY = 0.55


def signed_distance(
    mask: NDArray[np.bool_], size: tuple[int, int] | None = None
) -> NDArray[np.float64]:
    """Measure how deep inside a mask each pixel lies, negative outside: float64 [H, W], in pixels of `size`.

    mask: [h, w] with at least one pixel in it; the distance is that to the border between pixels, a
    pixel's centre being half a pixel away from it, and smoothed a little, so that stairs become
    curves. The picture's frame is a border. size: (H, W) to scale to, in the same proportions.
    """
    from scipy import ndimage  # slow to import

    framed = np.pad(mask, 1)
    inside = ndimage.distance_transform_edt(framed)
    outside = ndimage.distance_transform_edt(~framed)
    distance = np.where(framed, inside - 0.5, 0.5 - outside)
    rounding = ROUNDING * min(1.0, min(mask.shape) / USUAL_SIDE)
    distance = ndimage.gaussian_filter(distance, rounding, mode="nearest")[1:-1, 1:-1]
    if size is None or size == mask.shape:
        return np.asarray(distance)
    return np.asarray(resize_heat(distance, size) * (min(size) / min(mask.shape)))


def coverage(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tell which part of each pixel lies inside, in [0, 1], by its centre's distance from the border."""
    return np.asarray(np.clip(distance + 0.5, 0.0, 1.0))


def require_line_width(width: float | None) -> None:
    """Raise `InputError` unless `width` is a number of pixels above 0, or None."""
    if width is not None and one_number(width, "width") <= 0:
        raise InputError(f"width is {width}, expected a number of pixels > 0, or None")


def draw_line(
    picture: NDArray[np.float64],
    distance: NDArray[np.float64],
    colour: NDArray[np.float64],
    width: float | None = None,
) -> NDArray[np.float64]:
    """Draw the line where the distance [H, W] is zero on a picture [H, W, 3]; all colours in [0, 1].

    width: in pixels, None for what suits the picture's size.
    """
    if width is None:
        width = max(NARROWEST, WIDTH * min(distance.shape) / USUAL_SIDE)
    line = coverage(width / 2 - np.abs(distance))[..., None]
    seam = SEAM_OPACITY * coverage((0.5 + SEAM) * width - np.abs(distance))[..., None]
    return np.asarray(picture * (1 - seam) * (1 - line) + colour * line)
