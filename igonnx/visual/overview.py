"""The picture that explains a prediction to a person: the input, the overlay, the contributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from igonnx.channels import Layout
from igonnx.errors import InputError
from igonnx.visual.colours import diverging
from igonnx.visual.heatmap import Sign, contributions, full_scale, in_scale
from igonnx.visual.overlay import as_rgb, render
from igonnx.visual.page import require_matplotlib
from igonnx.visual.panels import PanelPage, bar_marks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot"]

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
    captions: Sequence[str] | None = None,
) -> Figure:
    """Draw the input beside the overlay and the signed contributions, as a Matplotlib figure.

    values and image as for `render`, which draws the overlay with these arguments. The right panel
    shows every pixel's contribution with its sign, unsmoothed, in the attribution's own units.
    title and subtitle stand above the panels; captions, one for each panel, below them: None says what
    they are for values that add up to the score. The figure belongs to no window: use its `savefig`.
    Raises `Error` when Matplotlib is missing, `InputError` as `render`.
    """
    require_matplotlib()
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
    scale = full_scale(signed, outlier_percentile)
    usual = ["input, as the model sees it", OVERLAY_CAPTIONS[sign], "contribution of each pixel"]
    if captions is not None and len(captions) != len(usual):
        raise InputError(f"{len(captions)} captions were given for {len(usual)} panels")
    bars = [False, False, True]
    page = PanelPage(
        list(captions or usual), size, columns=3, bars=bars, title=title, subtitle=subtitle
    )
    page.show(0, picture)
    page.show(1, overlay)
    page.show(2, diverging(in_scale(signed, scale)))
    page.bar(2, diverging, bar_marks(scale or 1.0, "all"))
    return page.figure
