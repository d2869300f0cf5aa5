"""Layers: normalisation, Dropout, Softmax, pooling, Gemm and recurrent networks."""

from __future__ import annotations

from igonnx.upgrade.adapter import Adaptation, adapter


@adapter("BatchNormalization", version=7)
def batch_normalization_mode(a: Adaptation) -> None:
    """Before 7, is_test told inference from training; since then, until 14, the number of outputs does.

    Its default says training, but a node of one output has only inference to offer.
    """
    if a.take("is_test", 0):
        if any(a.used(index) for index in range(1, len(a.node.outputs))):
            a.refuse("statistics of the batch are asked for in test mode")
        a.drop_outputs(1)


@adapter("BatchNormalization", version=9)
def batch_normalization_per_activation(a: Adaptation) -> None:
    """Before 9, `spatial` = 0 had a mean and a variance per activation, of shape [C, D1, ...], not per channel."""
    if a.take("spatial", 1):
        return
    if len(a.node.outputs) > 1:
        a.refuse("training with a mean per activation (spatial = 0) was dropped from ONNX")
    x, scale, bias, mean, variance = (a.input(index) for index in range(5))
    epsilon = a.like(a.take("epsilon", 1e-5), variance)
    deviation = a.emit("Sqrt", a.emit("Add", variance, epsilon))
    normal = a.emit("Div", a.emit("Sub", x, mean), deviation)
    a.become("Add", a.emit("Mul", normal, scale), bias)


@adapter("BatchNormalization", version=14)
def batch_normalization_outputs(a: Adaptation) -> None:
    """Before 14, more than one output meant training, and the batch's own statistics were among them."""
    if sum(bool(output.name) for output in a.node.outputs) <= 1:
        a.drop_outputs(1)
        return
    if a.used(3) or a.used(4):
        a.refuse("its outputs saved_mean and saved_var were dropped from ONNX")
    a.drop_outputs(3)
    a.put("training_mode", 1)


@adapter("Dropout", version=7)
def dropout_mode(a: Adaptation) -> None:
    """Before 7, is_test told inference from training. Inference is what every later version does by default."""
    a.take("is_test")


@adapter("Dropout", version=10)
def dropout_mask(a: Adaptation) -> None:
    """Before 10, the mask had the dtype of the data."""
    if not a.used(1):
        return
    x = a.input(0)
    y, mask = a.emit_several("Dropout", x, count=2)
    a.replace_output(1, a.emit("CastLike", mask, x))
    a.drop_outputs(1)
    a.become("Identity", y)


@adapter("Dropout", version=12)
def dropout_ratio(a: Adaptation) -> None:
    """Before 12, the ratio was an attribute; without training it has no effect."""
    a.take("ratio")


@adapter("Gemm", version=7)
def gemm(a: Adaptation) -> None:
    """Before 7, C was broadcast only if asked for."""
    a.take("broadcast")


@adapter("Softmax", "LogSoftmax", "Hardmax", version=13)
def softmax(a: Adaptation) -> None:
    """Before 13, all axes from `axis` (1 by default) on counted as one."""
    x, axis = a.input(0), int(a.take("axis", 1))
    rank = a.rank(x)
    if rank is not None and rank + axis >= 0:
        axis %= max(rank, 1)
    if axis in (-1, None if rank is None else rank - 1):
        a.put("axis", -1)
    elif x.shape is not None and all(dim == 1 for dim in list(x.shape)[axis + 1 :]):
        a.put("axis", axis)
    else:
        flat = a.emit(a.node.op_type, a.emit("Flatten", x, axis=axis), axis=-1)
        a.become("Reshape", flat, a.emit("Shape", x), allowzero=1)


@adapter("LpPool", "GlobalLpPool", version=2)
def lp_pool(a: Adaptation) -> None:
    """Before 2, p was a floating number."""
    p = float(a.take("p", 2.0))
    if not p.is_integer():
        a.refuse(f"p is {p}; since opset 2 it is a whole number")
    if a.node.op_type == "LpPool" and "kernel_shape" not in a.node.attributes:
        a.refuse("kernel_shape is missing")
    a.put("p", int(p))


@adapter("GRU", version=3)
def gru_direction(a: Adaptation) -> None:
    """Before 3, the default of `direction` was spelled foward."""
    direction = a.take("direction", "forward")
    a.put("direction", "forward" if direction == "foward" else direction)


@adapter("RNN", "GRU", "LSTM", version=7)
def recurrent(a: Adaptation) -> None:
    """Before 7, output_sequence asked for the output Y; since then its name does."""
    a.take("output_sequence")
