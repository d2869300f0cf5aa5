"""The operator ai.igonnx::ConvGradient, and how it runs in the blocked layout.

    inputs      gradient [N, O, H', W'], weight [O, C / group, kernel, kernel] (constant) and, if the convolution is
                strided or depthwise, its input [N, C, H, W]: float32
    attributes  kernel_shape, strides, dilations, begins, ends (2 each; padding in front and behind), group
    output      the convolution's gradient by its input

It exists only between differentiation and lowering. A depthwise one becomes `DepthwiseGradient`. One of stride 1 is a
convolution with the transposed filter. With stride s, input position h with h + begin = s i + r is reached by the taps
r, r + s, ... only: each remainder r (phase) is a convolution of stride 1 with those taps, and `InterleavePhases` deals
the phases out; no zeros are multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import onnx_ir as ir

from igonnx.native_lowering.filters import (
    Weights,
    blocked_filter,
    depthwise_filter,
    is_depthwise,
    transposed,
)

if TYPE_CHECKING:
    from igonnx.native_lowering.blocked_layout import BlockedLayout

__all__ = ["lower_convolution_gradient"]

NCHWC = "com.microsoft.nchwc"


@dataclass(frozen=True)
class _Phase:
    """One remainder along one axis: every stride-th tap from `first` on, as a convolution of stride 1."""

    first: int
    taps: int
    left: int  # padding of the gradient in front and behind
    right: int
    start: int  # which pixel of the phase the convolution's first output is

    def of(self, flipped: Weights, axis: int, stride: int) -> Weights:
        """The phase's taps of a filter whose taps run backwards along `axis`."""
        size = flipped.shape[axis]
        chosen = [size - 1 - (self.first + stride * j) for j in range(self.taps)][::-1]
        return np.take(flipped, chosen, axis=axis)


def lower_convolution_gradient(layout: BlockedLayout, node: ir.Node) -> ir.Value:
    """Emit `node` in the blocked layout; return the blocked gradient."""
    gradient, weight = (cast("ir.Value", value) for value in node.inputs[:2])
    array = cast("ir.TensorProtocol", weight.const_value).numpy()
    group = node.attributes["group"].as_int()
    kernel, strides, dilations, begins, ends = (
        list(node.attributes[name].as_ints())
        for name in ("kernel_shape", "strides", "dilations", "begins", "ends")
    )
    g = layout.blocked(gradient)
    if strides == [1, 1] and not is_depthwise(array.shape, group):
        reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
        pads = [r - p for r, p in zip(reach * 2, [*begins, *ends], strict=True)]
        return _convolution(layout, g, transposed(array, group), pads, dilations, group)
    image = cast("ir.Value", node.inputs[2])
    if is_depthwise(array.shape, group):
        return cast(
            "ir.Value",
            layout.op.emit(
                "DepthwiseGradient",
                g,
                depthwise_filter(array, layout.block),
                layout.blocked(image),
                domain="ai.igonnx",
                block=layout.block,
                kernel_shape=kernel,
                strides=strides,
                dilations=dilations,
                begins=begins,
            ),
        )
    flipped = transposed(array, group)
    sizes = [_static(image, axis) for axis in (2, 3)]
    outputs = [_static(gradient, axis) for axis in (2, 3)]
    rows, columns = (
        _phases(*case) for case in zip(kernel, strides, begins, sizes, outputs, strict=True)
    )
    phases = [
        _convolution(
            layout,
            g,
            column.of(row.of(flipped, 2, strides[0]), 3, strides[1]),
            [row.left, column.left, row.right, column.right],
            [1, 1],
            group,
        )
        for row in rows
        for column in columns
        if row is not None and column is not None
    ]
    return cast(
        "ir.Value",
        layout.op.emit(
            "InterleavePhases",
            layout.blocked(image),
            *phases,
            domain="ai.igonnx",
            block=layout.block,
            strides=strides,
            begins=begins,
            row_starts=[-1 if phase is None else phase.start for phase in rows],
            column_starts=[-1 if phase is None else phase.start for phase in columns],
        ),
    )


def _convolution(
    layout: BlockedLayout,
    g: ir.Value,
    weight: Weights,
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
) -> ir.Value:
    return cast(
        "ir.Value",
        layout.op.emit(
            "Conv",
            g,
            blocked_filter(weight, layout.block),
            domain=NCHWC,
            kernel_shape=list(weight.shape[2:]),
            pads=list(pads),
            dilations=list(dilations),
            strides=[1, 1],
            group=group,
        ),
    )


def _phases(
    kernel: int, stride: int, begin: int, size: int | None, outputs: int | None
) -> list[_Phase | None]:
    """The phases of one axis by remainder; None for one that no tap reaches."""
    found: list[_Phase | None] = []
    for remainder in range(stride):
        taps = -(-(kernel - remainder) // stride)
        if taps <= 0:
            found.append(None)
            continue
        # Output i of the phase sums the gradients i - taps + 1 to i.
        first = -(-(begin - remainder) // stride)
        left = max(taps - 1 - first, 0)
        start = taps - 1 - left
        right = taps - 1
        if size is not None and outputs is not None:
            last = (size - 1 + begin - remainder) // stride
            right = min(max(last - outputs + 1, 0), right)
        found.append(_Phase(remainder, taps, left, right, start))
    return found


def _static(value: ir.Value, axis: int) -> int | None:
    if value.shape is None:
        return None
    size = value.shape[axis]
    return size if isinstance(size, int) else None
