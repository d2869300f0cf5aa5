"""Arithmetic, comparisons and activations: broadcasting before opset 7, Clip's bounds, defaults that moved."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from igonnx.upgrade.adapter import TARGET, Adaptation, adapter

_LARGEST = float(np.finfo(np.float32).max)


@adapter(
    *("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less"),
    version=7,
)
def broadcast_from_axis(a: Adaptation) -> None:
    """Before 7, `broadcast` matched the axes of B with those of A from `axis` on, or with its last axes."""
    broadcast, axis = a.take("broadcast", 0), a.take("axis")
    if not broadcast or axis is None:
        return
    a.node.replace_input_with(1, _aligned(a, a.input(1), a.input(0), int(axis)))


@adapter("PRelu", version=7)
def prelu(a: Adaptation) -> None:
    """Before 7, a slope of one axis had an element per channel, that is along axis 1."""
    slope, x = a.input(1), a.input(0)
    if a.rank(slope) in (None, 1):
        a.node.replace_input_with(1, _aligned(a, slope, x, 1))


def _aligned(a: Adaptation, b: ir.Value, x: ir.Value, axis: int) -> ir.Value:
    """`b` with axes of size one at its end, so that its first axis meets axis `axis` of `x`."""
    rank, own = a.rank(x), a.rank(b)
    if own is not None and (axis < 0 or rank is not None):
        count = (-axis if axis < 0 or rank is None else rank - axis) - own
        return a.trailing_axes(b, count) if count > 0 else b
    end = a.emit("Sub", a.rank_tensor(x), a.integers([axis])) if axis >= 0 else a.integers([-axis])
    found = a.emit("Sub", end, a.rank_tensor(b))
    # A single element of an axis of its own meets any x.
    return a.trailing_axes(b, a.emit("Max", found, a.integers([0])))


@adapter("Selu", version=6)
def selu(a: Adaptation) -> None:
    """Before 6, alpha and gamma had four digits."""
    a.put("alpha", a.take("alpha", 1.6732))
    a.put("gamma", a.take("gamma", 1.0507))


@adapter("Clip", version=11)
def clip(a: Adaptation) -> None:
    """Before 11, the bounds were attributes; those left out, the ends of float32, are the default still."""
    low, high = a.take("min", -_LARGEST), a.take("max", _LARGEST)
    x = a.input(0)
    a.set_inputs(
        x,
        None if low <= -_LARGEST else a.like(low, x),
        None if high >= _LARGEST else a.like(high, x),
    )


@adapter("Cast", version=6)
def cast(a: Adaptation) -> None:
    """Before 6, `to` was the name of a dtype."""
    to = a.take("to")
    name = to.decode() if isinstance(to, bytes) else str(to)
    if name.upper() not in ir.DataType.__members__:
        a.refuse(f"attribute 'to' is {name!r}, which names no dtype")
    a.put("to", int(ir.DataType[name.upper()]))


# -- operators that were experimental until opset 9, and that runtimes still know ----------------


@adapter("Affine", version=TARGET)
def affine(a: Adaptation) -> None:
    """Affine: alpha x + beta."""
    x = a.input(0)
    alpha, beta = a.take("alpha", 1.0), a.take("beta", 0.0)
    a.become("Add", a.emit("Mul", x, a.like(alpha, x)), a.like(beta, x))


@adapter("Scale", version=TARGET)
def scale(a: Adaptation) -> None:
    """Scale: a multiple of x."""
    x = a.input(0)
    a.become("Mul", x, a.like(a.take("scale", 1.0), x))


@adapter("ImageScaler", version=TARGET)
def image_scaler(a: Adaptation) -> None:
    """ImageScaler: scale x + bias of the channel, on [N, C, H, W]."""
    x = a.input(0)
    factor, bias = a.take("scale", 1.0), list(a.take("bias", ()))
    scaled = a.emit("Mul", x, a.like(factor, x))
    if not bias:
        a.become("Identity", scaled)
        return
    channels = a.scope.constant(np.asarray(bias, np.float32).reshape(-1, 1, 1))
    a.become("Add", scaled, a.emit("CastLike", channels, x))


@adapter("ParametricSoftplus", version=TARGET)
def parametric_softplus(a: Adaptation) -> None:
    """ParametricSoftplus: alpha log(exp(beta x) + 1)."""
    x = a.input(0)
    alpha, beta = a.take("alpha", 1.0), a.take("beta", 1.0)
    a.become("Mul", a.emit("Softplus", a.emit("Mul", x, a.like(beta, x))), a.like(alpha, x))


@adapter("ScaledTanh", version=TARGET)
def scaled_tanh(a: Adaptation) -> None:
    """ScaledTanh: alpha tanh(beta x)."""
    x = a.input(0)
    alpha, beta = a.take("alpha", 1.0), a.take("beta", 1.0)
    a.become("Mul", a.emit("Tanh", a.emit("Mul", x, a.like(beta, x))), a.like(alpha, x))


@adapter(
    "ATen", "ConstantFill", "Crop", "DynamicSlice", "GRUUnit", "GivenTensorFill", version=TARGET
)
def experimental(a: Adaptation) -> None:
    """Experimental operators that were dropped and have no definition to go by."""
    a.refuse("this experimental operator was dropped from ONNX")
