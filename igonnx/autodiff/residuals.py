"""Residuals: values computed inside the body of a node that its way back reads, which therefore have to come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.autodiff.registry import Vjp
from igonnx.autodiff.sequences import is_sequence
from igonnx.graph.builder import GraphBuilder
from igonnx.graph.node_view import captures_of, take_place

__all__ = [
    "expose_branch",
    "expose_sequences",
    "expose_stack",
    "keeps_its_shape",
    "placeholder",
    "recompute",
    "residuals_of",
    "substitute",
]


def placeholder(
    op: GraphBuilder,
    like: ir.Value,
    *,
    dtype: ir.DataType | None = None,
    shape: Sequence[int] | None = None,
) -> ir.Value:
    """An input of a body that stands for a tensor like `like`."""
    kind: ir.TypeProtocol = ir.TensorType(dtype or like.dtype or ir.DataType.FLOAT)
    if is_sequence(like):
        kind = ir.SequenceType(kind)
    name = op.unique(f"{(like.name or 'value').rsplit('/', 1)[-1]}_given")
    return ir.val(name, type=kind, shape=like.shape if shape is None else ir.Shape(shape))


def residuals_of(backward: ir.Graph, body: ir.Graph) -> list[ir.Value]:
    """What `backward` reads of the inputs, results and remaining constants of `body`."""
    owned = {*body.inputs, *body.initializers.values()}
    owned.update(value for node in body for value in node.outputs)
    return [value for value in captures_of(backward) if value in owned]


def recompute(
    op: GraphBuilder,
    backward: ir.Graph,
    body: ir.Graph,
    *kinds: type[ir.TypeProtocol],
    behind: ir.Node | None = None,
) -> None:
    """Let `backward` compute what it reads of `body` by itself, where that is of one of `kinds`; in place.

    That is done first of all, or right `behind` a node.

    So it is with sequences inside a loop, which can neither be stacked nor put into a sequence. What they are made of
    is read instead.
    """
    while True:
        read = residuals_of(backward, body)
        nodes = [value.producer() for value in read if isinstance(value.type, kinds)]
        node = next((node for node in nodes if node is not None), None)
        if node is None:
            return
        copy = _copy(op, node)
        if behind is None:
            backward.insert_before(backward[0], copy)
        else:
            backward.insert_after(behind, copy)
        substitute(backward, dict(zip(node.outputs, copy.outputs, strict=True)))


def _copy(op: GraphBuilder, node: ir.Node) -> ir.Node:
    """Another node that computes the same; the values inside its bodies keep their names."""
    attributes = [
        ir.AttrGraph(name, attribute.as_graph().clone(allow_outer_scope_values=True))
        if attribute.type == ir.AttributeType.GRAPH
        else attribute
        for name, attribute in node.attributes.items()
    ]
    copy = ir.Node(
        node.domain,
        node.op_type,
        node.inputs,
        attributes,
        num_outputs=len(node.outputs),
        name=op.unique(node.op_type),
    )
    for old, new in zip(node.outputs, copy.outputs, strict=True):
        new.name, new.type, new.shape = op.unique("again"), old.type, old.shape
    return copy


def substitute(graph: ir.Graph, stand_ins: Mapping[ir.Value, ir.Value]) -> None:
    """Let the nodes of `graph`, and those in their bodies, read `stand_ins` in the place of values; in place."""
    for node in graph.all_nodes():
        for index, value in enumerate(node.inputs):
            if value is not None and value in stand_ins:
                node.replace_input_with(index, stand_ins[value])


def expose_branch(
    v: Vjp, values: Sequence[ir.Value], branch: ir.Graph, others: Sequence[ir.Graph]
) -> dict[ir.Value, ir.Value]:
    """Let an If put out `values` of one branch, where the other branch puts out something empty."""
    exposed = {}
    for value in values:
        v.op.within(branch).put_out(value)
        dtype = _element_dtype(v, value) if is_sequence(value) else _tensor_dtype(v, value)
        for other in others:
            inner = v.op.within(other)
            if is_sequence(value):
                inner.put_out(inner.SequenceEmpty(dtype=int(dtype)), value.type)
                continue
            shape = [0] * len(value.shape if value.shape is not None else (0,))
            inner.put_out(inner.constant(np.zeros(shape, dtype=dtype.numpy())))
        # Not of the shape of `value`: what is empty may not be taken for a buffer of that size.
        unsure = None if value.shape is None else ir.Shape([None] * len(value.shape))
        exposed[value] = _new_output(v, value, unsure)
    return exposed


def expose_stack(v: Vjp, body: ir.Graph, value: ir.Value) -> ir.Value:
    """Let a Scan or Loop put out what `value` is in each iteration, stacked along a first axis."""
    _tensor_dtype(v, value)
    v.op.within(body).put_out(value)
    shape = None if value.shape is None else ir.Shape([None, *value.shape])
    return _new_output(v, value, shape)


def expose_sequences(
    v: Vjp, body: ir.Graph, values: Sequence[ir.Value]
) -> tuple[list[ir.Value], dict[ir.Value, ir.Value]]:
    """Let a Loop put out what `values` are in each iteration as sequences, for tensors whose shape changes.

    A sequence is carried from iteration to iteration, and stands among the other values that are; so the node is
    replaced by one with more of those, and must not be used afterwards. Also returns what its outputs became.
    """
    if not values:
        return [], {}
    node, carried = v.node, len(v.node.inputs) - 2
    kinds = [ir.SequenceType(ir.TensorType(_tensor_dtype(v, value))) for value in values]
    inner = v.op.within(body)
    grown = []
    for value, kind in zip(values, kinds, strict=True):
        so_far = ir.val(v.op.unique("kept_so_far"), type=kind)
        body.inputs.append(so_far)
        grown.append(inner.SequenceInsert(so_far, value))
        grown[-1].type = kind
    body.outputs[1 + carried : 1 + carried] = grown
    with v.op.before(node):
        empty = [v.op.SequenceEmpty(dtype=int(_tensor_dtype(v, value))) for value in values]
        for nothing, kind in zip(empty, kinds, strict=True):
            nothing.type = kind
    new = ir.Node(
        node.domain,
        node.op_type,
        [*node.inputs, *empty],
        [ir.AttrGraph("body", body)],
        num_outputs=len(node.outputs) + len(values),
        name=v.op.unique("Loop"),
    )
    graph = cast("ir.Graph", node.graph)
    graph.insert_before(node, new)
    sequences = list(new.outputs[carried : carried + len(values)])
    rest = [*new.outputs[:carried], *new.outputs[carried + len(values) :]]
    for old, fresh in zip(node.outputs, rest, strict=True):
        take_place(old, fresh)
        fresh.type, fresh.shape = old.type, old.shape
    graph.remove(node, safe=True)
    for sequence, kind in zip(sequences, kinds, strict=True):
        sequence.name, sequence.type = v.op.unique("kept"), kind
    return sequences, dict(zip(node.outputs, rest, strict=True))


def keeps_its_shape(value: ir.Value, outside: Sequence[ir.Value | None]) -> bool:
    """Whether `value`, inside a Loop, surely has one shape in all iterations: fixed sizes, or sizes known `outside`."""
    if value.shape is None:
        return False
    known = {
        dim.value
        for other in outside
        if other is not None and other.shape is not None
        for dim in other.shape
        if isinstance(dim, ir.SymbolicDim) and dim.value is not None
    }
    return all(isinstance(dim, int) or dim.value in known for dim in value.shape)


def _tensor_dtype(v: Vjp, value: ir.Value) -> ir.DataType:
    if isinstance(value.type, ir.SequenceType | ir.OptionalType) or value.dtype is None:
        raise v.unsupported(f"a body whose way back needs {value.name!r}, which is no tensor")
    return value.dtype


def _element_dtype(v: Vjp, sequence: ir.Value) -> ir.DataType:
    if sequence.dtype is None:
        raise v.unsupported(
            f"a body whose way back needs {sequence.name!r}, a sequence of unknown type"
        )
    return sequence.dtype


def _new_output(v: Vjp, like: ir.Value, shape: ir.Shape | None) -> ir.Value:
    v.node.resize_outputs(len(v.node.outputs) + 1)
    value = v.node.outputs[-1]
    value.name = v.op.unique("residual")
    value.type = like.type if is_sequence(like) else ir.TensorType(_tensor_dtype(v, like))
    value.shape = shape
    return value
