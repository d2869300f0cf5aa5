"""The row gradient graph moved into another graph, or into the body of a loop there, where it shares the weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder, dims
from igonnx.graph.node_view import subgraphs
from igonnx.graph.tensors import own_tensor
from igonnx.row_gradient import RowGradient
from igonnx.row_scores import ROWS as ROWS_OF_GRADIENT

__all__ = ["ROWS", "transplant"]

ROWS = "explanation_rows"  # how many rows there are, as a symbol in shapes
_SMALL = 1024  # bytes; below, two copies do no harm


def transplant(
    op: GraphBuilder, rows: RowGradient, feeds: Mapping[str, ir.Value]
) -> dict[str, ir.Value]:
    """Append the nodes of `rows` to the graph of `op`; returns what they make, by name: score, gradient:<name>.

    `feeds` says what stands for the inputs of `rows`. The graph is emptied by this. Weights that the main graph has
    under the same name are used there; what else is constant joins them. Every value and node gets a name that is new
    in the whole model, for a name in a body would hide the same one outside.
    """
    graph = rows.model.graph
    for name, version in rows.model.opset_imports.items():
        op.model.opset_imports.setdefault(name, version)
    results = {cast("str", value.name): value for value in graph.outputs}
    first = {dims(value)[0] for value in graph.inputs if str(value.name).startswith("z:")}
    counting = {ROWS_OF_GRADIENT, *(dim for dim in first if isinstance(dim, str))}
    graph.outputs.clear()
    filled = op.model.graph.initializers
    for value in graph.inputs:  # those with a default are the main graph's, whoever feeds them
        name = cast("str", value.name)
        value.replace_all_uses_with(feeds[name] if name in feeds else filled[name])
    constants = _constants(op.model.graph)
    for value in list(graph.initializers.values()):
        if not value.is_graph_input() and value.uses():
            value.replace_all_uses_with(_shared(op, value, constants))
    nodes = list(graph)
    graph.remove(nodes)
    for node in nodes:
        _rename(op, node, counting)
    if op.graph is not op.model.graph:
        _bring_filters_in(op, nodes)
    op.graph.extend(nodes)
    return results


def _bring_filters_in(op: GraphBuilder, nodes: Sequence[ir.Node]) -> None:
    """Let convolutions read their weights by way of a Reshape in the graph of `op` that changes nothing.

    ONNX Runtime computes it once, when it makes the session. What comes of it is a constant of the body itself, and
    only for such does it use its blocked layout, which is faster, and rounds as the model itself does outside.
    """
    brought: dict[ir.Value, ir.Value] = {}
    for node in nodes:
        if node.op_type != "Conv" or node.domain:
            continue
        for place, value in list(enumerate(node.inputs))[1:]:
            if value is None or value.const_value is None or value.is_graph_input():
                continue
            if value not in brought:
                shape = value.const_value.shape.numpy()
                brought[value] = op.Reshape(value, [int(size) for size in shape])
            node.replace_input_with(place, brought[value])


def _shared(
    op: GraphBuilder,
    value: ir.Value,
    constants: Mapping[str, tuple[ir.Value, ir.TensorProtocol]],
) -> ir.Value:
    """The main graph's initializer, or one of its `constants`, that holds what `value` does; or a new initializer."""
    main = op.model.graph
    tensor = cast("ir.TensorProtocol", value.const_value)
    there = main.initializers.get(cast("str", value.name))
    if there is not None and not there.is_graph_input() and _same(there.const_value, tensor):
        return there
    made = constants.get(cast("str", value.name))
    if made is not None and _same(made[1], tensor):
        return made[0]
    if tensor.nbytes > _SMALL:  # it may have got another name
        held = ((other, other.const_value) for other in main.initializers.values())
        for other, data in [*held, *constants.values()]:
            if not other.is_graph_input() and _same(data, tensor):
                return other
    name = op.unique(cast("str", value.name))
    new = ir.Value(name=name, shape=value.shape, type=value.type, const_value=own_tensor(tensor))
    new.name = name  # the tensor's too
    main.register_initializer(new)
    return new


def _constants(graph: ir.Graph) -> dict[str, tuple[ir.Value, ir.TensorProtocol]]:
    """What Constant nodes of `graph` make, by name."""
    found = {}
    for node in graph:
        held = node.attributes.get("value") if node.op_type == "Constant" else None
        if held is not None and node.outputs[0].name:
            found[node.outputs[0].name] = (node.outputs[0], held.as_tensor())
    return found


def _same(one: ir.TensorProtocol | None, other: ir.TensorProtocol) -> bool:
    if one is other:
        return True
    if one is None or one.dtype != other.dtype or one.shape != other.shape:
        return False
    if isinstance(one, ir.ExternalTensor) and isinstance(other, ir.ExternalTensor):
        return (one.path, one.offset, one.length) == (other.path, other.offset, other.length)
    return bool(np.array_equal(one.numpy(), other.numpy()))


def _of_rows(shape: ir.Shape, counting: Collection[str]) -> ir.Shape:
    """`shape` with `ROWS` for the symbols in `counting`: outside they are the number of examples."""
    dims = [dim if isinstance(dim, int) else dim.value for dim in shape]
    return ir.Shape([ROWS if dim in counting else dim for dim in dims])


def _rename(op: GraphBuilder, node: ir.Node, counting: Collection[str]) -> None:
    """Give `node`, its outputs and all that is in its bodies names of their own."""
    node.name = op.unique(node.name or node.op_type)
    node.doc_string = None
    node.metadata_props.clear()  # where an exporter has found it in its sources; the model's own nodes tell
    for value in node.outputs:
        if value.shape is not None:
            value.shape = _of_rows(value.shape, counting)
        if value.name:
            value.name = op.unique(value.name)
    for body in subgraphs(node).values():
        for value in [*body.inputs, *list(body.initializers.values())]:
            _rename_defined(op, body, value)
            if value.shape is not None:
                value.shape = _of_rows(value.shape, counting)
        for inner in body:
            _rename(op, inner, counting)


def _rename_defined(op: GraphBuilder, body: ir.Graph, value: ir.Value) -> None:
    """Rename an input or initializer of a body; an initializer's tensor may be shared with another graph."""
    if value.const_value is not None:
        body.initializers.pop(cast("str", value.name), None)
        value.const_value = own_tensor(value.const_value)
    value.name = op.unique(value.name or "value")
    if value.const_value is not None:
        body.register_initializer(value)
