"""The gradient of a convolution by its weights: itself a convolution, over the batch.

With stride s and dilation d, dW[o, c, k] = sum over examples n and positions p of g[n, o, p] x[n, c, p s + k d - pad].
Read with k as the position and p as the tap, it convolves x, whose channels have become the batch, with the kernel g,
whose examples have become the channels; stride and dilation change places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder, dims

__all__ = ["padded", "weight_gradient"]


def weight_gradient(
    op: GraphBuilder,
    signal: ir.Value,
    response: ir.Value,
    weight: ir.Value,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int | ir.Value],
    group: int,
) -> ir.Value:
    """Gradient of `weight` [O, C / group, K...], which slides over `signal` [N, C, S...] to a `response` [N, O, P...].

    `pads` are those of the signal, first all in front and then all behind; at least as many as the windows reach.
    """
    n = len(strides)
    swapped = [1, 0, *range(2, 2 + n)]
    rows = op.Transpose(signal, perm=swapped) if group == 1 else _grouped(op, signal, weight, group)
    rows, pads = padded(op, rows, pads)
    result = op.Conv(
        rows,
        op.Transpose(response, perm=swapped),
        pads=pads,
        strides=list(dilations),
        dilations=list(strides),
        group=group,
    )
    if any(stride > 1 for stride in strides):
        # A rest that no window reaches would show as taps behind the last one.
        ends = op.join(*(op.dim(weight, 2 + i) for i in range(n)))
        result = op.Slice(result, [0] * n, ends, list(range(2, 2 + n)))
    return cast("ir.Value", op.Transpose(result, perm=swapped))


def _grouped(op: GraphBuilder, signal: ir.Value, weight: ir.Value, group: int) -> ir.Value:
    """`signal` [N, C, S...] as [C / group, group * N, S...]: one group of channels per group of examples."""
    n = len(dims(signal)) - 2
    batch, channels = op.dim(signal, 0), op.dim(weight, 1)
    sizes = [op.dim(signal, 2 + i) for i in range(n)]
    apart = op.Reshape(signal, op.join(batch, [group], channels, *sizes), allowzero=1)
    apart = op.Transpose(apart, perm=[2, 1, 0, *range(3, 3 + n)])
    examples = dims(signal)[0]
    rows = op.ints([examples * group]) if isinstance(examples, int) else op.Mul(batch, [group])
    return cast("ir.Value", op.Reshape(apart, op.join(channels, rows, *sizes), allowzero=1))


def padded(
    op: GraphBuilder, value: ir.Value, pads: Sequence[int | ir.Value]
) -> tuple[ir.Value, list[int]]:
    """`value` [N, C, S...] and the pads a Conv should add to it: none where Pad has added them at run time."""
    if all(isinstance(pad, int) for pad in pads):
        return value, cast("list[int]", list(pads))
    n = len(pads) // 2
    sizes = [op.ints([pad]) if isinstance(pad, int) else pad for pad in pads]
    return op.Pad(value, op.join([0, 0], *sizes[:n], [0, 0], *sizes[n:])), [0] * (2 * n)
