"""Replacing nodes by their lowered form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import cast

import onnx_ir as ir
import onnx_ir.passes.common as passes

from igonnx.errors import ModelError
from igonnx.graph.builder import GraphBuilder
from igonnx.graph.node_view import NodeView, subgraphs, take_place
from igonnx.lowering import function_bodies, registry

__all__ = [
    "PRIVATE_DOMAIN",
    "has_straight_through",
    "lower",
    "lower_one",
    "remove_straight_through",
]

# Operators that exist only while a graph is being transformed.
PRIVATE_DOMAIN = "ai.igonnx.private"
STRAIGHT_THROUGH = "StraightThrough"


def lower(
    model: ir.Model,
    nodes: Iterable[ir.Node],
    select: Callable[[ir.Node], bool],
    *,
    straight_through: bool,
    patient: bool = False,
    observe: Callable[[ir.Node, ModelError], None] | None = None,
) -> bool:
    """Replace those of `nodes`, and of nodes in their bodies, that `select` picks, where that is possible; in place.

    Values keep their names. With `straight_through`, a quantised node stays, and its lowered form hangs beside it: a
    node StraightThrough(computed, lowered) joins the two, for the walk back to cross and `remove_straight_through` to
    take out afterwards. What comes of them may have to be lowered again, once its shapes are inferred. Returns whether
    anything changed.

    Raises `ModelError` where a lowering has to know a shape that is unknown; a `patient` caller, who knows more after
    inferring shapes again, has such nodes left as they are, and so has an observer, who is told of them.
    """
    op = GraphBuilder(model, scope="lowered")
    opset = model.opset_imports.get("", 0)
    changed = False
    nodes = list(nodes)
    needed = set(nodes)
    for node in _with_bodies(nodes):
        if not select(node):
            continue
        try:
            if registry.find(node) is not None:
                _apply(op, node, straight_through=straight_through)
                changed = True
            else:
                changed |= _call_body(op, node, opset)
        except ModelError as error:
            if observe is not None:
                observe(node, error)
            elif not patient and node in needed:
                # Inside a body, it may lie off the path; the walk says so where it does not.
                raise
    if model.functions:
        _inline_bodies(model)
    return changed


def lower_one(op: GraphBuilder, node: ir.Node) -> bool:
    """Replace `node` by its lowered form; False where that has to know a shape that is unknown."""
    try:
        _apply(op, node, straight_through=False)
    except ModelError:
        return False
    return True


def remove_straight_through(model: ir.Model) -> None:
    """Take out the nodes that `lower` put in, leaving what the model itself computes; in place."""
    for node in list(model.graph.all_nodes()):
        if node.domain == PRIVATE_DOMAIN and node.op_type == STRAIGHT_THROUGH:
            computed, joined = cast("ir.Value", node.inputs[0]), node.outputs[0]
            name = joined.name
            joined.replace_all_uses_with(computed, replace_graph_outputs=True)
            cast("ir.Graph", node.graph).remove(node, safe=True)
            joined.name, computed.name = None, name
    model.opset_imports.pop(PRIVATE_DOMAIN, None)


def has_straight_through(node: ir.Node) -> bool:
    """Whether the lowered form of `node` hangs beside it already."""
    return any(
        use.node.domain == PRIVATE_DOMAIN and use.node.op_type == STRAIGHT_THROUGH and use.idx == 0
        for value in node.outputs
        for use in value.uses()
    )


def _with_bodies(nodes: Iterable[ir.Node]) -> list[ir.Node]:
    found: list[ir.Node] = []
    for node in nodes:
        found.append(node)
        for body in subgraphs(node).values():
            found += body.all_nodes()
    return found


def _apply(op: GraphBuilder, node: ir.Node, *, straight_through: bool) -> None:
    rule = registry.find(node)
    if rule is None:
        return
    keeps = straight_through and rule.straight_through
    with op.before(node):
        results = rule.function(NodeView(op, node))
    if keeps:
        _join(op, node, results)
    else:
        _replace(op, node, results)


def _replace(op: GraphBuilder, node: ir.Node, results: Sequence[ir.Value | None]) -> None:
    """Put `results` in the place of the outputs of `node`, under their names."""
    taken: set[ir.Value] = set()
    for old, new in zip(node.outputs, results, strict=False):
        if new is None or not old.name:
            continue
        if new in taken or new.producer() is None or new in node.inputs:
            with op.before(node):
                new = op.Identity(new)
        taken.add(new)
        take_place(old, new)
        new.type = old.type if old.type is not None else new.type
        new.shape = old.shape if old.shape is not None else new.shape
    cast("ir.Graph", node.graph).remove(node, safe=True)


def _join(op: GraphBuilder, node: ir.Node, results: Sequence[ir.Value | None]) -> None:
    """Let consumers of `node` read StraightThrough(output, lowered output) instead."""
    graph = cast("ir.Graph", node.graph)
    op.model.opset_imports[PRIVATE_DOMAIN] = 1
    for computed, lowered in zip(node.outputs, results, strict=False):
        if lowered is None:
            continue
        joining = ir.Node(
            PRIVATE_DOMAIN,
            STRAIGHT_THROUGH,
            [computed, lowered],
            num_outputs=1,
            name=op.unique(STRAIGHT_THROUGH),
        )
        joined = joining.outputs[0]
        name = computed.name
        computed.replace_all_uses_with(joined, replace_graph_outputs=True)
        joining.replace_input_with(0, computed)
        graph.insert_after(node, joining)
        computed.name = op.unique(f"{name}_computed")
        joined.name, joined.type, joined.shape = name, computed.type, computed.shape


def _call_body(op: GraphBuilder, node: ir.Node, opset: int) -> bool:
    """Turn `node` into a call of its body, which becomes a function of the model; False where it has none."""
    if not function_bodies.has_body(node, opset):
        return False
    function_bodies.fill_in_defaults(node, opset)
    name = f"{node.op_type}_{len(op.model.functions)}"
    body = function_bodies.body_of(node, opset, name)
    if body is None:
        return False
    op.model.functions[body.identifier()] = body
    op.model.opset_imports[function_bodies.DOMAIN] = 1
    inputs = [*node.inputs, *[None] * (len(body.inputs) - len(node.inputs))]
    call = ir.Node(
        function_bodies.DOMAIN,
        name,
        inputs,
        [value for key, value in node.attributes.items() if key in body.attributes],
        num_outputs=len(body.outputs),
        name=op.unique(name),
    )
    graph = cast("ir.Graph", node.graph)
    graph.insert_before(node, call)
    for old, new in zip(node.outputs, call.outputs, strict=False):
        take_place(old, new)
        new.name = new.name or op.unique(node.op_type)
        new.type, new.shape = old.type, old.shape
    graph.remove(node, safe=True)
    return True


def _inline_bodies(model: ir.Model) -> None:
    passes.InlinePass()(model)
    model.functions.clear()
    model.opset_imports.pop(function_bodies.DOMAIN, None)
