"""Choosing one place of a sequence early: what is computed for places that nobody looks at is not computed.

A transformer's classifier reads one token of the last layer's output. That layer's perceptron and all that works token
by token is then needed for that token alone, forwards and backwards.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder, dims
from igonnx.graph.node_view import take_place

__all__ = ["narrow"]

_ELEMENTWISE = {"Abs", "Add", "Cast", "Div", "Elu", "Erf", "Exp", "Gelu"}
_ELEMENTWISE |= {"HardSigmoid", "HardSwish", "Identity", "IsNaN", "LeakyRelu", "Log", "Mish", "Mul"}
_ELEMENTWISE |= {
    "Neg",
    "Not",
    "Pow",
    "Reciprocal",
    "Relu",
    "Sigmoid",
    "Softplus",
    "Sqrt",
    "Sub",
    "Tanh",
    "Where",
}


def narrow(op: GraphBuilder, kept: Collection[str]) -> None:
    """Move every Gather of a single place towards the inputs of the graph of `op`, in place.

    It crosses a node that works on each place by itself if nobody reads the other places: elementwise operators, layer
    normalisation and softmax along other axes, matrix products along their rows, transpositions, and reshapes that
    leave the axis whole. Values named in `kept` stay whole.
    """
    pushing = _Pushing(op, kept)
    for node in list(op.graph)[::-1]:
        pushing.visit(node)
    if pushing.crossed:
        op.graph.sort()  # a choice made for one reader may serve another further up


class _Pushing:
    """One walk from the outputs to the inputs."""

    def __init__(self, op: GraphBuilder, kept: Collection[str]) -> None:
        self.op = op
        self.kept = kept
        self.crossed = False
        self._chosen: dict[tuple[ir.Value, int, int], ir.Value] = {}

    def visit(self, node: ir.Node) -> None:
        """Cross `node` if all that is read of it is the same place; to be called for users before producers."""
        if node.domain not in ("", "ai.onnx") or len(node.outputs) != 1:
            return
        value = node.outputs[0]
        if value.is_graph_output() or value.name in self.kept or value.shape is None:
            return
        places = {_place(user) for user, _ in value.uses()}
        if len(places) != 1 or any(index != 0 for _, index in value.uses()):
            return
        place = places.pop()
        if place is None or any(user.graph is not node.graph for user in value.consumers()):
            return
        axis, index = place
        axes = self._axes(node, axis)
        if axes is None:
            return
        with self.op.before(node):
            narrowed = [
                operand if at is None else self._choice(cast("ir.Value", operand), at, index)
                for operand, at in zip(node.inputs, axes, strict=True)
            ]
        copy = ir.Node(
            node.domain,
            node.op_type,
            narrowed,
            node.attributes.values(),
            num_outputs=1,
            name=self.op.unique(f"narrow_{node.op_type}"),
        )
        graph = cast("ir.Graph", node.graph)
        graph.insert_after(node, copy)
        result = copy.outputs[0]
        result.name, result.type = self.op.unique(f"narrow_{node.op_type}"), value.type
        sizes = list(value.shape)
        result.shape = ir.Shape([*sizes[:axis], 1, *sizes[axis + 1 :]])
        if node.op_type == "Reshape":
            copy.replace_input_with(1, self._narrow_target(cast("ir.Value", node.inputs[1]), axis))
        self._replace(value, result, axis)
        self.crossed = True
        graph.remove(node, safe=True)  # it reads its inputs whole

    def _replace(self, value: ir.Value, narrowed: ir.Value, axis: int) -> None:
        """Give the readers of the chosen place of `value` what is `narrowed` to it."""
        for user, _ in list(value.uses()):
            output = user.outputs[0]
            result = narrowed
            if len(cast("ir.Shape", cast("ir.Value", user.inputs[1]).shape)) == 0:
                with self.op.before(user):
                    result = self.op.Squeeze(narrowed, [axis])
                result.shape, result.type = output.shape, output.type
            if user.outputs[0].is_graph_output() or output.name in self.kept:
                with self.op.before(user):
                    result = self.op.Identity(result)  # a name of its own
                result.shape, result.type = output.shape, output.type
            take_place(output, result)
            cast("ir.Graph", user.graph).remove(user, safe=True)
            self._chosen = {key: made for key, made in self._chosen.items() if made is not output}

    def _choice(self, value: ir.Value, axis: int, index: int) -> ir.Value:
        """The chosen place of `value`, with its axis left as one of length 1."""
        key = (value, axis, index)
        if key not in self._chosen:
            chosen = self.op.Gather(value, self.op.ints([index]), axis=axis)
            sizes = list(cast("ir.Shape", value.shape))
            chosen.shape = ir.Shape([*sizes[:axis], 1, *sizes[axis + 1 :]])
            chosen.type = value.type
            self._chosen[key] = chosen
        return self._chosen[key]

    def _axes(self, node: ir.Node, axis: int) -> list[int | None] | None:
        """Per input of `node` the axis that counts the places, None where it has none; None: it cannot be crossed."""
        value = node.outputs[0]
        places = dims(value)[axis]
        if places is None or places == 1 or any(v is None or v.shape is None for v in node.inputs):
            return None
        inputs = cast("list[ir.Value]", list(node.inputs))
        count = len(dims(value))
        if node.op_type in _ELEMENTWISE:
            return self._broadcast(inputs, count - axis, places)
        if node.op_type == "LayerNormalization":
            normalised = node.attributes.get_int("axis", -1) % count
            return None if axis >= normalised else [axis, *[None] * (len(inputs) - 1)]
        if node.op_type == "Softmax":
            return None if node.attributes.get_int("axis", -1) % count == axis else [axis]
        if node.op_type == "MatMul":
            first, second = (dims(operand) for operand in inputs)
            rows = (
                len(first) >= 2 and len(second) == 2 and axis <= count - 2 and len(first) == count
            )
            inner = len(first) == len(second) == count and axis == count - 2
            return [axis, None] if rows or inner else None
        if node.op_type == "Transpose":
            perm = node.attributes.get("perm")
            return [count - 1 - axis if perm is None else perm.as_ints()[axis]]
        if node.op_type == "Reshape":
            return self._reshaped(node, axis)
        return None

    def _reshaped(self, node: ir.Node, axis: int) -> list[int | None] | None:
        """The axis itself, where a Reshape to a constant target leaves it and all in front of it as they are."""
        source, target = (cast("ir.Value", value) for value in node.inputs)
        before, after = dims(source)[: axis + 1], dims(node.outputs[0])[: axis + 1]
        constant = target.const_value
        if before != after or None in before or constant is None or target.is_graph_input():
            return None
        literal = node.attributes.get("allowzero")
        if literal is not None and literal.as_int():
            return None
        # What is left over after the place would grow to fill it.
        return None if constant.numpy().reshape(-1)[axis] < 0 else [axis, None]

    def _narrow_target(self, target: ir.Value, axis: int) -> ir.Value:
        numbers = [int(size) for size in cast("ir.TensorProtocol", target.const_value).numpy()]
        numbers[axis] = 1
        return self.op.ints(numbers)

    def _broadcast(
        self, inputs: list[ir.Value], behind: int, places: int | str
    ) -> list[int | None] | None:
        """The axes of elementwise operands, counted from the last; None where broadcasting is not settled."""
        axes: list[int | None] = []
        for operand in inputs:
            at = len(dims(operand)) - behind
            size = dims(operand)[at] if at >= 0 else 1
            if size not in (1, places):
                return None
            axes.append(at if size != 1 else None)
        return axes


def _place(node: ir.Node) -> tuple[int, int] | None:
    """(axis, index) of a Gather that takes a single place, None for any other node."""
    if node.op_type != "Gather" or node.domain not in ("", "ai.onnx"):
        return None
    source, index = (cast("ir.Value", value) for value in node.inputs)
    constant = index.const_value
    if source.shape is None or index.shape is None or index.is_graph_input() or constant is None:
        return None
    if constant.size != 1 or len(index.shape) > 1:
        return None
    return node.attributes.get_int("axis", 0) % len(source.shape), int(
        np.asarray(constant.numpy()).reshape(())
    )
