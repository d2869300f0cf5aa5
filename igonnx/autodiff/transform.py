"""The reverse walk: who needs a gradient, in which order, and how contributions add up.

Besides floating tensors, codes carry gradients: the integers that quantised networks compute with stand for real
numbers. The gradient of an integer tensor is the one by those numbers, a float32 tensor. Rounding a real number to a
code has slope one then (it goes straight through); asked not to, the walk takes its slope for what it is, zero.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import onnx_ir as ir

from igonnx.autodiff import registry
from igonnx.autodiff.gradient_values import added, zeros_like
from igonnx.autodiff.propagation import Propagation
from igonnx.errors import ModelError, UnsupportedOperatorError
from igonnx.graph.builder import GraphBuilder
from igonnx.graph.node_view import captures, operator_name, subgraphs

__all__ = [
    "Observer",
    "between",
    "differentiable_sources",
    "differentiate",
    "no_rule_message",
    "reached_values",
]

# Told of each node that a gradient arrives at, and of why it cannot cross that node, if so.
Observer: TypeAlias = "Callable[[ir.Node, ModelError | None], None]"


def differentiate(
    op: GraphBuilder,
    cotangents: Mapping[ir.Value, ir.Value],
    wrt: Sequence[ir.Value],
    nodes: Sequence[ir.Node] | None = None,
    *,
    straight_through: bool = True,
    observe: Observer | None = None,
    propagation: Propagation | None = None,
) -> list[ir.Value | None]:
    """Append the backward pass through `nodes`, by default those of the graph of `op`, to that graph.

    `cotangents` maps outputs to the gradients that enter there (same shape and dtype). Returns, per value of `wrt`,
    its gradient (same shape and dtype), or None where no differentiable path leads from it to an output. Without
    `straight_through` nothing passes the operators that round to codes. The rules of `propagation` go before the
    ordinary ones; the default has none.

    Raises `UnsupportedOperatorError` when a gradient would have to cross an operator without a rule; an observer is
    told instead, and the walk goes on with zeros.
    """
    nodes = list(op.graph) if nodes is None else nodes
    reached = reached_values(nodes, wrt, straight_through)
    active = _active_nodes(nodes, reached, cotangents)
    walk = functools.partial(
        differentiate,
        straight_through=straight_through,
        observe=observe,
        propagation=propagation,
    )
    unknown = next((n for n in reversed(nodes) if n in active and registry.find(n) is None), None)
    contributions: dict[ir.Value, list[ir.Value]] = {
        value: [cotangent] for value, cotangent in cotangents.items()
    }
    for node in reversed(nodes):
        if node not in active or not any(value in contributions for value in node.outputs):
            continue
        gradients = tuple(_accumulate(op, contributions, value) for value in node.outputs)
        refused = None
        sources = [] if observe is None else [v for v in _uses(node) if v in reached]
        try:
            pairs = _backward(op, node, gradients, reached, cotangents, wrt, walk, propagation)
        except ModelError as error:
            if observe is not None:
                refused, pairs = error, [(value, zeros_like(op, value)) for value in sources]
            elif unknown is None or isinstance(error, UnsupportedOperatorError):
                raise
            else:
                # An operator nobody knows leaves no shapes behind it: then it is what is wrong.
                message = no_rule_message(unknown, cotangents, wrt)
                raise UnsupportedOperatorError(message) from error
        if observe is not None:
            observe(node, refused)
        for value, gradient in pairs:
            _annotate(gradient, value)
            contributions.setdefault(value, []).append(gradient)
    return [_accumulate(op, contributions, value) for value in wrt]


def differentiable_sources(
    graph: ir.Graph,
    output: ir.Value,
    candidates: Iterable[ir.Value],
    *,
    straight_through: bool = True,
) -> list[ir.Value]:
    """Those of `candidates` from which a differentiable path leads to `output`."""
    candidates = list(candidates)
    nodes = list(graph)
    reached = reached_values(nodes, candidates, straight_through)
    carried: set[ir.Value] = {output}
    for node in reversed(nodes):
        if any(v in carried and v in reached for v in node.outputs) and _passes_gradients(node):
            carried.update(value for value in _uses(node) if value in reached)
    return [value for value in candidates if value in carried]


def between(
    graph: ir.Graph, sources: Iterable[ir.Value], outputs: Iterable[ir.Value]
) -> list[ir.Node]:
    """Nodes of `graph` on any path from `sources` to `outputs`, differentiable or not."""
    nodes = list(graph)
    known, computed = set(sources), set[ir.Value]()  # what computes a source lies in front of it
    for node in nodes:
        if any(value in known for value in _uses(node)):
            known.update(node.outputs)
            computed.update(node.outputs)
    needed = set(outputs)
    found: list[ir.Node] = []
    for node in reversed(nodes):
        if any(value in needed and value in computed for value in node.outputs):
            found.append(node)
            needed.update(_uses(node))
    return found[::-1]


def _backward(
    op: GraphBuilder,
    node: ir.Node,
    gradients: tuple[ir.Value | None, ...],
    reached: set[ir.Value],
    outputs: Iterable[ir.Value],
    wrt: Sequence[ir.Value],
    walk: registry.Differentiate,
    propagation: Propagation | None,
) -> list[tuple[ir.Value, ir.Value]]:
    """The (value, gradient) pairs that `node`'s rule returns, for its inputs and what its bodies read outside."""
    function = registry.find(node)
    if function is None:
        raise UnsupportedOperatorError(no_rule_message(node, outputs, wrt))
    _refuse_integer_arithmetic(node, gradients)
    inputs = list(node.inputs)  # a rule may put another node in the place of this one
    captured = tuple(value for value in captures(node) if value in reached)
    wanted = tuple(value in reached for value in inputs)
    vjp = registry.Vjp(op, node, gradients, wanted, captured, walk)
    overridden = None if propagation is None else propagation.backward(vjp)
    results = function(vjp) if overridden is None else overridden
    pairs = []
    for value, gradient, asked in zip(inputs, results, wanted, strict=False):
        if value is not None and gradient is not None and asked:
            pairs.append((value, gradient))
    for value, gradient in zip(captured, results[len(inputs) :], strict=False):
        if gradient is not None:
            pairs.append((value, gradient))
    return pairs


def _refuse_integer_arithmetic(node: ir.Node, gradients: Sequence[ir.Value | None]) -> None:
    """Raise where a gradient arrives at codes made from codes by an operator whose rule is for real numbers."""
    if registry.encodes(node) or registry.moves_codes(node):
        return
    for value, gradient in zip(node.outputs, gradients, strict=True):
        if gradient is not None and registry.is_code(value) and value.producer() is not None:
            raise UnsupportedOperatorError(
                f"operator {operator_name(node)} (node {node.name!r}): no gradient through integer arithmetic on the "
                f"codes of a quantised network (tensor {value.name!r})"
            )


def _annotate(gradient: ir.Value, value: ir.Value) -> None:
    """Note that `gradient` has the shape of `value` and, where that is not a code, its type."""
    gradient.shape = value.shape
    if not registry.is_code(value) and value.type is not None:
        gradient.type = value.type


def _accumulate(
    op: GraphBuilder, contributions: dict[ir.Value, list[ir.Value]], value: ir.Value
) -> ir.Value | None:
    """The sum of what has arrived at `value`; kept, so that it is formed once."""
    terms = contributions.get(value)
    if not terms:
        return None
    if len(terms) > 1:
        total = added(op, terms)
        _annotate(total, value)
        contributions[value] = terms = [total]
    return terms[0]


def reached_values(
    nodes: Sequence[ir.Node], wrt: Sequence[ir.Value], straight_through: bool
) -> set[ir.Value]:
    """Values that depend differentiably on `wrt`.

    What is computed from codes counts as codes: an operator that makes something else of them is refused on the way
    back, rather than its share left out.
    """
    reached = set(wrt)
    for node in nodes:
        if not _passes_gradients(node) or not any(value in reached for value in _uses(node)):
            continue
        rounds = registry.encodes(node)
        if rounds and not straight_through:
            continue
        codes = rounds or (
            not subgraphs(node)
            and any(value in reached and registry.is_code(value) for value in node.inputs)
        )
        outputs = registry.carrying_outputs(node)
        reached.update(value for value in outputs if _may_carry(value, codes))
    return reached


def _active_nodes(
    nodes: Sequence[ir.Node], reached: set[ir.Value], outputs: Iterable[ir.Value]
) -> set[ir.Node]:
    """Nodes on a differentiable path from the sources of `reached` to `outputs`."""
    carried = set(outputs)
    active: set[ir.Node] = set()
    for node in reversed(nodes):
        if not any(v in carried and v in reached for v in node.outputs) or not _passes_gradients(
            node
        ):
            continue
        sources = [value for value in _uses(node) if value in reached]
        if sources:
            active.add(node)
            carried.update(sources)
    return active


def _passes_gradients(node: ir.Node) -> bool:
    return not registry.is_nondifferentiable(node)


def _may_carry(value: ir.Value, codes: bool) -> bool:
    """Whether `value` can carry a gradient: floating, of a type that inference left open, or a code where those are."""
    if value.type is None or value.dtype is None:
        return True
    return value.dtype.is_floating_point() or (codes and registry.is_code(value))


def _uses(node: ir.Node) -> list[ir.Value]:
    """The inputs of `node` and what its bodies read from outside."""
    return [value for value in node.inputs if value is not None] + captures(node)


def no_rule_message(node: ir.Node, outputs: Iterable[ir.Value], wrt: Sequence[ir.Value]) -> str:
    """Why no gradient crosses `node`, which has no rule, where it lies, and what to do."""
    name = operator_name(node)
    path = " -> ".join([*_names_from(node, wrt), f"[{name}]", *_names_to(node, outputs)])
    reason = registry.refusal(node)
    if reason is not None:
        return (
            f"no gradient crosses operator {name} (node {node.name!r}), which lies on the path {path}: "
            f"{reason}"
        )
    return (
        f"no gradient rule for operator {name} (node {node.name!r}), which the gradient must cross on the path {path}; "
        "explain a tensor between it and the output with wrt=, re-export the model without it, or register a rule "
        "(CONTRIBUTING.md, 'Add an operator rule')"
    )


def _names_from(node: ir.Node, wrt: Sequence[ir.Value]) -> list[str]:
    """Names of `wrt` and of the nodes that lead from it to `node`."""
    targets = set(wrt)
    queue: deque[tuple[ir.Node, list[str]]] = deque([(node, [])])
    seen = {node}
    while queue:
        current, names = queue.popleft()
        for value in _uses(current):
            if value in targets:
                return [value.name or "?", *_shortened(names)]
            producer = value.producer()
            if producer is not None and producer not in seen:
                seen.add(producer)
                queue.append((producer, [producer.name or producer.op_type, *names]))
    return ["?"]


def _names_to(node: ir.Node, outputs: Iterable[ir.Value]) -> list[str]:
    """Names of the nodes that lead from `node` to an output, and of the output."""
    targets = set(outputs)
    queue: deque[tuple[ir.Node, list[str]]] = deque([(node, [])])
    seen = {node}
    while queue:
        current, names = queue.popleft()
        for value in current.outputs:
            if value in targets:
                return [*_shortened(names), value.name or "?"]
            for user in value.consumers():
                if user not in seen:
                    seen.add(user)
                    queue.append((user, [*names, user.name or user.op_type]))
    return ["?"]


def _shortened(names: list[str], limit: int = 4) -> list[str]:
    return names if len(names) <= limit else [*names[: limit // 2], "...", *names[-limit // 2 :]]
