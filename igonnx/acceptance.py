"""Files that ONNX Runtime runs although ONNX's checker refuses them, or onnx_ir cannot read them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["described", "for_checker", "mended"]

# Domains that ONNX Runtime knows without being told their version.
_BUILT_IN = {"com.microsoft": 1}
# The other name of the standard's domain, which only the runtime takes for the same.
_ALIAS = "ai.onnx"
# Bytes that a sparse tensor may take as a dense one: its file need not be longer than a line.
_MOST_DENSE = 1 << 28


def mended(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model in order, or a copy in order: nodes sorted, a name, imports of built-in domains, no sparse constants.

    The standard's domain has one name.

    Raises `ValueError` where a tensor's data contradict themselves.
    """
    nodes = list(_all_nodes(proto.graph))
    aliased = any(node.domain == _ALIAS for node in nodes) or any(
        node.domain == _ALIAS for function in proto.functions for node in _all_nodes(function)
    )
    imported = {entry.domain for entry in proto.opset_import}
    missing = sorted({n.domain for n in nodes} & (_BUILT_IN.keys() - imported))
    sparse = len(proto.graph.sparse_initializer) or any(_is_sparse(node) for node in nodes)
    order = _sorted(proto.graph)
    if proto.graph.name and not missing and not sparse and not aliased and order is None:
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copy.graph.name = proto.graph.name or "model"
    if aliased:
        _use_one_name(copy)
    for domain in missing:
        copy.opset_import.add(domain=domain, version=_BUILT_IN[domain])
    if order is not None:
        del copy.graph.node[:]
        copy.graph.node.extend(order)
    for tensor in copy.graph.sparse_initializer:
        copy.graph.initializer.append(_dense(tensor, tensor.values.name))
    del copy.graph.sparse_initializer[:]
    for node in _all_nodes(copy.graph):
        if _is_sparse(node):
            (attribute,) = node.attribute
            dense = onnx.helper.make_attribute("value", _dense(attribute.sparse_tensor, ""))
            attribute.CopyFrom(dense)
    return copy


def _use_one_name(proto: onnx.ModelProto) -> None:
    """Call the standard's domain "" everywhere; in place."""
    nodes = [*_all_nodes(proto.graph), *(node for f in proto.functions for node in _all_nodes(f))]
    for node in nodes:
        if node.domain == _ALIAS:
            node.domain = ""
    owners: list[onnx.ModelProto | onnx.FunctionProto] = [proto, *proto.functions]
    for owner in owners:
        versions = {entry.domain: entry.version for entry in reversed(owner.opset_import)}
        if _ALIAS in versions:
            version = versions.pop(_ALIAS)
            versions.setdefault("", version)
            del owner.opset_import[:]
            for domain, version in versions.items():
                owner.opset_import.add(domain=domain, version=version)


def for_checker(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy for the checker alone, light to hold: weights are inputs without values."""
    plain = onnx.ModelProto(ir_version=max(proto.ir_version, 4), opset_import=proto.opset_import)
    plain.functions.extend(proto.functions)
    graph = plain.graph
    graph.name = proto.graph.name
    graph.node.extend(proto.graph.node)
    graph.input.extend(proto.graph.input)
    graph.output.extend(proto.graph.output)
    fed = {value.name for value in graph.input}
    graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in proto.graph.initializer
        if tensor.name not in fed
    )
    return plain


def described(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    """A model for the checker alone, whose inputs and outputs all have some type and shape.

    None where nothing was missing.
    """
    if all(_is_described(value) for value in [*proto.graph.input, *proto.graph.output]):
        return None
    plain = for_checker(proto)
    graph = plain.graph
    for value in [*graph.input, *graph.output]:
        if not _is_described(value):
            kind = value.type.tensor_type
            kind.elem_type = kind.elem_type or onnx.TensorProto.FLOAT
            kind.shape.SetInParent()
    return plain


def _is_described(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.WhichOneof("value")
    return kind is not None and (kind != "tensor_type" or value.type.tensor_type.HasField("shape"))


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _all_nodes(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for body in _bodies(node):
            yield from _all_nodes(body)


def _reads(node: onnx.NodeProto) -> set[str]:
    """Names that `node` and its bodies read; those that bodies define themselves do no harm."""
    names = set(node.input)
    for body in _bodies(node):
        names.update(value.name for value in body.output)
        for inner in body.node:
            names |= _reads(inner)
    return names


def _sorted(graph: onnx.GraphProto) -> list[onnx.NodeProto] | None:
    """The nodes, each behind those whose results it reads; None where they are so already, or never can be."""
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    waiting = [
        {makers[name] for name in _reads(node) if makers.get(name, i) != i}
        for i, node in enumerate(graph.node)
    ]
    if all(maker < i for i, before in enumerate(waiting) for maker in before):
        return None
    users: list[list[int]] = [[] for _ in waiting]
    for i, before in enumerate(waiting):
        for maker in before:
            users[maker].append(i)
    ready = [i for i, before in reversed(list(enumerate(waiting))) if not before]
    order = []
    while ready:
        order.append(i := ready.pop())
        for user in users[i]:
            waiting[user].discard(i)
            if not waiting[user]:
                ready.append(user)
    return [graph.node[i] for i in order] if len(order) == len(waiting) else None


def _is_sparse(node: onnx.NodeProto) -> bool:
    return node.op_type == "Constant" and any(a.name == "sparse_value" for a in node.attribute)


def _dense(tensor: onnx.SparseTensorProto, name: str) -> onnx.TensorProto:
    values, indices = (numpy_helper.to_array(t) for t in (tensor.values, tensor.indices))
    if min(tensor.dims, default=0) < 0:
        raise ValueError(f"sparse tensor {name!r} has the shape {list(tensor.dims)}")
    if math.prod(tensor.dims) * values.dtype.itemsize > _MOST_DENSE:
        raise ValueError(
            f"sparse tensor {name!r} has the shape {list(tensor.dims)}; at most {_MOST_DENSE >> 20} MiB are unfolded"
        )
    array = np.zeros(tuple(tensor.dims), values.dtype)
    if indices.ndim == 2:
        array[tuple(indices.T)] = values
    else:
        array.reshape(-1)[indices] = values
    return numpy_helper.from_array(array, name)
