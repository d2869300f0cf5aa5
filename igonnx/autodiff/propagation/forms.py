"""Operators that are taken apart into simpler ones, for which a propagation has rules.

Most follow the definitions of the ONNX standard. A variance is the mean of squared deviations, never the difference of
two means, so that no digits are lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import onnx_ir as ir

from igonnx.autodiff.rules.normalization import per_channel
from igonnx.graph.builder import GraphBuilder, dtype_of, rank
from igonnx.graph.node_view import NodeView, take_place
from igonnx.graph.shape_inference import infer_shapes

__all__ = ["FORMS", "take_apart"]

# One value per output of the node, or None where the node stays as it is.
Form: TypeAlias = "Callable[[NodeView], Sequence[ir.Value] | None]"


def take_apart(model: ir.Model, nodes: Sequence[ir.Node]) -> None:
    """Write those of `nodes` that have a form below in simpler operators, in place; names of tensors stay."""
    op, changed = GraphBuilder(model, scope="parts"), False
    for node in nodes:
        form = FORMS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if form is None:
            continue
        with op.before(node):
            results = form(NodeView(op, node))
        if results is None:
            continue
        for old, new in zip(node.outputs, results, strict=False):
            kind, shape = old.type, old.shape
            take_place(old, new)
            new.type, new.shape = kind, shape
        cast("ir.Graph", node.graph).remove(node, safe=True)
        changed = True
    if changed:
        infer_shapes(model)


# -- normalisation -----------------------------------------------------------------------------


def _layer_normalization(n: NodeView) -> Sequence[ir.Value]:
    """(x - mean) / sqrt(variance + epsilon), scaled and shifted; mean and inverse deviation may be outputs."""
    op, dtype = n.op, dtype_of(n.x)
    axes = list(range(n.attribute("axis", -1) % rank(n.x), rank(n.x)))
    x = op.cast(n.x, ir.DataType(n.attribute("stash_type", 1))) if dtype.bitwidth < 32 else n.x
    mean, normalized, deviation = _normalized(op, x, axes, n.attribute("epsilon", 1e-5))
    y = op.Mul(op.cast(normalized, dtype), n.input(1))
    bias = n.optional_input(2)
    y = y if bias is None else op.Add(y, bias)
    return [y, mean, op.Reciprocal(deviation)][: len(n.node.outputs)]


def _instance_normalization(n: NodeView) -> Sequence[ir.Value]:
    """The same per example and channel, over the spatial axes."""
    op, axes = n.op, list(range(2, rank(n.x)))
    _, normalized, _ = _normalized(op, n.x, axes, n.attribute("epsilon", 1e-5))
    scale, bias = (per_channel(op, n.input(i), rank(n.x)) for i in (1, 2))
    return [op.Add(op.Mul(normalized, scale), bias)]


def _normalized(
    op: GraphBuilder, x: ir.Value, axes: list[int], epsilon: float
) -> tuple[Any, Any, Any]:
    mean = op.reduce("ReduceMean", x, axes)
    centred = op.Sub(x, mean)
    variance = op.reduce("ReduceMean", op.Mul(centred, centred), axes)
    deviation = op.Sqrt(op.Add(variance, op.scalar(epsilon, x)))
    return mean, op.Div(centred, deviation), deviation


def _lrn(n: NodeView) -> Sequence[ir.Value]:
    """The input times s^-beta with s = bias + alpha times the mean of squares over neighbouring channels."""
    op, x, size = n.op, n.x, n.attribute("size")
    rows = op.join(op.dim(x, 0), [1], op.dim(x, 1), op.count(x, range(2, rank(x))))
    pooled = op.AveragePool(
        op.Reshape(op.Mul(x, x), rows),
        kernel_shape=[size, 1],
        pads=[(size - 1) // 2, 0, size // 2, 0],
        count_include_pad=1,
    )
    squares = op.reshape_like(pooled, x)
    s = op.Add(op.Mul(squares, n.attribute("alpha", 1e-4)), n.attribute("bias", 1.0))
    return [op.Div(x, op.Pow(s, op.scalar(n.attribute("beta", 0.75), x)))]


def _lp_normalization(n: NodeView) -> Sequence[ir.Value]:
    """The input over its norm, and zero where that is zero."""
    op, x, axes = n.op, n.x, [n.attribute("axis", -1) % rank(n.x)]
    if n.attribute("p", 2) == 1:
        norm = op.ReduceSum(op.Abs(x), axes, keepdims=1)
    else:
        norm = op.Sqrt(op.ReduceSum(op.Mul(x, x), axes, keepdims=1))
    smallest = float(np.finfo(np.float32).tiny)
    return [op.Div(x, op.Max(norm, op.scalar(smallest, x)))]


# -- reductions --------------------------------------------------------------------------------


def _summed(n: NodeView, terms: ir.Value) -> ir.Value:
    """`terms`, shaped as the input of a reduction, added up over its axes."""
    settings = {"keepdims": n.attribute("keepdims", 1)}
    if n.attribute("noop_with_empty_axes", 0):
        settings["noop_with_empty_axes"] = 1
    axes = n.optional_input(1)
    if axes is None:
        given = n.attribute("axes")
        axes = None if given is None else n.op.ints(given)
    return cast("ir.Value", n.op.ReduceSum(terms, axes, **settings))


def _reduce_l1(n: NodeView) -> Sequence[ir.Value]:
    return [_summed(n, n.op.Abs(n.x))]


def _reduce_l2(n: NodeView) -> Sequence[ir.Value]:
    return [n.op.Sqrt(_summed(n, n.op.Mul(n.x, n.x)))]


def _reduce_sum_square(n: NodeView) -> Sequence[ir.Value]:
    return [_summed(n, n.op.Mul(n.x, n.x))]


def _reduce_log_sum(n: NodeView) -> Sequence[ir.Value]:
    return [n.op.Log(_summed(n, n.x))]


def _reduce_log_sum_exp(n: NodeView) -> Sequence[ir.Value] | None:
    """Reduced axes are first kept, as ones, and squeezed out behind; of single elements, log exp x is x."""
    op, axes = n.op, n.axes()
    if axes is None and n.optional_input(1) is not None:
        return None
    if not axes and n.attribute("noop_with_empty_axes", 0):
        return [op.Identity(n.x)]
    if n.attribute("keepdims", 1):
        return None
    axes = axes or list(range(rank(n.x)))
    return [op.Squeeze(op.reduce("ReduceLogSumExp", n.x, axes), axes)]


# -- several inputs ----------------------------------------------------------------------------


def _two_by_two(n: NodeView) -> Sequence[ir.Value] | None:
    """Max and Min of more than two tensors."""
    values = list(n.node.inputs)
    if len(values) == 1:
        return [n.op.Identity(values[0])]
    if len(values) == 2:
        return None
    result = values[0]
    for value in values[1:]:
        result = n.op.emit(n.node.op_type, result, value)
    return [cast("ir.Value", result)]


def _clip(n: NodeView) -> Sequence[ir.Value] | None:
    """Clip between bounds that are no constants."""
    bounds = [n.optional_input(1), n.optional_input(2)]
    if all(b is None or n.constant(i) is not None for i, b in enumerate(bounds, 1)):
        return None
    y = n.x
    for operator, bound in zip(("Max", "Min"), bounds, strict=True):
        y = y if bound is None else n.op.emit(operator, y, bound)
    return [y]


FORMS: dict[str, Form] = {
    "Clip": _clip,
    "InstanceNormalization": _instance_normalization,
    "LRN": _lrn,
    "LayerNormalization": _layer_normalization,
    "LpNormalization": _lp_normalization,
    "Max": _two_by_two,
    "Min": _two_by_two,
    "ReduceL1": _reduce_l1,
    "ReduceL2": _reduce_l2,
    "ReduceLogSum": _reduce_log_sum,
    "ReduceLogSumExp": _reduce_log_sum_exp,
    "ReduceSumSquare": _reduce_sum_square,
}
