"""Matrix products of transposed factors, without transposing them.

ONNX Runtime's FusedMatMul (domain com.microsoft) reads either factor transposed. The runtime uses it by itself where a
transposition swaps the last two axes; those of attention heads, which move other axes as well, it carries out one by
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, cast

import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder
from igonnx.graph.node_view import take_place

__all__ = ["fuse_transpositions"]

MICROSOFT = "com.microsoft"
Axes: TypeAlias = "tuple[int, ...]"


def fuse_transpositions(model: ir.Model) -> None:
    """Rewrite, in place, float32 products of tensors of the same rank, three or more, in the main graph of `model`."""
    _Products(model).run()


class _Products:
    def __init__(self, model: ir.Model) -> None:
        self.op = GraphBuilder(model, scope="transposed")
        self._turned: dict[tuple[ir.Value, Axes], ir.Value] = {}

    def run(self) -> None:
        for node in list(self.op.graph):
            if node.op_type == "Transpose" and node.domain in ("", "ai.onnx"):
                source, axes = cast("ir.Value", node.inputs[0]), _permutation(node)
                if axes is not None:
                    self._turned.setdefault((source, axes), node.outputs[0])
        for node in list(self.op.graph):
            if _is_product(node):
                self._rewrite(node)
        self.op.graph.sort()

    def _rewrite(self, node: ir.Node) -> None:
        factors, flags = [], []
        for value in cast("list[ir.Value]", list(node.inputs)):
            factor, flag = self._factor(value)
            factors.append(factor)
            flags.append(flag)
        output = node.outputs[0]
        users = list(output.consumers())
        turn = users[0] if len(users) == 1 and not output.is_graph_output() else None
        axes = None if turn is None or turn.op_type != "Transpose" else _permutation(turn)
        if axes is not None and axes[-1] == len(axes) - 2:
            # (A B)^T = B^T A^T: what moved the rows of the product behind its columns need not any more.
            factors, flags = factors[::-1], [1 - flag for flag in flags[::-1]]
            self._replace(node, factors, flags, swapped=True)
            cast("ir.Node", turn).attributes.add(ir.AttrInt64s("perm", _swapped_values(axes)))
            return
        if any(flags) or factors != list(node.inputs):
            self._replace(node, factors, flags)

    def _replace(
        self,
        node: ir.Node,
        factors: Sequence[ir.Value],
        flags: Sequence[int],
        *,
        swapped: bool = False,
    ) -> None:
        """Put the product of `factors`, each read transposed where its flag is 1, in the place of `node`."""
        output = node.outputs[0]
        with self.op.before(node):
            if any(flags):
                self.op.model.opset_imports.setdefault(MICROSOFT, 1)
                result = self.op.emit(
                    "FusedMatMul", *factors, domain=MICROSOFT, transA=flags[0], transB=flags[1]
                )
            else:
                result = self.op.MatMul(*factors)
        result.type = output.type
        if result.shape is None and not swapped:
            result.shape = output.shape
        take_place(output, result)
        cast("ir.Graph", node.graph).remove(node, safe=True)

    def _factor(self, value: ir.Value) -> tuple[ir.Value, int]:
        """`value` as a tensor whose rows are contiguous in memory, and whether it is to be read transposed."""
        source, axes = _origin(value)
        if source is value:
            return value, 0
        last = len(axes) - 1
        flag = int(axes[-1] != last)
        if flag and axes[-2] != last:
            return value, 0
        wanted = (*axes[:-2], axes[-1], axes[-2]) if flag else axes
        if wanted == tuple(range(len(axes))):
            return source, flag
        if (source, wanted) in self._turned:
            return self._turned[source, wanted], flag
        if not all(_is_product(user) or user.op_type == "Transpose" for user in value.consumers()):
            return value, 0
        producer = source.producer()
        if producer is None:
            return value, 0
        with self.op.after(producer):
            turned = self.op.Transpose(source, perm=list(wanted))
        turned.type = source.type
        if source.shape is not None:
            turned.shape = ir.Shape([source.shape[axis] for axis in wanted])
        self._turned[source, wanted] = turned
        return turned, flag


def _is_product(node: ir.Node) -> bool:
    """Whether `node` multiplies two computed float32 tensors of the same rank, at least three."""
    if node.op_type != "MatMul" or node.domain not in ("", "ai.onnx"):
        return False
    first, second = (cast("ir.Value", value) for value in node.inputs)
    if first.shape is None or second.shape is None or len(first.shape) != len(second.shape):
        return False
    constant = first.const_value is not None or second.const_value is not None
    return len(first.shape) >= 3 and first.dtype == ir.DataType.FLOAT and not constant


def _origin(value: ir.Value) -> tuple[ir.Value, Axes]:
    """The value that `value` is a transposition of, through any number of nodes, and the axes as it has them."""
    axes: Axes | None = None
    while True:
        node = value.producer()
        perm = None
        if node is not None and node.op_type == "Transpose" and node.domain in ("", "ai.onnx"):
            perm = _permutation(node)
        if perm is None:
            rank = 0 if value.shape is None else len(value.shape)
            return value, axes or tuple(range(rank))
        axes = perm if axes is None else tuple(perm[axis] for axis in axes)
        value = cast("ir.Value", cast("ir.Node", node).inputs[0])


def _permutation(node: ir.Node) -> Axes | None:
    perm = node.attributes.get("perm")
    return None if perm is None else tuple(perm.as_ints())


def _swapped_values(axes: Axes) -> list[int]:
    """`axes` of a tensor whose last two axes have changed places."""
    last = len(axes) - 1
    change = {last: last - 1, last - 1: last}
    return [change.get(axis, axis) for axis in axes]
