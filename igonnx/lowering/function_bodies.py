"""Function bodies: how the ONNX standard itself writes an operator in other operators.

A body may depend on the node: on its attributes, and on the types of its inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import onnx_ir as ir

__all__ = ["DOMAIN", "body_of", "fill_in_defaults", "has_body"]

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
    _put_out_everything(proto)
    # A body that depends on the node has the node's own bodies in it already.
    graphs = [key for key, value in node.attributes.items() if value.type == ir.AttributeType.GRAPH]
    for key in graphs:
        proto.attribute.remove(key)
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


def _schema(node: ir.Node, opset: int) -> Any:
    """An `onnx.defs.OpSchema` (whose stubs do not know of bodies), or None outside the standard."""
    if node.domain not in ("", "ai.onnx"):
        return None
    try:
        return onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return None


def _depends(schema: Any) -> bool:
    return bool(schema.has_context_dependent_function)


def _put_out_everything(proto: onnx.FunctionProto) -> None:
    """Give outputs that the node does not ask for, so that its body leaves them out, something to stand for them."""
    made = {*proto.input, *(name for node in proto.node for name in node.output)}
    for name in proto.output:
        if name not in made:
            proto.node.append(onnx.helper.make_node("Constant", [], [name], value_float=0.0))


def _valid_body(
    versions: list[int], opset: int, body_at: Callable[[int], bytes]
) -> onnx.FunctionProto | None:
    """The newest body valid at `opset`; a newer one where its operators are the same at `opset`."""
    older = [version for version in versions if version <= opset]
    version = max(older) if older else min(versions, default=None)
    data = None if version is None else body_at(version)
    if not data or version is None:
        return None
    proto = onnx.FunctionProto.FromString(data)
    return proto if version <= opset or _means_the_same(proto, version, opset) else None


def _means_the_same(proto: onnx.FunctionProto, version: int, opset: int) -> bool:
    for node in proto.node:
        try:
            old, new = (
                onnx.defs.get_schema(node.op_type, at, node.domain) for at in (opset, version)
            )
        except onnx.defs.SchemaError:
            return False
        if old.since_version != new.since_version:
            return False
    return True


def _fixed_body(schema: Any, opset: int) -> onnx.FunctionProto | None:
    versions = list(schema.function_opset_versions) if schema.has_function else []
    return _valid_body(versions, opset, schema.get_function_with_opset_version)


def _context_dependent_body(schema: Any, node: ir.Node, opset: int) -> onnx.FunctionProto | None:
    types = [_type_of(value).SerializeToString() for value in node.inputs]
    written = ir.to_proto(node).SerializeToString()
    return _valid_body(
        list(schema.context_dependent_function_opset_versions),
        opset,
        lambda version: schema.get_context_dependent_function_with_opset_version(
            version, written, types
        ),
    )


def _type_of(value: ir.Value | None) -> onnx.TypeProto:
    if value is None or value.type is None:
        return onnx.TypeProto()
    proto = ir.to_proto(value).type
    return proto if isinstance(proto, onnx.TypeProto) else onnx.TypeProto()
