"""A model in float64, so that differences of it are not lost in rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from node_tests.values import FLOATING

__all__ = ["in_float64", "wide"]

_NARROW = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
# Attributes that name the type of what a node computes.
_TYPE_ATTRIBUTES = (
    "to",
    "dtype",
    "output_dtype",
    "output_datatype",
    "softmax_precision",
    "stash_type",
)
# Operators that compute in float32 unless an attribute says otherwise, and that attribute.
_FLOAT_BY_DEFAULT = {
    "HannWindow": "output_datatype",
    "HammingWindow": "output_datatype",
    "BlackmanWindow": "output_datatype",
    "GroupNormalization": "stash_type",
    "RMSNormalization": "stash_type",
}


def in_float64(model: onnx.ModelProto) -> tuple[onnx.ModelProto, set[str]]:
    """`model` with every real in float64, and the names of the inputs that stay float32: the operator knows no other.

    Types of intermediate values are dropped. What comes out need not be valid ONNX: some operators have no float64.
    """
    widened = onnx.ModelProto()
    widened.CopyFrom(model)
    kept = _float32_only(model)
    for value in widened.graph.input:
        if value.name not in kept:
            _widen_type(value.type)
    _widen_graph(widened.graph)
    return widened, kept


def wide(value: Any) -> Any:
    """`value` with its reals in float64."""
    if isinstance(value, list):
        return [wide(item) for item in value]
    if value is None or value.dtype.name not in FLOATING.values():
        return value
    return value.astype(np.float64)


def _float32_only(model: onnx.ModelProto) -> set[str]:
    """Inputs that some node takes in float32 and nothing else (the scales of Resize)."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    kept = set()
    for node in model.graph.node:
        try:
            schema = onnx.defs.get_schema(node.op_type, versions[node.domain], node.domain)
        except (onnx.defs.SchemaError, KeyError):
            continue
        for position, name in enumerate(node.input):
            formal = schema.inputs[min(position, len(schema.inputs) - 1)]
            if set(formal.types) == {"tensor(float)"} and len(schema.inputs[0].types) > 1:
                kept.add(name)
    return kept


def _widen_graph(graph: onnx.GraphProto) -> None:
    graph.ClearField("value_info")
    for value in graph.output:
        _widen_type(value.type)
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for node in graph.node:
        _widen_node(node)


def _widen_node(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.TENSOR:
            _widen_tensor(attribute.t)
        elif attribute.type == AttributeProto.GRAPH:
            for value in attribute.g.input:
                _widen_type(value.type)
            _widen_graph(attribute.g)
        elif attribute.name in _TYPE_ATTRIBUTES and attribute.i in _NARROW:
            attribute.i = TensorProto.DOUBLE
    if node.op_type == "Constant":
        _widen_constant(node)
    elif node.op_type == "ConstantOfShape" and not node.attribute:
        zero = numpy_helper.from_array(np.zeros(1))
        node.attribute.append(helper.make_attribute("value", zero))
    elif node.op_type in _FLOAT_BY_DEFAULT:
        name = _FLOAT_BY_DEFAULT[node.op_type]
        if all(attribute.name != name for attribute in node.attribute):
            node.attribute.append(helper.make_attribute(name, TensorProto.DOUBLE))


def _widen_constant(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name == "value_float":
            value = np.asarray(attribute.f, np.float64)
        elif attribute.name == "value_floats":
            value = np.asarray(attribute.floats, np.float64)
        else:
            continue
        node.ClearField("attribute")
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(value)))
        return


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _NARROW:
        array = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _widen_type(kind: onnx.TypeProto) -> None:
    while (which := kind.WhichOneof("value")) in ("sequence_type", "optional_type"):
        kind = getattr(kind, which).elem_type
    if which == "tensor_type" and kind.tensor_type.elem_type in _NARROW:
        kind.tensor_type.elem_type = TensorProto.DOUBLE
