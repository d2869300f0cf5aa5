"""What a gradient meets on its way from the output of a model to the tensors it is taken by.

The gradient is built as `igonnx.gradient` builds it, only that the walk does not end at the first node it cannot
cross: zeros go on behind it, so that every refusal is found. What the walk met is told by the nodes of the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import cast

import onnx_ir as ir

from igonnx.autodiff.expansion import expand
from igonnx.autodiff.provenance import Provenance
from igonnx.autodiff.selection import NOT_STRAIGHT_THROUGH, tensors_to_explain
from igonnx.autodiff.serving import How, serving
from igonnx.autodiff.transform import between, differentiate, reached_values
from igonnx.errors import ModelError, UnsupportedOperatorError
from igonnx.graph.builder import GraphBuilder
from igonnx.graph.node_view import captures, operator_name, subgraphs
from igonnx.model import Model, ModelSource, is_floating

__all__ = ["PathReport", "Refusal", "ServedOperator", "path_report"]


@dataclass(frozen=True)
class ServedOperator:
    """An operator that gradients cross, or at which they stop (`how` is "no derivative")."""

    operator: str  # `Conv`, `com.microsoft::Gelu`
    nodes: int
    how: How
    description: str


@dataclass(frozen=True)
class Refusal:
    """A node that the gradient would have to cross, and cannot."""

    operator: str
    node: str
    how: How  # "missing", "refused", or what serves other forms of the operator
    reason: str


@dataclass(frozen=True)
class PathReport:
    """The differentiable path of a model, as far as there is one."""

    output: str
    wrt: tuple[str, ...]
    served: tuple[ServedOperator, ...]  # by operator; refused nodes are not among them
    stops: tuple[
        ServedOperator, ...
    ]  # between the two, reached by a differentiable path, and ending it
    refusals: tuple[Refusal, ...]  # from the input to the output
    nodes_on_path: int  # refused ones included
    nodes_off_path: int  # all others but those that stop a gradient
    restart: (
        str | None
    )  # with refusals: a tensor behind them all, which the output can be explained by
    problem: str | None  # why there is no gradient though nothing is refused

    @property
    def differentiable(self) -> bool:
        """Whether `igonnx.gradient` succeeds."""
        return not self.refusals and self.problem is None


def path_report(
    model: ModelSource,
    output: str | None = None,
    wrt: Sequence[str] | str | None = None,
    *,
    straight_through: bool = True,
) -> PathReport:
    """Find what serves each operator between the tensors `wrt` and `output`, and all that would be refused.

    The arguments are those of `igonnx.gradient`. Counted are the nodes of the model as it is differentiated:
    functions inlined, constants folded, old opsets upgraded; those in the bodies of If, Loop and Scan are among them.

    Raises `ModelError` where the model cannot be read, `InputError` for a wrong name.
    """
    loaded = Model.load(model)
    chosen = loaded.find_output(output)
    problem = None
    try:
        tensors = tensors_to_explain(loaded, wrt, chosen, straight_through=straight_through)
    except ModelError as error:
        tensors, problem = [], str(error)
    walk = _Walk(loaded, chosen, tensors)
    if problem is None:
        problem = walk.run(straight_through)
    sources = tensors or _candidates(loaded, wrt)
    stops = _stops(loaded.ir.graph, sources, chosen, straight_through) - walk.met
    return PathReport(
        output=chosen.name or "",
        wrt=tuple(value.name or "" for value in tensors),
        served=_tallied(walk.met - set(walk.refused), loaded.opset),
        stops=_tallied(stops, loaded.opset, How.no_derivative),
        refusals=tuple(_refusal(node, error, loaded.opset) for node, error in walk.refused.items()),
        nodes_on_path=len(walk.met),
        nodes_off_path=sum(1 for _ in loaded.ir.graph.all_nodes()) - len(walk.met) - len(stops),
        restart=_restart(loaded.ir.graph, walk.refused, chosen),
        problem=None if walk.refused else problem,
    )


class _Walk:
    """The gradient of a copy of the model, built for what can be seen on the way.

    `met` are the nodes of the model that gradients arrive at, `refused` those of them that cannot be crossed, in the
    model's order, with the reason.
    """

    def __init__(self, model: Model, output: ir.Value, wrt: Sequence[ir.Value]) -> None:
        self._model = model
        self._output = cast("str", output.name)
        self._names = [cast("str", value.name) for value in wrt]
        self._copy = model.with_graph(model.clone())
        self._provenance = Provenance(model.ir.graph, self._copy.ir.graph)
        self._errors: dict[ir.Node, ModelError] = {}
        self.met: set[ir.Node] = set()
        self.refused: dict[ir.Node, ModelError] = {}

    def run(self, straight_through: bool) -> str | None:
        """Build the gradient; returns what else there is to say against it."""
        copy, missing = self._copy, None
        try:
            expand(copy.ir, self._names, self._output, observe=self._observe)
            self._provenance.update()
            target = copy.find_output(self._output)
            cotangent = ir.val(f"cotangent_{target.name}", shape=target.shape, type=target.type)
            results = differentiate(
                GraphBuilder(copy.ir, scope="gradient"),
                {target: cotangent},
                [copy.find_tensor(name) for name in self._names],
                straight_through=straight_through,
                observe=self._observe,
            )
            missing = next(
                (n for n, result in zip(self._names, results, strict=True) if result is None), None
            )
        except ModelError as error:
            return str(error)
        finally:
            self._settle()
        if missing is None:
            return None
        reason = "" if straight_through else NOT_STRAIGHT_THROUGH
        return f"no gradient reaches {missing!r} from output {self._output!r}{reason}"

    def _observe(self, node: ir.Node, error: ModelError | None) -> None:
        origin = self._provenance.of(node)
        if origin is not None:
            self.met.add(origin)
            if error is not None:
                self._errors.setdefault(origin, error)

    def _settle(self) -> None:
        """Keep those errors that do not merely follow from others, in the model's order."""
        blind = _behind([n for n, error in self._errors.items() if _hides_shapes(error)])
        for node in self._model.ir.graph.all_nodes():
            error = self._errors.get(node)
            if error is None:
                continue
            if isinstance(error, UnsupportedOperatorError) or node not in blind:
                self.refused[node] = error


def _hides_shapes(error: ModelError) -> bool:
    return isinstance(error, UnsupportedOperatorError)


def _behind(nodes: Sequence[ir.Node]) -> set[ir.Node]:
    """Nodes that depend on `nodes`: behind an operator nobody knows, shapes are unknown."""
    found: set[ir.Node] = set()
    queue = list(nodes)
    while queue:
        for value in queue.pop().outputs:
            for user in value.consumers():
                if user not in found:
                    found.add(user)
                    queue.append(user)
                    for body in subgraphs(user).values():
                        found.update(body.all_nodes())
    return found


def _refusal(node: ir.Node, error: ModelError, opset: int) -> Refusal:
    """`node` and what `error` says of it beyond its operator and name."""
    known = serving(node, opset)
    reason = str(error).removeprefix(f"operator {operator_name(node)} (node {node.name!r}): ")
    if known.how in (How.refused, How.missing):
        reason = known.description
    return Refusal(operator_name(node), node.name or "", known.how, reason)


def _tallied(nodes: set[ir.Node], opset: int, how: How | None = None) -> tuple[ServedOperator, ...]:
    """`nodes` counted by operator, the same way in all of them."""
    examples = {operator_name(node): node for node in nodes}
    counts = Counter(operator_name(node) for node in nodes)
    found = []
    for operator in sorted(counts):
        known = serving(examples[operator], opset)
        description = known.description
        if how is not None and known.how != how:
            description = "its result here is no floating tensor: gradients stop here"
        found.append(ServedOperator(operator, counts[operator], how or known.how, description))
    return tuple(found)


def _candidates(model: Model, wrt: Sequence[str] | str | None) -> list[ir.Value]:
    """What was asked for, or else might have been, where no path leads to the output."""
    if wrt is not None:
        return [model.find_tensor(name) for name in ([wrt] if isinstance(wrt, str) else wrt)]
    floating = [value for value in model.input_values if is_floating(value)]
    return floating or model.input_values


def _stops(
    graph: ir.Graph, sources: Sequence[ir.Value], output: ir.Value, straight_through: bool
) -> set[ir.Node]:
    """Nodes on the way from `sources` to `output` that a differentiable path reaches but does not leave."""
    reached = reached_values(list(graph), sources, straight_through)
    return _stops_among(between(graph, sources, [output]), reached, straight_through)


def _stops_among(
    nodes: Sequence[ir.Node], reached: set[ir.Value], straight_through: bool
) -> set[ir.Node]:
    found: set[ir.Node] = set()
    for node in nodes:
        inputs = [*(value for value in node.inputs if value is not None), *captures(node)]
        if not any(value in reached for value in inputs):
            continue
        if not any(value in reached for value in node.outputs):
            found.add(node)
        for body in subgraphs(node).values():
            entering = [value for value in inputs if value in reached]
            entering += [value for value in body.inputs if is_floating(value)]
            inner = reached_values(list(body), entering, straight_through)
            found |= _stops_among(between(body, entering, body.outputs), inner, straight_through)
    return found


def _restart(graph: ir.Graph, refused: Container[ir.Node], output: ir.Value) -> str | None:
    """A floating tensor behind the last of the refused nodes, which the output can be explained by."""
    last = None
    for node in graph:
        inner = (n for body in subgraphs(node).values() for n in body.all_nodes())
        if any(n in refused for n in (node, *inner)):
            last = node
    outputs = [] if last is None else last.outputs
    names = [v.name for v in outputs if is_floating(v) and v.uses() and v is not output]
    return names[0] if names else None
