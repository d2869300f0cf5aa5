"""Bars of contributions in plain text, for a terminal or a log."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from igonnx.checks import require_whole
from igonnx.visual.notation import number, shortened, signed
from igonnx.visual.ranking import Ranking, rank_features, waterfall_levels

__all__ = ["features_text", "waterfall_text"]

FULL, SHADED, RIGHT_HALF, AXIS, START = "█", "▒", "▐", "│", "▏"
EIGHTHS = " ▏▎▍▌▋▊▉"  # of a cell, from its left
LEAST_BAR, MOST_BAR = 10, 60
LONGEST_LABEL = 40


def features_text(
    values: Any,
    *,
    names: Sequence[str] | None = None,
    data: Any = None,
    top: int = 10,
    width: int | None = None,
) -> str:
    """The strongest features, a line each: name, contribution, a bar to the left (against) or right (for the target).

    Arguments as for `igonnx.visual.plot_features`; width: columns in all, by default the terminal's. Raises
    `InputError`.
    """
    ranking = rank_features(values, names, data, top)
    labels = _aligned_labels(ranking)
    numbers = _aligned([signed(value) for value in ranking.contributions], "right")
    scale = float(np.abs(ranking.contributions).max())
    left, right = ranking.reach
    cells = _bar_cells(width, len(labels[0]) + len(numbers[0]) + 5)
    ends = round(cells * left / (left + right)) if left + right else 0
    lines = []
    for label, text, value in zip(labels, numbers, ranking.contributions, strict=True):
        length = abs(value) / (left + right) * cells if scale else 0.0
        bar = _leftward(length, ends) if value < 0 else " " * ends
        lines.append(
            f"{label}  {text}  {bar}{AXIS}{_rightward(length) if value > 0 else ''}".rstrip()
        )
    return "\n".join(lines)


def waterfall_text(
    values: Any,
    *,
    baseline_score: float,
    score: float,
    names: Sequence[str] | None = None,
    data: Any = None,
    top: int = 10,
    width: int | None = None,
) -> str:
    """From the baseline's score to the score, a line per feature: name, contribution, a bar from level to level.

    A bar is solid where it leads up and shaded where it leads down. Arguments as for `igonnx.visual.plot_waterfall`;
    width: columns in all, by default the terminal's. Raises `InputError`.
    """
    ranking, levels = waterfall_levels(values, baseline_score, score, names, data, top)
    labels = _aligned(["baseline", *_aligned_labels(ranking), "score"], "left")
    steps = [signed(value) for value in ranking.contributions]
    numbers = _aligned([number(levels[0]), *steps, number(levels[-1])], "right")
    cells = _bar_cells(width, len(labels[0]) + len(numbers[0]) + 5)
    low, span = float(levels.min()), float(np.ptp(levels))
    places = (levels - low) / span * (cells - 1) if span else np.zeros_like(levels)
    drawn = [_tick(places[0])]
    for begin, end in pairwise(places):
        first, last = round(min(begin, end)), round(max(begin, end))
        fill = FULL if end > begin else SHADED
        drawn.append(" " * first + (fill * (last - first) or START))
    drawn.append(_tick(places[-1]))
    return "\n".join(
        f"{label}  {text}  {bar}".rstrip()
        for label, text, bar in zip(labels, numbers, drawn, strict=True)
    )


def _aligned_labels(ranking: Ranking) -> list[str]:
    return _aligned([shortened(label, LONGEST_LABEL) for label in ranking.labels], "left")


def _aligned(texts: list[str], side: str) -> list[str]:
    length = max(map(len, texts))
    return [text.ljust(length) if side == "left" else text.rjust(length) for text in texts]


def _bar_cells(width: int | None, used: int) -> int:
    require_whole("width", width, 1, optional=True)
    columns = width or shutil.get_terminal_size().columns
    return min(MOST_BAR, max(LEAST_BAR, columns - used))


def _rightward(length: float) -> str:
    eighths = round(8 * length)
    return FULL * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def _leftward(length: float, ends: int) -> str:
    halves = round(2 * length)
    return (RIGHT_HALF * (halves % 2) + FULL * (halves // 2)).rjust(ends)


def _tick(place: float) -> str:
    return " " * round(place) + AXIS
