"""Quantisation: gradients go straight through the rounding, inside the range of the codes.

A code q stands for the real number (q - zero point) * scale. The convention is that of torch.fake_quantize (the
straight-through estimator of Bengio, Leonard and Courville, 2013, arXiv:1308.3432): rounding has slope one where the
rounded code lies in the range of its type, and zero where it had to be clipped.
"""

from __future__ import annotations

from typing import cast

import onnx_ir as ir

from igonnx.autodiff.broadcasting import unbroadcast
from igonnx.autodiff.registry import Gradients, Vjp, encoder, is_code, mover, rule
from igonnx.graph.builder import dtype_of, rank
from igonnx.lowering.apply import PRIVATE_DOMAIN, STRAIGHT_THROUGH
from igonnx.lowering.packed_weights import block_weights, four_bit_weights

MICROSOFT = "com.microsoft"
_FLOAT = ir.DataType.FLOAT
# The largest finite number of the small floating types, which are symmetric.
_LARGEST = {
    ir.DataType.FLOAT8E4M3FN: 448.0,
    ir.DataType.FLOAT8E4M3FNUZ: 240.0,
    ir.DataType.FLOAT8E5M2: 57344.0,
    ir.DataType.FLOAT8E5M2FNUZ: 57344.0,
    ir.DataType.FLOAT4E2M1: 6.0,
}

for _domain in ("", MICROSOFT):
    encoder("QuantizeLinear", domain=_domain)
encoder("DynamicQuantizeLinear", outputs=1)
encoder(STRAIGHT_THROUGH, domain=PRIVATE_DOMAIN)
# Moving codes about, choosing among them, and sums of those that share a scale.
mover(
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Dropout",
    "Concat", "Split", "Slice", "Gather", "GatherElements", "GatherND", "Compress", "Pad", "Expand", "Tile",
    "DepthToSpace", "SpaceToDepth", "ReverseSequence", "Resize", "MaxPool", "Max", "Min", "Where",
    "Cast", "CastLike", "Add", "Sub", "Sum",
)  # fmt: skip


@rule(STRAIGHT_THROUGH, domain=PRIVATE_DOMAIN)
def straight_through(v: Vjp) -> Gradients:
    """StraightThrough, what an operator computes beside its lowered form: the gradient goes through the latter."""
    lowered = v.input(1)
    return [None, v.g if is_code(lowered) else v.op.cast(v.g, dtype_of(lowered))]


def _quantize(v: Vjp) -> Gradients:
    """QuantizeLinear, clip(round(x / scale) + zero point): g / scale by x, -g x / scale^2 by scale, 0 where clipped."""
    op, x, scale = v.op, v.x, v.input(1)
    inside = _inside(v)
    kept = op.Where(inside, v.g, op.scalar(0.0, v.g))
    shared = spread(v, scale, dtype_of(v.g))
    to_x = op.Div(kept, shared)
    to_scale = None
    if v.wanted[1]:
        real = op.cast(x, dtype_of(v.g))
        slope = op.Neg(op.Mul(to_x, op.Div(real, shared)))
        to_scale = op.cast(_gathered(v, slope, scale), dtype_of(scale))
    return [to_x if is_code(x) else op.cast(to_x, dtype_of(x)), to_scale, None]


def _inside(v: Vjp) -> ir.Value:
    """Where the rounded code needs no clipping, bool in the shape of x; in float32, which holds all codes."""
    op = v.op
    low, high = code_range(v, dtype_of(v.y))
    code = op.Div(op.cast(v.x, _FLOAT), spread(v, v.input(1), _FLOAT))
    if dtype_of(v.y).is_integer():
        code = op.Round(code)
    zero_point, known = v.optional_input(2), v.constant(2)
    if zero_point is not None and (known is None or known.any()):
        code = op.Add(code, spread(v, zero_point, _FLOAT))
    held = op.Clip(code, op.scalar(low, code), op.scalar(high, code))
    return cast("ir.Value", op.Equal(code, held))


def code_range(v: Vjp, dtype: ir.DataType) -> tuple[float, float]:
    """The smallest and the largest code of a type."""
    if dtype in _LARGEST:
        return -_LARGEST[dtype], _LARGEST[dtype]
    if not dtype.is_integer():
        raise v.unsupported(f"codes of type {dtype.name}")
    bits = int(dtype.bitwidth)
    if dtype.is_signed():
        return -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    return 0.0, 2.0**bits - 1


def _dequantize(v: Vjp) -> Gradients:
    """DequantizeLinear, (code - zero point) * scale: g * scale by the code, g * (code - zero point) by the scale."""
    op, scale, zero_point = v.op, v.input(1), v.optional_input(2)
    dtype = dtype_of(v.g)
    to_code = op.Mul(v.g, spread(v, scale, dtype)) if v.wanted[0] else None
    to_scale = None
    if v.wanted[1]:
        code = op.cast(v.x, dtype)
        if zero_point is not None:
            code = op.Sub(code, spread(v, zero_point, dtype))
        to_scale = op.cast(_gathered(v, op.Mul(v.g, code), scale), dtype_of(scale))
    return [to_code, to_scale, None]


for _domain in ("", MICROSOFT):
    rule("QuantizeLinear", domain=_domain)(_quantize)
    rule("DequantizeLinear", domain=_domain)(_dequantize)


@rule("DynamicQuantizeLinear")
def dynamic_quantize_linear(v: Vjp) -> Gradients:
    """DynamicQuantizeLinear: g / scale, with the scale that the operator found; its range holds every x.

    Scale and zero point count as constants, as they do for networks quantised ahead.
    """
    if v.gradients[0] is None:
        return [None]
    return [v.op.cast(v.op.Div(v.g, v.node.outputs[1]), dtype_of(v.x))]


# -- scales for every element: one for all, one per slice of an axis, or one per block ---------------------


def spread(v: Vjp, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """The scale or zero point `value` as `dtype`, broadcastable to x: as it is, [1, n, 1] or in the shape of x."""
    op = v.op
    value = op.cast(value, dtype)
    shape = value.shape
    if shape is not None and (len(shape) == 0 or (len(shape) == 1 and shape[0] == 1)):
        return cast("ir.Value", op.Reshape(value, [])) if len(shape) else value
    if _block_size(v):
        return _repeated(v, value)
    axis = _axis(v)
    behind = -axis - 1 if axis < 0 else rank(v.x) - 1 - axis
    if behind == 0 and axis < 0:
        return value
    return cast("ir.Value", op.Reshape(value, [-1] + [1] * behind))


def _axis(v: Vjp) -> int:
    return int(v.attribute("axis", 1))


def _block_size(v: Vjp) -> int:
    return int(v.attribute("block_size", 0))


def _repeated(v: Vjp, value: ir.Value) -> ir.Value:
    """One number per block along the axis, for each element; the last block may be cut short."""
    op, axis, n = v.op, _axis(v) % rank(v.x), rank(v.x)
    value.shape = value.shape or ir.Shape([None] * n)
    sizes = [op.dim(value, i) for i in range(n)]
    copies = op.join(*sizes[: axis + 1], [_block_size(v)], *sizes[axis + 1 :])
    copied = op.Expand(op.Unsqueeze(value, [axis + 1]), copies)
    flat = op.Reshape(copied, op.join(*sizes[:axis], [-1], *sizes[axis + 1 :]))
    cut = op.Slice(flat, [0], op.dim(v.x, axis), [axis])
    cut.shape = v.x.shape
    return cast("ir.Value", cut)


def _gathered(v: Vjp, full: ir.Value, scale: ir.Value) -> ir.Value:
    """Undo `spread`: sum `full`, in the shape of x, over what shares an element of `scale`."""
    op = v.op
    if rank(scale) == 0 or (rank(scale) == 1 and scale.shape is not None and scale.shape[0] == 1):
        return op.reshape_like(op.ReduceSum(full, keepdims=0), scale)
    if not _block_size(v):
        axis = _axis(v) % rank(v.x)
        others = [i for i in range(rank(v.x)) if i != axis]
        return cast("ir.Value", op.ReduceSum(full, others, keepdims=0) if others else full)
    axis, block = _axis(v) % rank(v.x), _block_size(v)
    blocks = op.dim(scale, axis)
    missing = op.Sub(op.Mul(blocks, [block]), op.dim(v.x, axis))
    pads: list[ir.Value | list[int]] = [[0]] * (2 * rank(v.x))
    pads[rank(v.x) + axis] = missing
    padded = op.Pad(full, op.join(*pads))
    sizes = [op.dim(scale, i) for i in range(rank(v.x))]
    parts = op.Reshape(padded, op.join(*sizes[: axis + 1], [block], *sizes[axis + 1 :]))
    return cast("ir.Value", op.ReduceSum(parts, [axis + 1], keepdims=0))


# -- weights of few bits -----------------------------------------------------------------------------------


@rule("MatMulNBits", "MatMulBnb4", domain=MICROSOFT)
def packed_matmul(v: Vjp) -> Gradients:
    """MatMulNBits and MatMulBnb4, x W^T + bias: g W by x. Only weights are rounded: nothing to go straight through."""
    op, bnb4 = v.op, v.node.op_type == "MatMulBnb4"
    others = [index for index in range(1, len(v.node.inputs)) if v.wanted[index]]
    if others and (bnb4 or others != [5]):
        raise v.unsupported("the scales of packed weights")
    to_x = to_bias = None
    if v.wanted[0]:
        weight = four_bit_weights(v) if bnb4 else block_weights(v)
        to_x = op.MatMul(v.g, op.cast(weight, dtype_of(v.g)))
    if others:
        to_bias = unbroadcast(op, v.g, v.y, v.input(5))
    return [to_x, None, None, None, None, to_bias][: len(v.node.inputs)]
