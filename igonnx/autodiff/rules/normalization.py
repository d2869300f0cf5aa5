"""Normalisation layers: BatchNormalization (inference), LayerNormalization, LRN."""

from __future__ import annotations

from typing import cast

import onnx_ir as ir

from igonnx.autodiff.broadcasting import unbroadcast
from igonnx.autodiff.builder import dtype_of, rank
from igonnx.autodiff.registry import Gradients, Vjp, rule


@rule("BatchNormalization")
def batch_normalization(v: Vjp) -> Gradients:
    """BatchNormalization with fixed statistics is affine per channel: g scale / sqrt(variance + epsilon)."""
    if v.attribute("training_mode", 0):
        raise v.unsupported("BatchNormalization in training mode")
    if any(v.wanted[1:]):
        raise v.unsupported("the parameters of BatchNormalization")
    op, scale, variance = v.op, v.input(1), v.input(4)
    deviation = op.Sqrt(op.Add(variance, v.attribute("epsilon", 1e-5)))
    slope = op.Div(op.cast(scale, dtype_of(variance)), deviation)
    per_channel = op.Reshape(slope, [-1] + [1] * (rank(v.x) - 2))
    return [op.Mul(v.g, op.cast(per_channel, dtype_of(v.x))), None, None, None, None]


@rule("LayerNormalization")
def layer_normalization(v: Vjp) -> Gradients:
    """LayerNormalization over the axes from `axis` on (Ba, Kiros and Hinton, arXiv:1607.06450).

    With n = (x - mean) / deviation and h = g scale: the input's gradient is (h - mean(h) - n mean(h n)) / deviation.
    """
    if any(gradient is not None for gradient in v.gradients[1:]):
        raise v.unsupported("the mean and deviation that LayerNormalization puts out")
    op, x, scale = v.op, v.x, v.input(1)
    axes = list(range(v.attribute("axis", -1) % rank(x), rank(x)))
    mean, inverse = (_statistic(v, index, axes) for index in (1, 2))
    precise = dtype_of(inverse)
    normalized = op.Mul(op.Sub(op.cast(x, precise), mean), inverse)
    g = op.cast(v.g, precise)
    to_x = to_scale = to_bias = None
    if v.wanted[0]:
        h = op.Mul(g, op.cast(scale, precise))
        centred = op.Sub(h, op.reduce("ReduceMean", h, axes))
        along = op.reduce("ReduceMean", op.Mul(h, normalized), axes)
        to_x = op.Mul(op.Sub(centred, op.Mul(normalized, along)), inverse)
        to_x = op.cast(to_x, dtype_of(x))
    if v.wanted[1]:
        full = op.cast(op.Mul(g, normalized), dtype_of(scale))
        to_scale = unbroadcast(op, full, v.y, scale)
    bias = v.optional_input(2)
    if bias is not None and v.wanted[2]:
        to_bias = unbroadcast(op, v.g, v.y, bias)
    return [to_x, to_scale, to_bias]


def _statistic(v: Vjp, index: int, axes: list[int]) -> ir.Value:
    """The node's own mean (1) or inverse deviation (2), switched on where the model left it out."""
    if len(v.node.outputs) < 3:
        v.node.resize_outputs(3)
    value = v.node.outputs[index]
    if not value.name:
        value.name = v.op.unique(
            "LayerNormalization_" + ("mean" if index == 1 else "inverse_deviation")
        )
    value.type = ir.TensorType(ir.DataType(v.attribute("stash_type", 1)))
    shape = list(cast("ir.Shape", v.x.shape))
    value.shape = ir.Shape([1 if axis in axes else dim for axis, dim in enumerate(shape)])
    return value


@rule("LRN")
def lrn(v: Vjp) -> Gradients:
    """LRN, x s^-beta with s = bias + alpha / size times the sum of squares over neighbouring channels.

    dx = g s^-beta - 2 alpha beta / size * x * sum over the windows that contain x of (g x s^(-beta - 1)).
    """
    op, x, size = v.op, v.x, v.attribute("size")
    alpha, beta = v.attribute("alpha", 1e-4), v.attribute("beta", 0.75)
    before, after = (size - 1) // 2, size // 2
    squares = _channel_mean(v, op.Mul(x, x), size, before, after)
    s = op.Add(op.Mul(squares, alpha), v.attribute("bias", 1.0))
    power = op.Pow(s, op.scalar(-beta, x))
    weighted = op.Div(op.Mul(op.Mul(v.g, x), power), s)
    # The windows that contain a channel lie mirrored to the window of that channel.
    spread = _channel_mean(v, weighted, size, after, before)
    return [op.Sub(op.Mul(v.g, power), op.Mul(op.Mul(x, spread), 2 * alpha * beta))]


def _channel_mean(v: Vjp, value: ir.Value, size: int, before: int, after: int) -> ir.Value:
    """Mean over a window of `size` channels, zeros beyond the ends: an AveragePool along the channel axis."""
    op = v.op
    rows = op.join(op.dim(v.x, 0), [1], op.dim(v.x, 1), [-1])
    pooled = op.AveragePool(
        op.Reshape(value, rows),
        kernel_shape=[size, 1],
        pads=[before, 0, after, 0],
        count_include_pad=1,
    )
    return op.reshape_like(pooled, v.x)
