"""Pooling by p-norms: LpPool, GlobalLpPool, and LpNormalization, which divides by one.

For y = (sum of abs(x)^p)^(1/p), dy/dx = sign(x) (abs(x) / y)^(p - 1), and 0 where y is (as torch.linalg.vector_norm).
"""

from __future__ import annotations

import onnx_ir as ir

from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.autodiff.rules.convolution import windows
from igonnx.autodiff.rules.normalization import accumulator
from igonnx.autodiff.rules.pooling import spread_over_windows
from igonnx.graph.builder import dtype_of


@rule("LpPool")
def lp_pool(v: Vjp) -> Gradients:
    """LpPool: each window's g y^(1 - p) to all its elements, there times sign(x) abs(x)^(p - 1)."""
    sliding = windows(v, v.attribute("kernel_shape"))
    spread = spread_over_windows(v, _outer(v), sliding)
    return [v.op.cast(v.op.Mul(_inner(v), spread), dtype_of(v.x))]


@rule("GlobalLpPool")
def global_lp_pool(v: Vjp) -> Gradients:
    """GlobalLpPool: the norm over all spatial axes."""
    return [v.op.cast(v.op.Mul(_inner(v), _outer(v)), dtype_of(v.x))]


def _wide(v: Vjp, value: ir.Value) -> ir.Value:
    """`value` in float32 at least: powers leave the range of half precision early."""
    return v.op.cast(value, accumulator(dtype_of(v.x)))


def _inner(v: Vjp) -> ir.Value:
    """The part that belongs to the element, sign(x) abs(x)^(p - 1)."""
    op, x, p = v.op, _wide(v, v.x), v.attribute("p", 2)
    if p == 2:
        return x
    sign = op.Sign(x)
    return sign if p == 1 else op.Mul(sign, op.Pow(op.Abs(x), op.scalar(p - 1, x)))  # type: ignore[no-any-return]


def _outer(v: Vjp) -> ir.Value:
    """The part that belongs to the window, g y^(1 - p), and 0 where y is."""
    op, y, g, p = v.op, _wide(v, v.y), _wide(v, v.g), v.attribute("p", 2)
    if p == 1:
        return g
    zero = op.scalar(0.0, y)
    power = y if p == 2 else op.Pow(y, op.scalar(p - 1, y))
    return op.Where(op.Equal(y, zero), zero, op.Div(g, power))  # type: ignore[no-any-return]


@rule("LpNormalization")
def lp_normalization(v: Vjp) -> Gradients:
    """LpNormalization, y = x / norm along an axis: (g - dnorm/dx sum(g y)) / norm, and 0 where the norm is."""
    op, x, p, axis = v.op, v.x, v.attribute("p", 2), v.attribute("axis", -1)
    zero = op.scalar(0.0, x)
    norm = op.reduce("ReduceL1" if p == 1 else "ReduceL2", x, [axis])
    along = op.ReduceSum(op.Mul(v.g, v.y), [axis], keepdims=1)
    slope = op.Sign(x) if p == 1 else v.y
    quotient = op.Div(op.Sub(v.g, op.Mul(slope, along)), norm)
    return [op.Where(op.Equal(norm, zero), zero, quotient)]
