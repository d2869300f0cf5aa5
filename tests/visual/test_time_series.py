"""Series coloured by attribution: axes, channels, long series, and what does not fit."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from igonnx.errors import InputError
from igonnx.visual import plot_time_series
from igonnx.visual.time_series import COLUMNS


def _lines(figure: Any) -> list[Any]:
    """The line of each channel, from the top."""
    return [axes.collections[1] for axes in figure.axes[:-1]]


def _points(line: Any) -> Any:
    return np.array([segment[1] for segment in line.get_segments()])


def test_a_line_per_channel() -> None:
    rng = np.random.default_rng(0)
    values, series = rng.normal(size=(2, 3, 40))
    time = np.linspace(0, 2, 40)
    figure = plot_time_series(
        values, series, time=time, names=["a", "b", "$c"], title="t", subtitle="s", time_label="s"
    )
    figure.savefig(io.BytesIO())
    assert [axes.get_ylabel() for axes in figure.axes[:-1]] == ["a", "b", "$c"]
    assert figure.axes[2].get_xlabel() == "s"
    for line, heights in zip(_lines(figure), series, strict=True):
        np.testing.assert_allclose(_points(line), np.stack([time, heights], axis=1))
    other = plot_time_series(values.T[None], series.T, time=time)
    for line, same in zip(_lines(figure), _lines(other), strict=True):
        np.testing.assert_array_equal(line.get_colors(), same.get_colors())


def test_colours_tell_the_sign() -> None:
    figure = plot_time_series([1.0, 0.0, -1.0], [5, 6, 7])
    warm, none, cool = _lines(figure)[0].get_colors()[:, :3]
    assert warm[0] > warm[2]
    assert cool[2] > cool[0]
    assert np.ptp(none) < 0.1
    opacity = figure.axes[0].collections[0].get_array()[0, :, 3]
    assert opacity[0] == opacity[2] > 0
    assert opacity[1] == 0


def test_time_axis() -> None:
    values = np.zeros((4, 4))
    series = np.arange(16.0).reshape(4, 4)
    for axis, expected in ((None, series[0]), (1, series[0]), (0, series[:, 0])):
        figure = plot_time_series(values, series, time_axis=axis)
        np.testing.assert_array_equal(_points(_lines(figure)[0])[:, 1], expected)


def test_long_series_keep_extremes_and_sums() -> None:
    count = 50_000
    series = np.sin(np.arange(count) / 7)
    series[31_111] = 9.0
    values = np.ones(count)
    figure = plot_time_series(values, series)
    segments = np.array(_lines(figure)[0].get_segments())
    assert len(segments) == COLUMNS
    assert segments[..., 1].max() == 9.0
    assert (segments[:, 0, 1] <= segments[:, 1, 1]).all()
    figure.savefig(io.BytesIO())
    labels = [label.get_text() for label in figure.axes[-1].get_yticklabels()]
    assert labels == ["−42", "0", "+42"]  # the most that a column holds: 50,000 / 1,200, rounded up


@pytest.mark.parametrize(
    ("values", "series"),
    [
        (np.zeros(1), np.ones(1)),
        (np.zeros(9), np.zeros(9)),
        (-np.ones(2, np.float16), np.array([1, 2])),
        (np.ones((30, 2)), np.ones((30, 2), bool)),
        (np.ones((1, 1, 12)), np.zeros((1, 12))),
    ],
)
def test_edge_cases_are_drawn(values: Any, series: Any) -> None:
    plot_time_series(values, series).savefig(io.BytesIO())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"series": np.zeros(3)}, r"attribution has shape \[4\] and the series \[3\], expected the same"),
        ({"values": [0, np.nan, 0, 0]}, "1 of 4 values of the attribution are NaN or infinite"),
        ({"series": [0, np.inf, 0, 0]}, "1 of 4 values of the series are NaN or infinite"),
        ({"values": np.zeros((2, 2, 4)), "series": np.zeros((2, 2, 4))}, r"shape \[2, 2, 4\], expected"),
        ({"values": 1.0}, r"attribution has shape \[\], expected \[T\], \[C, T\] or \[T, C\]"),
        ({"time": [1, 2]}, "time has 2 points, expected 4 as the series has"),
        ({"time": [0, 1, 1, 2]}, "time does not rise"),
        ({"time_axis": 2}, "time_axis is 2, expected 0, 1 or None"),
        ({"names": ["a", "b"]}, "names is 2 names, expected a list of 1, one per channel"),
        ({"names": "a"}, "names is 'a', expected a list of 1"),
        ({"outlier_percentile": 100}, "outlier_percentile is 100"),
    ],
)  # fmt: skip
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"values": np.zeros(4), "series": np.zeros(4)} | changes
    with pytest.raises(InputError, match=message):
        plot_time_series(**arguments)
