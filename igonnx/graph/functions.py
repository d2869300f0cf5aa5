"""How large a graph becomes when its functions are put in the place of their calls."""

from __future__ import annotations

from typing import TypeAlias

import onnx_ir as ir

__all__ = ["inlined_size"]

_Called: TypeAlias = "dict[ir.OperatorIdentifier, int]"


def inlined_size(model: ir.Model) -> int:
    """Nodes of the graph with every call inlined, without inlining any: a few functions can call for 2^40.

    A function that calls itself counts as nothing there; who inlines refuses it.
    """
    calls: dict[ir.OperatorIdentifier, _Called] = {}
    own: dict[ir.OperatorIdentifier, int] = {}
    for identifier, function in model.functions.items():
        own[identifier], calls[identifier] = _count(function, model)
    sizes: dict[ir.OperatorIdentifier, int] = {}
    waiting = list(calls)
    entered: set[ir.OperatorIdentifier] = set()
    while waiting:
        identifier = waiting[-1]
        deeper = [one for one in calls[identifier] if one not in sizes and one not in entered]
        if identifier not in sizes and deeper:
            entered.add(identifier)
            waiting += deeper
            continue
        waiting.pop()
        sizes[identifier] = own[identifier] + sum(
            times * sizes.get(one, 0) for one, times in calls[identifier].items()
        )
    plain, called = _count(model.graph, model)
    return plain + sum(times * sizes[one] for one, times in called.items())


def _count(graph: ir.Graph | ir.Function, model: ir.Model) -> tuple[int, _Called]:
    """Nodes that call no function, and calls by function."""
    plain = 0
    called: _Called = {}
    for node in graph.all_nodes():
        identifier = node.op_identifier()
        if identifier in model.functions:
            called[identifier] = called.get(identifier, 0) + 1
        else:
            plain += 1
    return plain, called
