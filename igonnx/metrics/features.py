"""What is changed together: pixels with all their channels, patches of them, or the columns of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.channels import channel_axis as find_channel_axis
from igonnx.checks import is_whole
from igonnx.errors import InputError
from igonnx.methods.call import Array, Tensors

__all__ = ["Features", "channels_of", "features_of", "heats_of", "spatial_axes"]


@dataclass(frozen=True)
class Features:
    """F features of the examples, counted through all tensors.

    index: per tensor, int64 [1, ...]: the number of each pixel's feature, with 1 for channels.
    values: float64 [N, F], the attribution of each feature, summed over its pixels.
    sizes: int64 [F], pixels of each.
    """

    index: dict[str, NDArray[np.int64]]
    values: Array
    sizes: NDArray[np.int64]

    def __len__(self) -> int:
        """The number of features."""
        return len(self.sizes)


def features_of(heats: Mapping[str, Array], patch: int) -> Features:
    """Patches of `patch` pixels a side as features of heats [N, ...]; those at the far borders may be smaller."""
    index, values, sizes = {}, [], []
    before = 0
    for name, heat in heats.items():
        sums, ones = _patch_sums(heat, patch), _patch_sums(np.ones((1, *heat.shape[1:])), patch)
        numbers = before + np.arange(ones.size).reshape(ones.shape)
        for axis in _patched_axes(heat):
            numbers = numbers.repeat(patch, axis=axis).take(range(heat.shape[axis]), axis=axis)
        index[name] = numbers
        values.append(sums.reshape(len(heat), -1))
        sizes.append(ones.ravel().astype(np.int64))
        before += ones.size
    return Features(index, np.concatenate(values, axis=1), np.concatenate(sizes))


def _patched_axes(heat: Array) -> range:
    """Axes along which pixels are neighbours; columns of a table are not."""
    return range(1, heat.ndim if heat.ndim > 2 else 1)


def _patch_sums(heat: Array, patch: int) -> Array:
    for axis in _patched_axes(heat):
        heat = np.add.reduceat(heat, np.arange(0, heat.shape[axis], patch), axis=axis)
    return heat


def heats_of(values: Mapping[str, Array], x: Tensors, channel_axis: int | None) -> dict[str, Array]:
    """Attribution per pixel of each tensor, [N, ...] as `x` but 1 along the channels.

    `values` have the shape of `x`, or that without its channels. Raises `InputError` for others.
    """
    return {name: _heat(values[name], x[name], name, channel_axis) for name in x}


def channels_of(shape: tuple[int, ...], channel_axis: int | None) -> int | None:
    """The axis of channels of a tensor [N, ...] of this shape; None: it has none, every column is a feature.

    `channel_axis` is what a caller says: of tensors of three or more axes, counted with the batch axis; None: of images
    the axis that `igonnx.visual` finds, else 1. Raises `InputError` for an axis that is not there.
    """
    rank = len(shape)
    if rank < 3:
        return None
    if channel_axis is None:
        return 1 + find_channel_axis(shape[1:]) if rank == 4 else 1
    if not is_whole(channel_axis) or not -rank < channel_axis < rank or channel_axis == 0:
        raise InputError(
            f"channel_axis is {channel_axis!r}; expected an axis of {list(shape)} behind the first"
        )
    return channel_axis % rank


def spatial_axes(shape: tuple[int, ...], channel_axis: int | None) -> list[int]:
    """Axes of a tensor [N, ...] that are neither examples nor channels."""
    channels = channels_of(shape, channel_axis)
    return [axis for axis in range(1, len(shape)) if axis != channels]


def _heat(values: Array, x: NDArray[Any], name: str, channel_axis: int | None) -> Array:
    axis = channels_of(x.shape, channel_axis)
    if values.shape == x.shape:
        return values if axis is None else values.sum(axis=axis, keepdims=True)
    wanted = str(list(x.shape))
    if axis is not None:
        without = list(x.shape)
        del without[axis]
        if list(values.shape) == without:
            return np.expand_dims(values, axis)
        if list(values.shape) == [*x.shape[:axis], 1, *x.shape[axis + 1 :]]:  # as GradCAM's
            return values
        wanted += f", or {without} without its channels"
    raise InputError(
        f"the attribution of {name!r} has shape {list(values.shape)}; expected {wanted}"
    )
