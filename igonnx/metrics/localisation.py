"""The pointing game: whether the strongest pixel lies on the object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution
from igonnx.checks import as_finite, require_number
from igonnx.errors import InputError
from igonnx.methods.call import Array
from igonnx.metrics.features import channels_of

__all__ = ["PointingGame", "pointing_game"]


@dataclass(frozen=True)
class PointingGame:
    """The outcome of `pointing_game` for N examples.

    point: int64 [N, axes], the strongest pixel of each: row and column for images.
    distance: float64 [N], in pixels, from it to the nearest pixel of the object; 0 on it.
    tolerance: the largest distance that is a hit.
    """

    point: NDArray[np.int64]
    distance: Array
    tolerance: float

    @property
    def hit(self) -> NDArray[np.bool_]:
        """Which examples are hits, bool [N]."""
        return np.asarray(self.distance <= self.tolerance)

    @property
    def score(self) -> Array:
        """1 for a hit, 0 for a miss, float64 [N]."""
        return self.hit.astype(np.float64)

    @property
    def accuracy(self) -> float:
        """Hits over hits and misses. The paper takes it per class of objects and then the mean over the classes."""
        return float(self.hit.mean())


def pointing_game(
    attribution: Attribution | NDArray[Any],
    regions: NDArray[Any] | Sequence[Any],
    *,
    tolerance: float = 15.0,
    channel_axis: int | None = None,
) -> PointingGame:
    """The pointing game (Zhang et al., 2016, arXiv:1608.00507): whether the strongest pixel lies on the object.

    Args:
        attribution: of one tensor: [N, ...], with channels, which are summed, or where `regions` are masks without.
            The first of several strongest pixels counts.
        regions: where the objects are: masks, bool [N, ...] without channels; or for images per example a box
            (left, top, right, bottom), or several [K, 4], in pixels from the left upper corner, edges that the pixels
            lie between. An image of 10 by 10 is in the box (0, 0, 10, 10) as a whole.
        tolerance: pixels that the point may lie off the object, Euclidean distance; the paper has 15, on images of
            about 500.
        channel_axis: as for `insertion_deletion`.

    Raises `InputError` for other shapes, NaN, several tensors, objects without a pixel, and boxes of negative size.

    """
    require_number("tolerance", tolerance, 0)
    values = as_finite(attribution.of() if isinstance(attribution, Attribution) else attribution)
    masks = isinstance(regions, np.ndarray) and regions.dtype == np.bool_
    if values.ndim < 2:
        raise InputError(
            f"the attribution has shape {list(values.shape)}; expected [examples, ...]"
        )
    axis = channels_of(values.shape, channel_axis)
    if axis is not None and values.ndim > (np.ndim(regions) if masks else 3):
        values = values.sum(axis=axis)
    inside = np.asarray(regions) if masks else _boxed(regions, values.shape)
    if inside.shape != values.shape:
        raise InputError(
            f"the masks have shape {list(inside.shape)}; expected {list(values.shape)}"
        )
    points, distances = [], []
    for example, (heat, mask) in enumerate(zip(values, inside, strict=True)):
        pixels = np.argwhere(mask)
        if not len(pixels):
            raise InputError(f"the object of example {example} has no pixel")
        point = np.array(np.unravel_index(heat.argmax(), heat.shape))
        points.append(point)
        distances.append(float(np.linalg.norm(pixels - point, axis=1).min()))
    return PointingGame(np.array(points), np.array(distances), float(tolerance))


def _boxed(regions: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Masks [N, H, W] of boxes."""
    if not isinstance(regions, Sequence | np.ndarray):
        raise InputError(f"regions is {regions!r}; expected masks, or boxes for each image")
    if len(shape) != 3 or len(regions) != shape[0]:
        raise InputError(
            f"{len(regions)} boxes were given for an attribution of pixels {list(shape)}; expected one for each of N "
            "images [N, height, width], or masks"
        )
    inside = np.zeros(shape, bool)
    y, x = np.arange(shape[1])[:, None] + 0.5, np.arange(shape[2])[None] + 0.5
    for mask, given in zip(inside, regions, strict=True):
        boxes = as_finite(given, "the boxes")
        if boxes.shape != (4,) and (boxes.ndim != 2 or boxes.shape[1] != 4):
            raise InputError(f"boxes have shape {list(boxes.shape)}; expected [4] or [boxes, 4]")
        for left, top, right, bottom in boxes.reshape(-1, 4):
            if right < left or bottom < top:
                raise InputError(
                    f"a box is ({left:g}, {top:g}, {right:g}, {bottom:g}); expected (left, top, right, bottom)"
                )
            mask |= (left <= x) & (x <= right) & (top <= y) & (y <= bottom)
    return inside
