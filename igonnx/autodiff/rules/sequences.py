"""Sequences and optionals. The gradient of a sequence is a sequence as long, that of an optional is its element's."""

from __future__ import annotations

from typing import cast

import onnx_ir as ir

from igonnx.autodiff.registry import Gradients, Vjp, nondifferentiable, rule
from igonnx.autodiff.sequences import like_sequence, sequence_of, zero_sequence
from igonnx.graph.builder import GraphBuilder

nondifferentiable("SequenceLength", "SequenceEmpty", "OptionalHasElement")


@rule("SequenceConstruct")
def sequence_construct(v: Vjp) -> Gradients:
    """SequenceConstruct: each tensor gets its place in the gradient."""
    op = v.op
    return [op.SequenceAt(v.g, op.ints(i)) if wanted else None for i, wanted in enumerate(v.wanted)]


@rule("SequenceAt")
def sequence_at(v: Vjp) -> Gradients:
    """SequenceAt: the gradient in its place, zeros elsewhere."""
    op, sequence = v.op, v.x
    place = _from_front(op, v.input(1), op.SequenceLength(sequence))
    others = sequence_of(op, "SequenceErase", zero_sequence(op, sequence), place)
    return [sequence_of(op, "SequenceInsert", others, v.g, place), None]


@rule("SequenceInsert")
def sequence_insert(v: Vjp) -> Gradients:
    """SequenceInsert: the tensor gets what arrives at its place, the sequence the rest."""
    op = v.op
    position = v.optional_input(2)
    # By default the last of what came out.
    place = op.ints(-1) if position is None else _from_front(op, position, op.SequenceLength(v.x))
    rest = sequence_of(op, "SequenceErase", v.g, place) if v.wanted[0] else None
    inserted = op.SequenceAt(v.g, place) if v.wanted[1] else None
    return [rest, inserted, None]


@rule("SequenceErase")
def sequence_erase(v: Vjp) -> Gradients:
    """SequenceErase: zeros for what was dropped."""
    op, sequence = v.op, v.x
    position = op.ints(-1) if v.optional_input(1) is None else v.input(1)
    place = _from_front(op, position, op.SequenceLength(sequence))
    dropped = op.SequenceAt(sequence, place)
    zeros = op.zeros(op.Shape(dropped), cast("ir.DataType", sequence.dtype))
    return [sequence_of(op, "SequenceInsert", v.g, zeros, place), None]


@rule("ConcatFromSequence")
def concat_from_sequence(v: Vjp) -> Gradients:
    """ConcatFromSequence: cut the gradient into parts as long as the tensors were."""
    op, axis = v.op, v.attribute("axis")
    if v.attribute("new_axis", 0):
        return [sequence_of(op, "SplitToSequence", v.g, axis=axis, keepdims=0)]
    return [sequence_of(op, "SplitToSequence", v.g, _lengths(op, v.x, axis), axis=axis)]


@rule("SplitToSequence")
def split_to_sequence(v: Vjp) -> Gradients:
    """SplitToSequence: join the parts again."""
    drops = v.optional_input(1) is None and not v.attribute("keepdims", 1)
    joined = v.op.ConcatFromSequence(v.g, axis=v.attribute("axis", 0), new_axis=int(drops))
    return [v.op.reshape_like(joined, v.x), None]


@rule("Optional", "OptionalGetElement")
def optional(v: Vjp) -> Gradients:
    """Optional and OptionalGetElement: what goes in comes out."""
    return [v.g] if v.node.inputs else []


def _from_front(op: GraphBuilder, position: ir.Value, length: ir.Value) -> ir.Value:
    """A position (scalar) counted from the front, where it may be counted from the back."""
    place = op.cast(position, ir.DataType.INT64)
    return cast("ir.Value", op.Where(op.Less(place, 0), op.Add(place, length), place))


def _lengths(op: GraphBuilder, sequence: ir.Value, axis: int) -> ir.Value:
    """Length of each tensor of `sequence` along `axis`, int64 [tensors]."""

    def length(inner: GraphBuilder, tensor: ir.Value) -> ir.Value:
        return cast("ir.Value", inner.Gather(inner.Shape(tensor), inner.ints([axis]), axis=0))

    sizes = like_sequence(op, sequence, length, dtype=ir.DataType.INT64)
    joined = cast("ir.Value", op.ConcatFromSequence(sizes, axis=0))
    joined.type = ir.TensorType(ir.DataType.INT64)
    return joined
