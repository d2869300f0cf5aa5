"""Convolutions. The input gradient of a strided convolution is one dense convolution, then an interleaving.

For stride s the input positions fall into s phases; those of one phase see only every s-th tap of the kernel. So the
gradient of all phases is a stride-1 convolution of the incoming gradient with the flipped kernel, whose taps are
dealt out to s times as many channels, followed by a depth-to-space step. No zeros are multiplied, unlike with
ConvTranspose formulated by zero insertion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import onnx_ir as ir

from igonnx.autodiff.builder import GraphBuilder, dims, rank, static_shape
from igonnx.autodiff.registry import Gradients, Vjp, rule

_INT64_MIN = -(2**63)


@dataclass(frozen=True)
class Window:
    """How a kernel slides along one spatial axis. `begin` and `end` are None when only known at run time."""

    kernel: int
    stride: int
    dilation: int
    begin: int | None
    end: int | None

    @property
    def extent(self) -> int:
        """Elements from the first tap to the last, inclusive."""
        return (self.kernel - 1) * self.dilation + 1


def windows(v: Vjp, kernel: Sequence[int]) -> list[Window]:
    """The windows of a Conv or pooling node, one per spatial axis, from its attributes and static sizes."""
    n = len(kernel)
    strides = v.attribute("strides") or [1] * n
    dilations = v.attribute("dilations") or [1] * n
    pads = v.attribute("pads") or [0] * (2 * n)
    auto_pad = v.attribute("auto_pad", "NOTSET")
    found = []
    for i in range(n):
        begin: int | None
        end: int | None
        if auto_pad == "NOTSET":
            begin, end = pads[i], pads[n + i]
        elif auto_pad == "VALID":
            begin, end = 0, 0
        else:
            extent = (kernel[i] - 1) * dilations[i] + 1
            begin, end = _same_padding(dims(v.x)[2 + i], extent, strides[i], auto_pad)
        found.append(Window(kernel[i], strides[i], dilations[i], begin, end))
    return found


def _same_padding(
    size: int | str | None, extent: int, stride: int, auto_pad: str
) -> tuple[int | None, int | None]:
    if not isinstance(size, int):
        return None, None
    total = max((math.ceil(size / stride) - 1) * stride + extent - size, 0)
    small, large = total // 2, total - total // 2
    return (small, large) if auto_pad == "SAME_UPPER" else (large, small)


def begin_at_run_time(v: Vjp, axis: int, window: Window) -> ir.Value:
    """Leading padding of one axis, int64 [1], for SAME padding of a size known at run time."""
    op = v.op
    size = op.dim(v.x, 2 + axis)
    outputs = op.dim(v.y, 2 + axis)
    covered = op.Add(op.Mul(op.Sub(outputs, [1]), [window.stride]), [window.extent])
    total = op.Max(op.Sub(covered, size), [0])
    half = op.Div(total, [2])
    return cast(
        "ir.Value", half if v.attribute("auto_pad") == "SAME_UPPER" else op.Sub(total, half)
    )


@dataclass(frozen=True)
class _Phases:
    """One axis of the backward convolution: `phases` output channels per tap group, `taps` taps each."""

    shift: int  # zeros in front of the kernel, so that the first wanted position is in phase 0
    phases: int
    taps: int
    dilation: int
    first: int  # index of the first wanted position, in strides

    @property
    def reach(self) -> int:
        return (self.taps - 1) * self.dilation


def _phases(window: Window) -> _Phases:
    if window.stride == 1:
        return _Phases(0, 1, window.kernel, window.dilation, window.begin or 0)
    shift = 0 if window.begin is None else -window.begin % window.stride
    length = window.extent + shift
    first = 0 if window.begin is None else (window.begin + shift) // window.stride
    if length <= window.stride:
        return _Phases(shift, length, 1, 1, first)
    return _Phases(shift, window.stride, math.ceil(length / window.stride), 1, first)


def input_gradient(
    v: Vjp, g: ir.Value, weight: ir.Value, sliding: Sequence[Window], group: int
) -> ir.Value:
    """Gradient of a convolution by its input `v.x` [N, C, ...]; `g` [N, O, ...], `weight` [O, C / group, ...]."""
    op = v.op
    phases = [_phases(window) for window in sliding]
    kernel = _backward_kernel(op, weight, sliding, phases, group)
    sizes, outputs = dims(v.x)[2:], dims(v.y)[2:]
    left = [phase.reach - phase.first for phase in phases]
    right = [
        _trailing_padding(window, phase, size, output)
        for window, phase, size, output in zip(sliding, phases, sizes, outputs, strict=True)
    ]
    result = op.Conv(
        g,
        kernel,
        pads=[max(pad, 0) for pad in [*left, *right]],
        dilations=[phase.dilation for phase in phases],
        group=group,
        kernel_shape=[phase.taps for phase in phases],
    )
    channels = cast("tuple[int, ...]", static_shape(weight))[1] * group
    if any(window.stride > 1 for window in sliding):
        result = _interleave(op, result, channels, sliding, phases)
    exact = [
        _is_exact(*case) for case in zip(sliding, phases, left, right, sizes, outputs, strict=True)
    ]
    return result if all(exact) else _cropped(v, result, sliding, left)


def _trailing_padding(
    window: Window, phase: _Phases, size: int | str | None, outputs: int | str | None
) -> int:
    """Padding behind `g` so that every wanted position is produced; negative where `g` reaches further than that."""
    if isinstance(size, int) and isinstance(outputs, int) and window.begin is not None:
        return math.ceil(size / window.stride) - outputs + phase.first
    # outputs * stride >= size + begin + end - extent + 1, whatever the size
    return math.ceil((window.extent - 1 + phase.shift - (window.end or 0)) / window.stride)


def _is_exact(
    window: Window,
    phase: _Phases,
    left: int,
    right: int,
    size: int | str | None,
    outputs: int | str | None,
) -> bool:
    """Whether the convolution yields just the wanted positions, with nothing to crop."""
    if left < 0 or right < 0 or window.begin is None:
        return False
    if isinstance(size, int) and isinstance(outputs, int):
        return (outputs + left + right - phase.reach) * window.stride == size
    return window.stride == 1


def _cropped(v: Vjp, result: ir.Value, sliding: Sequence[Window], left: Sequence[int]) -> ir.Value:
    """The part of `result` that lies over `v.x`."""
    op, axes = v.op, list(range(2, rank(v.x)))
    starts = []
    for axis, window in enumerate(sliding):
        if window.begin is None:
            starts.append(begin_at_run_time(v, axis, window))
        else:
            starts.append(op.ints([max(-left[axis], 0) * window.stride]))
    start = op.join(*starts)
    size = op.join(*(op.dim(v.x, axis) for axis in axes))
    constant = start.const_value is not None and size.const_value is not None
    end = (
        op.ints((start.const_value.numpy() + size.const_value.numpy()).tolist())  # type: ignore[union-attr]
        if constant
        else op.Add(start, size)
    )
    return cast("ir.Value", op.Slice(result, start, end, axes))


def _backward_kernel(
    op: GraphBuilder,
    weight: ir.Value,
    sliding: Sequence[Window],
    phases: Sequence[_Phases],
    group: int,
) -> ir.Value:
    """The kernel of the backward convolution, [group * C/group * phases, O/group, taps...], as graph nodes.

    The runtime folds them when the weights are constant; the file holds each weight once.
    """
    shape = cast("tuple[int, ...]", static_shape(weight))
    outputs, inputs, n = shape[0], shape[1], len(sliding)
    kernel = _spread(op, weight, sliding) if _needs_spreading(sliding) else weight
    before = [phase.shift for phase in phases]
    after = [
        phase.phases * phase.taps - phase.shift - (w.extent if w.stride > 1 else w.kernel)
        for phase, w in zip(phases, sliding, strict=True)
    ]
    if any(before) or any(after):
        kernel = op.Pad(kernel, [0, 0, *before, 0, 0, *after])
    split = [part for phase in phases for part in (phase.taps, phase.phases)]
    kernel = op.Reshape(kernel, [group, outputs // group, inputs, *split])
    taps, dealt = [3 + 2 * i for i in range(n)], [4 + 2 * i for i in range(n)]
    kernel = op.Transpose(kernel, perm=[0, 2, *dealt, 1, *taps])
    channels = group * inputs * math.prod(phase.phases for phase in phases)
    kernel = op.Reshape(kernel, [channels, outputs // group, *(phase.taps for phase in phases)])
    flipped = [2 + i for i, phase in enumerate(phases) if phase.taps > 1]
    if flipped:
        count = len(flipped)
        kernel = op.Slice(kernel, [-1] * count, [_INT64_MIN] * count, flipped, [-1] * count)
    return cast("ir.Value", kernel)


def _needs_spreading(sliding: Sequence[Window]) -> bool:
    return any(
        window.stride > 1 and window.dilation > 1 and window.kernel > 1 for window in sliding
    )


def _spread(op: GraphBuilder, weight: ir.Value, sliding: Sequence[Window]) -> ir.Value:
    """The kernel with its dilation written out as zeros, along the axes that are strided."""
    shape = cast("tuple[int, ...]", static_shape(weight))
    steps = [window.dilation if window.stride > 1 else 1 for window in sliding]
    apart = [part for window in sliding for part in (window.kernel, 1)]
    zeros = [part for step in steps for part in (0, step - 1)]
    spread = op.Reshape(weight, [*shape[:2], *apart])
    spread = op.Pad(spread, [0] * (2 + len(apart)) + [0, 0, *zeros])
    joined = [window.kernel * step for window, step in zip(sliding, steps, strict=True)]
    spread = op.Reshape(spread, [*shape[:2], *joined])
    ends = [w.extent if w.stride > 1 else w.kernel for w in sliding]
    return cast(
        "ir.Value", op.Slice(spread, [0] * len(ends), ends, [2 + i for i in range(len(ends))])
    )


def _interleave(
    op: GraphBuilder,
    value: ir.Value,
    channels: int,
    sliding: Sequence[Window],
    phases: Sequence[_Phases],
) -> ir.Value:
    """Deal the phase channels of `value` [N, C * phases, Q...] out in space: [N, C, Q * stride, ...]."""
    n = len(sliding)
    strides = [window.stride for window in sliding]
    active = [phase.phases for phase in phases]
    if n == 2 and strides[0] == strides[1] and active == strides:
        return cast("ir.Value", op.DepthToSpace(value, blocksize=strides[0], mode="CRD"))
    size = op.Shape(value)
    size.shape = ir.Shape([2 + n])
    batch = op.Slice(size, [0], [1])
    lengths = [op.Slice(size, [2 + i], [3 + i]) for i in range(n)]
    apart = op.Reshape(value, op.join(batch, [channels, *active], *lengths))
    if active != strides:
        missing = [stride - phase for stride, phase in zip(strides, active, strict=True)]
        apart = op.Pad(apart, [0] * (2 + 2 * n) + [0, 0, *missing, *([0] * n)])
    perm = [0, 1] + [axis for i in range(n) for axis in (2 + n + i, 2 + i)]
    apart = op.Transpose(apart, perm=perm)
    spans = [op.Mul(length, [stride]) for length, stride in zip(lengths, strides, strict=True)]
    return cast("ir.Value", op.Reshape(apart, op.join(batch, [channels], *spans)))


@rule("Conv")
def conv(v: Vjp) -> Gradients:
    """Conv with groups, strides, dilations and any padding; by its input and its bias."""
    weight = v.input(1)
    shape = static_shape(weight)
    if v.wanted[1]:
        raise v.unsupported("the weights of Conv, which depend on what is explained here")
    if shape is None:
        raise v.unsupported("weights of unknown shape")
    to_x = to_bias = None
    if v.wanted[0]:
        to_x = input_gradient(v, v.g, weight, windows(v, shape[2:]), v.attribute("group", 1))
    if v.optional_input(2) is not None and v.wanted[2]:
        axes = [0, *range(2, rank(v.y))]
        to_bias = v.op.ReduceSum(v.g, axes, keepdims=0)
    return [to_x, None, to_bias]


@rule("ConvTranspose")
def conv_transpose(v: Vjp) -> Gradients:
    """ConvTranspose: its input gradient is the convolution it transposes."""
    shape = static_shape(v.input(1))
    if any(v.wanted[1:]):
        raise v.unsupported("the weights or bias of ConvTranspose")
    if (
        shape is None
        or v.attribute("auto_pad", "NOTSET") != "NOTSET"
        or v.attribute("output_shape")
    ):
        raise v.unsupported("ConvTranspose with auto_pad, output_shape or weights of unknown shape")
    names = ("strides", "dilations", "pads", "group")
    given = {name: v.attribute(name) for name in names if v.attribute(name) is not None}
    return [v.op.Conv(v.g, v.input(1), **given), None, None]
