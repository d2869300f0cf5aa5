"""Operators that lay small pieces out in an image: Col2Im and MaxUnpool. Their gradients read the image there."""

from __future__ import annotations

import math
from typing import cast

import onnx_ir as ir

from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.graph.builder import dtype_of, static_shape


@rule("Col2Im")
def col2im(v: Vjp) -> Gradients:
    """Col2Im adds blocks up where they overlap: each block's gradient is what lies there (im2col)."""
    op = v.op
    known = static_shape(v.input(1))
    if known is None:
        raise v.unsupported("Col2Im in an unknown number of dimensions")
    n = known[0]
    pads = v.attribute("pads") or [0] * (2 * n)
    around = [0, 0, *pads[:n], 0, 0, *pads[n:]]
    image = op.Pad(v.g, op.ints(around)) if any(pads) else v.g
    pixels = op.ReduceProd(op.Slice(op.Shape(image), [2], [2 + n]), keepdims=1)
    flat = op.Reshape(image, op.join(op.dim(v.x, 0), _channels(v), pixels), allowzero=1)
    return [op.reshape_like(op.Gather(flat, _places(v, n, pads), axis=2), v.x), None, None]


def _channels(v: Vjp) -> ir.Value:
    """Channels of the image, int64 [1]."""
    op = v.op
    block = op.ReduceProd(op.cast(v.input(2), ir.DataType.INT64), keepdims=1)
    return cast("ir.Value", op.Div(op.dim(v.x, 1), block))


def _places(v: Vjp, n: int, pads: list[int]) -> ir.Value:
    """Where in the flattened padded image each element of a block lies, int64 [block..., blocks...]."""
    op = v.op
    strides = v.attribute("strides") or [1] * n
    dilations = v.attribute("dilations") or [1] * n
    total = None
    for axis in range(n):
        taps = op.cast(op.Gather(v.input(2), op.ints(axis)), ir.DataType.INT64)
        size = op.cast(op.Gather(v.input(1), op.ints(axis)), ir.DataType.INT64)
        size = op.Add(size, op.ints(pads[axis] + pads[n + axis]))
        extent = op.Add(op.Mul(op.Sub(taps, op.ints(1)), op.ints(dilations[axis])), op.ints(1))
        last = op.Sub(size, extent)
        offsets = op.Mul(op.Range(op.ints(0), taps, op.ints(1)), op.ints(dilations[axis]))
        firsts = op.Range(op.ints(0), op.Add(last, op.ints(1)), op.ints(strides[axis]))
        ones = [1] * n
        offsets = op.Reshape(offsets, [*ones[:axis], -1, *ones[axis + 1 :], *ones])
        firsts = op.Reshape(firsts, [*ones, *ones[:axis], -1, *ones[axis + 1 :]])
        place = op.Add(offsets, firsts)
        total = place if total is None else op.Add(op.Mul(total, size), place)
    return cast("ir.Value", total)


@rule("MaxUnpool")
def max_unpool(v: Vjp) -> Gradients:
    """MaxUnpool: each value gets what its place gets; where several share one, the last of them does."""
    op = v.op
    indices = op.Reshape(v.input(1), [-1])
    g = op.Gather(op.Reshape(v.g, [-1]), indices, axis=0)
    known = static_shape(v.x)
    count = op.ints(math.prod(known)) if known is not None else op.Squeeze(op.Shape(indices), [0])
    own = op.Range(op.ints(0), count, op.ints(1))
    places = op.zeros(op.Shape(op.Reshape(v.g, [-1])), ir.DataType.INT64)
    owner = op.Gather(op.ScatterElements(places, indices, own, axis=0), indices, axis=0)
    g = op.Where(op.Equal(owner, own), g, op.scalar(0.0, g))
    result = op.reshape_like(g, v.x)
    return [op.cast(result, dtype_of(v.x)), None, None]
