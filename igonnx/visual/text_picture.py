"""A heat map in characters: the darker the cell, the more it contributes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.checks import require_whole
from igonnx.visual.heatmap import contributions, normalise

__all__ = ["text_picture"]

SHADES = " ·░▒▓█"
# A character is about twice as high as it is wide, so a cell is two of them.
CELL = 2
# This percentage of the cells is the darkest; the power keeps what is middling apart from what is strong.
DARKEST = 4.0
POWER = 1.5


def text_picture(values: Any, *, rows: int = 16, columns: int = 64) -> str:
    """The magnitudes of an attribution in shades, in at most so many rows and columns of characters within a frame.

    values: the attribution of one example, as for `igonnx.visual.heat_map`; magnitudes are summed over the channels,
    and averaged where a cell stands for several pixels. An all-zero map is blank. Raises `InputError` as `heat_map`.
    """
    heat = contributions(values, sign="absolute")
    require_whole("rows", rows, 1)
    require_whole("columns", columns, CELL)
    factor = max(1.0, heat.shape[0] / rows, CELL * heat.shape[1] / columns)
    cells = _averaged(_averaged(heat, factor).T, factor).T
    shades = np.rint(normalise(cells, DARKEST) ** POWER * (len(SHADES) - 1)).astype(int)
    lines = ["│" + "".join(SHADES[shade] * CELL for shade in row) + "│" for row in shades]
    rule = "─" * CELL * cells.shape[1]
    return "\n".join([f"┌{rule}┐", *lines, f"└{rule}┘"])


def _averaged(heat: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """Means over about `factor` rows each."""
    groups = max(1, int(len(heat) / factor))
    starts = np.arange(groups) * len(heat) // groups
    counts = np.diff(np.append(starts, len(heat)))
    return np.asarray(np.add.reduceat(heat, starts, axis=0) / counts[:, None])
