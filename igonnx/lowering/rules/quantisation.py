"""Operators on codes: what they compute, in real numbers, between dequantisation and quantisation.

The lowered forms serve the gradient; beside them the operators go on computing what they do (`straight_through`).
QLinearConv, QLinearMatMul, ConvInteger and MatMulInteger are defined by the ONNX standard, the others by ONNX Runtime.
"""

from __future__ import annotations

from typing import Any, cast

import onnx_ir as ir

from igonnx.graph.builder import rank
from igonnx.graph.node_view import NodeView
from igonnx.lowering.quantised_values import centred, column_scale, encoded, real, real_weight
from igonnx.lowering.registry import Lowered, lowering

MICROSOFT = "com.microsoft"


def _attributes(n: NodeView, *left_out: str) -> dict[str, Any]:
    return {name: n.attribute(name) for name in n.node.attributes if name not in left_out}


# -- convolutions ------------------------------------------------------------------------------------------


def _qlinear_conv(n: NodeView) -> Lowered:
    """QLinearConv: x, w and y, each with scale and zero point, and an int32 bias in units of x's scale times w's.

    A `channels_last` of ONNX Runtime's own puts the channels of x and y behind.
    """
    op, spatial = n.op, rank(n.input(3)) - 2
    last = bool(n.attribute("channels_last", 0))
    x = _channels_first(n, real(n, 0), spatial) if last else real(n, 0)
    bias = None
    if n.optional_input(8) is not None:
        unit = column_scale(op, n.input(1), n.input(4))
        bias = op.Mul(op.Cast(n.input(8), to=int(ir.DataType.FLOAT)), unit)
    weight = real_weight(n, 3, 4, 5, spatial + 1)
    y = op.Conv(x, weight, bias, **_attributes(n, "channels_last"))
    return [encoded(n, _channels_last(n, y, spatial) if last else y, 6)]


lowering("QLinearConv", straight_through=True)(_qlinear_conv)
lowering("QLinearConv", domain=MICROSOFT, straight_through=True)(_qlinear_conv)


@lowering("ConvInteger", straight_through=True)
def conv_integer(n: NodeView) -> Lowered:
    """ConvInteger: the convolution of the centred codes; its int32 result is a code of scale one."""
    op, weight = n.op, centred(n, 1, None)
    offset = n.optional_input(3)
    if offset is not None:
        column = op.Reshape(
            op.Cast(offset, to=int(ir.DataType.FLOAT)), [-1] + [1] * (rank(n.input(1)) - 1)
        )
        weight = op.Sub(weight, column)
    return [op.Conv(centred(n, 0, 2), weight, **_attributes(n))]


def _channels_first(n: NodeView, value: ir.Value, spatial: int) -> ir.Value:
    return cast("ir.Value", n.op.Transpose(value, perm=[0, spatial + 1, *range(1, spatial + 1)]))


def _channels_last(n: NodeView, value: ir.Value, spatial: int) -> ir.Value:
    return cast("ir.Value", n.op.Transpose(value, perm=[0, *range(2, spatial + 2), 1]))


# -- matrix products ---------------------------------------------------------------------------------------


@lowering("QLinearMatMul", straight_through=True)
def qlinear_matmul(n: NodeView) -> Lowered:
    """QLinearMatMul: a, b and y, each with scale and zero point; b may have one of each per column, a per row."""
    product = n.op.MatMul(_centred_rows(n, 0, 2), centred(n, 3, 5))
    scale = column_scale(n.op, _per_row(n, n.input(1)), n.input(4))
    return [encoded(n, n.op.Mul(product, scale), 6)]


@lowering("MatMulInteger", straight_through=True)
def matmul_integer(n: NodeView) -> Lowered:
    """MatMulInteger: the product of the centred codes; its int32 result is a code of scale one."""
    return [n.op.MatMul(_centred_rows(n, 0, 2), centred(n, 1, 3))]


@lowering("MatMulIntegerToFloat", domain=MICROSOFT, straight_through=True)
def matmul_integer_to_float(n: NodeView) -> Lowered:
    """MatMulIntegerToFloat: (a - a_zero)(b - b_zero) a_scale b_scale + bias, floating."""
    op = n.op
    product = op.MatMul(centred(n, 0, 4), centred(n, 1, 5))
    y = op.Mul(product, column_scale(op, n.input(2), n.input(3)))
    if n.optional_input(6) is not None:
        y = op.Add(y, op.cast(n.input(6), ir.DataType.FLOAT))
    return [op.cast(y, n.input(2).dtype or ir.DataType.FLOAT)]


@lowering("DynamicQuantizeMatMul", domain=MICROSOFT, straight_through=True)
def dynamic_quantize_matmul(n: NodeView) -> Lowered:
    """DynamicQuantizeMatMul: a quantised as by DynamicQuantizeLinear, times (b - b_zero) b_scale, plus bias."""
    y = n.op.MatMul(n.x, real_weight(n, 1, 2, 3, 0))
    return [y if n.optional_input(4) is None else n.op.Add(y, n.input(4))]


@lowering("QGemm", domain=MICROSOFT, straight_through=True)
def qgemm(n: NodeView) -> Lowered:
    """QGemm: alpha a_scale b_scale (A B + C), with int32 C in that unit; codes with a scale of y, floating without."""
    op = n.op
    offset = n.optional_input(5)
    b = centred(n, 3, None)
    if n.attribute("transB", 0):
        b = op.Transpose(b, perm=[1, 0])
    if offset is not None:
        b = op.Sub(b, op.Cast(offset, to=int(ir.DataType.FLOAT)))
    a = centred(n, 0, 2)
    if n.attribute("transA", 0):
        a = op.Transpose(a, perm=[1, 0])
    total = op.MatMul(a, b)
    if n.optional_input(6) is not None:
        total = op.Add(total, op.Cast(n.input(6), to=int(ir.DataType.FLOAT)))
    y = op.Mul(total, op.Mul(column_scale(op, n.input(1), n.input(4)), n.attribute("alpha", 1.0)))
    return [y if n.optional_input(7) is None else encoded(n, y, 7)]


def _centred_rows(n: NodeView, code: int, zero_point: int) -> ir.Value:
    offset = n.optional_input(zero_point)
    if offset is None or offset.shape is None or len(offset.shape) != 1:
        return centred(n, code, zero_point)
    row = n.op.Cast(_per_row(n, offset), to=int(ir.DataType.FLOAT))
    return cast("ir.Value", n.op.Sub(centred(n, code, None), row))


def _per_row(n: NodeView, value: ir.Value) -> ir.Value:
    """[rows] as a column; one for all stays as it is."""
    if value.shape is None or len(value.shape) != 1 or value.shape[0] == 1:
        return value
    column = n.op.Unsqueeze(value, [-1])
    column.type = value.type
    return cast("ir.Value", column)


# -- elementwise operators, pooling, joining ---------------------------------------------------------------


@lowering("QLinearAdd", "QLinearMul", domain=MICROSOFT, straight_through=True)
def qlinear_arithmetic(n: NodeView) -> Lowered:
    """QLinearAdd and QLinearMul: a, b and y, each with scale and zero point."""
    operator = n.node.op_type.removeprefix("QLinear")
    return [encoded(n, n.op.emit(operator, real(n, 0), real(n, 3)), 6)]


@lowering("QLinearSigmoid", "QLinearLeakyRelu", domain=MICROSOFT, straight_through=True)
def qlinear_activation(n: NodeView) -> Lowered:
    """QLinearSigmoid and QLinearLeakyRelu: x and y, each with scale and zero point."""
    operator = n.node.op_type.removeprefix("QLinear")
    return [encoded(n, n.op.emit(operator, real(n, 0), **_attributes(n)), 3)]


@lowering("QLinearSoftmax", domain=MICROSOFT, straight_through=True)
def qlinear_softmax(n: NodeView) -> Lowered:
    """QLinearSoftmax: along one axis, or (opset below 13) over all axes from `axis` on."""
    op, x, axis = n.op, real(n, 0), n.attribute("axis", -1)
    if n.attribute("opset", 13) >= 13:
        return [encoded(n, op.Softmax(x, axis=axis), 3)]
    rows = op.Softmax(op.Flatten(x, axis=axis), axis=-1)
    return [encoded(n, op.Reshape(rows, op.Shape(x)), 3)]


@lowering("QLinearAveragePool", "QLinearGlobalAveragePool", domain=MICROSOFT, straight_through=True)
def qlinear_average_pool(n: NodeView) -> Lowered:
    """QLinearAveragePool and QLinearGlobalAveragePool, with channels first or last."""
    operator = n.node.op_type.removeprefix("QLinear")
    last = bool(n.attribute("channels_last", 0))
    x, spatial = real(n, 0), 0
    if last:
        spatial = len(n.attribute("kernel_shape", [])) or rank(n.x) - 2
        x = _channels_first(n, x, spatial)
    y = n.op.emit(operator, x, **_attributes(n, "channels_last"))
    return [encoded(n, _channels_last(n, y, spatial) if last else y, 3)]


@lowering("QLinearReduceMean", domain=MICROSOFT, straight_through=True)
def qlinear_reduce_mean(n: NodeView) -> Lowered:
    """QLinearReduceMean over the axes of an attribute, by default all."""
    axes = n.attribute("axes") or list(range(rank(n.x)))
    mean = n.op.reduce("ReduceMean", real(n, 0), axes, keepdims=bool(n.attribute("keepdims", 1)))
    return [encoded(n, mean, 3)]


@lowering("QLinearConcat", domain=MICROSOFT, straight_through=True)
def qlinear_concat(n: NodeView) -> Lowered:
    """QLinearConcat: scale and zero point of y, then each x with its own."""
    parts = [real(n, index) for index in range(2, len(n.node.inputs), 3)]
    return [encoded(n, n.op.Concat(*parts, axis=n.attribute("axis")), 0, like=2)]


@lowering("QLinearWhere", domain=MICROSOFT, straight_through=True)
def qlinear_where(n: NodeView) -> Lowered:
    """QLinearWhere: a condition, then a, b and y, each with scale and zero point."""
    return [encoded(n, n.op.Where(n.x, real(n, 1), real(n, 4)), 7, like=1)]


# -- layers ------------------------------------------------------------------------------------------------


@lowering("DynamicQuantizeLSTM", domain=MICROSOFT, straight_through=True)
def dynamic_quantize_lstm(n: NodeView) -> Lowered:
    """DynamicQuantizeLSTM: an LSTM with codes [directions, inputs, 4 hidden] for W and R, and one scale per direction.

    Or one per direction and column.
    """
    op = n.op
    weights = [_lstm_weight(n, 1, 8), _lstm_weight(n, 2, 10)]
    rest = [n.optional_input(index) for index in range(3, 8)]
    results = op.LSTM(n.x, *weights, *rest, outputs=3, **_attributes(n))
    return [value if n.has_output(index) else None for index, value in enumerate(results)][
        : len(n.node.outputs)
    ]


def _lstm_weight(n: NodeView, code: int, scale: int) -> ir.Value:
    op = n.op
    numbers: list[ir.Value | None] = []
    for index in (scale, scale + 1):
        value = n.optional_input(index)
        if value is None:
            numbers.append(None)
            continue
        given = op.Cast(value, to=int(ir.DataType.FLOAT))
        # [directions] or [directions, 4 hidden], in front of the axis of the inputs
        numbers.append(op.Unsqueeze(given, [1, 2] if rank(value) == 1 else [1]))
    weight = op.Cast(n.input(code), to=int(ir.DataType.FLOAT))
    if numbers[1] is not None:
        weight = op.Sub(weight, numbers[1])
    return cast("ir.Value", op.Transpose(op.Mul(weight, numbers[0]), perm=[0, 2, 1]))


@lowering("QAttention", domain=MICROSOFT, straight_through=True)
def qattention(n: NodeView) -> Lowered:
    """QAttention: com.microsoft's Attention of codes of x [batch, sequence, hidden] and of the joint weight."""
    op = n.op
    x = op.Mul(centred(n, 0, 6), op.cast(n.input(3), ir.DataType.FLOAT))
    weight = real_weight(n, 1, 4, 7, 0)
    return op.emit_all(
        "Attention",
        x,
        weight,
        n.input(2),
        n.optional_input(5),
        n.optional_input(8),
        domain=MICROSOFT,
        outputs=len(n.node.outputs),
        **_attributes(n),
    )


@lowering("QEmbedLayerNormalization", domain=MICROSOFT, straight_through=True)
def qembed_layer_normalization(n: NodeView) -> Lowered:
    """QEmbedLayerNormalization: com.microsoft's EmbedLayerNormalization of tables of codes."""
    tables = [
        None if n.optional_input(index) is None else real_weight(n, index, index + 6, index + 11, 0)
        for index in range(2, 7)
    ]
    return n.op.emit_all(
        "EmbedLayerNormalization",
        n.x,
        n.optional_input(1),
        *tables,
        n.optional_input(7),
        domain=MICROSOFT,
        outputs=len(n.node.outputs),
        **_attributes(n),
    )


# -- to and from codes -------------------------------------------------------------------------------------


@lowering("QuantizeLinear", domain=MICROSOFT, straight_through=True)
def quantize_linear(n: NodeView) -> Lowered:
    """QuantizeLinear of ONNX Runtime's domain: the standard's, with codes of 16 bits at every opset."""
    zero_point = n.optional_input(2)
    if zero_point is None or zero_point.dtype is None or _is_standard(n, zero_point.dtype):
        return [encoded(n, n.x, 1, **_axis(n)) if zero_point else _unsigned(n)]
    # The gradient has a rule; this tells the type and the shape.
    return [n.op.Cast(n.x, to=int(zero_point.dtype))]


def _unsigned(n: NodeView) -> ir.Value:
    codes = n.op.QuantizeLinear(n.x, n.input(1), **_axis(n))
    codes.type = ir.TensorType(ir.DataType.UINT8)
    return cast("ir.Value", codes)


@lowering("DequantizeLinear", domain=MICROSOFT, straight_through=True)
def dequantize_linear(n: NodeView) -> Lowered:
    """DequantizeLinear of ONNX Runtime's domain: the standard's, with codes of 16 bits at every opset."""
    dtype = n.x.dtype
    if dtype is None or _is_standard(n, dtype):
        return [real(n, 0, **_axis(n))]
    return [n.op.Cast(n.x, to=int(n.input(1).dtype or ir.DataType.FLOAT))]


def _axis(n: NodeView) -> dict[str, int]:
    return {"axis": int(n.attribute("axis"))} if "axis" in n.node.attributes else {}


def _is_standard(n: NodeView, dtype: ir.DataType) -> bool:
    return n.op.opset >= 21 or dtype in (
        ir.DataType.INT8,
        ir.DataType.UINT8,
        ir.DataType.INT32,
    )
