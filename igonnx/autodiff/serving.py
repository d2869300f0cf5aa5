"""What serves an operator when a gradient arrives at it, in words."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from enum import StrEnum

import onnx_ir as ir

from igonnx.autodiff import registry
from igonnx.lowering import function_bodies
from igonnx.lowering import registry as lowerings

__all__ = ["How", "Serving", "serving"]


class How(StrEnum):
    """How a gradient gets past an operator, or why not."""

    rule = "rule"
    lowering = "lowering"
    body = "function body"
    straight_through = "straight-through"
    no_derivative = "no derivative"
    refused = "refused"
    missing = "missing"


@dataclass(frozen=True)
class Serving:
    """What serves an operator: by what means, in one line, and what more there is to know."""

    how: How
    description: str
    notes: str = ""


def serving(node: ir.Node, opset: int) -> Serving:
    """What serves `node`'s operator at `opset` of the standard operators; a form of it may be refused all the same."""
    function, lowering = registry.find(node), lowerings.find(node)
    refusal = registry.refusal(node)
    if function is not None:
        how = How.straight_through if registry.encodes(node) else How.rule
        return Serving(how, *_described(function, node.op_type))
    if registry.is_nondifferentiable(node):
        return Serving(How.no_derivative, "gradients stop here")
    if lowering is not None:
        how = How.straight_through if lowering.straight_through else How.lowering
        return Serving(how, *_described(lowering.function, node.op_type))
    if function_bodies.has_body(node, opset):
        return Serving(How.body, "by the operators that the ONNX standard defines it with")
    if refusal is not None:
        return Serving(How.refused, refusal)
    return Serving(How.missing, "it has no rule, no lowering and no function body")


def _described(function: object, operator: str) -> tuple[str, str]:
    """The first line of a docstring without the operator's name, and its other paragraphs as one."""
    first, _, rest = (inspect.getdoc(function) or "").partition("\n")
    for prefix in (f"{operator}: ", f"{operator}, "):
        short = first.removeprefix(prefix)
        if not short.partition(":")[0].isidentifier():  # else the name of a sibling follows
            first = short
    return first.rstrip("."), " ".join(rest.split())
