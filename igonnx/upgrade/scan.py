"""Scan before opset 9, which ran over a batch as well."""

from __future__ import annotations

from typing import cast

import onnx_ir as ir

from igonnx.upgrade.adapter import Adaptation, adapter


@adapter("Scan", version=9)
def scan(a: Adaptation) -> None:
    """Before 9, all inputs had a leading batch axis, and each example was scanned by itself.

    That is a Scan over the examples, which carries no state, of the Scan over the sequence.
    """
    if a.optional_input(0) is not None:
        a.refuse("sequence_lens was dropped from ONNX")
    values = [a.input(index) for index in range(1, len(a.node.inputs))]
    scanned = int(a.take("num_scan_inputs"))
    directions = list(a.take("directions", ()))
    body = cast("ir.Graph", a.take("body"))
    inputs = [ir.Value(name=a.scope.unique(f"{value.name}_example")) for value in values]
    for value, inner in zip(inputs, body.inputs, strict=True):
        if inner.dtype is not None:
            value.type = ir.TensorType(inner.dtype)
    outputs = [ir.Value(name=a.scope.unique(f"{inner.name}_example")) for inner in body.outputs]
    for value, inner in zip(outputs, body.outputs, strict=True):
        if inner.dtype is not None:
            value.type = ir.TensorType(inner.dtype)
    attributes: dict[str, object] = {"body": body, "num_scan_inputs": scanned}
    if directions:
        attributes["scan_input_directions"] = directions
    sequence = ir.node("Scan", inputs, attributes=attributes, outputs=outputs)  # type: ignore[arg-type]
    example = ir.Graph(inputs, outputs, nodes=[sequence], name=a.scope.unique("scan_example"))
    a.become("Scan", *values, body=example, num_scan_inputs=len(values))
