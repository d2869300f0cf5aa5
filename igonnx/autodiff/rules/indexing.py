"""Operators that join, part and pick along an axis: Concat, Split, Gather."""

from __future__ import annotations

from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.autodiff.rules.gathering import add_along, scatter_back
from igonnx.graph.builder import GraphBuilder, dtype_of, rank


@rule("Concat")
def concat(v: Vjp) -> Gradients:
    """Concat: each input gets its part of the gradient."""
    op, axis = v.op, v.attribute("axis")
    inputs = cast("list[ir.Value]", list(v.node.inputs))
    if len(inputs) == 1:
        return [v.g]
    sizes = op.join(*(_size(op, value, axis) for value in inputs))
    if sum(v.wanted) == 1 and sizes.const_value is not None:
        only = v.wanted.index(True)
        ends = np.cumsum(sizes.const_value.numpy())
        start, end = int(ends[only] - sizes.const_value.numpy()[only]), int(ends[only])
        part = op.Slice(v.g, [start], [end], [axis])
        return [part if wanted else None for wanted in v.wanted]
    return cast("list[ir.Value | None]", op.Split(v.g, sizes, axis=axis, outputs=len(inputs)))


def _size(op: GraphBuilder, value: ir.Value, axis: int) -> ir.Value:
    """One dimension, int64 [1], also of a value of unknown rank."""
    known = value.shape is not None
    return op.dim(value, axis) if known else cast("ir.Value", op.Gather(op.Shape(value), [axis]))


@rule("Split")
def split(v: Vjp) -> Gradients:
    """Split: the parts' gradients side by side, zeros for parts that got none."""
    op = v.op
    dtype = next(dtype_of(g) for g in v.gradients if g is not None)
    parts = [
        op.zeros(op.shape(part), dtype) if gradient is None else gradient
        for part, gradient in zip(v.node.outputs, v.gradients, strict=True)
    ]
    return [op.Concat(*parts, axis=v.attribute("axis", 0)), None]


@rule("Gather")
def gather(v: Vjp) -> Gradients:
    """Gather along an axis: gradients of the same index add up."""
    op, axis = v.op, v.attribute("axis", 0)
    if v.x.shape is None or v.input(1).shape is None:
        return [
            scatter_back(v, lambda positions: op.Gather(positions, v.input(1), axis=axis)),
            None,
        ]
    axis, indices = axis % rank(v.x), v.constant(1)
    if indices is not None and indices.size == 1:
        return [_gather_one(v, axis, int(indices.reshape(()))), None]
    # One axis of indices where there were several or none.
    flat, g, picked = v.input(1), v.g, rank(v.input(1))
    count = op.count(flat, range(picked))
    if picked != 1:
        sizes = [op.dim(v.x, i) for i in range(rank(v.x))]
        sizes[axis] = count
        g, flat = op.Reshape(g, op.join(*sizes), allowzero=1), op.Reshape(flat, [-1])
    return [add_along(v, g, flat, axis, count), None]


def _gather_one(v: Vjp, axis: int, index: int) -> ir.Value:
    """Gather of one constant index: the gradient in its place, zeros around."""
    op, n = v.op, rank(v.x)
    picked = rank(v.input(1))
    g = op.Unsqueeze(v.g, [axis]) if picked == 0 else v.g
    if picked > 1:
        g = op.Squeeze(g, list(range(axis, axis + picked - 1)))
    size = op.dim(v.x, axis)
    behind = op.ints([-index - 1]) if index < 0 else op.Sub(size, [index + 1])
    before = op.Add(size, [index]) if index < 0 else op.ints([index])
    if size.const_value is not None:
        total = int(size.const_value.numpy()[0])
        before, behind = op.ints([index % total]), op.ints([total - 1 - index % total])
    zeros = [0] * (n - 1)
    pads = op.join([*zeros[:axis]], before, zeros, behind, zeros[axis:])
    return cast("ir.Value", op.Pad(g, pads))
