"""Arithmetic with broadcasting: Add, Sub, Mul, Div, Pow, Max, Min, Where and their kind."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from igonnx.autodiff.broadcasting import broadcast_to, unbroadcast
from igonnx.autodiff.registry import Gradients, Vjp, elementwise, is_code, rule
from igonnx.graph.builder import GraphBuilder, dtype_of

elementwise("Add", lambda op, g, a, b, y: g, lambda op, g, a, b, y: g)
elementwise("Sub", lambda op, g, a, b, y: g, lambda op, g, a, b, y: op.Neg(g))
elementwise("Mul", lambda op, g, a, b, y: op.Mul(g, b), lambda op, g, a, b, y: op.Mul(g, a))
elementwise(
    "Div",
    lambda op, g, a, b, y: op.Div(g, b),
    lambda op, g, a, b, y: op.Neg(op.Mul(g, op.Div(y, b))),
)
elementwise("Neg", lambda op, g, x, y: op.Neg(g))
elementwise("Reciprocal", lambda op, g, x, y: op.Neg(op.Mul(g, op.Mul(y, y))))
elementwise("Sqrt", lambda op, g, x, y: op.Div(g, op.Add(y, y)))
elementwise("Abs", lambda op, g, x, y: op.Mul(g, op.Sign(x)))
elementwise("Identity", lambda op, g, x, y: g)


@rule("Sum", "Mean")
def sum_or_mean(v: Vjp) -> Gradients:
    """Sum and Mean of any number of tensors: every input gets the incoming gradient (over n for Mean)."""
    mean = v.node.op_type == "Mean" and len(v.node.inputs) > 1
    g = v.op.Div(v.g, float(len(v.node.inputs))) if mean else v.g
    return [
        unbroadcast(v.op, g, v.y, value) if value is not None and wanted else None
        for value, wanted in zip(v.node.inputs, v.wanted, strict=True)
    ]


@rule("Max", "Min")
def max_or_min(v: Vjp) -> Gradients:
    """Max and Min of any number of tensors: the gradient goes to the chosen input, in equal parts where inputs tie."""
    if len(v.node.inputs) == 1:
        return [v.g]
    codes = is_code(v.y)  # of any type: not every one can be compared
    y = v.op.cast(v.y, dtype_of(v.g)) if codes else v.y
    chosen = [
        v.op.cast(v.op.Equal(v.op.cast(value, dtype_of(y)), y), dtype_of(v.g))
        for value in v.node.inputs
        if value is not None
    ]
    ties = v.op.Sum(*(broadcast_to(v.op, mask, v.y) for mask in chosen))
    share = v.op.Div(v.g, ties)
    return [
        unbroadcast(v.op, v.op.Mul(share, mask), v.y, v.input(i)) if v.wanted[i] else None
        for i, mask in enumerate(chosen)
    ]


@rule("Where")
def where(v: Vjp) -> Gradients:
    """Where: each branch gets the gradient where it was chosen."""
    condition, a, b = (v.input(i) for i in range(3))
    to_a = v.op.Where(condition, v.g, v.op.scalar(0.0, v.g)) if v.wanted[1] else None
    to_b = v.op.Where(condition, v.op.scalar(0.0, v.g), v.g) if v.wanted[2] else None
    return [
        None,
        None if to_a is None else unbroadcast(v.op, to_a, v.y, a),
        None if to_b is None else unbroadcast(v.op, to_b, v.y, b),
    ]


def _pow_base(op: GraphBuilder, g: ir.Value, x: ir.Value, exponent: ir.Value, y: ir.Value) -> Any:
    """By the base, p x**(p-1); zero where p is zero, also at x = 0 (as PyTorch).

    A negative base has no power at a constant p that is not whole: the NaN is there in y to be seen, and where a model
    puts something else in its place (as transformers of scikit-learn do), the slope must not bring it back.
    """
    p = op.cast(exponent, dtype_of(y))
    constant = None if exponent.is_graph_input() else exponent.const_value
    if constant is not None and constant.size == 1:
        number = float(constant.numpy().reshape(()))
        if number == 2.0:
            return op.Mul(g, op.Add(x, x))
        if number != 0.0 and not number.is_integer():
            base = op.Max(x, op.scalar(0.0, x))
            slope = op.Mul(op.Pow(base, op.scalar(number - 1, y)), number)
            if number < 1.0:
                # At zero as it is, infinite; below, out of the way.
                slope = op.Where(op.Less(x, op.scalar(0.0, x)), op.scalar(0.0, y), slope)
            return op.Mul(g, slope)
        if number != 0.0:
            return op.Mul(g, op.Mul(op.Pow(x, op.scalar(number - 1, y)), number))
    zero = op.scalar(0.0, y)
    slope = op.Mul(p, op.Pow(x, op.Sub(p, op.scalar(1.0, y))))
    return op.Mul(g, op.Where(op.Equal(p, zero), zero, slope))


def _pow_exponent(op: GraphBuilder, g: ir.Value, x: ir.Value, p: ir.Value, y: ir.Value) -> Any:
    """By the exponent, x**p log x; zero where x is not positive.

    At x = 0 that is PyTorch's choice for p >= 0. For x < 0 there is a power at whole p only, and so no derivative:
    rather than a NaN, which spoils all it is added to, p counts as the whole number that it is.
    """
    zero = op.scalar(0.0, y)
    positive = op.Greater(x, op.scalar(0.0, x))
    slope = op.Mul(y, op.Log(op.cast(op.Where(positive, x, op.scalar(1.0, x)), dtype_of(y))))
    return op.cast(op.Mul(g, op.Where(positive, slope, zero)), dtype_of(p))


elementwise("Pow", _pow_base, _pow_exponent)


@rule("Mod")
def mod(v: Vjp) -> Gradients:
    """Mod, a - b q with the whole quotient q, rounded down or (fmod) to zero: g by a, -q g by b."""
    op, a, b = v.op, v.x, v.input(1)
    to_b = None
    if v.wanted[1]:
        # A rounded quotient, whichever way: a - y is a multiple of b but for the last digits.
        quotient = op.Div(op.Sub(a, v.y), b)
        if dtype_of(b) == ir.DataType.BFLOAT16:  # which Round takes from opset 22 on only
            quotient = op.cast(quotient, ir.DataType.FLOAT)
        quotient = op.cast(op.Round(quotient), dtype_of(b))
        to_b = unbroadcast(op, op.Neg(op.Mul(v.g, quotient)), v.y, b)
    return [unbroadcast(op, v.g, v.y, a) if v.wanted[0] else None, to_b]
