"""Attention of ONNX Runtime: Attention and MultiHeadAttention (Vaswani et al., arXiv:1706.03762).

Letters in shapes: B examples, S queries, L new keys, P keys kept from before (past), T = P + L keys in all, N heads,
H the size of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder, dtype_of, rank, static_shape
from igonnx.graph.node_view import NodeView
from igonnx.lowering.registry import Lowered, lowering

__all__ = ["causal", "join_heads", "scaled_scores", "split_heads"]

MICROSOFT = "com.microsoft"


@lowering("Attention", domain=MICROSOFT)
def attention(n: NodeView) -> Lowered:
    """Attention: projects the input to queries, keys and values, and attends; the second output is [2, B, N, T, H]."""
    op = n.op
    if n.attribute("do_rotary", 0):
        raise n.unsupported("rotary embeddings inside Attention")
    if n.attribute("past_present_share_buffer", 0) or n.optional_input(6) is not None:
        raise n.unsupported("a past that shares its buffer with the present")
    projected = op.MatMul(n.x, n.input(1))
    if (bias := n.optional_input(2)) is not None:
        projected = op.Add(projected, bias)
    sizes = n.attribute("qkv_hidden_sizes")
    heads = n.attribute("num_heads")
    q, k, v = (split_heads(op, part, heads) for part in _thirds(n, projected, sizes))
    past = n.optional_input(4)
    if past is not None:
        kept = [op.Gather(past, op.ints(i), axis=0) for i in (0, 1)]
        k, v = op.Concat(kept[0], k, axis=2), op.Concat(kept[1], v, axis=2)
    scores = scaled_scores(n, q, k)
    scores = _masked(n, scores, n.optional_input(3), n.optional_input(5))
    y = join_heads(op, op.MatMul(op.Softmax(scores, axis=-1), v), heads)
    if n.x.shape is not None:
        y.shape = ir.Shape([*list(n.x.shape)[:2], _width(n.input(1), sizes)])
    present = None
    if n.has_output(1):
        present = op.Concat(op.Unsqueeze(k, [0]), op.Unsqueeze(v, [0]), axis=0)
    return [y, present][: len(n.node.outputs)]


@lowering("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(n: NodeView) -> Lowered:
    """MultiHeadAttention of queries, keys and values, each [B, S, N H], or packed, or keys and values [B, N, L, H].

    Outputs: the values attended to, keys and values with the past in front, and the scores before the Softmax.
    """
    op = n.op
    if any(n.optional_input(i) is not None for i in (8, 9)):
        raise n.unsupported("a past that shares its buffer with the present")
    heads = n.attribute("num_heads")
    q, k, v = _queries_keys_values(n, heads)
    past_key, past_value = n.optional_input(6), n.optional_input(7)
    if past_key is not None and past_value is not None:
        k, v = op.Concat(past_key, k, axis=2), op.Concat(past_value, v, axis=2)
    scores = _masked(n, scaled_scores(n, q, k), n.optional_input(4), n.optional_input(5))
    y = join_heads(op, op.MatMul(op.Softmax(scores, axis=-1), v), heads)
    y.shape = _shape_of_result(n)
    return [y, k, v, scores][: len(n.node.outputs)]


def _thirds(n: NodeView, value: ir.Value, sizes: Sequence[int] | None) -> list[ir.Value]:
    """Queries, keys and values out of one tensor whose last axis holds them side by side."""
    op = n.op
    if sizes:
        return cast("list[ir.Value]", op.Split(value, list(sizes), axis=-1, outputs=3))
    equal = {"num_outputs": 3} if op.opset >= 18 else {}
    return cast("list[ir.Value]", op.Split(value, axis=-1, outputs=3, **equal))


def _width(weights: ir.Value, sizes: Sequence[int] | None) -> int | None:
    if sizes:
        return sizes[2]
    shape = static_shape(weights)
    return None if shape is None else shape[-1] // 3


def _queries_keys_values(n: NodeView, heads: int) -> tuple[ir.Value, ir.Value, ir.Value]:
    op, key, value = n.op, n.optional_input(1), n.optional_input(2)
    bias = n.optional_input(3)
    if key is None:
        # Packed: [B, S, N, 3, H]
        q, k, v = (_unpacked(op, n.x, i) for i in range(3))
        return cast("tuple[ir.Value, ir.Value, ir.Value]", _biased(n, bias, [q, k, v], heads))
    q = split_heads(op, n.x, heads)
    if value is None:
        # Keys and values packed: [B, L, N, 2, H]
        k, v = (_unpacked(op, key, i) for i in range(2))
    elif rank(key) == 4:
        # Keys and values of another network's output hold their bias already.
        width = op.Shape(n.x, start=2, end=3)
        own = None if bias is None else op.Slice(bias, [0], width, [0])
        return split_heads(op, n.x if own is None else op.Add(n.x, own), heads), key, value
    else:
        k, v = split_heads(op, key, heads), split_heads(op, value, heads)
    return cast("tuple[ir.Value, ir.Value, ir.Value]", _biased(n, bias, [q, k, v], heads))


def _unpacked(op: GraphBuilder, packed: ir.Value, index: int) -> ir.Value:
    """Part `index` of [B, S, N, parts, H] as [B, N, S, H]."""
    part = op.Gather(packed, op.ints(index), axis=3)
    return cast("ir.Value", op.Transpose(part, perm=[0, 2, 1, 3]))


def _biased(
    n: NodeView, bias: ir.Value | None, parts: Sequence[ir.Value], heads: int
) -> tuple[ir.Value, ...]:
    """Queries, keys and values [B, N, S, H] plus their parts of the bias [N H + N H + N H of the values]."""
    if bias is None:
        return tuple(parts)
    op = n.op
    # Values may have heads of another size than queries and keys.
    widths = [op.Mul(op.Shape(part, start=3, end=4), [heads]) for part in parts]
    pieces = op.Split(bias, op.Concat(*widths, axis=0), axis=0, outputs=3)
    rows = [op.Reshape(piece, [heads, 1, -1]) for piece in pieces]
    return tuple(op.Add(part, row) for part, row in zip(parts, rows, strict=True))


def _shape_of_result(n: NodeView) -> ir.Shape | None:
    """[B, S, N H], as far as the inputs tell."""
    query, value = n.x, n.optional_input(2)
    if query.shape is None or len(query.shape) != 3:
        return None
    width = value.shape[2] if value is not None and value.shape is not None else None
    if value is None or value.shape is None or len(value.shape) != 3:
        width = None
    return ir.Shape([*list(query.shape)[:2], width])


def split_heads(op: GraphBuilder, value: ir.Value, heads: int) -> ir.Value:
    """[B, S, N H] as [B, N, S, H]."""
    width = None if value.shape is None else value.shape[-1]
    size = width // heads if isinstance(width, int) else -1
    return cast("ir.Value", op.Transpose(op.Reshape(value, [0, 0, heads, size]), perm=[0, 2, 1, 3]))


def join_heads(op: GraphBuilder, value: ir.Value, heads: int) -> ir.Value:
    """[B, N, S, H] as [B, S, N H]."""
    rows = op.Transpose(value, perm=[0, 2, 1, 3])
    width = op.Mul(op.Shape(rows, start=3, end=4), [heads])
    shape = op.Concat(op.Shape(rows, start=0, end=2), width, axis=0)
    return cast("ir.Value", op.Reshape(rows, shape, allowzero=1))


def scaled_scores(n: NodeView, q: ir.Value, k: ir.Value) -> ir.Value:
    """Q K^T times the attribute `scale`, by default 1 / sqrt(H)."""
    op, scale = n.op, n.attribute("scale", 0.0)
    scores = op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2]))
    if scale:
        return cast("ir.Value", op.Mul(scores, scale))
    size = op.Cast(op.Shape(q, start=3, end=4), to=int(dtype_of(q)))
    return cast("ir.Value", op.Div(scores, op.Sqrt(size)))


def _masked(
    n: NodeView, scores: ir.Value, mask: ir.Value | None, bias: ir.Value | None
) -> ir.Value:
    """Scores [B, N, S, T] plus the bias, `mask_filter_value` where the mask is 0, and nearly -inf for what is ahead."""
    op = n.op
    if bias is not None:
        scores = op.Add(scores, bias)
    if mask is not None:
        kept = _kept(n, scores, mask)
        fill = op.scalar(n.attribute("mask_filter_value", -10000.0), scores)
        scores = op.Add(scores, op.Where(kept, op.scalar(0.0, scores), fill))
    if n.attribute("unidirectional", 0):
        lowest = float(np.finfo(dtype_of(scores).numpy()).min)
        seen = causal(op, scores)
        scores = op.Where(seen, scores, op.scalar(lowest, scores))
    return scores


def causal(op: GraphBuilder, scores: ir.Value) -> ir.Value:
    """Which keys each query sees that sees only what came before it: [S, T], key j <= query i + T - S."""
    queries, keys = (op.Squeeze(op.Shape(scores, start=axis, end=axis + 1), [0]) for axis in (2, 3))
    columns = op.Range(op.ints(0), keys, op.ints(1))
    rows = op.Add(op.Range(op.ints(0), queries, op.ints(1)), op.Sub(keys, queries))
    return cast("ir.Value", op.LessOrEqual(columns, op.Unsqueeze(rows, [1])))


def _kept(n: NodeView, scores: ir.Value, mask: ir.Value) -> ir.Value:
    """What a mask in any of its forms keeps, as a boolean that broadcasts to [B, N, S, T]."""
    op, axes = n.op, rank(mask)
    if axes == 1:
        return _kept_by_lengths(n, scores, mask)
    if axes == 4:
        # [B, 1, M, M] for the longest sequence: the rows of these queries, the columns of these keys.
        keys, queries = (op.Shape(scores, start=axis, end=axis + 1) for axis in (3, 2))
        mask = op.Slice(mask, op.Concat(op.Sub(keys, queries), [0], axis=0),
                        op.Concat(keys, keys, axis=0), [2, 3])  # fmt: skip
    else:
        mask = op.Unsqueeze(mask, [1, 2] if axes == 2 else [1])
    return cast("ir.Value", op.Greater(mask, op.scalar(0, mask)))


def _kept_by_lengths(n: NodeView, scores: ir.Value, mask: ir.Value) -> ir.Value:
    """A mask [B] of ends, or [2 B] of ends and then starts, or [3 B + 2] of ends and what else kernels want."""
    op = n.op
    examples = op.Shape(scores, start=0, end=1)
    length = op.Squeeze(op.Shape(scores, start=3, end=4), [0])
    columns = op.Range(op.ints(0), length, op.ints(1))
    bounds = op.Reshape(op.Cast(mask, to=int(ir.DataType.INT64)), [-1, 1, 1, 1])
    ends = op.Less(columns, op.Slice(bounds, [0], examples, [0]))
    if _holds_only_ends(n, mask):
        return cast("ir.Value", ends)
    twice = op.Add(examples, examples)
    # Behind [B] there are no starts: zeros stand in. And only [2 B] has them at all.
    padded = op.Concat(bounds, op.Sub(bounds, bounds), axis=0)
    starts = op.Slice(padded, examples, twice, [0])
    starts = op.Where(op.Equal(op.Shape(mask), twice), starts, op.ints(0))
    return cast("ir.Value", op.And(ends, op.GreaterOrEqual(columns, starts)))


def _holds_only_ends(n: NodeView, mask: ir.Value) -> bool:
    """Whether shapes show that a mask of one axis is [B]."""
    ours = None if mask.shape is None else mask.shape[0]
    batch = None if n.x.shape is None else n.x.shape[0]
    if isinstance(ours, ir.SymbolicDim) and ours.value is None:
        return False
    return ours is not None and ours == batch
