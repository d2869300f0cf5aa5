"""Passes over the same numbers made one: what the gradients of transformers do besides matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder
from igonnx.graph.node_view import attributes_of, take_place
from igonnx.recognition import scalar_of

__all__ = ["fuse"]

PLUGIN = "ai.igonnx"


def fuse(model: ir.Model) -> None:
    """Fuse in the main graph of `model`, in place.

    A scale behind a SoftmaxGradient becomes its own; so does the sum of a LayerNormGradient and what comes around the
    layer, its residual.
    """
    op = GraphBuilder(model, scope="fused")
    for node in list(op.graph):
        if node.domain not in ("", "ai.onnx") or len(node.inputs) != 2:
            continue
        if node.op_type in ("Mul", "Div"):
            _fuse_scale(op, node)
        elif node.op_type in ("Add", "Sum"):
            _fuse_residual(op, node)


def _fuse_scale(op: GraphBuilder, node: ir.Node) -> None:
    first, second = (cast("ir.Value", value) for value in node.inputs)
    if node.op_type == "Mul" and scalar_of(first) is not None:
        first, second = second, first
    number, source = scalar_of(second), _made_by(first, "SoftmaxGradient")
    if not number or source is None or (second.shape is not None and len(second.shape) > 1):
        return
    scale = number if node.op_type == "Mul" else 1 / number
    scale *= source.attributes.get_float("scale", 1.0)
    if first.dtype == ir.DataType.DOUBLE and scale != float(np.float32(scale)):
        return  # attributes have single precision
    attributes = attributes_of(source)
    attributes["scale"] = float(scale)
    _replace(op, node, "SoftmaxGradient", source.inputs, **attributes)


def _fuse_residual(op: GraphBuilder, node: ir.Node) -> None:
    for value, other in (node.inputs, node.inputs[::-1]):
        source = _made_by(cast("ir.Value", value), "LayerNormGradient")
        if source is None or len(source.inputs) > 5 or other is None:
            continue
        shapes = [cast("ir.Value", value).shape, other.shape]
        if None not in shapes and shapes[0] != shapes[1]:
            continue  # to be repeated first
        _replace(op, node, "LayerNormGradient", [*source.inputs, other])
        return


def _made_by(value: ir.Value, operator: str) -> ir.Node | None:
    """The plugin's `operator` that makes `value`, which nobody else reads."""
    node = value.producer()
    if node is None or node.domain != PLUGIN or node.op_type != operator:
        return None
    return node if len(value.uses()) == 1 and not value.is_graph_output() else None


def _replace(
    op: GraphBuilder,
    node: ir.Node,
    operator: str,
    inputs: Sequence[ir.Value | None],
    **attributes: Any,
) -> None:
    """Put the plugin's `operator` in the place of `node` and of what made one of its inputs."""
    output = node.outputs[0]
    with op.before(node):
        result = op.emit(operator, *inputs, domain=PLUGIN, **attributes)
    result.shape, result.type = output.shape, output.type
    take_place(output, result)
    made = {cast("ir.Value", value).producer() for value in node.inputs}
    op.graph.remove(node, safe=True)
    for source in made:
        unread = source is not None and not any(
            value.uses() or value.is_graph_output() for value in source.outputs
        )
        if source is not None and unread:
            op.graph.remove(source, safe=True)
