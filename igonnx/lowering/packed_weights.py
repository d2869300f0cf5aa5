"""Weights of 2, 4 or 8 bits, packed into bytes block by block, as real numbers.

The unpacking is arithmetic in float32, which is exact for bytes and has kernels everywhere; the runtime does it once,
when it loads the graph.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder
from igonnx.graph.node_view import NodeView

__all__ = ["block_weights", "four_bit_weights", "unpacked"]

_FLOAT = ir.DataType.FLOAT
# QLoRA's 4-bit normal floats (Dettmers, Pagnoni, Holtzman and Zettlemoyer, 2023, arXiv:2305.14314, appendix E).
_NORMAL_FLOAT = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip
_MAGNITUDES = [0.0, 0.0625 / 12, 8 / 12, 12 / 12, 4 / 12, 6 / 12, 2 / 12, 3 / 12]
_FLOAT4 = [*_MAGNITUDES, *(-number for number in _MAGNITUDES)]


def unpacked(op: GraphBuilder, packed: ir.Value, bits: int) -> ir.Value:
    """The codes in bytes [..., n], lowest bits first, float32 [..., n, 8 / bits]."""
    byte = op.Unsqueeze(op.Cast(packed, to=int(_FLOAT)), [-1])
    if bits == 8:
        return cast("ir.Value", byte)
    size = np.float32(2**bits)
    places = size ** np.arange(8 // bits, dtype=np.float32)
    upper = op.Floor(op.Div(byte, places))
    return cast(
        "ir.Value", op.Sub(upper, op.Mul(op.Floor(op.Div(byte, places * size)), np.array(size)))
    )


def block_weights(n: NodeView) -> ir.Value:
    """The weight of MatMulNBits, float32 [N, K], from bytes [N, blocks, block_size * bits / 8]."""
    op, bits, block = n.op, int(n.attribute("bits", 4)), int(n.attribute("block_size"))
    rows, columns = int(n.attribute("N")), int(n.attribute("K"))
    blocks = -(-columns // block)
    if bits not in (2, 4, 8):
        raise n.unsupported(f"weights of {bits} bits")
    codes = op.Reshape(unpacked(op, n.input(1), bits), [rows, blocks * block])
    scale = op.Reshape(op.Cast(n.input(2), to=int(_FLOAT)), [rows, blocks])
    zero_point = _block_zero_points(n, bits, rows, blocks)
    group = n.optional_input(4)
    if group is not None:
        codes = op.Slice(codes, [0], [columns], [1])
        scale, zero_point = (_grouped(op, value, group) for value in (scale, zero_point))
        return cast("ir.Value", op.Mul(op.Sub(codes, zero_point), scale))
    codes = op.Reshape(codes, [rows, blocks, block])
    wide = [
        value if value.shape is not None and len(value.shape) == 0 else op.Unsqueeze(value, [2])
        for value in (scale, zero_point)
    ]
    weight = op.Reshape(op.Mul(op.Sub(codes, wide[1]), wide[0]), [rows, blocks * block])
    if blocks * block > columns:
        weight = op.Slice(weight, [0], [columns], [1])
    weight.shape = ir.Shape([rows, columns])
    return cast("ir.Value", weight)


def _grouped(op: GraphBuilder, value: ir.Value, group: ir.Value) -> ir.Value:
    """Per column the number of its group; a number for all stays as it is."""
    if value.shape is not None and len(value.shape) == 0:
        return value
    return cast("ir.Value", op.Gather(value, group, axis=1))


def _block_zero_points(n: NodeView, bits: int, rows: int, blocks: int) -> ir.Value:
    """Float32 [N, blocks], or a scalar where the node gives none: the middle of the codes."""
    op, given = n.op, n.optional_input(3)
    if given is None:
        return op.constant(np.array(2 ** (bits - 1), np.float32))
    if given.dtype != ir.DataType.UINT8:  # floating, one per block
        return cast("ir.Value", op.Reshape(op.Cast(given, to=int(_FLOAT)), [rows, blocks]))
    if n.optional_input(4) is not None:
        # The CPU kernel of ONNX Runtime 1.31 takes the middle of the codes then, others do not.
        raise n.unsupported("packed zero points together with g_idx, on which kernels disagree")
    bytes_per_row = -(-blocks * bits // 8)
    packed = op.Reshape(given, [rows, bytes_per_row])
    numbers = op.Reshape(unpacked(op, packed, bits), [rows, bytes_per_row * (8 // bits)])
    return cast("ir.Value", op.Slice(numbers, [0], [blocks], [1]))


def four_bit_weights(n: NodeView) -> ir.Value:
    """The weight of MatMulBnb4, float32 [N, K]: entries of a table of 16 numbers times the largest of each block.

    The first of two codes in a byte has the higher bits.
    """
    op, block = n.op, int(n.attribute("block_size"))
    rows, columns = int(n.attribute("N")), int(n.attribute("K"))
    table = np.array(_NORMAL_FLOAT if n.attribute("quant_type") == 1 else _FLOAT4, np.float32)
    codes = op.Slice(unpacked(op, op.Reshape(n.input(1), [-1]), 4), [1], [-3], [1], [-1])
    flat = op.Gather(
        op.constant(table), op.Cast(op.Reshape(codes, [-1]), to=int(ir.DataType.INT64))
    )
    count = rows * columns
    largest = op.Unsqueeze(op.Cast(n.input(2), to=int(_FLOAT)), [1])
    shares = op.Reshape(op.Expand(largest, [1, block]), [-1])
    numbers = op.Mul(op.Slice(flat, [0], [count]), op.Slice(shares, [0], [count]))
    weight = op.Reshape(numbers, [rows, columns])
    weight.shape = ir.Shape([rows, columns])
    return cast("ir.Value", weight)
