"""Undoing numpy-style broadcasting (https://onnx.ai/onnx/repo-docs/Broadcasting.html) in a gradient."""

from __future__ import annotations

from typing import cast

import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder, dims, rank, static_shape

__all__ = ["broadcast_to", "unbroadcast"]


def unbroadcast(
    op: GraphBuilder, gradient: ir.Value, source: ir.Value, target: ir.Value
) -> ir.Value:
    """Sum `gradient`, which has the shape of `source`, over the axes along which `target` was broadcast to it.

    Symbolic dimensions of the same name are equal. Where names do not settle it, the axes are found at run time.
    """
    if source.shape is None or target.shape is None:
        return _unbroadcast_unknown_ranks(op, gradient, source, target)
    lead = rank(source) - rank(target)
    pairs = list(zip(dims(source)[lead:], dims(target), strict=True))
    if all(a == b and a is not None for a, b in pairs) and lead == 0:
        return gradient
    unsettled = [i for i, (a, b) in enumerate(pairs) if a != 1 and b != 1 and (a is None or a != b)]
    if unsettled:
        return _unbroadcast_at_run_time(op, gradient, source, target)
    axes = [*range(lead), *(lead + i for i, (a, b) in enumerate(pairs) if b == 1 and a != 1)]
    if not axes:
        return gradient
    total = cast("ir.Value", op.ReduceSum(gradient, axes, keepdims=1))
    if lead:
        total = cast("ir.Value", op.Squeeze(total, list(range(lead))))
    total.shape = target.shape
    return total


def _unbroadcast_at_run_time(
    op: GraphBuilder, gradient: ir.Value, source: ir.Value, target: ir.Value
) -> ir.Value:
    lead = rank(source) - rank(target)
    shape = op.join([1] * lead, op.shape(target)) if lead else op.shape(target)
    differs = op.Not(op.Equal(op.shape(source), shape))
    axes = op.Reshape(op.NonZero(differs), [-1])
    total = op.ReduceSum(gradient, axes, keepdims=1, noop_with_empty_axes=1)
    total.shape = ir.Shape([None] * rank(source))
    return op.reshape_like(total, target)


def _unbroadcast_unknown_ranks(
    op: GraphBuilder, gradient: ir.Value, source: ir.Value, target: ir.Value
) -> ir.Value:
    full, shape = op.Shape(source), op.Shape(target)
    lead = op.Sub(op.Shape(full), op.Shape(shape))
    aligned = op.Concat(op.Expand(op.ints([1]), lead), shape, axis=0)
    axes = op.Reshape(op.NonZero(op.Not(op.Equal(full, aligned))), [-1])
    total = op.ReduceSum(gradient, axes, keepdims=1, noop_with_empty_axes=1)
    return cast("ir.Value", op.Reshape(total, shape, allowzero=1))


def broadcast_to(op: GraphBuilder, value: ir.Value, target: ir.Value) -> ir.Value:
    """Expand `value` to the shape of `target`."""
    known = static_shape(target)
    if known is not None and 0 in known and value.dtype is not None:
        # ONNX Runtime 1.31 takes an Expand to no elements at all for one that changes nothing.
        nothing = op.zeros(op.ints(known), value.dtype)
        nothing.shape = target.shape
        return nothing
    result = cast("ir.Value", op.Expand(value, op.shape(target)))
    result.shape = target.shape
    return result
