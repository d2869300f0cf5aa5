"""Tables: which features count, as signed bars and as a waterfall from the baseline's score to the score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from igonnx.visual.colours import AGAINST, FOR
from igonnx.visual.notation import number, shortened, signed
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
from igonnx.visual.ranking import Ranking, rank_features, waterfall_levels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_features", "plot_waterfall"]

WARM = tuple(channel / 255 for channel in FOR[1])
COOL = tuple(channel / 255 for channel in AGAINST[1])
GREY = "#9aa1ad"
GRID = "#e9ebef"

# Measures of the page, in inches.
ROW, BARS, FOOT = 0.31, 4.6, 0.5
CHARACTER = 0.073  # width of a character of a label
LONGEST_LABEL = 44


def plot_features(
    values: Any,
    *,
    names: Sequence[str] | None = None,
    data: Any = None,
    top: int = 10,
    title: str | None = None,
    subtitle: str | None = None,
) -> Figure:
    """Bars of the strongest contributions: to the right what speaks for the target, to the left what speaks against it.

    values: contributions of one example, [F] or of any shape. names: one per feature. data: the features' values,
    numbers or texts, shown beside the names. top: how many features have a bar of their own; the others are summed into
    one, in grey. The figure belongs to no window: use its `savefig`. Raises `Error` where Matplotlib is missing,
    `InputError` for counts that differ, NaN and infinity.
    """
    figure_type = require_matplotlib()
    ranking = rank_features(values, names, data, top)
    figure, axes = _page(figure_type, ranking.labels, title, subtitle)
    left, right = ranking.reach
    reach = max(left, right) or 1.0
    left, right = left / reach, right / reach
    # Room for the numbers at the ends of the bars, where there are bars.
    axes.set_xlim(-reach * _room(left, left + right), reach * _room(right, left + right))
    axes.axvline(0, color=GREY, linewidth=0.8, zorder=3)
    zeros = np.zeros_like(ranking.contributions)
    _draw_bars(axes, ranking, zeros, ranking.contributions)
    axes.set_xlabel("contribution to the score", fontsize=9, color=QUIET, labelpad=5)
    return figure


def plot_waterfall(
    values: Any,
    *,
    baseline_score: float,
    score: float,
    names: Sequence[str] | None = None,
    data: Any = None,
    top: int = 10,
    title: str | None = None,
    subtitle: str | None = None,
) -> Figure:
    """How the contributions lead from the baseline's score to the score: each bar begins where the one above it ends.

    baseline_score and score: numbers, `Attribution.baseline_scores` and `scores` of the example. The other arguments
    are those of `plot_features`. Where contributions miss the change in score by more than half a per cent of the
    range, a last bar says how much is "not accounted for". Raises `Error` and `InputError` as `plot_features`.
    """
    figure_type = require_matplotlib()
    ranking, levels = waterfall_levels(values, baseline_score, score, names, data, top)
    labels = ["baseline", *ranking.labels, "score"]
    figure, axes = _page(figure_type, labels, title, subtitle)
    low, high = float(levels.min()), float(levels.max())
    span = (high - low) or max(abs(high), 1.0)
    axes.set_xlim(low - 0.16 * span, high + 0.16 * span)
    _draw_bars(axes, ranking, levels[:-1], np.diff(levels), first_row=1)
    last = len(labels) - 1
    for row, level in enumerate(levels):
        axes.plot([level, level], [row - 0.36, row + 1.36], color=GREY, linewidth=0.8, zorder=1)
    for row, level in ((0, levels[0]), (last, levels[-1])):
        axes.plot(level, row, "o", color=INK, markersize=4.5, zorder=4)
        _write(axes, float(level), row, number(float(level)), right=True, weight="bold")
    axes.set_xlabel("score", fontsize=9, color=QUIET, labelpad=5)
    return figure


def _page(
    figure_type: type[Figure], labels: list[str], title: str | None, subtitle: str | None
) -> tuple[Figure, Axes]:
    """A page with room for these labels, and axes with a row for each of them, the first on top."""
    shown = [shortened(label, LONGEST_LABEL) for label in labels]
    left = MARGIN + 0.12 + CHARACTER * max(map(len, shown))
    head = head_height(title, subtitle)
    width = max(left + BARS + MARGIN, narrowest(title, subtitle))
    bars, height = width - left - MARGIN, head + ROW * len(labels) + FOOT
    figure = figure_type(figsize=(width, height), dpi=150, facecolor="white")
    axes = figure.add_axes(
        (left / width, FOOT / height, bars / width, ROW * len(labels) / height), frameon=False
    )
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_yticks(range(len(labels)), shown, parse_math=False)
    axes.tick_params(axis="y", length=0, labelsize=9.5, labelcolor=INK)
    axes.tick_params(axis="x", length=3, labelsize=8, labelcolor=QUIET, color=EDGE)
    axes.grid(axis="x", color=GRID, linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    axes.locator_params(axis="x", nbins=6)
    write_heading(figure, title, subtitle)
    return figure, axes


def _room(share: float, whole: float) -> float:
    """How far the axis reaches on a side whose longest bar is `share` of both sides' `whole`."""
    return share + 0.17 * (whole or 1.0) if share or not whole else 0.02 * whole


def _draw_bars(
    axes: Axes,
    ranking: Ranking,
    begins: NDArray[np.float64],
    lengths: NDArray[np.float64],
    *,
    first_row: int = 0,
) -> None:
    """Draw a bar per contribution with its number at the end; what is no feature is grey."""
    for i, (begin, length) in enumerate(zip(begins, lengths, strict=True)):
        contribution = float(ranking.contributions[i])
        colour: Any = WARM if contribution > 0 else COOL
        row = i + first_row
        axes.barh(
            row,
            length,
            left=begin,
            height=0.68,
            color=colour if i < ranking.features else GREY,
            zorder=2,
        )
        _write(axes, float(begin + length), row, signed(contribution), right=contribution >= 0)


def _write(
    axes: Axes, x: float, row: int, text: str, *, right: bool, weight: str = "normal"
) -> None:
    """Write a number beside the end of a bar."""
    axes.annotate(
        text,
        (x, row),
        xytext=(5 if right else -5, 0),
        textcoords="offset points",
        ha="left" if right else "right",
        va="center",
        fontsize=8.5,
        fontweight=weight,
        color=INK,
        zorder=5,
    )
