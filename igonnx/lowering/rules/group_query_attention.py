"""GroupQueryAttention of ONNX Runtime: heads that share keys and values (Ainslie et al., arXiv:2305.13245).

Letters in shapes: B examples, S new tokens, P slots of the past, T slots in all, N heads of queries, G heads of keys
and values, H the size of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder, dtype_of
from igonnx.graph.node_view import NodeView
from igonnx.lowering.registry import Lowered, lowering
from igonnx.lowering.rules.attention import join_heads, scaled_scores, split_heads
from igonnx.lowering.rules.layer_norms import root_mean_square
from igonnx.lowering.rules.rotary import rotated

MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Progress:
    """How far each example is: `past` [B, 1], the tokens before these, and `positions` [B, S] of these, int64.

    `first` [1] tells whether this is the first call.
    """

    first: ir.Value
    past: ir.Value
    positions: ir.Value


@lowering("GroupQueryAttention", domain=MICROSOFT)
def group_query_attention(n: NodeView) -> Lowered:
    """GroupQueryAttention: rotary positions, a window, a soft cap on scores, a sink beside them, and a past.

    The past of an example fills the first slots of its buffer, `seqlens_k` + 1 - S of them (none in the first call,
    when `total_sequence_length` is S); the new tokens come behind it. The fourth output is the scores, 0 where unseen,
    or with `qk_output` 2 the weights.
    """
    _refuse_what_is_not_done(n)
    op = n.op
    q, k, v = _queries_keys_values(n)
    progress = _progress(n, q)
    q, k = _normalized(n, q, 14), _normalized(n, k, 15)
    if n.attribute("do_rotary", 0):
        q, k = _rotated(n, q, progress), _rotated(n, k, progress)
    past_key, past_value = n.optional_input(3), n.optional_input(4)
    keys = _with_past(op, past_key, k, progress, n)
    values = _with_past(op, past_value, v, progress, n)
    group = n.attribute("num_heads") // n.attribute("kv_num_heads")
    scores = _capped(n, scaled_scores(n, q, _repeated(op, keys, group)))
    seen = _seen(n, scores, progress)
    lowest = float(np.finfo(dtype_of(scores).numpy()).min)
    weights = _softmax(n, op.Where(seen, scores, op.scalar(lowest, scores)))
    y = join_heads(op, op.MatMul(weights, _repeated(op, values, group)), n.attribute("num_heads"))
    key = n.optional_input(1)
    if n.x.shape is not None and key is not None:
        y.shape = n.x.shape
    shown = weights
    if n.attribute("qk_output", 0) == 1:
        shown = op.Where(seen, scores, op.scalar(0.0, scores))
    return [y, keys, values, shown][: len(n.node.outputs)]


def _refuse_what_is_not_done(n: NodeView) -> None:
    if (
        n.attribute("k_quant_type", "NONE") != "NONE"
        or n.attribute("v_quant_type", "NONE") != "NONE"
    ):
        raise n.unsupported("a past held in a quantised type")
    if n.attribute("sliding_window_cache", 0):
        raise n.unsupported("a past that is a sliding window")


def _queries_keys_values(n: NodeView) -> tuple[ir.Value, ir.Value, ir.Value]:
    """[B, N, S, H], [B, G, S, H], [B, G, S, H]: given one by one, or side by side on the last axis."""
    op, heads, shared = n.op, n.attribute("num_heads"), n.attribute("kv_num_heads")
    key, value = n.optional_input(1), n.optional_input(2)
    if key is not None and value is not None:
        return (
            split_heads(op, n.x, heads),
            split_heads(op, key, shared),
            split_heads(op, value, shared),
        )
    packed = split_heads(op, n.x, heads + 2 * shared)
    q, k, v = op.Split(packed, [heads, shared, shared], axis=1, outputs=3)
    return q, k, v


def _progress(n: NodeView, q: ir.Value) -> Progress:
    op = n.op
    length = op.Shape(q, start=2, end=3)
    total = op.Reshape(op.Cast(n.input(6), to=int(ir.DataType.INT64)), [-1])
    first = op.Equal(total, length)
    ends = op.Add(op.Reshape(op.Cast(n.input(5), to=int(ir.DataType.INT64)), [-1, 1]), [1])
    past = op.Where(first, [0], op.Sub(ends, length))
    steps = op.Range(op.ints(0), op.Squeeze(length, [0]), op.ints(1))
    return Progress(first, past, op.Add(past, steps))


def _normalized(n: NodeView, value: ir.Value, index: int) -> ir.Value:
    """RMSNorm of each head where weights are given."""
    weights = n.optional_input(index)
    if weights is None:
        return value
    return root_mean_square(n.op, value, weights, n.attribute("qk_norm_epsilon", 1e-6))[0]


def _rotated(n: NodeView, value: ir.Value, progress: Progress) -> ir.Value:
    op, positions = n.op, progress.positions
    given = n.optional_input(9)
    if given is not None:
        # In the first call, all examples count on from the first number.
        start = op.Slice(op.Reshape(given, [-1]), [0], [1], [0])
        counted = op.Add(start, op.Sub(positions, progress.past))
        positions = op.Where(progress.first, counted, given)
    cos, sin = (op.Gather(n.input(i), positions, axis=0) for i in (7, 8))
    interleaved = bool(n.attribute("rotary_interleaved", 0))
    return rotated(op, value, cos, sin, interleaved=interleaved)


def _with_past(
    op: GraphBuilder, past: ir.Value | None, new: ir.Value, progress: Progress, n: NodeView
) -> ir.Value:
    """[B, G, T, H]: the past of each example, the new tokens behind it, zeros in what is left of the buffer."""
    if past is None:
        return new
    slots, length = (op.Shape(value, start=2, end=3) for value in (past, new))
    total = op.Reshape(op.Cast(n.input(6), to=int(ir.DataType.INT64)), [-1])
    columns = op.Range(op.ints(0), op.Squeeze(op.Max(slots, total), [0]), op.ints(1))
    since = op.Sub(columns, progress.past)
    # Where in [past, new] each slot's content lies.
    source = op.Where(
        op.Less(since, [0]), columns, op.Add(slots, op.Min(since, op.Sub(length, [1])))
    )
    both = op.Concat(past, new, axis=2)
    index = op.Reshape(source, op.Concat(op.Shape(source, start=0, end=1), [1, -1, 1], axis=0))
    sizes = op.Concat(op.Shape(new, start=0, end=2), [1], op.Shape(new, start=3, end=4), axis=0)
    found = op.GatherElements(both, op.Expand(index, sizes), axis=2)
    filled = op.Unsqueeze(op.Less(since, length), [1, 3])
    return cast("ir.Value", op.Where(filled, found, op.scalar(0.0, new)))


def _repeated(op: GraphBuilder, value: ir.Value, group: int) -> ir.Value:
    """[B, G, T, H] as [B, N, T, H]: each head of keys for `group` heads of queries."""
    if group == 1:
        return value
    one = op.Unsqueeze(value, [2])
    shape = op.Concat(op.Shape(value, start=0, end=2), [group], op.Shape(value, start=2), axis=0)
    heads = op.Mul(op.Shape(value, start=1, end=2), [group])
    flat = op.Concat(op.Shape(value, start=0, end=1), heads, op.Shape(value, start=2), axis=0)
    return cast("ir.Value", op.Reshape(op.Expand(one, shape), flat, allowzero=1))


def _capped(n: NodeView, scores: ir.Value) -> ir.Value:
    """Scores with their soft cap and bias."""
    op, cap = n.op, n.attribute("softcap", 0.0)
    if cap > 0:
        scores = op.Mul(op.Tanh(op.Div(scores, cap)), cap)
    if (bias := n.optional_input(10)) is not None:
        scores = op.Add(scores, bias)
    return scores


def _seen(n: NodeView, scores: ir.Value, progress: Progress) -> ir.Value:
    """Which keys each query sees, [B, 1, S, T]: of its example, not ahead of it, and not behind its window."""
    op, window = n.op, n.attribute("local_window_size", -1)
    keys = op.Squeeze(op.Shape(scores, start=3, end=4), [0])
    columns = op.Range(op.ints(0), keys, op.ints(1))
    last = op.Reshape(op.Cast(n.input(5), to=int(ir.DataType.INT64)), [-1, 1, 1, 1])
    seen = op.LessOrEqual(columns, last)
    if not n.attribute("causal", 1):
        return cast("ir.Value", seen)
    rows = op.Unsqueeze(progress.positions, [1, 3])
    seen = op.And(seen, op.LessOrEqual(columns, rows))
    if window > 0:
        seen = op.And(seen, op.Greater(columns, op.Sub(rows, [window])))
    return cast("ir.Value", seen)


def _softmax(n: NodeView, scores: ir.Value) -> ir.Value:
    """Softmax; with a sink, a score per head (0 for the smooth one) takes part that no key belongs to."""
    op, sink = n.op, n.optional_input(11)
    if sink is None and n.attribute("smooth_softmax", 0) != 1:
        return cast("ir.Value", op.Softmax(scores, axis=-1))
    one = op.Concat(op.Shape(scores, start=0, end=3), [1], axis=0)
    column = op.scalar(0.0, scores) if sink is None else op.Reshape(sink, [1, -1, 1, 1])
    joined = op.Concat(op.Expand(column, one), scores, axis=-1)
    weights = op.Softmax(joined, axis=-1)
    return cast("ir.Value", op.Slice(weights, [1], [np.iinfo(np.int64).max], [3]))
