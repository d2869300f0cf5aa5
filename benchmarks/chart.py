"""The comparison as a bar chart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.entries import CAPTUM, IGONNX, TRAINING
from benchmarks.summary import in_forwards

__all__ = ["draw"]

# Colours that stay apart for the colour-blind (Okabe and Ito, 2008).
_COLOURS = {
    IGONNX: "#0072B2",
    "igonnx: Integrated Gradients, bfloat16": "#56B4E9",
    "igonnx.gradient in onnxruntime": "#009E73",
    CAPTUM: "#E69F00",
    "Captum, torch.compile": "#F0E442",
    TRAINING: "#D55E00",
}
_BAR = 0.8  # of the room between two models, shared by their bars
_FLOOR = 2  # forward passes that a gradient takes at least


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Write the chart of `results["comparison"]` to `path`; the suffix tells the format."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "igonnx"  # the same file for the same numbers
    models = {name: found.get("entries", {}) for name, found in results["comparison"].items()}
    names = [
        name
        for name in _COLOURS
        if any(in_forwards(entries, name) is not None for entries in models.values())
    ]
    figure, axes = pyplot.subplots(figsize=(9, 4.2), layout="constrained")
    width = _BAR / max(len(names), 1)
    for index, name in enumerate(names):
        heights = [in_forwards(entries, name) or 0.0 for entries in models.values()]
        places = [place - _BAR / 2 + (index + 0.5) * width for place in range(len(models))]
        bars = axes.bar(places, heights, 0.92 * width, color=_COLOURS[name], label=name)
        labels = [f"{height:.1f}" if height else "" for height in heights]
        axes.bar_label(bars, labels, fontsize=7, padding=1)
    axes.axhline(_FLOOR, color="0.35", linewidth=0.8, linestyle="--")
    axes.set_xticks(range(len(models)), list(models))
    steps = results["settings"]["steps"]
    axes.set_ylabel(f"time in units of {steps} forward passes")
    axes.legend(frameon=False, fontsize=8, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.2)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
