"""An If whose condition is a constant is one of its branches."""

from __future__ import annotations

from collections import Counter
from typing import cast

import onnx_ir as ir

from igonnx.graph.node_view import constant_of, subgraphs, take_place
from igonnx.graph.tensors import own_tensor

__all__ = ["inline_settled_branches"]


def inline_settled_branches(model: ir.Model) -> bool:
    """Put the branch that is always taken in the place of every If with a constant condition; in place.

    Exporters leave such nodes where a size or a setting was fixed at export. Returns whether there was any.
    """
    found = [node for node in model.graph.all_nodes() if _condition(node) is not None]
    if not found:
        return False
    # Of all graphs: a name that is taken further in would be hidden there.
    taken = Counter({v.name for v in [*model.graph.inputs, *model.graph.initializers.values()]})
    nodes = Counter(node.name for node in model.graph.all_nodes())
    for node in model.graph.all_nodes():
        taken.update(value.name for value in node.outputs)
        for body in subgraphs(node).values():
            taken.update({v.name for v in [*body.inputs, *body.initializers.values()]})
    dropped: set[ir.Node] = set()
    for node in found:
        if node in dropped:
            continue
        branches = subgraphs(node)
        kept = branches.pop("then_branch" if _condition(node) else "else_branch")
        for branch in branches.values():
            dropped.update(branch.all_nodes())
        _inline(node, kept, taken, nodes)
    return True


def _condition(node: ir.Node) -> bool | None:
    """The condition of an If where no caller can change it, else None."""
    if node.op_type != "If" or node.domain not in ("", "ai.onnx"):
        return None
    condition = constant_of(node.inputs[0])
    return None if condition is None else bool(condition.numpy().reshape(-1)[0])


def _inline(
    node: ir.Node, branch: ir.Graph, taken: Counter[str | None], nodes: Counter[str | None]
) -> None:
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
        if inner.name:
            inner.name = _fresh(inner.name, nodes)
        graph.insert_before(node, inner)
    for index, (old, new) in enumerate(zip(node.outputs, outputs, strict=True)):
        if new.producer() not in inside or new in outputs[:index]:
            copy = ir.Node("", "Identity", [new], num_outputs=1, name=f"{old.name}/copy")
            graph.insert_before(node, copy)
            new = copy.outputs[0]
        take_place(old, new)
        new.name = new.name or _fresh("taken", taken, 0)
        new.type = new.type or old.type
    graph.remove(node, safe=True)


def _rename(value: ir.Value, taken: Counter[str | None]) -> None:
    if not value.name:
        return
    name = _fresh(value.name, taken)
    if name != value.name:
        if value.const_value is not None:
            value.const_value = own_tensor(value.const_value)
        value.name = name


def _fresh(wanted: str, taken: Counter[str | None], own: int = 1) -> str:
    """`wanted`, or a name like it where more than its `own` uses are counted in `taken`."""
    if taken[wanted] <= own:
        return wanted
    count = 1
    while taken[name := f"{wanted}_{count}"]:
        count += 1
    taken[wanted] -= own
    taken[name] += 1
    return name
