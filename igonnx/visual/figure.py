"""The picture that explains a prediction to a person: the input, the overlay, the contributions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import Error
from igonnx.visual.colours import diverging
from igonnx.visual.heatmap import Layout, Sign, contributions, full_scale
from igonnx.visual.overlay import as_rgb, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

__all__ = ["plot", "require_matplotlib"]

INK = "#1d2129"
QUIET = "#6b7280"

# Measures of the page, in inches.
PANEL = 3.1  # width of a panel, and its height at most TALLEST
TALLEST = 4.2
NARROWEST = 8.6  # the text needs this much
MARGIN, GAP, HEAD, FOOT, BAR, LABELS = 0.26, 0.14, 0.88, 0.42, 0.11, 0.62

OVERLAY_CAPTIONS: dict[Sign, str] = {
    "absolute": "where the score comes from",
    "positive": "what speaks for it",
    "negative": "what speaks against it",
    "all": "what speaks for it and against it",
}


def plot(
    values: NDArray[Any],
    image: NDArray[Any],
    *,
    title: str | None = None,
    subtitle: str | None = None,
    layout: Layout | None = None,
    sign: Sign = "absolute",
    smooth: float | None = None,
    share: float = 1.0,
    outlier_percentile: float = 1.0,
) -> Figure:
    """Draw the input beside the overlay and the signed contributions, as a Matplotlib figure.

    values and image as for `render`, which draws the overlay with these arguments. The right panel
    shows every pixel's contribution with its sign, unsmoothed, in the attribution's own units.
    title and subtitle stand above the panels. The figure belongs to no window: use its `savefig`.
    Raises `Error` when Matplotlib is missing, `InputError` as `render`.
    """
    figure_type = require_matplotlib()
    picture = as_rgb(image)
    size = (picture.shape[0], picture.shape[1])
    overlay = render(
        values,
        image,
        layout=layout,
        sign=sign,
        smooth=smooth,
        share=share,
        outlier_percentile=outlier_percentile,
    )
    signed = contributions(values, layout=layout, size=size)
    page = _Page(size[1] / size[0])
    figure = figure_type(figsize=(page.width, page.height), dpi=150, facecolor="white")
    for column, shown, caption in (
        (0, picture, "input, as the model sees it"),
        (1, overlay, OVERLAY_CAPTIONS[sign]),
    ):
        panel = figure.add_axes(page.panel(column))
        panel.imshow(shown, aspect="auto")
        _frame(panel, caption)
    _draw_contributions(figure, page, signed, outlier_percentile)
    page.write(figure, title, 0.42, fontsize=17, fontweight="bold", color=INK)
    page.write(figure, subtitle, 0.70, fontsize=9.5, color=QUIET)
    return figure


def require_matplotlib() -> type[Figure]:
    """Import Matplotlib and give its figure class; raises `Error` where it is not installed."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise Error("drawing a figure needs Matplotlib: pip install igonnx[plot]") from error
    return Figure


class _Page:
    """Where things stand on a page of three panels; aspect is their width / height."""

    def __init__(self, aspect: float) -> None:
        self.panel_height = min(PANEL / aspect, TALLEST)
        self.panel_width = self.panel_height * aspect
        content = 3 * self.panel_width + 3 * GAP + BAR + LABELS
        self.width = max(2 * MARGIN + content, NARROWEST)
        self.height = HEAD + self.panel_height + FOOT

    def panel(self, column: int) -> tuple[float, float, float, float]:
        """Place panel 0, 1 or 2: left, bottom, width, height in parts of the page."""
        return self._place(MARGIN + column * (self.panel_width + GAP), self.panel_width)

    def colour_bar(self) -> tuple[float, float, float, float]:
        """Place the colour bar at the right of the last panel."""
        return self._place(MARGIN + 3 * self.panel_width + 2.6 * GAP, BAR)

    def write(self, figure: Figure, text: str | None, below_top: float, **style: Any) -> None:
        """Write a line, if any, this many inches below the top; `$` is a plain character."""
        if text:
            x, y = MARGIN / self.width, 1 - below_top / self.height
            figure.text(x, y, text, va="baseline", parse_math=False, **style)

    def _place(self, left: float, width: float) -> tuple[float, float, float, float]:
        return (
            left / self.width,
            FOOT / self.height,
            width / self.width,
            self.panel_height / self.height,
        )


def _draw_contributions(
    figure: Figure, page: _Page, signed: NDArray[np.float64], outlier_percentile: float
) -> None:
    """Draw signed contributions [H, W] with a colour bar beside them, zero at its centre."""
    scale = full_scale(signed, outlier_percentile) or 1.0
    panel = figure.add_axes(page.panel(2))
    drawn = panel.imshow(signed, cmap=_colour_map(), vmin=-scale, vmax=scale, aspect="auto")
    _frame(panel, "contribution of each pixel")
    bar = figure.colorbar(drawn, cax=figure.add_axes(page.colour_bar()), ticks=[-scale, 0, scale])
    bar.ax.set_yticklabels([f"\N{MINUS SIGN}{scale:.2g}", "0", f"+{scale:.2g}"])
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=QUIET, pad=3)
    bar.outline.set_visible(False)


def _frame(panel: Axes, caption: str) -> None:
    """Give a panel its caption and take away the ticks."""
    panel.set_xticks([])
    panel.set_yticks([])
    for spine in panel.spines.values():
        spine.set_color("#d7dae0")
        spine.set_linewidth(0.8)
    panel.set_xlabel(caption, fontsize=9.5, color=QUIET, labelpad=7)


def _colour_map() -> ListedColormap:
    """Give Matplotlib the diverging colours."""
    from matplotlib.colors import ListedColormap

    return ListedColormap(diverging(np.linspace(-1.0, 1.0, 257)), name="contributions")
