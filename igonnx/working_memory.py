"""How much memory one row of a graph takes while it runs, from the shapes of its tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias, cast

import onnx_ir as ir

from igonnx.graph.builder import dims
from igonnx.graph.node_view import captures

__all__ = ["WorkingMemory", "fingerprint", "working_memory"]

Dim: TypeAlias = "int | str | None"


@dataclass(frozen=True)
class _Tensor:
    """A tensor with one entry per row: it exists from step `born` to step `last_used`, both included."""

    dims: tuple[Dim, ...]
    itemsize: int
    born: int
    last_used: int


@dataclass(frozen=True)
class WorkingMemory:
    """What `working_memory` has found in a graph."""

    tensors: tuple[_Tensor, ...]
    row_symbols: frozenset[str]  # names of axes that count rows
    inputs: Mapping[str, tuple[Dim, ...]]  # dims by input, as the graph declares them

    def bytes_per_row(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """The largest sum of what exists at once, for one row; `shapes` are those of the inputs by their names.

        An estimate: a size that the graph leaves open, and no input tells, is taken for that of the largest input;
        what the runtime keeps for its own ends is not counted.
        """
        sizes = self._symbol_sizes(shapes)
        largest = max((_product(shape[1:]) for shape in shapes.values()), default=1)
        changes: dict[int, int] = {}
        for tensor in self.tensors:
            size = self._elements(tensor.dims, sizes, largest) * tensor.itemsize
            changes[tensor.born] = changes.get(tensor.born, 0) + size
            changes[tensor.last_used + 1] = changes.get(tensor.last_used + 1, 0) - size
        now = most = 0
        for step in sorted(changes):
            now += changes[step]
            most = max(most, now)
        return most

    def _symbol_sizes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for name, shape in shapes.items():
            declared = self.inputs.get(name, ())
            if len(declared) == len(shape):
                sizes |= {d: n for d, n in zip(declared, shape, strict=True) if isinstance(d, str)}
        return sizes | dict.fromkeys(self.row_symbols, 1)

    def _elements(self, shape: tuple[Dim, ...], sizes: Mapping[str, int], largest: int) -> int:
        known = [dim if isinstance(dim, int) else sizes.get(dim or "") for dim in shape]
        if known[0] is None:
            known[0] = 1  # the rows, under another name
        whole = _product([dim for dim in known if dim is not None])
        return whole if None not in known else max(whole, largest)


def working_memory(graph: ir.Graph, row_inputs: Collection[str]) -> WorkingMemory:
    """Which tensors of `graph` exist when, if nodes run in order; the first axis of `row_inputs` counts rows.

    Tensors of unknown rank are left out: mostly they are rearranged weights, which have nothing to do with rows.
    """
    inputs = {cast("str", value.name): _dims(value) for value in graph.inputs}
    symbols = [inputs[name][0] for name in row_inputs if inputs.get(name)]
    row_symbols = frozenset(symbol for symbol in symbols if isinstance(symbol, str))
    last_used: dict[ir.Value, int] = {}
    born = dict.fromkeys(graph.inputs, 0)
    nodes = list(graph)
    for step, node in enumerate(nodes):
        born |= dict.fromkeys(node.outputs, step)
        used = [*node.inputs, *captures(node)]
        last_used |= {value: step for value in used if value is not None}
    last_used |= dict.fromkeys(graph.outputs, len(nodes))
    tensors = [
        _Tensor(_dims(value), _itemsize(value), start, last_used[value])
        for value, start in born.items()
        if value in last_used and _counts_rows(value, row_symbols)
    ]
    return WorkingMemory(tuple(tensors), row_symbols, inputs)


def fingerprint(graph: ir.Graph) -> str:
    """A digest of operators, attributes and shapes: graphs that have it in common run at the same speed.

    Values of weights are left out: reading them all would take longer than what is remembered saves.
    """
    digest = hashlib.sha256()
    for name, value in graph.initializers.items():
        digest.update(f"{name} {value.dtype} {value.shape}\n".encode())
    for node in graph.all_nodes():
        ends = [
            [value.name if value else "" for value in end] for end in (node.inputs, node.outputs)
        ]
        settings = {
            name: attribute.value
            for name, attribute in sorted(node.attributes.items())
            if attribute.type in _PLAIN
        }
        digest.update(f"{node.domain} {node.op_type} {ends} {settings}\n".encode())
    return digest.hexdigest()


_PLAIN = frozenset(
    [
        ir.AttributeType.INT,
        ir.AttributeType.INTS,
        ir.AttributeType.FLOAT,
        ir.AttributeType.FLOATS,
        ir.AttributeType.STRING,
    ]
)


def _counts_rows(value: ir.Value, row_symbols: Collection[str]) -> bool:
    shape = _dims(value)
    return bool(shape) and (
        not isinstance(shape[0], int) or any(dim in row_symbols for dim in shape)
    )


def _dims(value: ir.Value) -> tuple[Dim, ...]:
    return () if value.shape is None else tuple(dims(value))


def _itemsize(value: ir.Value) -> int:
    return 4 if value.dtype is None else max(1, int(value.dtype.itemsize))


def _product(numbers: Collection[int]) -> int:
    product = 1
    for number in numbers:
        product *= max(1, number)
    return product
