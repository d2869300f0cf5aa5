"""DFT and STFT: linear, so the gradient is their adjoint, again a transform of the same length.

With F[k, j] = exp(-2 pi i j k / L), the transform is F and its inverse conj(F) / L. For reals and imaginary parts as
independent numbers, the adjoint of F is its conjugate transpose, L times the inverse transform.
"""

from __future__ import annotations

import math
from typing import Any, cast

import onnx_ir as ir

from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.graph.builder import dtype_of, rank

_INT64 = ir.DataType.INT64


@rule("DFT")
def dft(v: Vjp) -> Gradients:
    """DFT: the adjoint transform of the gradient, cut or filled with zeros to the input's length.

    One-sided spectra are filled with zeros to the full length; a one-sided inverse counts each frequency twice but
    the first and, for even lengths, the middle one, which have no counterpart.
    """
    op = v.op
    if v.y.shape is None:  # as where the length is fed
        v.y.shape = ir.Shape([None] * rank(v.x))
    if rank(v.x) != rank(v.y):
        raise v.unsupported("DFT of a signal without an axis for real and imaginary part")
    inverse, onesided = bool(v.attribute("inverse", 0)), bool(v.attribute("onesided", 0))
    samples = _size(v, v.x)
    length = _length(v, samples, inverse or not onesided)
    count = op.cast(length, dtype_of(v.g))
    scalar = op.Squeeze(length, [0])
    if inverse and onesided:
        spectrum = _transform(v, v.g, scalar, inverse=False, onesided=True)
        scale = op.Div(_multiplicity(v, length), count)
        result = op.Mul(spectrum, _with_fitting_spectrum(v, scale, samples, length))
        produced = op.Add(op.Div(length, [2]), [1])
    elif inverse:
        result = op.Div(_transform(v, v.g, scalar, inverse=False), count)
        produced = length
    else:
        result = op.Mul(_transform(v, v.g, scalar, inverse=True), count)
        produced = length
    if v.optional_input(1) is not None or (inverse and onesided):
        result = _with_size(v, result, op.Sub(samples, produced))
    # Of a real signal, the real part.
    components = op.dim(v.x, rank(v.x) - 1)
    result = op.Slice(result, [0], components, [rank(v.x) - 1])
    return [result, None, None]


def _with_fitting_spectrum(
    v: Vjp, scale: ir.Value, samples: ir.Value, length: ir.Value
) -> ir.Value:
    """`scale` of a one-sided inverse, refused or (if known only at run time) NaN for a wrong number of frequencies.

    What happens to more of them than half the length and one is not defined. Where there are less, they count as
    zero, but ONNX Runtime 1.31 takes others in their place when the length is even.
    """
    op = v.op
    if samples.const_value is not None and length.const_value is not None:
        given, size = (
            int(cast("Any", value.const_value).numpy()[0]) for value in (samples, length)
        )
        if given > size // 2 + 1 or (given <= size // 2 and size % 2 == 0):
            raise v.unsupported(f"a one-sided inverse DFT of {given} frequencies to length {size}")
        return scale
    missing = op.Sub(op.Add(op.Div(length, [2]), [1]), samples)
    odd = op.Equal(op.Mod(length, [2]), op.ints([1]))
    fits = op.Or(op.Equal(missing, op.ints([0])), op.And(op.Greater(missing, op.ints([0])), odd))
    return cast("ir.Value", op.Where(fits, scale, op.scalar(math.nan, scale)))


def _axis(v: Vjp) -> int | None:
    """The transformed axis; None where it is known at run time only."""
    if v.op.opset < 20:
        return int(v.attribute("axis", 1)) % rank(v.x)
    if v.optional_input(2) is None:
        return rank(v.x) - 2
    constant = v.constant(2)
    return None if constant is None else int(constant.reshape(())) % rank(v.x)


def _axis_value(v: Vjp) -> ir.Value:
    """The transformed axis, int64 [1]."""
    axis = _axis(v)
    return (
        v.op.ints([axis]) if axis is not None else v.op.Reshape(v.op.cast(v.input(2), _INT64), [1])
    )


def _size(v: Vjp, value: ir.Value) -> ir.Value:
    """Length of `value` along the transformed axis, int64 [1]."""
    axis = _axis(v)
    if axis is not None:
        return v.op.dim(value, axis)
    return cast("ir.Value", v.op.Gather(v.op.Shape(value), _axis_value(v), axis=0))


def _length(v: Vjp, samples: ir.Value, is_output_length: bool) -> ir.Value:
    """L, int64 [1]."""
    if is_output_length:
        return _size(v, v.y)
    if v.optional_input(1) is None:
        return samples
    return cast("ir.Value", v.op.Reshape(v.op.cast(v.input(1), _INT64), [1]))


def _transform(
    v: Vjp, value: ir.Value, length: ir.Value, *, inverse: bool, onesided: bool = False
) -> ir.Value:
    """The transform of `value` along the node's axis."""
    op = v.op
    attributes = {"inverse": int(inverse), "onesided": int(onesided)}
    if op.opset < 20:
        return cast("ir.Value", op.DFT(value, length, axis=_axis(v), **attributes))
    return cast("ir.Value", op.DFT(value, length, op.Squeeze(_axis_value(v), [0]), **attributes))


def _multiplicity(v: Vjp, length: ir.Value) -> ir.Value:
    """How often a real signal's inverse counts each frequency of a one-sided spectrum, along the transformed axis."""
    op = v.op
    number = op.Range(op.ints(0), op.Squeeze(op.Add(op.Div(length, [2]), [1]), [0]), op.ints(1))
    alone = op.Or(op.Equal(number, op.ints([0])), op.Equal(op.Mul(number, [2]), length))
    one, two = op.scalar(1.0, v.g), op.scalar(2.0, v.g)
    counts = op.Where(alone, one, two)
    # [L / 2 + 1] with ones around it
    spread = op.Expand(op.ints([1]), op.ints([rank(v.x)]))
    shape = op.ScatterElements(spread, _axis_value(v), op.ints([-1]), axis=0)
    return cast("ir.Value", op.Reshape(counts, shape))


def _with_size(v: Vjp, value: ir.Value, more: ir.Value) -> ir.Value:
    """`value` with `more` zeros (int64 [1]; less, where negative) at the end of the transformed axis."""
    op, axis, n = v.op, _axis(v), rank(v.x)
    if axis is None:
        return cast("ir.Value", op.Pad(value, op.join([0], more), None, _axis_value(v)))
    return cast("ir.Value", op.Pad(value, op.join([0] * (n + axis), more, [0] * (n - 1 - axis))))


@rule("STFT")
def stft(v: Vjp) -> Gradients:
    """STFT: each frame's adjoint times the window, added up over frames; the window gets it times the signal."""
    op = v.op
    length = _frame_length(v)
    components = op.dim(v.x, 2) if rank(v.x) == 3 else op.ints([1])
    adjoint = _frames_adjoint(v, length, components)
    places = _places(v, op.dim(v.y, 1), length)
    signal_shape = op.join(op.dim(v.x, 0), op.dim(v.x, 1), components)
    to_signal = to_window = None
    if v.wanted[0]:
        framed = adjoint
        if v.optional_input(2) is not None:
            framed = op.Mul(adjoint, op.Unsqueeze(v.input(2), [1]))
        rows = op.join(op.dim(v.x, 0), op.Mul(op.dim(v.y, 1), length), components)
        framed = op.Reshape(framed, rows, allowzero=1)
        where = op.Expand(op.Reshape(places, [1, -1, 1]), rows)
        to_signal = op.reshape_like(op.scatter_add(signal_shape, where, framed, axis=1), v.x)
    if v.optional_input(2) is not None and v.wanted[2]:
        signal = op.Reshape(v.x, signal_shape, allowzero=1)
        met = op.Mul(op.Gather(signal, places, axis=1), adjoint)
        to_window = op.ReduceSum(met, [0, 1, 3], keepdims=0)
    return [to_signal, None, to_window, None]


def _frames_adjoint(v: Vjp, length: ir.Value, components: ir.Value) -> ir.Value:
    """The adjoint of each frame's transform, [batch, frames, L, components]; one-sided spectra end in zeros."""
    op, scalar = v.op, v.op.Squeeze(length, [0])
    axis = (
        {"axis": 2} if op.opset < 20 else {}
    )  # given as an input, its default is the last but one
    inverse = op.DFT(v.g, scalar, inverse=1, **axis)
    adjoint = op.Mul(inverse, op.cast(length, dtype_of(v.g)))
    return cast("ir.Value", op.Slice(adjoint, [0], components, [3]))


def _frame_length(v: Vjp) -> ir.Value:
    """L, int64 [1]."""
    op = v.op
    if v.optional_input(2) is not None:
        return op.dim(v.input(2), 0)
    if v.optional_input(3) is not None:
        return cast("ir.Value", op.Reshape(op.cast(v.input(3), _INT64), [1]))
    raise v.unsupported("STFT without window and frame_length")


def _places(v: Vjp, frames: ir.Value, length: ir.Value) -> ir.Value:
    """Where in the signal each frame's samples lie, int64 [frames, L]."""
    op = v.op
    zero, one = op.ints(0), op.ints(1)
    step = op.Reshape(op.cast(v.input(1), _INT64), [1])
    starts = op.Mul(op.Range(zero, op.Squeeze(frames, [0]), one), step)
    offsets = op.Range(zero, op.Squeeze(length, [0]), one)
    return cast("ir.Value", op.Add(op.Unsqueeze(starts, [1]), offsets))
