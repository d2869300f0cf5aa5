"""Convolution weights as ONNX Runtime's blocked kernels take them.

The order of elements is that of MlasReorderFilterOIHWBiBo and MlasReorderFilterOIHWBo (onnxruntime, mlas.h): output
channels in blocks, the innermost axis running over a block. Shapes are declared as [O, I, kernel, kernel] all the same,
with channels padded by zeros to whole blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["blocked_filter", "depthwise_filter", "fits", "is_depthwise", "padded", "transposed"]

Weights = NDArray[np.float32]


def padded(count: int, block: int) -> int:
    """`count` channels, rounded up to whole blocks."""
    return -(-count // block) * block


def is_depthwise(shape: Sequence[int], group: int) -> bool:
    """Whether each channel has a filter of its own; `shape` is that of the weights, [O, I / group, ...]."""
    return shape[1] == 1 and shape[0] == group > 1


def fits(shape: Sequence[int], group: int, block: int) -> bool:
    """Whether a convolution by weights of `shape` [O, I / group, ...] runs from one blocked image to another.

    Channels come in fours, since the runtime reorders only those, and fill half a block at least; groups have to
    consist of whole blocks.
    """
    outputs, inputs = shape[:2]
    if is_depthwise(shape, group):
        return outputs % block == 0
    if group > 1:
        return inputs % block == 0 and outputs // group % block == 0
    return inputs % 4 == 0 and outputs % 4 == 0 and min(inputs, outputs) * 2 >= block


def blocked_filter(weight: Weights, block: int, *, blocked_input: bool = True) -> Weights:
    """`weight` [O, I / group, kernel, kernel] in blocks of output and, if the input is blocked, of input channels."""
    outputs, inputs, *kernel = weight.shape
    rows = padded(outputs, block)
    columns = padded(inputs, block) if blocked_input else inputs
    whole = np.zeros((rows, columns, *kernel), np.float32)
    whole[:outputs, :inputs] = weight
    if blocked_input:
        apart = whole.reshape(rows // block, block, columns // block, block, *kernel)
        apart = apart.transpose(0, 2, 4, 5, 3, 1)
    else:
        apart = whole.reshape(rows // block, block, columns, *kernel).transpose(0, 2, 3, 4, 1)
    return np.ascontiguousarray(apart).reshape(whole.shape)


def depthwise_filter(weight: Weights, block: int) -> Weights:
    """`weight` [C, 1, kernel, kernel] as [C / block, kernel, kernel, block]."""
    channels, _, *kernel = weight.shape
    return np.ascontiguousarray(
        weight.reshape(channels // block, block, *kernel).transpose(0, 2, 3, 1)
    )


def transposed(weight: Weights, group: int) -> Weights:
    """The filter that takes gradients back: [C, O / group, ...] for `weight` [O, C / group, ...], taps in reverse."""
    outputs, inputs, *kernel = weight.shape
    apart = weight.reshape(group, outputs // group, inputs, *kernel).transpose(0, 2, 1, 3, 4)
    return apart.reshape(group * inputs, outputs // group, *kernel)[:, :, ::-1, ::-1]
