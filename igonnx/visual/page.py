"""What all figures have in common: inks, margins, the heading, and Matplotlib itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from igonnx.errors import Error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "EDGE",
    "INK",
    "MARGIN",
    "QUIET",
    "head_height",
    "narrowest",
    "put_edge",
    "require_matplotlib",
    "write_heading",
]

INK = "#1d2129"
QUIET = "#6b7280"
EDGE = "#d7dae0"

MARGIN = 0.26  # inches
TITLE, SUBTITLE = 17.0, 9.5  # points
# Inches that a character takes on average, in bold 17 points and in 9.5 points; wide ones counted in.
_TITLE_CHARACTER, _SUBTITLE_CHARACTER = 0.152, 0.078
_WIDEST = 12.0  # inches; a title that needs more is written smaller


def require_matplotlib() -> type[Figure]:
    """Import Matplotlib and give its figure class; raises `Error` where it is not installed."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise Error("drawing a figure needs Matplotlib: pip install igonnx[plot]") from error
    return Figure


def head_height(title: str | None, subtitle: str | None) -> float:
    """Inches that the heading needs at the top of a page; the margin alone where there is none."""
    return (0.60 if title else MARGIN) + (0.28 if subtitle else 0.0)


def narrowest(title: str | None, subtitle: str | None) -> float:
    """Inches that a page must be wide for each line of the heading to fit, up to a limit."""
    needed = max(
        _TITLE_CHARACTER * len(title or ""), _SUBTITLE_CHARACTER * len(subtitle or ""), 1.0
    )
    return min(needed, _WIDEST) + 2 * MARGIN


def write_heading(figure: Figure, title: str | None, subtitle: str | None) -> None:
    """Write title and subtitle, if any, at the top left of a figure; `$` is a plain character."""
    width, height = figure.get_size_inches()
    x, room = MARGIN / width, width - 2 * MARGIN
    if title:
        size = TITLE * min(1.0, room / (_TITLE_CHARACTER * len(title)))
        y = 1 - 0.42 / height
        figure.text(x, y, title, fontsize=size, fontweight="bold", color=INK, parse_math=False)
    if subtitle:
        size = SUBTITLE * min(1.0, room / (_SUBTITLE_CHARACTER * len(subtitle)))
        y = 1 - (0.70 if title else 0.36) / height
        figure.text(x, y, subtitle, fontsize=size, color=QUIET, parse_math=False)


def put_edge(panel: Axes) -> None:
    """Take away the ticks of a picture and give it a fine edge."""
    panel.set_xticks([])
    panel.set_yticks([])
    for spine in panel.spines.values():
        spine.set_color(EDGE)
        spine.set_linewidth(0.8)
