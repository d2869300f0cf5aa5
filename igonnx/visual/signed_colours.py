"""The plain overlay: each sign in a colour of choice, added to the image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.checks import as_finite
from igonnx.errors import InputError
from igonnx.visual.arguments import require_part
from igonnx.visual.colours import Colour, as_colour
from igonnx.visual.overlay import as_rgb

__all__ = ["colour_signs", "superimpose"]


def colour_signs(
    heat: NDArray[Any], positive: Colour = (0, 255, 0), negative: Colour = (255, 0, 0)
) -> NDArray[np.float64]:
    """Colour a map [H, W] of values in [-1, 1] on black: float64 [H, W, 3] of 0 to 255.

    Positive values are that much of the colour `positive`, negative ones that much of `negative`;
    beyond 1 there is no more. A volume [D, H, W] gives [D, H, W, 3].
    """
    strength = np.clip(as_finite(heat, "the heat map"), -1.0, 1.0)[..., None]
    warm, cool = 255 * as_colour(positive), 255 * as_colour(negative)
    return np.asarray(np.maximum(strength, 0.0) * warm + np.maximum(-strength, 0.0) * cool)


def superimpose(
    colours: NDArray[Any], image: NDArray[Any], opacity: float = 0.8
) -> NDArray[np.float64]:
    """Add colours to an image, as light is added: float64 [H, W, 3] of 0 to 255.

    colours: [H, W, 3] of 0 to 255, as from `colour_signs`, of which the part `opacity` is added;
    image: as for `as_rgb`. Sums above 255 become 255, so that a colour hardly shows on white: the
    overlay of `igonnx.visual.render` shows on every ground. Raises `InputError` if the sizes differ.
    """
    require_part("opacity", opacity)
    added = as_finite(colours, "the colours")
    picture = 255 * as_rgb(image)
    if added.shape != picture.shape:
        raise InputError(
            f"the attribution is drawn in {added.shape[:2]} pixels, "
            f"expected those of the image, {picture.shape[:2]}"
        )
    return np.clip(opacity * added + picture, 0.0, 255.0)
