"""Operators that ONNX Runtime has in the standard domain, though ONNX has them not, not yet, or no more."""

from __future__ import annotations

import onnx

from igonnx.acceptance import for_checker

__all__ = ["OPERATORS", "without_dialect"]

OPERATORS = frozenset(["LayerNormalization", "SimplifiedLayerNormalization"])
# GroupNormalization of opset 18 has been withdrawn: its scale and bias were per group, not per channel.
_WITHDRAWN = frozenset(["GroupNormalization"])
_DOMAIN = "ai.igonnx.dialect"


def without_dialect(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    """What is left for ONNX's checker to check: those operators count as custom ones.

    None where the model has no such operator.
    """
    if not any(_spoken(node) for node in proto.graph.node):
        return None
    plain = for_checker(proto)
    plain.opset_import.add(domain=_DOMAIN, version=1)
    for node in plain.graph.node:
        if _spoken(node):
            node.domain = _DOMAIN
    return plain


def _spoken(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type in OPERATORS | _WITHDRAWN
