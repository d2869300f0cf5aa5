"""Pooling: MaxPool, AveragePool and their global forms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.autodiff.broadcasting import broadcast_to
from igonnx.autodiff.builder import dims, dtype_of, rank
from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.autodiff.rules.convolution import Window, begin_at_run_time, input_gradient, windows


@rule("MaxPool")
def max_pool(v: Vjp) -> Gradients:
    """MaxPool: the gradient goes to the first maximum of each window, whose position the operator itself reports."""
    if v.attribute("storage_order", 0):
        raise v.unsupported("MaxPool with column-major indices")
    op = v.op
    if len(v.node.outputs) < 2:
        v.node.resize_outputs(2)
    indices = v.node.outputs[1]
    if not indices.name:
        indices.name = op.unique("MaxPool_indices")
        indices.type = ir.TensorType(ir.DataType.INT64)
        indices.shape = v.y.shape
    count = op.count(v.x, range(rank(v.x)))
    flat = op.scatter_add(count, op.Reshape(indices, [-1]), op.Reshape(v.g, [-1]))
    return [op.reshape_like(flat, v.x)]


@rule("AveragePool")
def average_pool(v: Vjp) -> Gradients:
    """AveragePool: each window's gradient, over the number of elements averaged, to all its elements."""
    op, channels = v.op, dims(v.x)[1]
    if not isinstance(channels, int):
        raise v.unsupported("AveragePool over an unknown number of channels")
    kernel = v.attribute("kernel_shape")
    sliding = windows(v, kernel)
    ones = op.constant(np.ones([channels, 1, *kernel], dtype=dtype_of(v.x).numpy()))
    return [input_gradient(v, op.Div(v.g, _averaged(v, sliding)), ones, sliding, channels)]


def _averaged(v: Vjp, sliding: Sequence[Window]) -> ir.Value:
    """How many elements each window averages: a scalar, or [1, 1, outputs...] where windows overlap the border."""
    padded = any(window.begin != 0 or window.end != 0 for window in sliding)
    ceil_mode = bool(v.attribute("ceil_mode", 0))
    include_pad = bool(v.attribute("count_include_pad", 0))
    if not ceil_mode and (include_pad or not padded):
        return v.op.scalar(math.prod(window.kernel for window in sliding), v.x)
    n = len(sliding)
    counts = []
    for axis, window in enumerate(sliding):
        shape = [1] * (2 + n)
        shape[2 + axis] = -1
        counts.append(v.op.Reshape(_taps_inside(v, axis, window, include_pad), shape))
    product = counts[0]
    for count in counts[1:]:
        product = v.op.Mul(product, count)
    return v.op.cast(product, dtype_of(v.x))


def _taps_inside(v: Vjp, axis: int, window: Window, include_pad: bool) -> ir.Value:
    """Per window along one axis, int64 [outputs]: taps inside the input (with its padding, if that counts)."""
    op = v.op
    begin = begin_at_run_time(v, axis, window) if window.begin is None else op.ints([window.begin])
    outputs = op.Squeeze(op.dim(v.y, 2 + axis), [0])
    first = op.Sub(op.Mul(op.Range(op.ints(0), outputs, op.ints(1)), [window.stride]), begin)
    offsets = np.arange(window.kernel, dtype=np.int64)[None] * window.dilation
    taps = op.Add(op.Unsqueeze(first, [1]), offsets)
    size = op.dim(v.x, 2 + axis)
    low, high = op.ints([0]), size
    if include_pad:
        low, high = op.Neg(begin), op.Add(size, op.ints([window.end or 0]))
    inside = op.And(op.GreaterOrEqual(taps, low), op.Less(taps, high))
    return cast("ir.Value", op.ReduceSum(op.cast(inside, ir.DataType.INT64), [1], keepdims=0))


@rule("GlobalAveragePool")
def global_average_pool(v: Vjp) -> Gradients:
    """GlobalAveragePool: the mean over all spatial axes."""
    op = v.op
    count = op.cast(op.count(v.x, range(2, rank(v.x))), dtype_of(v.x))
    return [broadcast_to(op, op.Div(v.g, count), v.x)]


@rule("GlobalMaxPool")
def global_max_pool(v: Vjp) -> Gradients:
    """GlobalMaxPool: the gradient goes to the first maximum of each channel, as in torch.nn.AdaptiveMaxPool2d."""
    op = v.op
    rows = op.Reshape(
        v.x, op.join(op.dim(v.x, 0), op.dim(v.x, 1), op.count(v.x, range(2, rank(v.x))))
    )
    first = op.ArgMax(rows, axis=2, keepdims=1)
    zeros = op.zeros(op.Shape(rows), dtype_of(v.x))
    g = op.Reshape(v.g, op.Shape(first))
    return [op.reshape_like(op.ScatterElements(zeros, first, g, axis=2), v.x)]
