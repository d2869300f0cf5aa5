"""The path from baseline to input, walked inside the graph: some points at a time, all examples at once.

A chunk of m points and N examples is m * N rows, point by point. Of a chunk comes, per explained tensor, the sum of
weight * gradient over its points, as one product of [1, m] with [m, N * D].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from igonnx.augmentation.normal import normal_noise
from igonnx.augmentation.transplant import ROWS, transplant
from igonnx.graph.builder import GraphBuilder, dims, rank
from igonnx.row_gradient import RowGradient

__all__ = ["Ends", "Noise", "Points", "Walked", "walk"]


@dataclass(frozen=True)
class Points:
    """Where the gradient is taken, and what comes of it."""

    alpha: NDArray[
        np.float64
    ]  # [n] on the path, the first is 0: the baseline, whose score is wanted
    weight: NDArray[np.float64]  # [n]
    at_once: int  # points per chunk
    times_difference: bool = (
        True  # gradients are multiplied by x - baseline; False: their magnitudes count
    )

    @property
    def chunks(self) -> int:
        """How many chunks there are; all but the last are of the same size."""
        return math.ceil(len(self.alpha) / self.at_once)

    @property
    def chunk(self) -> int:
        """Points in a chunk: as many as evenly fill the chunks that are needed."""
        return math.ceil(len(self.alpha) / self.chunks)


@dataclass(frozen=True)
class Noise:
    """Copies of the input with Gaussian noise; the same draws for every example."""

    samples: int
    std: (
        float | None
    )  # in the units of the tensor; None: `USUAL` of the range of each example's values
    seed: int


USUAL = 0.15


@dataclass(frozen=True)
class Ends:
    """What of the N examples the rows are made of."""

    x: Sequence[ir.Value]  # [N, ...] per explained tensor, in the dtype of the rows
    baseline: Sequence[ir.Value]  # the same rank; broadcasts to x
    batched: dict[str, ir.Value]  # other inputs [N, ...]; cotangent
    shared: dict[str, ir.Value]  # as the model takes them


@dataclass(frozen=True)
class Walked:
    """What came of all points."""

    attributions: list[ir.Value]  # [N, ...] per explained tensor
    baseline_score: ir.Value  # [N]


def walk(
    op: GraphBuilder, rows: RowGradient, ends: Ends, points: Points, noise: Noise | None
) -> Walked:
    """Emit the walk into the graph of `op`: a Loop, or plain nodes where one chunk is enough."""
    route = _Route(op, rows, ends, points, noise)
    totals = route.looped() if route.rounds > 1 else route.at_once()
    *sums, baseline_score = totals
    if noise is not None and noise.samples > 1:
        sums = [op.Div(total, float(noise.samples)) for total in sums]
        baseline_score = op.Div(baseline_score, float(noise.samples))
    return Walked(sums, baseline_score)


@dataclass
class _Route:
    op: GraphBuilder
    rows: RowGradient
    ends: Ends
    points: Points
    noise: Noise | None
    rounds: int = field(init=False)

    def __post_init__(self) -> None:
        op, points, dtype = self.op, self.points, self.rows.dtype
        self.rounds = points.chunks * (1 if self.noise is None else self.noise.samples)
        self._alpha, self._weight = (
            op.constant(a.astype(dtype)) for a in (points.alpha, points.weight)
        )
        self._first = op.constant((np.arange(len(points.alpha)) == 0).astype(dtype))
        self._difference = [
            _difference(op, x, b) for x, b in zip(self.ends.x, self.ends.baseline, strict=True)
        ]
        self._noises = None if self.noise is None else self._drawn(self.noise)

    def at_once(self) -> list[ir.Value]:
        """All rounds are one: no loop."""
        sample = None if self._noises is None else self.op.ints(0)
        return self._chunk(self.op, self._alpha, self._weight, self._first, sample)

    def looped(self) -> list[ir.Value]:
        """One iteration per chunk, and per noisy copy."""
        op = self.op
        dtype = ir.DataType.from_numpy(self.rows.dtype)
        initial = [op.zeros(op.Shape(x), dtype) for x in self.ends.x]
        initial.append(op.zeros(op.Shape(self.ends.batched["cotangent"], end=1), dtype))
        shapes = [x.shape for x in self.ends.x] + [ir.Shape([None])]
        inner = op.nested("walk")
        count, going = (
            ir.val(op.unique(name), shape=ir.Shape([]), type=ir.TensorType(kind))
            for name, kind in (("round", ir.DataType.INT64), ("going", ir.DataType.BOOL))
        )
        carried = [
            ir.val(op.unique("total"), shape=shape, type=ir.TensorType(dtype)) for shape in shapes
        ]
        inner.graph.inputs.extend([count, going, *carried])
        sums = self._chunk(inner, *self._part(inner, count))
        inner.put_out(inner.Identity(going), shape=ir.Shape([]))
        for before, more, shape in zip(carried, sums, shapes, strict=True):
            inner.put_out(inner.Add(before, more), ir.TensorType(dtype), shape)
        totals = op.emit_all(
            "Loop",
            op.ints(self.rounds),
            op.constant(np.array(True)),
            *initial,
            outputs=len(initial),
            body=inner.graph,
        )
        for total, shape in zip(totals, shapes, strict=True):
            total.type, total.shape = ir.TensorType(dtype), shape
        return totals

    def _part(
        self, inner: GraphBuilder, count: ir.Value
    ) -> tuple[ir.Value, ir.Value, ir.Value, ir.Value | None]:
        """Alpha, weight and whether it is the first, per point of round `count`; and which noisy copy that is for."""
        sample = None
        if self._noises is not None:
            chunks = inner.ints(self.points.chunks)
            sample, count = inner.Div(count, chunks), inner.Mod(count, chunks)
        start = inner.Mul(inner.Unsqueeze(count, [0]), [self.points.chunk])
        end = inner.Add(start, [self.points.chunk])  # beyond the last point, Slice stops there
        alpha, weight, first = (
            inner.Slice(array, start, end, [0])
            for array in (self._alpha, self._weight, self._first)
        )
        return alpha, weight, first, sample

    def _chunk(
        self,
        op: GraphBuilder,
        alpha: ir.Value,
        weight: ir.Value,
        first: ir.Value,
        sample: ir.Value | None,
    ) -> list[ir.Value]:
        """The share of points alpha [m] in the attributions [N, ...], and in the baseline's score [N]."""
        points = op.Shape(alpha)
        feeds = {f"fixed:{name}": value for name, value in self.ends.shared.items()}
        for name, value in self.ends.batched.items():
            key = name if name == "cotangent" else f"fixed:{name}"
            feeds[key] = self._for_every_point(op, value, points)
        differences = self._differences(op, sample)
        names = self.rows.explained
        z = {value.name: value for value in self.rows.model.graph.inputs}
        for name, baseline, difference in zip(names, self.ends.baseline, differences, strict=True):
            column = op.Reshape(alpha, [-1] + [1] * rank(baseline))
            point = op.Add(
                op.Unsqueeze(baseline, [0]), op.Mul(column, op.Unsqueeze(difference, [0]))
            )
            like = z[f"z:{name}"]
            feeds[f"z:{name}"] = op.cast(_merged(op, point, like), cast("ir.DataType", like.dtype))
        dtype = ir.DataType.from_numpy(self.rows.dtype)
        made = transplant(op, self.rows, feeds)
        apart = op.join(points, [-1])
        shares = []
        for name, x, difference in zip(names, self.ends.x, differences, strict=True):
            gradient = op.Reshape(op.cast(made[f"gradient:{name}"], dtype), apart)
            total = op.MatMul(op.Unsqueeze(weight, [0]), gradient)
            total = op.Reshape(total, op.Shape(x), allowzero=1)  # of no examples as well
            shares.append(
                op.Mul(total, difference) if self.points.times_difference else op.Abs(total)
            )
        scores = op.Reshape(made["score"], apart)
        return [*shares, op.Squeeze(op.MatMul(op.Unsqueeze(first, [0]), scores), [0])]

    def _for_every_point(self, op: GraphBuilder, value: ir.Value, points: ir.Value) -> ir.Value:
        """Rows [m * N, ...] of a value [N, ...], the same at every point."""
        shape = op.join(points, [1] * rank(value))
        return _merged(op, op.Expand(op.Unsqueeze(value, [0]), shape), value)

    def _differences(self, op: GraphBuilder, sample: ir.Value | None) -> list[ir.Value]:
        if self._noises is None:
            return self._difference
        return [
            op.Add(difference, op.Gather(noise, sample, axis=0))
            for difference, noise in zip(self._difference, self._noises, strict=True)
        ]

    def _drawn(self, noise: Noise) -> list[ir.Value]:
        """Noise for all copies of each tensor, [samples, N or 1, ...]."""
        op, drawn = self.op, []
        for place, x in enumerate(self.ends.x):
            axes = list(range(1, rank(x)))
            sizes = op.Slice(op.Shape(x), [1], [rank(x)], [0])
            shape = op.join([noise.samples, 1], sizes)
            normal = op.cast(
                normal_noise(op, shape, [noise.seed, place]), cast("ir.DataType", x.dtype)
            )
            if noise.std is None:
                spread = op.Sub(op.reduce("ReduceMax", x, axes), op.reduce("ReduceMin", x, axes))
                drawn.append(op.Mul(normal, op.Mul(op.Unsqueeze(spread, [0]), USUAL)))
            else:
                drawn.append(op.Mul(normal, noise.std))
        return drawn


def _difference(op: GraphBuilder, x: ir.Value, baseline: ir.Value) -> ir.Value:
    """The difference [N, ...]. Where it has not the shape of x, the runtime names a node that says what is wrong."""
    difference = op.Sub(x, baseline)
    shaped = op.Reshape(difference, op.Shape(x))
    for value in (difference, shaped):
        value.producer().name = op.unique(f"{baseline.name}_must_broadcast_to_its_input")
    return cast("ir.Value", shaped)


def _merged(op: GraphBuilder, value: ir.Value, like: ir.Value) -> ir.Value:
    """[m, N, ...] as rows [m * N, ...], each like one of `like` [., ...].

    Their number has a name, by which the runtime knows that tensors are of one shape: some of its fusions need that.
    """
    sizes = dims(like)[1:]
    if all(isinstance(size, int) and size > 0 for size in sizes):
        merged = op.Reshape(value, [-1, *cast("tuple[int, ...]", sizes)])
    else:
        rest = op.Slice(op.Shape(value), [2], [len(sizes) + 2], [0])
        merged = op.Reshape(value, op.join([-1], rest))
    merged.shape = ir.Shape([ROWS, *sizes])
    return cast("ir.Value", merged)
