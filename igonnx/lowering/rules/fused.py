"""Convolutions and matrix products with what ONNX Runtime's optimiser fused into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import onnx_ir as ir

from igonnx.graph.builder import rank
from igonnx.graph.node_view import NodeView
from igonnx.lowering.registry import Lowered, lowering
from igonnx.lowering.rules.gelu import gelu, silu

MICROSOFT = "com.microsoft"
_CONVOLUTION = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
# Attributes that parameters of an activation are for, in the order of `activation_params`.
_PARAMETERS: dict[str, tuple[str, ...]] = {
    "LeakyRelu": ("alpha",),
    "Elu": ("alpha",),
    "Celu": ("alpha",),
    "ThresholdedRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Selu": ("alpha", "gamma"),
}
_PLAIN = frozenset(
    ["Relu", "Tanh", "Sigmoid", "Softplus", "Softsign", "HardSwish", "Mish", "Softmax"]
)


def activate(n: NodeView, x: ir.Value, name: str, parameters: Sequence[float | None]) -> ir.Value:
    """The activation `name` of `x`; a parameter that is missing or None has the operator's default."""
    op = n.op
    if name in ("", "Identity"):
        return x
    if name == "Clip":
        low, high = (None if p is None else op.scalar(p, x) for p in parameters)
        return cast("ir.Value", op.Clip(x, low, high))
    if name in _PLAIN:
        return cast("ir.Value", op.emit(name, x))
    if name in _PARAMETERS:
        given = zip(_PARAMETERS[name], parameters, strict=False)
        settings: dict[str, Any] = {key: value for key, value in given if value is not None}
        return cast("ir.Value", op.emit(name, x, **settings))
    if name in ("Gelu", "FastGelu"):
        return gelu(op, x, "none" if name == "Gelu" else "tanh")
    if name in ("Silu", "Swish", "QuickGelu"):
        return silu(op, x, next(iter(parameters), None) or (1.702 if name == "QuickGelu" else 1.0))
    raise n.unsupported(f"the activation {name!r}")


def _given(n: NodeView, names: Sequence[str]) -> dict[str, Any]:
    """Those of the attributes `names` that the node has."""
    return {name: n.attribute(name) for name in names if n.attribute(name) is not None}


@lowering("FusedConv", domain=MICROSOFT)
def fused_conv(n: NodeView) -> Lowered:
    """activation(Conv(X, W, B) + Z)."""
    y = n.op.Conv(n.x, n.input(1), n.optional_input(2), **_given(n, _CONVOLUTION))
    return [_finish(n, y)]


@lowering("NhwcFusedConv", domain=MICROSOFT)
def nhwc_fused_conv(n: NodeView) -> Lowered:
    """FusedConv of images whose channels come last; the filter is [M, C / group, kH, kW] as ever."""
    return [_finish(n, _channels_last(n, n.input(1)))]


@lowering("NhwcConv", domain=MICROSOFT)
def nhwc_conv(n: NodeView) -> Lowered:
    """Conv of images [N, H, W, C] by filters [M, kH, kW, C / group]: the layouts that ONNX Runtime gives it."""
    return [_channels_last(n, n.op.Transpose(n.input(1), perm=[0, 3, 1, 2]))]


@lowering("NhwcMaxPool", domain=MICROSOFT)
def nhwc_max_pool(n: NodeView) -> Lowered:
    """MaxPool of images [N, H, W, C]."""
    op = n.op
    names = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")
    pooled = op.MaxPool(op.Transpose(n.x, perm=[0, 3, 1, 2]), **_given(n, names))
    return [op.Transpose(pooled, perm=[0, 2, 3, 1])]


def _channels_last(n: NodeView, weights: ir.Value) -> ir.Value:
    op = n.op
    images = op.Transpose(n.x, perm=[0, 3, 1, 2])
    y = op.Conv(images, weights, n.optional_input(2), **_given(n, _CONVOLUTION))
    return cast("ir.Value", op.Transpose(y, perm=[0, 2, 3, 1]))


def _finish(n: NodeView, y: ir.Value) -> ir.Value:
    added = n.optional_input(3)
    if added is not None:
        y = n.op.Add(y, added)
    return activate(n, y, n.attribute("activation", ""), n.attribute("activation_params") or [])


@lowering("FusedGemm", domain=MICROSOFT)
def fused_gemm(n: NodeView) -> Lowered:
    """activation(alpha A B + beta C)."""
    settings = _given(n, ("alpha", "beta", "transA", "transB"))
    y = n.op.Gemm(n.x, n.input(1), n.optional_input(2), **settings)
    return [activate(n, y, n.attribute("activation", ""), _activation_parameters(n))]


@lowering("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def fused_matmul(n: NodeView) -> Lowered:
    """The product alpha A B, with matrices transposed before that.

    transBatch says that the first axis is the matrix's row and the axes between count matrices: [M, ..., K].
    """
    return [_product(n)]


@lowering("FusedMatMulActivation", domain=MICROSOFT)
def fused_matmul_activation(n: NodeView) -> Lowered:
    """activation(FusedMatMul(A, B)); `activation_axis` is Softmax's."""
    y, name = _product(n), n.attribute("activation")
    if name == "Softmax":
        return [n.op.Softmax(y, axis=n.attribute("activation_axis", -1))]
    return [activate(n, y, name, _activation_parameters(n))]


def _activation_parameters(n: NodeView) -> list[float | None]:
    """What `activation_alpha`, `_beta` and `_gamma` say, in the order of `_PARAMETERS`."""
    names = _PARAMETERS.get(n.attribute("activation", ""), ("alpha", "beta"))
    return [n.attribute(f"activation_{name}") for name in names]


def _product(n: NodeView) -> ir.Value:
    op = n.op
    left = _transposed(n, 0, n.attribute("transA", 0), n.attribute("transBatchA", 0))
    right = _transposed(n, 1, n.attribute("transB", 0), n.attribute("transBatchB", 0))
    alpha = n.attribute("alpha", 1.0)
    if alpha != 1.0:
        return cast("ir.Value", op.Mul(op.MatMul(left, right), alpha))
    return cast("ir.Value", op.MatMul(left, right))


def _transposed(n: NodeView, index: int, matrix: int, batch: int) -> ir.Value:
    value = n.input(index)
    if not matrix and not batch:
        return value
    axes = list(range(rank(value)))
    if batch:
        axes = [*axes[1:-1], axes[0], axes[-1]]
    if matrix and len(axes) > 1:
        axes[-2:] = axes[:-3:-1]
    if axes == sorted(axes):
        return value
    return cast("ir.Value", n.op.Transpose(value, perm=axes))


@lowering("BiasDropout", domain=MICROSOFT)
def bias_dropout(n: NodeView) -> Lowered:
    """Dropout(data + bias) + residual, where nothing is dropped at inference."""
    if (training := n.optional_input(4)) is not None and n.constant(4) is None:
        raise n.unsupported(f"a training mode that depends on {training.name!r}")
    if training is not None and bool(cast("Any", n.constant(4)).reshape(())):
        raise n.unsupported("training mode, in which elements are dropped at random")
    y = n.op.Add(n.x, n.input(1))
    residual = n.optional_input(2)
    if residual is not None:
        y = n.op.Add(y, residual)
    ones = n.op.Equal(y, y) if n.has_output(1) else None
    return [y, ones][: len(n.node.outputs)]


@lowering("BiasAdd", domain=MICROSOFT)
def bias_add(n: NodeView) -> Lowered:
    """X + bias + skip."""
    return [n.op.Add(n.op.Add(n.x, n.input(1)), n.input(2))]


@lowering("BiasSoftmax", domain=MICROSOFT)
def bias_softmax(n: NodeView) -> Lowered:
    """Softmax(data + bias) over all axes from `axis` on, taken together as before opset 13."""
    op, axis = n.op, n.attribute("axis", 1)
    total = op.Add(n.x, n.input(1))
    if axis in (-1, rank(n.x) - 1):
        return [op.Softmax(total, axis=-1)]
    rows = op.Softmax(op.Flatten(total, axis=axis), axis=-1)
    return [op.reshape_like(rows, n.x)]
