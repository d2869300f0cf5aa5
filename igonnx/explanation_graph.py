"""One graph that serves every request, method and batch: interpolation, model, gradient and weighted sum.

inputs   x:<name>, baseline:<name> [R, ...]   requests, per explained tensor
fixed:<name>                         other model inputs: [R, ...], or as the model takes them
row int64 [B]                        the request each row belongs to
alpha, weight [B]                    position on the path from baseline (0) to x (1), quadrature weight
cotangent [R, ...]                   what is explained: a linear functional of the output, batch axis first
outputs  weighted_gradient:<name> [R, ...]    sum of weight * gradient over the rows of each request
score [B]                            the functional's value at each row
slope [B]                            gradient . (x - baseline): the derivative of score by alpha
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder, rank
from igonnx.row_gradient import RowGradient
from igonnx.row_scores import ROWS

__all__ = ["ExplanationGraph", "build_explanation_graph", "gather_rows", "request_input"]

REQUESTS = "requests"


@dataclass(frozen=True)
class ExplanationGraph:
    """The graph and the names of its parts; see the module's text for the inputs and outputs."""

    model: ir.Model
    explained: tuple[str, ...]
    batched: tuple[str, ...]  # fixed inputs [R, ...], as this graph calls them: fixed:<name>
    shared: tuple[str, ...]  # fixed inputs handed to the model as they are, likewise
    dtype: np.dtype[np.generic]  # of x, baseline, alpha, weight, cotangent and every output
    fixed_rows: int | None  # the only number of rows the model takes; None: any


def build_explanation_graph(rows: RowGradient, batched: Collection[str]) -> ExplanationGraph:
    """Wrap the row gradient, in place. `batched` names the fixed inputs whose first axis counts requests."""
    graph = rows.model.graph
    op = GraphBuilder(rows.model, scope="plan")
    interface = {cast("str", value.name): value for value in [*graph.inputs, *graph.outputs]}
    dtype = ir.DataType.from_numpy(rows.dtype)
    per_row = ir.Shape([ROWS if rows.fixed_rows is None else rows.fixed_rows])
    row = ir.val("row", shape=per_row, type=ir.TensorType(ir.DataType.INT64))
    alpha, weight = (
        ir.val(name, shape=per_row, type=ir.TensorType(dtype)) for name in ("alpha", "weight")
    )
    inputs: list[ir.Value] = []
    slopes: list[ir.Value] = []
    sums: list[ir.Value] = []
    for name in rows.explained:
        ends = [
            request_input(f"{end}:{name}", interface[f"z:{name}"], dtype)
            for end in ("x", "baseline")
        ]
        inputs += ends
        reference = interface[f"reference:{name}"] if name in rows.referenced else None
        difference = _interpolate(op, interface[f"z:{name}"], ends, row, alpha, reference)
        gradient = op.cast(interface[f"gradient:{name}"], dtype)
        slopes.append(_row_dot(op, gradient, difference, len(cast("ir.Shape", ends[0].shape))))
        total = _weighted_sum(op, gradient, row, weight, ends[0])
        total.name = f"weighted_gradient:{name}"
        sums.append(total)
    for name in rows.fixed:
        value = interface[f"fixed:{name}"]
        inputs.append(value if name not in batched else gather_rows(op, value, row))
    inputs += [row, alpha, weight, gather_rows(op, interface["cotangent"], row)]
    slope = slopes[0] if len(slopes) == 1 else op.Sum(*slopes)
    slope.name, slope.shape, slope.type = "slope", per_row, ir.TensorType(dtype)
    graph.inputs.clear()
    graph.inputs.extend(inputs)
    score = interface["score"]
    graph.outputs.clear()
    graph.outputs.extend([*sums, score, slope])
    graph.sort()
    description = ExplanationGraph(
        rows.model,
        rows.explained,
        tuple(f"fixed:{name}" for name in rows.fixed if name in batched),
        tuple(f"fixed:{name}" for name in rows.fixed if name not in batched),
        rows.dtype,
        rows.fixed_rows,
    )
    rows.model.metadata_props.update(_metadata(description))
    return description


def request_input(name: str, like: ir.Value, dtype: ir.DataType) -> ir.Value:
    """A new input [R, ...] with the axes of `like` [B, ...]."""
    shape = list(cast("ir.Shape", like.shape))
    return ir.val(name, shape=ir.Shape([REQUESTS, *shape[1:]]), type=ir.TensorType(dtype))


def _interpolate(
    op: GraphBuilder,
    z: ir.Value,
    ends: list[ir.Value],
    row: ir.Value,
    alpha: ir.Value,
    reference: ir.Value | None,
) -> ir.Value:
    """Feed z = baseline + alpha (x - baseline), row by row, to what used the input z; return x - baseline by row.

    What used the input `reference` is fed with the baseline, row by row.
    """
    x, baseline = (op.Gather(end, row, axis=0) for end in ends)
    difference = op.Sub(x, baseline)
    column = op.Reshape(alpha, [-1] + [1] * (rank(z) - 1))
    point = op.cast(op.Add(baseline, op.Mul(column, difference)), cast("ir.DataType", z.dtype))
    point.shape = z.shape
    z.replace_all_uses_with(point)
    if reference is not None:
        start = op.cast(baseline, cast("ir.DataType", z.dtype))
        start.shape = z.shape
        reference.replace_all_uses_with(start)
    return cast("ir.Value", difference)


def _row_dot(op: GraphBuilder, a: ir.Value, b: ir.Value, axes: int) -> ir.Value:
    product = op.Mul(a, b)
    return cast(
        "ir.Value", op.ReduceSum(product, list(range(1, axes)), keepdims=0) if axes > 1 else product
    )


def _weighted_sum(
    op: GraphBuilder, gradient: ir.Value, row: ir.Value, weight: ir.Value, x: ir.Value
) -> ir.Value:
    """Sum of weight * gradient over the rows of each request, as one product of a [R, B] selection with [B, D]."""
    requests = op.Squeeze(op.dim(x, 0), [0])
    numbers = op.Unsqueeze(op.Range(op.ints(0), requests, op.ints(1)), [1])
    selected = op.Equal(numbers, op.Unsqueeze(row, [0]))
    selection = op.Where(selected, op.Unsqueeze(weight, [0]), op.scalar(0.0, weight))
    flat = op.Reshape(gradient, op.join(op.Shape(row), [-1]))
    total = cast("ir.Value", op.Reshape(op.MatMul(selection, flat), op.Shape(x)))
    total.shape, total.type = x.shape, x.type
    return total


def gather_rows(op: GraphBuilder, value: ir.Value, row: ir.Value) -> ir.Value:
    """Make the graph input `value` [R, ...] and hand its uses the rows' share [B, ...]."""
    users = list(value.uses())
    rows = op.Gather(value, row, axis=0)
    rows.shape, rows.type = value.shape, value.type
    for node, index in users:
        node.replace_input_with(index, rows)
    if value.shape is not None:
        value.shape = ir.Shape([REQUESTS, *list(value.shape)[1:]])
    return value


def _metadata(graph: ExplanationGraph) -> dict[str, str]:
    description = {
        "explained": graph.explained,
        "batched": graph.batched,
        "shared": graph.shared,
        "dtype": graph.dtype.name,
        "fixed_rows": graph.fixed_rows,
    }
    return {"igonnx.explanation_graph": json.dumps(description)}
