"""Where the channels of an array are, and from them to one number per pixel."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from igonnx.checks import as_finite, require_choice
from igonnx.errors import InputError

__all__ = [
    "Layout",
    "Reduction",
    "channel_axis",
    "fits",
    "one_example",
    "reduce_channels",
]

Layout = Literal["NCHW", "NHWC"]
Reduction = Literal["sum", "mean", "norm", "strongest"]


def reduce_channels(
    values: NDArray[Any],
    layout: Layout | None = None,
    *,
    size: tuple[int, ...] | None = None,
    absolute: bool = False,
    reduction: Reduction = "sum",
    rank: int = 2,
) -> NDArray[np.float64]:
    """Reduce an attribution over its channels to one number per pixel, float64 [H, W].

    values: [H, W], [C, H, W] or [H, W, C], with or without a leading axis of 1; layout and size as
    for `channel_axis`. reduction "sum" is the one that keeps completeness: the pixels still add up
    to the difference of the scores. "mean" is the sum over the number of channels, "norm" the
    Euclidean length, "strongest" the channel of the largest magnitude, with its sign. With
    `absolute` the magnitudes are reduced instead, so that channels cannot cancel. rank 3 takes the
    attribution of a volume, [D, H, W] for [H, W] everywhere above. Raises `InputError` for other
    shapes, several examples, NaN and infinity.
    """
    require_choice("reduction", reduction, Reduction)
    array = one_example(values, rank)
    if absolute:
        array = np.abs(array)
    if array.ndim == rank:
        array, axis = array[None], 0
    else:
        axis = channel_axis(array.shape, layout, size)
    if reduction == "norm":
        return np.asarray(np.linalg.norm(array, axis=axis))
    if reduction == "strongest":
        strongest = np.abs(array).argmax(axis=axis, keepdims=True)
        return np.take_along_axis(array, strongest, axis=axis).squeeze(axis)
    return np.asarray(array.sum(axis=axis) if reduction == "sum" else array.mean(axis=axis))


def one_example(values: NDArray[Any], rank: int = 2) -> NDArray[np.float64]:
    """Take the attribution of one picture (rank 2) or volume (rank 3), with its channel axis if it has one.

    values: as for `reduce_channels`; float64 without the leading axis comes back. Raises
    `InputError` for other shapes, several examples, NaN and infinity.
    """
    array = as_finite(values)
    batched = array.ndim == rank + 2
    if batched and array.shape[0] > 1:
        raise InputError(
            f"the attribution has shape {array.shape}: a picture shows one example, "
            f"pass one of the {array.shape[0]}"
        )
    if batched and array.shape[0] == 1:
        array = array[0]
    if array.ndim not in (rank, rank + 1) or array.size == 0:
        axes = "D, H, W" if rank == 3 else "H, W"
        raise InputError(
            f"the attribution has shape {np.shape(values)}, "
            f"expected [{axes}], [C, {axes}] or [{axes}, C]"
        )
    return array


def channel_axis(
    shape: tuple[int, ...],
    layout: Layout | None = None,
    size: tuple[int, ...] | None = None,
) -> int:
    """Tell which axis of a picture or volume of this shape, without batch axis, holds the channels.

    It is the first or the last one: 0, or 2 of a picture and 3 of a volume. In this order: the
    layout given; the axis that leaves the image's `size`; the axis that leaves its proportions, as
    `fits` has it; the only axis of 1 or 3; the smaller axis, and the first where both are equal.
    """
    behind = len(shape) - 1
    if layout is not None:
        require_choice("layout", layout, Layout)
        return 0 if layout == "NCHW" else behind
    first, last = shape[0], shape[-1]
    if size is not None and (shape[1:] == size) != (shape[:-1] == size):
        return 0 if shape[1:] == size else behind
    if size is not None and fits(shape[1:], size) != fits(shape[:-1], size):
        return 0 if fits(shape[1:], size) else behind
    if (first in (1, 3)) != (last in (1, 3)):
        return 0 if first in (1, 3) else behind
    if (shape[1] == last) != (first == shape[1]):
        return 0 if shape[1] == last else behind
    return 0 if first <= last else behind


def fits(shape: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Tell whether a map of this shape can be that of an image (or volume) of this size.

    The map of an inner layer has fewer pixels than the image, by the same factor along all sides,
    but for the pixel that padding adds or takes away. 2 per cent more are let pass.
    """
    if len(shape) != len(size):
        return False
    smallest = [side / (given + 1) for side, given in zip(size, shape, strict=True)]
    largest = [
        side / (given - 1) if given > 1 else float("inf")
        for side, given in zip(size, shape, strict=True)
    ]
    return max(smallest) <= 1.02 * min(largest)
