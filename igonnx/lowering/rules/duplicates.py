"""Operators of com.microsoft that the standard has, too, or that are a few of its operators."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import onnx_ir as ir

from igonnx.graph.builder import dtype_of, rank
from igonnx.graph.node_view import NodeView
from igonnx.lowering.registry import Lowered, lowering

MICROSOFT = "com.microsoft"


@lowering("ExpandDims", domain=MICROSOFT)
def expand_dims(n: NodeView) -> Lowered:
    """Unsqueeze; a negative axis counts the axes of the result."""
    axis = n.op.Reshape(n.op.Cast(n.input(1), to=int(ir.DataType.INT64)), [-1])
    return [n.op.Unsqueeze(n.x, _constant_or(n, 1, axis))]


def _constant_or(n: NodeView, index: int, value: ir.Value) -> Any:
    known = n.constant(index)
    return value if known is None else [int(i) for i in known.reshape(-1)]


@lowering("GatherND", domain=MICROSOFT)
def gather_nd(n: NodeView) -> Lowered:
    """GatherND without batch axes."""
    return [n.op.GatherND(n.x, n.op.Cast(n.input(1), to=int(ir.DataType.INT64)))]


@lowering("Trilu", domain=MICROSOFT)
def trilu(n: NodeView) -> Lowered:
    """Trilu."""
    return [n.op.Trilu(n.x, n.optional_input(1), upper=n.attribute("upper", 1))]


@lowering("Pad", domain=MICROSOFT)
def pad(n: NodeView) -> Lowered:
    """Pad; its amounts may be [1, 2 r], its value [1]."""
    value = n.optional_input(2)
    if value is not None:
        value = n.op.Reshape(value, np.zeros(0, np.int64))
    amounts = n.op.Reshape(n.input(1), [-1])
    known = n.constant(1)
    if known is not None:
        amounts = n.op.ints([int(i) for i in known.reshape(-1)])
    return [n.op.Pad(n.x, amounts, value, mode=n.attribute("mode", "constant"))]


@lowering("GridSample", domain=MICROSOFT)
def grid_sample(n: NodeView) -> Lowered:
    """GridSample, whose modes the standard calls linear and cubic from opset 20 on."""
    mode = n.attribute("mode", "bilinear")
    if n.op.opset >= 20:
        mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    return [
        n.op.GridSample(
            n.x,
            n.input(1),
            mode=mode,
            padding_mode=n.attribute("padding_mode", "zeros"),
            align_corners=n.attribute("align_corners", 0),
        )
    ]


@lowering("Range", domain=MICROSOFT)
def range_(n: NodeView) -> Lowered:
    """Range; its bounds may be [1], and its step may be left out."""
    bounds = [n.x, n.input(1), n.optional_input(2)]
    start, limit, delta = (
        None if b is None else n.op.Reshape(b, np.zeros(0, np.int64)) for b in bounds
    )
    step = delta if delta is not None else n.op.scalar(1, n.x)
    return [n.op.Range(start, limit, step)]


@lowering("Unique", domain=MICROSOFT)
def unique(n: NodeView) -> Lowered:
    """Unique numbers in the order of first occurrence, which of them each element is, and how often each occurs."""
    values, first, inverse, counts = n.op.Unique(n.x, sorted=0, outputs=4)
    for index in (first, inverse, counts):
        index.type = ir.TensorType(ir.DataType.INT64)
    return [values, inverse, counts][: len(n.node.outputs)]


@lowering("CDist", domain=MICROSOFT)
def cdist(n: NodeView) -> Lowered:
    """Distances between the rows of two matrices, Euclidean or squared."""
    op, metric = n.op, n.attribute("metric", "sqeuclidean")
    difference = op.Sub(op.Unsqueeze(n.x, [1]), op.Unsqueeze(n.input(1), [0]))
    if metric == "sqeuclidean":
        return [op.ReduceSum(op.Mul(difference, difference), [2], keepdims=0)]
    if metric == "euclidean":
        return [op.reduce("ReduceL2", difference, [2], keepdims=False)]
    raise n.unsupported(f"the metric {metric!r}")


@lowering("ComplexMul", "ComplexMulConj", domain=MICROSOFT)
def complex_mul(n: NodeView) -> Lowered:
    """Product of complex numbers, parts on the last axis; ComplexMulConj conjugates the second."""
    op = n.op
    (a, b), (c, d) = (
        [op.Gather(value, [part], axis=-1) for part in (0, 1)] for value in (n.x, n.input(1))
    )
    if n.node.op_type == "ComplexMulConj":
        d = op.Neg(d)
    real = op.Sub(op.Mul(a, c), op.Mul(b, d))
    imaginary = op.Add(op.Mul(a, d), op.Mul(b, c))
    return [op.Concat(real, imaginary, axis=-1)]


@lowering("Rfft", domain=MICROSOFT)
def rfft(n: NodeView) -> Lowered:
    """DFT of a real signal along the last axis, only the first half of the frequencies."""
    _refuse_fourier(n)
    op = n.op
    signal = op.Unsqueeze(n.x, [-1])
    if op.opset >= 20:
        return [op.DFT(signal, None, op.ints(-2), onesided=1)]
    return [op.DFT(signal, axis=rank(n.x) - 1, onesided=1)]


def _refuse_fourier(n: NodeView) -> None:
    if n.attribute("signal_ndim", 1) != 1 or n.attribute("normalized", 0):
        raise n.unsupported("Fourier transforms over several axes, or normalised ones")


@lowering("GatedAdd", domain=MICROSOFT)
def gated_add(n: NodeView) -> Lowered:
    """X + Y gate."""
    return [n.op.Add(n.x, n.op.Mul(n.input(1), n.input(2)))]


@lowering("UnfoldTensor", domain=MICROSOFT)
def unfold_tensor(n: NodeView) -> Lowered:
    """All slices of `size` along an axis, `step` apart, on a new last axis."""
    op, size, step = n.op, n.attribute("size"), n.attribute("step", 1)
    axes = rank(n.x)
    axis = n.attribute("dim", -1) % axes
    length = op.Shape(n.x, start=axis, end=axis + 1)
    count = op.Squeeze(op.Add(op.Div(op.Sub(length, [size]), [step]), [1]), [0])
    starts = op.Mul(op.Range(op.ints(0), count, op.ints(1)), [step])
    index = op.Add(op.Unsqueeze(starts, [1]), np.arange(size))
    order = [*range(axis + 1), *range(axis + 2, axes + 1), axis + 1]
    return [op.Transpose(op.Gather(n.x, index, axis=axis), perm=order)]


@lowering("ConvTransposeWithDynamicPads", domain=MICROSOFT)
def conv_transpose_with_dynamic_pads(n: NodeView) -> Lowered:
    """ConvTranspose whose pads are an input: here they have to be constant."""
    pads = n.constant(2)
    if pads is None and n.optional_input(2) is not None:
        raise n.unsupported("pads that are not constant")
    names = ("auto_pad", "dilations", "group", "kernel_shape", "output_padding", "strides")
    given = {name: n.attribute(name) for name in names if n.attribute(name) is not None}
    if pads is not None:
        given["pads"] = [int(i) for i in pads.reshape(-1)]
    return [n.op.ConvTranspose(n.x, n.input(1), n.optional_input(3), **given)]


@lowering("Irfft", domain=MICROSOFT)
def irfft(n: NodeView) -> Lowered:
    """The inverse of Rfft: a real signal of 2 (m - 1) numbers from m frequencies, by cosines and sines."""
    _refuse_fourier(n)
    op = n.op
    half = op.Sub(op.Shape(n.x, start=-2, end=-1), [1])
    size = op.Mul(half, [2])
    dtype = dtype_of(n.x)
    steps, frequencies = (
        op.Cast(op.Range(op.ints(0), op.Squeeze(count, [0]), op.ints(1)), to=int(dtype))
        for count in (size, op.Add(half, [1]))
    )
    turn = op.Div(op.scalar(2 * np.pi, n.x), op.Cast(size, to=int(dtype)))
    angles = op.Mul(op.Mul(op.Unsqueeze(frequencies, [1]), op.Unsqueeze(steps, [0])), turn)
    # Every frequency but the first and the last stands for its mirror image as well.
    ends = op.Cast(half, to=int(dtype))
    inner = op.And(op.Greater(frequencies, 0.0), op.Less(frequencies, ends))
    weight = op.Div(
        op.Where(inner, op.scalar(2.0, n.x), op.scalar(1.0, n.x)), op.Cast(size, to=int(dtype))
    )
    real, imaginary = (op.Mul(op.Gather(n.x, op.ints(i), axis=-1), weight) for i in (0, 1))
    y = op.Sub(op.MatMul(real, op.Cos(angles)), op.MatMul(imaginary, op.Sin(angles)))
    return [cast("ir.Value", y)]
