"""Layer-wise relevance propagation: the rule of every operator.

What the ordinary rule does with a gradient is right for relevance, too, where elements are only moved, copied, chosen
or left out: reshaping, slicing, gathering, maxima (the winner takes it all). The bodies of If, Loop and Scan are walked
like the graph outside. The other operators have their rules here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeAlias, cast

import onnx_ir as ir

from igonnx.autodiff.propagation.lrp_layers import through_layer
from igonnx.autodiff.propagation.lrp_linear_map import joins_layer
from igonnx.autodiff.propagation.lrp_normalisation import (
    batch_normalisation,
    instance_normalisation,
    layer_normalisation,
    log_softmax,
    softmax,
)
from igonnx.autodiff.propagation.lrp_parameters import Context
from igonnx.autodiff.propagation.lrp_shares import (
    in_proportion,
    live_inputs,
    ordinary,
    passed_to,
    product_of_factors,
    quotient,
    refused,
)
from igonnx.autodiff.propagation.lrp_signs import gate_strength
from igonnx.autodiff.registry import Gradients, Vjp, is_code
from igonnx.graph.builder import dtype_of
from igonnx.lowering.packed_weights import block_weights, four_bit_weights

__all__ = ["REFUSED", "RULES", "rule_of"]

# What arrives, and goes on as it is, is relevance; None where the ordinary rule serves.
Through: TypeAlias = "Callable[[Context, Vjp], Gradients | None]"
Key: TypeAlias = "tuple[str, str]"


def _moved(_context: Context, v: Vjp) -> None:
    """By the ordinary rule: every element hands on all that it has."""


def _activation(_context: Context, v: Vjp) -> Gradients:
    """All to the first live input: a function of one variable passes relevance on (Bach et al., 2015)."""
    return passed_to(v, live_inputs(v)[0])


def _to_first(_context: Context, v: Vjp) -> Gradients:
    """All to the first input, whose codes or numbers the others only scale."""
    if not v.wanted[0]:
        raise refused(v, f"input {live_inputs(v)[0]}, which is no signal")
    relevance = v.g if is_code(v.x) else v.op.cast(v.g, dtype_of(v.x))
    return [relevance, *[None] * (len(v.node.inputs) - 1)]


def _sum(context: Context, v: Vjp) -> Gradients:
    """Add, Sub and Sum: in proportion; a constant that is added to a layer's output is the bias of that layer."""
    live = live_inputs(v)
    if v.node in context.seen or (len(live) == 1 and _is_decoded(v.input(live[0]))):
        return passed_to(v, live[0])
    if v.node.op_type == "Add" and len(live) == 1 and not is_code(v.y):
        y, addend = v.input(live[0]), v.input(1 - live[0])
        if joins_layer(context, y, addend, v.y, v.node):
            return passed_to(v, live[0])
    return in_proportion(context, v)


def _is_decoded(value: ir.Value) -> bool:
    """Whether `value` is a code of a quantised network as a float: its zero point is no term of a sum."""
    node = value.producer()
    return node is not None and node.op_type == "Cast" and is_code(node.inputs[0])


def _mul(context: Context, v: Vjp) -> Gradients:
    """Mul: a gate only weighs the signal, which takes all; else both factors get half.

    Signal takes all: Arras et al., 2017, arXiv:1706.07206. Halves: arXiv:2402.05602, proposition 3.2.
    """
    live = live_inputs(v)
    if v.node in context.seen:
        return passed_to(v, live[0])
    strengths = [gate_strength(operand) for operand in v.node.inputs]
    if len(live) == 1 or strengths[0] == strengths[1]:
        return product_of_factors(v, live)
    return product_of_factors(v, [0 if strengths[0] < strengths[1] else 1])


def _div(context: Context, v: Vjp) -> Gradients:
    """Div: all to the numerator; a constant over something is a function of that."""
    if v.node in context.seen or not v.wanted[0]:
        return passed_to(v, live_inputs(v)[0])
    return product_of_factors(v, [0])


def _factors(context: Context, v: Vjp) -> Gradients:
    """Einsum: with one constant operand a dense layer; else evenly to all live operands."""
    if len(v.node.inputs) == 2 and len(live_inputs(v)) == 1:
        return through_layer(context, v)
    return in_proportion(context, v, degree=len(live_inputs(v)))


def _packed(context: Context, v: Vjp) -> Gradients:
    """A product with packed weights: the dense layer that it stands for."""
    if not v.wanted[0]:
        raise refused(v, f"input {live_inputs(v)[0]}, which is no signal")
    op = v.op
    rows = four_bit_weights(v) if v.node.op_type == "MatMulBnb4" else block_weights(v)
    weight = op.Transpose(op.cast(rows, dtype_of(v.x)), perm=[1, 0])
    weight.shape = ir.Shape([v.attribute("K"), v.attribute("N")])
    product = op.MatMul(v.x, weight)
    product.type, product.shape = v.y.type, v.y.shape
    bias = v.optional_input(5)
    addend, total = context.sums.get(v.y, (None, v.y))
    if bias is not None:
        addend = bias if addend is None else op.Add(bias, addend)
    if addend is not None:
        context.sums[product] = addend, total
    layer = replace(v, node=cast("ir.Node", product.producer()), wanted=(True, False))
    return [through_layer(context, layer)[0], *[None] * (len(v.node.inputs) - 1)]


def _of_powers(context: Context, v: Vjp, *, power: int) -> Gradients:
    """Sums of abs(x) ** power, or such sums' roots, in proportion: they are homogeneous of that degree in x."""
    return in_proportion(context, v, degree=power, among=[0])


def _reduce_log_sum(_context: Context, v: Vjp) -> Gradients:
    """ReduceLogSum: the logarithm passes, the sum is shared in proportion."""
    slope = cast("ir.Value", ordinary(v, v.g, [0])[0])
    return [v.op.Mul(v.x, slope), None]


def _dropout(context: Context, v: Vjp) -> Gradients | None:
    """Dropout: the identity; while training, a product with its random mask."""
    return None if v.optional_input(2) is None else in_proportion(context, v)


def _scatter(context: Context, v: Vjp) -> Gradients | None:
    """ScatterElements, ScatterND: moved; sums in proportion."""
    reduction = v.attribute("reduction", "none")
    if reduction == "mul":
        raise refused(v, "products of what meets in one place")
    return in_proportion(context, v) if reduction == "add" else None


def _resized(context: Context, v: Vjp) -> Gradients | None:
    """Resize: in proportion; codes are moved."""
    return None if is_code(v.y) else in_proportion(context, v, among=[0])


def _biased_gelu(context: Context, v: Vjp) -> Gradients:
    """Gelu of the plugin, of x plus a bias."""
    op, bias = v.op, v.optional_input(1)
    if bias is None:
        return [v.g, None]
    total = op.Add(v.x, bias)
    total.shape, total.type = v.x.shape, v.x.type
    if joins_layer(context, v.x, bias, total, v.node):
        return [v.g, None]
    return [op.Mul(v.x, quotient(op, v.g, total, context.epsilon)), None]


_signal = partial(in_proportion, among=[0])
_GROUPS: dict[Through, str] = {
    _moved: """
        BitCast Cast CastLike Compress Concat ConcatFromSequence DepthToSpace Expand Flatten Gather GatherElements
        GatherND GlobalMaxPool Identity If Loop Max MaxPool MaxRoiPool MaxUnpool Min OneHot Optional OptionalGetElement
        Pad ReduceLogSumExp ReduceMax ReduceMin Reshape ReverseSequence Scan SequenceAt SequenceConstruct SequenceErase
        SequenceInsert Slice SpaceToDepth Split SplitToSequence Squeeze TensorScatter Tile TopK Transpose Trilu Unique
        Unsqueeze Where ai.igonnx.private:StraightThrough""",
    _activation: """
        Abs Acos Acosh Asin Asinh Atan Atanh Celu Clip Cos Cosh Elu Erf Exp Gelu HardSigmoid HardSwish LRN LeakyRelu Log
        LpNormalization Mish Neg PRelu Pow Reciprocal Relu Selu Sigmoid Sin Sinh Softplus Softsign Sqrt Tan Tanh
        ThresholdedRelu""",
    _to_first: """
        DequantizeLinear DynamicQuantizeLinear QuantizeLinear com.microsoft:DequantizeLinear
        com.microsoft:QuantizeLinear""",
    _signal: "AveragePool Col2Im CumSum DFT DeformConv GlobalAveragePool GridSample ReduceMean ReduceSum RoiAlign STFT",
    in_proportion: "Mean Range",
    _sum: "Add Sub Sum",
    through_layer: "Conv ConvTranspose Gemm MatMul",
    _packed: "com.microsoft:MatMulBnb4 com.microsoft:MatMulNBits",
    partial(_of_powers, power=1): "GlobalLpPool LpPool ReduceL1 ReduceL2",
    partial(_of_powers, power=2): "ReduceSumSquare",
    _mul: "Mul",
    _div: "Div",
    _factors: "Einsum",
    _reduce_log_sum: "ReduceLogSum",
    _dropout: "Dropout",
    _scatter: "ScatterElements ScatterND",
    _resized: "Resize",
    _biased_gelu: "ai.igonnx:GeluWithSlope",
    softmax: "Softmax",
    log_softmax: "LogSoftmax",
    layer_normalisation: "LayerNormalization",
    instance_normalisation: "InstanceNormalization",
    batch_normalisation: "BatchNormalization",
}  # fmt: skip


def _key(name: str) -> Key:
    domain, _, op_type = name.rpartition(":")
    return domain, op_type


# (domain, operator): its rule.
RULES: dict[Key, Through] = {
    _key(name): through for through, names in _GROUPS.items() for name in names.split()
}
# Operators that have a gradient, but no rule here: products of many factors, and remainders.
REFUSED: frozenset[Key] = frozenset(map(_key, ["CumProd", "Det", "Mod", "ReduceProd"]))


def rule_of(v: Vjp) -> Through:
    """The rule of the node's operator; an error that names it where there is none."""
    domain = "" if v.node.domain == "ai.onnx" else v.node.domain
    found = RULES.get((domain, v.node.op_type))
    if found is None:
        raise refused(v, "this operator: explain a tensor behind it with wrt=")
    return found
