"""The baseline in pictures: beside the input and the attribution, and on the way from the one to the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from igonnx.channels import Layout
from igonnx.checks import is_number, require_whole
from igonnx.errors import InputError
from igonnx.visual.arguments import require_part
from igonnx.visual.colouring import Colours, colouring
from igonnx.visual.heatmap import contributions, full_scale, in_scale
from igonnx.visual.overlay import as_rgb, glowing, resize_heat
from igonnx.visual.panels import PANEL, PanelPage, bar_marks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from igonnx.attribution import Path

__all__ = ["interpolate", "plot_baseline", "plot_interpolations"]

SMALL_PANEL = PANEL / 2  # where many stand in a row


def plot_baseline(
    values: NDArray[Any],
    image: NDArray[Any],
    baseline: NDArray[Any] | float = 0.0,
    *,
    layout: Layout | None = None,
    smooth: float | None = None,
    outlier_percentile: float = 1.0,
    colours: Colours | None = None,
    image_opacity: float | None = None,
    title: str | None = None,
    subtitle: str | None = None,
) -> Figure:
    """Draw baseline, input, attribution mask and overlay in two rows: the TensorFlow tutorial's figure.

    values and image as for `igonnx.visual.render`; baseline: an image of the same size, as it would be shown (not as
    the model takes it), or one shade, 0 (black) to 1 (white). The mask is the sum of magnitudes over the channels,
    smoothed as for `igonnx.visual.heat_map` (smooth=0: pixel by pixel, as the tutorial has it) and drawn in `colours`
    (see `igonnx.visual.colouring`). image_opacity: None lets the strong pixels glow on the grey image; a number in
    [0, 1] lays the image over the mask with this opacity, as the tutorial does (0.4 there).
    Raises `Error` when Matplotlib is missing, `InputError` as `render` and where the sizes differ.
    """
    if image_opacity is not None:
        require_part("image_opacity", image_opacity)
    picture, start = _pair(image, baseline)
    size = (picture.shape[0], picture.shape[1])
    magnitude = contributions(values, layout=layout, size=size, sign="absolute", smooth=smooth)
    scale = full_scale(magnitude, outlier_percentile)
    heat = resize_heat(in_scale(magnitude, scale), size)
    colour = colouring(colours, "absolute")
    mask = colour(heat)
    if image_opacity is None:
        overlay = glowing(picture, mask, heat)
    else:
        overlay = (1 - image_opacity) * mask + image_opacity * picture
    captions = ["baseline", "input, as the model sees it", "attribution mask", "overlay"]
    bars = [False, True]
    page = PanelPage(captions, size, columns=2, bars=bars, title=title, subtitle=subtitle)
    for index, shown in enumerate((start, picture, mask, overlay)):
        page.show(index, shown)
    page.bar(3, colour, bar_marks(scale, "absolute"))
    return page.figure


def plot_interpolations(
    image: NDArray[Any],
    baseline: NDArray[Any] | float = 0.0,
    *,
    alphas: Sequence[float] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    path: Path | None = None,
    columns: int = 6,
    title: str | None = None,
    subtitle: str | None = None,
) -> Figure:
    """Draw the points of the straight path from baseline to image at these alphas, side by side.

    image and baseline as for `plot_baseline`; alphas in [0, 1]. path: the explained example's; then each picture says
    what the score is there, read off between the points at which it was evaluated (those out of its range say none).
    columns: pictures in a row. Raises `Error` when Matplotlib is missing, `InputError` for what does not fit.
    """
    require_whole("columns", columns, 1)
    pictures = interpolate(image, baseline, alphas)
    captions = [
        f"α = {alpha:.3g}{score}"
        for alpha, score in zip(alphas, _scores(path, alphas), strict=True)
    ]
    height, width = pictures.shape[1:3]
    page = PanelPage(
        captions,
        (height, width),
        columns=columns,
        panel=SMALL_PANEL if len(pictures) > 2 else PANEL,
        title=title,
        subtitle=subtitle,
    )
    for index, picture in enumerate(pictures):
        page.show(index, picture)
    return page.figure


def interpolate(
    image: NDArray[Any], baseline: NDArray[Any] | float, alphas: Sequence[float]
) -> NDArray[np.float64]:
    """Give baseline + alpha (image - baseline) for each alpha in [0, 1]: float64 [alphas, H, W, 3] in [0, 1].

    A preprocessing that only shifts and scales does not change the path, so these are what the model saw.
    """
    steps = np.asarray(alphas, dtype=np.float64)
    if steps.ndim != 1 or steps.size == 0 or not ((steps >= 0) & (steps <= 1)).all():
        raise InputError(f"alphas is {alphas!r}, expected numbers from 0 to 1")
    picture, start = _pair(image, baseline)
    return start + steps[:, None, None, None] * (picture - start)


def _pair(
    image: NDArray[Any], baseline: NDArray[Any] | float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bring image and baseline to RGB [H, W, 3] of the same size."""
    picture = as_rgb(image)
    if np.ndim(baseline) == 0:
        shade = np.asarray(baseline)[()]
        if not (is_number(shade) and 0 <= shade <= 1):
            raise InputError(f"baseline is {baseline!r}, expected an image, or a shade from 0 to 1")
        return picture, np.full(picture.shape, float(shade))
    start = as_rgb(np.asarray(baseline))
    if start.shape != picture.shape:
        raise InputError(
            f"the baseline is of {start.shape[0]} x {start.shape[1]} pixels, "
            f"expected {picture.shape[0]} x {picture.shape[1]} as the image"
        )
    return picture, start


def _scores(path: Path | None, alphas: Sequence[float]) -> list[str]:
    """Write the second line of each caption."""
    if path is None:
        return [""] * len(alphas)
    inside = [bool(len(path.alpha)) and path.alpha[0] <= a <= path.alpha[-1] for a in alphas]
    return [
        f"\nscore {'' if a in path.alpha else '≈ '}{np.interp(a, path.alpha, path.score):.3g}"
        if known
        else "\n"
        for a, known in zip(alphas, inside, strict=True)
    ]
