"""Pages of pictures in rows and columns, with a caption below each and colour bars at their right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from igonnx.checks import require_whole
from igonnx.errors import InputError
from igonnx.visual.colouring import Colouring
from igonnx.visual.heatmap import Sign
from igonnx.visual.overlay import as_rgb
from igonnx.visual.page import (
    MARGIN,
    QUIET,
    head_height,
    narrowest,
    put_edge,
    require_matplotlib,
    write_heading,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PANEL", "PanelPage", "bar_marks", "plot_images"]

# In inches. A panel is PANEL wide and at most TALLEST high.
PANEL, TALLEST = 3.1, 4.2
GAP, BAR, LABELS = 0.14, 0.11, 0.5
CAPTION, LINE = 0.42, 0.17  # below a panel: for one line, and for each further one
CHARACTER = 0.078  # what a character of a caption takes on average, wide ones counted in


class PanelPage:
    """A figure of pictures of equal size, filled by `show`; `figure` is the Matplotlib figure.

    captions: one for each picture, of the same number of lines. shape: (height, width) of the pictures, of which only
    the proportion counts. columns: pictures in a row. panel: width of a picture in inches. bars: for each column,
    whether there is room for a colour bar. title and subtitle stand above the pictures.
    """

    def __init__(
        self,
        captions: Sequence[str],
        shape: tuple[int, int],
        *,
        columns: int,
        bars: Sequence[bool] = (),
        panel: float = PANEL,
        title: str | None = None,
        subtitle: str | None = None,
    ) -> None:
        figure_type = require_matplotlib()
        self._captions = captions
        self._columns = min(columns, len(captions))
        height = min(panel * shape[0] / shape[1], TALLEST * panel / PANEL)
        # Pictures a few pixels thin are drawn broader than they are: a tenth of a panel at least.
        self._panel = (max(height * shape[1] / shape[0], panel / 10), max(height, panel / 10))
        lines = [line for caption in captions for line in caption.split("\n")]
        self._cell = max(self._panel[0], CHARACTER * max(map(len, lines)))
        self._lefts, right = [], MARGIN
        for column in range(self._columns):
            barred = column < len(bars) and bars[column]
            self._lefts.append(right + (self._cell - self._panel[0]) / 2)
            right += self._cell + (1.6 * GAP + BAR + LABELS if barred else GAP)
        below = CAPTION + LINE * (len(lines) / len(captions) - 1)
        self._row_height = self._panel[1] + below
        self._head = head_height(title, subtitle)
        self._width = max(right - GAP + MARGIN, narrowest(title, subtitle))
        self._height = self._head + -(-len(captions) // self._columns) * self._row_height
        size = (self._width, self._height)
        self.figure = figure_type(figsize=size, dpi=150, facecolor="white")
        write_heading(self.figure, title, subtitle)

    def show(self, index: int, picture: NDArray[Any]) -> None:
        """Draw a picture [H, W, 3 or 4] at this place, counted row by row, with its caption."""
        panel = self._axes(index, 0.0, self._panel[0])
        panel.imshow(picture, aspect="auto")
        put_edge(panel)
        caption = self._captions[index]
        panel.set_xlabel(caption, fontsize=9.5, color=QUIET, labelpad=7, parse_math=False)

    def bar(self, index: int, colour: Colouring, marks: dict[float, str]) -> None:
        """Draw the colour bar beside this picture; marks: labels of strengths, from its lowest to its highest."""
        low, high = min(marks), max(marks)
        gradient = colour(np.linspace(low, high, 257)[:, None])
        bar = self._axes(index, self._panel[0] + 0.6 * GAP, BAR)
        bar.imshow(gradient, aspect="auto", origin="lower", extent=(0.0, 1.0, low, high))
        bar.set_xticks([])
        bar.set_yticks(list(marks), list(marks.values()), parse_math=False)
        bar.yaxis.tick_right()
        bar.tick_params(length=0, labelsize=8, labelcolor=QUIET, pad=3)
        for spine in bar.spines.values():
            spine.set_visible(False)

    def _axes(self, index: int, right_of_panel: float, width: float) -> Axes:
        """Place axes of this width in inches and a picture's height in the row of this picture."""
        row, column = divmod(index, self._columns)
        left = self._lefts[column] + right_of_panel
        bottom = self._height - self._head - row * self._row_height - self._panel[1]
        return self.figure.add_axes(
            (
                left / self._width,
                bottom / self._height,
                width / self._width,
                self._panel[1] / self._height,
            )
        )


def plot_images(
    images: Sequence[NDArray[Any]],
    captions: Sequence[str],
    *,
    columns: int = 4,
    title: str | None = None,
    subtitle: str | None = None,
) -> Figure:
    """Draw pictures of equal size side by side, each with its caption, as a Matplotlib figure.

    images: as `render`, `outline` and `view` give them, or photos: [H, W] or [H, W, 3], uint8 or floats in [0, 1].
    columns: pictures in a row. Raises `Error` when Matplotlib is missing, `InputError` for no picture, a caption too
    many or too few, and pictures of different sizes.
    """
    pictures = [as_rgb(image) for image in images]
    sizes = {picture.shape[:2] for picture in pictures}
    if len(sizes) != 1:
        given = ", ".join(map(str, sorted(sizes))) or "no picture"
        raise InputError(f"pictures have the sizes {given}; expected one or more, all of one size")
    require_whole("columns", columns, 1)
    if len(captions) != len(pictures):
        raise InputError(f"{len(captions)} captions were given for {len(pictures)} pictures")
    page = PanelPage(captions, sizes.pop(), columns=columns, title=title, subtitle=subtitle)
    for index, picture in enumerate(pictures):
        page.show(index, picture)
    return page.figure


def bar_marks(scale: float, sign: Sign) -> dict[float, str]:
    """Label the ends of a colour bar, and zero; scale: what full strength stands for, in the attribution's units."""
    against, for_it = f"\N{MINUS SIGN}{scale:.2g}", f"+{scale:.2g}"
    if sign == "all":
        return {-1.0: against, 0.0: "0", 1.0: for_it}
    return {0.0: "0", 1.0: {"negative": against, "positive": for_it}.get(sign, f"{scale:.2g}")}
