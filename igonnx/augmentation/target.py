"""What is explained, picked inside the graph: by default each example's largest output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder
from igonnx.row_scores import Apply, rows_first

__all__ = ["ARGMAX", "Picked", "pick"]

ARGMAX = -1


@dataclass(frozen=True)
class Picked:
    """What is explained of N examples."""

    cotangent: ir.Value  # [N, ...], batch axis first: one at the target, zero elsewhere
    score: ir.Value  # [N], the output at the target
    valid: ir.Value  # bool [N]: whether there is such a target


def pick(
    op: GraphBuilder,
    output: ir.Value,
    target: ir.Value,
    *,
    apply: Apply,
    batch_axis: int | None,
    dtype: ir.DataType,
) -> Picked:
    """Pick `target` (int64 [1] or [N]) from `output` after `apply`.

    A target counts the elements of an example's output, row by row; `ARGMAX` stands for the largest. For a target
    beyond them nothing is explained: its cotangent and score are zero.
    """
    examples = op.cast(rows_first(op, output, apply, batch_axis), dtype)
    flat = op.Flatten(examples, axis=1)
    largest = op.ArgMax(flat, axis=1, keepdims=0)
    given = op.Where(op.Equal(target, op.ints([ARGMAX])), largest, target)
    chosen = op.Reshape(given, op.Shape(largest))
    for value in (given, chosen):  # named in the runtime's error
        value.producer().name = op.unique("target_must_be_one_or_one_per_example")
    count = op.Gather(op.Shape(flat), np.array(1), axis=0)
    places = op.Range(op.ints(0), count, op.ints(1))
    hit = op.Equal(op.Unsqueeze(places, [0]), op.Unsqueeze(chosen, [1]))
    # A product with zero would make NaN of an infinite output elsewhere.
    score = op.ReduceSum(op.Where(hit, flat, op.scalar(0.0, flat)), [1], keepdims=0)
    cotangent = op.Reshape(op.cast(hit, dtype), op.Shape(examples))
    cotangent.shape = examples.shape
    valid = op.And(op.GreaterOrEqual(chosen, op.ints(0)), op.Less(chosen, count))
    return Picked(cast("ir.Value", cotangent), cast("ir.Value", score), cast("ir.Value", valid))
