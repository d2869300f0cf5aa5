"""BatchNormalization (Ioffe and Szegedy, arXiv:1502.03167), with statistics that are given or the batch's own."""

from __future__ import annotations

import onnx_ir as ir

from igonnx.autodiff.broadcasting import broadcast_to
from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.autodiff.rules.normalization import accumulator, normalized_gradient, per_channel
from igonnx.graph.builder import dtype_of, rank


@rule("BatchNormalization")
def batch_normalization(v: Vjp) -> Gradients:
    """BatchNormalization, y = (x - mean) scale / sqrt(variance + epsilon) + bias per channel."""
    if v.attribute("training_mode", 0):
        return _by_own_statistics(v)
    op, scale, variance = v.op, v.input(1), v.input(4)
    to_x = None
    if v.wanted[0]:
        deviation = op.Sqrt(op.Add(variance, v.attribute("epsilon", 1e-5)))
        slope = op.Div(op.cast(scale, dtype_of(variance)), deviation)
        to_x = op.Mul(v.g, op.cast(per_channel(op, slope, rank(v.x)), dtype_of(v.x)))
    return [to_x, *(_by_parameters(v) if any(v.wanted[1:]) else [None] * 4)]


def _by_parameters(v: Vjp) -> list[ir.Value | None]:
    """Gradients by scale, bias, mean and variance, with i = 1 / sqrt(variance + epsilon).

    Over all elements of a channel: i sum(g (x - mean)), sum(g), -i scale sum(g), -i^3 scale sum(g (x - mean)) / 2.
    """
    op, x = v.op, v.x
    precise = accumulator(dtype_of(x))
    g = op.cast(v.g, precise)
    axes = [0, *range(2, rank(x))]
    scale, mean, variance = (op.cast(v.input(index), precise) for index in (1, 3, 4))
    inverse = op.Reciprocal(op.Sqrt(op.Add(variance, v.attribute("epsilon", 1e-5))))
    found: list[ir.Value | None] = [None] * 4
    if v.wanted[2] or v.wanted[3]:
        total = op.ReduceSum(g, axes, keepdims=0)
        if v.wanted[2]:
            found[1] = total
        if v.wanted[3]:
            found[2] = op.Neg(op.Mul(op.Mul(total, scale), inverse))
    if v.wanted[1] or v.wanted[4]:
        centred = op.Sub(op.cast(x, precise), per_channel(op, mean, rank(x)))
        along = op.Mul(op.ReduceSum(op.Mul(g, centred), axes, keepdims=0), inverse)
        if v.wanted[1]:
            found[0] = along
        if v.wanted[4]:
            cube = op.Mul(op.Mul(inverse, inverse), op.Mul(scale, along))
            found[3] = op.Mul(cube, -0.5)
    return [
        None if value is None else op.cast(value, dtype_of(v.input(1 + index)))
        for index, value in enumerate(found)
    ]


def _by_own_statistics(v: Vjp) -> Gradients:
    """Training mode: the batch's mean and variance depend on x, and so do the running ones that are put out."""
    op, x = v.op, v.x
    precise = accumulator(dtype_of(x))
    wide, axes = op.cast(x, precise), [0, *range(2, rank(x))]
    centred = op.Sub(wide, op.reduce("ReduceMean", wide, axes))
    variance = op.reduce("ReduceMean", op.Mul(centred, centred), axes)
    inverse = op.Reciprocal(op.Sqrt(op.Add(variance, v.attribute("epsilon", 1e-5))))
    terms, found = _by_running_statistics(v, centred, axes)
    if v.gradients[0] is not None:
        g, normalized = op.cast(v.g, precise), op.Mul(centred, inverse)
        if v.wanted[0]:
            h = op.Mul(g, per_channel(op, op.cast(v.input(1), precise), rank(x)))
            terms.append(normalized_gradient(op, h, normalized, inverse, axes))
        if v.wanted[1]:
            found[1] = op.ReduceSum(op.Mul(g, normalized), axes, keepdims=0)
        if v.wanted[2]:
            found[2] = op.ReduceSum(g, axes, keepdims=0)
    if v.wanted[0]:
        found[0] = terms[0] if len(terms) == 1 else op.Sum(*terms)
    return [
        None if value is None else op.cast(value, dtype_of(v.input(index)))
        for index, value in enumerate(found)
    ]


def _by_running_statistics(
    v: Vjp, centred: ir.Value, axes: list[int]
) -> tuple[list[ir.Value], list[ir.Value | None]]:
    """What the outputs `momentum given + (1 - momentum) batch` pass to x, in terms to add up, and to each input.

    d mean/dx = 1 / n and d variance/dx = 2 (x - mean) / n for n elements per channel.
    """
    op, momentum, precise = v.op, v.attribute("momentum", 0.9), dtype_of(centred)
    terms: list[ir.Value] = []
    found: list[ir.Value | None] = [None] * 5
    for output, gradient in enumerate(v.gradients[1:3], start=1):
        if gradient is None:
            continue
        wide = op.cast(gradient, precise)
        if v.wanted[output + 2]:
            found[output + 2] = op.Mul(wide, momentum)
        if v.wanted[0]:
            count = op.cast(op.count(v.x, axes), precise)
            share = per_channel(op, op.Div(op.Mul(wide, 1 - momentum), count), rank(v.x))
            mean = output == 1
            terms.append(
                broadcast_to(op, share, v.x) if mean else op.Mul(op.Mul(centred, 2.0), share)
            )
    return terms, found
