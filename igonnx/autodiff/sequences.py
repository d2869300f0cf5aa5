"""Arithmetic on sequences of tensors, which ONNX has none of: loops over their elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder

__all__ = ["add_sequences", "is_sequence", "like_sequence", "sequence_of", "zero_sequence"]


def is_sequence(value: ir.Value) -> bool:
    """Whether `value` is a sequence of tensors."""
    return isinstance(value.type, ir.SequenceType)


def sequence_of(op: GraphBuilder, op_type: str, *operands: Any, **attributes: Any) -> ir.Value:
    """Emit an operator whose result is a sequence, of the dtype of its first operand."""
    result = cast("ir.Value", op.emit(op_type, *operands, **attributes))
    result.type = ir.SequenceType(ir.TensorType(cast("ir.DataType", operands[0].dtype)))
    result.shape = None
    return result


def like_sequence(
    op: GraphBuilder,
    sequence: ir.Value,
    element: Callable[[GraphBuilder, ir.Value], ir.Value],
    *,
    dtype: ir.DataType | None = None,
) -> ir.Value:
    """The sequence of `element(builder, tensor)` for each tensor of `sequence`; `dtype` where that is another one."""
    return _over_places(
        op,
        sequence,
        lambda inner, place: element(inner, _at(inner, sequence, place)),
        dtype or cast("ir.DataType", sequence.dtype),
    )


def zero_sequence(op: GraphBuilder, sequence: ir.Value) -> ir.Value:
    """A sequence of zeros like `sequence`."""
    dtype = cast("ir.DataType", sequence.dtype)
    return like_sequence(
        op, sequence, lambda inner, tensor: inner.zeros(inner.Shape(tensor), dtype)
    )


def add_sequences(op: GraphBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    """Element by element, the sum of two sequences of one length."""
    return _over_places(
        op,
        a,
        lambda inner, place: inner.Add(_at(inner, a, place), _at(inner, b, place)),
        cast("ir.DataType", a.dtype),
    )


def _at(op: GraphBuilder, sequence: ir.Value, place: ir.Value) -> ir.Value:
    tensor = cast("ir.Value", op.SequenceAt(sequence, place))
    tensor.type, tensor.shape = ir.TensorType(cast("ir.DataType", sequence.dtype)), None
    return tensor


def _over_places(
    op: GraphBuilder,
    sequence: ir.Value,
    element: Callable[[GraphBuilder, ir.Value], ir.Value],
    dtype: ir.DataType,
) -> ir.Value:
    """The sequence of `element(builder, place)` for each place in `sequence`."""
    kind = ir.SequenceType(ir.TensorType(dtype))
    inner = op.nested("elements")
    place = ir.val(op.unique("place"), type=ir.TensorType(ir.DataType.INT64), shape=[])
    going = ir.val(op.unique("going"), type=ir.TensorType(ir.DataType.BOOL), shape=[])
    so_far = ir.val(op.unique("so_far"), type=kind)
    inner.graph.inputs.extend([place, going, so_far])
    grown = inner.SequenceInsert(so_far, element(inner, place))
    grown.type = kind
    inner.put_out(going)
    inner.put_out(grown)
    empty = op.emit("SequenceEmpty", dtype=int(dtype))
    empty.type = kind
    result = op.Loop(op.SequenceLength(sequence), None, empty, body=inner.graph)
    result.type, result.shape = kind, None
    return cast("ir.Value", result)
