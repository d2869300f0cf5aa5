"""RoiAlign (He et al., "Mask R-CNN", 2017) and MaxRoiPool (Girshick, "Fast R-CNN", 2015): regions pooled to one size.

Below, R counts regions, P the bins of one axis of a region, S the samples of a bin along that axis (as many as the
region with the most has), L the pixels of the axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.autodiff.rules.interpolation import linear_taps, wide
from igonnx.graph.builder import dims, dtype_of

_INT64 = ir.DataType.INT64


@dataclass(frozen=True)
class _Taps:
    """What the bins of every region read along one axis, K pixels per bin."""

    index: ir.Value  # int64 [R, P, K]
    weight: ir.Value  # [R, P, K]: zero for a place outside the image
    valid: ir.Value  # bool [R, P, K]: whether the bin has that many


@dataclass(frozen=True)
class _Samples:
    """The samples of every region along one axis, and what their places depend on."""

    place: ir.Value  # [R, P, S], in pixels
    along: ir.Value  # [R, P, S]: derivative of the place by the size of a bin
    count: ir.Value  # [R, 1, 1]: samples per bin, one at least
    valid: ir.Value  # bool, like [R, P, S]: which samples there are
    length_counts: ir.Value | None  # bool [R, 1, 1]: where the length is not the least there is
    pixels: ir.Value  # L as a real number, [1]
    bins: int  # P


@rule("RoiAlign")
def roi_align(v: Vjp) -> Gradients:
    """RoiAlign: averages give each pixel the weight it was read with; a maximum gives it to the largest term.

    The mean over a bin's samples is separable: Y[r] = A[r] X[b(r)] B[r]^T per channel, with A [P, height] and
    B [P, width] made from the regions. A term of the maximum is a pixel times its weight. The number of samples is
    piecewise constant in the region.
    """
    rows = _samples(v, 1, v.attribute("output_height", 1), 2)
    columns = _samples(v, 0, v.attribute("output_width", 1), 3)
    if v.attribute("mode", "avg") == "max":
        if v.wanted[1]:
            raise v.unsupported("the regions of RoiAlign with mode 'max'")
        taps = [_linear(v, samples, mean=False) for samples in (rows, columns)]
        return [_to_largest(v, taps[0], taps[1], _batch(v)), None, None]
    a = _weights(v, _linear(v, rows, mean=True), 2)
    b = _weights(v, _linear(v, columns, mean=True), 3)
    to_image = _averages_to_image(v, a, b) if v.wanted[0] else None
    to_rois = _averages_to_regions(v, a, b, rows, columns) if v.wanted[1] else None
    return [to_image, to_rois, None]


def _batch(v: Vjp) -> ir.Value:
    """The image of each region, int64 [R]."""
    return v.op.cast(v.input(2), _INT64)


def _half_pixel(v: Vjp) -> bool:
    return bool(v.attribute("coordinate_transformation_mode", "half_pixel") == "half_pixel")


def _samples(v: Vjp, column: int, bins: int, axis: int) -> _Samples:
    """The samples along `axis` of the image, whose ends are in columns `column` and `column + 2` of the regions."""
    op = v.op
    rois = wide(op, v.input(1))
    ends = [
        op.Mul(
            op.Unsqueeze(op.Gather(rois, op.ints([at]), axis=1), [2]),
            v.attribute("spatial_scale", 1.0),
        )
        for at in (column, column + 2)
    ]
    counts = None
    if _half_pixel(v):
        ends = [op.Sub(end, 0.5) for end in ends]
    start, length = ends[0], op.Sub(ends[1], ends[0])
    if not _half_pixel(v):
        counts = op.Greater(length, op.scalar(1.0, length))
        length = op.Max(length, op.scalar(1.0, length))
    bin_size = op.Div(length, float(bins))
    count, numbers, valid = _sample_numbers(v, bin_size)
    within = op.Div(op.Add(numbers, 0.5), count)
    positions = np.arange(bins, dtype=dtype_of(rois).numpy()).reshape(1, bins, 1)
    along = op.Add(op.constant(positions), within)
    place = op.Add(start, op.Mul(along, bin_size))
    pixels = op.cast(op.dim(v.x, axis), dtype_of(rois))
    return _Samples(place, along, count, valid, counts, pixels, bins)


def _sample_numbers(v: Vjp, bin_size: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Samples per bin [R, 1, 1], their numbers 0, 1, ... [1, 1, S], and which of them there are, [R, 1, S]."""
    op, ratio = v.op, v.attribute("sampling_ratio", 0)
    if ratio > 0:
        numbers = op.constant(np.arange(ratio, dtype=dtype_of(bin_size).numpy()).reshape(1, 1, -1))
        every = op.constant(np.ones((1, 1, 1), np.bool_))
        return op.scalar(float(ratio), bin_size), numbers, every
    count = op.Ceil(bin_size)
    one = op.constant(np.ones(1, dtype=dtype_of(bin_size).numpy()))
    most = op.reduce(
        "ReduceMax", op.Concat(op.Reshape(count, [-1]), one, axis=0), [0], keepdims=False
    )
    first = op.scalar(0.0, bin_size)
    numbers = op.Reshape(op.Range(first, most, op.scalar(1.0, bin_size)), [1, 1, -1])
    return op.Max(count, one), numbers, op.Less(numbers, count)


def _linear(v: Vjp, samples: _Samples, *, mean: bool) -> _Taps:
    """Linear interpolation: two pixels per sample, the last one beyond the border, none beyond one pixel from there."""
    op = v.op
    place, pixels = samples.place, samples.pixels
    zero = op.scalar(0.0, place)
    scale = op.Where(_seen(v, samples), op.scalar(1.0, place), zero)
    if mean:
        scale = op.Div(scale, samples.count)
    clipped = op.Max(op.Min(place, op.Sub(pixels, 1.0)), zero)
    taps = linear_taps(op, clipped, pixels, zeros=False)
    valid = op.Expand(samples.valid, op.Shape(place))
    return _Taps(
        op.Concat(*(tap.index for tap in taps), axis=2),
        op.Concat(*(op.Mul(tap.weight, scale) for tap in taps), axis=2),
        op.Concat(valid, valid, axis=2),
    )


def _seen(v: Vjp, samples: _Samples) -> ir.Value:
    """Which samples exist and lie in the image or less than a pixel beside it, bool [R, P, S]."""
    op, place = v.op, samples.place
    near = op.And(
        op.GreaterOrEqual(place, op.scalar(-1.0, place)), op.LessOrEqual(place, samples.pixels)
    )
    return cast("ir.Value", op.And(near, samples.valid))


def _weights(v: Vjp, taps: _Taps, axis: int) -> ir.Value:
    """The taps as a matrix per region, [R, P, L]."""
    op = v.op
    shape = op.join(op.dim(v.input(1), 0), op.dim(v.y, axis), op.dim(v.x, axis))
    return op.scatter_add(shape, taps.index, taps.weight, axis=2)


def _selection(v: Vjp, dtype: ir.DataType) -> ir.Value | None:
    """Which region belongs to which image, [N, R, 1, 1] of ones and zeros; None for a single image."""
    op = v.op
    if dims(v.x)[0] == 1:
        return None
    images = op.Unsqueeze(op.Range(op.ints(0), op.Squeeze(op.dim(v.x, 0), [0]), op.ints(1)), [1])
    return op.cast(op.Unsqueeze(op.Equal(images, _batch(v)), [2, 3]), dtype)


def _averages_to_image(v: Vjp, a: ir.Value, b: ir.Value) -> ir.Value:
    """dX[n] = sum over regions r of image n of A[r]^T dY[r] B[r], by one product over regions and rows of bins."""
    op = v.op
    n, channels, height, width = (op.dim(v.x, axis) for axis in range(4))
    dtype = dtype_of(a)
    spread = _times_columns(v, op.cast(v.g, dtype), b, width)
    chosen = _selection(v, dtype)
    rows = op.Unsqueeze(a, [0]) if chosen is None else op.Mul(op.Unsqueeze(a, [0]), chosen)
    rows = op.Reshape(rows, op.join(n, op.count(v.y, [0, 2]), height), allowzero=1)
    product = op.MatMul(op.Transpose(rows, perm=[0, 2, 1]), spread)
    product = op.Reshape(product, op.join(n, height, channels, width), allowzero=1)
    return op.cast(op.Transpose(product, perm=[0, 2, 1, 3]), dtype_of(v.x))


def _times_columns(v: Vjp, g: ir.Value, matrix: ir.Value, pixels: ir.Value) -> ir.Value:
    """`g` [R, C, P, Q] times `matrix` [R, Q, L], as rows of regions and bins: [R P, C L]."""
    op = v.op
    spread = op.Transpose(op.MatMul(g, op.Unsqueeze(matrix, [1])), perm=[0, 2, 1, 3])
    rows = op.ReduceProd(op.Slice(op.Shape(spread), [0], [2]), keepdims=1)
    return cast(
        "ir.Value", op.Reshape(spread, op.join(rows, op.Mul(op.dim(v.x, 1), pixels)), allowzero=1)
    )


def _averages_to_regions(
    v: Vjp, a: ir.Value, b: ir.Value, rows: _Samples, columns: _Samples
) -> ir.Value:
    """The regions' ends get what the places of their samples get."""
    op, dtype = v.op, dtype_of(a)
    g, image = op.cast(v.g, dtype), op.cast(v.x, dtype)
    height, width = op.dim(v.x, 2), op.dim(v.x, 3)
    by_a = _by_weights(v, _times_columns(v, g, b, width), op.Transpose(image, perm=[0, 1, 3, 2]), a)
    turned = op.Transpose(g, perm=[0, 1, 3, 2])
    by_b = _by_weights(v, _times_columns(v, turned, a, height), image, b)
    y1, y2 = _ends(v, rows, by_a)
    x1, x2 = _ends(v, columns, by_b)
    return op.cast(op.Concat(x1, y1, x2, y2, axis=1), dtype_of(v.input(1)))


def _by_weights(v: Vjp, spread: ir.Value, image: ir.Value, like: ir.Value) -> ir.Value:
    """The gradient of a weight matrix, [R, P, L], from `spread` [R P, C M] and `image` [N, C, M, L]."""
    op = v.op
    shape = op.Shape(image)
    flat = op.Reshape(
        image,
        op.join(
            op.dim(v.x, 0),
            op.ReduceProd(op.Slice(shape, [1], [3]), keepdims=1),
            op.Slice(shape, [3], [4]),
        ),
        allowzero=1,
    )
    products = op.MatMul(spread, flat)
    products = op.Reshape(products, op.join(op.dim(v.x, 0), op.Shape(like)), allowzero=1)
    chosen = _selection(v, dtype_of(like))
    if chosen is not None:
        products = op.Mul(products, chosen)
    return cast("ir.Value", op.ReduceSum(products, [0], keepdims=0))


def _ends(v: Vjp, samples: _Samples, by_weights: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Gradients of the regions' first and last coordinates along one axis, [R, 1] each."""
    op, place = v.op, samples.place
    zero, last = op.scalar(0.0, place), op.Sub(samples.pixels, 1.0)
    free = op.And(op.Greater(place, zero), op.Less(place, last))
    free = op.And(free, _seen(v, samples))
    low, high = linear_taps(op, op.Max(op.Min(place, last), zero), samples.pixels, zeros=False)
    picked = [op.GatherElements(by_weights, tap.index, axis=2) for tap in (high, low)]
    by_place = op.Where(free, op.Div(op.Sub(*picked), samples.count), zero)
    by_start = op.ReduceSum(by_place, [2, 1], keepdims=0)
    by_bin = op.ReduceSum(op.Mul(by_place, samples.along), [2, 1], keepdims=1)
    if samples.length_counts is not None:
        by_bin = op.Where(samples.length_counts, by_bin, zero)
    by_length = op.Div(op.Squeeze(by_bin, [1, 2]), float(samples.bins))
    scale = v.attribute("spatial_scale", 1.0)
    ends = op.Mul(op.Sub(by_start, by_length), scale), op.Mul(by_length, scale)
    return op.Unsqueeze(ends[0], [1]), op.Unsqueeze(ends[1], [1])


@rule("MaxRoiPool")
def max_roi_pool(v: Vjp) -> Gradients:
    """MaxRoiPool: each bin's gradient to its largest pixel; the regions, rounded to whole pixels, get none."""
    op = v.op
    rows, columns = v.attribute("pooled_shape")
    image = op.cast(op.Gather(v.input(1), op.ints(0), axis=1), _INT64)
    return [_to_largest(v, _whole(v, 2, rows, 2), _whole(v, 1, columns, 3), image), None]


def _whole(v: Vjp, column: int, bins: int, axis: int) -> _Taps:
    """The pixels of every bin along `axis`, for regions with ends in columns `column` and `column + 2`."""
    op = v.op
    rois = wide(op, v.input(1))
    scale = v.attribute("spatial_scale", 1.0)
    start, end = (
        _rounded(v, op.Mul(op.Unsqueeze(op.Gather(rois, op.ints([at]), axis=1), [2]), scale))
        for at in (column, column + 2)
    )
    bin_size = op.Div(op.Max(op.Add(op.Sub(end, start), 1.0), op.scalar(1.0, rois)), float(bins))
    numbers = np.arange(bins, dtype=dtype_of(rois).numpy()).reshape(1, bins, 1)
    pixels = op.cast(op.dim(v.x, axis), dtype_of(rois))
    zero = op.scalar(0.0, rois)
    first, last = (
        op.Max(op.Min(op.Add(edge, start), pixels), zero)
        for edge in (
            op.Floor(op.Mul(op.constant(numbers), bin_size)),
            op.Ceil(op.Mul(op.constant(numbers + 1), bin_size)),
        )
    )
    one = op.constant(np.ones(1, dtype=dtype_of(rois).numpy()))
    widths = op.Concat(op.Reshape(op.Sub(last, first), [-1]), one, axis=0)
    most = op.reduce("ReduceMax", widths, [0], keepdims=False)
    place = op.Add(first, op.Reshape(op.Range(zero, most, op.scalar(1.0, rois)), [1, 1, -1]))
    valid = op.Less(place, last)
    index = op.cast(op.Where(valid, place, zero), _INT64)
    return _Taps(index, op.cast(valid, dtype_of(rois)), valid)


def _rounded(v: Vjp, value: ir.Value) -> ir.Value:
    """Rounded to whole numbers, halves away from zero."""
    op = v.op
    return cast("ir.Value", op.Mul(op.Sign(value), op.Floor(op.Add(op.Abs(value), 0.5))))


def _to_largest(v: Vjp, rows: _Taps, columns: _Taps, image: ir.Value) -> ir.Value:
    """Each bin's gradient to the first of its largest terms, each a pixel times its weight."""
    op = v.op
    n, channels, height, width = (op.dim(v.x, axis) for axis in range(4))
    # [R, P rows, P columns, K rows, K columns], then one row of K K per bin.
    index = op.Add(op.Mul(_tall(v, rows.index), width), _broad(v, columns.index))
    base = op.Mul(op.Reshape(image, [-1, 1, 1, 1, 1]), op.Mul(height, width))
    bins = op.count(v.y, [0, 2, 3])
    terms = op.Slice(op.Shape(index), [3], [5])
    flat = op.join(bins, op.ReduceProd(terms, keepdims=1))
    index = op.Reshape(op.Add(index, base), flat, allowzero=1)
    weight = op.Mul(_tall(v, rows.weight), _broad(v, columns.weight))
    weight = op.cast(op.Reshape(weight, flat, allowzero=1), dtype_of(v.x))
    valid = op.And(_tall(v, rows.valid), _broad(v, columns.valid))
    valid = op.Reshape(valid, op.join(flat, [1]), allowzero=1)
    pixels = op.Reshape(
        op.Transpose(v.x, perm=[0, 2, 3, 1]),
        op.join(op.count(v.x, [0, 2, 3]), channels),
        allowzero=1,
    )
    values = op.Mul(op.Gather(pixels, index, axis=0), op.Unsqueeze(weight, [2]))
    values = op.Where(valid, values, op.scalar(-np.inf, values))
    largest = op.ArgMax(values, axis=1, keepdims=0)
    g = op.Reshape(op.Transpose(v.g, perm=[0, 2, 3, 1]), op.join(bins, channels), allowzero=1)
    g = op.Mul(g, op.GatherElements(weight, largest, axis=1))
    where = op.GatherElements(index, largest, axis=1)
    total = op.scatter_add(op.Shape(pixels), where, g, axis=0)
    total = op.Reshape(total, op.join(n, height, width, channels), allowzero=1)
    return cast("ir.Value", op.Transpose(total, perm=[0, 3, 1, 2]))


def _tall(v: Vjp, value: ir.Value) -> ir.Value:
    """[R, P, K] as [R, P, 1, K, 1]."""
    return cast("ir.Value", v.op.Unsqueeze(value, [2, 4]))


def _broad(v: Vjp, value: ir.Value) -> ir.Value:
    """[R, P, K] as [R, 1, P, 1, K]."""
    return cast("ir.Value", v.op.Unsqueeze(value, [1, 3]))
