"""RevealCancel (Shrikumar et al., 2017, section 3.5.3): positive and negative changes have multipliers of their own.

The change of a nonlinearity's input is p + n, the positive and the negative contributions to the linear operator in
front of it. What p does to y = f(x) is averaged over the two orders of adding p and n to the reference,
p' = ((f(x0 + p) - f(x0)) + (f(x0 + n + p) - f(x0 + n))) / 2, and likewise n' for n. Then p'/p is the multiplier of
every positive contribution, and n'/n that of every negative one; p' + n' = y - y0.

On the way back, a tensor behind a linear operator has two gradients then, G+ and G-. The walk carries their mean; half
of what they differ by waits here until the linear operator is reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import onnx_ir as ir

from igonnx.autodiff import registry
from igonnx.autodiff.broadcasting import unbroadcast
from igonnx.autodiff.propagation.chords import CHORDS, rounding
from igonnx.autodiff.propagation.linear_operators import vjp_of
from igonnx.autodiff.propagation.references import References
from igonnx.autodiff.registry import Gradients, Vjp
from igonnx.graph.builder import GraphBuilder, dims
from igonnx.graph.node_view import attributes_of

__all__ = ["RevealCancel"]

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_SUMS = ("Add", "Sub")


class RevealCancel:
    """The rule of one walk, and what waits for the linear operators."""

    def __init__(self, references: References) -> None:
        self._references = references
        self._waiting: dict[ir.Value, list[ir.Value]] = {}  # (G+ - G-) / 2

    def through(self, v: Vjp, live: Sequence[int]) -> Gradients | None:
        """The multipliers of the inputs of a nonlinearity or a linear operator; None where the usual rule serves."""
        kind = ("" if v.node.domain == "ai.onnx" else v.node.domain, v.node.op_type)
        if kind in CHORDS and list(live) == [0] and self._is_split(v.x):
            return [self._nonlinearity(v), *[None] * (len(v.node.inputs) - 1)]
        waiting = self._waiting.pop(v.y, None)
        if waiting is None:
            return None
        half = waiting[0] if len(waiting) == 1 else v.op.Sum(*waiting)
        if v.node.op_type in _PRODUCTS:
            return self._product(v, half, live[0])
        if len(live) == 1:  # something fixed is added: the parts stay what they are
            self._waiting.setdefault(v.input(live[0]), []).append(half)
            return None
        return self._sum(v, half)

    def _is_split(self, value: ir.Value) -> bool:
        """Whether positive and negative contributions to `value` can be told apart."""
        node = value.producer()
        if node is None or node.domain not in ("", "ai.onnx"):
            return False
        live = self._references.live_inputs(node)
        if node.op_type in _PRODUCTS:
            return len(live) == 1 and live[0] < 2 and _scale(node) > 0
        if node.op_type not in _SUMS:
            return False
        if live == [0, 1]:
            return True
        inner = node.inputs[live[0]]
        if inner is None or (node.op_type == "Sub" and live != [0]):
            return False
        same = inner.shape is not None and value.shape is not None and dims(inner) == dims(value)
        return same and self._is_split(inner)

    def _positive(self, op: GraphBuilder, value: ir.Value) -> ir.Value:
        """The sum of positive contributions to the change of `value`, which is split."""
        node = cast("ir.Node", value.producer())
        live = self._references.live_inputs(node)
        if node.op_type in _PRODUCTS:
            return self._positive_products(op, node, live[0])
        if len(live) == 1:
            return self._positive(op, cast("ir.Value", node.inputs[live[0]]))
        first, second = (
            self._references.difference(op, cast("ir.Value", part)) for part in node.inputs
        )
        second = op.Neg(second) if node.op_type == "Sub" else second
        return op.Add(op.Relu(first), op.Relu(second))  # type: ignore[no-any-return]

    def _positive_products(self, op: GraphBuilder, node: ir.Node, live: int) -> ir.Value:
        change = self._references.difference(op, cast("ir.Value", node.inputs[live]))
        weight = cast("ir.Value", node.inputs[1 - live])
        attributes = attributes_of(node)
        attributes.pop("beta", None)
        terms = []
        for grown, sign in zip(_parts(op, change), _parts(op, weight), strict=True):
            factors = (grown, sign) if live == 0 else (sign, grown)
            terms.append(op.emit(node.op_type, *factors, **attributes))
        return op.Add(*terms)  # type: ignore[no-any-return]

    def _nonlinearity(self, v: Vjp) -> ir.Value:
        op, x, y = v.op, v.x, v.y
        x0, y0 = self._references.of(x), self._references.of(y)
        positive = self._positive(op, x)
        negative = op.Sub(self._references.difference(op, x), positive)
        after = [self._applied(v, op.Add(x0, part)) for part in (positive, negative)]
        derivative = self._derivative(v)
        slopes: list[Any] = []
        least = rounding(op, op.Abs(x), op.Abs(x0), positive)
        for part, own, other in zip((positive, negative), after, after[::-1], strict=True):
            change = op.Mul(op.Add(op.Sub(own, y0), op.Sub(y, other)), op.scalar(0.5, y))
            slope = op.Mul(v.g, op.Div(change, part))
            slopes.append(op.Where(op.Greater(op.Abs(part), least), slope, derivative))
        half = op.scalar(0.5, x)
        self._waiting.setdefault(x, []).append(op.Mul(op.Sub(*slopes), half))
        return op.Mul(op.Add(*slopes), half)  # type: ignore[no-any-return]

    def _applied(self, v: Vjp, x: ir.Value) -> Any:
        """The nonlinearity of another input."""
        outputs = v.op.emit_all(
            v.node.op_type,
            x,
            *v.node.inputs[1:],
            outputs=len(v.node.outputs),
            domain=v.node.domain,
            **attributes_of(v.node),
        )
        return outputs[0]

    def _derivative(self, v: Vjp) -> ir.Value:
        rule = registry.find(v.node)
        found = None if rule is None else rule(v)[0]
        if found is None:
            raise v.unsupported("its derivative")
        return found

    def _product(self, v: Vjp, half: ir.Value, live: int) -> Gradients:
        """Of a positive change, positive weights make positive contributions, and so on."""
        op, value, weight = v.op, v.input(live), v.input(1 - live)
        gradients = _pair(op, v.g, half)
        signs = _parts(op, weight)
        back = [[self._back(v, g, sign, live) for sign in signs] for g in gradients]
        of_grown = op.Add(back[0][0], back[1][1])
        of_fallen = op.Add(back[0][1], back[1][0])
        results: list[ir.Value | None] = [None] * len(v.node.inputs)
        results[live] = self._by_sign(op, value, of_grown, of_fallen)
        return results

    def _back(self, v: Vjp, g: ir.Value, weight: ir.Value, live: int) -> ir.Value:
        """The ordinary gradient, for another weight."""
        inputs = list(v.node.inputs)
        inputs[1 - live] = weight
        node = ir.Node(
            v.node.domain,
            v.node.op_type,
            inputs,
            list(v.node.attributes.values()),
            num_outputs=1,
            name=v.op.unique(v.node.op_type),
        )
        node.outputs[0].name = v.op.unique(v.node.op_type)
        node.outputs[0].type, node.outputs[0].shape = v.y.type, v.y.shape
        v.op.graph.append(node)  # nobody reads it: it is not kept
        rule = registry.find(node)
        found = None if rule is None else rule(vjp_of(v, node, (g,)))[live]
        if found is None:
            raise v.unsupported("its input")
        return found

    def _sum(self, v: Vjp, half: ir.Value) -> Gradients:
        """Two tensors are added: what has grown belongs to the positive part, what has fallen to the negative."""
        op, (grown, fallen) = v.op, _pair(v.op, v.g, half)
        first = self._by_sign(op, v.x, grown, fallen)
        if v.node.op_type == "Sub":
            second = op.Neg(self._by_sign(op, v.input(1), fallen, grown))
        else:
            second = self._by_sign(op, v.input(1), grown, fallen)
        return [unbroadcast(op, first, v.y, v.x), unbroadcast(op, second, v.y, v.input(1))]

    def _by_sign(
        self, op: GraphBuilder, value: ir.Value, grown: ir.Value, fallen: ir.Value
    ) -> ir.Value:
        """`grown` where `value` lies above its reference, `fallen` below, their mean where it has not changed."""
        delta, other = self._references.difference(op, value), self._references.of(value)
        least = rounding(op, op.Abs(value), op.Abs(other))
        mean = op.Mul(op.Add(grown, fallen), op.scalar(0.5, value))
        below = op.Where(op.Less(delta, op.Neg(least)), fallen, mean)
        return op.Where(op.Greater(delta, least), grown, below)  # type: ignore[no-any-return]


def _parts(op: GraphBuilder, value: ir.Value) -> tuple[ir.Value, ir.Value]:
    """What is positive and what is negative of `value`, zeros elsewhere."""
    positive = op.Relu(value)
    negative = op.Sub(value, positive)
    for part in (positive, negative):
        part.shape = value.shape
    return positive, negative


def _pair(op: GraphBuilder, mean: ir.Value, half: ir.Value) -> tuple[Any, Any]:
    return op.Add(mean, half), op.Sub(mean, half)


def _scale(node: ir.Node) -> float:
    alpha = node.attributes.get("alpha")
    return 1.0 if alpha is None or node.op_type != "Gemm" else alpha.as_float()
