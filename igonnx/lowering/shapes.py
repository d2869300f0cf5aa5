"""Shapes behind operators that ONNX's inference does not know, learnt from what those operators mean."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from igonnx.graph.constants import settle_constants
from igonnx.graph.shape_inference import infer_shapes
from igonnx.lowering import registry
from igonnx.lowering.apply import lower
from igonnx.lowering.node_by_node import lower_node_by_node

__all__ = ["infer_shapes_everywhere"]

# Lowerings that need the shape of what they get wait for those in front of them.
_ROUNDS = 64


def infer_shapes_everywhere(model: ir.Model) -> None:
    """Infer shapes and dtypes in place, also behind operators outside the standard that have a lowering."""
    infer_shapes(model)
    foreign = [node for node in model.graph.all_nodes() if _is_foreign(node)]
    if not foreign:
        return
    twin = model.clone()
    for _ in range(_ROUNDS):
        lower_node_by_node(twin, _is_foreign)
        settle_constants(twin)
        infer_shapes(twin)
        if not any(_is_foreign(node) for node in twin.graph.all_nodes()) or not lower(
            twin, list(twin.graph), _is_foreign, straight_through=False, patient=True
        ):
            break
    _copy_shapes(twin.graph, model.graph)


def _is_foreign(node: ir.Node) -> bool:
    standard = node.domain in ("", "ai.onnx") and onnx.defs.has(node.op_type)
    return not standard and registry.find(node) is not None


def _copy_shapes(source: ir.Graph, target: ir.Graph) -> None:
    known: dict[str | None, ir.Value | None] = {}
    for node in source.all_nodes():
        for value in node.outputs:
            # Bodies side by side may use a name twice: then it tells nothing.
            known[value.name] = None if value.name in known else value
    for node in target.all_nodes():
        for value in node.outputs:
            twin = known.get(value.name)
            if twin is None:
                continue
            if value.shape is None and twin.shape is not None:
                value.shape = twin.shape
            if value.type is None:
                value.type = twin.type
