"""Reductions: the gradient is spread back over the reduced axes."""

from __future__ import annotations

import math
from typing import cast

import onnx_ir as ir

from igonnx.autodiff.broadcasting import broadcast_to
from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.graph.builder import dtype_of, rank, static_shape


def _kept(v: Vjp, value: ir.Value) -> ir.Value:
    """`value`, shaped as the output, with the reduced axes put back as ones."""
    if v.attribute("keepdims", 1) or _leaves_as_is(v):
        return value
    axes = v.axes()
    if axes is None and v.optional_input(1) is not None:
        return cast("ir.Value", v.op.Unsqueeze(value, v.input(1)))
    if not axes:  # one number is left, which broadcasts as it is
        return value
    return cast("ir.Value", v.op.Unsqueeze(value, sorted(axes)))


def _leaves_as_is(v: Vjp) -> bool:
    """Whether the node reduces nothing: no axes, and told to do nothing then (the function is still applied)."""
    axes = v.axes()
    return bool(v.attribute("noop_with_empty_axes", 0)) and (
        axes == [] or (axes is None and v.optional_input(1) is None)
    )


@rule("ReduceSum")
def reduce_sum(v: Vjp) -> Gradients:
    """ReduceSum: g everywhere."""
    if _leaves_as_is(v):
        return [v.g, None]
    return [broadcast_to(v.op, _kept(v, v.g), v.x), None]


@rule("ReduceMean")
def reduce_mean(v: Vjp) -> Gradients:
    """ReduceMean: g over the number of elements averaged."""
    if _leaves_as_is(v) or static_shape(v.x) == ():
        return [v.g, None]
    op, g, axes = v.op, _kept(v, v.g), v.axes()
    if axes is None and v.optional_input(1) is not None:
        # Counted, since axes known only at run time may turn out to be none: all, or nothing at all.
        averaged = op.Div(op.Size(v.x), op.Max(op.Size(v.y), op.ints(1)))
    elif not axes:
        averaged = op.Size(v.x) if static_shape(v.x) is None else op.count(v.x, range(rank(v.x)))
    else:
        averaged = op.count(v.x, axes)
    return [broadcast_to(op, op.Div(g, op.cast(averaged, dtype_of(v.x))), v.x), None]


@rule("ReduceMax", "ReduceMin")
def reduce_extremum(v: Vjp) -> Gradients:
    """ReduceMax, ReduceMin: g at the extremum, in equal parts where elements tie (as torch.amax)."""
    if _leaves_as_is(v):
        return [v.g, None]
    op = v.op
    chosen = op.cast(op.Equal(v.x, _kept(v, v.y)), dtype_of(v.x))
    ties = _again(v, "ReduceSum", chosen)
    return [op.Mul(chosen, op.Div(_kept(v, v.g), ties)), None]


def _again(v: Vjp, op_type: str, value: ir.Value) -> ir.Value:
    """`value`, shaped as x, reduced by `op_type` over the node's own axes, which stay as ones."""
    axes = v.axes()
    if axes is None and v.optional_input(1) is not None:
        noop = v.attribute("noop_with_empty_axes", 0)
        reduced = v.op.emit(op_type, value, v.input(1), keepdims=1, noop_with_empty_axes=noop)
        return cast("ir.Value", reduced)
    if not axes:
        return cast("ir.Value", v.op.emit(op_type, value, keepdims=1))
    return v.op.reduce(op_type, value, axes)


@rule("ReduceProd")
def reduce_prod(v: Vjp) -> Gradients:
    """ReduceProd: g times the product of the others, which is not y / x where x is zero."""
    if _leaves_as_is(v) or static_shape(v.x) == ():
        return [v.g, None]
    op, zero = v.op, v.op.scalar(0, v.x)
    is_zero = op.Equal(v.x, zero)
    factors = op.Where(is_zero, op.scalar(1, v.x), v.x)
    others = op.Div(op.Mul(_kept(v, v.g), _again(v, "ReduceProd", factors)), factors)
    own = op.cast(is_zero, dtype_of(v.x))
    alone = op.Equal(_again(v, "ReduceSum", own), own)  # none of the others is zero
    return [op.Where(alone, others, zero), None]


@rule("ReduceL1")
def reduce_l1(v: Vjp) -> Gradients:
    """ReduceL1, the sum of absolute values: g sign(x)."""
    return [v.op.Mul(_kept(v, v.g), v.op.Sign(v.x)), None]


@rule("ReduceL2")
def reduce_l2(v: Vjp) -> Gradients:
    """ReduceL2, the root of the sum of squares: g x / y, and 0 at the origin (as torch.linalg.vector_norm)."""
    op, y = v.op, _kept(v, v.y)
    zero = op.scalar(0.0, v.y)
    slope = op.Where(op.Equal(y, zero), zero, op.Div(_kept(v, v.g), y))
    return [op.Mul(v.x, slope), None]


@rule("ReduceSumSquare")
def reduce_sum_square(v: Vjp) -> Gradients:
    """ReduceSumSquare: 2 g x."""
    return [v.op.Mul(_kept(v, v.g), v.op.Add(v.x, v.x)), None]


@rule("ReduceLogSum")
def reduce_log_sum(v: Vjp) -> Gradients:
    """ReduceLogSum, the logarithm of the sum: g over the sum, exp(y)."""
    return [broadcast_to(v.op, v.op.Div(_kept(v, v.g), v.op.Exp(_kept(v, v.y))), v.x), None]


@rule("ReduceLogSumExp")
def reduce_log_sum_exp(v: Vjp) -> Gradients:
    """ReduceLogSumExp: g times the softmax, exp(x - y); 0 where all is -infinity (as torch.logsumexp)."""
    op, y = v.op, _kept(v, v.y)
    nothing = op.Equal(y, op.scalar(-math.inf, y))
    y = op.Where(nothing, op.scalar(0, y), y)
    return [op.Mul(_kept(v, v.g), op.Exp(op.Sub(v.x, y))), None]
