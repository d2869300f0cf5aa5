"""Maps: outputs of scikit-learn's exports that name every class. A graph of gradients has no place for them."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from igonnx.errors import ModelError

__all__ = ["without_maps"]


def without_maps(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """`proto` with its outputs as tensors: a ZipMap gives way to the tensor that it would take apart.

    Outputs that are maps in another way are dropped as long as others are left; the model given is not changed.
    Raises `ModelError` where an input is a map, or nothing is left.
    """
    for value in proto.graph.input:
        if _is_map(value.type):
            raise ModelError(
                f"{name}: input {value.name!r} is a map: only models that take tensors can be explained"
            )
    mapped = [value.name for value in proto.graph.output if _is_map(value.type)]
    if not mapped:
        return proto
    plain = onnx.ModelProto()
    plain.CopyFrom(proto)
    makers = {output: node for node in plain.graph.node for output in node.output}
    kept = [_as_tensor(value, makers) for value in plain.graph.output]
    outputs = [value for value in kept if value is not None]
    if not outputs:
        raise ModelError(f"{name}: output {mapped[0]!r} is a map, and there is no tensor behind it")
    del plain.graph.output[:]
    plain.graph.output.extend(outputs)
    return plain


def _as_tensor(
    value: onnx.ValueInfoProto, makers: dict[str, onnx.NodeProto]
) -> onnx.ValueInfoProto | None:
    """What stands for an output: itself, its classes' scores [N, classes] in the place of a ZipMap, or None."""
    if not _is_map(value.type):
        return value
    node = makers.get(value.name)
    if node is None or node.op_type != "ZipMap":
        return None
    node.op_type, node.domain = "Identity", ""
    del node.attribute[:]
    return helper.make_tensor_value_info(value.name, TensorProto.FLOAT, [None, None])


def _is_map(kind: onnx.TypeProto) -> bool:
    while kind.WhichOneof("value") == "sequence_type":
        kind = kind.sequence_type.elem_type
    return bool(kind.WhichOneof("value") == "map_type")
