"""The attribution pictures of the Keras example "Model interpretability with Integrated Gradients"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from igonnx.channels import Layout, one_example, reduce_channels
from igonnx.errors import InputError
from igonnx.visual.arguments import require_percentage
from igonnx.visual.colours import Colour, as_colour
from igonnx.visual.components import top_components
from igonnx.visual.heatmap import Heat, automatic_smoothing, smoothed
from igonnx.visual.morphology import border, clean_up, fill_holes
from igonnx.visual.overlay import as_rgb
from igonnx.visual.page import INK, put_edge, require_matplotlib
from igonnx.visual.polarity import Polarity, apply_polarity
from igonnx.visual.signed_colours import colour_signs, superimpose
from igonnx.visual.threshold import binarise, linear_transform

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GradVisualizer"]


class GradVisualizer:
    """Draws attributions as the class of this name in the Keras example does, with its parameters and defaults.

    Keras, "Model interpretability with Integrated Gradients" (A_K_Nain, 2020,
    keras.io/examples/vision/integrated_gradients). The steps are functions of `igonnx.visual` that
    can be put together otherwise, too; `outline` gives lines that hug an object rather than single
    pixels. Where that class errs, this one differs:

    - Components are ranked by the attribution in them; there by the number of their pixels, because
      the sums are taken after binarising.
    - Shares are those of the total magnitude; there the magnitudes are divided by the signed total.
    - Values above 1 keep their rank; there they are cut off at 1, so that the picture depends on the
      scale of the scores.
    - If no pixel passes the threshold (an attribution of zeros, or of the other sign only) nothing
      is drawn; there a division by zero makes NaN, or the first of no indices is an error.
    - A constant map is drawn at full strength; there it is NaN. So is clip_above_percentile =
      clip_below_percentile, which draws what reaches it.
    - clip_below_percentile above clip_above_percentile is an error; there it turns the scale around.
    - NaN and infinity are errors; there they become pixels.
    - Rounding cannot keep cumulative shares from reaching the one asked for.
    - structure tells the neighbours by its shape alone; there its numbers are heights, with zeros
      that count as neighbours: the same for a structure full of ones.
    - A picture of channels first, one of one channel, and one of floats in [0, 1] are fine, and the
      polarities "both" (or "all") and "absolute" are there.

    positive_channel, negative_channel: the colours, (red, green, blue) of 0 to 255 or "#rrggbb";
    green and red where none is given.
    """

    def __init__(
        self, positive_channel: Colour | None = None, negative_channel: Colour | None = None
    ) -> None:
        self.positive_channel: Colour = (
            (0, 255, 0) if positive_channel is None else positive_channel
        )
        self.negative_channel: Colour = (
            (255, 0, 0) if negative_channel is None else negative_channel
        )
        as_colour(self.positive_channel)
        as_colour(self.negative_channel)

    def process_grads(
        self,
        image: NDArray[Any],
        attributions: NDArray[Any],
        polarity: Polarity = "positive",
        clip_above_percentile: float = 99.9,
        clip_below_percentile: float = 0,
        morphological_cleanup: bool = False,
        structure: NDArray[Any] | int | None = None,
        outlines: bool = False,
        outlines_component_percentage: float = 90,
        overlay: bool = True,
        *,
        layout: Layout | None = None,
        smooth: float | None = 0.0,
    ) -> NDArray[np.float64]:
        """Draw an attribution: float64 RGB [H, W, 3] of 0 to 255; `astype(numpy.uint8)` makes it an image.

        image: [H, W], [H, W, 3] or [3, H, W], integers 0 to 255, or floats 0 to 1, or 0 to 255 if
        one is above 1. attributions: of the same height and width, with any number of channels,
        first or last (layout tells, where the shape does not). polarity: "positive" and "negative"
        draw one sign, "absolute" the magnitude in the positive channel, "both" (or "all") the sign
        of each pixel's mean in its channel. The channels' mean is stretched between the percentiles
        (`linear_transform`, with a lower end of 0), cleaned up by `structure` (`clean_up`; None for
        3 x 3 pixels), reduced to the borders of at most three components that together hold
        outlines_component_percentage of the attribution, coloured, and, with overlay, added to the
        image at 0.8 of its strength. smooth, which the example has not, blurs the mean by a Gaussian
        of this standard deviation in pixels before it is stretched (None: as suits the size), so
        that outlines go around things rather than grains. Raises `InputError` for anything else.
        """
        require_percentage("outlines_component_percentage", outlines_component_percentage)
        picture = _picture(image)
        heat = _mean(attributions, polarity, layout, (picture.shape[0], picture.shape[1]))
        heat = smoothed(heat, automatic_smoothing(heat.shape) if smooth is None else smooth)
        heat = linear_transform(heat, clip_above_percentile, clip_below_percentile, lower_end=0.0)
        first = self.negative_channel if polarity == "negative" else self.positive_channel
        colours = np.zeros_like(picture)
        for sign, channel in ((1, first), (-1, self.negative_channel)):
            part = np.maximum(sign * heat, 0.0)
            if morphological_cleanup:
                part = clean_up(part, structure)
            if outlines:
                part = _outlined(part, outlines_component_percentage)
            colours += colour_signs(part, channel)
        return superimpose(colours, picture) if overlay else np.clip(colours, 0.0, 255.0)

    def visualize(
        self,
        image: NDArray[Any],
        gradients: NDArray[Any],
        integrated_gradients: NDArray[Any],
        polarity: Polarity = "positive",
        clip_above_percentile: float = 99.9,
        clip_below_percentile: float = 0,
        morphological_cleanup: bool = False,
        structure: NDArray[Any] | int | None = None,
        outlines: bool = False,
        outlines_component_percentage: float = 90,
        overlay: bool = True,
        figsize: tuple[float, float] = (15, 8),
        *,
        layout: Layout | None = None,
        smooth: float | None = 0.0,
    ) -> Figure:
        """Draw image, gradients and integrated gradients side by side, as a Matplotlib figure.

        figsize in inches; the other arguments are those of `process_grads`. The figure belongs to no
        window: a notebook shows it, else use its `savefig`. Raises `Error` when Matplotlib is
        missing, `InputError` as `process_grads`.
        """
        figure_type = require_matplotlib()
        processed = [
            self.process_grads(
                image,
                attributions,
                polarity,
                clip_above_percentile,
                clip_below_percentile,
                morphological_cleanup,
                structure,
                outlines,
                outlines_component_percentage,
                overlay,
                layout=layout,
                smooth=smooth,
            )
            for attributions in (gradients, integrated_gradients)
        ]
        figure = figure_type(figsize=figsize, layout="constrained", facecolor="white")
        panels = figure.subplots(1, 3)
        titles = ("Input", "Normal gradients", "Integrated gradients")
        pictures = (_picture(image), processed[0] / 255, processed[1] / 255)
        for panel, title, picture in zip(panels, titles, pictures, strict=True):
            panel.imshow(picture)
            put_edge(panel)
            panel.set_title(title, color=INK)
        return figure


def _picture(image: NDArray[Any]) -> NDArray[np.float64]:
    """Bring an image to RGB [H, W, 3], float64 in [0, 1]; floats may be of 0 to 255, as Keras loads them."""
    array = np.asarray(image)
    if array.dtype.kind == "f" and array.size and array.max() > 1 + 1e-3:
        if not ((array >= 0) & (array <= 255)).all():
            raise InputError(
                f"the image has values from {array.min():g} to {array.max():g}, "
                "expected 0 to 1 or 0 to 255"
            )
        array = array.astype(np.float64) / 255
    return as_rgb(array)


def _mean(
    attributions: NDArray[Any],
    polarity: Polarity,
    layout: Layout | None,
    size: tuple[int, int],
) -> Heat:
    """Average one polarity over the channels: float64 [H, W], which must be the image's size."""
    chosen = apply_polarity(one_example(attributions), polarity)
    heat = reduce_channels(chosen, layout, size=size, reduction="mean")
    if heat.shape != size:
        raise InputError(
            f"the attribution has {heat.shape[0]} x {heat.shape[1]} pixels, "
            f"expected those of the image, {size[0]} x {size[1]}"
        )
    return heat


def _outlined(heat: Heat, percentage: float) -> Heat:
    """Draw the borders of the components that hold the most: 1 on a border, else 0, float64 [H, W]."""
    filled = fill_holes(binarise(heat))
    return border(top_components(filled, heat, percentage=percentage)).astype(np.float64)
