"""Pooling whose ceil_mode adds nothing: the window it would add starts behind the input, and is dropped.

ONNX Runtime and PyTorch drop it. ONNX's shape inference counts it before opset 22; then every shape behind is wrong.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

__all__ = ["settle_ceil_mode"]

_POOLS = frozenset(["AveragePool", "LpPool", "MaxPool"])


def settle_ceil_mode(graph: ir.Graph) -> bool:
    """Switch off, in place, each ceil_mode that adds no window; shapes have to be inferred again where one was.

    Returns whether there was any, in which case the shapes of all results are forgotten.
    """
    found = [node for node in graph.all_nodes() if _adds_nothing(node)]
    for node in found:
        node.attributes["ceil_mode"] = ir.AttrInt64("ceil_mode", 0)
    if found:
        for node in graph.all_nodes():
            for value in node.outputs:
                value.shape = None
    return bool(found)


def _adds_nothing(node: ir.Node) -> bool:
    """Whether a pool counts a window too many along some axis, and adds none along the others."""
    if node.op_type not in _POOLS or node.domain or not _attribute(node, "ceil_mode", 0):
        return False
    x = node.inputs[0]
    kernel = _attribute(node, "kernel_shape", [])
    if x is None or x.shape is None or _attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        return False
    n = len(kernel)
    sizes = [size for size in list(x.shape)[2:] if isinstance(size, int)]
    if len(sizes) != n or len(x.shape) != n + 2:
        return False
    strides = _attribute(node, "strides", [1] * n)
    dilations = _attribute(node, "dilations", [1] * n)
    pads = _attribute(node, "pads", [0] * 2 * n)
    if min(*strides, *dilations, 1) < 1 or len(pads) != 2 * n:
        return False
    overcounted = False
    for i, size in enumerate(sizes):
        room = size + pads[i] + pads[n + i] - (kernel[i] - 1) * dilations[i] - 1
        down, up = room // strides[i], -(-room // strides[i])
        dropped = up * strides[i] >= size + pads[i]
        if up != down and not dropped:
            return False
        overcounted |= up != down
    return overcounted


def _attribute(node: ir.Node, name: str, default: Any) -> Any:
    found = node.attributes.get(name)
    return default if found is None else found.value
