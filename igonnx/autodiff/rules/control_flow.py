"""Nodes with bodies: If, Scan and Loop.

The way back through a body is a body of its own, and it needs values that the way there has computed. The node is made
to put those out as well (its residuals), once per iteration where it iterates, and the way back reads them. An If goes
back through the branch that was taken; a Scan and a Loop go back from their last iteration to the first, carrying the
gradients of what they carried, and adding up those of what their bodies read from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from igonnx.autodiff.gradient_values import (
    added,
    gradient_dtype,
    gradient_type,
    is_real_tensor,
    zeros_like,
)
from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.autodiff.residuals import (
    expose_branch,
    expose_sequences,
    expose_stack,
    keeps_its_shape,
    placeholder,
    recompute,
    residuals_of,
    substitute,
)
from igonnx.autodiff.sequences import is_sequence
from igonnx.graph.builder import GraphBuilder
from igonnx.graph.node_view import captures_of, subgraphs


@rule("If")
def if_(v: Vjp) -> Gradients:
    """If: the gradient takes the branch that was taken; what that branch does not read gets zeros."""
    branches = subgraphs(v.node)
    backward: dict[str, Any] = {}
    for name, body in branches.items():
        inner = v.op.nested(f"{name}_backward")
        arriving = zip(body.outputs, v.gradients, strict=False)
        found = _walk(
            v, inner, [(out, g) for out, g in arriving if g is not None], v.captured, body
        )
        for value, gradient in zip(v.captured, found, strict=True):
            _put_out(inner, gradient, value)
        backward[name] = inner.graph
    for name, graph in backward.items():
        recompute(v.op, graph, branches[name], ir.OptionalType)
        others = [body for other, body in branches.items() if other != name]
        kept = residuals_of(graph, branches[name])
        substitute(graph, expose_branch(v, kept, branches[name], others))
    if not v.captured:
        return [None] * len(v.node.inputs)
    results = v.op.emit_all("If", v.input(0), outputs=len(v.captured), **backward)
    for value, gradient in zip(v.captured, results, strict=True):
        gradient.type = gradient_type(value)
    return [*[None] * len(v.node.inputs), *results]


@rule("Scan")
def scan(v: Vjp) -> Gradients:
    """Scan: another Scan over the same slices, in the opposite direction."""
    body = subgraphs(v.node)["body"]
    slices = v.attribute("num_scan_inputs")
    states = len(v.node.inputs) - slices
    outputs = len(v.node.outputs) - states
    axes, ways = (_per_scan(v, "input", name, slices) for name in ("axes", "directions"))
    out_axes, out_ways = (_per_scan(v, "output", name, outputs) for name in ("axes", "directions"))

    back = _Iteration(v, body.inputs[:states], body.outputs[:states], v.gradients[:states])
    read = [k for k in range(outputs) if v.gradients[states + k] is not None]
    parts = {k: _gradient_placeholder(v.op, body.outputs[states + k]) for k in read}
    wanted = [i for i in range(slices) if v.wanted[states + i]]
    entering = [(body.outputs[states + k], part) for k, part in parts.items()]
    found = back.walk(body, entering, [body.inputs[states + i] for i in wanted])
    for i, gradient in zip(wanted, found, strict=True):
        _put_out(back.inner, gradient, body.inputs[states + i])

    graph = back.inner.graph
    recompute(v.op, graph, body, ir.SequenceType, ir.OptionalType)
    # One value at least: it is by their number that the way back knows how often to go.
    kept = residuals_of(graph, body) or ([] if read else [body.inputs[states]])
    stacks = [expose_stack(v, body, value) for value in kept]
    _extend_scan_outputs(v, len(kept))
    stand_ins = [placeholder(v.op, value) for value in kept]
    substitute(graph, dict(zip(kept, stand_ins, strict=True)))
    graph.inputs.extend([*parts.values(), *stand_ins])
    # The last iteration comes first: against the direction of each slice, and of the stacks, which lie in order.
    results = v.op.emit_all(
        "Scan",
        *back.initial,
        *(v.gradient(states + k) for k in read),
        *stacks,
        outputs=len(back.initial) + len(wanted),
        body=back.closed(),
        num_scan_inputs=len(read) + len(kept),
        scan_input_axes=[*(out_axes[k] for k in read), *[0] * len(kept)],
        scan_input_directions=[*(1 - out_ways[k] for k in read), *[1] * len(kept)],
        **_scan_output_attributes([(axes[i], 1 - ways[i]) for i in wanted]),
    )
    gradients = back.of_inputs(results)
    for i, gradient in zip(wanted, results[len(back.initial) :], strict=True):
        gradient.type = ir.TensorType(gradient_dtype(v.input(states + i)))
        gradients[states + i] = gradient
    return [*gradients, *back.of_captured(results)]


def _per_scan(v: Vjp, side: str, what: str, count: int) -> list[int]:
    return list(v.attribute(f"scan_{side}_{what}") or [0] * count)


def _extend_scan_outputs(v: Vjp, count: int) -> None:
    """Let the attributes of a Scan speak of `count` more outputs, stacked along axis 0."""
    for name in ("scan_output_axes", "scan_output_directions"):
        known = v.attribute(name)
        if known is not None:
            v.node.attributes[name] = ir.AttrInt64s(name, [*known, *[0] * count])


def _scan_output_attributes(outputs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    if not outputs:
        return {}
    axes, ways = zip(*outputs, strict=True)
    return {"scan_output_axes": list(axes), "scan_output_directions": list(ways)}


@rule("Loop")
def loop(v: Vjp) -> Gradients:
    """Loop: another Loop of as many iterations, from the last to the first."""
    body = subgraphs(v.node)["body"]
    states = max(0, len(v.node.inputs) - 2)
    back = _Iteration(
        v, body.inputs[2:], body.outputs[1 : 1 + states], v.gradients[:states], skipped=2
    )
    inner = back.inner
    count = placeholder(v.op, body.inputs[0], dtype=ir.DataType.INT64, shape=[])
    going = placeholder(v.op, body.inputs[1], dtype=ir.DataType.BOOL, shape=[])
    # How often a loop has run shows only afterwards: it puts its counter out, and that has a length.
    iterations = v.op.Shape(expose_stack(v, body, body.inputs[0]))
    iterations.shape = ir.Shape([1])
    place = inner.Sub(v.op.Sub(iterations, [1]), count)
    place.shape = ir.Shape([1])
    start = place.producer()
    stacked = zip(body.outputs[1 + states :], v.gradients[states:], strict=False)
    entering = [(out, _row(inner, g, place, out)) for out, g in stacked if g is not None]
    back.walk(body, entering, [])
    recompute(v.op, inner.graph, body, ir.SequenceType, ir.OptionalType, behind=start)
    kept = residuals_of(inner.graph, body)
    outside = [*v.node.inputs, *captures_of(body)]
    steady = [value for value in kept if keeps_its_shape(value, outside)]
    changing = [value for value in kept if value not in steady]
    stacks = [expose_stack(v, body, value) for value in steady]
    sequences, moved = expose_sequences(v, body, changing)
    with inner.after(start):
        stand_ins = {
            value: _row(inner, moved.get(stack, stack), place, value)
            for value, stack in zip(steady, stacks, strict=True)
        }
        scalar = inner.Squeeze(place, [0]) if changing else None
        for value, sequence in zip(changing, sequences, strict=True):
            stand_ins[value] = inner.SequenceAt(sequence, scalar)
            stand_ins[value].type, stand_ins[value].shape = value.type, value.shape
    substitute(inner.graph, stand_ins)
    inner.graph.inputs[:0] = [count, going]
    graph = back.closed()
    going_on = inner.Identity(going)
    graph.outputs.insert(0, going_on)
    trips = v.op.Squeeze(iterations, [0])
    results = v.op.emit_all(
        "Loop", trips, None, *back.initial, outputs=len(back.initial), body=graph
    )
    return [*back.of_inputs(results), *back.of_captured(results)]


def _row(op: GraphBuilder, stack: ir.Value, place: ir.Value, like: ir.Value) -> ir.Value:
    """What iteration `place` (int64 [1]) has put into `stack`: a tensor like `like`."""
    row: ir.Value = op.Squeeze(op.Gather(stack, place, axis=0), [0])
    row.shape, row.type = like.shape, ir.TensorType(stack.dtype or gradient_dtype(like))
    return row


class _Iteration:
    """The body of a Scan or Loop on its way back: what it carries, and what comes of that.

    It carries the gradients of the floating values that the loop carried, in their order, and then a sum per value
    outside whose gradient is asked for. `skipped` inputs of the node stand before those that the loop carried.
    """

    def __init__(
        self,
        v: Vjp,
        entering: Sequence[ir.Value],
        leaving: Sequence[ir.Value],
        gradients: Sequence[ir.Value | None],
        skipped: int = 0,
    ) -> None:
        self._v, self._skipped = v, skipped
        self.inner = v.op.nested("backward")
        self._states = [
            i for i, value in enumerate(entering) if is_real_tensor(value) or is_sequence(value)
        ]
        self._entering = [entering[i] for i in self._states]
        self._leaving = [leaving[i] for i in self._states]
        self._carried = [_gradient_placeholder(v.op, value) for value in self._entering]
        self._sums = [_gradient_placeholder(v.op, value) for value in v.captured]
        self.inner.graph.inputs.extend([*self._carried, *self._sums])
        self._next: list[ir.Value] = []
        self.initial = [
            gradients[i] if gradients[i] is not None else zeros_like(v.op, v.node.outputs[i])
            for i in self._states
        ] + [zeros_like(v.op, value) for value in v.captured]

    def walk(
        self,
        body: ir.Graph,
        arriving: Sequence[tuple[ir.Value, ir.Value]],
        others: Sequence[ir.Value],
    ) -> list[ir.Value | None]:
        """Go back through `body` once; returns the gradients of `others` among its inputs."""
        v, inner = self._v, self.inner
        entering = [*zip(self._leaving, self._carried, strict=True), *arriving]
        wrt = [*self._entering, *v.captured, *others]
        found = _walk(v, inner, entering, wrt, body)
        states = len(self._entering)
        for value, gradient in zip(self._entering, found[:states], strict=True):
            self._next.append(zeros_like(inner, value) if gradient is None else gradient)
        for total, gradient in zip(self._sums, found[states:], strict=False):
            self._next.append(total if gradient is None else added(inner, [total, gradient]))
        return found[states + len(v.captured) :]

    def closed(self) -> ir.Graph:
        """The body, with what it carries on as its first outputs."""
        graph, others = self.inner.graph, list(self.inner.graph.outputs)
        graph.outputs.clear()
        for value, like in zip(self._next, [*self._carried, *self._sums], strict=True):
            self.inner.put_out(value, like.type, like.shape)
        for value in others:
            self.inner.put_out(value)
        return graph

    def of_inputs(self, results: Sequence[ir.Value]) -> list[ir.Value | None]:
        """Gradients of the node's inputs: what is carried out of its first iteration."""
        gradients: list[ir.Value | None] = [None] * len(self._v.node.inputs)
        for i, value, gradient in zip(self._states, self._entering, results, strict=False):
            gradient.type = gradient_type(value)
            gradients[self._skipped + i] = gradient
        return gradients

    def of_captured(self, results: Sequence[ir.Value]) -> list[ir.Value]:
        """Gradients of what the body reads from outside."""
        states = len(self._states)
        sums = list(results[states : states + len(self._v.captured)])
        for value, gradient in zip(self._v.captured, sums, strict=True):
            gradient.type = gradient_type(value)
        return sums


def _walk(
    v: Vjp,
    inner: GraphBuilder,
    arriving: Sequence[tuple[ir.Value, ir.Value]],
    wrt: Sequence[ir.Value],
    body: ir.Graph,
) -> list[ir.Value | None]:
    """Gradients of `wrt` through the nodes of `body`; a value that is put out twice gets the sum of what arrives."""
    inner.lift_constants(body)
    cotangents: dict[ir.Value, ir.Value] = {}
    for value, gradient in arriving:
        known = cotangents.get(value)
        cotangents[value] = gradient if known is None else added(inner, [known, gradient])
    if v.walk is None:
        raise v.unsupported("bodies, where there is no walk to go through them")
    return v.walk(inner, cotangents, wrt, list(body))


def _put_out(inner: GraphBuilder, gradient: ir.Value | None, value: ir.Value) -> None:
    """Append the gradient of `value`, or zeros, to the outputs of a body."""
    gradient = zeros_like(inner, value) if gradient is None else gradient
    inner.put_out(gradient, gradient_type(value))


def _gradient_placeholder(op: GraphBuilder, like: ir.Value) -> ir.Value:
    return placeholder(op, like, dtype=gradient_dtype(like))
