"""Reductions: the gradient is spread back over the reduced axes."""

from __future__ import annotations

from typing import cast

import onnx_ir as ir

from igonnx.autodiff.broadcasting import broadcast_to
from igonnx.autodiff.builder import dtype_of, rank
from igonnx.autodiff.registry import Gradients, Vjp, rule


def _kept(v: Vjp, value: ir.Value) -> ir.Value:
    """`value`, shaped as the output, with the reduced axes put back as ones."""
    if v.attribute("keepdims", 1) or _leaves_as_is(v):
        return value
    axes = v.axes()
    if axes is None and v.optional_input(1) is not None:
        return cast("ir.Value", v.op.Unsqueeze(value, v.input(1)))
    return cast("ir.Value", v.op.Unsqueeze(value, sorted(axes or range(rank(v.x)))))


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
    if _leaves_as_is(v) or rank(v.x) == 0:
        return [v.g, None]
    op, g, axes = v.op, _kept(v, v.g), v.axes()
    if axes is None and v.optional_input(1) is not None:
        # Counted, since axes known only at run time may turn out to be none: all, or nothing at all.
        averaged = op.Div(op.Size(v.x), op.Max(op.Size(v.y), op.ints(1)))
    else:
        averaged = op.count(v.x, axes or list(range(rank(v.x))))
    return [broadcast_to(op, op.Div(g, op.cast(averaged, dtype_of(v.x))), v.x), None]


@rule("ReduceMax", "ReduceMin")
def reduce_extremum(v: Vjp) -> Gradients:
    """ReduceMax, ReduceMin: g at the extremum, in equal parts where elements tie (as torch.amax)."""
    if _leaves_as_is(v):
        return [v.g, None]
    op = v.op
    chosen = op.cast(op.Equal(v.x, _kept(v, v.y)), dtype_of(v.x))
    axes = v.axes()
    if axes is None and v.optional_input(1) is not None:
        noop = v.attribute("noop_with_empty_axes", 0)
        ties = op.ReduceSum(chosen, v.input(1), keepdims=1, noop_with_empty_axes=noop)
    else:
        ties = op.ReduceSum(chosen, axes or list(range(rank(v.x))), keepdims=1)
    return [op.Mul(chosen, op.Div(_kept(v, v.g), ties)), None]


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
    """ReduceLogSumExp: g times the softmax, exp(x - y)."""
    return [v.op.Mul(_kept(v, v.g), v.op.Exp(v.op.Sub(v.x, _kept(v, v.y)))), None]
