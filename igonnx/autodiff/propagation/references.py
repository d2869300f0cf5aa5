"""What tensors are for the baseline, beside what they are for the input: a second forward pass in the same graph.

Every node that depends on the explained tensors gets a copy that reads what its inputs are for the baseline; weights
and what else does not depend on them are shared. A Scan is made to run both at once, so that its body has both.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableSequence, Sequence
from typing import cast

import onnx_ir as ir

from igonnx.errors import UnsupportedOperatorError
from igonnx.graph.builder import GraphBuilder
from igonnx.graph.node_view import NodeView, captures, subgraphs, take_place

__all__ = ["References"]

# What they give depends on the shape of a tensor, which the baseline has as well.
_READ_NO_CONTENTS = frozenset(["Shape", "Size", "SequenceLength", "EyeLike", "OptionalHasElement"])


class References:
    """The second forward pass: which tensors it has, and what they differ by."""

    def __init__(self, op: GraphBuilder, sources: Mapping[ir.Value, ir.Value]) -> None:
        """Append the pass to the graph of `op`; `sources` are the explained tensors and their baselines."""
        self._of = dict(sources)
        self._copies: dict[ir.Node, ir.Node] = {}
        self._second: set[ir.Node] = set()
        self._refused: dict[ir.Value, str] = {}  # tensors that it cannot have, and why
        self._differences: dict[tuple[int, ir.Value], ir.Value] = {}
        self._copy_all(op, list(op.graph))

    def of(self, value: ir.Value) -> ir.Value:
        """What `value` is for the baseline; `value` itself where that is the same.

        Raises `UnsupportedOperatorError` for what lies behind a body that cannot be run for both.
        """
        if value in self._refused:
            raise UnsupportedOperatorError(self._refused[value])
        return self._of.get(value, value)

    def is_live(self, value: ir.Value | None) -> bool:
        """Whether `value` depends on the contents of an explained tensor."""
        return value is not None and (value in self._of or value in self._refused)

    def live_inputs(self, node: ir.Node) -> list[int]:
        """Which inputs of `node` do."""
        return [i for i, value in enumerate(node.inputs) if self.is_live(value)]

    def copy_of(self, node: ir.Node) -> ir.Node:
        """The node that computes for the baseline what `node` computes for the input."""
        return self._copies[node]

    def is_copy(self, node: ir.Node) -> bool:
        """Whether `node` is part of the second pass."""
        return node in self._second

    def difference(self, op: GraphBuilder, value: ir.Value) -> ir.Value:
        """`value` minus what it is for the baseline, in the graph that `op` writes."""
        key = (id(op.graph), value)
        if key not in self._differences:
            delta = op.Sub(value, self.of(value))
            delta.shape = value.shape
            self._differences[key] = delta
        return self._differences[key]

    # -- making it -----------------------------------------------------------------------------

    def _copy_all(self, op: GraphBuilder, nodes: Sequence[ir.Node]) -> None:
        for node in nodes:
            read = [*node.inputs, *captures(node)]
            if node.op_type in _READ_NO_CONTENTS or not any(map(self.is_live, read)):
                continue
            bodies = subgraphs(node)
            reason = next((self._refused[value] for value in read if value in self._refused), None)
            if reason is None and bodies and node.op_type != "Scan":
                reason = (
                    f"{NodeView(op, node).where()}: no DeepLIFT through its body; unroll it, or explain a tensor "
                    "behind it with wrt="
                )
            if reason is not None:
                self._refused.update(dict.fromkeys(node.outputs, reason))
            elif bodies:
                self._double_scan(op, node, bodies["body"])
            else:
                self._copy(op, node)

    def _copy(self, op: GraphBuilder, node: ir.Node) -> None:
        copy = ir.Node(
            node.domain,
            node.op_type,
            [None if value is None else self.of(value) for value in node.inputs],
            list(node.attributes.values()),
            num_outputs=len(node.outputs),
            name=op.unique("reference_" + node.op_type),
        )
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name = op.unique("reference_" + node.op_type) if old.name else ""
            new.type, new.shape = old.type, old.shape
            self._of[old] = new
        cast("ir.Graph", node.graph).insert_after(node, copy)
        self._copies[node] = copy
        self._second.add(copy)

    def _double_scan(self, op: GraphBuilder, node: ir.Node, body: ir.Graph) -> None:
        """Put a Scan in the place of `node` that carries, slices and puts out everything twice."""
        view = NodeView(op, node)
        slices = int(view.attribute("num_scan_inputs"))
        states = len(node.inputs) - slices
        inputs = list(body.inputs)
        for value in inputs:
            twin = ir.val(op.unique("reference_of_body"), type=value.type, shape=value.shape)
            self._of[value] = twin
        within = op.within(body)
        within.lift_constants(body)
        results = list(body.outputs)
        self._copy_all(within, list(body))
        twins = [self._result(within, value) for value in results]
        _interleave(body.inputs, [self.of(value) for value in inputs], states)
        _interleave(body.outputs, twins, states)
        given = [cast("ir.Value", value) for value in node.inputs]
        both = _interleaved(given, [self.of(value) for value in given], states)
        new = ir.Node(
            node.domain,
            "Scan",
            both,
            [*_doubled_attributes(view, slices), ir.AttrGraph("body", body)],
            num_outputs=2 * len(node.outputs),
            name=op.unique("Scan"),
        )
        cast("ir.Graph", node.graph).insert_before(node, new)
        count = len(node.outputs) - states
        kept = [*new.outputs[:states], *new.outputs[2 * states : 2 * states + count]]
        rest = [*new.outputs[states : 2 * states], *new.outputs[2 * states + count :]]
        for old, value, twin in zip(node.outputs, kept, rest, strict=True):
            name = old.name or op.unique("Scan")
            take_place(old, value)
            value.name, value.type, value.shape = name, old.type, old.shape
            twin.name, twin.type, twin.shape = op.unique("reference_Scan"), old.type, old.shape
            self._of[value] = twin
        cast("ir.Graph", node.graph).remove(node, safe=True)

    def _result(self, op: GraphBuilder, value: ir.Value) -> ir.Value:
        """What a body puts out for the baseline, as a value of its own."""
        twin = op.Identity(self.of(value))
        twin.type, twin.shape = value.type, value.shape
        self._second.add(cast("ir.Node", twin.producer()))
        return cast("ir.Value", twin)


def _interleaved(
    first: Sequence[ir.Value], second: Sequence[ir.Value], states: int
) -> list[ir.Value]:
    """States of both, then the rest of both."""
    return [*first[:states], *second[:states], *first[states:], *second[states:]]


def _interleave(values: MutableSequence[ir.Value], twins: Sequence[ir.Value], states: int) -> None:
    both = _interleaved(list(values), twins, states)
    values.clear()
    values.extend(both)


def _doubled_attributes(view: NodeView, slices: int) -> list[ir.Attr]:
    attributes = [ir.AttrInt64("num_scan_inputs", 2 * slices)]
    for side in ("input", "output"):
        for what in ("axes", "directions"):
            name = f"scan_{side}_{what}"
            known = view.attribute(name)
            if known is not None:
                attributes.append(ir.AttrInt64s(name, [*known, *known]))
    return attributes
