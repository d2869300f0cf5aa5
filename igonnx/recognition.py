"""Functions that a model writes out in several operators, put back together for the native engine.

Exporters write Gelu as a division, an erf, a sum and two products. ONNX Runtime puts them together again, but only as
long as nobody reads what is in between, as a gradient does.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TypeAlias, cast

import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder, dims
from igonnx.graph.node_view import constant_of

__all__ = ["recognise"]

PLUGIN = "ai.igonnx"
# Coefficients by degree.
Polynomial: TypeAlias = "dict[int, float]"
_DEGREE = 3
_EXACT: Polynomial = {1: math.sqrt(0.5)}
_BY_TANH: Polynomial = {1: math.sqrt(2 / math.pi), 3: 0.044715 * math.sqrt(2 / math.pi)}


def recognise(op: GraphBuilder, keep: Collection[ir.Value]) -> None:
    """Rewrite the graph of `op`, in place, for its native target; values in `keep` stay computed as they are.

    Every Gelu, written out or not, becomes the plugin's GeluWithSlope, together with the bias that is added in front
    of it. The scales of the two factors of attention scores become one scale of their product.
    """
    kept = {*keep, *op.graph.outputs}
    for node in list(op.graph):
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type in ("Erf", "Tanh", "Gelu"):
            found = _gelu(node, kept)
            if found is not None:
                _fuse(op, found)
        elif node.op_type == "MatMul":
            _scale_behind(op, node, kept)


@dataclass(frozen=True)
class _Gelu:
    x: ir.Value
    y: ir.Value
    by_tanh: bool


def _gelu(node: ir.Node, kept: Collection[ir.Value]) -> _Gelu | None:
    """The Gelu that `node` is, or of which it is the erf or the tanh: x times (f(p(x)) + 1) times one half."""
    if node.op_type == "Gelu":
        x, y = cast("ir.Value", node.inputs[0]), node.outputs[0]
        by_tanh = node.attributes.get_string("approximate", "none") == "tanh"
        return None if y in kept else _Gelu(x, y, by_tanh)
    inner = cast("ir.Value", node.inputs[0])
    by_tanh = node.op_type == "Tanh"
    wanted = _BY_TANH if by_tanh else _EXACT
    step = _only_use(node.outputs[0], kept)
    if step is None or step[0].op_type != "Add" or scalar_of(step[1]) != 1:
        return None
    product, factor, others = step[0].outputs[0], 1.0, list[ir.Value]()
    for _ in range(3):
        step = _only_use(product, kept)
        if step is None or step[0].op_type not in ("Mul", "Div"):
            return None
        user, other = step
        number = scalar_of(other)
        if number is None:
            if user.op_type == "Div":
                return None
            others.append(other)
        elif user.op_type == "Mul" or user.inputs[1] is other:
            factor *= number if user.op_type == "Mul" else 1 / number
        product = user.outputs[0]
        if len(others) != 1:
            continue
        for x, scale in _scaled(others[0]):
            if _equal({0: factor * scale}, {0: 0.5}) and _equal(_polynomial(inner, x), wanted):
                return None if product in kept else _Gelu(x, product, by_tanh)
    return None


def _fuse(op: GraphBuilder, gelu: _Gelu) -> None:
    x, y = gelu.x, gelu.y
    if x.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE) or y.shape is None:
        return
    source, bias = _biased(x)
    with op.before(cast("ir.Node", y.producer())):
        value, slope = op.emit(
            "GeluWithSlope", source, bias, outputs=2, domain=PLUGIN, tanh=int(gelu.by_tanh)
        )
    for result in (value, slope):
        result.shape, result.type = y.shape, y.type
    y.replace_all_uses_with(value)


def _biased(x: ir.Value) -> tuple[ir.Value, ir.Value | None]:
    """What x adds a constant vector along its last axis to, and that vector; x itself and None for other sums."""
    node = x.producer()
    if node is None or node.op_type != "Add" or node.domain not in ("", "ai.onnx"):
        return x, None
    for other, bias in (node.inputs, node.inputs[::-1]):
        if other is None or bias is None or x.shape is None or other.shape is None:
            continue
        if constant_of(bias) is None or bias.shape is None or dims(other) != dims(x):
            continue
        if dims(bias) == dims(x)[-1:] and isinstance(dims(bias)[0], int):
            return other, bias
    return x, None


def _scale_behind(op: GraphBuilder, node: ir.Node, kept: Collection[ir.Value]) -> None:
    """Of attention scores (s a)(t b), which lead to a softmax, make s t (a b): one pass instead of three backwards."""
    product = node.outputs[0]
    if product in kept or not _leads_to_softmax(product, kept):
        return
    scale, found = 1.0, False
    for index, operand in enumerate(node.inputs):
        if operand is None or operand in kept or len(operand.uses()) != 1:
            continue
        for inner, number in list(_scaled(operand))[1:]:
            node.replace_input_with(index, inner)
            scale, found = scale * number, True
    if not found:
        return
    uses = list(product.uses())
    with op.after(node):
        scaled = op.Mul(product, scale)
    scaled.shape, scaled.type = product.shape, product.type
    for user, index in uses:
        user.replace_input_with(index, scaled)


def _leads_to_softmax(value: ir.Value, kept: Collection[ir.Value]) -> bool:
    """Whether `value` goes into a softmax and nowhere else, perhaps after the sum with a mask."""
    step = _only_use(value, kept)
    if step is not None and step[0].op_type == "Add":
        value = step[0].outputs[0]
    return value not in kept and [node.op_type for node in value.consumers()] == ["Softmax"]


def _only_use(value: ir.Value, kept: Collection[ir.Value]) -> tuple[ir.Node, ir.Value] | None:
    """The node with two inputs that alone reads `value`, and its other input."""
    uses = list(value.uses())
    if len(uses) != 1 or value in kept:
        return None
    user, index = uses[0]
    if user.domain not in ("", "ai.onnx") or len(user.inputs) != 2:
        return None
    other = user.inputs[1 - index]
    return None if other is None else (user, other)


def _scaled(value: ir.Value) -> Iterator[tuple[ir.Value, float]]:
    """`value` as a multiple of another value: of itself, and of what it multiplies by a constant or divides by one."""
    yield value, 1.0
    node = value.producer()
    if node is None or node.op_type not in ("Mul", "Div") or node.domain not in ("", "ai.onnx"):
        return
    first, second = (cast("ir.Value", operand) for operand in node.inputs)
    number = scalar_of(second)
    if number is not None and number != 0:
        yield first, number if node.op_type == "Mul" else 1 / number
    elif node.op_type == "Mul" and (number := scalar_of(first)) is not None:
        yield second, number


def _polynomial(value: ir.Value, x: ir.Value) -> Polynomial | None:
    """`value` as a polynomial in `x` of a low degree, None where it is none."""
    if value is x:
        return {1: 1.0}
    number = scalar_of(value)
    if number is not None:
        return {0: number}
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx") or len(node.inputs) != 2:
        return None
    if node.op_type not in ("Add", "Mul", "Div", "Pow"):
        return None
    first, second = (cast("ir.Value", operand) for operand in node.inputs)
    number = scalar_of(second)
    if node.op_type in ("Div", "Pow") and not number:
        return None
    a = _polynomial(first, x)
    if a is None:
        return None
    if node.op_type == "Div":
        return _product(a, {0: 1 / cast("float", number)})
    if node.op_type == "Pow":
        return _power(a, cast("float", number))
    b = _polynomial(second, x)
    if b is None:
        return None
    if node.op_type == "Mul":
        return _product(a, b)
    return {degree: a.get(degree, 0.0) + b.get(degree, 0.0) for degree in {*a, *b}}


def _power(a: Polynomial, exponent: float) -> Polynomial | None:
    if exponent not in (2, 3):
        return None
    square = _product(a, a)
    return square if exponent == 2 or square is None else _product(square, a)


def _product(a: Polynomial, b: Polynomial) -> Polynomial | None:
    if max(a) + max(b) > _DEGREE:
        return None
    result: Polynomial = {}
    for i, left in a.items():
        for j, right in b.items():
            result[i + j] = result.get(i + j, 0.0) + left * right
    return result


def _equal(a: Polynomial | None, b: Polynomial) -> bool:
    """Whether the coefficients agree but for the rounding of constants in single precision."""
    return a is not None and all(
        math.isclose(a.get(degree, 0.0), b.get(degree, 0.0), rel_tol=1e-6, abs_tol=1e-9)
        for degree in {*a, *b}
    )


def scalar_of(value: ir.Value | None) -> float | None:
    """The number that `value` is a constant of, one element of whatever rank, else None."""
    constant = constant_of(value)
    if constant is None or constant.size != 1 or not constant.dtype.is_floating_point():
        return None
    return float(constant.numpy().reshape(()))
