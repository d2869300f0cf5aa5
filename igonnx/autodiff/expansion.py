"""Making room for the walk: operators without a rule are written in operators that have one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from igonnx.autodiff import registry
from igonnx.autodiff.transform import Observer, between, no_rule_message
from igonnx.errors import ModelError, UnsupportedOperatorError
from igonnx.graph.branches import inline_settled_branches
from igonnx.graph.constant_folding import fold_constants
from igonnx.graph.constants import settle_constants
from igonnx.graph.shape_inference import infer_shapes
from igonnx.lowering import function_bodies
from igonnx.lowering import registry as lowerings
from igonnx.lowering.apply import has_straight_through, lower

__all__ = ["expand"]

_ROUNDS = 8  # an operator that stands for others which stand for others...


def expand(
    model: ir.Model, sources: Sequence[str], output: str, *, observe: Observer | None = None
) -> None:
    """Lower, in place, what lies between `sources` and `output`, has no rule, and is made of operators that have.

    Arithmetic on sizes that are fixed by now is done. Names of tensors stay; find values again by name. Quantised
    operators go on computing what they do and get a straight-through form beside them:
    `igonnx.lowering.apply.remove_straight_through` ends it. An observer is told of nodes that cannot be lowered, which
    stay; without one that is an error.
    """
    if fold_constants(model.graph, batch_is_settled=True):
        inline_settled_branches(model)
        infer_shapes(model)
    for _ in range(_ROUNDS):
        values = {value.name: value for value in _values(model.graph)}
        nodes = between(model.graph, [values[name] for name in sources], [values[output]])
        try:
            changed = lower(model, nodes, _needs_lowering, straight_through=True, observe=observe)
        except ModelError as error:
            opset = model.opset_imports.get("", 0)
            unknown = next((node for node in nodes if _has_nothing(node, opset)), None)
            if unknown is None:
                raise
            # An operator nobody knows leaves no shapes behind it: then it is what is wrong.
            message = no_rule_message(unknown, [values[output]], [values[name] for name in sources])
            raise UnsupportedOperatorError(message) from error
        if not changed:
            return
        settle_constants(model)
        inline_settled_branches(model)
        infer_shapes(model)
        if fold_constants(model.graph, batch_is_settled=True):
            infer_shapes(model)


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def _has_nothing(node: ir.Node, opset: int) -> bool:
    """Whether `node` has neither rule nor lowering nor function body."""
    served = lowerings.find(node) is not None or function_bodies.has_body(node, opset)
    return _needs_lowering(node) and not served


def _needs_lowering(node: ir.Node) -> bool:
    return (
        registry.find(node) is None
        and not registry.is_nondifferentiable(node)
        and not has_straight_through(node)
    )
