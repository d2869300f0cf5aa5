"""Elementary functions of one variable: exponentials, logarithms, trigonometric and hyperbolic functions, erf."""

from __future__ import annotations

import math
from typing import cast

import onnx_ir as ir

from igonnx.autodiff.registry import elementwise
from igonnx.graph.builder import GraphBuilder


def _cosine(op: GraphBuilder, x: ir.Value) -> ir.Value:
    """The cosine of x. ONNX Runtime up to 1.28 computes sines in double precision, but not cosines."""
    value = op.Sin(op.Add(x, math.pi / 2)) if x.dtype == ir.DataType.DOUBLE else op.Cos(x)
    return cast("ir.Value", value)


elementwise("Exp", lambda op, g, x, y: op.Mul(g, y))
elementwise("Log", lambda op, g, x, y: op.Div(g, x))
elementwise("Sin", lambda op, g, x, y: op.Mul(g, _cosine(op, x)))
elementwise("Cos", lambda op, g, x, y: op.Neg(op.Mul(g, op.Sin(x))))
elementwise("Tan", lambda op, g, x, y: op.Mul(g, op.Add(op.Mul(y, y), 1.0)))
elementwise("Asin", lambda op, g, x, y: op.Div(g, op.Sqrt(op.Sub(op.scalar(1, x), op.Mul(x, x)))))
elementwise(
    "Acos", lambda op, g, x, y: op.Neg(op.Div(g, op.Sqrt(op.Sub(op.scalar(1, x), op.Mul(x, x)))))
)
elementwise("Atan", lambda op, g, x, y: op.Div(g, op.Add(op.Mul(x, x), 1.0)))
elementwise("Sinh", lambda op, g, x, y: op.Mul(g, op.Cosh(x)))
elementwise("Cosh", lambda op, g, x, y: op.Mul(g, op.Sinh(x)))
elementwise("Tanh", lambda op, g, x, y: op.Mul(g, op.Sub(op.scalar(1, y), op.Mul(y, y))))
elementwise("Asinh", lambda op, g, x, y: op.Div(g, op.Sqrt(op.Add(op.Mul(x, x), 1.0))))
elementwise("Acosh", lambda op, g, x, y: op.Div(g, op.Sqrt(op.Sub(op.Mul(x, x), 1.0))))
elementwise("Atanh", lambda op, g, x, y: op.Div(g, op.Sub(op.scalar(1, x), op.Mul(x, x))))
# d erf(x) / dx = 2 / sqrt(pi) * exp(-x^2)
elementwise(
    "Erf",
    lambda op, g, x, y: op.Mul(g, op.Mul(op.Exp(op.Neg(op.Mul(x, x))), 2 / math.sqrt(math.pi))),
)
