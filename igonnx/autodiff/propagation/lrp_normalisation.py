"""Layer-wise relevance propagation through normalisations and softmax.

A normalisation (x - mean) / deviation is linear once its deviation counts as a constant: it gets no relevance, and the
centring, the scale and the bias are shared like every sum (Ali et al., 2022, arXiv:2202.07304; where there is no mean,
as in RMS normalisation, that is the identity rule of Achtibat et al., 2024, arXiv:2402.05602, proposition 3.4). A model
that writes its normalisation out in sums, products and quotients gets the same.
"""

from __future__ import annotations

from typing import cast

import onnx_ir as ir

from igonnx.autodiff.propagation.lrp_parameters import Context
from igonnx.autodiff.propagation.lrp_shares import (
    in_proportion,
    live_inputs,
    quotient,
    refused,
)
from igonnx.autodiff.registry import Gradients, Vjp
from igonnx.autodiff.rules.normalization import accumulator, per_channel
from igonnx.graph.builder import dtype_of, rank

__all__ = [
    "batch_normalisation",
    "instance_normalisation",
    "layer_normalisation",
    "log_softmax",
    "softmax",
]


def layer_normalisation(context: Context, v: Vjp) -> Gradients:
    """LayerNormalization over the axes from `axis` on."""
    if any(gradient is not None for gradient in v.gradients[1:]):
        raise refused(v, "the mean or the deviation that it puts out")
    axes = list(range(v.attribute("axis", -1) % rank(v.x), rank(v.x)))
    return _normalised(context, v, axes, v.input(1))


def instance_normalisation(context: Context, v: Vjp) -> Gradients:
    """InstanceNormalization: per example and channel."""
    scale = per_channel(v.op, v.input(1), rank(v.x))
    return _normalised(context, v, list(range(2, rank(v.x))), scale)


def _normalised(context: Context, v: Vjp, axes: list[int], scale: ir.Value) -> Gradients:
    """Shares of (x - mean) scale / deviation + bias, whose deviation is taken for a constant."""
    _require_constant_parameters(v)
    op, precise = v.op, accumulator(dtype_of(v.x))
    x, y, relevance, scale = (op.cast(value, precise) for value in (v.x, v.y, v.g, scale))
    centred = op.Sub(x, op.reduce("ReduceMean", x, axes))
    variance = op.reduce("ReduceMean", op.Mul(centred, centred), axes)
    inverse = op.Reciprocal(op.Sqrt(op.Add(variance, v.attribute("epsilon", 1e-5))))
    share = op.Mul(quotient(op, relevance, y, context.epsilon), scale)
    back = op.Mul(op.Sub(share, op.reduce("ReduceMean", share, axes)), inverse)
    found: list[ir.Value | None] = [None] * len(v.node.inputs)
    found[0] = op.cast(op.Mul(x, back), dtype_of(v.x))
    return found


def batch_normalisation(context: Context, v: Vjp) -> Gradients:
    """BatchNormalization with given statistics: a layer of its own, linear, with a bias."""
    _require_constant_parameters(v)
    if v.attribute("training_mode", 0):
        raise refused(v, "statistics of the batch itself")
    return in_proportion(context, v)


def _require_constant_parameters(v: Vjp) -> None:
    parameters = [index for index in live_inputs(v) if index > 0]
    if parameters:
        raise refused(v, f"input {parameters[0]}, a parameter that depends on explained tensors")


def softmax(_context: Context, v: Vjp) -> Gradients:
    """The first-order expansion, x_i (R_i - s_i sum_j R_j), s the softmax (arXiv:2402.05602, proposition 3.1)."""
    op, y = v.op, v.y
    total = op.ReduceSum(v.g, [v.attribute("axis", -1)], keepdims=1)
    return [_where_possible(v, y, op.Mul(v.x, op.Sub(v.g, op.Mul(y, total))))]


def log_softmax(context: Context, v: Vjp) -> Gradients:
    """LogSoftmax: the difference of x and the logarithm of a sum, whose share goes back by the softmax."""
    op, axis = v.op, v.attribute("axis", -1)
    chances = op.Exp(v.y)
    share = quotient(op, v.g, v.y, context.epsilon)
    of_sum = op.ReduceSum(
        op.Mul(share, op.reduce("ReduceLogSumExp", v.x, [axis])), [axis], keepdims=1
    )
    return [_where_possible(v, chances, op.Sub(op.Mul(v.x, share), op.Mul(chances, of_sum)))]


def _where_possible(v: Vjp, chances: ir.Value, relevance: ir.Value) -> ir.Value:
    """`relevance` where the softmax is above zero: what a mask excludes may be infinite."""
    op = v.op
    possible = op.Greater(chances, op.scalar(0.0, chances))
    return cast("ir.Value", op.Where(possible, relevance, op.scalar(0.0, relevance)))
