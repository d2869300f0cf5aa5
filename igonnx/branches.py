"""An If whose condition is a constant is one of its branches."""

from __future__ import annotations

from typing import cast

import onnx_ir as ir

from igonnx.autodiff.node_view import subgraphs
from igonnx.tensors import own_tensor

__all__ = ["inline_settled_branches"]


def inline_settled_branches(model: ir.Model) -> bool:
    """Put the branch that is always taken in the place of every If with a constant condition; in place.

    Exporters leave such nodes where a size or a setting was fixed at export. Returns whether there was any.
    """
    found = [node for node in model.graph.all_nodes() if _condition(node) is not None]
    if not found:
        return False
    taken = {value.name for value in [*model.graph.inputs, *model.graph.initializers.values()]}
    taken.update(value.name for node in model.graph for value in node.outputs)
    dropped: set[ir.Node] = set()
    for node in found:
        if node in dropped:
            continue
        branches = subgraphs(node)
        kept = branches.pop("then_branch" if _condition(node) else "else_branch")
        for branch in branches.values():
            dropped.update(branch.all_nodes())
        _inline(node, kept, taken)
    return True


def _condition(node: ir.Node) -> bool | None:
    """The condition of an If where no caller can change it, else None."""
    if node.op_type != "If" or node.domain not in ("", "ai.onnx"):
        return None
    value = node.inputs[0]
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return bool(value.const_value.numpy().reshape(-1)[0])


def _inline(node: ir.Node, branch: ir.Graph, taken: set[str | None]) -> None:
    graph = cast("ir.Graph", node.graph)
    inside = list(branch)
    outputs = list(branch.outputs)
    branch.outputs.clear()  # one of them may become an output of the graph
    for value in list(branch.initializers.values()):
        branch.initializers.pop(cast("str", value.name))
        _rename(value, taken)
        graph.register_initializer(value)
    for inner in inside:
        branch.remove(inner)
        for value in inner.outputs:
            _rename(value, taken)
        graph.insert_before(node, inner)
    for index, (old, new) in enumerate(zip(node.outputs, outputs, strict=True)):
        if new.producer() not in inside or new in outputs[:index]:
            copy = ir.Node("", "Identity", [new], num_outputs=1, name=f"{old.name}/copy")
            graph.insert_before(node, copy)
            new = copy.outputs[0]
        name = old.name
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        old.name = None
        new.name = name
        new.type = new.type or old.type
    graph.remove(node, safe=True)


def _rename(value: ir.Value, taken: set[str | None]) -> None:
    if not value.name:
        return
    name, count = value.name, 1
    while name in taken:
        name, count = f"{value.name}_{count}", count + 1
    taken.add(name)
    if name != value.name:
        if value.const_value is not None:
            value.const_value = own_tensor(value.const_value)
        value.name = name
