"""Shapes and dtypes of every tensor, as far as they can be known before running.

ONNX's own inference does nearly all of it. Two things are added: the bodies of loops, whose carried values may change
their shape from one iteration to the next, so that ONNX leaves them open; here a shape that comes out of the body as
it went in is kept. And operators outside the standard, behind which all shapes would be lost (`model.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import onnx_ir as ir
import onnx_ir.passes.common as passes

from igonnx.graph.node_view import subgraphs

__all__ = ["infer_shapes"]

_MAKES_SEQUENCE = frozenset(
    ["SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SplitToSequence"]
)
_KEEPS_RANK = frozenset(["AveragePool", "Conv", "ConvTranspose", "LpPool", "MaxPool"])
# Numbers of one tensor that ONNX may follow. It makes a list as long as any tensor of one axis that these operators
# read, whatever its dtype: a file of a hundred bytes could ask for one that no memory holds.
_MOST_FOLLOWED = 1 << 20
_FOLLOWED = frozenset(
    ["Add", "Cast", "Concat", "Gather", "Mul", "Size", "Slice", "Squeeze", "Sub", "Unsqueeze"]
)
_ROUNDS = 64  # a few per loop; a guess that has not been proved by then is dropped

Dims: TypeAlias = "list[int | ir.SymbolicDim | None]"
# What is assumed of inputs of bodies: in every iteration they have these sizes; None: no assumption.
Guesses: TypeAlias = "dict[ir.Value, Dims]"


def infer_shapes(model: ir.Model) -> None:
    """Infer shapes and dtypes in place, as far as that is possible; what stays unknown stays unset."""
    _infer(model)
    while _keep_ranks(model.graph):
        _infer(model)
    if not any(node.op_type in ("Loop", "Scan") for node in model.graph.all_nodes()):
        return
    guesses: Guesses = {}
    for _ in range(_ROUNDS):
        if not _settle(model.graph, guesses):
            return
        _infer(model)
    written = {value: value.shape for value in model.graph.outputs}
    for value in guesses:
        value.shape = None
    _forget(model.graph, {})
    for value, shape in written.items():
        value.shape = shape
    _infer(model)


def _infer(model: ir.Model) -> None:
    # What a caller may feed in the place of an initializer tells nothing.
    initializers = model.graph.initializers
    overridable = [value for value in initializers.values() if value.is_graph_input()]
    for value in overridable:
        initializers.pop(cast("str", value.name))
    logger = logging.getLogger("onnx_ir.passes.common.shape_inference")
    level = logger.level
    # The pass logs a stack trace when inference stops early; a rule that lacks a shape says so by itself.
    logger.setLevel(logging.CRITICAL)
    try:
        if not _has_large_numbers(model):
            _run(model, data_prop=True)
        else:
            _run(model, data_prop=False)
            if _follows_at_most(model.graph) <= _MOST_FOLLOWED:
                _run(model, data_prop=True)
    finally:
        logger.setLevel(level)
        for value in overridable:
            initializers.add(value)
    for node in model.graph.all_nodes():
        for body in subgraphs(node).values():
            _describe_constants(body)
    _mark_sequences(model.graph)


def _run(model: ir.Model, *, data_prop: bool) -> None:
    passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=data_prop)(model)


def _has_large_numbers(model: ir.Model) -> bool:
    """Whether anything in the graph tells of a size above `_MOST_FOLLOWED`, or many lists are joined."""
    nodes = list(model.graph.all_nodes())
    values = [*model.graph.inputs, *(value for node in nodes for value in node.outputs)]
    if any(
        isinstance(dim, int) and dim > _MOST_FOLLOWED
        for value in values
        if value.shape is not None
        for dim in value.shape
    ):
        return True
    for node in nodes:
        if node.op_type == "Slice":  # an end beyond every axis is usual there
            continue
        numbers = [_numbers(value) for value in node.inputs if value is not None]
        numbers += [list(a.as_ints()) for a in node.attributes.values() if _is_ints(a)]
        if any(abs(number) > _MOST_FOLLOWED for one in numbers for number in one):
            return True
    return _follows_at_most(model.graph) > _MOST_FOLLOWED


def _is_ints(attribute: ir.Attr) -> bool:
    return attribute.type == ir.AttributeType.INTS and attribute.value is not None


def _numbers(value: ir.Value) -> list[int]:
    """The numbers of a small constant of whole ones, else none."""
    tensor = value.const_value
    if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.size > 64:
        return []
    if tensor.dtype not in (ir.DataType.INT64, ir.DataType.INT32):
        return []
    return [int(number) for number in tensor.numpy().reshape(-1)]


def _follows_at_most(graph: ir.Graph) -> int:
    """The longest list of numbers that ONNX would follow through `graph`, as far as sizes are known."""
    lengths: dict[ir.Value | None, int] = {None: 0}

    def length(value: ir.Value | None) -> int:
        if value in lengths:
            return lengths[value]
        dims = None if value is None or value.shape is None else list(value.shape)
        return dims[0] if dims and len(dims) == 1 and isinstance(dims[0], int) else 0

    longest = 0
    for node in graph.all_nodes():
        if node.op_type not in _FOLLOWED:
            continue
        taken = [length(value) for value in node.inputs if not _is_weight(value)]
        followed = sum(taken) if node.op_type == "Concat" else max(taken, default=0)
        longest = max(longest, followed)
        if node.op_type not in ("Gather", "Slice", "Size"):
            lengths[node.outputs[0]] = max(followed, length(node.outputs[0]))
    return longest


def _is_weight(value: ir.Value | None) -> bool:
    """Whether this is a constant that is not of whole numbers: nothing is followed of it."""
    return (
        value is not None
        and value.const_value is not None
        and not value.const_value.dtype.is_integer()
    )


def _mark_sequences(graph: ir.Graph) -> None:
    """Say of sequences that they are: of those without known shapes, the pass keeps the type of the elements only."""
    for node in graph:
        bodies = subgraphs(node)
        if node.op_type == "Loop":
            for initial, entering in zip(node.inputs[2:], bodies["body"].inputs[2:], strict=True):
                _mark_sequence(entering, [initial])
        for body in bodies.values():
            _mark_sequences(body)
        if node.op_type in _MAKES_SEQUENCE:
            _mark_sequence(node.outputs[0], None)
        elif node.op_type == "Optional":
            inside = node.inputs[0] if node.inputs else None
            if inside is not None and isinstance(inside.type, ir.TensorType | ir.SequenceType):
                node.outputs[0].type = ir.OptionalType(inside.type)
        elif node.op_type == "Identity":
            _mark_sequence(node.outputs[0], node.inputs)
        elif node.op_type == "Loop":
            for initial, final in zip(node.inputs[2:], node.outputs, strict=False):
                _mark_sequence(final, [initial])
        elif node.op_type == "If":
            for final, *ends in zip(
                node.outputs, *(body.outputs for body in bodies.values()), strict=True
            ):
                _mark_sequence(final, ends)


def _mark_sequence(value: ir.Value, like: Sequence[ir.Value | None] | None) -> None:
    """Make the type of `value` a sequence if one of `like` is, or without condition."""
    if not isinstance(value.type, ir.TensorType):
        return
    if like is None or any(x is not None and isinstance(x.type, ir.SequenceType) for x in like):
        value.type, value.shape = ir.SequenceType(value.type), None


def _keep_ranks(graph: ir.Graph) -> bool:
    """Note the number of axes behind convolutions with weights of unknown size, of which ONNX says nothing at all."""
    changed = False
    for node in graph.all_nodes():
        if node.op_type not in _KEEPS_RANK or node.domain not in ("", "ai.onnx"):
            continue
        source, result = node.inputs[0], node.outputs[0]
        if result.shape is None and source is not None and source.shape is not None:
            result.shape = ir.Shape([source.shape[0], *[None] * (len(source.shape) - 1)])
            changed = True
    return changed


def _describe_constants(body: ir.Graph) -> None:
    """Note types and shapes of the initializers of `body`: one that is an output may be described as such only."""
    for value in body.initializers.values():
        if value.const_value is not None and value.type is None:
            value.type = ir.TensorType(value.const_value.dtype)
            value.shape = ir.Shape(value.const_value.shape.numpy())


def _settle(graph: ir.Graph, guesses: Guesses) -> bool:
    """Improve what is known of the values that loops carry; returns whether anything changed.

    Everything is assumed before anything is concluded, and all is concluded before an assumption is given up for want
    of proof: what leaves an outer loop may depend on what is known of one in it.
    """
    states = [
        state for node in graph.all_nodes() if node.op_type == "Loop" for state in _states(node)
    ]
    changed = False
    for node in graph.all_nodes():
        if node.op_type == "Scan":
            changed |= _describe_scan(node, guesses)
    for state in states:
        changed |= _guess(state, guesses)
    if changed:
        return True
    for state in states:
        changed |= _conclude(state, guesses)
    if changed:
        return True
    # Any one may be why the next is wrong.
    return any(_weaken(state, guesses, proven=True) for state in states) or any(
        _weaken(state, guesses, proven=False) for state in states
    )


@dataclass(frozen=True)
class _State:
    """A value that a Loop carries: as it enters the loop, enters the body, leaves the body, leaves the loop."""

    initial: ir.Value
    entering: ir.Value
    leaving: ir.Value
    final: ir.Value
    body: ir.Graph


def _states(node: ir.Node) -> Iterator[_State]:
    body = subgraphs(node)["body"]
    for i, initial in enumerate(node.inputs[2:]):
        if initial is not None:
            yield _State(initial, body.inputs[2 + i], body.outputs[1 + i], node.outputs[i], body)


def _guess(state: _State, guesses: Guesses) -> bool:
    """Assume that a carried value keeps the shape it starts with, where its own description leaves that open."""
    initial, entering = state.initial, state.entering
    if entering.type is None and initial.type is not None:
        entering.type = initial.type
    if entering in guesses or initial.shape is None or isinstance(initial.type, ir.SequenceType):
        return False
    known: Dims = list(initial.shape)
    if entering.shape is not None:
        if len(entering.shape) != len(known):
            return False
        known = [b if _unknown(a) else a for a, b in zip(entering.shape, known, strict=True)]
    guesses[entering] = [None if _unknown(dim) else dim for dim in known]
    if entering.shape is not None and list(entering.shape) == known:
        return False
    entering.shape = ir.Shape(known)
    return True


def _weaken(state: _State, guesses: Guesses, *, proven: bool) -> bool:
    """Give up the sizes that do not leave the body as they have entered it; without `proven`, unless surely they do."""
    entering, leaving = state.entering, state.leaving
    guess = guesses.get(entering)
    if guess is None or entering.shape is None:
        return False
    if leaving.shape is None:
        if proven:
            return False
        kept: Dims = [None] * len(guess)
    elif len(leaving.shape) != len(guess):
        # Even the number of axes changes.
        entering.shape = None
        _forget(state.body, guesses)
        return True
    else:
        kept = [
            a if _same(a, b) or (proven and _unknown(b)) else None
            for a, b in zip(guess, leaving.shape, strict=True)
        ]
    if all(b is not None or a is None for a, b in zip(guess, kept, strict=True)):
        return False
    guesses[entering] = kept
    entering.shape = ir.Shape(kept)
    _forget(state.body, guesses)
    return True


def _conclude(state: _State, guesses: Guesses) -> bool:
    """A size that leaves every iteration as it entered, or as it was at first, is the size after the last."""
    initial, entering, leaving, final = state.initial, state.entering, state.leaving, state.final
    if entering not in guesses or initial.shape is None or leaving.shape is None:
        return False
    if entering.shape is None or len(leaving.shape) != len(entering.shape):
        return False
    known: Dims = [
        start if _same(a, b) or _same(start, b) else None
        for start, a, b in zip(initial.shape, guesses[entering], leaving.shape, strict=True)
    ]
    if final.shape is not None and len(final.shape) == len(known):
        known = [b if _unknown(a) else a for a, b in zip(known, final.shape, strict=True)]
        if all(_same(a, b) or _unknown(a) for a, b in zip(known, final.shape, strict=True)):
            return False
    final.shape = ir.Shape(known)
    final.type = final.type or entering.type
    return True


def _describe_scan(node: ir.Node, guesses: Guesses) -> bool:
    """Tell the body of a Scan the shapes of what it carries and of the slices it is given."""
    body, changed = subgraphs(node)["body"], False
    slices = node.attributes["num_scan_inputs"].as_int()
    states = len(node.inputs) - slices
    axes = node.attributes.get("scan_input_axes")
    along = [0] * slices if axes is None else list(axes.as_ints())
    for i, (outer, inner) in enumerate(zip(node.inputs, body.inputs, strict=True)):
        if outer is None or outer.shape is None or inner.shape is not None:
            continue
        dims: Dims = list(outer.shape)
        if i >= states:
            del dims[along[i - states]]
        inner.shape = ir.Shape(dims)
        inner.type = inner.type or outer.type
        guesses[inner] = dims
        changed = True
    return changed


def _forget(body: ir.Graph, guesses: Guesses) -> None:
    """Drop what was inferred inside `body` from a guess that turned out wrong."""
    for node in body:
        for value in node.outputs:
            value.shape = None
        for inner in subgraphs(node).values():
            for value in inner.inputs:
                if guesses.pop(value, None) is not None:
                    value.shape = None
            _forget(inner, guesses)


def _unknown(dim: int | ir.SymbolicDim | None) -> bool:
    return dim is None or (isinstance(dim, ir.SymbolicDim) and dim.value is None)


def _same(a: int | ir.SymbolicDim | None, b: int | ir.SymbolicDim | None) -> bool:
    if _unknown(a) or _unknown(b):
        return False
    return bool(a == b) or cast("object", a) is b
