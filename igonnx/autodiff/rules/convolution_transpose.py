"""ConvTranspose, the transpose of a convolution: y[i s + k d - pad] = sum of x[i] w[k] over i and k."""

from __future__ import annotations

import onnx_ir as ir

from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.autodiff.rules.convolution import extent_at_run_time
from igonnx.autodiff.rules.convolution_weights import padded, weight_gradient
from igonnx.graph.builder import dims, rank


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
        output = given[axis] if given else None
        cut = _cut(v, axis, strides[axis], dilations[axis], extra[axis], output)
        small: int | ir.Value
        large: int | ir.Value
        if isinstance(cut, int):
            small, large = cut // 2, cut - cut // 2
        else:
            small = v.op.Div(cut, [2])
            large = v.op.Sub(cut, small)
        # As ONNX Runtime has it: only SAME_UPPER cuts more behind than in front.
        begin, end = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
        begins.append(begin)
        ends.append(end)
    return [*begins, *ends]


def _cut(
    v: Vjp, axis: int, stride: int, dilation: int, extra: int, output: int | None
) -> int | ir.Value:
    """Elements that the full output of one axis has too many; `output` None: for SAME, the input's times the stride.

    Not taken from the output's inferred shape: with output_padding, onnx and ONNX Runtime differ about SAME.
    """
    op = v.op
    size, kernel = dims(v.x)[2 + axis], dims(v.input(1))[2 + axis]
    if isinstance(kernel, int):
        extent = (kernel - 1) * dilation + 1
        if output is None:
            return max(extra + extent - stride, 0)
        if isinstance(size, int):
            return max((size - 1) * stride + extra + extent - output, 0)
    full = op.Add(extent_at_run_time(v, axis, dilation), [extra - stride])
    if output is not None:
        full = op.Add(full, op.Sub(op.Mul(op.dim(v.x, 2 + axis), [stride]), [output]))
    return op.Max(full, [0])  # type: ignore[no-any-return]
