"""GridSample: an image read at places that a grid gives (Jaderberg et al., "Spatial Transformer Networks", 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import onnx_ir as ir

from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.autodiff.rules.interpolation import (
    Tap,
    gradient_by_image,
    gradient_by_place,
    linear_taps,
    tap,
    wide,
)
from igonnx.graph.builder import GraphBuilder, dtype_of, rank

_A = -0.75  # coefficient of the cubic convolution (Keys, 1981), as PyTorch and ONNX Runtime have it


@rule("GridSample")
def grid_sample(v: Vjp) -> Gradients:
    """GridSample: each value's gradient to the pixels it was read from, and to the place by the slopes of the weights.

    As in PyTorch, places that were clipped to the border get none, and nearest neighbours give none to any place.
    """
    op, n = v.op, rank(v.x) - 2
    mode = v.attribute("mode", "bilinear").removeprefix("bi")
    sizes = [op.dim(v.x, 2 + axis) for axis in range(n)]
    places = op.Reshape(wide(op, v.input(1)), op.join(op.dim(v.x, 0), _count(v), [n]), allowzero=1)
    axes, slopes = [], []
    for axis, size in enumerate(sizes):
        # The last axis comes first in the grid.
        normalised = op.Gather(places, op.ints(n - 1 - axis), axis=2)
        taps, slope = _taps(v, mode, normalised, op.cast(size, dtype_of(places)))
        axes.append(taps)
        slopes.append(slope)
    to_image = _by_image(v, axes, sizes) if v.wanted[0] else None
    to_grid = _by_grid(v, axes, slopes, sizes) if v.wanted[1] and mode != "nearest" else None
    return [to_image, to_grid]


def _count(v: Vjp) -> ir.Value:
    """Places per image, int64 [1]."""
    return v.op.count(v.y, range(2, rank(v.y)))


def _by_image(v: Vjp, axes: Sequence[Sequence[Tap]], sizes: Sequence[ir.Value]) -> ir.Value:
    op = v.op
    lead = [op.dim(v.x, 0), op.dim(v.x, 1)]
    g = op.Reshape(v.g, op.join(*lead, _count(v)), allowzero=1)
    shape = op.join(*lead, op.count(v.x, range(2, rank(v.x))))
    return op.reshape_like(gradient_by_image(op, axes, sizes, g, shape), v.x)


def _by_grid(
    v: Vjp, axes: Sequence[Sequence[Tap]], slopes: Sequence[ir.Value], sizes: Sequence[ir.Value]
) -> ir.Value:
    op = v.op
    lead = [op.dim(v.x, 0), op.dim(v.x, 1)]
    pixels = op.count(v.x, range(2, rank(v.x)))
    image = op.Reshape(v.x, op.join(*lead, pixels), allowzero=1)
    g = op.Reshape(v.g, op.join(*lead, _count(v)), allowzero=1)
    image, g = (op.Transpose(value, perm=[0, 2, 1]) for value in (image, g))
    gradients = gradient_by_place(op, axes, sizes, image, g)
    columns = [
        op.Unsqueeze(op.Mul(gradient, slope), [2])
        for gradient, slope in zip(gradients, slopes, strict=True)
    ]
    joined = op.Concat(*reversed(columns), axis=2)
    return op.reshape_like(op.cast(joined, dtype_of(v.input(1))), v.input(1))


def _taps(v: Vjp, mode: str, normalised: ir.Value, size: ir.Value) -> tuple[list[Tap], ir.Value]:
    """The taps along one axis at `normalised` places [N, P], and the slope of the coordinate in pixels by those."""
    op = v.op
    align, padding = bool(v.attribute("align_corners", 0)), v.attribute("padding_mode", "zeros")
    span = op.Sub(size, 1.0) if align else size
    slope = op.Div(span, 2.0)
    coordinate = op.Mul(op.Add(normalised, 1.0), slope)
    if not align:
        coordinate = op.Sub(coordinate, 0.5)
    zeros = padding == "zeros"
    if mode == "linear" and not zeros:
        coordinate, turn = _clipped(op, coordinate, size, span, align, padding)
        slope = op.Mul(slope, turn)
    if mode == "linear":
        return linear_taps(op, coordinate, size, zeros=zeros), slope
    found = []
    for position, weight, change in (
        _cubic(op, coordinate) if mode == "cubic" else _nearest(op, coordinate)
    ):
        if padding == "reflection":
            position, _ = _reflected(op, position, span, align)
        found.append(tap(op, position, size, weight, change, zeros=zeros))
    return found, slope


def _clipped(
    op: GraphBuilder,
    coordinate: ir.Value,
    size: ir.Value,
    span: ir.Value,
    align: bool,
    padding: str,
) -> tuple[ir.Value, ir.Value]:
    """The coordinate brought into the image, and its derivative by what it was: 1, -1 (reflected) or 0 (clipped)."""
    turn = op.scalar(1.0, coordinate)
    if padding == "reflection":
        coordinate, turn = _reflected(op, coordinate, span, align)
    zero, last = op.scalar(0.0, coordinate), op.Sub(size, 1.0)
    free = op.And(op.Greater(coordinate, zero), op.Less(coordinate, last))
    return op.Max(op.Min(coordinate, last), zero), op.Where(free, turn, zero)


def _reflected(
    op: GraphBuilder, coordinate: ir.Value, span: ir.Value, align: bool
) -> tuple[ir.Value, ir.Value]:
    """The coordinate reflected at the image's ends until it is within, and 1 or -1: which way it goes then.

    The ends are the centres of the outer pixels if corners are aligned, else their outer edges.
    """
    first = 0.0 if align else -0.5
    # One pixel with aligned corners spans nothing: what comes out is clipped anyway.
    span = op.Max(span, op.scalar(1.0, coordinate))
    beyond = op.Sub(coordinate, first)
    distance = op.Abs(beyond)
    flips = op.Floor(op.Div(distance, span))
    rest = op.Sub(distance, op.Mul(flips, span))
    odd = op.Sub(flips, op.Mul(op.Floor(op.Div(flips, 2.0)), 2.0))
    # Even: the rest itself. Odd: the span less the rest.
    way = op.Sub(op.scalar(1.0, coordinate), op.Mul(odd, 2.0))
    reflected = op.Add(op.Add(op.Mul(odd, span), op.Mul(way, rest)), first)
    negative = op.Less(beyond, op.scalar(0.0, coordinate))
    return reflected, op.Where(negative, op.Neg(way), way)


def _nearest(op: GraphBuilder, coordinate: ir.Value) -> list[tuple[ir.Value, ir.Value, None]]:
    one = op.Add(op.Mul(coordinate, 0.0), 1.0)
    return [(op.Round(coordinate), one, None)]


def _cubic(op: GraphBuilder, coordinate: ir.Value) -> list[tuple[ir.Value, ir.Value, ir.Value]]:
    """Position, weight and slope of the weight of the four taps of cubic convolution."""
    below = op.Floor(coordinate)
    fraction = op.Sub(coordinate, below)
    found = []
    for offset in (-1.0, 0.0, 1.0, 2.0):
        # The kernel is even: by the signed distance its derivative is odd.
        sign = 1.0 if offset <= 0 else -1.0
        distance = op.Mul(op.Sub(fraction, offset), sign)
        if offset in (0.0, 1.0):
            weight = _polynomial(op, distance, [_A + 2, -(_A + 3), 0.0, 1.0])
            change = _polynomial(op, distance, [3 * (_A + 2), -2 * (_A + 3), 0.0])
        else:
            weight = _polynomial(op, distance, [_A, -5 * _A, 8 * _A, -4 * _A])
            change = _polynomial(op, distance, [3 * _A, -10 * _A, 8 * _A])
        position = op.Add(below, offset) if offset else below
        found.append((position, weight, op.Mul(change, sign)))
    return found


def _polynomial(op: GraphBuilder, x: ir.Value, coefficients: Sequence[float]) -> ir.Value:
    """Horner's scheme, highest power first."""
    total = op.Mul(x, coefficients[0])
    for coefficient in coefficients[1:-1]:
        total = op.Mul(op.Add(total, coefficient) if coefficient else total, x)
    return cast("ir.Value", op.Add(total, coefficients[-1]) if coefficients[-1] else total)
