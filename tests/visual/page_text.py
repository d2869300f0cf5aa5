"""Whether what is written on a figure can be read in full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.text import Text

__all__ = ["assert_all_text_is_on_the_page"]


def assert_all_text_is_on_the_page(figure: Figure) -> None:
    """Headings, captions, labels and legends."""
    figure.draw_without_rendering()
    texts = list(figure.texts)
    for axes in figure.axes:
        texts += [axes.xaxis.label, axes.yaxis.label, axes.title, *axes.texts]
        texts += [*_tick_labels(axes.xaxis), *_tick_labels(axes.yaxis)]
        if axes.get_legend() is not None:
            texts.append(axes.get_legend())
    for text in texts:
        box = text.get_window_extent()
        assert min(box.x0, box.y0) >= 0, text
        assert box.x1 <= figure.bbox.x1, text
        assert box.y1 <= figure.bbox.y1, text


def _tick_labels(axis: Axis) -> Iterator[Text]:
    """Those that are drawn: ticks beyond the ends of the axis have labels, too."""
    low, high = sorted(axis.get_view_interval())
    for tick in axis.get_major_ticks():
        if low <= tick.get_loc() <= high:
            yield from (label for label in (tick.label1, tick.label2) if label.get_visible())
