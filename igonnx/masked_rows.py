"""One graph for the scores of masked inputs: the mask is applied in it, row by row, then the model runs.

inputs   x:<name>, baseline:<name> [R, ...]   requests, per explained tensor
feature:<name> int32 [1, ...] or [R, ...]    the feature that each element belongs to; another number: never masked
fixed:<name>                         other model inputs: [R, ...], or as the model takes them
row int64 [B]                        the request each row belongs to
keep [B, F]                          how much of each feature is kept: 1 for x, 0 for the baseline
cotangent [R, ...]                   what is explained: a linear functional of the output, batch axis first
outputs  score [B]                   the functional's value at each row
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.explanation_graph import ExplanationGraph, gather_rows, request_input
from igonnx.graph.builder import GraphBuilder
from igonnx.row_scores import ROWS, RowScores

__all__ = ["build_masked_rows"]

PLUGIN = "ai.igonnx"


def build_masked_rows(
    rows: RowScores, batched: Collection[str], *, plugin: bool
) -> ExplanationGraph:
    """Wrap the scores of rows, in place. `batched` names the fixed inputs whose first axis counts requests.

    `plugin`: the masks are applied by the plugin's operator, which only the CPU has, instead of standard ones.
    """
    graph = rows.model.graph
    op = GraphBuilder(rows.model, scope="plan")
    interface = {cast("str", value.name): value for value in graph.inputs}
    dtype = ir.DataType.from_numpy(rows.dtype)
    count = ROWS if rows.fixed_rows is None else rows.fixed_rows
    row = ir.val("row", shape=ir.Shape([count]), type=ir.TensorType(ir.DataType.INT64))
    keep = ir.val("keep", shape=ir.Shape([count, "features"]), type=ir.TensorType(dtype))
    inputs: list[ir.Value] = []
    for name in rows.explained:
        z = interface[f"z:{name}"]
        ends = [request_input(f"{end}:{name}", z, dtype) for end in ("x", "baseline")]
        feature = request_input(f"feature:{name}", z, ir.DataType.INT32)
        feature.shape = ir.Shape([f"places:{name}", *list(cast("ir.Shape", feature.shape))[1:]])
        inputs += [*ends, feature]
        if plugin:
            masked = op.emit("MaskedRows", *ends, feature, row, keep, domain=PLUGIN)
        else:
            masked = _masked(op, ends, feature, row, keep)
        masked.shape = z.shape
        point = op.cast(masked, cast("ir.DataType", z.dtype))
        point.shape = z.shape
        z.replace_all_uses_with(point)
    for name in rows.fixed:
        value = interface[f"fixed:{name}"]
        inputs.append(value if name not in batched else gather_rows(op, value, row))
    inputs += [row, keep, gather_rows(op, interface["cotangent"], row)]
    graph.inputs.clear()
    graph.inputs.extend(inputs)
    graph.sort()
    return ExplanationGraph(
        rows.model,
        rows.explained,
        tuple(f"fixed:{name}" for name in rows.fixed if name in batched),
        tuple(f"fixed:{name}" for name in rows.fixed if name not in batched),
        rows.dtype,
        rows.fixed_rows,
    )


def _masked(
    op: GraphBuilder, ends: list[ir.Value], feature: ir.Value, row: ir.Value, keep: ir.Value
) -> ir.Value:
    """Baseline + keep (x - baseline) by row, exactly the one or the other at the ends."""
    x, baseline = (op.Gather(end, row, axis=0) for end in ends)
    for value, end in zip((x, baseline), ends, strict=True):
        value.shape = ir.Shape(
            [cast("ir.Shape", row.shape)[0], *list(cast("ir.Shape", end.shape))[1:]]
        )
    place = op.Mod(row, op.dim(feature, 0))  # the only one, or that of the request
    flat = op.Reshape(feature, op.join(op.dim(feature, 0), [-1]))
    number = op.Cast(op.Gather(flat, place, axis=0), to=int(ir.DataType.INT64))  # [B, D]
    # Elements of no feature get the column behind the last one, in which all is kept.
    features = op.Gather(op.Shape(keep), [1], axis=0)
    known = op.And(op.GreaterOrEqual(number, op.ints(0)), op.Less(number, features))
    one = op.ConstantOfShape(
        op.join(op.Shape(row), [1]), value=ir.tensor(np.ones(1, dtype=_numpy(keep)))
    )
    one.type = keep.type
    columns = op.Concat(keep, one, axis=1)
    share = op.GatherElements(columns, op.Where(known, number, features), axis=1)
    share = op.Reshape(share, op.Shape(x))
    mixed = op.Add(baseline, op.Mul(share, op.Sub(x, baseline)))
    not_whole = op.Where(op.Equal(share, op.scalar(0.0, keep)), baseline, mixed)
    return cast("ir.Value", op.Where(op.Equal(share, op.scalar(1.0, keep)), x, not_whole))


def _numpy(value: ir.Value) -> np.dtype[np.generic]:
    return cast("ir.DataType", value.dtype).numpy()
