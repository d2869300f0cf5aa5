"""Constants where shape inference finds them: initializers of the graph whose nodes read them."""

from __future__ import annotations

from typing import cast

import onnx_ir as ir
import onnx_ir.passes.common as passes

from igonnx.autodiff.node_view import subgraphs

__all__ = ["settle_constants"]

_LIMIT = 1024  # elements: sizes, axes and indices are few


def settle_constants(model: ir.Model) -> None:
    """Turn Constant nodes into initializers, and give bodies copies of the integers that they read from outside.

    ONNX's shape inference sees values only in the graph they lie in: without a copy, the shape behind a Reshape inside
    a loop is lost when its target lies outside.
    """
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    bodies = [body for node in model.graph.all_nodes() for body in subgraphs(node).values()]
    if not bodies:
        return
    taken = {value.name for value in [*model.graph.inputs, *model.graph.initializers.values()]}
    taken.update(value.name for node in model.graph.all_nodes() for value in node.outputs)
    for body in bodies:
        taken.update(value.name for value in [*body.inputs, *body.initializers.values()])
    for body in bodies:
        _copy_into(body, taken)


def _copy_into(body: ir.Graph, taken: set[str | None]) -> None:
    copies: dict[ir.Value, ir.Value] = {}
    for node in body:
        for index, value in enumerate(node.inputs):
            if value is None or value.name in body.initializers or not _is_small_integer(value):
                continue
            if value not in copies:
                copies[value] = _copy(value, taken)
                body.register_initializer(copies[value])
            node.replace_input_with(index, copies[value])


def _is_small_integer(value: ir.Value) -> bool:
    tensor = value.const_value
    return (
        value.is_initializer()
        and not value.is_graph_input()
        and tensor is not None
        and not isinstance(tensor, ir.ExternalTensor)
        and tensor.dtype in (ir.DataType.INT64, ir.DataType.INT32)
        and tensor.size <= _LIMIT
    )


def _copy(value: ir.Value, taken: set[str | None]) -> ir.Value:
    array = cast("ir.TensorProtocol", value.const_value).numpy()
    count = 1
    while (name := f"{value.name}_{count}") in taken:
        count += 1
    taken.add(name)
    tensor = ir.tensor(array, name=name)
    return ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
