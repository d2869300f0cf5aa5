"""Time series: lines coloured by what each point of time contributes, one panel per channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import InputError
from igonnx.visual.arguments import finite_array
from igonnx.visual.colours import AGAINST, FOR, ramp
from igonnx.visual.heatmap import full_scale, in_scale
from igonnx.visual.notation import shortened, signed
from igonnx.visual.page import (
    EDGE,
    INK,
    MARGIN,
    QUIET,
    head_height,
    require_matplotlib,
    write_heading,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_time_series"]

# Lines have no colour where nothing is contributed, but must be seen on white.
LINE = (176, 181, 190)
# More points than columns cannot be told apart: longer series are drawn as the extent of each column.
COLUMNS = 1200
TINT = 0.30  # opacity of the strongest tint behind the line

# Measures of the page, in inches.
WIDTH, PANEL, LOWEST, GAP, FOOT, BAR = 8.6, 1.5, 0.62, 0.1, 0.5, 0.11
TALLEST = 12.0


def plot_time_series(
    values: Any,
    series: Any,
    *,
    time_axis: int | None = None,
    time: Any = None,
    names: Sequence[str] | None = None,
    outlier_percentile: float = 0.0,
    title: str | None = None,
    subtitle: str | None = None,
    time_label: str = "time step",
) -> Figure:
    """Draw a series as lines coloured by attribution, on a ground tinted likewise: warm for the target, cool against.

    values: contributions of one example, [T], [C, T] or [T, C], a leading axis of 1 is taken away; series: what was
    explained, in the same shape. time_axis: which axis of two is time, 0 or 1 (by default the longer, and the last
    where they are equal). Channels are stacked, the first on top, on one scale of colours; each has its own scale of
    heights. time: the T points of time, rising, in units that `time_label` names; default 0, 1, ... names: one per
    channel. outlier_percentile: this percentage of the points may saturate the colours. Of more than 2,400 points,
    neighbours share a column, which shows the range of their values and is coloured by the sum of their contributions.

    Raises `Error` where Matplotlib is missing, `InputError` for shapes that differ, NaN and infinity.
    """
    figure_type = require_matplotlib()
    lines, heights = _channels(values, series, time_axis)
    moments = _moments(time, lines.shape[1])
    labels = _labels(names, len(lines))
    page = _Page(labels, title, subtitle)
    figure = figure_type(figsize=(WIDTH, page.height), dpi=150, facecolor="white")
    columns = _Columns.of(lines, moments)
    scale = full_scale(columns.contributions, outlier_percentile)
    strengths = in_scale(columns.contributions, scale)
    for channel, label in enumerate(labels):
        axes = figure.add_axes(page.panel(channel))
        _draw_channel(axes, columns, heights[channel], moments, strengths[channel])
        _dress(axes, label, None if channel < len(labels) - 1 else time_label)
    _draw_colour_bar(figure, page, scale)
    write_heading(figure, title, subtitle)
    return figure


@dataclass(frozen=True)
class _Columns:
    """Points of time, grouped where there are too many to be told apart.

    starts: int64 [K], the first point of each group; edges: float64 [K + 1], in time, where groups meet;
    contributions: float64 [C, K], summed over each group.
    """

    starts: NDArray[np.int64]
    edges: NDArray[np.float64]
    contributions: NDArray[np.float64]

    @classmethod
    def of(cls, lines: NDArray[np.float64], moments: NDArray[np.float64]) -> _Columns:
        count = lines.shape[1]
        groups = count if count <= 2 * COLUMNS else COLUMNS
        starts = np.arange(groups, dtype=np.int64) * count // groups
        first, last = moments[starts], moments[np.append(starts[1:], count) - 1]
        between = (last[:-1] + first[1:]) / 2
        # The outermost points get as much room outside as they have inside.
        before = between[0] - first[0] if groups > 1 else 0.5
        behind = last[-1] - between[-1] if groups > 1 else 0.5
        edges = np.concatenate([[first[0] - before], between, [last[-1] + behind]])
        return cls(starts, edges, np.add.reduceat(lines, starts, axis=1))


def _draw_channel(
    axes: Axes,
    columns: _Columns,
    heights: NDArray[np.float64],
    moments: NDArray[np.float64],
    strengths: NDArray[np.float64],
) -> None:
    """Draw one channel: the tinted ground, and the line on it."""
    from matplotlib.collections import LineCollection

    low, high = float(heights.min()), float(heights.max())
    room = 0.12 * ((high - low) or max(abs(high), 1.0))
    bottom, top = low - room, high + room
    axes.set_xlim(columns.edges[0], columns.edges[-1])
    axes.set_ylim(bottom, top)
    opacity = TINT * np.abs(strengths)[:, None]
    tint = np.concatenate([_colours(np.where(strengths < 0, -1.0, 1.0) * 0.5), opacity], axis=1)
    axes.pcolormesh(columns.edges, [bottom, top], tint[None], zorder=1)
    grouped = len(columns.starts) < len(moments)
    segments = _extents(columns, heights) if grouped else _halves(moments, heights)
    axes.add_collection(
        LineCollection(
            list(segments),
            colors=_colours(strengths),
            linewidths=0.8 if grouped else 2.0,
            capstyle="round",
            zorder=2,
        )
    )
    if len(moments) == 1:  # a point has no length
        axes.plot(moments, heights, "o", color=_colours(strengths)[0], markersize=6, zorder=3)


def _halves(moments: NDArray[np.float64], heights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each point's part of the line, [T, 3, 2]: from half way to the point before to half way to the next."""
    points = np.stack([moments, heights], axis=1)
    middles = (points[:-1] + points[1:]) / 2
    before = np.concatenate([points[:1], middles])
    behind = np.concatenate([middles, points[-1:]])
    return np.stack([before, points, behind], axis=1)


def _extents(columns: _Columns, heights: NDArray[np.float64]) -> NDArray[np.float64]:
    """An upright line per group, [K, 2, 2], from its least value to its greatest, meeting the next group."""
    least, greatest = (f.reduceat(heights, columns.starts) for f in (np.minimum, np.maximum))
    following = heights[np.append(columns.starts[1:], len(heights) - 1)]
    centres = (columns.edges[:-1] + columns.edges[1:]) / 2
    lower = np.stack([centres, np.minimum(least, following)], axis=1)
    upper = np.stack([centres, np.maximum(greatest, following)], axis=1)
    return np.stack([lower, upper], axis=1)


def _colours(strengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours of strengths in [-1, 1], from the grey of a line where nothing is contributed: [K, 3]."""
    magnitude = np.abs(strengths)
    warm, cool = ramp(magnitude, (LINE, *FOR[1:3])), ramp(magnitude, (LINE, *AGAINST[1:3]))
    return np.where((strengths >= 0)[:, None], warm, cool)


# -- the page ----------------------------------------------------------------------------------


class _Page:
    """Where things stand on a page with a panel for each of these channels."""

    def __init__(self, labels: list[str], title: str | None, subtitle: str | None) -> None:
        self.panel_height = max(LOWEST, min(PANEL, TALLEST / len(labels)))
        self.left = MARGIN + 0.62 + (0.22 if any(labels) else 0)
        self.width = WIDTH - self.left - BAR - 0.95
        self.head = head_height(title, subtitle)
        self.panels = len(labels) * (self.panel_height + GAP) - GAP
        self.height = self.head + self.panels + FOOT

    def panel(self, channel: int) -> tuple[float, float, float, float]:
        """Place the panel of a channel: left, bottom, width, height in parts of the page."""
        bottom = self.height - self.head - self.panel_height - channel * (self.panel_height + GAP)
        return self._place(self.left, bottom, self.width, self.panel_height)

    def colour_bar(self) -> tuple[float, float, float, float]:
        """Place the colour bar at the right of the panels."""
        height = min(self.panels, 2 * PANEL)
        bottom = self.height - self.head - height
        return self._place(self.left + self.width + 0.18, bottom, BAR, height)

    def _place(
        self, left: float, bottom: float, width: float, height: float
    ) -> tuple[float, float, float, float]:
        return (left / WIDTH, bottom / self.height, width / WIDTH, height / self.height)


def _dress(axes: Axes, label: str, time_label: str | None) -> None:
    """Give a panel its name and ticks; only the last one counts the time."""
    axes.tick_params(length=2, labelsize=8, labelcolor=QUIET, color=EDGE)
    axes.locator_params(axis="y", nbins=4)
    for spine in axes.spines.values():
        spine.set_color(EDGE)
        spine.set_linewidth(0.8)
    if label:
        axes.set_ylabel(shortened(label, 22), fontsize=9, color=INK, parse_math=False)
    if time_label is None:
        axes.set_xticklabels([])
    else:
        axes.set_xlabel(time_label, fontsize=9, color=QUIET, labelpad=5, parse_math=False)


def _draw_colour_bar(figure: Figure, page: _Page, scale: float) -> None:
    """Draw the colours of the ground and the line, zero in the middle."""
    axes = figure.add_axes(page.colour_bar())
    colours = _colours(np.linspace(-1.0, 1.0, 257))
    axes.imshow(colours[:, None], aspect="auto", origin="lower", extent=(0, 1, -1, 1))
    axes.set_xticks([])
    ends = [signed(-scale), "0", signed(scale)] if scale else ["", "0", ""]
    axes.yaxis.tick_right()
    axes.set_yticks([-1, 0, 1], ends)
    axes.tick_params(length=0, labelsize=8, labelcolor=QUIET, pad=3)
    for spine in axes.spines.values():
        spine.set_visible(False)


# -- what was given ----------------------------------------------------------------------------


def _channels(
    values: Any, series: Any, time_axis: int | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Contributions and series as [C, T]."""
    expected = "[T], [C, T] or [T, C]"
    lines = finite_array(values, "the attribution", ranks=(1, 2, 3), expected=expected)
    heights = finite_array(series, "the series", ranks=(1, 2, 3), expected=expected)
    lines, heights = (a[0] if a.ndim == 3 and len(a) == 1 else a for a in (lines, heights))
    if lines.shape != heights.shape:
        raise InputError(
            f"the attribution has shape {list(lines.shape)} and the series {list(heights.shape)}, expected the same"
        )
    if lines.ndim == 3:
        raise InputError(f"the attribution has shape {list(lines.shape)}, expected {expected}")
    if time_axis not in (None, 0, 1):
        raise InputError(f"time_axis is {time_axis!r}, expected 0, 1 or None")
    if lines.ndim == 1:
        return lines[None], heights[None]
    if time_axis is None:
        time_axis = 0 if lines.shape[0] > lines.shape[1] else 1
    return (lines.T, heights.T) if time_axis == 0 else (lines, heights)


def _moments(time: Any, count: int) -> NDArray[np.float64]:
    if time is None:
        return np.arange(count, dtype=np.float64)
    moments = finite_array(time, "time", ranks=(1,), expected=f"[{count}]")
    if len(moments) != count:
        raise InputError(f"time has {len(moments)} points, expected {count} as the series has")
    if not (np.diff(moments) > 0).all():
        raise InputError("time does not rise from each point to the next")
    return moments


def _labels(names: Sequence[str] | None, channels: int) -> list[str]:
    if names is None:
        return [""] if channels == 1 else [f"channel {i}" for i in range(channels)]
    if isinstance(names, str) or len(names) != channels:
        given = repr(names) if isinstance(names, str) else f"{len(names)} names"
        raise InputError(f"names is {given}, expected a list of {channels}, one per channel")
    return [str(name) for name in names]
