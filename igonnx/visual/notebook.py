"""How an attribution shows itself in a notebook: a table of its examples, and a picture by its shape."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import Error
from igonnx.visual.colours import GLOW, diverging, ramp
from igonnx.visual.heatmap import contributions, full_scale, heat_map, in_scale
from igonnx.visual.notation import signed
from igonnx.visual.page import QUIET, require_matplotlib
from igonnx.visual.ranking import rank_features
from igonnx.visual.summary import COLUMNS, caption, kind_of, rows_of, tensors_of
from igonnx.visual.tabular import plot_features
from igonnx.visual.text import TINT_AGAINST, TINT_FOR, text_html
from igonnx.visual.text_picture import text_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from igonnx.attribution import Attribution

__all__ = ["attribution_html", "attribution_png"]

# What is shown of many examples, features or positions.
PICTURES, TEXTS, TABLES = 4, 4, 2
FEATURES = 8
POSITIONS = 256

PANEL, GAP, MARGIN, FOOT = 2.5, 0.14, 0.1, 0.34  # inches
DPI = 96


def attribution_html(attribution: Attribution) -> str:
    """HTML for a notebook: method, scores and completeness of the first examples, and a picture of each tensor.

    Images are heat maps (in characters where Matplotlib is missing), features are bars, tokens are a strip of their
    positions. It needs nothing else, is escaped, and is legible on light and dark ground.
    """
    parts = [f"<div><b>{html.escape(attribution.method)}</b></div>", _table(attribution)]
    for name, array in tensors_of(attribution):
        parts.append(f'<div style="opacity:.75">{html.escape(caption(name, array))}</div>')
        parts.extend(_pictures(array[:PICTURES]))
    return f'<div style="max-width:60em">{"".join(parts)}</div>'


def attribution_png(attribution: Attribution) -> bytes | None:
    """A PNG of the first tensor that makes a picture: heat maps of images, bars of features.

    None where none does, or Matplotlib is missing.
    """
    for _, values in tensors_of(attribution):
        array = values[:PICTURES]
        if array.size and np.isfinite(array).all():
            kind = kind_of(array.shape[1:])
            if kind == "image":
                return _heat_maps_png(array)
            if kind == "features":
                return _png_of(lambda array=array: plot_features(array[0][None], top=FEATURES))
    return None


def _table(attribution: Attribution) -> str:
    rows = rows_of(attribution)
    style = 'style="text-align:right;padding:.1em .6em"'
    head = "".join(f"<th {style}>{column}</th>" for column in COLUMNS)
    body = "".join(
        f"<tr>{''.join(f'<td {style}>{html.escape(cell)}</td>' for cell in row)}</tr>"
        for row in rows
    )
    hidden = len(attribution.scores) - len(rows)
    more = f"<div>and {hidden} more</div>" if hidden else ""
    return f'<table style="margin:.4em 0;color:inherit"><tr>{head}</tr>{body}</table>{more}'


def _pictures(array: NDArray[Any]) -> Iterable[str]:
    """The pictures of these examples of a tensor."""
    if array.size == 0:
        return
    if not np.isfinite(array).all():
        yield "<div>some values are NaN or infinite</div>"
        return
    kind = kind_of(array.shape[1:])
    if kind == "image":
        yield _image(array)
        return
    for i, example in enumerate(array[: TEXTS if kind == "tokens" else TABLES]):
        if len(array) > 1:
            yield f'<div style="margin-top:.4em">example {i}</div>'
        yield _strip(example) if kind == "tokens" else _bars(example)


def _image(array: NDArray[Any]) -> str:
    png = _heat_maps_png(array)
    if png is None:
        picture = html.escape(text_picture(array[0]))
        return f'<pre style="line-height:1.1">{picture}</pre>'
    data = base64.b64encode(png).decode("ascii")
    return f'<img alt="heat maps" style="max-width:100%" src="data:image/png;base64,{data}">'


def _strip(example: NDArray[Any]) -> str:
    """Positions of tokens [T, E] tinted by what they contribute; the first ones only, where there are many."""
    sums = example.astype(np.float64).sum(axis=1)[:POSITIONS]
    strip = text_html([str(i) for i in range(len(sums))], sums)
    hidden = len(example) - len(sums)
    return strip + (f"<div>and {hidden} more positions</div>" if hidden else "")


def _bars(example: NDArray[Any]) -> str:
    """A table of the strongest features with bars to the left and right of an axis."""
    ranking = rank_features(example[None], top=FEATURES)
    reach = float(np.abs(ranking.contributions).max()) or 1.0
    rows = []
    for label, contribution in zip(ranking.labels, ranking.contributions, strict=True):
        length = 50 * abs(float(contribution)) / reach
        colour = ",".join(map(str, TINT_FOR if contribution > 0 else TINT_AGAINST))
        left = 50 if contribution > 0 else 50 - length
        bar = (
            f'<div style="width:{length:.1f}%;margin-left:{left:.1f}%;height:.8em;'
            f'background:rgba({colour},.85)"></div>'
        )
        cells = (html.escape(label), signed(float(contribution)))
        texts = "".join(
            f'<td style="text-align:right;padding:0 .6em">{cell}</td>' for cell in cells
        )
        rows.append(f'<tr>{texts}<td style="width:20em;padding:0">{bar}</td></tr>')
    return f'<table style="margin:.2em 0;color:inherit">{"".join(rows)}</table>'


def _heat_maps_png(array: NDArray[Any]) -> bytes | None:
    return _png_of(lambda: _heat_maps(array))


def _png_of(draw: Any) -> bytes | None:
    """The PNG of a figure; None where Matplotlib is missing."""
    try:
        require_matplotlib()
    except Error:
        return None
    buffer = io.BytesIO()
    draw().savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def _heat_maps(array: NDArray[Any]) -> Figure:
    """Panels side by side: one example by magnitude and by sign, or several by magnitude."""
    figure_type = require_matplotlib()
    shown = [
        (ramp(heat_map(one, sign="absolute", smooth=None), GLOW), f"example {i}")
        for i, one in enumerate(array[:PICTURES])
    ]
    if len(array) == 1:
        signs = contributions(array[0])
        scale = full_scale(signs)
        shown = [
            (shown[0][0], "where the score comes from"),
            (
                diverging(in_scale(signs, scale)),
                f"contributions, {signed(-scale)} to {signed(scale)}",
            ),
        ]
    height, width = shown[0][0].shape[:2]
    aspect = min(max(width / height, 0.25), 4.0)
    panel = (PANEL * min(1.0, aspect), PANEL * min(1.0, 1 / aspect))
    size = (2 * MARGIN + len(shown) * (panel[0] + GAP) - GAP, MARGIN + panel[1] + FOOT)
    figure = figure_type(figsize=size, facecolor="white")
    for column, (picture, text) in enumerate(shown):
        left = MARGIN + column * (panel[0] + GAP)
        axes = figure.add_axes(
            (left / size[0], FOOT / size[1], panel[0] / size[0], panel[1] / size[1])
        )
        axes.imshow(picture, aspect="auto")
        axes.set_axis_off()
        middle = (left + panel[0] / 2) / size[0]
        figure.text(middle, 0.12 / size[1], text, ha="center", fontsize=8, color=QUIET)
    return figure
