"""Products with weights of few bits: MatMulNBits, MatMulBnb4, GatherBlockQuantized.

ONNX Runtime's, as its contrib operators define them. Nothing that depends on the input is rounded: these are real
functions of it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from igonnx.graph.builder import rank
from igonnx.graph.node_view import NodeView
from igonnx.lowering.packed_weights import block_weights, four_bit_weights, unpacked
from igonnx.lowering.registry import Lowered, lowering

MICROSOFT = "com.microsoft"
_FLOAT = ir.DataType.FLOAT


@lowering("MatMulNBits", domain=MICROSOFT)
def matmul_nbits(n: NodeView) -> Lowered:
    """MatMulNBits: x W^T + bias with W [N, K] in blocks along K."""
    return _product(n, block_weights(n), n.optional_input(5))


@lowering("MatMulBnb4", domain=MICROSOFT)
def matmul_bnb4(n: NodeView) -> Lowered:
    """MatMulBnb4: x W^T with W [N, K] as bitsandbytes packs it."""
    return _product(n, four_bit_weights(n), None)


def _product(n: NodeView, weight: ir.Value, bias: ir.Value | None) -> Lowered:
    op, dtype = n.op, n.x.dtype or _FLOAT
    y = op.MatMul(n.x, op.Transpose(op.cast(weight, dtype), perm=[1, 0]))
    return [y if bias is None else op.Add(y, bias)]


@lowering("GatherBlockQuantized", domain=MICROSOFT)
def gather_block_quantized(n: NodeView) -> Lowered:
    """GatherBlockQuantized: Gather from (codes - zero point) * scale, with one of each per block along one axis."""
    op, data, scale = n.op, n.x, n.input(2)
    axes = rank(data)
    axis = int(n.attribute("quantize_axis", 1)) % axes
    block, bits = int(n.attribute("block_size", 128)), int(n.attribute("bits", 4))
    codes, zero_point = _codes(n, data, bits), n.optional_input(3)
    middle = 0 if data.dtype != ir.DataType.UINT8 else 2 ** (bits - 1)
    if zero_point is not None:
        offset = _repeated(n, _codes(n, zero_point, bits), codes, axis, axes, block)
        codes = op.Sub(codes, offset)
    elif middle:
        codes = op.Sub(codes, np.array(middle, np.float32))
    spread = _repeated(n, op.Cast(scale, to=int(_FLOAT)), codes, axis, axes, block)
    table = op.cast(op.Mul(codes, spread), scale.dtype or _FLOAT)
    return [op.Gather(table, n.input(1), axis=n.attribute("gather_axis", 0))]


def _codes(n: NodeView, value: ir.Value, bits: int) -> ir.Value:
    """The codes as float32; bytes hold several along the last axis, smaller types one each."""
    op = n.op
    if value.dtype != ir.DataType.UINT8 or bits == 8:
        return op.Cast(value, to=int(_FLOAT))  # type: ignore[no-any-return]
    leading = op.Slice(op.Shape(value), [0], [-1])
    return op.Reshape(unpacked(op, value, bits), op.join(leading, [-1]))  # type: ignore[no-any-return]


def _repeated(
    n: NodeView, value: ir.Value, like: ir.Value, axis: int, axes: int, block: int
) -> ir.Value:
    """Each number of `value` for a whole block along `axis`, cut to the length of `like`."""
    op = n.op
    copies = np.ones(axes + 1, np.int64)
    copies[axis + 1] = block
    wide = op.Expand(op.Unsqueeze(value, [axis + 1]), copies)
    shape = op.Shape(value)
    parts = [op.Slice(shape, [0], [axis]), op.ints([-1]), op.Slice(shape, [axis + 1], [axes])]
    flat = op.Reshape(wide, op.Concat(*parts, axis=0))
    length = op.Slice(op.Shape(like), [axis], [axis + 1])
    return op.Slice(flat, [0], length, [axis])  # type: ignore[no-any-return]
