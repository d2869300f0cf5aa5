"""Which backward rule belongs to which operator: one decorator registers, one lookup finds.

A rule gets a `Vjp` (the node, the incoming gradients, the builder) and returns one gradient per input of the node,
`None` where there is none: reverse mode as in Griewank and Walther, "Evaluating Derivatives", chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir

from igonnx.autodiff.broadcasting import unbroadcast
from igonnx.discovery import import_all
from igonnx.errors import ModelError
from igonnx.graph.builder import GraphBuilder
from igonnx.graph.node_view import NodeView

__all__ = [
    "Rule",
    "Vjp",
    "carrying_outputs",
    "elementwise",
    "encoder",
    "encodes",
    "find",
    "is_code",
    "is_nondifferentiable",
    "known_operators",
    "mover",
    "moves_codes",
    "nondifferentiable",
    "refusal",
    "refuse",
    "registered",
    "rule",
]

Gradients: TypeAlias = "Sequence[ir.Value | None]"
Rule: TypeAlias = "Callable[[Vjp], Gradients]"
# (builder, incoming gradient, *inputs, output) -> gradient of one input, before broadcasts are reduced back.
Partial: TypeAlias = Callable[..., ir.Value]
Differentiate: TypeAlias = Callable[
    [GraphBuilder, Mapping[ir.Value, ir.Value], Sequence[ir.Value], Sequence[ir.Node]],
    "list[ir.Value | None]",
]

# Where rules are written; importing it registers them.
RULES = "igonnx.autodiff.rules"
_rules: dict[tuple[str, str], Rule] = {}
_nondifferentiable: set[tuple[str, str]] = set()
_refusals: dict[tuple[str, str], str] = {}
_encoders: dict[tuple[str, str], int | None] = {}
_movers: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Vjp(NodeView):
    """One node on the way back: what a rule needs to form its vector-Jacobian product."""

    gradients: tuple[ir.Value | None, ...]  # of the node's outputs; None where nothing flows
    wanted: tuple[bool, ...]  # per input: whether its gradient is asked for
    captured: tuple[
        ir.Value, ...
    ] = ()  # values outside that bodies of the node read, whose gradients are asked for
    # The walk itself, for nodes with bodies: (builder, {output: gradient}, values, nodes) -> gradients of the values.
    walk: Differentiate | None = None

    @property
    def g(self) -> ir.Value:
        """The gradient of the first output."""
        return self.gradient(0)

    def gradient(self, index: int) -> ir.Value:
        """The gradient of output `index`, known to be there."""
        value = self.gradients[index]
        if value is None:
            raise ModelError(f"{self.where()}: no gradient arrives at output {index}")
        return value


def rule(*op_types: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register the decorated function as the backward rule of `op_types`; a second registration is an error."""

    def register(function: Rule) -> Rule:
        for op_type in op_types:
            _claim(domain, op_type)
            _rules[domain, op_type] = function
        return function

    return register


def elementwise(op_type: str, *partials: Partial | None, domain: str = "") -> None:
    """Register an elementwise operator by its partial derivatives, one per input.

    Each is called ``partial(op, g, *inputs, y)`` and returns the gradient of its input in the shape of the output;
    broadcasting is undone here. `None` stands for an input without derivative.
    """

    def backward(v: Vjp) -> Gradients:
        gradients: list[ir.Value | None] = []
        for index, value in enumerate(v.node.inputs):
            partial = partials[index] if index < len(partials) else None
            if partial is None or value is None or not v.wanted[index]:
                gradients.append(None)
                continue
            full = partial(v.op, v.g, *v.node.inputs, v.y)
            alone = len(v.node.inputs) == 1  # then nothing is broadcast, and no rank need be known
            gradients.append(full if alone else unbroadcast(v.op, full, v.y, value))
        return gradients

    notes = [partial.__doc__ for partial in partials if partial is not None and partial.__doc__]
    backward.__doc__ = "\n\n".join([f"{op_type}: elementwise, by its derivative.", *notes])
    rule(op_type, domain=domain)(backward)


def nondifferentiable(*op_types: str, domain: str = "") -> None:
    """Declare operators whose outputs carry no gradient: integers, booleans, shapes, or piecewise constants."""
    for op_type in op_types:
        _claim(domain, op_type)
        _nondifferentiable.add((domain, op_type))


def refuse(*op_types: str, domain: str = "", because: str) -> None:
    """Say why no gradient crosses these operators, and what to do instead, for the error that names them."""
    for op_type in op_types:
        _claim(domain, op_type)
        _refusals[domain, op_type] = because


def encoder(*op_types: str, domain: str = "", outputs: int | None = None) -> None:
    """Declare operators whose integer outputs are codes: they stand for real numbers, and carry gradients.

    `outputs` counts the first outputs that do so; those behind them (scales found at run time) count as constants.
    """
    _encoders.update({(domain, op_type): outputs for op_type in op_types})


def mover(*op_types: str, domain: str = "") -> None:
    """Declare operators that hand codes on: where an input is a code that carries a gradient, so are the outputs."""
    _movers.update((domain, op_type) for op_type in op_types)


def encodes(node: ir.Node) -> bool:
    """Whether integer outputs of `node` are codes."""
    import_all(RULES)
    return _key(node) in _encoders


def carrying_outputs(node: ir.Node) -> Sequence[ir.Value]:
    """The outputs of `node` that may carry a gradient."""
    import_all(RULES)
    return node.outputs[: _encoders.get(_key(node))]


def moves_codes(node: ir.Node) -> bool:
    """Whether `node` hands codes on."""
    import_all(RULES)
    return _key(node) in _movers


def is_code(value: ir.Value | None) -> bool:
    """Whether `value` is of a type that codes have: integers, and floats of less than 16 bits."""
    if value is None or value.dtype is None or value.dtype == ir.DataType.BOOL:
        return False
    return value.dtype.is_integer() or value.dtype.bitwidth < 16


def find(node: ir.Node) -> Rule | None:
    """The rule of `node`'s operator, or None."""
    import_all(RULES)
    return _rules.get(_key(node))


def refusal(node: ir.Node) -> str | None:
    """Why no gradient crosses `node`'s operator, where that is known."""
    import_all(RULES)
    return _refusals.get(_key(node))


def is_nondifferentiable(node: ir.Node) -> bool:
    """Whether `node`'s operator is known to carry no gradient."""
    import_all(RULES)
    return _key(node) in _nondifferentiable


def registered() -> dict[tuple[str, str], Rule]:
    """A copy of the table of rules, by (domain, operator)."""
    import_all(RULES)
    return dict(_rules)


def known_operators() -> set[tuple[str, str]]:
    """Every (domain, operator) that has a rule, carries no gradient, or is refused with a reason."""
    import_all(RULES)
    return {*_rules, *_nondifferentiable, *_refusals}


def _key(node: ir.Node) -> tuple[str, str]:
    return ("" if node.domain == "ai.onnx" else node.domain, node.op_type)


def _claim(domain: str, op_type: str) -> None:
    if any((domain, op_type) in known for known in (_rules, _nondifferentiable, _refusals)):
        raise ValueError(f"operator {domain}::{op_type} is registered twice")
