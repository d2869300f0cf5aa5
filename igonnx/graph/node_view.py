"""A node as a rule or a lowering reads it: inputs, attributes, constants, and the errors that name it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from igonnx.errors import ModelError, UnsupportedOperatorError
from igonnx.graph.builder import GraphBuilder, rank

__all__ = [
    "NodeView",
    "attributes_of",
    "captures",
    "captures_of",
    "constant_of",
    "operator_name",
    "subgraphs",
    "take_place",
]


def operator_name(node: ir.Node) -> str:
    """`Conv`, or `domain::Operator` outside the standard domain."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"


@dataclass(frozen=True)
class NodeView:
    """One node, and the builder that makes others from it."""

    op: GraphBuilder
    node: ir.Node

    @property
    def x(self) -> ir.Value:
        """The first input."""
        return self.input(0)

    @property
    def y(self) -> ir.Value:
        """The first output."""
        return self.node.outputs[0]

    def input(self, index: int) -> ir.Value:
        """Input `index`, known to be there."""
        value = self.optional_input(index)
        if value is None:
            raise ModelError(f"{self.where()}: input {index} is missing")
        return value

    def optional_input(self, index: int) -> ir.Value | None:
        """Input `index`, or None where the node leaves it out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def has_output(self, index: int) -> bool:
        """Whether output `index` is asked for: a name of its own, and somebody reads it."""
        if index >= len(self.node.outputs):
            return False
        value = self.node.outputs[index]
        return bool(value.name) and (bool(value.uses()) or value.is_graph_output())

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's Python value, or `default`."""
        found = self.node.attributes.get(name)
        if found is None:
            return default
        value = found.value
        if isinstance(value, list | tuple):
            return list(value)
        return value

    def constant(self, index: int) -> np.ndarray | None:
        """The value of input `index` when it is a constant of the graph that no caller can override."""
        constant = constant_of(self.optional_input(index))
        return None if constant is None else constant.numpy()

    def axes(self, index: int = 1) -> list[int] | None:
        """Non-negative axes of a reduction: attribute in old opsets, input `index` in new ones. None: all, unknown."""
        axes = self.attribute("axes")
        if axes is None:
            constant = self.constant(index)
            if constant is None:
                return None
            axes = [int(axis) for axis in constant.reshape(-1)]
        return [axis % rank(self.x) for axis in axes]

    def unsupported(self, what: str) -> UnsupportedOperatorError:
        """The error for a form of the operator that has no rule."""
        return UnsupportedOperatorError(f"{self.where()}: no gradient for {what}")

    def where(self) -> str:
        """Operator and node, for messages."""
        return f"operator {operator_name(self.node)} (node {self.node.name!r})"


def constant_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """What `value` is a constant of; None where it is none, or one that a caller can override."""
    if value is None or value.is_graph_input():
        return None
    return value.const_value


def attributes_of(node: ir.Node) -> dict[str, Any]:
    """The Python values of all attributes of `node`."""
    return {name: attribute.value for name, attribute in node.attributes.items()}


def take_place(old: ir.Value, new: ir.Value) -> None:
    """Let `new` stand where `old` stood: for all that read it, among outputs, and by its name, which `old` loses."""
    name = old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name = None
    new.name = name


def subgraphs(node: ir.Node) -> dict[str, ir.Graph]:
    """The bodies of an If, Loop or Scan by the names of their attributes; empty for all other nodes."""
    return {
        name: attribute.as_graph()
        for name, attribute in node.attributes.items()
        if attribute.type == ir.AttributeType.GRAPH
    }


def captures(node: ir.Node) -> list[ir.Value]:
    """What the bodies of `node` read from outside, each value once."""
    captured: dict[ir.Value, None] = {}
    for body in subgraphs(node).values():
        captured.update(dict.fromkeys(captures_of(body)))
    return list(captured)


def captures_of(body: ir.Graph) -> list[ir.Value]:
    """What `body` and the bodies in it read from outside, each value once."""
    inner = {*body.inputs, *body.initializers.values()}
    for node in body:
        inner.update(node.outputs)
    read = [value for node in body for value in [*node.inputs, *captures(node)]]
    return list(
        dict.fromkeys(v for v in [*read, *body.outputs] if v is not None and v not in inner)
    )
