"""Pooling by maximum and mean: MaxPool, AveragePool and their global forms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import ml_dtypes
import numpy as np
import onnx_ir as ir

from igonnx.autodiff.broadcasting import broadcast_to
from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.autodiff.rules.convolution import (
    Window,
    input_gradient,
    same_padding_at_run_time,
    windows,
)
from igonnx.graph.builder import dims, dtype_of, rank


@rule("MaxPool")
def max_pool(v: Vjp) -> Gradients:
    """MaxPool: the gradient goes to the first maximum of each window, whose position the operator itself reports."""
    op = v.op
    sliding = windows(v, v.attribute("kernel_shape"))
    if op.native and v.x.dtype == ir.DataType.FLOAT and _known(sliding) and len(sliding) == 2:
        return [_max_pool_natively(v, sliding)]
    if len(v.node.outputs) < 2:
        v.node.resize_outputs(2)
    indices = v.node.outputs[1]
    if not indices.name:
        indices.name = op.unique("MaxPool_indices")
        indices.type = ir.TensorType(ir.DataType.INT64)
        indices.shape = v.y.shape
    axes = list(range(rank(v.x)))
    count, g = op.count(v.x, axes), v.g
    if _may_miss(v):
        lowest = float(ml_dtypes.finfo(dtype_of(v.y).numpy()).min)
        g = op.Where(op.LessOrEqual(v.y, lowest), op.scalar(0, g), g)
    flat = op.scatter_add(count, op.Reshape(indices, [-1]), op.Reshape(g, [-1]))
    if not v.attribute("storage_order", 0):
        return [op.reshape_like(flat, v.x)]
    # Positions count along the spatial axes in reverse.
    perm = [0, 1, *axes[:1:-1]]
    shape = op.join(*(op.dim(v.x, axis) for axis in perm))
    return [op.Transpose(op.Reshape(flat, shape, allowzero=1), perm=perm)]


def _known(sliding: Sequence[Window]) -> bool:
    return all(window.begin is not None for window in sliding)


def _max_pool_natively(v: Vjp, sliding: Sequence[Window]) -> ir.Value:
    """One pass by the plugin's operator, which finds the maxima again: the indices would cost a slower pooling."""
    result = v.op.emit(
        "MaxPoolGradient",
        v.g,
        v.y,
        v.x,
        domain="ai.igonnx",
        kernel_shape=[window.kernel for window in sliding],
        strides=[window.stride for window in sliding],
        dilations=[window.dilation for window in sliding],
        begins=[window.begin or 0 for window in sliding],
    )
    result.shape = v.x.shape
    return cast("ir.Value", result)


def _may_miss(v: Vjp) -> bool:
    """Whether a window may lie in the padding with all its taps; it reports the lowest number at no position at all."""
    sliding = windows(v, v.attribute("kernel_shape"))
    return any(
        window.dilation > 1
        and (window.begin is None or window.begin > 0)
        and not (isinstance(size, int) and size >= window.dilation)
        for window, size in zip(sliding, dims(v.x)[2:], strict=True)
    )


@rule("AveragePool")
def average_pool(v: Vjp) -> Gradients:
    """AveragePool: each window's gradient, over the number of elements averaged, to all its elements."""
    sliding = windows(v, v.attribute("kernel_shape"))
    return [spread_over_windows(v, v.op.Div(v.g, _averaged(v, sliding)), sliding)]


def spread_over_windows(v: Vjp, value: ir.Value, sliding: Sequence[Window]) -> ir.Value:
    """Per element of `v.x` the sum of `value`, one number per window as in `v.y`, over the windows that contain it.

    The input gradient of a depthwise convolution with ones; examples count as channels where these are not known.
    """
    op, channels = v.op, dims(v.x)[1]
    same = str(v.attribute("auto_pad", "NOTSET")).startswith("SAME")
    if same and any(window.dilation > 1 and window.kernel > 1 for window in sliding):
        raise v.unsupported(
            "SAME padding of dilated windows, which ONNX and ONNX Runtime pad differently"
        )
    kernel = [window.kernel for window in sliding]
    one = dtype_of(value).numpy().type(1)
    if isinstance(channels, int):
        ones = op.constant(np.full([channels, 1, *kernel], one))
        return input_gradient(v, value, ones, sliding, channels)
    sizes = (op.dim(v.y, axis) for axis in range(2, rank(v.y)))
    rows = op.Reshape(value, op.join(op.count(v.x, [0, 1]), [1], *sizes), allowzero=1)
    spread = input_gradient(v, rows, op.constant(np.full([1, 1, *kernel], one)), sliding, 1)
    return op.reshape_like(spread, v.x)


def _averaged(v: Vjp, sliding: Sequence[Window]) -> ir.Value:
    """How many elements each window averages: a scalar, or [1, 1, outputs...] where windows overlap the border."""
    padded = any(window.begin != 0 or window.end != 0 for window in sliding)
    include_pad = bool(v.attribute("count_include_pad", 0))
    whole = not v.attribute("ceil_mode", 0) and (include_pad or not padded)
    # Before opset 19, ONNX Runtime divides by the whole window even where it reaches beyond the padding.
    if whole and ((include_pad and v.op.opset < 19) or _fit(v, sliding)):
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
    if any(window.dilation > 1 for window in sliding):
        # Such a window may lie in the padding with all its taps.
        product = v.op.Max(product, v.op.ints(1))
    return v.op.cast(product, dtype_of(v.x))


def _fit(v: Vjp, sliding: Sequence[Window]) -> bool:
    """Whether the input with its padding surely holds a window: ONNX Runtime averages what there is of one, else."""
    for window, size in zip(sliding, dims(v.x)[2:], strict=True):
        if window.begin is None or window.end is None:
            continue  # padded to fit
        least = size if isinstance(size, int) else 1
        if window.begin + least + window.end < window.extent:
            return False
    return True


def _taps_inside(v: Vjp, axis: int, window: Window, include_pad: bool) -> ir.Value:
    """Per window along one axis, int64 [outputs]: taps inside the input (with its padding, if that counts)."""
    op = v.op
    if window.begin is None or window.end is None:
        extent = op.ints([window.extent])
        begin, end = same_padding_at_run_time(v, axis, window.stride, extent)
    else:
        begin, end = op.ints([window.begin]), op.ints([window.end])
    outputs = op.Squeeze(op.dim(v.y, 2 + axis), [0])
    first = op.Sub(op.Mul(op.Range(op.ints(0), outputs, op.ints(1)), [window.stride]), begin)
    offsets = np.arange(window.kernel, dtype=np.int64)[None] * window.dilation
    taps = op.Add(op.Unsqueeze(first, [1]), offsets)
    size = op.dim(v.x, 2 + axis)
    low, high = op.ints([0]), size
    if include_pad:
        low, high = op.Neg(begin), op.Add(size, end)
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
