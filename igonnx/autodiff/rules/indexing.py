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
        pads = _slice_padding(v, sliced, starts, ends)
        if pads is not None:
            return [v.op.Pad(v.g, pads)] + [None] * 4
    return [_scatter_back(v, lambda positions: v.op.Slice(positions, *v.node.inputs[1:]))] + [
        None
    ] * 4


def _slice_padding(v: Vjp, axes: list[int], starts: list[int], ends: list[int]) -> list[int] | None:
    """Zeros before and after each axis that undo a Slice of step 1, or None where they depend on unknown sizes."""
    n = rank(v.x)
    pads = [0] * (2 * n)
    for axis, start, end in zip(axes, starts, ends, strict=True):
        size = dims(v.x)[axis]
        if isinstance(size, int):
            first = min(max(start + size if start < 0 else start, 0), size)
            last = min(max(end + size if end < 0 else end, first), size)
            pads[axis], pads[n + axis] = first, size - last
        elif start >= 0 and end < 0 and end > -(2**31):
            pads[axis], pads[n + axis] = start, -end
        elif start >= 0 and end >= 2**31 - 1:
            # Holds as long as the axis is at least `start` long.
            pads[axis] = start
        else:
            return None
    return pads


def _scatter_back(v: Vjp, pick: object) -> ir.Value:
    """Gradient of any operator that only picks elements: pick from the elements' positions, then add up there."""
    op = v.op
    count = op.count(v.x, list(range(rank(v.x))))
    positions = op.Range(op.ints(0), op.Squeeze(count, [0]), op.ints(1))
    positions = op.Reshape(positions, op.shape(v.x))
    positions.shape = v.x.shape
    picked = pick(positions)  # type: ignore[operator]
    flat = op.ScatterElements(
        op.zeros(count, dtype_of(v.x)),
        op.Reshape(picked, [-1]),
        op.Reshape(v.g, [-1]),
        axis=0,
        reduction="add",
    )
    return op.reshape_like(flat, v.x)


@rule("Gather")
def gather(v: Vjp) -> Gradients:
    """Gather along an axis: gradients of the same index add up."""
    op, axis = v.op, v.attribute("axis", 0) % rank(v.x)
    indices = v.constant(1)
    if indices is not None and indices.size == 1:
        return [_gather_one(v, axis, int(indices.reshape(()))), None]
    # Bring the gathered axes to the front, add rows up there, and bring the axis back to its place.
    n, picked = rank(v.x), rank(v.input(1))
    order = [*range(axis, axis + picked), *range(axis), *range(axis + picked, n - 1 + picked)]
    g = v.g if axis == 0 else op.Transpose(v.g, perm=order)
    rest = [i for i in range(n) if i != axis]
    row = op.join(*(op.dim(v.x, i) for i in rest)) if rest else op.ints([])
    g = op.Reshape(g, op.join([-1], row))
    flat = op.cast(op.Reshape(v.input(1), [-1, 1]), ir.DataType.INT64)
    zeros = op.zeros(op.join(op.dim(v.x, axis), row), dtype_of(v.x))
    total = op.ScatterND(zeros, flat, g, reduction="add")
    if axis:
        total = op.Transpose(total, perm=[*range(1, axis + 1), 0, *range(axis + 1, n)])
    return [total, None]


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
