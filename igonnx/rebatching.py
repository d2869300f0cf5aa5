"""Freeing a model from a fixed batch size, so that many rows go through it at once.

Many exports fix the batch axis at 1. Often nothing but the declared shapes and the leading entries of Reshape targets
hold it there. Those are made symbolic, and the result is believed only after it gave, on rows of a real input, what
the original gives on each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from igonnx.autodiff.transform import between
from igonnx.engine.forward import Forward
from igonnx.errors import EngineError
from igonnx.graph.builder import GraphBuilder, dims
from igonnx.graph.constants import settle_constants
from igonnx.graph.node_view import captures, subgraphs
from igonnx.lowering.shapes import infer_shapes_everywhere
from igonnx.model import Model

__all__ = [
    "fixed_batch",
    "freed_by_shapes",
    "may_count_together",
    "places_are_alike",
    "rebatched",
    "rows_are_independent",
    "rows_share_a_branch",
]

BATCH = "batch"
_TOGETHER = "counted together"


def fixed_batch(model: Model, names: Sequence[str]) -> int | None:
    """The batch size that the inputs `names` are fixed at, or None when it is free."""
    sizes = [info.shape[0] for info in model.inputs if info.name in names and info.shape]
    return next((size for size in sizes if isinstance(size, int)), None)


def rebatched(
    model: Model, sample: Mapping[str, NDArray[Any]], batched: Sequence[str]
) -> Model | None:
    """`model` with a symbolic batch axis, checked on rows made from `sample`; None where that does not work.

    `batched` names the inputs that have the batch axis, fixed so far; `sample` holds at least one example.
    """
    size = fixed_batch(model, batched)
    if size is None:
        return model
    if rows_share_a_branch(model, batched):
        return None
    candidate = _freed(model, size, batched)
    rows = _different_rows(sample, batched, 2 * size)
    try:
        together = Forward(candidate).run(rows, batched, {})
        apart = _in_parts(Forward(model), rows, batched, size)
    except EngineError:
        # The runtime refuses other batch sizes somewhere inside: the caller goes row by row.
        return None
    same = all(_agree(together[name], [part[name] for part in apart]) for name in together)
    return candidate if same else None


def freed_by_shapes(model: Model, batched: Sequence[str], output: str) -> Model | None:
    """`model` with a symbolic batch axis, where shapes alone show that it works; None where they do not.

    Nothing is run: every tensor computed from the contents of the inputs `batched`, on the way to `output`, must keep
    its sizes but for one axis, which had the batch size and has become free. Where a batch was folded into another
    axis, or summed over, that is not so.
    """
    size = fixed_batch(model, batched)
    if size is None or rows_share_a_branch(model, batched):
        return None
    candidate = _freed(model, size, batched)
    shapes = {value.name: value.shape for node in model.ir.graph for value in node.outputs}
    graph = candidate.ir.graph
    known = {value for value in graph.inputs if value.name in batched}
    for node in between(graph, list(known), [candidate.find_output(output)]):
        values = [*node.inputs, *captures(node)]
        if node.op_type in ("Shape", "Size") or not any(value in known for value in values):
            continue  # computed from sizes, which follow the batch
        known.update(node.outputs)
        if not all(_one_axis_freed(shapes.get(v.name), v.shape, size) for v in node.outputs):
            return None
    return candidate


def may_count_together(model: Model, batched: Sequence[str], output: str) -> bool:
    """Whether the first axes of the inputs `batched` may be one and the same, the examples', as far as shapes tell.

    Nothing is run: with one symbol for all of them, no tensor computed from their contents on the way to `output` may
    have that symbol twice, as a product of examples with a table has, nor be of known size in all axes, as a sum or a
    scale over all examples is.
    """
    candidate = model.with_graph(model.clone())
    graph = candidate.ir.graph
    inputs = [value for value in graph.inputs if value.name in batched]
    for value in inputs:
        value.shape = ir.Shape([_TOGETHER, *list(cast("ir.Shape", value.shape))[1:]])
    for node in graph.all_nodes():
        for value in (*node.outputs, *_carried(node)):
            value.shape = None
    infer_shapes_everywhere(candidate.ir)
    known = set(inputs)
    for node in between(graph, inputs, [candidate.find_output(output)]):
        values = [*node.inputs, *captures(node)]
        if node.op_type in ("Shape", "Size") or not any(value in known for value in values):
            continue
        known.update(node.outputs)
        for value in node.outputs:
            if value.shape is None:
                continue
            axes = dims(value)
            if axes.count(_TOGETHER) > 1 or all(isinstance(axis, int) for axis in axes):
                return False
    return True


def _one_axis_freed(before: ir.Shape | None, after: ir.Shape | None, size: int) -> bool:
    if before is None or after is None or len(before) != len(after):
        return False
    pairs = list(zip(before, after, strict=True))
    kept = all(was == now for was, now in pairs if isinstance(now, int))
    return kept and [was for was, now in pairs if not isinstance(now, int)] == [size]


def rows_share_a_branch(model: Model, batched: Sequence[str]) -> bool:
    """Whether what is in the inputs `batched` decides which branch is taken, or when a loop ends.

    That is one decision for all rows of a batch, and a few rows on trial may agree on it by chance.
    """
    graph = model.ir.graph
    return _decides(graph, {value for value in graph.inputs if value.name in batched})


def _decides(graph: ir.Graph, known: set[ir.Value]) -> bool:
    """Whether a condition in `graph` depends on `known`, which grows by all that does (shapes alone do not count)."""
    for node in graph:
        values = [*node.inputs, *captures(node)]
        if node.op_type in ("Shape", "Size") or not any(value in known for value in values):
            continue
        if node.op_type == "If" and node.inputs[0] in known:
            return True
        for body in subgraphs(node).values():
            # The first two inputs of a Loop's body count and say that it goes on.
            inner = known | set(body.inputs[2 if node.op_type == "Loop" else 0 :])
            if _decides(body, inner) or (node.op_type == "Loop" and body.outputs[0] in inner):
                return True
        known.update(node.outputs)
    return False


def rows_are_independent(
    forward: Forward,
    sample: Mapping[str, NDArray[Any]],
    batched: Sequence[str],
    outputs: Sequence[str],
) -> bool:
    """Whether `outputs` for two different rows together are what each row gives by itself.

    Raises `EngineError` where the model cannot be run on two rows.
    """
    rows = _different_rows(sample, batched, 2)
    together = forward.run(rows, batched, {})
    apart = _in_parts(forward, rows, batched, 1)
    return all(_agree(together[name], [part[name] for part in apart]) for name in outputs)


def places_are_alike(
    forward: Forward,
    sample: Mapping[str, NDArray[Any]],
    batched: Sequence[str],
    outputs: Sequence[str],
    size: int,
) -> bool:
    """Whether a row gives the same at any place of a batch of `size`, the only one the model takes, and by any others.

    Every row is moved on by one place, and the last one leaves for another: what has moved must give what it gave.
    Raises `EngineError` where the model cannot be run on such rows.
    """
    rows = _different_rows(sample, batched, size + 1)
    order = np.arange(size)
    before, after = (
        forward.run({n: a[places] if n in batched else a for n, a in rows.items()}, batched, {})
        for places in (order, np.roll([*order[:-1], size], 1))
    )
    return all(_moved_on(before[name], after[name], size) for name in outputs)


def _moved_on(before: NDArray[Any], after: NDArray[Any], size: int) -> bool:
    """Whether an output has moved on by one place along some axis of length `size`; true where it has no such axis."""
    axes = [axis for axis in range(before.ndim) if before.shape[axis] == size]
    kept, moved = range(size - 1), range(1, size)
    return not axes or any(
        after.shape == before.shape and _close(before.take(kept, axis), after.take(moved, axis))
        for axis in axes
    )


def _freed(model: Model, size: int, batched: Sequence[str]) -> Model:
    copy = model.with_graph(model.clone())
    graph = copy.ir.graph
    inputs = [value for value in graph.inputs if value.name in batched]
    nodes = list(graph.all_nodes())
    reshapes = [(node, _free_target(node, size)) for node in nodes if node.op_type == "Reshape"]
    for value in inputs:
        value.shape = ir.Shape([BATCH, *list(cast("ir.Shape", value.shape))[1:]])
    op = GraphBuilder(copy.ir, scope="rebatched")
    for node, target in reshapes:
        if target is not None:
            node.replace_input_with(1, op.ints(target))
    settle_constants(copy.ir)
    for node in nodes:
        for value in (*node.outputs, *_carried(node)):
            value.shape = None
    infer_shapes_everywhere(copy.ir)
    return copy


def _carried(node: ir.Node) -> list[ir.Value]:
    """What the bodies of `node` are given, besides scalars such as a loop's counter: it may have the batch axis too."""
    given = [value for body in subgraphs(node).values() for value in body.inputs]
    return [value for value in given if value.shape is None or len(value.shape)]


def _free_target(node: ir.Node, size: int) -> list[int] | None:
    """The constant target shape of a Reshape with its leading batch size freed, or None to leave it."""
    data, shape = node.inputs[0], node.inputs[1]
    if data is None or shape is None or shape.const_value is None or node.outputs[0].shape is None:
        return None
    target = [int(dim) for dim in shape.const_value.numpy().reshape(-1)]
    if not target or target[0] != size:
        return None
    if -1 not in target:
        return [-1, *target[1:]]
    leading = data.shape[0] if data.shape is not None and len(data.shape) else None
    return [0, *target[1:]] if leading == size else None


def _different_rows(
    sample: Mapping[str, NDArray[Any]], batched: Sequence[str], count: int
) -> dict[str, NDArray[Any]]:
    """`count` different rows made from the first example: rolled along its last axis, noise added if floating."""
    rows, random = dict(sample), np.random.default_rng(0)
    for name in batched:
        first = sample[name][:1]
        shifted = [np.roll(first, i, axis=-1) if first.ndim > 1 else first for i in range(count)]
        rows[name] = np.concatenate(shifted)
        if np.issubdtype(first.dtype, np.floating):
            finite = np.abs(first[np.isfinite(first)])
            scale = 0.1 * float(finite.max(initial=0.0)) or 1.0
            noise = scale * random.standard_normal(rows[name].shape)
            rows[name] = (rows[name] + noise).astype(first.dtype)
    return rows


def _in_parts(
    forward: Forward, rows: Mapping[str, NDArray[Any]], batched: Sequence[str], size: int
) -> list[dict[str, NDArray[Any]]]:
    """Outputs of the first and of the second `size` rows."""
    return [
        forward.run(
            {n: a[start : start + size] if n in batched else a for n, a in rows.items()},
            batched,
            {},
        )
        for start in (0, size)
    ]


def _agree(together: NDArray[Any], apart: Sequence[NDArray[Any]]) -> bool:
    """Whether an output for all rows is what the parts gave, joined along some axis, or the same for every part."""
    axes = [axis for axis in range(together.ndim) if _may_be_joined(apart, axis)]
    if any(_close(together, np.concatenate(apart, axis=axis)) for axis in axes):
        return True
    return all(_close(together, part) for part in apart)


def _may_be_joined(parts: Sequence[NDArray[Any]], axis: int) -> bool:
    """Whether `parts` differ along `axis` only: what a model finds in its input may be more in one than in another."""
    others = {(part.ndim, *part.shape[:axis], *part.shape[axis + 1 :]) for part in parts}
    return len(others) == 1 and axis < parts[0].ndim


def _close(a: NDArray[Any], b: NDArray[Any]) -> bool:
    if a.shape != b.shape:
        return False
    if not np.issubdtype(b.dtype, np.floating):
        return bool(np.array_equal(a, b))
    scale = float(np.abs(b).max(initial=0.0, where=np.isfinite(b)))
    return bool(np.allclose(a, b, rtol=1e-3, atol=1e-4 * scale, equal_nan=True))
