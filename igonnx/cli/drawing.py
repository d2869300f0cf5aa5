"""What can be drawn of an explanation, and drawing it into a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from igonnx.cli.choices import View
from igonnx.cli.inputs import Given, ImageOptions, preprocessing_for
from igonnx.cli.report import Row
from igonnx.errors import InputError
from igonnx.images import Layout, image_shape
from igonnx.model import Model
from igonnx.visual import outline, plot, plot_images, plot_views
from igonnx.visual.heatmap import Sign

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from igonnx import Attribution
    from igonnx.visual.views import Kind

__all__ = ["Drawable", "draw", "find_drawable", "require_view"]

INPUT, SINGLED_OUT = "input, as the model sees it", "what the method singles out"


_SIGNS: dict[View, Sign] = {
    View.heat_map: "all",
    View.blended_heat_map: "all",
    View.masked_image: "positive",
    View.alpha_scaling: "positive",
}


@dataclass(frozen=True)
class Drawable:
    """The explained tensor that is drawn, where its channels are, and an image for each example."""

    name: str
    layout: Layout
    images: Sequence[NDArray[Any]]


def require_view(view: View, sign: Sign | None) -> None:
    """Raise `InputError` for a sign that the view cannot show, before anything is computed."""
    if sign is None:
        return
    if view is View.path:
        raise InputError("--sign is not for --view path, which shows all contributions together")
    if sign == "all" and _SIGNS.get(view) == "positive":
        raise InputError(
            f"--sign is 'all', but --view {view.value} shows strengths without a sign; expected positive, negative or "
            "absolute"
        )


def find_drawable(
    model: Model, explained: Sequence[str], given: Given, options: ImageOptions
) -> Drawable | None:
    """Find an explained tensor that makes a picture, if there is one.

    First choice is an input that was given images, then an input that takes images and was given
    arrays, then an inner tensor [N, C, H, W] of a model that was given images.
    """
    for name in explained:
        if name in given.preprocessing:
            preprocessing = given.preprocessing[name]
            images = [preprocessing.inverse(one) for one in given.arrays[name]]
            return Drawable(name, preprocessing.layout, images)
    for name in explained:
        if name in given.arrays:
            drawable = _from_arrays(model, name, given, options)
            if drawable is not None:
                return drawable
        elif given.preprocessing and len(model.find_tensor(name).shape or ()) == 4:
            source, preprocessing = next(iter(given.preprocessing.items()))
            images = [preprocessing.inverse(one) for one in given.arrays[source]]
            return Drawable(name, preprocessing.layout, images)
    return None


def draw(
    path: Path,
    drawable: Drawable,
    attribution: Attribution,
    index: int,
    row: Row,
    *,
    view: View = View.overview,
    sign: Sign | None = None,
) -> None:
    """Write the picture of one example; the suffix of the path says in which format."""
    figure = _figure(drawable, attribution, index, row, view, sign)
    try:
        figure.savefig(path, format=path.suffix[1:].lower())
    except OSError as error:
        raise InputError(f"cannot write '{path}': {error.strerror or error}") from error


def _figure(
    drawable: Drawable,
    attribution: Attribution,
    index: int,
    row: Row,
    view: View,
    sign: Sign | None,
) -> Figure:
    values, image = attribution.of(drawable.name)[index], drawable.images[index]
    if attribution.method.startswith("rise ") and values.min() > 0:
        values = values - values.min()  # what all places share says nothing
    heading: dict[str, Any] = {"title": row.title, "subtitle": row.summary}
    if view is View.path:
        return attribution.plot_path(index, **heading)
    shared: dict[str, Any] = {"layout": drawable.layout, **heading}
    if view is View.overview:
        adds_up = not np.isnan(row.relative_error)
        captions = None if adds_up else (INPUT, SINGLED_OUT, "each pixel")
        return plot(values, image, sign=sign or "absolute", captions=captions, **shared)
    if view is View.outline:
        drawn = outline(values, image, sign=sign or "absolute", layout=drawable.layout)
        return plot_images([image, drawn], (INPUT, SINGLED_OUT), **heading)
    kind = cast("Kind", view.value.replace("-", "_"))
    kinds: list[Kind] = ["original_image", kind]
    # Smoothed, as the overview is: single pixels say little.
    return plot_views(values, image, kinds=kinds, signs=sign or _SIGNS[view], smooth=None, **shared)


def _from_arrays(model: Model, name: str, given: Given, options: ImageOptions) -> Drawable | None:
    """Show arrays that are images for the model: denormalised where it is known how."""
    info = next(info for info in model.inputs if info.name == name)
    arrays = given.arrays[name]
    try:
        shape = image_shape(info.shape, name=name, layout=options.layout)
    except InputError:
        return None  # no picture, then
    if options.chosen or "igonnx.preset" in model.metadata:
        preprocessing = preprocessing_for(model, info, options, [])
        return Drawable(name, shape.layout, [preprocessing.inverse(one) for one in arrays])
    pictures = np.moveaxis(arrays, 1, -1) if shape.layout == "NCHW" else arrays
    return Drawable(name, shape.layout, [_stretched(one) for one in pictures])


def _stretched(picture: NDArray[Any]) -> NDArray[Any]:
    """Bring numbers of an unknown range to [0, 1] for display."""
    numbers = picture.astype(np.float64)
    low, high = float(numbers.min()), float(numbers.max())
    if low >= 0 and high <= 1:
        return numbers
    if low >= 0 and high <= 255:
        return numbers / 255
    return (numbers - low) / (high - low) if high > low else np.zeros_like(numbers)
