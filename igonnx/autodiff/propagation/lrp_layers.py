"""Layer-wise relevance propagation through layers with weights, z = W a + b.

With p_ij = a_i w_ij the contribution of input i to output j, and ^+ and ^- its positive and negative part:

epsilon      a_i sum_j w_ij R_j / (z_j + epsilon sign(z_j))
gamma        where z_j >= 0: (p_ij + gamma p_ij^+) R_j / (sum_k (p_kj + gamma p_kj^+)), which favours what agrees with
             the output; where z_j < 0 likewise with ^- (Montavon et al., 2019, doi 10.1007/978-3-030-28954-6_10; for
             inputs of either sign Andeol et al., 2021, arXiv:2112.13551)
alpha_beta   alpha p_ij^+ R_j / (sum_k p_kj^+) - beta p_ij^- R_j / (sum_k p_kj^-), with alpha - beta = 1; alpha = 1 is
             the z+ rule (Bach et al., 2015; Montavon et al., 2017, doi 10.1016/j.patcog.2016.11.008)

Where all contributions have one sign, the alpha-beta rule gives them all: alpha = 1, or beta = -1. Denominators are
moved away from zero by epsilon everywhere. A bias is one more contribution, whose share is lost.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import onnx_ir as ir

from igonnx.autodiff.propagation.lrp_input_layer import through_input_layer
from igonnx.autodiff.propagation.lrp_linear_map import (
    CONVOLUTIONS,
    Layer,
    layer_of,
    mixed,
    negative_part,
    positive_part,
    without_bias,
)
from igonnx.autodiff.propagation.lrp_parameters import AlphaBeta, Context, Gamma
from igonnx.autodiff.propagation.lrp_shares import (
    in_proportion,
    live_inputs,
    ordinary,
    quotient,
)
from igonnx.autodiff.propagation.lrp_signs import never_negative
from igonnx.autodiff.registry import Gradients, Vjp
from igonnx.graph.builder import GraphBuilder

__all__ = ["through_layer"]


def through_layer(context: Context, v: Vjp) -> Gradients:
    """Conv, ConvTranspose, Gemm, MatMul and their kind; those whose weights are live, too, are products."""
    layer = layer_of(context, v)
    if layer is None:
        return _product(context, v)
    if context.first is not None:
        relevance = through_input_layer(context, layer, context.first)
        if relevance is not None:
            return layer.to_data(relevance)
    rule = context.convolution if v.node.op_type in CONVOLUTIONS else context.dense
    if isinstance(rule, Gamma):
        return layer.to_data(_gamma(context, layer, rule.gamma))
    if isinstance(rule, AlphaBeta):
        return layer.to_data(_alpha_beta(context, layer, rule.alpha, rule.beta))
    share = quotient(v.op, v.g, layer.z, context.epsilon)
    slope = cast("ir.Value", ordinary(v, share, [layer.data])[layer.data])
    return layer.to_data(v.op.Mul(layer.a, slope))


def _product(context: Context, v: Vjp) -> Gradients:
    """Both factors live: half to each, as for attention (Achtibat et al., 2024, arXiv:2402.05602, equation 14)."""
    live = live_inputs(v)
    if v.y in context.sums:  # what is added takes its share first
        share = quotient(v.op, v.g, context.sums[v.y][1], context.epsilon)
        v = replace(v, gradients=(v.op.Mul(v.y, share),))
    shares = list(in_proportion(context, v))
    if {0, 1} <= set(live):
        for index in (0, 1):
            shares[index] = v.op.Mul(cast("ir.Value", shares[index]), 0.5)
    return shares


def _gamma(context: Context, layer: Layer, gamma: float) -> ir.Value:
    op, w = layer.op, layer.w
    z = layer.z if context.bias else without_bias(layer)
    positive, negative = _parts_of_data(layer)
    agreeing = _sum_of_sign(context, layer, 1)
    up = op.GreaterOrEqual(z, op.scalar(0.0, z))
    # The two parts add up to z.
    boosted = op.Where(up, agreeing, op.Sub(z, agreeing))
    share = quotient(op, layer.v.g, op.Add(z, op.Mul(boosted, gamma)), context.epsilon)
    zero = op.scalar(0.0, share)
    at_up, at_down = op.Where(up, share, zero), op.Where(up, zero, share)
    more = mixed(op, w, 1.0, gamma, 1)
    less = mixed(op, w, 1.0, gamma, -1)
    to_a = op.Mul(positive, op.Add(layer.back(more, at_up), layer.back(less, at_down)))
    if negative is not None:
        back = op.Add(layer.back(less, at_up), layer.back(more, at_down))
        to_a = op.Add(to_a, op.Mul(negative, back))
    return cast("ir.Value", to_a)


def _alpha_beta(context: Context, layer: Layer, alpha: float, beta: float) -> ir.Value:
    op, w = layer.op, layer.w
    positive, negative = _parts_of_data(layer)
    sums = {sign: _sum_of_sign(context, layer, sign) for sign in ((1, -1) if beta else (1,))}
    total = None
    for sign, factor in zip(sums, (alpha, -beta), strict=False):
        share = quotient(op, layer.v.g, sums[sign], context.epsilon)
        if beta:
            zero = op.scalar(0.0, share)
            both = op.Not(op.Equal(sums[-sign], zero))
            share = op.Mul(share, op.Where(both, op.scalar(factor, share), op.scalar(1.0, share)))
        to_a = op.Mul(positive, layer.back(_part(op, w, sign), share))
        if negative is not None:
            other = layer.back(_part(op, w, -sign), share)
            to_a = op.Add(to_a, op.Mul(negative, other))
        total = to_a if total is None else op.Add(total, to_a)
    return cast("ir.Value", total)


def _sum_of_sign(context: Context, layer: Layer, sign: int) -> ir.Value:
    """The sum of all contributions of one sign, the bias among them, in the shape of z."""
    op, w = layer.op, layer.w
    positive, negative = _parts_of_data(layer)
    total = layer.of(positive, _part(op, w, sign))
    if negative is not None:
        total = op.Add(total, layer.of(negative, _part(op, w, -sign)))
    if context.bias and layer.bias is not None:
        total = op.Add(total, _part(op, layer.bias, sign))
    return total


def _parts_of_data(layer: Layer) -> tuple[ir.Value, ir.Value | None]:
    """The positive and the negative part of what the layer reads; None where it is never negative."""
    if never_negative(layer.a):
        return layer.a, None
    return _part(layer.op, layer.a, 1), _part(layer.op, layer.a, -1)


def _part(op: GraphBuilder, value: ir.Value, sign: int) -> ir.Value:
    return positive_part(op, value) if sign > 0 else negative_part(op, value)
