"""Operators that pick, join or place elements: Gather, Slice, Split, Concat, Pad."""

from __future__ import annotations

from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.autodiff.builder import dims, dtype_of, rank
from igonnx.autodiff.registry import Gradients, Vjp, rule


@rule("Concat")
def concat(v: Vjp) -> Gradients:
    """Concat: each input gets its part of the gradient."""
    op, axis = v.op, v.attribute("axis") % rank(v.y)
    inputs = cast("list[ir.Value]", list(v.node.inputs))
    if len(inputs) == 1:
        return [v.g]
    sizes = op.join(*(op.dim(value, axis) for value in inputs))
    return cast("list[ir.Value | None]", op.Split(v.g, sizes, axis=axis, outputs=len(inputs)))


@rule("Split")
def split(v: Vjp) -> Gradients:
    """Split: the parts' gradients side by side, zeros for parts that got none."""
    op = v.op
    parts = [
        op.zeros(op.shape(part), dtype_of(part)) if gradient is None else gradient
        for part, gradient in zip(v.node.outputs, v.gradients, strict=True)
    ]
    return [op.Concat(*parts, axis=v.attribute("axis", 0)), None]


@rule("Slice")
def slice_(v: Vjp) -> Gradients:
    """Slice: the gradient at the places it was taken from, zeros elsewhere."""
    bounds = [v.constant(index) for index in (1, 2)]
    axes, steps = v.constant(3), v.constant(4)
    known = all(bound is not None for bound in bounds)
    known &= v.optional_input(3) is None or axes is not None
    known &= v.optional_input(4) is None or (steps is not None and bool((steps == 1).all()))
    if known:
        starts, ends = (cast("np.ndarray", bound).reshape(-1).tolist() for bound in bounds)
        sliced = list(range(len(starts))) if axes is None else [int(a) % rank(v.x) for a in axes]
        return [v.op.Pad(v.g, _slice_padding(v, sliced, starts, ends))] + [None] * 4
    return [_scatter_back(v, lambda positions: v.op.Slice(positions, *v.node.inputs[1:]))] + [
        None
    ] * 4


def _slice_padding(v: Vjp, axes: list[int], starts: list[int], ends: list[int]) -> ir.Value:
    """Zeros before and after each axis that undo a Slice of step 1, int64 [2 rank]."""
    op, n = v.op, rank(v.x)
    pads = [op.ints([0])] * (2 * n)
    for axis, start, end in zip(axes, starts, ends, strict=True):
        size = dims(v.x)[axis]
        if isinstance(size, int):
            first = min(max(start + size if start < 0 else start, 0), size)
            last = min(max(end + size if end < 0 else end, first), size)
            pads[axis], pads[n + axis] = op.ints([first]), op.ints([size - last])
        elif start != 0 or end < 2**31 - 1:
            pads[axis], pads[n + axis] = _padding_at_run_time(v, axis, start)
    return op.join(*pads)


def _padding_at_run_time(v: Vjp, axis: int, start: int) -> tuple[ir.Value, ir.Value]:
    """Zeros before and after one axis of unknown size, int64 [1] each; the axis may be shorter than the cut."""
    op = v.op
    size, kept = op.dim(v.x, axis), op.dim(v.y, axis)
    if start == 0:
        return op.ints([0]), op.Sub(size, kept)
    before = op.Max(op.Add(size, [start]), [0]) if start < 0 else op.Min(size, [start])
    return before, op.Sub(op.Sub(size, before), kept)


def _scatter_back(v: Vjp, pick: object) -> ir.Value:
    """Gradient of any operator that only picks elements: pick from the elements' positions, then add up there."""
    op = v.op
    count = op.count(v.x, list(range(rank(v.x))))
    positions = op.Range(op.ints(0), op.Squeeze(count, [0]), op.ints(1))
    positions = op.Reshape(positions, op.shape(v.x))
    positions.shape = v.x.shape
    picked, g = op.Reshape(pick(positions), [-1]), op.Reshape(v.g, [-1])  # type: ignore[operator]
    flat = op.scatter_add(count, picked, g)
    return op.reshape_like(flat, v.x)


@rule("Gather")
def gather(v: Vjp) -> Gradients:
    """Gather along an axis: gradients of the same index add up."""
    op, axis = v.op, v.attribute("axis", 0) % rank(v.x)
    indices = v.constant(1)
    if indices is not None and indices.size == 1:
        return [_gather_one(v, axis, int(indices.reshape(()))), None]
    # One axis of indices where there were several or none, and an index for every element.
    n, picked = rank(v.x), rank(v.input(1))
    sizes = [op.dim(v.x, i) for i in range(n)]
    sizes[axis] = op.count(v.input(1), range(picked))
    shape = op.join(*sizes)
    g = v.g if picked == 1 else op.Reshape(v.g, shape, allowzero=1)
    column = op.Reshape(v.input(1), [-1] + [1] * (n - 1 - axis))
    where = op.Expand(op.cast(column, ir.DataType.INT64), shape)
    return [op.scatter_add(op.shape(v.x), where, g, axis), None]


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


@rule("Pad")
def pad(v: Vjp) -> Gradients:
    """Pad with a constant: cut the padding off (negative padding: put zeros back); the constant gets what was cut."""
    op, mode = v.op, v.attribute("mode", "constant")
    if mode != "constant":
        axes = v.node.inputs[3:]
        return [_scatter_back(v, lambda p: op.Pad(p, v.input(1), None, *axes, mode=mode))]
    pads = v.constant(1)
    negated = op.ints((-pads.reshape(-1)).tolist()) if pads is not None else op.Neg(v.input(1))
    to_x = op.Pad(v.g, negated, None, v.optional_input(3))
    to_value = None
    if v.optional_input(2) is not None and v.wanted[2]:
        to_value = op.Sub(op.ReduceSum(v.g, keepdims=0), op.ReduceSum(to_x, keepdims=0))
        to_value = op.reshape_like(to_value, v.input(2))
    return [to_x, None, to_value, None]
