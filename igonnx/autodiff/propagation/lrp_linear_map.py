"""Layer-wise relevance propagation: layers with weights as linear maps, with other weights and without their bias."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.autodiff.propagation.lrp_parameters import Context
from igonnx.autodiff.propagation.lrp_shares import live_inputs, ordinary
from igonnx.autodiff.registry import Gradients, Vjp
from igonnx.graph.builder import GraphBuilder, dims, rank
from igonnx.graph.node_view import attributes_of, constant_of

__all__ = [
    "CONVOLUTIONS",
    "Layer",
    "joins_layer",
    "layer_of",
    "mixed",
    "negative_part",
    "positive_part",
    "without_bias",
]

CONVOLUTIONS = frozenset(["Conv", "ConvTranspose"])
LAYERS = CONVOLUTIONS | {"Einsum", "Gemm", "MatMul", "MatMulBnb4", "MatMulNBits"}


@dataclass(frozen=True)
class Layer:
    """A node that is linear in one of its inputs, `data`, by weights, its input `weight`."""

    v: Vjp
    data: int
    weight: int
    bias: ir.Value | None  # broadcasts to z
    z: ir.Value  # with the bias

    @property
    def op(self) -> GraphBuilder:
        """The builder."""
        return self.v.op

    @property
    def a(self) -> ir.Value:
        """What the layer reads."""
        return self.v.input(self.data)

    @property
    def w(self) -> ir.Value:
        """Its weights."""
        return self.v.input(self.weight)

    def of(self, a: ir.Value, w: ir.Value) -> ir.Value:
        """The same linear map of `a` by the weights `w`, without bias."""
        result = self._node(a, w).outputs[0]
        result.type = self.v.y.type
        result.shape = self.v.y.shape if a.shape == self.a.shape else None
        return result

    def back(self, w: ir.Value, arriving: ir.Value) -> ir.Value:
        """What arrives at z taken back to the input by the weights `w`: W^T s."""
        node = self._node(self.a, w)
        node.outputs[0].type, node.outputs[0].shape = self.v.y.type, self.v.y.shape
        copy = replace(self.v, node=node)
        return cast("ir.Value", ordinary(copy, arriving, [self.data])[self.data])

    def to_data(self, relevance: ir.Value) -> Gradients:
        """`relevance` for the input alone."""
        found: list[ir.Value | None] = [None] * len(self.v.node.inputs)
        found[self.data] = relevance
        return found

    def _node(self, a: ir.Value, w: ir.Value) -> ir.Node:
        given, inputs = self.v.node, [a, w] if self.data == 0 else [w, a]
        (result,) = self.op.emit_all(
            given.op_type, *inputs, outputs=1, domain=given.domain, **attributes_of(given)
        )
        return cast("ir.Node", result.producer())


def layer_of(context: Context, v: Vjp) -> Layer | None:
    """The layer that the node is; None where its weights or its bias are live."""
    live = live_inputs(v)
    if len(live) != 1 or live[0] > 1 or (live[0] == 1 and v.node.op_type in CONVOLUTIONS):
        return None
    addend, z = context.sums.get(v.y, (None, v.y))
    bias = _own_bias(v)
    if addend is not None:
        bias = addend if bias is None else v.op.Add(bias, addend)
    return Layer(v, live[0], 1 - live[0], bias, z)


def joins_layer(
    context: Context, y: ir.Value, addend: ir.Value, total: ir.Value, reader: ir.Node
) -> bool:
    """Note that `addend`, a constant, is the bias of the layer whose output is y, if only `reader` reads that.

    `total` is the sum of the two, which the relevance is of.
    """
    node = y.producer()
    if node is None or node.op_type not in LAYERS:
        return False
    others = {use.node for use in y.uses()} - {reader}
    sums = {n for n in others if n.op_type == "Add" and set(n.inputs) == {y, addend}}  # the same
    if others - sums or y.is_graph_output():
        return False
    if y.shape is None or total.shape is None or dims(y) != dims(total) or None in dims(y):
        return False
    context.sums[y] = addend, total
    return True


def without_bias(layer: Layer) -> ir.Value:
    """The output of the layer less its bias."""
    if layer.bias is None:
        return layer.z
    if _own_bias(layer.v) is None:
        return layer.v.y
    return cast("ir.Value", layer.op.Sub(layer.z, layer.bias))


def positive_part(op: GraphBuilder, value: ir.Value) -> ir.Value:
    """max(value, 0), a constant of a constant."""
    return mixed(op, value, 0.0, 1.0, 1)


def negative_part(op: GraphBuilder, value: ir.Value) -> ir.Value:
    """min(value, 0), a constant of a constant."""
    return mixed(op, value, 0.0, 1.0, -1)


def mixed(op: GraphBuilder, value: ir.Value, whole: float, part: float, sign: int) -> ir.Value:
    """`whole` times the value plus `part` times its positive or negative part."""
    constant = constant_of(value)
    if constant is not None and not isinstance(constant, ir.ExternalTensor):
        array = constant.numpy()
        zero = array.dtype.type(0)
        kept = np.maximum(array, zero) if sign > 0 else np.minimum(array, zero)
        mixed = array * array.dtype.type(whole) + kept * array.dtype.type(part)
        return op.constant(mixed.astype(array.dtype))
    limit = op.Max if sign > 0 else op.Min
    kept = limit(value, op.scalar(0.0, value))
    if part != 1:
        kept = op.Mul(kept, part)
    if whole:
        kept = op.Add(op.Mul(value, whole) if whole != 1 else value, kept)
    kept.shape, kept.type = value.shape, value.type
    return cast("ir.Value", kept)


def _own_bias(v: Vjp) -> ir.Value | None:
    """The node's own bias, shaped to broadcast to its output."""
    op = v.op
    bias = None if v.node.op_type == "MatMul" else v.optional_input(2)
    if bias is None:
        return None
    if v.node.op_type == "Gemm":
        beta = float(v.attribute("beta", 1.0))
        return bias if beta == 1 else cast("ir.Value", op.Mul(bias, beta))
    shape = [1, -1, *[1] * (rank(v.x) - 2)]
    constant = constant_of(bias)
    if constant is not None:
        return op.constant(constant.numpy().reshape(shape))
    return cast("ir.Value", op.Reshape(bias, shape))
