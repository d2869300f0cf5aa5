"""The rescale rule: functions of one tensor, element by element, by the slope of their chord.

The multiplier is (y - y0) / (x - x0). Where x and x0 nearly coincide the quotient is all rounding, and the derivative
takes its place. How near that is depends on the function. Where it is smooth, the mean of the derivatives at both ends
is off by the third derivative times (x - x0)^2 / 12, the quotient by eps / |x - x0|, eps being the precision of the
numbers: they break even at about eps^(1/3), where either is off by eps^(2/3), and the sum of the contributions by
eps. A function with a kink has no such mean: there the derivative serves only where x - x0 is no more than a few
roundings of x, and may be off in the sum by as much; and only where x = x0, if the pieces are x itself or constant, for
then the quotient has no rounding.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from igonnx.autodiff import registry
from igonnx.autodiff.propagation.linear_operators import vjp_of
from igonnx.autodiff.propagation.references import References
from igonnx.autodiff.registry import Vjp
from igonnx.graph.builder import GraphBuilder, dtype_of

__all__ = ["CHORDS", "chord", "chord_of", "near", "rounding"]

_EXACT = ("Abs", "Clip", "Relu", "ThresholdedRelu")
_KINKED = ("Celu", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Selu")
_SMOOTH = (
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Cos",
    "Cosh",
    "Erf",
    "Exp",
    "Gelu",
    "Log",
    "Mish",
    "Reciprocal",
    "Sigmoid",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tan",
    "Tanh",
)
# By the size of x does the slope of these change, not by that of 1.
_SCALE_FREE = frozenset(["Log"])
CHORDS = {("", name) for name in (*_EXACT, *_KINKED, *_SMOOTH)} | {("ai.igonnx", "GeluWithSlope")}


def chord(v: Vjp, references: References) -> ir.Value:
    """What arrives at the first input, the only one that is live."""
    op, x, y = v.op, v.x, v.y
    x0, y0 = references.of(x), references.of(y)
    kind = v.node.op_type
    if kind == "Sqrt":  # (y - y0) / (y^2 - y0^2)
        return op.Div(v.g, op.Add(y, y0))  # type: ignore[no-any-return]
    if kind == "Reciprocal":  # (1/x - 1/x0) / (x - x0)
        return op.Neg(op.Mul(v.g, op.Mul(y, y0)))  # type: ignore[no-any-return]
    quotient = op.Div(references.difference(op, y), references.difference(op, x))
    if kind in _EXACT:
        coincide = op.Equal(x, x0)
        at_ends = _derivative(v, v.node)
    elif kind in _KINKED:
        least = rounding(op, op.Abs(x), op.Abs(x0))
        coincide = op.LessOrEqual(op.Abs(references.difference(op, x)), least)
        at_ends = _derivative(v, v.node)
    else:
        scale = op.Min(op.Abs(x), op.Abs(x0)) if kind in _SCALE_FREE else None
        coincide = op.Not(op.Greater(op.Abs(references.difference(op, x)), near(op, x, scale)))
        both = op.Add(_derivative(v, v.node), _derivative(v, references.copy_of(v.node)))
        at_ends = op.Mul(both, op.scalar(0.5, x))
    return op.Where(coincide, at_ends, op.Mul(v.g, quotient))  # type: ignore[no-any-return]


def near(op: GraphBuilder, x: ir.Value, scale: ir.Value | None = None) -> ir.Value:
    """Up to which distance two numbers like `x` count as one: eps^(1/3), of `scale` where one is given."""
    bound = op.scalar(float(np.cbrt(_eps_of(dtype_of(x)))), x)
    return bound if scale is None else op.Mul(scale, bound)


def rounding(op: GraphBuilder, *terms: ir.Value) -> ir.Value:
    """How much rounding may make of nothing where `terms`, none of them negative, were added up: it has no sign."""
    return op.Mul(op.Sum(*terms), op.scalar(16 * _eps_of(dtype_of(terms[0])), terms[0]))  # type: ignore[no-any-return]


def _eps_of(dtype: ir.DataType) -> float:
    """The distance from 1 to the next number of `dtype`."""
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype.numpy()).eps)


def chord_of(
    op: GraphBuilder, y: ir.Value, y0: ir.Value, x: ir.Value, x0: ir.Value, derivatives: ir.Value
) -> ir.Value:
    """(y - y0) / (x - x0) of a smooth function, or `derivatives`, the mean of those at both ends."""
    delta = op.Sub(x, x0)
    apart = op.Greater(op.Abs(delta), near(op, x))
    return op.Where(apart, op.Div(op.Sub(y, y0), delta), derivatives)  # type: ignore[no-any-return]


def _derivative(v: Vjp, node: ir.Node) -> ir.Value:
    """The incoming multiplier times the derivative, by the ordinary rule."""
    rule = registry.find(node)
    found = None if rule is None else rule(vjp_of(v, node, v.gradients))[0]
    if found is None:
        raise v.unsupported("its derivative")
    return found
