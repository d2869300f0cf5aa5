"""The picture of scores: its panels, bars, dots and the best of each."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

import igonnx
from igonnx.visual import plot_scores
from igonnx.visual.scores import BEST

SCORES = {
    "first": {"a": np.array([1.0, 3.0]), "b": np.array([5.0, 5.0])},
    "second": {"a": np.array([0.5, np.nan]), "b": np.empty(0), "c": np.array([-1.0, -1.0])},
}


def test_bars_are_means_and_the_best_is_coloured() -> None:
    figure = plot_scores(SCORES, higher_is_better={"first": True, "second": False}, title="Scores")
    first, second = figure.axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["a", "b", "c"]
    assert [bar.get_width() for bar in first.patches] == [2.0, 5.0]
    assert [bar.get_width() for bar in second.patches] == [0.5, -1.0]
    best = [
        [to_rgb(bar.get_facecolor()) == pytest.approx(BEST) for bar in panel.patches]
        for panel in figure.axes
    ]
    assert best == [[False, True], [False, True]]
    dots = [line.get_xdata() for line in first.lines if line.get_marker() == "."]
    np.testing.assert_array_equal(dots, [[1, 3], [5, 5]])
    assert "higher" in first.get_title(loc="right")
    assert "lower" in second.get_title(loc="right")


def test_nothing_is_best_alone_or_without_a_direction() -> None:
    for arguments in ({"higher_is_better": {"only": True}}, {}):
        figure = plot_scores({"only": {"a": np.array([2.0])}}, **arguments)
        (bar,) = figure.axes[0].patches
        assert to_rgb(bar.get_facecolor()) != pytest.approx(BEST)


def test_panels_break_into_rows() -> None:
    figure = plot_scores({f"measure {i}": SCORES["first"] for i in range(6)})
    bottoms = {round(panel.get_position().y0, 6) for panel in figure.axes}
    assert len(bottoms) == 2
    assert [len(panel.get_yticklabels()) for panel in figure.axes] == [2, 0, 0, 2, 0, 0]


def test_nothing_to_draw() -> None:
    with pytest.raises(igonnx.InputError, match=r"^no scores were given"):
        plot_scores({})
