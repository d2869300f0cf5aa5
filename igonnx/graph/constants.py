"""Constants where shape inference finds them: initializers of the graph whose nodes read them."""

from __future__ import annotations

from typing import cast

import onnx_ir as ir
import onnx_ir.passes.common as passes

from igonnx.graph.node_view import subgraphs
from igonnx.graph.tensors import own_tensor

__all__ = ["settle_constants"]

_LIMIT = 1024  # elements: sizes, axes and indices are few

# How names begin and end that ONNX Runtime's optimiser gives to sizes that it adds, although they may be taken.
_RUNTIME_BEGINNINGS = ("gemm_input_shape", "gemm_output_shape", "splits", "squeeze_axes")
_RUNTIME_ENDS = ("_new_shape", "_new_reshape")


def settle_constants(model: ir.Model) -> None:
    """Turn Constant nodes into initializers, and give bodies copies of the integers that they read from outside.

    ONNX's shape inference sees values only in the graph they lie in: without a copy, the shape behind a Reshape inside
    a loop is lost when its target lies outside.
    """
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _free_runtime_names(model.graph)
    bodies = [body for node in model.graph.all_nodes() for body in subgraphs(node).values()]
    if not bodies:
        return
    taken = {value.name for value in [*model.graph.inputs, *model.graph.initializers.values()]}
    taken.update(value.name for node in model.graph.all_nodes() for value in node.outputs)
    for body in bodies:
        taken.update(value.name for value in [*body.inputs, *body.initializers.values()])
    for body in bodies:
        _copy_into(body, taken)


def _free_runtime_names(graph: ir.Graph) -> None:
    """Rename what the optimiser left in a saved model: optimised once more, that would not load any more."""
    for name, value in list(graph.initializers.items()):
        given = name.startswith(_RUNTIME_BEGINNINGS) or name.endswith(_RUNTIME_ENDS)
        if not given or not _is_small_integer(value) or value.is_graph_output():
            continue
        del graph.initializers[name]
        value.const_value = own_tensor(cast("ir.TensorProtocol", value.const_value))
        value.name = f"saved/{name}"
        graph.register_initializer(value)


def _copy_into(body: ir.Graph, taken: set[str | None]) -> None:
    copies: dict[ir.Value, ir.Value] = {}
    for node in body:
        for index, value in enumerate(node.inputs):
            if value is None or not _is_small_integer(value):
                continue
            if body.initializers.get(cast("str", value.name)) is value:
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
