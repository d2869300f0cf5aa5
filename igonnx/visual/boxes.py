"""Boxes and masks drawn on a picture: what a detector or a segmentation found, beside why."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from igonnx.checks import require_choice
from igonnx.errors import InputError
from igonnx.visual.arguments import finite_array
from igonnx.visual.colours import Colour, as_colour
from igonnx.visual.overlay import as_rgb, to_uint8
from igonnx.visual.strokes import draw_line, require_line_width, signed_distance

__all__ = ["BoxFormat", "draw_boxes", "draw_mask"]

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]

OUTLINE: Colour = (64, 235, 120)  # neither warm nor cool: it is no contribution


def draw_boxes(
    image: NDArray[Any],
    boxes: Any,
    *,
    box_format: BoxFormat = "xyxy",
    relative: bool = False,
    colour: Colour = OUTLINE,
    width: float | None = None,
) -> NDArray[np.uint8]:
    """Draw boxes on a picture, an overlay of `render` say: uint8 RGB [H, W, 3].

    image: as for `render`. boxes: [4] or [K, 4], in pixels from the left upper corner of the picture, or with
    `relative` in parts of its width and height; x runs to the right, y downwards. box_format: two corners "xyxy", a
    corner and the size "xywh", or the centre and the size "cxcywh". colour: (red, green, blue) of 0 to 255 or
    "#rrggbb". width: of the line in pixels; default: what suits the picture. What lies beyond the picture is cut off;
    no box ([0, 4]) draws none. Raises `InputError` for NaN, boxes of negative size and pictures that are none.
    """
    picture = as_rgb(image)
    height, breadth = picture.shape[:2]
    corners = _corners(boxes, box_format)
    if relative:
        corners = corners * np.array([breadth, height, breadth, height], dtype=np.float64)
    y, x = np.arange(height)[:, None] + 0.5, np.arange(breadth)[None] + 0.5
    nearest = np.full((height, breadth), np.inf)
    for left, top, right, bottom in corners:
        across = np.maximum(left - x, x - right)
        along = np.maximum(top - y, y - bottom)
        outside = np.hypot(np.maximum(across, 0.0), np.maximum(along, 0.0))
        nearest = np.minimum(
            nearest, np.abs(np.where(outside > 0, outside, np.maximum(across, along)))
        )
    return _stroke(picture, nearest, colour, width)


def draw_mask(
    image: NDArray[Any],
    mask: NDArray[Any],
    *,
    colour: Colour = OUTLINE,
    width: float | None = None,
) -> NDArray[np.uint8]:
    """Draw the outline of a mask on a picture: uint8 RGB [H, W, 3].

    mask: [H, W], what is not 0 is inside; a mask of another size (of logits, say) is scaled to the picture. A mask of
    nothing has no outline, one of everything is outlined along the frame. The other arguments are those of
    `draw_boxes`. Raises `InputError`.
    """
    picture = as_rgb(image)
    inside = finite_array(mask, "the mask", ranks=(2,), expected="[H, W]") != 0
    if not inside.any():
        return to_uint8(picture)
    size = (picture.shape[0], picture.shape[1])
    return _stroke(picture, signed_distance(inside, size), colour, width)


def _stroke(
    picture: NDArray[np.float64],
    distance: NDArray[np.float64],
    colour: Colour,
    width: float | None,
) -> NDArray[np.uint8]:
    require_line_width(width)
    return to_uint8(draw_line(picture, distance, as_colour(colour), width))


def _corners(boxes: Any, box_format: BoxFormat) -> NDArray[np.float64]:
    require_choice("box_format", box_format, BoxFormat)
    if np.shape(boxes) == (0, 4):
        return np.empty((0, 4))
    array = finite_array(boxes, "boxes", ranks=(1, 2), expected="[4] or [K, 4]")
    if array.shape[-1] != 4:
        raise InputError(f"boxes has shape {list(array.shape)}, expected [4] or [K, 4]")
    array = array.reshape(-1, 4)
    first, second = array[:, :2], array[:, 2:]
    if box_format == "xywh":
        second = first + second
    elif box_format == "cxcywh":
        first, second = first - second / 2, first + second / 2
    if (second < first).any():
        bad = int((second < first).any(axis=1).argmax())
        raise InputError(
            f"box {bad} is {array[bad].tolist()} ({box_format}), which has a negative size"
        )
    return np.concatenate([first, second], axis=1)
