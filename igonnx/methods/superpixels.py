"""Superpixels: a picture cut into patches of one colour, to be masked one by one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.channels import channel_axis
from igonnx.checks import as_finite, require_whole
from igonnx.errors import InputError
from igonnx.inputs import Arrays
from igonnx.methods.features import FeatureMask

__all__ = ["chosen_features", "superpixels"]


def superpixels(images: NDArray[Any], segments: int) -> NDArray[np.int64]:
    """About `segments` superpixels of each picture, by SLIC (Achanta et al., 2012), numbered from 0 on.

    images: [N, C, H, W] or [N, H, W, C], finite numbers in any range. The result has the same axes, with one channel:
    a `feature_mask`. Three channels are compared as colours are seen (Lab), after the range of each picture is brought
    to 0 to 1. Raises `InputError` for other shapes, NaN and infinity.
    """
    require_whole("segments", segments, 1)
    pictures = as_finite(images, "the picture to cut into superpixels")
    if pictures.ndim != 4 or pictures.size == 0:
        raise InputError(
            f"segments cuts pictures, [N, C, H, W] or [N, H, W, C]; the input has shape {list(pictures.shape)}: pass "
            "feature_mask instead"
        )
    axis = channel_axis(pictures.shape[1:])
    labels = [_labels(np.moveaxis(picture, axis, -1), int(segments)) for picture in pictures]
    return np.expand_dims(np.stack(labels), 1 + axis)


def chosen_features(
    wrt: tuple[str, ...], inputs: Arrays, feature_mask: FeatureMask, segments: int | None
) -> FeatureMask:
    """What a method with both arguments takes for its `feature_mask`: that, or `segments` superpixels of the input.

    Raises `InputError` where both are given, and where superpixels are asked for of anything but one model input that
    holds pictures.
    """
    if segments is None:
        return feature_mask
    if feature_mask is not None:
        raise InputError("feature_mask and segments are both given: pass one of them")
    named = inputs if isinstance(inputs, Mapping) else {wrt[0]: inputs}
    if len(wrt) > 1 or wrt[0] not in named:
        raise InputError(
            f"segments cuts one input that holds pictures; explained are {', '.join(map(repr, wrt))}: pass feature_mask"
        )
    return superpixels(np.asarray(named[wrt[0]]), segments)


def _labels(picture: NDArray[np.float64], segments: int) -> NDArray[np.int64]:
    """The superpixel of each pixel, [H, W], of a picture [H, W, C]."""
    from skimage.segmentation import slic  # slow to import

    low, high = picture.min(), picture.max()
    half = high / 2 - low / 2 or 1.0  # halves: a difference may overflow
    level = (picture / 2 - low / 2) / half
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Got image with third dimension")
        found = slic(level, n_segments=segments, start_label=0, channel_axis=-1)
    return np.asarray(found, np.int64)
