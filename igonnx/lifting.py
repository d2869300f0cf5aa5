"""Constants in one place: initializers of the main graph, whether they were nodes or lay inside the bodies of loops."""

from __future__ import annotations

from typing import cast

import onnx_ir as ir
import onnx_ir.passes.common as passes

from igonnx.autodiff.node_view import subgraphs

__all__ = ["lift_constants"]


def lift_constants(model: ir.Model) -> None:
    """Turn Constant nodes into initializers and move those of bodies to the main graph, under names of their own."""
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    bodies = _bodies(model.graph)
    if not any(body.initializers for body in bodies):
        return
    taken = {value.name for value in [*model.graph.inputs, *model.graph.initializers.values()]}
    taken.update(value.name for node in model.graph.all_nodes() for value in node.outputs)
    for body in bodies:
        taken.update(value.name for value in body.inputs)
    for body in bodies:
        _lift(body, model.graph, taken)


def _lift(body: ir.Graph, graph: ir.Graph, taken: set[str | None]) -> None:
    for name in list(body.initializers):
        value = body.initializers[name]
        if value.is_graph_input() or value.is_graph_output():
            # A body's outputs have to be its own.
            continue
        body.initializers.pop(name)
        fresh, count = cast("str", name), 0
        while fresh in taken:
            count += 1
            fresh = f"{name}_{count}"
        taken.add(fresh)
        value.name = fresh
        graph.register_initializer(value)


def _bodies(graph: ir.Graph) -> list[ir.Graph]:
    return [body for node in graph.all_nodes() for body in subgraphs(node).values()]
