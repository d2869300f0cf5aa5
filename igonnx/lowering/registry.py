"""Which lowering belongs to which operator: one decorator registers, one lookup finds.

A lowering gets a node and emits, by the node's builder, operators that compute the same. It is used where a gradient
has to cross an operator that has no rule of its own, and to learn the shapes behind operators unknown to ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir

from igonnx.discovery import import_all
from igonnx.graph.node_view import NodeView

__all__ = ["Lowering", "find", "lowering", "registered"]

# One value per output of the node; None for outputs that nobody may ask for.
Lowered: TypeAlias = "Sequence[ir.Value | None]"
Function: TypeAlias = "Callable[[NodeView], Lowered]"

# Where lowerings are written; importing it registers them.
RULES = "igonnx.lowering.rules"
_lowerings: dict[tuple[str, str], Lowering] = {}


@dataclass(frozen=True)
class Lowering:
    """How an operator is lowered.

    `straight_through`: the lowered form serves the gradient only, and what the node itself computes stays. So it is for
    quantised operators, whose rounding has no derivative.
    """

    function: Function
    straight_through: bool = False


def lowering(
    *op_types: str, domain: str = "", straight_through: bool = False
) -> Callable[[Function], Function]:
    """Register the decorated function as the lowering of `op_types`; a second registration is an error."""

    def register(function: Function) -> Function:
        for op_type in op_types:
            if (domain, op_type) in _lowerings:
                raise ValueError(f"operator {domain}::{op_type} is registered twice")
            _lowerings[domain, op_type] = Lowering(function, straight_through)
        return function

    return register


def find(node: ir.Node) -> Lowering | None:
    """The lowering of `node`'s operator, or None."""
    import_all(RULES)
    return _lowerings.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))


def registered() -> dict[tuple[str, str], Lowering]:
    """A copy of the table of lowerings, by (domain, operator)."""
    import_all(RULES)
    return dict(_lowerings)
