"""Which tensors a gradient is taken by: those a caller names, or what the model suggests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from igonnx.autodiff.transform import differentiable_sources
from igonnx.errors import InputError, ModelError
from igonnx.graph.builder import dims, rank
from igonnx.graph.node_view import captures, operator_name
from igonnx.model import Model, dtype_name, is_floating

__all__ = ["NOT_STRAIGHT_THROUGH", "inputs_to_change", "tensors_per_example", "tensors_to_explain"]

# What an error about a missing path adds when the caller has asked for it.
NOT_STRAIGHT_THROUGH = "; with straight_through=False rounding to codes has none, so nothing passes quantised operators"


def tensors_to_explain(
    model: Model,
    names: Sequence[str] | str | None,
    output: ir.Value,
    *,
    straight_through: bool = True,
) -> list[ir.Value]:
    """The tensors called `names`, or by default every floating input with a differentiable path to `output`.

    Where a model is fed with integers only, the default is the embedding looked up with them, or else the first
    floating tensor computed from them that has a path. Without `straight_through` no path leads through an operator
    that rounds to codes. Raises `InputError` for unknown or integer tensors and
    `ModelError` where no path leads to `output`.
    """
    if names is None:
        return _default(model, output, straight_through)
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
    connected = set(
        differentiable_sources(model.ir.graph, output, values, straight_through=straight_through)
    )
    for value in values:
        if value not in connected:
            raise _no_path(model, value.name, output, straight_through)
    return values


def inputs_to_change(
    model: Model, names: Sequence[str] | str | None, output: ir.Value
) -> list[ir.Value]:
    """The inputs called `names`, or by default all floating ones, else all of numbers: what forward passes may change.

    They need no derivative. Empty where one of `names` is no input of numbers that the output depends on.
    """
    given = [names] if isinstance(names, str) else names
    dependent = [
        value
        for value in model.input_values
        if _is_number(value) and output in _dependent_on(model.ir.graph, [value])
    ]
    if given is None:
        return [value for value in dependent if is_floating(value)] or dependent
    chosen = {value.name: value for value in dependent}
    if not isinstance(given, Sequence) or not all(name in chosen for name in given):
        return []
    return [chosen[name] for name in given] if len(set(given)) == len(given) else []


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


def _default(model: Model, output: ir.Value, straight_through: bool) -> list[ir.Value]:
    graph = model.ir.graph
    floating = [value for value in model.input_values if is_floating(value)]
    connected = differentiable_sources(graph, output, floating, straight_through=straight_through)
    if connected:
        return connected
    if floating:
        raise _no_path(model, floating[0].name, output, straight_through)
    dependent = _dependent_on(graph, model.input_values)
    computed = [
        value
        for node in graph
        for value in node.outputs
        if value in dependent and value is not output
    ]
    candidates = differentiable_sources(
        graph, output, filter(is_floating, computed), straight_through=straight_through
    )
    if not candidates:
        names = ", ".join(info.name for info in model.inputs)
        if not names:
            raise ModelError(
                f"{model.name}: it has no inputs, so there is nothing to explain it by"
            )
        raise _no_path(model, names, output, straight_through)
    # Of several tables, words have the largest: positions and segments have their own.
    embeddings = [value for value in candidates if _table_length(value)]
    return [max(embeddings, key=_table_length)] if embeddings else candidates[:1]


def _require_explainable(model: Model, value: ir.Value, output: ir.Value) -> None:
    if value.name in model.ir.graph.initializers:
        raise InputError(
            f"wrt {value.name!r} is filled by an initializer: only what callers provide has a path"
        )
    if value is output:
        raise InputError(
            f"wrt {value.name!r} is the output itself: there is nothing between them to explain"
        )
    if value.dtype is None:
        node = value.producer()
        maker = "" if node is None else f", the result of operator {operator_name(node)},"
        raise InputError(
            f"wrt {value.name!r}{maker} has no known dtype: name a tensor that is known to be floating"
        )
    if not is_floating(value):
        raise InputError(
            f"wrt {value.name!r} is {dtype_name(value)}: only floating tensors have gradients"
        )


def _no_path(
    model: Model, source: str | None, output: ir.Value, straight_through: bool
) -> ModelError:
    reason = "every path crosses an operator without a derivative, or there is none"
    if not straight_through:
        reason += NOT_STRAIGHT_THROUGH
    return ModelError(
        f"{model.name}: no differentiable path from {source!r} to output {output.name!r}: {reason}"
    )


def _dependent_on(graph: ir.Graph, sources: Iterable[ir.Value]) -> set[ir.Value]:
    """Values computed from the contents of `sources` (their shapes alone do not count)."""
    dependent = set(sources)
    for node in graph:
        if node.op_type not in ("Shape", "Size") and any(
            value in dependent for value in [*node.inputs, *captures(node)]
        ):
            dependent.update(node.outputs)
    return dependent


def _is_number(value: ir.Value) -> bool:
    return is_floating(value) or (value.dtype is not None and value.dtype.is_integer())


def _table_length(value: ir.Value) -> int:
    """Rows of the table of weights that `value` is looked up in; 0 where it is not."""
    node = value.producer()
    if node is None or node.op_type != "Gather" or node.inputs[0] is None:
        return 0
    table = node.inputs[0].const_value
    if table is None or not is_floating(node.inputs[0]) or not len(table.shape):
        return 0
    length = table.shape[0]
    return length if isinstance(length, int) else 0
