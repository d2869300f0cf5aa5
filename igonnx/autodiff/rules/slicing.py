"""Slice: a stretch of each axis, in steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.autodiff.rules.gathering import scatter_back
from igonnx.graph.builder import GraphBuilder, dims, rank

_LARGEST = 2**63 - 1


@rule("Slice")
def slice_(v: Vjp) -> Gradients:
    """Slice: the gradient at the places it was taken from, zeros elsewhere.

    A step of more than one leaves gaps, which are filled with zeros; a negative step turns the axis around.
    """
    steps = v.constant(4)
    simple = v.optional_input(4) is None or (steps is not None and bool((steps == 1).all()))
    starts, ends, axes = (v.constant(index) for index in (1, 2, 3))
    known = starts is not None and ends is not None
    known &= axes is not None or v.optional_input(3) is None
    if v.x.shape is None:
        known = False
    if known and (simple or steps is not None):
        cuts = _cuts(v, starts, ends, axes, steps)
        if simple or all(isinstance(dims(v.x)[cut.axis], int) for cut in cuts if cut.step != 1):
            return [_placed(v, cuts)] + [None] * 4
    elif simple:
        return [v.op.Pad(v.g, _padding_of_fed_bounds(v))] + [None] * 4
    return [scatter_back(v, lambda positions: v.op.Slice(positions, *v.node.inputs[1:]))] + [
        None
    ] * 4


@dataclass(frozen=True)
class _Cut:
    """What is cut from one axis."""

    axis: int
    start: int
    end: int
    step: int


def _cuts(
    v: Vjp,
    starts: np.ndarray | None,
    ends: np.ndarray | None,
    axes: np.ndarray | None,
    steps: np.ndarray | None,
) -> list[_Cut]:
    first, last = (cast("np.ndarray", bound).reshape(-1).tolist() for bound in (starts, ends))
    along = range(len(first)) if axes is None else [int(a) % rank(v.x) for a in axes.reshape(-1)]
    step = [1] * len(first) if steps is None else steps.reshape(-1).tolist()
    return [_Cut(*given) for given in zip(along, first, last, step, strict=True)]


def _placed(v: Vjp, cuts: list[_Cut]) -> ir.Value:
    """The gradient with the gaps of each step filled, and zeros before and after."""
    op, g, n = v.op, v.g, rank(v.x)
    backwards = [cut.axis for cut in cuts if cut.step < 0]
    if backwards:
        turn = [-1] * len(backwards)
        g = op.Slice(g, turn, [-_LARGEST] * len(backwards), backwards, turn)
    pads = [op.ints([0])] * (2 * n)
    spread: dict[int, tuple[int, int]] = {}  # by axis: elements kept, and the step between them
    for cut in cuts:
        size = dims(v.x)[cut.axis]
        if isinstance(size, int):
            # Unlike Python, ONNX has what starts before the first element and goes back start there.
            start = max(cut.start, -size) if cut.step < 0 else cut.start
            picked = range(size)[start : cut.end : cut.step]
            step, kept = abs(cut.step), len(picked)
            before = min(picked, default=0)
            if step > 1 and kept > 1:
                spread[cut.axis] = kept, step
                kept *= step
            pads[cut.axis], pads[n + cut.axis] = op.ints([before]), op.ints([size - before - kept])
        elif cut.start != 0 or cut.end < 2**31 - 1:
            pads[cut.axis], pads[n + cut.axis] = _padding_at_run_time(v, cut.axis, cut.start)
    g = _spread(op, g, v.y, spread)
    padding = op.join(*pads)
    constant = padding.const_value
    return g if constant is not None and not constant.numpy().any() else op.Pad(g, padding)


def _spread(
    op: GraphBuilder, g: ir.Value, y: ir.Value, spread: dict[int, tuple[int, int]]
) -> ir.Value:
    """`g`, shaped as `y`, with step - 1 zeros behind each element: padded along axes of their own."""
    if not spread:
        return g
    n, after = rank(y), sorted(spread)
    places = [axis + 1 + index for index, axis in enumerate(after)]
    gaps = [0] * (n + len(after))
    for place, axis in zip(places, after, strict=True):
        gaps[place] = spread[axis][1] - 1
    wide = op.Pad(op.Unsqueeze(g, places), [0] * len(gaps) + gaps)
    sizes = [
        spread[axis][0] * spread[axis][1] if axis in spread else dim
        for axis, dim in enumerate(dims(y))
    ]
    whole = [size if isinstance(size, int) else -1 for size in sizes]
    if whole.count(-1) <= 1 and 0 not in whole:
        return cast("ir.Value", op.Reshape(wide, whole))
    parts = [
        [size] if isinstance(size, int) else op.dim(y, axis) for axis, size in enumerate(sizes)
    ]
    return cast("ir.Value", op.Reshape(wide, op.join(*parts), allowzero=1))


def _padding_at_run_time(v: Vjp, axis: int, start: int) -> tuple[ir.Value, ir.Value]:
    """Zeros before and after one axis of unknown size, int64 [1] each; the axis may be shorter than the cut."""
    op = v.op
    size, kept = op.dim(v.x, axis), op.dim(v.y, axis)
    if start == 0:
        return op.ints([0]), op.Sub(size, kept)
    before = op.Max(op.Add(size, [start]), [0]) if start < 0 else op.Min(size, [start])
    return before, op.Sub(op.Sub(size, before), kept)


def _padding_of_fed_bounds(v: Vjp) -> ir.Value:
    """Zeros around each axis when bounds, or the rank, are known only at run time, int64 [2 rank]; steps are 1."""
    op = v.op
    starts = op.cast(v.input(1), ir.DataType.INT64)
    axes, shape = v.optional_input(3), op.shape(v.x)
    none = op.ints([0] * rank(v.x)) if v.x.shape is not None else op.Sub(shape, shape)
    if axes is None:
        # As many axes as bounds, from the first one on.
        axes = op.Range(op.ints(0), op.Squeeze(op.Shape(starts), [0]), op.ints(1))
    from_end = op.Less(starts, op.ints(0))
    sizes = op.Gather(shape, axes, axis=0)
    # Adding only what is needed, since a start may lie at the end of int64.
    first = op.Add(starts, op.Where(from_end, sizes, op.ints(0)))
    before = op.ScatterElements(none, axes, op.Min(op.Max(first, op.ints(0)), sizes), axis=0)
    after = op.Sub(op.Sub(shape, before), op.Shape(v.g))
    return cast("ir.Value", op.Concat(before, after, axis=0))
