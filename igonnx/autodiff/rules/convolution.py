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
from typing import Any, cast

import onnx_ir as ir

from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.autodiff.rules.convolution_weights import weight_gradient
from igonnx.graph.builder import GraphBuilder, dims, rank
from igonnx.graph.node_view import constant_of
from igonnx.native_lowering.filters import fits, is_depthwise

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
    if min([*strides, *dilations, v.attribute("group", 1)], default=1) < 1:
        raise v.unsupported("strides, dilations or groups below 1")
    if len(strides) != n or len(dilations) != n or len(pads) != 2 * n:
        raise v.unsupported(f"strides, dilations or pads of other than {n} axes")
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
            begin, end = _same_padding(v, dims(v.x)[2 + i], extent, strides[i])
        found.append(Window(kernel[i], strides[i], dilations[i], begin, end))
    return found


def _same_padding(
    v: Vjp, size: int | str | None, extent: int, stride: int
) -> tuple[int | None, int | None]:
    known = isinstance(size, int)
    total = (math.ceil(size / stride) - 1) * stride + extent - size if known else extent - stride  # type: ignore[operator]
    if total < -1:
        raise v.unsupported(
            f"{v.attribute('auto_pad')} with strides so far beyond the kernel that the padding is negative: "
            "ONNX Runtime takes that differently for each operator"
        )
    if not known:
        return None, None
    total = max(total, 0)
    small, large = total // 2, total - total // 2
    return (small, large) if v.attribute("auto_pad") == "SAME_UPPER" else (large, small)


def begin_at_run_time(v: Vjp, axis: int, window: Window) -> ir.Value:
    """Leading padding of one axis, int64 [1], for SAME padding of a size known at run time."""
    return same_padding_at_run_time(v, axis, window.stride, v.op.ints([window.extent]))[0]


def same_padding_at_run_time(
    v: Vjp, axis: int, stride: int, extent: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """Padding before and behind one axis, int64 [1] each, of a kernel that spans `extent` elements."""
    op = v.op
    size = op.dim(v.x, 2 + axis)
    outputs = op.dim(v.y, 2 + axis)
    covered = op.Add(op.Mul(op.Sub(outputs, [1]), [stride]), extent)
    total = op.Max(op.Sub(covered, size), [0])
    small = op.Div(total, [2])
    large = op.Sub(total, small)
    return (small, large) if v.attribute("auto_pad") == "SAME_UPPER" else (large, small)


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
    if _runs_blocked(v, weight, sliding, group):
        return _left_to_lowering(v, g, weight, sliding, group)
    if _is_stem(v, weight, sliding, group):
        return _emitted_natively(v, "StemGradient", [g, weight, v.x], sliding)
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
    if any(window.stride > 1 for window in sliding):
        channels = _scaled(op, op.dim(weight, 1), group)
        result = _interleave(op, result, channels, sliding, phases)
    exact = [
        _is_exact(*case) for case in zip(sliding, phases, left, right, sizes, outputs, strict=True)
    ]
    return result if all(exact) else _cropped(v, result, sliding, left)


def _runs_blocked(v: Vjp, weight: ir.Value, sliding: Sequence[Window], group: int) -> bool:
    """Whether the runtime's blocked layout has the operators for this gradient (igonnx.native_lowering)."""
    target = v.op.native
    if target is None or target.block == 1 or v.x.dtype != ir.DataType.FLOAT or len(sliding) != 2:
        return False
    if v.op.graph is not v.op.model.graph:
        return False  # lowering leaves the bodies of If, Loop and Scan alone
    constant = constant_of(weight)
    if constant is None:
        return False
    shape = constant.shape.numpy()
    pads = [pad for window in sliding for pad in (window.begin, window.end)]
    if not fits(shape, group, target.block) or any(pad is None or pad < 0 for pad in pads):
        return False
    if is_depthwise(shape, group):
        return True
    if all(window.stride == 1 for window in sliding):
        return all(max(w.begin or 0, w.end or 0) < w.extent for w in sliding)
    return all(window.dilation == 1 for window in sliding)


def _is_stem(v: Vjp, weight: ir.Value, sliding: Sequence[Window], group: int) -> bool:
    """Whether the plugin has an operator for it: a convolution of an image with very few channels."""
    if v.op.native is None or v.x.dtype != ir.DataType.FLOAT or len(sliding) != 2 or group != 1:
        return False
    inputs = dims(weight)[1]
    few = isinstance(inputs, int) and 1 <= inputs <= 4
    return few and all(window.begin is not None and window.begin >= 0 for window in sliding)


def _left_to_lowering(
    v: Vjp, g: ir.Value, weight: ir.Value, sliding: Sequence[Window], group: int
) -> ir.Value:
    depthwise = is_depthwise(cast("Sequence[int]", dims(weight)), group)
    dense = all(window.stride == 1 for window in sliding) and not depthwise
    # Where it does not need the input, a use of it would only keep its memory.
    inputs = [g, weight] if dense else [g, weight, v.x]
    ends = [window.end or 0 for window in sliding]
    return _emitted_natively(v, "ConvGradient", inputs, sliding, ends=ends, group=group)


def _emitted_natively(
    v: Vjp, operator: str, inputs: Sequence[ir.Value], sliding: Sequence[Window], **attributes: Any
) -> ir.Value:
    result = v.op.emit(
        operator,
        *inputs,
        domain="ai.igonnx",
        kernel_shape=[window.kernel for window in sliding],
        strides=[window.stride for window in sliding],
        dilations=[window.dilation for window in sliding],
        begins=[window.begin or 0 for window in sliding],
        **attributes,
    )
    result.shape, result.type = v.x.shape, v.x.type
    if inputs[0].shape is None:
        inputs[0].shape = v.y.shape
    return cast("ir.Value", result)


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
    n, inputs = len(sliding), op.dim(weight, 1)
    outputs = _scaled(op, op.dim(weight, 0), 1, group)
    kernel = _spread(op, weight, sliding) if _needs_spreading(sliding) else weight
    before = [phase.shift for phase in phases]
    after = [
        phase.phases * phase.taps - phase.shift - (w.extent if w.stride > 1 else w.kernel)
        for phase, w in zip(phases, sliding, strict=True)
    ]
    if any(before) or any(after):
        kernel = op.Pad(kernel, [0, 0, *before, 0, 0, *after])
    split = [part for phase in phases for part in (phase.taps, phase.phases)]
    kernel = op.Reshape(kernel, op.join([group], outputs, inputs, split))
    taps, dealt = [3 + 2 * i for i in range(n)], [4 + 2 * i for i in range(n)]
    kernel = op.Transpose(kernel, perm=[0, 2, *dealt, 1, *taps])
    channels = _scaled(op, inputs, group * math.prod(phase.phases for phase in phases))
    kernel = op.Reshape(kernel, op.join(channels, outputs, [phase.taps for phase in phases]))
    flipped = [2 + i for i, phase in enumerate(phases) if phase.taps > 1]
    if flipped:
        count = len(flipped)
        kernel = op.Slice(kernel, [-1] * count, [_INT64_MIN] * count, flipped, [-1] * count)
    return cast("ir.Value", kernel)


def _scaled(op: GraphBuilder, size: ir.Value, times: int, over: int = 1) -> ir.Value:
    """`size` times `times` / `over`, int64 [1]; a constant where `size` is one."""
    if size.const_value is not None:
        return op.ints([int(size.const_value.numpy()[0]) * times // over])
    size = size if times == 1 else op.Mul(size, [times])
    return size if over == 1 else cast("ir.Value", op.Div(size, [over]))


def _needs_spreading(sliding: Sequence[Window]) -> bool:
    return any(
        window.stride > 1 and window.dilation > 1 and window.kernel > 1 for window in sliding
    )


def _spread(op: GraphBuilder, weight: ir.Value, sliding: Sequence[Window]) -> ir.Value:
    """The kernel with its dilation written out as zeros, along the axes that are strided."""
    channels = op.join(op.dim(weight, 0), op.dim(weight, 1))
    steps = [window.dilation if window.stride > 1 else 1 for window in sliding]
    apart = [part for window in sliding for part in (window.kernel, 1)]
    zeros = [part for step in steps for part in (0, step - 1)]
    spread = op.Reshape(weight, op.join(channels, apart))
    spread = op.Pad(spread, [0] * (2 + len(apart)) + [0, 0, *zeros])
    joined = [window.kernel * step for window, step in zip(sliding, steps, strict=True)]
    spread = op.Reshape(spread, op.join(channels, joined))
    ends = [w.extent if w.stride > 1 else w.kernel for w in sliding]
    return cast(
        "ir.Value", op.Slice(spread, [0] * len(ends), ends, [2 + i for i in range(len(ends))])
    )


def _interleave(
    op: GraphBuilder,
    value: ir.Value,
    channels: ir.Value,
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
    apart = op.Reshape(value, op.join(batch, channels, active, *lengths))
    if active != strides:
        missing = [stride - phase for stride, phase in zip(strides, active, strict=True)]
        apart = op.Pad(apart, [0] * (2 + 2 * n) + [0, 0, *missing, *([0] * n)])
    perm = [0, 1] + [axis for i in range(n) for axis in (2 + n + i, 2 + i)]
    apart = op.Transpose(apart, perm=perm)
    spans = [op.Mul(length, [stride]) for length, stride in zip(lengths, strides, strict=True)]
    return cast("ir.Value", op.Reshape(apart, op.join(batch, channels, *spans)))


@rule("Conv")
def conv(v: Vjp) -> Gradients:
    """Conv with groups, strides, dilations and any padding; by its input, its weights and its bias."""
    kernel, group = _kernel_shape(v), v.attribute("group", 1)
    to_x = to_weight = to_bias = None
    if v.wanted[0] and kernel is not None:
        to_x = input_gradient(v, v.g, v.input(1), windows(v, kernel), group)
    elif v.wanted[0]:
        to_x = _input_gradient_at_run_time(v, group)
    if v.wanted[1]:
        to_weight = _weight_gradient(v, kernel, group)
    if v.optional_input(2) is not None and v.wanted[2]:
        to_bias = v.op.ReduceSum(v.g, [0, *range(2, rank(v.y))], keepdims=0)
    return [to_x, to_weight, to_bias]


def _kernel_shape(v: Vjp) -> list[int] | None:
    """The spatial sizes of the weights, or None where they are known at run time only."""
    sizes = v.attribute("kernel_shape") or list(dims(v.input(1))[2:])
    return sizes if all(isinstance(size, int) for size in sizes) else None


def _weight_gradient(v: Vjp, kernel: list[int] | None, group: int) -> ir.Value:
    n = rank(v.x) - 2
    strides = v.attribute("strides") or [1] * n
    dilations = v.attribute("dilations") or [1] * n
    begins, ends = _paddings(v, kernel)
    return weight_gradient(v.op, v.x, v.g, v.input(1), strides, dilations, [*begins, *ends], group)


def _paddings(
    v: Vjp, kernel: list[int] | None
) -> tuple[list[int | ir.Value], list[int | ir.Value]]:
    """Padding before and behind each spatial axis: integers, or int64 [1] values where known at run time only."""
    n = rank(v.x) - 2
    sliding = windows(v, kernel or [1] * n)
    if v.attribute("auto_pad", "NOTSET") in ("NOTSET", "VALID"):
        return [w.begin or 0 for w in sliding], [w.end or 0 for w in sliding]
    begins: list[int | ir.Value] = []
    ends: list[int | ir.Value] = []
    for axis, window in enumerate(sliding):
        begin: int | ir.Value | None = window.begin
        end: int | ir.Value | None = window.end
        if kernel is None or begin is None or end is None:
            begin, end = same_padding_at_run_time(
                v, axis, window.stride, extent_at_run_time(v, axis, window.dilation)
            )
        begins.append(begin)
        ends.append(end)
    return begins, ends


def extent_at_run_time(v: Vjp, axis: int, dilation: int) -> ir.Value:
    """Elements that the node's weights span along one spatial axis, int64 [1]."""
    op = v.op
    taps = op.Sub(op.dim(v.input(1), 2 + axis), [1])
    return cast("ir.Value", op.Add(op.Mul(taps, [dilation]), [1]))


def _input_gradient_at_run_time(v: Vjp, group: int) -> ir.Value:
    """The input's gradient for a kernel whose size is not known: the transposed convolution, cut to the input."""
    op, n = v.op, rank(v.x) - 2
    given = {name: v.attribute(name) for name in ("strides", "dilations") if v.attribute(name)}
    whole = op.ConvTranspose(v.g, v.input(1), group=group, **given)
    begins, _ = _paddings(v, None)
    begin = op.join(*(op.ints([b]) if isinstance(b, int) else b for b in begins))
    end = op.Add(begin, op.join(*(op.dim(v.x, 2 + i) for i in range(n))))
    # What no window reaches lies behind it.
    rest = op.Max(op.Sub(end, op.Slice(op.Shape(whole), [2], [2 + n])), [0])
    padded = op.Pad(whole, op.join([0] * (4 + n), rest))
    return cast("ir.Value", op.Slice(padded, begin, end, list(range(2, 2 + n))))
