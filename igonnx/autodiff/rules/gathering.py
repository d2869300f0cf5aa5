"""Operators that pick elements by index, condition or order: the gradient goes back to the places they came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.graph.builder import GraphBuilder, dtype_of, rank


def scatter_back(v: Vjp, pick: Callable[[ir.Value], ir.Value]) -> ir.Value:
    """Gradient of any operator that only picks elements: pick from the elements' positions, then add up there.

    It needs to know nothing of x beforehand, not even its rank.
    """
    op = v.op
    unknown = v.x.shape is None
    count = op.Unsqueeze(op.Size(v.x), [0]) if unknown else op.count(v.x, range(rank(v.x)))
    positions = op.Reshape(counting(op, count), op.shape(v.x), allowzero=1)
    positions.shape = v.x.shape
    picked, g = op.Reshape(pick(positions), [-1]), op.Reshape(v.g, [-1])
    return op.reshape_like(op.scatter_add(count, picked, g), v.x)


def counting(op: GraphBuilder, count: ir.Value) -> ir.Value:
    """0, 1, ..., count - 1 of an int64 [1], int64 [count]."""
    return cast("ir.Value", op.Range(op.ints(0), op.Squeeze(count, [0]), op.ints(1)))


def add_along(v: Vjp, g: ir.Value, indices: ir.Value, axis: int, count: ir.Value) -> ir.Value:
    """Zeros of the shape of x, to which slice i of `g` along `axis` is added at `indices`[i]; `count` of them."""
    op, n = v.op, rank(v.x)
    sizes = [op.dim(v.x, i) for i in range(n)]
    sizes[axis] = count
    column = op.Reshape(indices, [-1] + [1] * (n - 1 - axis)) if axis < n - 1 else indices
    where = op.Expand(op.cast(column, ir.DataType.INT64), op.join(*sizes))
    return op.scatter_add(op.shape(v.x), where, g, axis)


@rule("GatherElements")
def gather_elements(v: Vjp) -> Gradients:
    """GatherElements, y[i][j] = x[indices[i][j]][j]: gradients of the same element add up."""
    axis = v.attribute("axis", 0)
    return [v.op.scatter_add(v.op.shape(v.x), v.input(1), v.g, axis), None]


@rule("GatherND")
def gather_nd(v: Vjp) -> Gradients:
    """GatherND, slices of x at tuples of indices: the node applied to the slices' numbers tells where they were."""
    op, batch = v.op, v.attribute("batch_dims", 0)
    indices = v.input(1)
    if any(value.shape is None for value in (v.x, indices, v.y)):
        return [scatter_back(v, lambda p: op.GatherND(p, indices, batch_dims=batch)), None]
    # The last axis of the indices is a tuple of `depth` places: rank(y) = rank(x) + rank(indices) - 1 - depth - batch.
    depth = rank(v.x) + rank(indices) - 1 - batch - rank(v.y)
    leading, inner = range(batch + depth), range(batch + depth, rank(v.x))
    numbers = numbered_slices(op, v.x, len(leading))
    picked = op.Reshape(op.GatherND(numbers, indices, batch_dims=batch), [-1])
    flat = scatter_slices(op, picked, v.g, op.count(v.x, leading), op.count(v.x, inner))
    return [op.reshape_like(flat, v.x), None]


def numbered_slices(op: GraphBuilder, x: ir.Value, leading: int) -> ir.Value:
    """The number of every slice of `x` over its first `leading` axes, int64 in the shape of those axes."""
    shape = op.shape(x)
    if leading < rank(x):
        shape = op.join(*(op.dim(x, axis) for axis in range(leading)))
    return cast(
        "ir.Value",
        op.Reshape(counting(op, op.count(x, range(leading))), shape, allowzero=1),
    )


def scatter_slices(
    op: GraphBuilder,
    picked: ir.Value,
    g: ir.Value,
    slices: ir.Value,
    width: ir.Value,
) -> ir.Value:
    """[slices, width] of zeros, to whose rows `picked`, int64 [n], `g` [n, width] in any shape is added."""
    rows = op.join(op.Shape(picked), width)
    where = op.Expand(op.Unsqueeze(picked, [1]), rows)
    return op.scatter_add(op.join(slices, width), where, op.Reshape(g, rows, allowzero=1))


@rule("Compress")
def compress(v: Vjp) -> Gradients:
    """Compress, the slices for which a condition (it may be too short) holds: zeros for the others."""
    op, axis = v.op, v.attribute("axis")
    if v.x.shape is None:
        given = {} if axis is None else {"axis": axis}
        return [
            scatter_back(v, lambda positions: op.Compress(positions, v.input(1), **given)),
            None,
        ]
    if axis is None:
        count = op.count(v.x, range(rank(v.x)))
        picked = op.Compress(counting(op, count), v.input(1), axis=0)
        return [op.reshape_like(op.scatter_add(count, picked, v.g), v.x), None]
    axis %= rank(v.x)
    picked = op.Compress(counting(op, op.dim(v.x, axis)), v.input(1), axis=0)
    return [add_along(v, v.g, picked, axis, op.Shape(picked)), None]


@rule("TopK")
def top_k(v: Vjp) -> Gradients:
    """TopK: the gradient of the values goes to where the second output says they were."""
    op, where = v.op, v.node.outputs[1]
    if not where.name:
        where.name = op.unique("TopK_indices")
        where.type, where.shape = ir.TensorType(ir.DataType.INT64), v.y.shape
    # No two indices along an axis are the same: nothing adds up.
    zeros = op.zeros(op.shape(v.x), dtype_of(v.x))
    return [op.ScatterElements(zeros, where, v.g, axis=v.attribute("axis", -1)), None]


@rule("ReverseSequence")
def reverse_sequence(v: Vjp) -> Gradients:
    """ReverseSequence turns the first n elements of each row around: it undoes itself."""
    given = {
        name: v.attribute(name)
        for name in ("batch_axis", "time_axis")
        if v.attribute(name) is not None
    }
    return [v.op.ReverseSequence(v.g, v.input(1), **given), None]


@rule("Unique")
def unique(v: Vjp) -> Gradients:
    """Unique: elements (or slices) that are equal share the gradient of the one that stands for them evenly."""
    op, axis = v.op, v.attribute("axis")
    given = {} if axis is None else {"axis": axis}
    _, _, inverse, counts = op.Unique(v.x, sorted=v.attribute("sorted", 1), outputs=4, **given)
    for value in (inverse, counts):
        value.type = ir.TensorType(ir.DataType.INT64)
    share = op.cast(counts, dtype_of(v.x))
    if axis is None:
        return [op.reshape_like(op.Gather(op.Div(v.g, share), inverse, axis=0), v.x)]
    axis %= rank(v.x)
    column = op.Reshape(share, [-1] + [1] * (rank(v.x) - 1 - axis))
    return [op.Gather(op.Div(v.g, column), inverse, axis=axis)]


@rule("OneHot")
def one_hot(v: Vjp) -> Gradients:
    """OneHot, values[1] where the index is and values[0] elsewhere: the sum of the gradient on and off."""
    op, values = v.op, v.input(2)
    off_on = op.constant(np.array([0, 1], dtype_of(values).numpy()))
    hot = op.OneHot(v.x, v.input(1), off_on, axis=v.attribute("axis", -1))
    hot.type = values.type
    on = op.ReduceSum(op.Mul(v.g, hot), keepdims=0)
    off = op.Sub(op.ReduceSum(v.g, keepdims=0), on)
    return [None, None, op.Concat(op.Unsqueeze(off, [0]), op.Unsqueeze(on, [0]), axis=0)]
