"""Attributions as pictures.

Functions that give arrays or text need NumPy, SciPy and scikit-image only; those whose names begin with `plot` give
a Matplotlib figure (`pip install igonnx[plot]`), which belongs to no window: use its `savefig`.
"""

from igonnx.channels import reduce_channels
from igonnx.visual.bars_text import features_text, waterfall_text
from igonnx.visual.baseline import plot_baseline, plot_interpolations
from igonnx.visual.boxes import draw_boxes, draw_mask
from igonnx.visual.components import component_sums, connected_components, top_components
from igonnx.visual.grad_visualizer import GradVisualizer
from igonnx.visual.heatmap import heat_map
from igonnx.visual.morphology import border, clean_up, fill_holes
from igonnx.visual.outlines import draw_outlines, outline
from igonnx.visual.overlay import render
from igonnx.visual.overview import plot
from igonnx.visual.panels import plot_images
from igonnx.visual.polarity import apply_polarity
from igonnx.visual.regions import find_regions
from igonnx.visual.saturation import plot_path
from igonnx.visual.scores import plot_scores
from igonnx.visual.signed_colours import colour_signs, superimpose
from igonnx.visual.tabular import plot_features, plot_waterfall
from igonnx.visual.text import text_html, text_terminal
from igonnx.visual.text_picture import text_picture
from igonnx.visual.threshold import binarise, keep_share, linear_transform, share_threshold
from igonnx.visual.time_series import plot_time_series
from igonnx.visual.view_figure import plot_views
from igonnx.visual.views import view
from igonnx.visual.volumes import montage, outline_slices, render_slices

__all__ = [
    "GradVisualizer",
    "apply_polarity",
    "binarise",
    "border",
    "clean_up",
    "colour_signs",
    "component_sums",
    "connected_components",
    "draw_boxes",
    "draw_mask",
    "draw_outlines",
    "features_text",
    "fill_holes",
    "find_regions",
    "heat_map",
    "keep_share",
    "linear_transform",
    "montage",
    "outline",
    "outline_slices",
    "plot",
    "plot_baseline",
    "plot_features",
    "plot_images",
    "plot_interpolations",
    "plot_path",
    "plot_scores",
    "plot_time_series",
    "plot_views",
    "plot_waterfall",
    "reduce_channels",
    "render",
    "render_slices",
    "share_threshold",
    "superimpose",
    "text_html",
    "text_picture",
    "text_terminal",
    "top_components",
    "view",
    "waterfall_text",
]
