"""Scores of several methods by several measures, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import InputError
from igonnx.visual.colours import FOR
from igonnx.visual.page import (
    EDGE,
    INK,
    MARGIN,
    QUIET,
    head_height,
    narrowest,
    require_matplotlib,
    write_heading,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_scores"]

BEST = tuple(channel / 255 for channel in FOR[1])
OTHER = "#b9c0cb"

# Measures of the page, in inches.
ROW, PANEL, GAP, ABOVE, BELOW = 0.34, 2.1, 0.32, 0.46, 0.42
CHARACTER = 0.078  # width of a character of a method's name
COLUMNS = 4  # at most


def plot_scores(
    scores: Mapping[str, Mapping[str, NDArray[Any]]],
    *,
    higher_is_better: Mapping[str, bool] | None = None,
    title: str | None = None,
    subtitle: str | None = None,
) -> Figure:
    """Draw a panel per measure: a bar per method for the mean of its scores, and a dot for each of them.

    scores: {measure: {method: [N]}}; a method may lack a measure, and what is not finite is left out.
    higher_is_better: per measure; the best mean of each is drawn in colour, where two methods or more have one.
    The figure belongs to no window: use its `savefig`. Raises `Error` where Matplotlib is missing, `InputError` for no
    measure or no method.
    """
    figure_type = require_matplotlib()
    methods = list(dict.fromkeys(method for one in scores.values() for method in one))
    if not methods:
        raise InputError("no scores were given; expected {measure: {method: values}}")
    rows = -(-len(scores) // COLUMNS)
    columns = -(-len(scores) // rows)
    head = head_height(title, subtitle)
    names = CHARACTER * max(map(len, methods)) + 0.14
    panel_height = ROW * len(methods)
    width = max(
        2 * MARGIN + names + columns * PANEL + (columns - 1) * GAP, narrowest(title, subtitle)
    )
    height = head + rows * (ABOVE + panel_height + BELOW)
    figure = figure_type(figsize=(width, height), dpi=150, facecolor="white")
    write_heading(figure, title, subtitle)
    for index, (measure, found) in enumerate(scores.items()):
        row, column = divmod(index, columns)
        left = MARGIN + names + column * (PANEL + GAP)
        bottom = height - head - row * (ABOVE + panel_height + BELOW) - ABOVE - panel_height
        place = (left / width, bottom / height, PANEL / width, panel_height / height)
        panel = figure.add_axes(place)
        better = None if higher_is_better is None else higher_is_better[measure]
        _draw(panel, methods, found, better)
        _dress(panel, methods if column == 0 else [], len(methods), measure, better)
    return figure


def _draw(
    panel: Axes,
    methods: Sequence[str],
    found: Mapping[str, NDArray[Any]],
    higher_is_better: bool | None,
) -> None:
    known = {method: values[np.isfinite(values)] for method, values in found.items()}
    means = {method: float(values.mean()) for method, values in known.items() if len(values)}
    pick = max if higher_is_better else min
    best = pick(means.values()) if len(means) > 1 and higher_is_better is not None else None
    for place, method in enumerate(methods):
        if method not in means:
            panel.text(0, place, " -", va="center", fontsize=9, color=QUIET)
            continue
        mean, values = means[method], known[method]
        panel.barh(place, mean, height=0.62, color=BEST if mean == best else OTHER, zorder=2)
        if len(values) > 1:
            spread = np.linspace(-0.18, 0.18, len(values))
            panel.plot(values, place + spread, ".", color=INK, markersize=3.2, alpha=0.55, zorder=3)


def _dress(
    panel: Axes, names: Sequence[str], count: int, measure: str, higher_is_better: bool | None
) -> None:
    arrows = {None: "", True: "  \N{UPWARDS ARROW} higher", False: "  \N{DOWNWARDS ARROW} lower"}
    panel.set_title(measure, fontsize=9.5, color=INK, loc="left", pad=5, parse_math=False)
    if higher_is_better is not None:
        panel.set_title(
            arrows[higher_is_better], fontsize=8, color=QUIET, loc="right", pad=5, parse_math=False
        )
    panel.axvline(0, color=QUIET, linewidth=0.8, zorder=1)
    panel.grid(axis="x", color=EDGE, linewidth=0.6, zorder=0)
    panel.set_axisbelow(True)
    panel.set_ylim(count - 0.5, -0.5)
    panel.set_yticks(range(len(names)), names, fontsize=9, color=INK, parse_math=False)
    if not names:
        panel.set_yticks([])
    panel.tick_params(axis="y", length=0)
    panel.tick_params(axis="x", labelsize=7.5, labelcolor=QUIET, color=EDGE)
    panel.locator_params(axis="x", nbins=4)
    for side, spine in panel.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(EDGE)
