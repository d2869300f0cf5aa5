"""Operators that put elements into a tensor: ScatterElements, ScatterND, TensorScatter.

Where places are written twice without a reduction, ONNX leaves the result open; every update then gets the gradient of
its place, as in PyTorch.
"""

from __future__ import annotations

from typing import cast

import onnx_ir as ir

from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.autodiff.rules.gathering import counting, numbered_slices
from igonnx.graph.builder import GraphBuilder, dtype_of, rank

_Pair = tuple["ir.Value | None", "ir.Value | None"]


@rule("ScatterElements")
def scatter_elements(v: Vjp) -> Gradients:
    """ScatterElements, y = x with y[indices[i][j]][j] replaced by, or reduced with, updates[i][j]."""
    axis, reduction = v.attribute("axis", 0), v.attribute("reduction", "none")
    scattered = _Scattered(v, v.x, v.input(1), v.input(2), v.y, v.g, axis)
    to_x, to_updates = scattered.gradients(reduction)
    return [to_x, None, to_updates]


@rule("ScatterND")
def scatter_nd(v: Vjp) -> Gradients:
    """ScatterND, x with its slices at tuples of indices replaced by, or reduced with, those of the updates."""
    op, reduction = v.op, v.attribute("reduction", "none")
    x, indices, updates = (v.input(i) for i in range(3))
    to_x: ir.Value | None = None
    if reduction in ("none", "add"):
        if v.wanted[0]:
            zeros = op.zeros(op.shape(updates), dtype_of(updates))
            to_x = v.g if reduction == "add" else op.ScatterND(v.g, indices, zeros)
        return [to_x, None, op.GatherND(v.g, indices) if v.wanted[2] else None]
    # Slices in rows; ONNX Runtime's reductions by ScatterND lose terms, those by ScatterElements do not.
    depth = rank(x) + rank(indices) - 1 - rank(updates)
    width = op.count(x, range(depth, rank(x)))
    picked = op.Reshape(op.GatherND(numbered_slices(op, x, depth), indices), [-1])
    rows = op.join(op.Shape(picked), width)
    whole = op.join(op.count(x, range(depth)), width)
    flat_x, flat_y, flat_g = (op.Reshape(value, whole, allowzero=1) for value in (x, v.y, v.g))
    where = op.Expand(op.Unsqueeze(picked, [1]), rows)
    flat_updates = op.Reshape(updates, rows, allowzero=1)
    scattered = _Scattered(v, flat_x, where, flat_updates, flat_y, flat_g, 0)
    to_x, to_updates = scattered.gradients(reduction)
    return [
        None if to_x is None else op.reshape_like(to_x, x),
        None,
        None if to_updates is None else op.reshape_like(to_updates, updates),
    ]


class _Scattered:
    """`updates` scattered into `x` at `indices` along `axis` gave `y`, whose gradient is `g`."""

    def __init__(
        self,
        v: Vjp,
        x: ir.Value,
        indices: ir.Value,
        updates: ir.Value,
        y: ir.Value,
        g: ir.Value,
        axis: int,
    ) -> None:
        self.v, self.op, self.axis = v, v.op, axis
        self.x, self.indices, self.updates, self.y, self.g = x, indices, updates, y, g
        self.wanted = v.wanted[0], v.wanted[2]

    def gradients(self, reduction: str) -> _Pair:
        """By x and by the updates, where wanted."""
        if reduction == "none":
            return self._replaced()
        if reduction == "add":
            return self.g, self._at(self.g) if self.wanted[1] else None
        if reduction == "mul":
            return self._multiplied()
        if reduction in ("max", "min"):
            return self._extremum()
        raise self.v.unsupported(f"reduction {reduction!r}")

    def _replaced(self) -> _Pair:
        op, to_x = self.op, None
        if self.wanted[0]:
            zeros = op.zeros(op.shape(self.updates), dtype_of(self.updates))
            to_x = op.ScatterElements(self.g, self.indices, zeros, axis=self.axis)
        return to_x, self._at(self.g) if self.wanted[1] else None

    def _multiplied(self) -> _Pair:
        """Each factor gets the product of the others; one that is zero is left out rather than divided by."""
        op = self.op
        to_x = to_updates = None
        if self.wanted[0]:
            ones = op.Expand(op.scalar(1, self.x), op.shape(self.x))
            to_x = op.Mul(self.g, self._onto(ones, self.updates, "mul"))
        if self.wanted[1]:
            is_zero = op.Equal(self.updates, op.scalar(0, self.updates))
            factors = op.Where(is_zero, op.scalar(1, self.updates), self.updates)
            product = self._onto(self.x, factors, "mul")
            zero = op.cast(is_zero, dtype_of(self.updates))
            zeros = op.scatter_add(op.shape(self.x), self.indices, zero, self.axis)
            alone = op.Equal(self._at(zeros), zero)  # no other update of this place is zero
            others = op.Div(self._at(op.Mul(self.g, product)), factors)
            to_updates = op.Where(alone, others, op.scalar(0, others))
        return to_x, to_updates

    def _extremum(self) -> _Pair:
        """All that equal the extremum, updates and what was there, share evenly (as torch.scatter_reduce)."""
        op, dtype = self.op, dtype_of(self.y)
        stays = op.cast(op.Equal(self.x, self.y), dtype)
        chosen = op.cast(op.Equal(self.updates, self._at(self.y)), dtype)
        ties = self._onto(stays, chosen, "add")
        # Where nothing ties, what was there is NaN, as is its gradient.
        share = op.Div(self.g, ties)
        to_x = op.Mul(stays, share) if self.wanted[0] else None
        return to_x, op.Mul(chosen, self._at(share)) if self.wanted[1] else None

    def _at(self, value: ir.Value) -> ir.Value:
        """The elements of `value`, shaped as x, at the updates' places."""
        return cast("ir.Value", self.op.GatherElements(value, self.indices, axis=self.axis))

    def _onto(self, base: ir.Value, updates: ir.Value, reduction: str) -> ir.Value:
        """`updates` scattered into `base`; half precision by way of float32, for which there are kernels."""
        op, dtype = self.op, dtype_of(updates)
        half = dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
        wide = ir.DataType.FLOAT if half else dtype
        base, updates = op.cast(base, wide), op.cast(updates, wide)
        total = op.ScatterElements(base, self.indices, updates, axis=self.axis, reduction=reduction)
        return op.cast(total, dtype)


@rule("TensorScatter")
def tensor_scatter(v: Vjp) -> Gradients:
    """TensorScatter writes updates [B, ..., S, ...] into a cache [B, ..., M, ...], from each example's own place.

    The same node applied to the numbers of the places along that axis tells which ones it wrote.
    """
    op, updates, n = v.op, v.input(1), rank(v.x)
    axis = v.attribute("axis", -2) % n
    where = _written(v, op, axis)
    where = op.Expand(where, op.shape(updates))
    to_x = to_updates = None
    if v.wanted[0]:
        zeros = op.zeros(op.shape(updates), dtype_of(updates))
        to_x = op.ScatterElements(v.g, where, zeros, axis=axis)
    if v.wanted[1]:
        to_updates = op.GatherElements(v.g, where, axis=axis)
    return [to_x, to_updates, None]


def _written(v: Vjp, op: GraphBuilder, axis: int) -> ir.Value:
    """The places along `axis` that were written, int64 [B, 1, ..., S, ..., 1]; `write_indices` [B] default to 0."""
    n = rank(v.x)
    steps = counting(op, op.dim(v.input(1), axis))
    steps = op.Reshape(steps, [-1] + [1] * (n - 1 - axis)) if axis < n - 1 else steps
    first = v.optional_input(2)
    if first is not None:
        steps = op.Add(op.Reshape(first, [-1] + [1] * (n - 1)), steps)
    if v.attribute("mode", "linear") == "circular":
        steps = op.Mod(steps, op.dim(v.x, axis))
    return steps
