"""The model cut open at the explained tensors, with its scalar score, row by row.

    inputs   z:<name> [B, ...] per explained tensor, fixed:<name> for the other model inputs, cotangent [B, ...]
    outputs  score [B], the sum of output times cotangent

Rows are independent. `igonnx.row_gradient` adds the gradient; what needs forward passes only runs this as it is, and
may ask for values of tensors on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from igonnx.errors import InputError
from igonnx.graph.builder import GraphBuilder, dims, rank
from igonnx.graph.native_target import NativeTarget
from igonnx.graph.tensors import own_tensor
from igonnx.model import Model, is_floating
from igonnx.recognition import recognise

__all__ = [
    "APPLY",
    "ROWS",
    "Apply",
    "OpenedRows",
    "RowScores",
    "batch_axis_of",
    "build_row_scores",
    "named_output",
    "needed_inputs",
    "normalised_apply",
    "opened_rows",
    "put_out",
    "rows_first",
    "score_dtype",
]

Apply: TypeAlias = "str | tuple[str, int] | None"
APPLY = {"softmax": "Softmax", "log_softmax": "LogSoftmax", "sigmoid": "Sigmoid"}
ROWS = "rows"
_RESERVED = frozenset(["row", "alpha", "weight", "cotangent", "neuron", "score", "slope"])
_RESERVED_PREFIXES = (
    "x:",
    "z:",
    "baseline:",
    "reference:",
    "fixed:",
    "gradient:",
    "weighted_gradient:",
    "value:",
    "direction:",
    "change:",
    "through:",
    "plan/",
    "igonnx/",
)


@dataclass(frozen=True)
class OpenedRows:
    """A model's graph, cut open in place: its inputs are those of the form above, its outputs are not settled yet."""

    op: GraphBuilder  # on the graph
    sources: list[ir.Value]  # z:<name>, still called by the names of the explained tensors
    fixed: list[ir.Value]  # the other inputs, as the model calls them
    by_row: ir.Value  # the output after `apply`, batch axis in front
    seed: ir.Value  # the cotangent in the dtype of that
    score: ir.Value
    rows: str | int  # size of the batch axis
    dtype: np.dtype[np.generic]  # of cotangent and score


@dataclass(frozen=True)
class RowScores:
    """A graph of the form above, and the names in it; `value:<name>` are outputs for tensors that were asked for."""

    model: ir.Model
    explained: tuple[str, ...]
    fixed: tuple[str, ...]  # other model inputs that are still needed; inputs are fixed:<name>
    dtype: np.dtype[np.generic]  # of cotangent and score
    fixed_rows: int | None  # the only number of rows the model takes; None: any


def build_row_scores(
    model: Model,
    *,
    output: str,
    wrt: Sequence[str],
    apply: Apply = None,
    batch_axis: int | None = 0,
    fixed_rows: int | None = None,
    values: Sequence[str] = (),
) -> RowScores:
    """Build the graph for `output` after `apply`, as a function of the tensors `wrt` (names known to the model).

    No derivative is needed on the way, and explained tensors may hold integers. With `values`, names of tensors behind
    the explained ones (or of these), the outputs are their values instead of the score: what lies behind them is left
    out. Raises `InputError` for such a tensor that is a constant or no tensor of real numbers.
    """
    copy = model.with_graph(model.clone())
    graph = copy.ir.graph
    asked = {name: copy.find_tensor(name) for name in values}
    opened = opened_rows(copy, output, wrt, apply, batch_axis, fixed_rows)
    sources = dict(zip(wrt, opened.sources, strict=True))
    for name, source in sources.items():
        source.name = f"z:{name}"
    graph.outputs.clear()
    if values:
        for name, value in asked.items():
            put_out(opened.op, sources.get(name, value), f"value:{name}")
    else:
        shape = ir.Shape([opened.rows])
        graph.outputs.append(named_output(opened.op, opened.score, "score", shape))
    passes.RemoveUnusedNodesPass()(copy.ir)
    cotangent = graph.inputs[-1]
    if values and not cotangent.uses():
        graph.inputs.remove(cotangent)
    needed = needed_inputs(graph, opened.fixed)
    return RowScores(copy.ir, tuple(wrt), needed, opened.dtype, fixed_rows)


def opened_rows(
    model: Model,
    output: str,
    wrt: Sequence[str],
    apply: Apply,
    batch_axis: int | None,
    fixed_rows: int | None,
    native: NativeTarget | None = None,
) -> OpenedRows:
    """Cut the graph of `model` open, in place, at the tensors `wrt`, and append the score of `output`."""
    graph = model.ir.graph
    target = model.find_output(output)
    tensors = [model.find_tensor(name) for name in wrt]
    _free_reserved_names(graph)
    op = GraphBuilder(model.ir, native=native)
    dtype = score_dtype([target, *tensors])
    fixed = [value for value in model.input_values if value not in tensors]
    sources = [
        _opened(graph, value, name, fixed_rows) for value, name in zip(tensors, wrt, strict=True)
    ]
    if native is not None:
        recognise(op, [target])
    if target in tensors:
        raise InputError(
            f"wrt {target.name!r} is the output itself: there is nothing between them to explain"
        )
    by_row = rows_first(op, target, apply, batch_axis)
    rows = ROWS if fixed_rows is None else fixed_rows
    shape = [rows, *list(cast("ir.Shape", by_row.shape))[1:]]
    cotangent = ir.val(
        "cotangent", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.from_numpy(dtype))
    )
    graph.inputs.append(cotangent)
    seed = op.cast(cotangent, cast("ir.DataType", by_row.dtype))
    product = op.cast(op.Mul(by_row, seed), ir.DataType.from_numpy(dtype))
    # What is not asked for may be infinite: classes that a mask rules out.
    zero = op.scalar(0.0, cotangent)
    product = op.Where(op.Equal(cotangent, zero), zero, product)
    score = (
        op.ReduceSum(product, list(range(1, rank(by_row))), keepdims=0)
        if rank(by_row) > 1
        else product
    )
    return OpenedRows(op, sources, fixed, by_row, seed, score, rows, dtype)


def normalised_apply(apply: Apply, output_rank: int) -> tuple[str, int] | None:
    """Operator and axis for `apply`: by default the class axis, 1 in [N, C, H, W] and larger, else the last.

    Raises `InputError` for an unknown function or an axis outside the output.
    """
    if apply is None:
        return None
    name, axis = _function_and_axis(apply)
    if axis is None:
        if name == "sigmoid":  # elementwise
            return APPLY[name], 0
        axis = 1 if output_rank >= 4 else output_rank - 1
    if not -output_rank <= axis < output_rank:
        raise InputError(f"apply axis {axis} is outside the output, which has {output_rank} axes")
    return APPLY[name], axis % output_rank


def _function_and_axis(apply: Apply) -> tuple[str, int | None]:
    if isinstance(apply, str) and apply in APPLY:
        return apply, None
    if isinstance(apply, tuple) and len(apply) == 2:
        name, axis = apply
        if (
            isinstance(name, str)
            and name in APPLY
            and isinstance(axis, int)
            and not isinstance(axis, bool)
        ):
            return name, axis
    known = ", ".join(repr(name) for name in APPLY)
    raise InputError(
        f"apply is {apply!r}; expected None, {known}, or one of these with an axis in a tuple"
    )


def batch_axis_of(output: ir.Value, batched: Sequence[ir.Value]) -> int | None:
    """The axis of `output` that has the symbol of the batched inputs' first axis; None where no axis has it."""
    if output.shape is None:
        return None
    symbols = {dims(value)[0] for value in batched if value.shape is not None and len(value.shape)}
    for axis, dim in enumerate(dims(output)):
        if isinstance(dim, str) and dim in symbols:
            return axis
    return None


def score_dtype(values: Sequence[ir.Value]) -> np.dtype[np.generic]:
    """The dtype of cotangent and score, given the output and the explained tensors: float64 holds integers, too."""
    double = any(value.dtype == ir.DataType.DOUBLE or not is_floating(value) for value in values)
    return np.dtype(np.float64 if double else np.float32)


def _opened(graph: ir.Graph, value: ir.Value, name: str, fixed_rows: int | None) -> ir.Value:
    """Replace `value` by a new graph input z:<name> in everything that uses it."""
    rank(value)
    shape = list(cast("ir.Shape", value.shape))
    if not shape:
        raise InputError(
            f"wrt {name!r} is a scalar: it has no batch axis to explain examples along"
        )
    if fixed_rows is not None:
        shape[0] = fixed_rows
    source = ir.val(name, shape=ir.Shape(shape), type=value.type)
    value.replace_all_uses_with(source, replace_graph_outputs=True)
    if value in graph.inputs:
        graph.inputs.remove(value)
    graph.inputs.append(source)
    return source


def rows_first(
    op: GraphBuilder, target: ir.Value, apply: Apply, batch_axis: int | None
) -> ir.Value:
    """The output after `apply`, with its batch axis moved to the front (made, where it has none)."""
    value = target
    chosen = normalised_apply(apply, rank(target))
    if chosen is not None:
        operator, axis = chosen
        if axis == batch_axis and operator != "Sigmoid":
            raise InputError(
                f"apply {apply!r} would run over axis {axis} of output {target.name!r}, which counts the examples"
            )
        attributes: dict[str, Any] = {} if operator == "Sigmoid" else {"axis": axis}
        value = op.emit(operator, value, **attributes)
        value.shape = target.shape
    if batch_axis is None:
        expanded = cast("ir.Value", op.Unsqueeze(value, [0]))
        expanded.shape = ir.Shape([1, *list(cast("ir.Shape", target.shape))])
        return expanded
    if batch_axis == 0:
        return value
    order = [batch_axis, *(axis for axis in range(rank(target)) if axis != batch_axis)]
    moved = cast("ir.Value", op.Transpose(value, perm=order))
    axes = list(cast("ir.Shape", target.shape))
    moved.shape = ir.Shape([axes[axis] for axis in order])
    return moved


def named_output(op: GraphBuilder, value: ir.Value, name: str, shape: ir.Shape | None) -> ir.Value:
    """The value as an output of the graph of `op`, under a name of its own."""
    named = cast("ir.Value", op.Identity(value))
    named.name, named.shape, named.type = name, shape, value.type
    return named


def put_out(op: GraphBuilder, value: ir.Value, name: str) -> None:
    """Append `value` to the outputs of the graph of `op` and rename it; a graph input, or an output, is copied.

    ONNX Runtime 1.32 loses a value that is copied to an output where one that reads it, a Pad, is fused into the next
    convolution ("not a graph input, initializer, or output of a previous node").
    """
    if value.producer() is None or value in op.graph.outputs:
        value = named_output(op, value, name, value.shape)
    value.name = name
    op.graph.outputs.append(value)


def needed_inputs(graph: ir.Graph, fixed: Sequence[ir.Value]) -> tuple[str, ...]:
    """Drop inputs that nothing uses any more, rename the rest to fixed:<name>, and return their original names."""
    needed = []
    for value in fixed:
        if value.uses():
            needed.append(cast("str", value.name))
            value.name = f"fixed:{value.name}"
        else:
            graph.inputs.remove(value)
    return tuple(needed)


def _free_reserved_names(graph: ir.Graph) -> None:
    """Rename the model's own tensors that carry a name the graph's interface needs."""
    values = [
        *graph.initializers.values(),
        *(value for node in graph.all_nodes() for value in node.outputs),
    ]
    taken = {value.name for value in values}
    for value in values:
        name = value.name or ""
        if name in _RESERVED or name.startswith(_RESERVED_PREFIXES):
            fresh = f"of_model/{name}"
            while fresh in taken:
                fresh += "_"
            taken.add(fresh)
            if value.const_value is not None:
                value.const_value = own_tensor(value.const_value)
            value.name = fresh
