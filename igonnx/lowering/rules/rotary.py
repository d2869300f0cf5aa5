"""Rotary position embeddings (Su et al., arXiv:2104.09864) as ONNX Runtime has them."""

from __future__ import annotations

from typing import cast

import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder, rank
from igonnx.graph.node_view import NodeView
from igonnx.lowering.registry import Lowered, lowering
from igonnx.lowering.rules.attention import split_heads

__all__ = ["rotated"]

MICROSOFT = "com.microsoft"


@lowering("RotaryEmbedding", domain=MICROSOFT)
def rotary_embedding(n: NodeView) -> Lowered:
    """RotaryEmbedding of [B, S, N H] or [B, N, S, H]; positions [B, S], or [1]: where all examples start."""
    op, x, positions = n.op, n.x, n.input(1)
    if n.attribute("is_packed_batching", 0):
        raise n.unsupported("examples packed one behind the other")
    flat = rank(x) == 3
    heads = n.attribute("num_heads", 0)
    if not flat:
        values = x
    elif heads:
        values = split_heads(op, x, heads)
    else:
        # The tables tell the size of a head.
        size = op.Mul(op.Shape(n.input(2), start=1, end=2), [2])
        shape = op.Concat(op.Shape(x, start=0, end=2), [-1], size, axis=0)
        values = op.Transpose(op.Reshape(x, shape), perm=[0, 2, 1, 3])
    if rank(positions) == 1:
        length = op.Squeeze(op.Shape(values, start=2, end=3), [0])
        positions = op.Unsqueeze(op.Add(op.Range(op.ints(0), length, op.ints(1)), positions), [0])
    cos, sin = (op.Gather(n.input(i), positions, axis=0) for i in (2, 3))
    y = rotated(op, values, cos, sin, interleaved=bool(n.attribute("interleaved", 0)))
    if flat:
        y = op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), op.Shape(x), allowzero=1)
    y.shape = x.shape
    return [y]


def rotated(
    op: GraphBuilder, x: ir.Value, cos: ir.Value, sin: ir.Value, *, interleaved: bool
) -> ir.Value:
    """Pairs (a, b) of x [B, N, S, H] turned to (a cos - b sin, a sin + b cos).

    cos and sin are [B or 1, S, R / 2]: of the H numbers, the first R are turned. Pairs are the halves of these R, or
    neighbours where `interleaved`.
    """
    cos, sin = op.Unsqueeze(cos, [1]), op.Unsqueeze(sin, [1])
    half = op.Shape(cos, start=3, end=4)
    turned = op.Mul(half, [2])
    head, rest = op.Split(x, op.Concat(turned, op.Sub(op.Shape(x, start=3, end=4), turned), axis=0),
                          axis=-1, outputs=2)  # fmt: skip
    if interleaved:
        pairs = op.Concat(op.Shape(x, start=0, end=3), half, [2], axis=0)
        together = op.Reshape(head, pairs, allowzero=1)
        a, b = (op.Gather(together, op.ints(i), axis=4) for i in (0, 1))
    else:
        a, b = op.Split(head, op.Concat(half, half, axis=0), axis=-1, outputs=2)
    real = op.Sub(op.Mul(a, cos), op.Mul(b, sin))
    imaginary = op.Add(op.Mul(a, sin), op.Mul(b, cos))
    if interleaved:
        both = op.Concat(op.Unsqueeze(real, [4]), op.Unsqueeze(imaginary, [4]), axis=4)
        return cast(
            "ir.Value",
            op.Concat(op.Reshape(both, op.Shape(head), allowzero=1), rest, axis=-1),
        )
    return cast("ir.Value", op.Concat(real, imaginary, rest, axis=-1))
