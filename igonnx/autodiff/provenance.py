"""Which node of a model each node of its expanded copy stems from.

Lowering puts many nodes in the place of one, but tensors keep their names: what computes a tensor of the model from
other tensors of the model stems from the node that did so before.
"""

from __future__ import annotations

import onnx_ir as ir

from igonnx.graph.node_view import captures_of, subgraphs

__all__ = ["Provenance"]


class Provenance:
    """From nodes of `copy`, a fresh clone of `graph`, to the nodes of `graph`."""

    def __init__(self, graph: ir.Graph, copy: ir.Graph) -> None:
        self._graph, self._copy = graph, copy
        self._origins: dict[ir.Node, ir.Node | None] = dict(
            zip(copy.all_nodes(), graph.all_nodes(), strict=True)
        )

    def of(self, node: ir.Node) -> ir.Node | None:
        """The origin of a node of the copy; None where nothing tells."""
        if node not in self._origins:
            self.update()
        return self._origins.setdefault(node, None)

    def update(self) -> None:
        """Take note of the nodes that have come since."""
        known = self._origins
        fresh = [node for node in self._copy.all_nodes() if node not in known]
        if not fresh:
            return
        original = {value.name: node for node in self._graph.all_nodes() for value in node.outputs}
        for node in fresh:
            for value in node.outputs:
                if value.name in original and node not in known:
                    self._claim(node, original[value.name], set(original))

    def _claim(self, node: ir.Node, origin: ir.Node, names: set[str | None]) -> None:
        """Give `origin` to `node` and to what it is computed by, up to tensors of the model."""
        queue = [node]
        while queue:
            current = queue.pop()
            if current in self._origins:
                continue
            self._origins[current] = origin
            for body in subgraphs(current).values():
                for inner in body.all_nodes():
                    self._origins.setdefault(inner, origin)
            for value in _read(current):
                producer = value.producer()
                if producer is not None and value.name not in names:
                    queue.append(producer)


def _read(node: ir.Node) -> list[ir.Value]:
    inner = [value for body in subgraphs(node).values() for value in captures_of(body)]
    return [*(value for value in node.inputs if value is not None), *inner]
