"""DeformConv: a convolution whose taps are moved by offsets (Dai et al., 2017), with a mask (Zhu et al., 2019).

It is a product of the weights with columns of interpolated pixels, so each gradient is a product or an interpolation
turned around. N counts images, D groups of offsets, C channels, K taps of the kernel, P places of the output, M pixels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.autodiff.rules.interpolation import (
    Tap,
    gradient_by_image,
    gradient_by_place,
    interpolated,
    linear_taps,
    wide,
)
from igonnx.graph.builder import dims, dtype_of, rank


@dataclass(frozen=True)
class _Layout:
    """What the gradients of one node share."""

    kernel: tuple[int, ...]
    sizes: Sequence[ir.Value]  # of the image's axes, int64 [1]
    axes: Sequence[Sequence[Tap]]  # linear taps per axis, [N D, K P]
    image: ir.Value  # [N D, M, C / D]
    mask: ir.Value | None  # [N D, K P, 1]

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)


@rule("DeformConv")
def deform_conv(v: Vjp) -> Gradients:
    """DeformConv: by image, weights, offsets, bias and mask; the kernel is not moved where an offset is whole."""
    op = v.op
    layout = _layout(v)
    gradients: list[ir.Value | None] = [None] * 5
    wanted = [*v.wanted, *[False] * (5 - len(v.wanted))]
    if wanted[0] or wanted[2] or wanted[4]:
        columns = _by_columns(v, layout)  # [N D, C / D, K P]
        masked = (
            columns
            if layout.mask is None
            else op.Mul(columns, op.Transpose(layout.mask, perm=[0, 2, 1]))
        )
        if wanted[0]:
            shape = op.Gather(op.Shape(layout.image), [0, 2, 1], axis=0)
            whole = gradient_by_image(op, layout.axes, layout.sizes, masked, shape)
            gradients[0] = op.reshape_like(whole, v.x)
        if wanted[2]:
            gradients[2] = _by_offset(v, layout, masked)
        if wanted[4]:
            values = interpolated(op, layout.axes, layout.sizes, layout.image)
            met = op.Mul(values, op.Transpose(columns, perm=[0, 2, 1]))
            gradients[4] = op.reshape_like(op.ReduceSum(met, [2], keepdims=0), v.input(4))
    if wanted[1]:
        gradients[1] = _by_weight(v, layout)
    if wanted[3]:
        gradients[3] = op.ReduceSum(v.g, [0, *range(2, rank(v.g))], keepdims=0)
    return gradients[: len(v.node.inputs)]


def _layout(v: Vjp) -> _Layout:
    op, n = v.op, rank(v.x) - 2
    kernel = _kernel(v)
    taps = math.prod(kernel)
    groups = op.join(op.Mul(op.dim(v.x, 0), [v.attribute("offset_group", 1)]))
    places = op.count(v.y, range(2, 2 + n))
    moved = op.Reshape(wide(op, v.input(2)), op.join(groups, [taps, n], places), allowzero=1)
    sizes = [op.dim(v.x, 2 + axis) for axis in range(n)]
    flat = op.join(groups, op.Mul(places, [taps]))
    axes = []
    for axis, size in enumerate(sizes):
        offset = op.Gather(moved, op.ints(axis), axis=2)  # [N D, K, P]
        place = op.Add(offset, op.cast(_regular(v, kernel, axis), dtype_of(moved)))
        coordinate = op.Reshape(place, flat, allowzero=1)
        axes.append(linear_taps(op, coordinate, op.cast(size, dtype_of(moved)), zeros=True))
    mask = None
    if v.optional_input(4) is not None:
        mask = op.Reshape(v.input(4), op.join(flat, [1]), allowzero=1)
    return _Layout(
        kernel, sizes, axes, op.Transpose(_grouped_image(v, groups), perm=[0, 2, 1]), mask
    )


def _kernel(v: Vjp) -> tuple[int, ...]:
    sizes = v.attribute("kernel_shape") or dims(v.input(1))[2:]
    if not all(isinstance(size, int) for size in sizes):
        raise v.unsupported("DeformConv with a kernel of unknown size")
    return tuple(cast("Sequence[int]", sizes))


def _grouped_image(v: Vjp, groups: ir.Value) -> ir.Value:
    """The image, [N D, C / D, M]."""
    op = v.op
    channels = op.Div(op.dim(v.x, 1), [v.attribute("offset_group", 1)])
    pixels = op.count(v.x, range(2, rank(v.x)))
    return cast("ir.Value", op.Reshape(v.x, op.join(groups, channels, pixels), allowzero=1))


def _regular(v: Vjp, kernel: tuple[int, ...], axis: int) -> ir.Value:
    """Where along one axis the taps lie before they are moved, int64 [K, P]."""
    op, n = v.op, len(kernel)
    stride = (v.attribute("strides") or [1] * n)[axis]
    dilation = (v.attribute("dilations") or [1] * n)[axis]
    pad = (v.attribute("pads") or [0] * (2 * n))[axis]
    # Of all taps in row-major order, the index along this axis.
    offsets = np.array([tap[axis] for tap in itertools.product(*map(range, kernel))]) * dilation
    count = op.Squeeze(op.dim(v.y, 2 + axis), [0])
    first = op.Sub(op.Mul(op.Range(op.ints(0), count, op.ints(1)), [stride]), [pad])
    first = op.Reshape(first, [-1 if other == axis else 1 for other in range(n)], allowzero=0)
    spread = op.Reshape(op.Expand(first, op.join(*(op.dim(v.y, 2 + i) for i in range(n)))), [1, -1])
    return cast("ir.Value", op.Add(op.constant(offsets.astype(np.int64)[:, None]), spread))


def _grouped(v: Vjp) -> tuple[ir.Value, ir.Value]:
    """For G groups of the convolution: the weights [G, O / G, C K / G], and the gradient [N, G, O / G, P]."""
    op, group = v.op, v.attribute("group", 1)
    weight = v.input(1)
    outputs = op.Div(op.dim(weight, 0), [group])
    terms = op.count(weight, range(1, rank(weight)))
    weights = op.Reshape(weight, op.join([group], outputs, terms))
    places = op.count(v.y, range(2, rank(v.y)))
    g = op.Reshape(v.g, op.join(op.dim(v.y, 0), [group], outputs, places), allowzero=1)
    return weights, g


def _by_columns(v: Vjp, layout: _Layout) -> ir.Value:
    """The gradient of the columns, [N D, C / D, K P]: the transposed weights times that of the output."""
    op = v.op
    weights, g = _grouped(v)
    weights = op.Unsqueeze(op.Transpose(weights, perm=[0, 2, 1]), [0])
    many = op.Expand(weights, op.join(op.dim(v.y, 0), [1, 1, 1]))
    product = op.MatMul(many, g)  # [N, G, C K / G, P]
    image = op.Shape(layout.image)
    places = op.Mul(op.count(v.y, range(2, rank(v.y))), [layout.taps])
    shape = op.join(op.Gather(image, [0, 2], axis=0), places)
    return cast("ir.Value", op.Reshape(product, shape, allowzero=1))


def _by_offset(v: Vjp, layout: _Layout, masked: ir.Value) -> ir.Value:
    op = v.op
    g = op.Transpose(masked, perm=[0, 2, 1])
    found = gradient_by_place(op, layout.axes, layout.sizes, layout.image, g)
    groups = op.Gather(op.Shape(layout.image), [0], axis=0)
    shape = op.join(groups, [layout.taps, 1], op.count(v.y, range(2, rank(v.y))))
    parts = [op.Reshape(part, shape, allowzero=1) for part in found]
    joined = op.cast(op.Concat(*parts, axis=2), dtype_of(v.input(2)))
    return op.reshape_like(joined, v.input(2))


def _by_weight(v: Vjp, layout: _Layout) -> ir.Value:
    """The gradient of the output times the columns, summed over images and places."""
    op = v.op
    g = _grouped(v)[1]
    values = interpolated(op, layout.axes, layout.sizes, layout.image)  # [N D, K P, C / D]
    if layout.mask is not None:
        values = op.Mul(values, layout.mask)
    values = op.Transpose(values, perm=[0, 2, 1])
    terms = op.count(v.input(1), range(1, rank(v.input(1))))
    places = op.count(v.y, range(2, rank(v.y)))
    columns = op.Reshape(
        values, op.join(op.dim(v.x, 0), [v.attribute("group", 1)], terms, places), allowzero=1
    )
    product = op.MatMul(g, op.Transpose(columns, perm=[0, 1, 3, 2]))
    return op.reshape_like(op.ReduceSum(product, [0], keepdims=0), v.input(1))
