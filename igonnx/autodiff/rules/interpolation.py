"""Reading images between their pixels: the taps of an interpolation, and their gradients by image and by place.

An interpolated value is a sum over corners, the combinations of one tap per spatial axis: the pixel there times the
product of the taps' weights. N counts images, C channels, P places, M pixels of an image.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder, dtype_of

__all__ = [
    "Tap",
    "gradient_by_image",
    "gradient_by_place",
    "interpolated",
    "linear_taps",
    "tap",
    "wide",
]

_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class Tap:
    """One pixel per place along one axis, within the image: its index (int64 [N, P]), its weight, its weight's slope.

    The slope is the derivative by the coordinate; None where there is none.
    """

    index: ir.Value
    weight: ir.Value
    slope: ir.Value | None


def wide(op: GraphBuilder, coordinates: ir.Value) -> ir.Value:
    """Coordinates in float32 at least: half precision cannot tell the pixels of a large image apart."""
    half = dtype_of(coordinates) in _HALF
    return op.cast(coordinates, ir.DataType.FLOAT) if half else coordinates


def tap(
    op: GraphBuilder,
    position: ir.Value,
    size: ir.Value,
    weight: ir.Value,
    slope: ir.Value | None,
    *,
    zeros: bool,
) -> Tap:
    """The tap at whole numbers `position` [N, P] of an axis of `size` pixels (float [1]).

    Beyond the image lies its last pixel, or where `zeros` is set nothing: then the weight is zero.
    """
    last, none = op.Sub(size, 1.0), op.scalar(0.0, position)
    within = op.Max(op.Min(position, last), none)
    # The weight of a place that is not a number says so; its index has to be one.
    within = op.Where(op.IsNaN(position), none, within)
    if zeros:
        inside = op.Equal(within, position)
        weight = op.Where(inside, weight, none)
        slope = None if slope is None else op.Where(inside, slope, none)
    return Tap(op.cast(within, ir.DataType.INT64), weight, slope)


def linear_taps(
    op: GraphBuilder, coordinate: ir.Value, size: ir.Value, *, zeros: bool
) -> list[Tap]:
    """Linear interpolation between the two pixels around `coordinate` [N, P]."""
    below = op.Floor(coordinate)
    fraction = op.Sub(coordinate, below)
    one = op.scalar(1.0, coordinate)
    return [
        tap(op, below, size, op.Sub(one, fraction), op.Neg(one), zeros=zeros),
        tap(op, op.Add(below, one), size, fraction, one, zeros=zeros),
    ]


def interpolated(
    op: GraphBuilder,
    axes: Sequence[Sequence[Tap]],
    sizes: Sequence[ir.Value],
    image: ir.Value,
) -> ir.Value:
    """The values themselves, [N, P, C], of `image` [N, M, C]."""
    terms = []
    for corner in itertools.product(*axes):
        index = op.Unsqueeze(_flat_index(op, corner, sizes), [2])
        weight = _product(op, [tap.weight for tap in corner])
        weight = op.cast(op.Unsqueeze(weight, [2]), dtype_of(image))
        terms.append(op.Mul(op.GatherND(image, index, batch_dims=1), weight))
    return cast("ir.Value", terms[0] if len(terms) == 1 else op.Sum(*terms))


def gradient_by_image(
    op: GraphBuilder,
    axes: Sequence[Sequence[Tap]],
    sizes: Sequence[ir.Value],
    g: ir.Value,
    shape: ir.Value,
) -> ir.Value:
    """What each pixel gets of `g` [N, C, P]; `shape` is that of the result, int64 [3]: N, C, M.

    `axes` holds the taps of each spatial axis, `sizes` the axes' lengths (int64 [1]).
    """
    places, updates = [], []
    for corner in itertools.product(*axes):
        weight = _product(op, [tap.weight for tap in corner])
        places.append(op.Unsqueeze(_flat_index(op, corner, sizes), [1]))
        updates.append(op.Mul(g, op.cast(op.Unsqueeze(weight, [1]), dtype_of(g))))
    many = updates[0] if len(updates) == 1 else op.Concat(*updates, axis=2)
    where = places[0] if len(places) == 1 else op.Concat(*places, axis=2)
    return op.scatter_add(shape, op.Expand(where, op.Shape(many)), many, axis=2)


def gradient_by_place(
    op: GraphBuilder,
    axes: Sequence[Sequence[Tap]],
    sizes: Sequence[ir.Value],
    image: ir.Value,
    g: ir.Value,
) -> list[ir.Value]:
    """The gradient of each axis' coordinates, [N, P] each; `image` [N, M, C] and `g` [N, P, C], channels last."""
    terms: list[list[ir.Value]] = [[] for _ in axes]
    for corner in itertools.product(*axes):
        index = op.Unsqueeze(_flat_index(op, corner, sizes), [2])
        pixels = op.GatherND(image, index, batch_dims=1)
        met = op.ReduceSum(op.Mul(pixels, g), [2], keepdims=0)
        met = op.cast(met, dtype_of(corner[0].weight))
        for axis, own in enumerate(corner):
            if own.slope is not None:
                others = [tap.weight for other, tap in enumerate(corner) if other != axis]
                terms[axis].append(op.Mul(met, _product(op, [own.slope, *others])))
    return [total[0] if len(total) == 1 else op.Sum(*total) for total in terms]


def _flat_index(op: GraphBuilder, corner: Sequence[Tap], sizes: Sequence[ir.Value]) -> ir.Value:
    """The corner's index among all pixels of the image, int64 [N, P]."""
    index = corner[0].index
    for own, size in zip(corner[1:], sizes[1:], strict=True):
        index = op.Add(op.Mul(index, size), own.index)
    return index


def _product(op: GraphBuilder, factors: Sequence[ir.Value]) -> ir.Value:
    return functools.reduce(op.Mul, factors)
