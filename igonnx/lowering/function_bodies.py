"""Function bodies: how the ONNX standard itself writes an operator in other operators.

A body may depend on the node: on its attributes, and on the types of its inputs.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

__all__ = ["DOMAIN", "body_of", "has_body"]

# Where bodies live as functions of the model until they are inlined.
DOMAIN = "ai.igonnx.body"


def has_body(node: ir.Node, opset: int) -> bool:
    """Whether the standard defines `node`'s operator by a function body at `opset`."""
    schema = _schema(node, opset)
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def body_of(node: ir.Node, opset: int, name: str) -> ir.Function | None:
    """The body of `node` as a function called `name` in `DOMAIN`, or None where the standard has none for this node."""
    schema = _schema(node, opset)
    if schema is None:
        return None
    proto = _context_dependent_body(schema, node, opset) if _depends(schema) else None
    if proto is None:
        proto = _fixed_body(schema, opset)
    if proto is None:
        return None
    proto.domain, proto.name, proto.overload = DOMAIN, name, ""
    function = ir.from_proto(proto)
    function.opset_imports[""] = opset
    return function


def fill_in_defaults(node: ir.Node, opset: int) -> None:
    """Write the default values of attributes into `node`: a body refers to them by name."""
    schema = _schema(node, opset)
    if schema is None:
        return
    for name, attribute in schema.attributes.items():
        if name not in node.attributes and attribute.default_value.name:
            node.attributes[name] = ir.from_proto(attribute.default_value)


def _schema(node: ir.Node, opset: int) -> onnx.defs.OpSchema | None:
    if node.domain not in ("", "ai.onnx"):
        return None
    try:
        return onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return None


def _depends(schema: onnx.defs.OpSchema) -> bool:
    return bool(schema.has_context_dependent_function)


def _version(versions: list[int], opset: int) -> int | None:
    """The newest body that is valid at `opset`."""
    return max((version for version in versions if version <= opset), default=None)


def _fixed_body(schema: onnx.defs.OpSchema, opset: int) -> onnx.FunctionProto | None:
    if not schema.has_function:
        return None
    version = _version(list(schema.function_opset_versions), opset)
    data = None if version is None else schema.get_function_with_opset_version(version)
    return onnx.FunctionProto.FromString(data) if data else None


def _context_dependent_body(
    schema: onnx.defs.OpSchema, node: ir.Node, opset: int
) -> onnx.FunctionProto | None:
    version = _version(list(schema.context_dependent_function_opset_versions), opset)
    if version is None:
        return None
    types = [_type_of(value).SerializeToString() for value in node.inputs]
    data = schema.get_context_dependent_function_with_opset_version(
        version, ir.to_proto(node).SerializeToString(), types
    )
    return onnx.FunctionProto.FromString(data) if data else None


def _type_of(value: ir.Value | None) -> onnx.TypeProto:
    if value is None or value.type is None:
        return onnx.TypeProto()
    proto = ir.to_proto(value).type
    return proto if isinstance(proto, onnx.TypeProto) else onnx.TypeProto()
