"""Lowering in one go through the graph: what a lowering has to know is inferred, node by node, on the way.

Inference of a whole model after every layer takes time with the square of their number; here each node is seen once.
What needs the values of shapes stays unknown here, and is left to the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import onnx
import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder
from igonnx.graph.node_view import subgraphs
from igonnx.lowering.apply import lower_one

__all__ = ["lower_node_by_node"]

_LIMIT = 64  # elements of a constant that a shape may depend on


def lower_node_by_node(model: ir.Model, select: Callable[[ir.Node], bool]) -> None:
    """Lower nodes of the main graph that `select` picks, where enough is known of what they read; in place."""
    op = GraphBuilder(model, scope="lowered")
    seen: set[ir.Node] = set()
    for start in list(model.graph):
        stack = [start]
        while stack:
            node = stack[-1]
            ahead = [
                maker
                for value in node.inputs
                if value is not None
                and (maker := value.producer()) is not None
                and maker not in seen
                and maker.graph is model.graph
            ]
            if node in seen or not ahead:
                stack.pop()
            if node in seen:
                continue
            if ahead:
                stack += ahead
                continue
            seen.add(node)
            if not select(node):
                _infer(node, op.opset)
                continue
            uses = [(use.node, use.idx) for value in node.outputs for use in value.uses()]
            if lower_one(op, node):
                results = [user.inputs[index] for user, index in uses]
                makers = [value.producer() for value in results if value is not None]
                stack += [maker for maker in makers if maker is not None]


def _infer(node: ir.Node, opset: int) -> None:
    """Note types and shapes of the results of `node`, a standard operator without bodies, where they are unknown."""
    if node.domain not in ("", "ai.onnx") or subgraphs(node):
        return
    if all(value.type is not None and value.shape is not None for value in node.outputs):
        return
    if any(value is not None and value.type is None for value in node.inputs):
        return
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
        found = onnx.shape_inference.infer_node_outputs(
            schema,
            ir.to_proto(node),
            {v.name or "": _type_of(v) for v in node.inputs if v is not None},
            {
                v.name or "": _constant(v)
                for v in node.inputs
                if v is not None and _is_small_constant(v)
            },
            opset_imports=[onnx.helper.make_opsetid("", opset)],
        )
    except (onnx.defs.SchemaError, onnx.shape_inference.InferenceError):
        return  # the whole model's inference has the last word
    for value in node.outputs:
        proto = found.get(value.name or "")
        if proto is None:
            continue
        value.type = value.type or ir.serde.deserialize_type_proto_for_type(proto)
        value.shape = value.shape or ir.serde.deserialize_type_proto_for_shape(proto)
    if node.op_type == "Reshape":
        _keep_rank(node)


def _keep_rank(node: ir.Node) -> None:
    """The number of axes of a Reshape is the length of its target, whatever that holds."""
    result, target = node.outputs[0], node.inputs[1]
    if result.shape is None and target is not None and target.shape is not None:
        length = target.shape[0]
        if isinstance(length, int):
            result.shape = ir.Shape([None] * length)


def _type_of(value: ir.Value) -> onnx.TypeProto:
    return ir.to_proto(value).type


def _is_small_constant(value: ir.Value) -> bool:
    tensor = value.const_value
    return (
        tensor is not None
        and not value.is_graph_input()
        and not isinstance(tensor, ir.ExternalTensor)
        and tensor.dtype in (ir.DataType.INT64, ir.DataType.INT32)
        and tensor.size <= _LIMIT
    )


def _constant(value: ir.Value) -> onnx.TensorProto:
    array = cast("ir.TensorProtocol", value.const_value).numpy()
    return onnx.numpy_helper.from_array(array, value.name)
