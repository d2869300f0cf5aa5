"""What can be drawn of an explanation, and drawing it into a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.cli.inputs import Given, ImageOptions, preprocessing_for
from igonnx.cli.report import Row
from igonnx.errors import InputError
from igonnx.images import Layout, image_shape
from igonnx.model import Model

__all__ = ["Drawable", "draw", "find_drawable"]


@dataclass(frozen=True)
class Drawable:
    """The explained tensor that is drawn, where its channels are, and an image for each example."""

    name: str
    layout: Layout
    images: Sequence[NDArray[Any]]


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


def draw(path: Path, drawable: Drawable, values: NDArray[Any], index: int, row: Row) -> None:
    """Write the picture of one example; the suffix of the path says in which format."""
    from igonnx.visual import plot

    figure = plot(
        values,
        drawable.images[index],
        layout=drawable.layout,
        title=row.title,
        subtitle=row.summary,
    )
    try:
        figure.savefig(path, format=path.suffix[1:].lower())
    except OSError as error:
        raise InputError(f"cannot write '{path}': {error.strerror or error}") from error


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
