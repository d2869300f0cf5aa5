"""ConvTranspose, the transpose of a convolution: y[i s + k d - pad] = sum of x[i] w[k] over i and k."""

from __future__ import annotations

import onnx_ir as ir

from igonnx.autodiff.builder import dims, rank
from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.autodiff.rules.convolution import extent_at_run_time
from igonnx.autodiff.rules.convolution_weights import padded, weight_gradient


@rule("ConvTranspose")
def conv_transpose(v: Vjp) -> Gradients:
    """ConvTranspose: by its input the convolution it transposes, by its weights that convolution's weight gradient."""
    op, n = v.op, rank(v.x) - 2
    strides = v.attribute("strides") or [1] * n
    dilations = v.attribute("dilations") or [1] * n
    group = v.attribute("group", 1)
    to_x = to_weight = to_bias = None
    if v.wanted[0] or v.wanted[1]:
        pads = _pads(v, strides, dilations)
    if v.wanted[0]:
        g, rest = padded(op, v.g, pads)
        to_x = op.Conv(g, v.input(1), pads=rest, strides=strides, dilations=dilations, group=group)
    if v.wanted[1]:
        to_weight = weight_gradient(op, v.g, v.x, v.input(1), strides, dilations, pads, group)
    if v.optional_input(2) is not None and v.wanted[2]:
        to_bias = op.ReduceSum(v.g, [0, *range(2, 2 + n)], keepdims=0)
    return [to_x, to_weight, to_bias]


def _pads(v: Vjp, strides: list[int], dilations: list[int]) -> list[int | ir.Value]:
    """What was cut off the full output in front of and behind each axis; at run time where sizes are not known."""
    n = len(strides)
    auto_pad = v.attribute("auto_pad", "NOTSET")
    given = v.attribute("output_shape")
    if not given and auto_pad == "NOTSET":
        return list(v.attribute("pads") or [0] * (2 * n))
    if not given and auto_pad == "VALID":
        return [0] * (2 * n)
    extra = v.attribute("output_padding") or [0] * n
    begins: list[int | ir.Value] = []
    ends: list[int | ir.Value] = []
    for axis in range(n):
        known = (dims(v.x)[2 + axis], dims(v.y)[2 + axis], dims(v.input(1))[2 + axis])
        size, output, kernel = (dim if isinstance(dim, int) else None for dim in known)
        total: int | ir.Value
        if size is not None and output is not None and kernel is not None:
            extent = (kernel - 1) * dilations[axis] + 1
            total = max((size - 1) * strides[axis] + extra[axis] + extent - output, 0)
            small: int | ir.Value = total // 2
            large: int | ir.Value = total - total // 2
        else:
            total = _cut_at_run_time(v, axis, strides[axis], dilations[axis], extra[axis])
            small = v.op.Div(total, [2])
            large = v.op.Sub(total, small)
        # As ONNX Runtime has it: only SAME_UPPER cuts more behind than in front.
        begin, end = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
        begins.append(begin)
        ends.append(end)
    return [*begins, *ends]


def _cut_at_run_time(v: Vjp, axis: int, stride: int, dilation: int, extra: int) -> ir.Value:
    """Elements by which the full output of one axis exceeds what the node puts out, int64 [1]."""
    op = v.op
    steps = op.Mul(op.Sub(op.dim(v.x, 2 + axis), [1]), [stride])
    full = op.Add(op.Add(steps, [extra]), extent_at_run_time(v, axis, dilation))
    return op.Max(op.Sub(full, op.dim(v.y, 2 + axis)), [0])  # type: ignore[no-any-return]
