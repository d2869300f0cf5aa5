"""Normalisation within an example: LayerNormalization, InstanceNormalization, LRN."""

from __future__ import annotations

from typing import cast

import onnx_ir as ir

from igonnx.autodiff.broadcasting import broadcast_to, unbroadcast
from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.graph.builder import GraphBuilder, dims, dtype_of, rank, static_shape


@rule("LayerNormalization")
def layer_normalization(v: Vjp) -> Gradients:
    """LayerNormalization over the axes from `axis` on (Ba, Kiros and Hinton, arXiv:1607.06450).

    Its mean and its inverse deviation may be outputs, too: d mean/dx = 1 / n, d inverse/dx = -inverse^2 normalized / n.
    """
    op, x, scale = v.op, v.x, v.input(1)
    axes = list(range(v.attribute("axis", -1) % rank(x), rank(x)))
    mean, inverse = (_statistic(v, index, axes) for index in (1, 2))
    if _in_one_pass(v, inverse, axes):
        to_x = op.emit("LayerNormGradient", v.g, x, scale, mean, inverse, domain="ai.igonnx")
        return [to_x, None, None]
    precise = dtype_of(inverse)
    normalized = op.Mul(op.Sub(op.cast(x, precise), mean), inverse)
    to_x = to_scale = to_bias = None
    g = None if v.gradients[0] is None else op.cast(v.g, precise)
    if v.wanted[0]:
        terms = _by_statistics(v, normalized, inverse, axes)
        if g is not None:
            h = op.Mul(g, op.cast(scale, precise))
            terms.append(normalized_gradient(op, h, normalized, inverse, axes))
        to_x = op.cast(terms[0] if len(terms) == 1 else op.Sum(*terms), dtype_of(x))
    if g is not None and v.wanted[1]:
        to_scale = unbroadcast(op, op.Mul(g, normalized), v.y, scale)
        to_scale = op.cast(to_scale, dtype_of(scale))
    bias = v.optional_input(2)
    if g is not None and bias is not None and v.wanted[2]:
        to_bias = op.cast(unbroadcast(op, g, v.y, bias), dtype_of(bias))
    return [to_x, to_scale, to_bias]


def normalized_gradient(
    op: GraphBuilder, h: ir.Value, normalized: ir.Value, inverse: ir.Value, axes: list[int]
) -> ir.Value:
    """Gradient by x of n = (x - mean) inverse, mean and deviation over `axes`: (h - mean(h) - n mean(h n)) inverse."""
    centred = op.Sub(h, op.reduce("ReduceMean", h, axes))
    along = op.reduce("ReduceMean", op.Mul(h, normalized), axes)
    return op.Mul(op.Sub(centred, op.Mul(normalized, along)), inverse)  # type: ignore[no-any-return]


def _in_one_pass(v: Vjp, inverse: ir.Value, axes: list[int]) -> bool:
    """Whether the plugin's operator can do it: by x alone, in one type, with a scale for each element of a row."""
    x, scale = v.x, v.input(1)
    return (
        bool(v.op.native)
        and v.gradients[0] is not None
        and not any(gradient is not None for gradient in v.gradients[1:])
        and v.wanted[0]
        and not any(v.wanted[1:])
        and x.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE)
        and x.dtype == inverse.dtype == scale.dtype
        and static_shape(scale) is not None
        and dims(scale) == dims(x)[axes[0] :]
    )


def _by_statistics(
    v: Vjp, normalized: ir.Value, inverse: ir.Value, axes: list[int]
) -> list[ir.Value]:
    """The gradients by x of the outputs mean and inverse deviation, where any arrive."""
    op, terms = v.op, []
    to_mean, to_inverse = (*v.gradients[1:], None, None)[:2]
    if to_mean is None and to_inverse is None:
        return []
    count = op.cast(op.count(v.x, axes), dtype_of(inverse))
    if to_mean is not None:
        terms.append(broadcast_to(op, op.Div(to_mean, count), v.x))
    if to_inverse is not None:
        factor = op.Div(op.Mul(to_inverse, op.Mul(inverse, inverse)), op.Neg(count))
        terms.append(op.Mul(normalized, factor))
    return terms


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


@rule("InstanceNormalization")
def instance_normalization(v: Vjp) -> Gradients:
    """InstanceNormalization (Ulyanov et al., arXiv:1607.08022): per example and channel, over the spatial axes."""
    op, x, scale = v.op, v.x, v.input(1)
    axes = list(range(2, rank(x)))
    precise = accumulator(dtype_of(x))
    wide, g = op.cast(x, precise), op.cast(v.g, precise)
    centred = op.Sub(wide, op.reduce("ReduceMean", wide, axes))
    variance = op.reduce("ReduceMean", op.Mul(centred, centred), axes)
    inverse = op.Reciprocal(op.Sqrt(op.Add(variance, v.attribute("epsilon", 1e-5))))
    normalized = op.Mul(centred, inverse)
    to_x = to_scale = to_bias = None
    if v.wanted[0]:
        h = op.Mul(g, per_channel(op, op.cast(scale, precise), rank(x)))
        to_x = op.cast(normalized_gradient(op, h, normalized, inverse, axes), dtype_of(x))
    if v.wanted[1]:
        total = op.ReduceSum(op.Mul(g, normalized), [0, *axes], keepdims=0)
        to_scale = op.cast(total, dtype_of(scale))
    if v.wanted[2]:
        to_bias = op.cast(op.ReduceSum(g, [0, *axes], keepdims=0), dtype_of(v.input(2)))
    return [to_x, to_scale, to_bias]


def accumulator(dtype: ir.DataType) -> ir.DataType:
    """The type in which sums over elements of `dtype` stay accurate and do not overflow."""
    return ir.DataType.FLOAT if dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16) else dtype


def per_channel(op: GraphBuilder, value: ir.Value, axes: int) -> ir.Value:
    """`value` [C] as [C, 1, ...], to meet a tensor [N, C, ...] of so many axes."""
    return op.Reshape(value, [-1] + [1] * (axes - 2))  # type: ignore[no-any-return]


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
    sizes = op.count(v.x, range(2, rank(v.x)))
    rows = op.join(op.dim(v.x, 0), [1], op.dim(v.x, 1), sizes)
    pooled = op.AveragePool(
        op.Reshape(value, rows),
        kernel_shape=[size, 1],
        pads=[before, 0, after, 0],
        count_include_pad=1,
    )
    return op.reshape_like(pooled, v.x)
