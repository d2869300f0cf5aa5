"""Lines around the regions of an image that its attribution singles out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.channels import Layout
from igonnx.errors import InputError
from igonnx.visual.arguments import require_part
from igonnx.visual.colours import Colour, as_colour
from igonnx.visual.heatmap import Sign, contributions
from igonnx.visual.morphology import as_mask
from igonnx.visual.overlay import as_rgb, require_fit, resize_heat, to_uint8
from igonnx.visual.regions import find_regions
from igonnx.visual.strokes import coverage, draw_line, require_line_width, signed_distance

__all__ = ["AGAINST_COLOUR", "FOR_COLOUR", "draw_outlines", "outline", "paired"]

FOR_COLOUR = "#ffd60a"
AGAINST_COLOUR = "#38b6ff"

# Regions are looked for in a picture whose shorter side has at most so many pixels.
FINEST = 512


def outline(
    values: NDArray[Any],
    image: NDArray[Any],
    *,
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
    """Outline the regions that hold the attribution on its image: uint8 RGB [H, W, 3] of the image's size.

    values, image, layout and sign are those of `render`; smooth (in pixels of the image), share,
    percentage and at_most those of `find_regions`, which says what is outlined. With `hug` the lines
    follow the image's edges where there are any nearby. colour is that of the lines around what
    speaks for the score (sign "all" and "positive") or matters at all ("absolute"), `against` that
    of the lines around what speaks against it: (red, green, blue) of 0 to 255 or "#rrggbb". width:
    of the line in pixels, None for what suits the image. dim in [0, 1]: how much darker what lies
    outside all lines is drawn. Lines are anti-aliased and closed; a region that reaches the frame
    is closed along it. With nothing to outline the image comes back as it is.

    Raises `InputError` for NaN, infinity, shapes that are no picture, an attribution that does not
    fit the image, and numbers out of range.
    """
    picture = as_rgb(image)
    size = (picture.shape[0], picture.shape[1])
    heat = resize_heat(contributions(values, layout=layout, size=size, sign=sign), size)
    scale = min(1.0, FINEST / min(size))
    masks = find_regions(
        _scaled(heat, scale),
        _scaled(picture, scale) if hug else None,
        smooth=smooth if smooth is None else smooth * scale,
        share=share,
        percentage=percentage,
        at_most=at_most,
    )
    return draw_outlines(picture, masks, paired(sign, colour, against), width=width, dim=dim)


def paired(sign: Sign, colour: Colour, against: Colour) -> tuple[Colour, Colour]:
    """Give the colours of the two masks of `find_regions`; of one sign alone the first mask is that sign's."""
    return (against, colour) if sign == "negative" else (colour, against)


def draw_outlines(
    image: NDArray[Any],
    masks: Sequence[NDArray[Any]],
    colours: Sequence[Colour],
    *,
    width: float | None = None,
    dim: float = 0.0,
) -> NDArray[np.uint8]:
    """Draw closed, anti-aliased lines around masks: uint8 RGB [H, W, 3] of the image's size.

    masks: [h, w] each, of the image's proportions and scaled to it where they are smaller; colours:
    one for each. width and dim as for `outline`. Raises `InputError` for anything else.
    """
    picture = as_rgb(image)
    size = (picture.shape[0], picture.shape[1])
    require_line_width(width)
    require_part("dim", dim)
    if len(masks) != len(colours):
        raise InputError(f"{len(colours)} colours for {len(masks)} masks, expected one for each")
    for mask in masks:
        if np.ndim(mask) != 2:
            raise InputError(f"a mask has shape {np.shape(mask)}, expected [H, W]")
        require_fit(np.shape(mask), size)
    lines = [
        (signed_distance(mask, size), as_colour(colour))
        for mask, colour in zip(map(as_mask, masks), colours, strict=True)
        if mask.any()
    ]
    if lines and dim:
        inside = np.max([coverage(distance) for distance, _ in lines], axis=0)
        picture = picture * (1 - dim * (1 - inside))[..., None]
    for distance, colour in lines:
        picture = draw_line(picture, distance, colour, width)
    return to_uint8(picture)


def _scaled(array: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Scale [H, W] or [H, W, 3] down."""
    if scale == 1:
        return array
    from skimage.transform import resize  # slow to import

    size = tuple(max(1, round(side * scale)) for side in array.shape[:2])
    return np.asarray(resize(array, (*size, *array.shape[2:]), order=1, anti_aliasing=True))
