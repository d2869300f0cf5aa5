"""Attributions as pictures.

`render` gives an overlay as a plain array and needs NumPy, SciPy and scikit-image only; `plot`
gives a Matplotlib figure and is the one place that imports Matplotlib (`pip install
igonnx[plot]`).
"""

from igonnx.visual.figure import plot
from igonnx.visual.heatmap import heat_map
from igonnx.visual.overlay import render

__all__ = ["heat_map", "plot", "render"]
