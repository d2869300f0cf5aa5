"""The saturation picture: how score and gradient go along the path, and where the integrator looked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import InputError
from igonnx.visual.colours import AGAINST, FOR
from igonnx.visual.page import (
    EDGE,
    INK,
    MARGIN,
    QUIET,
    head_height,
    narrowest,
    require_matplotlib,
    write_heading,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from igonnx.attribution import Path

__all__ = ["plot_path", "running_integral"]

# Measures in inches.
WIDTH, CURVE, ABOVE, BELOW, LEFT = 8.6, 1.85, 0.46, 0.86, 0.86

_WARM, _COOL = tuple(tuple(channel / 255 for channel in anchors[2]) for anchors in (FOR, AGAINST))
_MARKED = 60  # points up to which each gets a dot on the curve


def plot_path(
    path: Path,
    *,
    score: float | None = None,
    baseline_score: float | None = None,
    probability: NDArray[Any] | None = None,
    score_label: str = "score",
    title: str | None = None,
    subtitle: str | None = None,
) -> Figure:
    """Draw score and slope over alpha, with the points at which the integrator evaluated the gradient.

    Above, the score from the baseline (alpha = 0) to the input (alpha = 1), a mark below it at every point, and the
    running sum of weight x slope from the baseline score on: by completeness it should end at the score of the input.
    Below, the slope d score / d alpha = gradient . (input - baseline), the sum of all contributions at that point. (The
    TensorFlow tutorial draws the gradient's mean over pixels, scaled to 0..1; the slope weighs each pixel by how far
    it moves, so that the area below it is the change in score.) Shaded is what the integrator summed: a bar of
    each weight's width. Where weights are negative or do not sum to 1, bars and running sum are left out.

    score, baseline_score: at the ends, where the path's own points do not reach them. probability: where the score is
    a logit, say, the target's probability, at each point of the path [points], or [2, n]: alphas and
    probabilities there; drawn between the two. score_label: name and unit of the score, in a few words.
    Raises `Error` when Matplotlib is missing, `InputError` for a path without points, NaN, or lengths that differ.
    """
    figure_type = require_matplotlib()
    _check(path)
    ends = _ends(path, score, baseline_score)
    curve = None if probability is None else _probability(path, probability)
    count = 2 if curve is None else 3
    head = head_height(title, subtitle)
    width = max(WIDTH, narrowest(title, subtitle))
    height = head + count * (ABOVE + CURVE) + BELOW - 0.2
    figure = figure_type(figsize=(width, height), dpi=150, facecolor="white")
    write_heading(figure, title, subtitle)
    panels = []
    for row in range(count):
        bottom = height - head - (row + 1) * (ABOVE + CURVE) + 0.2
        place = (LEFT / width, bottom / height, (width - LEFT - MARGIN) / width, CURVE / height)
        panels.append(_axes(figure.add_axes(place), last=row == count - 1))
    _draw_score(panels[0], path, ends, score_label)
    if curve is not None:
        panels[1].plot(*curve, color=INK, linewidth=1.6)
        panels[1].set_ylim(-0.04, 1.04)
        _name(panels[1], "probability", "probability of the target over α")
    _draw_slope(panels[-1], path, score_label)
    note = _note(path, ends)
    if note:
        figure.text(LEFT / width, 0.2 / height, note, fontsize=8.5, color=QUIET, parse_math=False)
    return figure


def running_integral(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Sum weight x slope along the path: alphas and sums, both float64 [points with weight + 1], from 0 on.

    A point with weight w stands for a stretch of alpha of this length, the stretches lying end to end (for
    Gauss-Legendre, too, each then holds its point: the nodes separate the running sums of the weights, Szegő,
    Orthogonal Polynomials, 3.41). None where the weights are negative or do not sum to 1: they are no lengths then.
    """
    weight = path.weight[path.weight != 0]
    if (weight < 0).any() or not np.isclose(weight.sum(), 1.0, rtol=0, atol=1e-6):
        return None
    slope = path.slope[path.weight != 0]
    steps = np.stack([weight, weight * slope])
    alpha, total = np.concatenate([np.zeros((2, 1)), np.cumsum(steps, axis=1)], axis=1)
    return alpha, total


def _draw_score(
    panel: Axes, path: Path, ends: tuple[float | None, float | None], label: str
) -> None:
    start, end = ends
    if end is not None:
        panel.axhline(end, color=QUIET, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    _draw_curve(panel, path.alpha, path.score, "score", linewidth=1.6)
    running = running_integral(path)
    if running is not None and start is not None:
        panel.plot(
            running[0],
            start + running[1],
            color=_WARM,
            linewidth=1.4,
            linestyle=(0, (4, 1.6)),
            label="baseline score + running integral",
            zorder=4,
        )
    summed = path.alpha[path.weight != 0]
    panel.plot(
        summed,
        np.full(len(summed), 0.035),
        linestyle="none",
        marker="|",
        markersize=7,
        markeredgewidth=0.8,
        color=QUIET,
        transform=panel.get_xaxis_transform(),
        label=f"{len(summed)} gradient{'s' * (len(summed) != 1)}",
    )
    low, high = panel.get_ylim()
    panel.set_ylim(low - 0.07 * (high - low), high)
    _name(panel, label, f"{label} over α")
    _legend(panel)


def _draw_slope(panel: Axes, path: Path, label: str) -> None:
    panel.axhline(0.0, color=QUIET, linewidth=0.8, zorder=2)
    running = running_integral(path)
    if running is not None:
        slope = path.slope[path.weight != 0]
        for part, colour, sense in (
            (np.maximum(slope, 0), _WARM, "summed for the target"),
            (np.minimum(slope, 0), _COOL, "against it"),
        ):
            if part.any():
                panel.stairs(part, running[0], fill=True, color=colour, alpha=0.3, label=sense)
    _draw_curve(panel, path.alpha, path.slope, "slope", linewidth=1.2)
    _name(panel, f"d {label} / dα", "slope over α: gradient · (input − baseline)")
    _legend(panel)


def _draw_curve(
    panel: Axes,
    alpha: NDArray[np.float64],
    heights: NDArray[np.float64],
    label: str,
    *,
    linewidth: float,
) -> None:
    marker = "o" if len(alpha) <= _MARKED else None
    panel.plot(
        alpha,
        heights,
        color=INK,
        linewidth=linewidth,
        marker=marker,
        markersize=3.2,
        label=label,
        zorder=3,
    )


def _axes(panel: Axes, *, last: bool) -> Axes:
    """Set up the axes of one curve over alpha."""
    panel.set_xlim(-0.015, 1.015)
    panel.tick_params(length=0, labelsize=8.5, labelcolor=QUIET, pad=4, labelbottom=last)
    panel.grid(axis="both", color="#eceef2", linewidth=0.8)
    panel.set_axisbelow(True)
    for side, spine in panel.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(EDGE)
    if last:
        panel.set_xlabel("α, from the baseline (0) to the input (1)", fontsize=9.5, color=QUIET)
    return panel


def _name(panel: Axes, label: str, caption: str) -> None:
    size = min(9.5, 9.5 * CURVE / (0.078 * len(label))) if label else 9.5
    panel.set_ylabel(label, fontsize=size, color=QUIET, parse_math=False)
    panel.set_title(caption, loc="left", fontsize=10, color=INK, pad=7, parse_math=False)
    panel.yaxis.set_label_coords(-0.072, 0.5)


def _legend(panel: Axes) -> None:
    panel.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 0.985),
        ncols=4,
        frameon=False,
        fontsize=8.5,
        labelcolor=QUIET,
        handlelength=1.6,
        columnspacing=1.4,
        borderaxespad=0.2,
    )


def _ends(
    path: Path, score: float | None, baseline_score: float | None
) -> tuple[float | None, float | None]:
    """Find the scores of baseline and input: as given, else the path's own, where it has them."""
    if baseline_score is None and path.alpha[0] == 0:
        baseline_score = float(path.score[0])
    if score is None and path.alpha[-1] == 1:
        score = float(path.score[-1])
    return baseline_score, score


def _note(path: Path, ends: tuple[float | None, float | None]) -> str | None:
    """Say in words how well the sum is complete."""
    running = running_integral(path)
    start, end = ends
    if running is None or start is None or end is None:
        return None
    total = float(running[1][-1])
    gap = total - (end - start)
    share = f", {100 * abs(gap / (end - start)):.2g} % of it" if end != start else ""
    return (
        f"The integral is {total:.4g}, the score changes by {end - start:.4g}"
        f" (from {start:.4g} to {end:.4g}): completeness gap {gap:+.2g}{share}."
    ).replace("-", "\N{MINUS SIGN}")


def _probability(
    path: Path, probability: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read the probability curve: alphas and probabilities."""
    given = np.asarray(probability, dtype=np.float64)
    count = len(path.alpha)
    if given.shape == (count,):
        given = np.stack([path.alpha, given])
    if given.ndim != 2 or len(given) != 2:
        raise InputError(
            f"probability has shape {given.shape}, expected [{count}], one for each point of the path, "
            "or [2, n], alphas and probabilities"
        )
    if not ((given >= 0) & (given <= 1)).all():
        raise InputError("probability has values outside 0 to 1, or NaN")
    return given[0], given[1]


def _check(path: Path) -> None:
    lengths = {len(field) for field in (path.alpha, path.weight, path.score, path.slope)}
    if lengths == {0}:
        raise InputError("the path has no points, expected at least one")
    if len(lengths) > 1:
        raise InputError(f"the fields of the path have {sorted(lengths)} entries, expected as many")
    for what in ("alpha", "weight", "score", "slope"):
        if not np.isfinite(getattr(path, what)).all():
            raise InputError(f"the path's {what} has values that are NaN or infinite")
    if (np.diff(path.alpha) < 0).any():
        raise InputError("the path's alphas are not in order, expected them from 0 to 1")
