"""Codes and the real numbers they stand for: value = (code - zero point) * scale."""

from __future__ import annotations

from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder, dtype_of
from igonnx.graph.node_view import NodeView

__all__ = ["centred", "column_scale", "encoded", "real", "real_weight"]

_FLOAT = ir.DataType.FLOAT


def real(n: NodeView, code: int, *, axis: int | None = None) -> ir.Value:
    """What input `code` stands for, float32; its scale and zero point are the two inputs behind it."""
    scale = n.input(code + 1)
    given = {} if axis is None else {"axis": axis}
    value = n.op.DequantizeLinear(n.input(code), scale, n.optional_input(code + 2), **given)
    value.type, value.shape = ir.TensorType(scale.dtype or _FLOAT), n.input(code).shape
    return n.op.cast(value, _FLOAT)


def encoded(n: NodeView, value: ir.Value, scale: int, *, like: int = 0, **given: int) -> ir.Value:
    """`value` rounded to codes; inputs `scale` and the one behind it say how. Without a zero point: as input `like`."""
    zero_point = n.optional_input(scale + 1)
    if zero_point is None:
        zero_point = n.op.constant(np.zeros((), dtype_of(n.input(like)).numpy()))
    by = n.input(scale)
    codes = n.op.QuantizeLinear(n.op.cast(value, by.dtype or _FLOAT), by, zero_point, **given)
    codes.type = None if zero_point.dtype is None else ir.TensorType(zero_point.dtype)
    return cast("ir.Value", codes)


def centred(n: NodeView, code: int, zero_point: int | None) -> ir.Value:
    """Input `code` less its zero point, float32; rows and columns of zero points broadcast as they are."""
    value = _as_float(n.op, n.input(code))
    offset = None if zero_point is None else n.optional_input(zero_point)
    if offset is None or _is_zero(n, zero_point):
        return value
    return cast("ir.Value", n.op.Sub(value, _as_float(n.op, offset)))


def real_weight(n: NodeView, code: int, scale: int, zero_point: int, behind: int) -> ir.Value:
    """A weight with one scale, or one per slice of the axis that has `behind` axes behind it, float32.

    Not by DequantizeLinear: this the runtime computes once, when it loads the graph.
    """
    op = n.op
    value = _as_float(op, n.input(code))
    offset = n.optional_input(zero_point)
    if offset is not None and not _is_zero(n, zero_point):
        value = op.Sub(value, _as_column(op, _as_float(op, offset), behind))
    weight = op.Mul(value, _as_column(op, op.cast(n.input(scale), _FLOAT), behind))
    weight.shape = n.input(code).shape
    return cast("ir.Value", weight)


def column_scale(op: GraphBuilder, *scales: ir.Value) -> ir.Value:
    """The product of the scales of two factors of a matrix product: scalars, or one per column."""
    product = op.cast(scales[0], _FLOAT)
    for scale in scales[1:]:
        product = op.Mul(product, op.cast(scale, _FLOAT))
    return product


def _as_column(op: GraphBuilder, value: ir.Value, behind: int) -> ir.Value:
    if behind == 0 or (value.shape is not None and len(value.shape) == 0):
        return value
    return cast("ir.Value", op.Reshape(value, [-1] + [1] * behind))


def _as_float(op: GraphBuilder, value: ir.Value) -> ir.Value:
    result = cast("ir.Value", op.Cast(value, to=int(_FLOAT)))
    result.shape = value.shape
    return result


def _is_zero(n: NodeView, index: int | None) -> bool:
    known = None if index is None else n.constant(index)
    return known is not None and not known.any()
