"""The colours of contributions.

Magnitudes glow from black over violet and orange to pale yellow, so that strong pixels are the
bright ones on a darkened image. Where signs are shown, warm is for the target and cool is against
it on a neutral ground; orange and blue stay apart for the common forms of colour blindness, too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import InputError

__all__ = [
    "AGAINST",
    "COLD_GLOW",
    "FOR",
    "GLOW",
    "NEUTRAL",
    "Anchors",
    "Colour",
    "as_colour",
    "diverging",
    "luminance",
    "ramp",
]

Anchors = tuple[tuple[int, int, int], ...]
Colour = str | Sequence[float] | NDArray[np.number]

# sRGB anchors, weak to strong, evenly spaced.
GLOW: Anchors = (
    (10, 7, 34),
    (74, 12, 107),
    (165, 44, 96),
    (237, 105, 37),
    (251, 182, 26),
    (252, 246, 186),
)
COLD_GLOW: Anchors = (
    (6, 10, 34),
    (16, 48, 112),
    (22, 104, 168),
    (46, 166, 200),
    (128, 216, 220),
    (232, 250, 246),
)
FOR: Anchors = ((255, 205, 160), (248, 132, 60), (214, 56, 30), (128, 10, 24))
AGAINST: Anchors = ((176, 212, 246), (88, 158, 224), (32, 96, 184), (14, 42, 110))
NEUTRAL = (248, 248, 248)


def ramp(position: NDArray[np.float64], anchors: Anchors) -> NDArray[np.float64]:
    """Colours at these positions in [0, 1] along the anchors: float64 [..., 3] in [0, 1]."""
    points = np.linspace(0.0, 1.0, len(anchors))
    channels = np.asarray(anchors, dtype=np.float64).T / 255
    return np.stack([np.interp(position, points, channel) for channel in channels], axis=-1)


def diverging(heat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours of values in [-1, 1], zero being neutral: float64 [..., 3] in [0, 1]."""
    magnitude = np.abs(heat)
    warm = ramp(magnitude, (NEUTRAL, *FOR))
    cool = ramp(magnitude, (NEUTRAL, *AGAINST))
    return np.where((heat >= 0)[..., None], warm, cool)


def luminance(colours: NDArray[Any]) -> NDArray[np.float64]:
    """How bright colours [..., 3] are, in their own units: float64 [...] (weights of ITU-R BT.709)."""
    return np.asarray(colours @ np.array([0.2126, 0.7152, 0.0722]))


def as_colour(colour: Colour) -> NDArray[np.float64]:
    """Take a colour of choice, (red, green, blue) of 0 to 255 or "#rrggbb": float64 [3] in [0, 1]."""
    if isinstance(colour, str):
        if not re.fullmatch("#[0-9a-fA-F]{6}", colour):
            raise InputError(f"the colour is {colour!r}, expected '#rrggbb' or three numbers")
        return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    channels = np.asarray(colour)
    if channels.shape != (3,) or channels.dtype.kind not in "fiu":
        raise InputError(f"the colour is {colour!r}, expected '#rrggbb' or three numbers")
    if not ((channels >= 0) & (channels <= 255)).all():
        raise InputError(f"the colour is {colour!r}, expected numbers from 0 to 255")
    return channels.astype(np.float64) / 255
