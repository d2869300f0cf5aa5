"""Which axes count examples, told from what a model declares, without running it.

An explainer settles this by trying; a graph that is written down to be run elsewhere cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from igonnx.errors import ModelError
from igonnx.graph.builder import dims
from igonnx.model import Model
from igonnx.rebatching import (
    fixed_batch,
    freed_by_shapes,
    may_count_together,
    rows_share_a_branch,
)
from igonnx.row_scores import batch_axis_of

__all__ = ["Batching", "require_first_axis", "settle_batching"]


@dataclass(frozen=True)
class Batching:
    """How examples lie in a model's inputs and in one of its outputs."""

    model: Model  # to be run on rows: freed from a fixed batch size where shapes show that it works
    batched: tuple[str, ...]  # inputs with the examples along their first axis
    batch_axis: int | None  # of the output; None: it has none, the model takes one example
    declared_rows: int | None  # examples that the model itself takes at a time; None: any number
    fixed_rows: int | None  # rows that `model` takes at a time; None: any number
    apart: bool  # rows of a batch may be any examples; False: they influence each other


def settle_batching(model: Model, output: str, wrt: Sequence[str]) -> Batching:
    """How examples lie in `model`, explained for `output` by the tensors `wrt`.

    Inputs that are explained have them along the first axis, and so has every input whose first axis is declared with
    the same symbol or number. So has, beside symbols, one with another symbol that names no later axis, if then no
    tensor on the way to the output has two such axes, or none: exporters name batch axes at will.

    Raises `ModelError` where the output counts examples by what is a later axis of an input, as in [time, batch, ...].
    """
    batched = _batched_inputs(model, wrt, output)
    require_first_axis(model, output, batched)
    declared = fixed_batch(model, batched)
    apart = not rows_share_a_branch(model, batched)
    if declared is None:
        apart = apart and may_count_together(model, batched, output)
    free = model if declared is None else freed_by_shapes(model, batched, output)
    if free is not None:
        axis = _batch_axis(free, output, batched)
        if axis is not None:
            return Batching(free, batched, axis, declared, None, apart)
        free = None
    axis = None if declared is None else _axis_of_size(model.find_output(output), declared)
    if axis is None and declared is not None and declared > 1:
        raise ModelError(
            f"output {output!r} has no axis for the {declared} examples that the model takes at once"
        )
    rows = 1 if declared is None else declared
    return Batching(model, batched, axis, rows if axis is None else declared, rows, apart)


def _batched_inputs(model: Model, wrt: Sequence[str], output: str) -> tuple[str, ...]:
    declared = {info.name: info.shape for info in model.inputs if info.shape}
    inner = model.inner_symbols
    explained = [name for name in wrt if name in declared]
    symbolic = [name for name, shape in declared.items() if _counts(shape[0], inner)]
    leading = explained or symbolic or list(declared)
    if not leading:
        return ()
    first = declared[leading[0]][0]
    alike = {name for name, shape in declared.items() if shape[0] == first and first is not None}
    certain = tuple(name for name in declared if name in explained or name in alike)
    everything = tuple(name for name in declared if name in certain or name in symbolic)
    if isinstance(first, int) or everything == certain:
        return certain
    return everything if may_count_together(model, everything, output) else certain


def _counts(axis: int | str | None, inner: set[str]) -> bool:
    return not isinstance(axis, int) and axis not in inner


def _batch_axis(model: Model, output: str, batched: Sequence[str]) -> int | None:
    """The axis of the output that has the symbol of an input's first axis; else the first one, if its size is open."""
    value = model.find_output(output)
    if value.shape is None or not len(value.shape) or not batched:
        return None
    axis = batch_axis_of(value, [one for one in model.input_values if one.name in batched])
    if axis is not None:
        return axis
    return None if isinstance(dims(value)[0], int) else 0


def require_first_axis(model: Model, output: str, batched: Sequence[str]) -> None:
    """Refuse a model whose output counts examples by what is a later axis of its input, as [time, batch, ...]."""
    value = model.find_output(output)
    counts = dims(value) if value.shape is not None else ()
    inputs = [info for info in model.inputs if info.name in batched]
    if not counts or not isinstance(counts[0], str):
        return
    if any(info.shape[0] in counts for info in inputs):
        return
    for info in inputs:
        if counts[0] in info.shape[1:]:
            raise ModelError(
                f"output {output!r} counts examples by {counts[0]!r}, which is axis {info.shape.index(counts[0])} "
                f"of input {info.name!r}: only models with the examples along the first axis can be explained"
            )


def _axis_of_size(value: ir.Value, size: int) -> int | None:
    sizes = [] if value.shape is None else list(dims(value))
    return sizes.index(size) if size in sizes else None
