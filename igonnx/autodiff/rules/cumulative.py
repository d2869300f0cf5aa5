"""Operators over an order of elements: running sums and products, triangles, ranges."""

from __future__ import annotations

from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.graph.builder import dtype_of


@rule("CumSum")
def cum_sum(v: Vjp) -> Gradients:
    """CumSum, the sum of what comes before: the sum of the gradient over what comes after."""
    exclusive, reverse = v.attribute("exclusive", 0), v.attribute("reverse", 0)
    return [v.op.CumSum(v.g, v.input(1), exclusive=exclusive, reverse=1 - reverse), None]


@rule("CumProd")
def cum_prod(v: Vjp) -> Gradients:
    """CumProd, y[i] = x[0] ... x[i]: sum over i >= j of g[i] y[i] / x[j], and right where elements are zero.

    Up to the first zero this is it. For the first zero itself, y is formed with a one in its place; what comes after
    it has no influence.
    """
    op, axis = v.op, v.input(1)
    exclusive, reverse = v.attribute("exclusive", 0), v.attribute("reverse", 0)
    back = {"exclusive": exclusive, "reverse": 1 - reverse}
    zero, one = op.scalar(0, v.x), op.scalar(1, v.x)
    is_zero = op.Equal(v.x, zero)
    zeros = op.CumSum(op.cast(is_zero, dtype_of(v.x)), axis, reverse=reverse)  # up to here
    first = op.And(is_zero, op.Equal(zeros, one))
    replaced = op.CumProd(op.Where(first, one, v.x), axis, exclusive=exclusive, reverse=reverse)
    ahead = op.Div(op.CumSum(op.Mul(v.g, v.y), axis, **back), op.Where(is_zero, one, v.x))
    at_first = op.CumSum(op.Mul(v.g, replaced), axis, **back)
    behind = op.Where(first, at_first, zero)
    return [op.Where(op.Equal(zeros, zero), ahead, behind), None]


@rule("Trilu")
def trilu(v: Vjp) -> Gradients:
    """Trilu keeps the upper or the lower triangle, and so does the gradient."""
    return [v.op.Trilu(v.g, v.optional_input(1), upper=v.attribute("upper", 1)), None]


@rule("Range")
def range_(v: Vjp) -> Gradients:
    """Range, start + i delta: the sum of g by the start, of i g by the step; the limit only tells how many."""
    op = v.op
    to_start = op.ReduceSum(v.g, keepdims=0) if v.wanted[0] else None
    to_delta = None
    if v.wanted[2]:
        steps = op.Range(op.ints(0), op.Squeeze(op.shape(v.y), [0]), op.ints(1))
        to_delta = op.ReduceSum(op.Mul(v.g, op.cast(steps, dtype_of(v.g))), keepdims=0)
    return [to_start, None, to_delta]
