"""Shapes and dtypes of every tensor, as far as they can be known before running.

ONNX's own inference does nearly all of it. Two things are added: the bodies of loops, whose carried values may change
their shape from one iteration to the next, so that ONNX leaves them open; here a shape that comes out of the body as
it went in is kept. And operators outside the standard, behind which all shapes would be lost (`model.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import cast

import onnx_ir as ir
import onnx_ir.passes.common as passes

from igonnx.autodiff.node_view import subgraphs

__all__ = ["infer_shapes"]

_MAKES_SEQUENCE = frozenset(
    ["SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SplitToSequence"]
)
_ROUNDS = 8  # a guess per loop, its correction, and as much again for a loop within a loop


def infer_shapes(model: ir.Model) -> None:
    """Infer shapes and dtypes in place, as far as that is possible; what stays unknown stays unset."""
    _infer(model)
    if not any(node.op_type in ("Loop", "Scan") for node in model.graph.all_nodes()):
        return
    guessed: set[ir.Value] = set()
    for _ in range(_ROUNDS):
        if not _settle(model.graph, guessed):
            break
        _infer(model)


def _infer(model: ir.Model) -> None:
    logger = logging.getLogger("onnx_ir.passes.common.shape_inference")
    level = logger.level
    # The pass logs a stack trace when inference stops early; a rule that lacks a shape says so by itself.
    logger.setLevel(logging.CRITICAL)
    try:
        passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    finally:
        logger.setLevel(level)
    for node in model.graph.all_nodes():
        # Of a sequence without known shapes, the pass keeps the type of its elements only.
        if node.op_type in _MAKES_SEQUENCE and isinstance(node.outputs[0].type, ir.TensorType):
            node.outputs[0].type = ir.SequenceType(node.outputs[0].type)


def _settle(graph: ir.Graph, guessed: set[ir.Value]) -> bool:
    """Improve what is known of the values that loops carry; returns whether anything changed."""
    changed = False
    for node in graph.all_nodes():
        if node.op_type == "Scan":
            changed |= _describe_scan(node)
        elif node.op_type == "Loop":
            for state in _states(node):
                changed |= _guess(*state, node, guessed)
    return changed


def _states(node: ir.Node) -> Iterator[tuple[ir.Value, ir.Value, ir.Value, ir.Value]]:
    """Per value that a Loop carries: as it enters the loop, enters the body, leaves the body, leaves the loop."""
    body = subgraphs(node)["body"]
    for i, initial in enumerate(node.inputs[2:]):
        if initial is not None:
            yield initial, body.inputs[2 + i], body.outputs[1 + i], node.outputs[i]


def _guess(
    initial: ir.Value,
    entering: ir.Value,
    leaving: ir.Value,
    final: ir.Value,
    node: ir.Node,
    guessed: set[ir.Value],
) -> bool:
    """Assume that a carried value keeps the shape it starts with; correct that by what leaves the body."""
    if entering.type is None and initial.type is not None:
        entering.type = initial.type
    if isinstance(initial.type, ir.SequenceType) or initial.shape is None:
        return False
    if entering not in guessed:
        if entering.shape is not None and len(entering.shape) == len(initial.shape):
            return _conclude(entering, final)
        guessed.add(entering)
        entering.shape = ir.Shape(list(initial.shape))
        return True
    if entering.shape is None:
        return False  # given up: even the number of axes changes
    if leaving.shape is not None and len(leaving.shape) != len(entering.shape):
        entering.shape = None
        _forget(subgraphs(node)["body"])
        return True
    after = [None] * len(entering.shape) if leaving.shape is None else list(leaving.shape)
    kept = [a if _same(a, b) else None for a, b in zip(entering.shape, after, strict=True)]
    if all(_same(a, b) or b is None for a, b in zip(entering.shape, kept, strict=True)) and (
        sum(b is None for b in kept) == sum(_unknown(a) for a in entering.shape)
    ):
        return _conclude(entering, final)
    entering.shape = ir.Shape(kept)
    _forget(subgraphs(node)["body"])
    return True


def _conclude(entering: ir.Value, final: ir.Value) -> bool:
    """What holds in every iteration holds after the last."""
    if entering.shape is None:
        return False
    shape = list(entering.shape)
    if final.shape is not None and len(final.shape) == len(shape):
        known = [b if _unknown(a) else a for a, b in zip(shape, final.shape, strict=True)]
        if all(_same(a, b) or _unknown(a) for a, b in zip(known, final.shape, strict=True)):
            return False
        shape = known
    final.shape = ir.Shape(shape)
    final.type = final.type or entering.type
    return True


def _describe_scan(node: ir.Node) -> bool:
    """Tell the body of a Scan the shapes of what it carries and of the slices it is given."""
    body, changed = subgraphs(node)["body"], False
    slices = node.attributes["num_scan_inputs"].as_int()
    states = len(node.inputs) - slices
    axes = node.attributes.get("scan_input_axes")
    along = [0] * slices if axes is None else list(axes.as_ints())
    for i, (outer, inner) in enumerate(zip(node.inputs, body.inputs, strict=True)):
        if outer is None or outer.shape is None or inner.shape is not None:
            continue
        dims = list(outer.shape)
        if i >= states:
            del dims[along[i - states]]
        inner.shape = ir.Shape(dims)
        inner.type = inner.type or outer.type
        changed = True
    return changed


def _forget(body: ir.Graph) -> None:
    """Drop what was inferred inside `body` from a guess that turned out wrong."""
    for node in body:
        for value in node.outputs:
            value.shape = None
        for inner in subgraphs(node).values():
            _forget(inner)


def _unknown(dim: int | ir.SymbolicDim | None) -> bool:
    return dim is None or (isinstance(dim, ir.SymbolicDim) and dim.value is None)


def _same(a: int | ir.SymbolicDim | None, b: int | ir.SymbolicDim | None) -> bool:
    if _unknown(a) or _unknown(b):
        return False
    return bool(a == b) or cast("object", a) is b
