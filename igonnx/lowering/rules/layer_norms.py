"""Normalisations of ONNX Runtime: root mean square, skip connections fused in, embeddings, groups."""

from __future__ import annotations

from typing import cast

import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder, dtype_of, rank
from igonnx.graph.node_view import NodeView
from igonnx.lowering.registry import Lowered, lowering
from igonnx.lowering.rules.gelu import silu

__all__ = ["root_mean_square"]

MICROSOFT = "com.microsoft"


def root_mean_square(
    op: GraphBuilder, x: ir.Value, scale: ir.Value, epsilon: float, axis: int = -1
) -> tuple[ir.Value, ir.Value]:
    """RMSNorm over the axes from `axis` on (Zhang and Sennrich, arXiv:1910.07467), and the inverse deviation."""
    axes = [-1] if axis == -1 else list(range(axis % rank(x), rank(x)))
    dtype = dtype_of(x)
    half = dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    wide = op.cast(x, ir.DataType.FLOAT if half else dtype)
    variance = op.reduce("ReduceMean", op.Mul(wide, wide), axes)
    inverse = op.Reciprocal(op.Sqrt(op.Add(variance, epsilon)))
    scaled = op.Mul(op.Mul(wide, inverse), op.cast(scale, dtype_of(wide)))
    scaled.shape = x.shape
    return op.cast(scaled, dtype_of(scale)), inverse


@lowering("SimplifiedLayerNormalization")
def simplified_layer_normalization(n: NodeView) -> Lowered:
    """RMSNorm; ONNX Runtime keeps it in the standard domain, though no ONNX has it."""
    epsilon, axis = n.attribute("epsilon", 1e-5), n.attribute("axis", -1)
    results = root_mean_square(n.op, n.x, n.input(1), epsilon, axis)
    return results[: len(n.node.outputs)]


@lowering("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(n: NodeView) -> Lowered:
    """LayerNormalization of input + skip + bias; mean, inverse deviation and that sum may be outputs, too."""
    total = _with_skip(n, n.optional_input(4))
    asked = 3 if n.has_output(1) or n.has_output(2) else 1
    results = n.op.LayerNormalization(
        total,
        n.input(2),
        n.optional_input(3),
        axis=-1,
        epsilon=n.attribute("epsilon", 1e-12),
        outputs=asked,
    )
    normalized = [results] if asked == 1 else results
    normalized[0].shape = n.x.shape
    return [*[*normalized, None, None][:3], total]


@lowering("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_simplified_layer_normalization(n: NodeView) -> Lowered:
    """RMSNorm of input + skip + bias."""
    total = _with_skip(n, n.optional_input(3))
    epsilon = n.attribute("epsilon", 1e-12)
    normalized, inverse = root_mean_square(n.op, total, n.input(2), epsilon)
    return [normalized, None, inverse, total]


def _with_skip(n: NodeView, bias: ir.Value | None) -> ir.Value:
    """The sum input + skip + bias; skip may lack the batch axis, or have one example for all."""
    total = cast("ir.Value", n.op.Add(n.x, n.input(1)))
    if bias is not None:
        total = n.op.Add(total, bias)
    total.shape = n.x.shape
    return total


@lowering("GatedRMSNorm", domain=MICROSOFT)
def gated_rms_norm(n: NodeView) -> Lowered:
    """RMSNorm of each group of as many numbers as there are scales, times the activation of a gate (Mamba 2)."""
    op, scale, gate = n.op, n.input(1), n.input(2)
    dtype = dtype_of(n.x)
    wide = ir.DataType.FLOAT if dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16) else dtype
    x, scale, gate = (op.cast(value, wide) for value in (n.x, scale, gate))
    groups = op.Concat(op.Shape(x, end=-1), [-1], op.Shape(scale), axis=0)
    normalized = root_mean_square(op, op.Reshape(x, groups), scale, n.attribute("epsilon", 1e-5))[0]
    kind = n.attribute("activation", "silu")
    opened = op.Sigmoid(gate) if kind == "sigmoid" else silu(op, gate)
    return [op.cast(op.Mul(op.Reshape(normalized, op.Shape(x)), opened), dtype)]


@lowering("EmbedLayerNormalization", domain=MICROSOFT)
def embed_layer_normalization(n: NodeView) -> Lowered:
    """LayerNormalization of the sum of the embeddings of words, positions and segments (BERT, arXiv:1810.04805).

    The second output counts the words of each example by its mask, the third is the sum.
    """
    op, ids = n.op, n.x
    total = op.Gather(n.input(2), ids, axis=0)
    total = op.Add(total, _positions(n))
    segments, table = n.optional_input(1), n.optional_input(4)
    if segments is not None and table is not None:
        rows = op.Gather(table, segments, axis=0)
        total = op.Add(total, rows)
    normalized = op.LayerNormalization(
        total, n.input(5), n.optional_input(6), axis=-1, epsilon=n.attribute("epsilon", 1e-12)
    )
    count = _word_count(n) if n.has_output(1) else None
    return [normalized, count, total][: len(n.node.outputs)]


def _positions(n: NodeView) -> ir.Value:
    """The embeddings of the positions: of `position_ids`, or of 0, 1, ... as many as there are words."""
    op, table, given = n.op, n.input(3), n.optional_input(8)
    if given is not None:
        return cast("ir.Value", op.Gather(table, given, axis=0))
    length = op.Shape(n.x, start=1, end=2)
    return cast("ir.Value", op.Slice(table, [0], length, [0]))


def _word_count(n: NodeView) -> ir.Value:
    """Per example the number of words, int32: the sum of its mask, or 0 where there is none."""
    op, mask = n.op, n.optional_input(7)
    if mask is None:
        examples = op.Shape(n.x, start=0, end=1)
        return op.zeros(examples, ir.DataType.INT32)
    return cast("ir.Value", op.ReduceSum(op.cast(mask, ir.DataType.INT32), [1], keepdims=0))


@lowering("GroupNorm", domain=MICROSOFT)
def group_norm(n: NodeView) -> Lowered:
    """GroupNormalization (Wu and He, arXiv:1803.08494) of images [N, H, W, C], and SiLU of it with `activation` 1."""
    return [_group_norm(n, n.x)]


@lowering("SkipGroupNorm", domain=MICROSOFT)
def skip_group_norm(n: NodeView) -> Lowered:
    """GroupNorm of X + skip + bias, where skip may be one number per example and channel; and that sum."""
    op, skip, bias = n.op, n.input(3), n.optional_input(4)
    last = bool(n.attribute("channels_last", 1))
    if rank(skip) == 2:
        skip = op.Unsqueeze(skip, [1, 2] if last else [2, 3])
    total = op.Add(n.x, skip)
    if bias is not None:
        total = op.Add(total, bias if last else op.Unsqueeze(bias, [1, 2]))
    total.shape = n.x.shape
    return [_group_norm(n, total), total][: len(n.node.outputs)]


def _group_norm(n: NodeView, x: ir.Value) -> ir.Value:
    op, groups = n.op, n.attribute("groups")
    dtype, last = dtype_of(x), bool(n.attribute("channels_last", 1))
    half = dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    wide = op.cast(x, ir.DataType.FLOAT if half else dtype)
    shape = op.Shape(x)
    if last:
        # [N, H W, groups, C / groups]: what is inside a group lies on axes 1 and 3.
        within = op.Div(op.Shape(n.input(1)), [groups])
        rows = op.Reshape(wide, op.Concat([0, -1, groups], within, axis=0))
        axes = [1, 3]
    else:
        rows, axes = op.Reshape(wide, [0, groups, -1]), [2]
    centred = op.Sub(rows, op.reduce("ReduceMean", rows, axes))
    variance = op.reduce("ReduceMean", op.Mul(centred, centred), axes)
    deviation = op.Sqrt(op.Add(variance, n.attribute("epsilon", 1e-5)))
    normalized = op.Reshape(op.Div(centred, deviation), shape)
    gamma, beta = (op.cast(n.input(i), dtype_of(wide)) for i in (1, 2))
    if not last:
        gamma, beta = op.Unsqueeze(gamma, [1, 2]), op.Unsqueeze(beta, [1, 2])
    y = op.Add(op.Mul(normalized, gamma), beta)
    if n.attribute("activation", 0):
        y = silu(op, y)
    y.shape = x.shape
    return op.cast(y, dtype)
