"""Operators that ONNX Runtime has in the standard domain, though ONNX has them not, not yet, or no more."""

from __future__ import annotations

import onnx

__all__ = ["OPERATORS", "without_dialect"]

OPERATORS = frozenset(["LayerNormalization", "SimplifiedLayerNormalization"])
# GroupNormalization of opset 18 has been withdrawn: its scale and bias were per group, not per channel.
_WITHDRAWN = frozenset(["GroupNormalization"])
_DOMAIN = "ai.igonnx.dialect"


def without_dialect(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    """What is left for ONNX's checker to check: those operators count as custom ones, weights as inputs.

    None where the model has no such operator.
    """
    if not any(_spoken(node) for node in proto.graph.node):
        return None
    plain = onnx.ModelProto(ir_version=max(proto.ir_version, 4), opset_import=proto.opset_import)
    plain.opset_import.add(domain=_DOMAIN, version=1)
    graph = plain.graph
    graph.name = proto.graph.name
    graph.node.extend(proto.graph.node)
    graph.output.extend(proto.graph.output)
    graph.input.extend(proto.graph.input)
    fed = {value.name for value in graph.input}
    graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in proto.graph.initializer
        if tensor.name not in fed
    )
    plain.functions.extend(proto.functions)
    for node in graph.node:
        if _spoken(node):
            node.domain = _DOMAIN
    return plain


def _spoken(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type in OPERATORS | _WITHDRAWN
