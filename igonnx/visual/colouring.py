"""From the strength of a pixel to its colour: the house's colours, or a colour map of the caller's choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import InputError
from igonnx.visual.colours import AGAINST, FOR, GLOW, NEUTRAL, Anchors, diverging, ramp
from igonnx.visual.heatmap import Heat, Sign
from igonnx.visual.page import require_matplotlib

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

__all__ = ["Colouring", "Colours", "colouring"]

# A heat map, [-1, 1] where both signs are shown and [0, 1] else, to RGB [..., 3] in [0, 1].
Colouring: TypeAlias = Callable[[Heat], NDArray[np.float64]]
# The name of a Matplotlib colour map; colours from weak to strong, or pairs (position, colour); a Colormap.
Colours: TypeAlias = "str | Sequence[Any] | Colormap"

_OWN: dict[Sign, Anchors] = {
    "positive": (NEUTRAL, *FOR),
    "negative": (NEUTRAL, *AGAINST),
    "absolute": GLOW,
}


def colouring(colours: Colours | None, sign: Sign) -> Colouring:
    """Give the function that colours a heat map of this sign.

    colours: None for igonnx's own (warm for the target, cool against it, a glow for magnitudes), the name of a
    Matplotlib colour map ("inferno"), at least two colours from weak to strong (["white", "#004080"]), pairs of
    position in [0, 1] and colour ([(0, "white"), (0.25, "black"), (1, "black")]), or a Matplotlib Colormap. With sign
    "all" the colours run from the strongest against the target over zero, in their middle, to the strongest for it.
    All but None need Matplotlib. Raises `InputError` for a name or colours that are none.
    """
    if colours is None:
        return diverging if sign == "all" else partial(ramp, anchors=_OWN[sign])
    colour_map = _colour_map(colours)

    def colour(heat: Heat) -> NDArray[np.float64]:
        position = (heat + 1) / 2 if sign == "all" else heat
        return np.asarray(colour_map(position), dtype=np.float64)[..., :3]

    return colour


def _colour_map(colours: Colours) -> Colormap:
    """Make the Matplotlib Colormap that was asked for."""
    require_matplotlib()
    import matplotlib
    from matplotlib.colors import Colormap, LinearSegmentedColormap

    if isinstance(colours, Colormap):
        return colours
    if isinstance(colours, str):
        if colours not in matplotlib.colormaps:
            near = get_close_matches(colours, list(matplotlib.colormaps), n=3)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise InputError(
                f"colours is {colours!r}, expected the name of a Matplotlib colour map{hint}"
            )
        return matplotlib.colormaps[colours]
    expected = "expected a name, two colours or more, or pairs of position (the first 0, the last 1) and colour"
    if not isinstance(colours, Sequence) or len(colours) < 2:
        raise InputError(f"colours is {colours!r}, {expected}")
    try:
        chosen = LinearSegmentedColormap.from_list("chosen", list(colours))
        chosen(0.0)  # only now are the positions looked at
    except (TypeError, ValueError) as error:
        raise InputError(f"colours is {colours!r}, {expected}") from error
    return chosen
