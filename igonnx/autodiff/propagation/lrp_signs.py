"""Layer-wise relevance propagation: what the operator that makes a tensor tells of its sign and of its role."""

from __future__ import annotations

import onnx_ir as ir

from igonnx.graph.node_view import constant_of

__all__ = ["MOVES", "gate_strength", "is_constant", "never_negative"]

# Operators whose outputs consist of elements of their first input.
MOVES = frozenset(
    [
        "Cast", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape",
        "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    ]
)  # fmt: skip
_POSITIVE = frozenset(
    ["Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax", "Softplus", "Sqrt"]
)
# As they are, of elements that are not negative.
_KEEPS_SIGN = MOVES | {
    "AveragePool", "Dropout", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMax", "ReduceMean", "ReduceSum",
}  # fmt: skip
_ALL_TOGETHER = frozenset(["Add", "Concat", "Mean", "Min", "Mul", "Sum"])
_DEPTH = 40


def never_negative(value: ir.Value | None, depth: int = _DEPTH) -> bool:
    """Whether the operators that make `value` allow no element below zero."""
    constant = constant_of(value)
    if constant is not None:
        return not bool((constant.numpy() < 0).any())
    node = None if value is None else value.producer()
    if node is None or depth == 0 or node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in _POSITIVE:
        return True
    if node.op_type in _KEEPS_SIGN:
        return never_negative(node.inputs[0], depth - 1)
    if node.op_type == "Clip":
        return len(node.inputs) > 1 and is_constant(node.inputs[1], at_least=0)
    if node.op_type == "Max":
        return any(is_constant(operand, at_least=0) for operand in node.inputs)
    if node.op_type in _ALL_TOGETHER:
        return all(never_negative(operand, depth - 1) for operand in node.inputs)
    return False


def is_constant(value: ir.Value | None, *, at_least: float | None = None) -> bool:
    """Whether `value` is a constant, of numbers that are all at least so large."""
    constant = constant_of(value)
    if constant is None:
        return False
    return at_least is None or bool((constant.numpy() >= at_least).all())


def gate_strength(value: ir.Value | None, depth: int = _DEPTH) -> int:
    """How surely a factor only weighs the other one: 2 for gates and divisors, 1 where it could be either, else 0.

    Gates (2) are Sigmoid, HardSigmoid, Softmax, 1 plus Tanh or Erf (of a Gelu that is written out), Tanh of something
    that is not negative (of Mish), one divided by something, and their complements 1 - gate; a Clip from zero or above
    up to a constant (1) is one in a HardSwish that is written out, and a signal behind a ReLU6.
    """
    node = None if value is None else value.producer()
    if node is None or depth == 0 or node.domain not in ("", "ai.onnx"):
        return 0
    kind = node.op_type
    if kind in MOVES or kind == "Dropout":
        return gate_strength(node.inputs[0], depth - 1)
    if kind in ("Sigmoid", "HardSigmoid", "Softmax", "Reciprocal"):
        return 2
    if kind == "Tanh":
        return 2 if never_negative(node.inputs[0]) else 0
    if kind == "Clip":
        ends = [*node.inputs[1:3], None, None][:2]
        return int(is_constant(ends[0], at_least=0) and is_constant(ends[1]))
    if kind == "Pow":
        exponent = constant_of(node.inputs[1])
        return 2 if exponent is not None and bool((exponent.numpy() < 0).all()) else 0
    if kind in ("Add", "Sub", "Mul", "Div") and any(is_constant(one) for one in node.inputs):
        return _with_constant(node, depth)
    return 0


def _with_constant(node: ir.Node, depth: int) -> int:
    """The strength of a gate that a constant is added to, or that it is scaled by."""
    first, second = node.inputs
    other = second if is_constant(first) else first
    if node.op_type == "Div" and other is second:
        return 2
    inner = None if other is None else other.producer()
    if node.op_type in ("Add", "Sub") and inner is not None and inner.op_type in ("Tanh", "Erf"):
        return 2
    return gate_strength(other, depth - 1)
