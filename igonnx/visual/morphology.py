"""Shapes in maps: specks and gaps taken away, holes filled, borders found.

Everything here takes maps of any number of axes; a footprint has as many as the map.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.checks import as_finite, is_whole
from igonnx.errors import InputError

__all__ = ["as_mask", "border", "clean_up", "fill_holes"]


def clean_up(
    heat: NDArray[Any], footprint: NDArray[Any] | int | None = None
) -> NDArray[np.float64]:
    """Close gaps and open specks that are smaller than a footprint (grey closing, then opening).

    heat: one sign, or a magnitude, [H, W] or of any number of axes; float64 of the same shape comes
    back. footprint: which neighbours count, zero or False meaning no, with as many axes as the map;
    a whole number stands for a full square (cube) of that side, None for 3. A footprint is flat:
    only where it is zero matters. Beyond the map's edge it is mirrored. A signed map is to be
    cleaned sign by sign. Raises `InputError` for other footprints.
    """
    from scipy import ndimage  # slow to import

    array = as_finite(heat, "the heat map")
    if array.size == 0:
        return array
    neighbours = _neighbours(footprint, array.ndim)
    closed = ndimage.grey_closing(array, footprint=neighbours)
    return np.asarray(ndimage.grey_opening(closed, footprint=neighbours), dtype=np.float64)


def fill_holes(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """Fill what a mask encloses: bool, same shape. Diagonal neighbours close a hole."""
    from scipy import ndimage  # slow to import

    return np.asarray(ndimage.binary_fill_holes(as_mask(mask)), dtype=np.bool_)


def border(mask: NDArray[Any], thickness: int = 1) -> NDArray[np.bool_]:
    """Hollow a mask out to its border, `thickness` pixels wide: bool, same shape.

    A pixel belongs to the border if a way of `thickness` steps along the axes leads out of the
    mask. The map's frame counts as outside, so that every border is closed.
    """
    from scipy import ndimage  # slow to import

    if not is_whole(thickness) or thickness < 1:
        raise InputError(f"thickness is {thickness!r}, expected a whole number of pixels >= 1")
    whole = as_mask(mask)
    return whole & ~ndimage.binary_erosion(whole, iterations=int(thickness))


def as_mask(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """Take a mask of booleans, or of numbers of which those that are not zero belong to it."""
    array = np.asarray(mask)
    return array if array.dtype == np.bool_ else as_finite(array, "the mask") != 0


def _neighbours(footprint: NDArray[Any] | int | None, axes: int) -> NDArray[np.bool_]:
    if footprint is None or isinstance(footprint, int):
        side = 3 if footprint is None else footprint
        if side < 1:
            raise InputError(f"the footprint is {side}, expected a whole number >= 1 or an array")
        return np.ones((side,) * axes, dtype=np.bool_)
    array = as_mask(footprint)
    if array.ndim != axes or not array.any():
        raise InputError(
            f"the footprint has shape {array.shape} and {int(array.sum())} neighbours, "
            f"expected {axes} axes and at least one"
        )
    return array
