"""Error and completeness against evaluations, as small multiples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from benchmarks.convergence import Point

__all__ = ["draw"]

# Colours that stay apart for the colour-blind (Okabe and Ito, 2008).
_STYLES = {
    "trapezoid": ("#999999", "v"),
    "NUIG": ("#E69F00", "s"),
    "Gauss-Legendre": ("#0072B2", "o"),
    "tolerance=": ("#D55E00", "D"),
}
_TICKS = (32, 64, 128, 256)


def draw(measured: Sequence[Point], path: Path) -> None:
    """Write the figure: a column per photo; error of the map and completeness, for probability and logit."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    photos = list(dict.fromkeys(point.photo for point in measured))
    targets = list(dict.fromkeys(point.target for point in measured))
    rows = [(quantity, target) for quantity in ("error", "completeness") for target in targets]
    figure, axes = plt.subplots(
        len(rows),
        len(photos),
        figsize=(12, 2.5 * len(rows)),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for (quantity, target), line in zip(rows, axes, strict=True):
        for photo, axis in zip(photos, line, strict=True):
            chosen = [p for p in measured if (p.photo, p.target) == (photo, target)]
            _panel(axis, chosen, quantity)
        what = "error of the map" if quantity == "error" else "completeness error"
        line[0].set_ylabel(f"{target}:\nrelative {what}")
    for photo, axis in zip(photos, axes[0], strict=True):
        axis.set_title(photo)
    for axis in axes[-1]:
        axis.set_xlabel("gradients evaluated")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axis: Axes, measured: Sequence[Point], quantity: str) -> None:
    """One photo and target."""
    for method, (colour, marker) in _STYLES.items():
        line = sorted((p for p in measured if p.method == method), key=lambda p: p.evaluations)
        x = [point.evaluations for point in line]
        # A sum can be right by chance; far below the axis it would only stretch it.
        y = [max(getattr(point, quantity), 1e-4) for point in line]
        axis.plot(x, y, color=colour, marker=marker, markersize=4, linewidth=1.3, label=method)
        estimates = [point.estimate for point in line if point.estimate is not None]
        if quantity == "error" and estimates:
            axis.plot(
                x, estimates, color="black", linestyle=":", linewidth=1.3, label="its own estimate"
            )
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(_TICKS, labels=[str(tick) for tick in _TICKS])
    axis.axhline(0.02, color="black", linewidth=0.5)
    axis.grid(alpha=0.3)
