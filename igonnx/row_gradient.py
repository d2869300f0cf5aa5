"""The model cut open at the explained tensors, with its scalar score and the gradient of that score, row by row.

    inputs   z:<name> [B, ...] per explained tensor, fixed:<name> for the other model inputs, cotangent [B, ...]
    outputs  score [B], the sum of output times cotangent; gradient:<name> [B, ...] of the score

Rows are independent. The explanation graph wraps this with interpolation and the weighted sum; the reference engine
runs it as it is and does the rest in NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from igonnx.autodiff.builder import GraphBuilder, dims, rank
from igonnx.autodiff.transform import differentiate
from igonnx.errors import InputError, ModelError
from igonnx.model import Model, is_floating

__all__ = ["APPLY", "Apply", "RowGradient", "batch_axis_of", "build_row_gradient", "normalised_apply"]

Apply: TypeAlias = "str | tuple[str, int] | None"
APPLY = {"softmax": "Softmax", "log_softmax": "LogSoftmax", "sigmoid": "Sigmoid"}
ROWS = "rows"
_RESERVED = ("row", "alpha", "weight", "cotangent", "score", "slope")


@dataclass(frozen=True)
class RowGradient:
    """A graph of the form above, and the names in it."""

    model: ir.Model
    builder: GraphBuilder
    explained: tuple[str, ...]  # tensors of the model; inputs are z:<name>
    fixed: tuple[str, ...]  # other model inputs that are still needed; inputs are fixed:<name>
    dtype: np.dtype[np.generic]  # of cotangent and score: float64 for a float64 model, else float32
    fixed_rows: int | None  # the only number of rows the model takes; None: any


def normalised_apply(apply: Apply, output_rank: int) -> tuple[str, int] | None:
    """Operator and axis for `apply`: by default the class axis, 1 in [N, C, H, W] and larger, else the last.

    Raises `InputError` for an unknown function or an axis outside the output.
    """
    if apply is None:
        return None
    name, axis = (apply, None) if isinstance(apply, str) else apply
    if name not in APPLY:
        raise InputError(f"apply is {apply!r}; expected None, {', '.join(repr(known) for known in APPLY)}")
    if axis is None:
        axis = 1 if output_rank >= 4 else output_rank - 1
    if not -output_rank <= axis < output_rank:
        raise InputError(f"apply axis {axis} is outside the output, which has {output_rank} axes")
    return APPLY[name], axis % output_rank


def batch_axis_of(output: ir.Value, explained: Sequence[ir.Value]) -> int | None:
    """The axis of `output` that counts examples: the one with the symbol of the explained tensors' first axis.

    Without such a symbol it is axis 0; None for an output without axes.
    """
    if output.shape is None or len(output.shape) == 0:
        return None if output.shape is not None else 0
    symbols = {dims(value)[0] for value in explained if value.shape is not None and len(value.shape)}
    for axis, dim in enumerate(dims(output)):
        if isinstance(dim, str) and dim in symbols:
            return axis
    return 0


def build_row_gradient(
    model: Model,
    *,
    output: str,
    wrt: Sequence[str],
    apply: Apply = None,
    batch_axis: int | None = 0,
    fixed_rows: int | None = None,
    native: bool = False,
) -> RowGradient:
    """Build the graph for `output` after `apply`, explained by the tensors `wrt` (names known to the model)."""
    copy = model.with_graph(model.clone())
    graph = copy.ir.graph
    target = copy.find_output(output)
    tensors = [copy.find_tensor(name) for name in wrt]
    _free_reserved_names(graph)
    op = GraphBuilder(copy.ir, native=native)
    dtype = _score_dtype([target, *tensors])
    fixed = [value for value in copy.input_values if value not in tensors]
    sources = [_opened(graph, value, name, fixed_rows) for value, name in zip(tensors, wrt, strict=True)]
    if target in tensors:
        raise InputError(f"wrt {target.name!r} is the output itself: there is nothing between them to explain")
    rows_first = _rows_first(op, target, apply, batch_axis)
    shape = [ROWS if fixed_rows is None else fixed_rows, *list(cast("ir.Shape", rows_first.shape))[1:]]
    cotangent = ir.Input("cotangent", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.from_numpy(dtype)))
    graph.inputs.append(cotangent)
    seed = op.cast(cotangent, cast("ir.DataType", rows_first.dtype))
    product = op.cast(op.Mul(rows_first, seed), ir.DataType.from_numpy(dtype))
    score = op.ReduceSum(product, list(range(1, rank(rows_first))), keepdims=0) if rank(rows_first) > 1 else product
    gradients = differentiate(op, {rows_first: seed}, sources)
    graph.outputs.clear()
    graph.outputs.append(_output(op, score, "score", ir.Shape(shape[:1])))
    for name, source, gradient in zip(wrt, sources, gradients, strict=True):
        if gradient is None:
            raise ModelError(f"{model.name}: no gradient reaches {name!r} from output {output!r}")
        graph.outputs.append(_output(op, gradient, f"gradient:{name}", source.shape))
    passes.RemoveUnusedNodesPass()(copy.ir)
    needed = _keep_needed_inputs(graph, fixed)
    return RowGradient(copy.ir, op, tuple(wrt), needed, dtype, fixed_rows)


def _score_dtype(values: Sequence[ir.Value]) -> np.dtype[np.generic]:
    double = any(value.dtype == ir.DataType.DOUBLE for value in values)
    return np.dtype(np.float64 if double else np.float32)


def _opened(graph: ir.Graph, value: ir.Value, name: str, fixed_rows: int | None) -> ir.Value:
    """Replace `value` by a new graph input z:<name> in everything that uses it."""
    if not is_floating(value):
        raise InputError(f"wrt {name!r} is not floating")
    rank(value)
    shape = list(cast("ir.Shape", value.shape))
    if not shape:
        raise InputError(f"wrt {name!r} is a scalar: it has no batch axis to explain examples along")
    if fixed_rows is not None:
        shape[0] = fixed_rows
    source = ir.Input(f"z:{name}", shape=ir.Shape(shape), type=value.type)
    value.replace_all_uses_with(source, replace_graph_outputs=True)
    if value in graph.inputs:
        graph.inputs.remove(value)
    graph.inputs.append(source)
    return source


def _rows_first(op: GraphBuilder, target: ir.Value, apply: Apply, batch_axis: int | None) -> ir.Value:
    """The output after `apply`, with its batch axis moved to the front (made, where it has none)."""
    value = target
    chosen = normalised_apply(apply, rank(target))
    if chosen is not None:
        operator, axis = chosen
        value = op.emit(operator, value, **({} if operator == "Sigmoid" else {"axis": axis}))
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


def _output(op: GraphBuilder, value: ir.Value, name: str, shape: ir.Shape | None) -> ir.Value:
    named = cast("ir.Value", op.Identity(value))
    named.name, named.shape, named.type = name, shape, value.type
    return named


def _keep_needed_inputs(graph: ir.Graph, fixed: Sequence[ir.Value]) -> tuple[str, ...]:
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
    taken = {value.name for node in graph for value in node.outputs}
    for value in [*graph.initializers.values(), *(v for node in graph for v in node.outputs)]:
        if value.name in _RESERVED:
            fresh = f"{value.name}_of_model"
            while fresh in taken or fresh in graph.initializers:
                fresh += "_"
            value.name = fresh
