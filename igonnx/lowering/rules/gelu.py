"""The Gaussian error linear units of ONNX Runtime and their fusions (Hendrycks and Gimpel, arXiv:1606.08415)."""

from __future__ import annotations

import math
from typing import cast

import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder
from igonnx.graph.node_view import NodeView
from igonnx.lowering.registry import Lowered, lowering

__all__ = ["gelu", "silu"]

MICROSOFT = "com.microsoft"


def gelu(op: GraphBuilder, x: ir.Value, approximate: str = "none") -> ir.Value:
    """Gelu: x Phi(x), or with `approximate` "tanh" x (1 + tanh(c (x + a x^3))) / 2; an operator from opset 20 on."""
    if op.opset >= 20:
        result = op.Gelu(x, approximate=approximate)
    elif approximate == "none":
        result = op.Mul(op.Mul(x, 0.5), op.Add(op.Erf(op.Mul(x, math.sqrt(0.5))), 1.0))
    else:
        cubic = op.Add(op.Mul(op.Mul(op.Mul(x, x), x), 0.044715), x)
        t = op.Tanh(op.Mul(cubic, math.sqrt(2 / math.pi)))
        result = op.Mul(op.Mul(x, 0.5), op.Add(t, 1.0))
    result.shape = x.shape
    return cast("ir.Value", result)


def silu(op: GraphBuilder, x: ir.Value, alpha: float = 1.0) -> ir.Value:
    """The product x sigmoid(alpha x)."""
    return cast("ir.Value", op.Mul(x, op.Sigmoid(x if alpha == 1.0 else op.Mul(x, alpha))))


@lowering("Gelu", domain=MICROSOFT)
def plain(n: NodeView) -> Lowered:
    """Gelu."""
    return [gelu(n.op, n.x)]


@lowering("BiasGelu", domain=MICROSOFT)
def biased(n: NodeView) -> Lowered:
    """Gelu of a sum."""
    return [gelu(n.op, n.op.Add(n.x, n.input(1)))]


@lowering("FastGelu", domain=MICROSOFT)
def fast(n: NodeView) -> Lowered:
    """Gelu by tanh, of a sum where there is a bias."""
    return [gelu(n.op, _plus(n.op, n.x, n.optional_input(1)), "tanh")]


@lowering("GemmFastGelu", domain=MICROSOFT)
def of_product(n: NodeView) -> Lowered:
    """Gelu by tanh of a matrix product and a bias."""
    product = n.op.MatMul(n.x, n.input(1))
    return [gelu(n.op, _plus(n.op, product, n.optional_input(2)), "tanh")]


@lowering("QuickGelu", domain=MICROSOFT)
def quick(n: NodeView) -> Lowered:
    """Gelu by the logistic function: x sigmoid(alpha x)."""
    return [silu(n.op, n.x, n.attribute("alpha", 1.702))]


@lowering("ScaledSiLU", domain=MICROSOFT)
def scaled_silu(n: NodeView) -> Lowered:
    """SiLU, z sigmoid(z), of z = scale x; the scale is an input or an attribute."""
    op, scale, alpha = n.op, n.optional_input(1), n.attribute("alpha", 1.0)
    scaled = op.Mul(n.x, alpha) if scale is None else op.Mul(n.x, op.CastLike(scale, n.x))
    return [silu(op, scaled)]


@lowering("BiasSplitGelu", domain=MICROSOFT)
def split(n: NodeView) -> Lowered:
    """GEGLU (Shazeer, arXiv:2002.05202): the left half of a sum, gated by the Gelu of the right half."""
    op = n.op
    halves = {"num_outputs": 2} if op.opset >= 18 else {}
    left, right = op.Split(op.Add(n.x, n.input(1)), axis=-1, outputs=2, **halves)
    return [op.Mul(left, gelu(op, right))]


def _plus(op: GraphBuilder, x: ir.Value, bias: ir.Value | None) -> ir.Value:
    if bias is None:
        return x
    total = cast("ir.Value", op.Add(x, bias))
    total.shape = x.shape
    return total
