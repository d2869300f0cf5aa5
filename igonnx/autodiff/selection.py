"""Which tensors a gradient is taken by: those a caller names, or what the model suggests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from igonnx.autodiff.builder import dims, rank
from igonnx.autodiff.transform import differentiable_sources
from igonnx.errors import InputError, ModelError
from igonnx.model import Model, dtype_name, is_floating

__all__ = ["tensors_per_example", "tensors_to_explain"]


def tensors_to_explain(
    model: Model, names: Sequence[str] | str | None, output: ir.Value
) -> list[ir.Value]:
    """The tensors called `names`, or by default every floating input with a differentiable path to `output`.

    Where a model is fed with integers only, the default is the embedding looked up with them, or else the first
    floating tensor computed from them that has a path. Raises `InputError` for unknown or integer tensors and
    `ModelError` where no path leads to `output`.
    """
    if names is None:
        return _default(model, output)
    if not isinstance(names, str | Sequence):
        raise InputError(f"wrt is {names!r}; expected a tensor's name or a list of names")
    chosen = [names] if isinstance(names, str) else list(names)
    if not chosen:
        raise InputError("wrt is empty: name at least one tensor")
    values = [model.find_tensor(name) for name in chosen]
    if len(set(chosen)) < len(chosen):
        raise InputError(f"wrt names a tensor twice: {chosen}")
    for value in values:
        _require_explainable(model, value, output)
    connected = set(differentiable_sources(model.ir.graph, output, values))
    for value in values:
        if value not in connected:
            raise _no_path(model, value.name, output)
    return values


def tensors_per_example(model: Model, tensors: Sequence[ir.Value]) -> list[ir.Value]:
    """Of tensors chosen by default, those whose first axis counts examples: scalars and tables are settings."""
    shaped = [value for value in tensors if rank(value) > 0]
    symbolic = [
        value
        for value in shaped
        if not isinstance(dims(value)[0], int) and dims(value)[0] not in model.inner_symbols
    ]
    kept = symbolic or [value for value in shaped if dims(value)[0] == dims(shaped[0])[0]]
    return kept or list(tensors)


def _default(model: Model, output: ir.Value) -> list[ir.Value]:
    graph = model.ir.graph
    floating = [value for value in model.input_values if is_floating(value)]
    connected = differentiable_sources(graph, output, floating)
    if connected:
        return connected
    if floating:
        raise _no_path(model, floating[0].name, output)
    dependent = _dependent_on(graph, model.input_values)
    computed = [value for node in graph for value in node.outputs if value in dependent]
    candidates = differentiable_sources(graph, output, filter(is_floating, computed))
    if not candidates:
        raise _no_path(model, ", ".join(info.name for info in model.inputs), output)
    return ([value for value in candidates if _is_embedding(value)] or candidates)[:1]


def _require_explainable(model: Model, value: ir.Value, output: ir.Value) -> None:
    if value.name in model.ir.graph.initializers:
        raise InputError(
            f"wrt {value.name!r} is filled by an initializer: only what callers provide has a path"
        )
    if value is output:
        raise InputError(
            f"wrt {value.name!r} is the output itself: there is nothing between them to explain"
        )
    if not is_floating(value):
        raise InputError(
            f"wrt {value.name!r} is {dtype_name(value)}: only floating tensors have gradients"
        )


def _no_path(model: Model, source: str | None, output: ir.Value) -> ModelError:
    return ModelError(
        f"{model.name}: no differentiable path from {source!r} to output {output.name!r}: "
        "every path crosses an operator without a derivative, or there is none"
    )


def _dependent_on(graph: ir.Graph, sources: Iterable[ir.Value]) -> set[ir.Value]:
    """Values computed from the contents of `sources` (their shapes alone do not count)."""
    dependent = set(sources)
    for node in graph:
        if node.op_type not in ("Shape", "Size") and any(
            value in dependent for value in node.inputs
        ):
            dependent.update(node.outputs)
    return dependent


def _is_embedding(value: ir.Value) -> bool:
    """Whether `value` is looked up in a table of weights."""
    node = value.producer()
    if node is None or node.op_type != "Gather" or node.inputs[0] is None:
        return False
    table = node.inputs[0]
    return table.const_value is not None and is_floating(table)
