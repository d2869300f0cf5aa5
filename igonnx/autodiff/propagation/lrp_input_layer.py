"""Layer-wise relevance propagation: rules of the layers that read an explained tensor, in the place of their own.

An input is no activation: zero means nothing in particular for a pixel, and a feature may be negative.

flat   a_i = 1 and w_ij = 1: the relevance of an output is spread evenly over all inputs that it reads (Bach et al.,
       2016, arXiv:1606.04155; Lapuschkin et al., 2019, arXiv:1902.10178)
box    sum_j (x_i w_ij - l_i w_ij^+ - h_i w_ij^-) R_j / (sum_k x_k w_kj - l_k w_kj^+ - h_k w_kj^-) for inputs between l
       and h: the contributions beyond those of the worst case (Montavon et al., 2017, doi 10.1016/j.patcog.2016.11.008,
       there z^B). It has no use for biases, and conserves relevance.

A layer reads the explained tensor also through operators that move its elements, and through sums, differences,
products and quotients with constants element by element, such as the standardisation of an image: those are a part of
the layer then, and hand its relevance on as it is.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.autodiff.propagation.lrp_linear_map import Layer, negative_part, positive_part
from igonnx.autodiff.propagation.lrp_parameters import Box, Context, InputRule
from igonnx.autodiff.propagation.lrp_shares import quotient
from igonnx.errors import InputError
from igonnx.graph.builder import GraphBuilder, dims, dtype_of
from igonnx.graph.node_view import attributes_of, constant_of

__all__ = ["through_input_layer"]

_AFFINE = frozenset(["Add", "Sub", "Mul", "Div"])
_MOVES = frozenset(
    ["Cast", "DepthToSpace", "Flatten", "Identity", "Pad", "Reshape", "Slice", "SpaceToDepth", "Squeeze", "Transpose",
     "Unsqueeze"]
)  # fmt: skip


def through_input_layer(context: Context, layer: Layer, rule: InputRule) -> ir.Value | None:
    """The relevance of what the layer reads; None where that is no explained tensor."""
    chain = _from_explained(layer)
    if chain is None:
        return None
    source, nodes = chain
    context.seen.update(node for node in nodes if node.op_type in _AFFINE)
    if isinstance(rule, Box):
        return _box(context, layer, rule, source, nodes)
    return _flat(context, layer, source, nodes)


def _from_explained(layer: Layer) -> tuple[ir.Value, list[ir.Node]] | None:
    """The explained tensor that the layer reads, and the operators in between, in their order."""
    value, nodes = layer.a, list[ir.Node]()
    while (node := value.producer()) is not None:
        if node.domain not in ("", "ai.onnx"):
            return None
        found = _read_by(node)
        if found is None:
            return None
        nodes.append(node)
        value = found
    # Inputs of bodies have no producer, either.
    known = layer.op.model.graph.inputs
    return (value, nodes[::-1]) if value in known else None


def _read_by(node: ir.Node) -> ir.Value | None:
    """The one tensor whose elements the node moves or maps one by one; None where it does something else."""
    if node.op_type in _MOVES:
        return node.inputs[0]
    if node.op_type not in _AFFINE:
        return None
    first, second = (cast("ir.Value", operand) for operand in node.inputs)
    if constant_of(second) is not None:
        live = first
    elif constant_of(first) is not None and node.op_type != "Div":
        live = second
    else:
        return None
    same = live.shape is not None and node.outputs[0].shape is not None
    return live if same and dims(live) == dims(node.outputs[0]) else None


def _flat(context: Context, layer: Layer, source: ir.Value, nodes: list[ir.Node]) -> ir.Value:
    op = layer.op
    moves = [node for node in nodes if node.op_type in _MOVES]
    ones = _again(op, _filled(layer, source, 1.0, moves), moves)
    weight = layer.w
    constant = constant_of(weight)
    if constant is not None:
        even = op.constant(np.ones_like(constant.numpy()))
    else:
        even = op.Expand(op.scalar(1.0, weight), op.shape(weight))
        even.shape, even.type = weight.shape, weight.type
    share = quotient(op, layer.v.g, layer.of(ones, even), context.epsilon)
    return cast("ir.Value", op.Mul(ones, layer.back(even, share)))


def _box(
    context: Context, layer: Layer, rule: Box, source: ir.Value, nodes: list[ir.Node]
) -> ir.Value:
    op, a, w = layer.op, layer.a, layer.w
    ends = [
        _again(op, _bound(layer, source, given, nodes), nodes) for given in (rule.low, rule.high)
    ]
    low, high = op.Min(*ends), op.Max(*ends)  # a negative factor has turned them around
    for end in (low, high):
        end.shape, end.type = ends[0].shape, a.type
    above, below = positive_part(op, w), negative_part(op, w)
    z = layer.of(a, w)
    z = op.Sub(op.Sub(z, layer.of(low, above)), layer.of(high, below))
    share = quotient(op, layer.v.g, z, context.epsilon)
    relevance = op.Mul(a, layer.back(w, share))
    relevance = op.Sub(relevance, op.Mul(low, layer.back(above, share)))
    return cast("ir.Value", op.Sub(relevance, op.Mul(high, layer.back(below, share))))


def _bound(
    layer: Layer,
    source: ir.Value,
    given: tuple[bytes, tuple[int, ...]],
    nodes: list[ir.Node],
) -> ir.Value:
    data, shape = given
    array = np.frombuffer(data, np.float64).reshape(shape)
    sizes = dims(source)[1:]
    padded = (1,) * (len(sizes) - len(shape)) + shape
    fits = len(shape) <= len(sizes) and all(
        size == 1 or size == known or not isinstance(known, int)
        for size, known in zip(padded, sizes, strict=True)
    )
    if not fits:
        raise InputError(
            f"low or high has shape {list(shape)}; expected one that broadcasts to {list(sizes)}, "
            f"the shape of {source.name!r} without its first axis"
        )
    return _filled(layer, source, array, nodes)


def _filled(
    layer: Layer, like: ir.Value, array: float | np.ndarray, nodes: list[ir.Node]
) -> ir.Value:
    """`array` in the shape of `like`; in that of one row where the layer and `nodes` in front let it broadcast."""
    op, sizes = layer.op, dims(like)[1:]
    typed = np.asarray(array, dtype_of(like).numpy())
    broadcasts = layer.v.node.op_type == "Conv" and all(n.op_type in _AFFINE for n in nodes)
    if broadcasts and all(isinstance(size, int) for size in sizes):
        one = (1, *cast("tuple[int, ...]", sizes))
        return op.constant(np.ascontiguousarray(np.broadcast_to(typed, one)))
    full = op.Expand(op.constant(typed), op.shape(like))
    full.shape, full.type = like.shape, like.type
    return cast("ir.Value", full)


def _again(op: GraphBuilder, value: ir.Value, nodes: list[ir.Node]) -> ir.Value:
    """What `nodes`, one behind the other, make of `value`."""
    for node in nodes:
        before, after = _read_by(node), node.outputs[0]
        inputs = [value if operand is before else operand for operand in node.inputs]
        result = op.emit(node.op_type, *inputs, **attributes_of(node))
        result.type = after.type
        result.shape = value.shape if node.op_type in _AFFINE else after.shape
        value = result
    return value
