"""What gradients are like: of which type, zero, and added up, for tensors, codes and sequences."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import cast

import onnx_ir as ir

from igonnx.autodiff.sequences import add_sequences, is_sequence, zero_sequence
from igonnx.graph.builder import GraphBuilder

__all__ = ["added", "gradient_dtype", "gradient_type", "is_real_tensor", "zeros_like"]

_REAL = frozenset(
    [ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE]
)


def is_real_tensor(value: ir.Value) -> bool:
    """Whether `value` is a tensor of floats."""
    return not isinstance(value.type, ir.SequenceType | ir.OptionalType) and value.dtype in _REAL


def gradient_dtype(value: ir.Value) -> ir.DataType:
    """The dtype of the gradient of `value`: its own, or float32 for codes."""
    return value.dtype if value.dtype in _REAL else ir.DataType.FLOAT


def gradient_type(value: ir.Value) -> ir.TypeProtocol:
    """The type of the gradient of `value`, a tensor or a sequence of tensors."""
    tensor = ir.TensorType(gradient_dtype(value))
    return ir.SequenceType(tensor) if is_sequence(value) else tensor


def zeros_like(op: GraphBuilder, value: ir.Value) -> ir.Value:
    """A gradient of `value` that is zero."""
    if is_sequence(value):
        return zero_sequence(op, value)
    zeros = op.zeros(op.shape(value), gradient_dtype(value))
    zeros.shape = value.shape
    return zeros


def added(op: GraphBuilder, terms: Sequence[ir.Value]) -> ir.Value:
    """The sum of two gradients or more of one value."""
    if any(is_sequence(term) for term in terms):
        return functools.reduce(functools.partial(add_sequences, op), terms)
    return cast("ir.Value", op.Add(*terms) if len(terms) == 2 else op.Sum(*terms))
