"""What an adapter works with: one node, its attributes and inputs, and the means to put other nodes in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias, cast

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike

from igonnx.errors import ModelError
from igonnx.graph.builder import GraphBuilder

__all__ = ["TARGET", "Adaptation", "Scope", "adapter", "changes", "registered"]

TARGET = 17  # the opset all adapters lead to

Adapter: TypeAlias = "Callable[[Adaptation], None]"

_adapters: dict[str, dict[int, Adapter]] = {}


def adapter(*operators: str, version: int) -> Callable[[Adapter], Adapter]:
    """Register a function for the change that came to `operators` with opset `version`.

    It turns a node of the opset before into one of `version`. Nodes it emits besides are of opset 17 and stay as
    they are.
    """

    def register(function: Adapter) -> Adapter:
        for operator in operators:
            if _adapters.setdefault(operator, {}).setdefault(version, function) is not function:
                raise ValueError(f"{operator} has two adapters for version {version}")
        return function

    return register


def changes(operator: str, after: int) -> list[tuple[int, Adapter]]:
    """The adapters of `operator` for the changes after opset `after`, oldest first."""
    return sorted(
        (version, function)
        for version, function in _adapters.get(operator, {}).items()
        if version > after
    )


def registered() -> dict[str, list[int]]:
    """The opsets whose changes have an adapter, by operator."""
    return {operator: sorted(versions) for operator, versions in _adapters.items()}


class Scope:
    """The graph of a model: owner of its names and of the constants that adapters add."""

    def __init__(self, model: ir.Model, name: str) -> None:
        self.name = name
        self.opset = model.opset_imports.get("", TARGET)
        self._builder = GraphBuilder(model, scope="upgrade")

    def unique(self, wish: str) -> str:
        """A name that no value has, in any subgraph."""
        return self._builder.unique(wish)

    def constant(self, array: np.ndarray[Any, Any]) -> ir.Value:
        """An initializer of the outermost graph, which every subgraph sees; the same one for the same array."""
        return self._builder.constant(array)


class Adaptation:
    """A node on its way to opset 17."""

    def __init__(self, node: ir.Node, scope: Scope) -> None:
        self.node = node
        self.scope = scope

    # -- what it is ----------------------------------------------------------------------------

    def input(self, index: int) -> ir.Value:
        """Input `index`, known to be there."""
        value = self.optional_input(index)
        if value is None:
            self.refuse(f"input {index} is missing")
        return value

    def optional_input(self, index: int) -> ir.Value | None:
        """Input `index`, or None where it is left out."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def take(self, name: str, default: Any = None) -> Any:
        """Remove attribute `name` and return its value."""
        attribute = self.node.attributes.pop(name, None)
        return default if attribute is None else attribute.value

    def put(self, name: str, value: Any) -> None:
        """Set attribute `name`."""
        self.node.attributes[name] = ir.convenience.convert_attribute(name, value)

    def rank(self, value: ir.Value) -> int | None:
        """The rank of `value`, or None where it is known at run time only."""
        return None if value.shape is None else len(value.shape)

    def used(self, index: int) -> bool:
        """Whether something takes output `index`."""
        if index >= len(self.node.outputs):
            return False
        output = self.node.outputs[index]
        return bool(output.uses()) or output.is_graph_output()

    def constant_of(self, value: ir.Value | None) -> np.ndarray[Any, Any] | None:
        """What `value` holds, where nothing can change it."""
        if value is None or value.is_graph_input():
            return None
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is None or isinstance(tensor, ir.ExternalTensor):
            return None
        return np.asarray(tensor.numpy())

    def refuse(self, reason: str) -> NoReturn:
        """Give up on the model, for `reason`."""
        raise ModelError(
            f"{self.scope.name}: cannot be upgraded from opset {self.scope.opset} to {TARGET}: "
            f"{self.node.op_type} node {self.node.name or self.node.outputs[0].name!r}: {reason}; "
            f"re-export it at opset {TARGET} or later"
        )

    # -- what it becomes -----------------------------------------------------------------------

    def integers(self, values: ArrayLike) -> ir.Value:
        """A constant of int64."""
        return self.scope.constant(np.asarray(values, np.int64))

    def like(self, number: float, value: ir.Value) -> ir.Value:
        """The scalar `number` in the dtype of `value`."""
        if value.dtype is not None:
            # Beyond the largest number of the dtype lies infinity, as in a cast.
            with np.errstate(over="ignore"):
                return self.scope.constant(np.asarray(number, value.dtype.numpy()))
        return self.emit("CastLike", self.scope.constant(np.asarray(number, np.float32)), value)

    def emit(self, operator: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """A new node of one output before this one."""
        return self.emit_several(operator, *inputs, count=1, **attributes)[0]

    def emit_several(
        self, operator: str, *inputs: ir.Value | None, count: int, **attributes: Any
    ) -> list[ir.Value]:
        """A new node of `count` outputs before this one."""
        base = f"{self.node.outputs[0].name}_{operator}"
        outputs = [ir.Value(name=self.scope.unique(base)) for _ in range(count)]
        node = ir.node(
            operator, list(inputs), attributes=attributes, outputs=outputs, name=outputs[0].name
        )
        self._graph().insert_before(self.node, node)
        return outputs

    def set_inputs(self, *inputs: ir.Value | None) -> None:
        """Take other inputs; trailing ones that are left out are dropped."""
        values = list(inputs)
        while values and values[-1] is None:
            values.pop()
        self.node.resize_inputs(len(values))
        for index, value in enumerate(values):
            self.node.replace_input_with(index, value)

    def become(self, operator: str, *inputs: ir.Value | None, **attributes: Any) -> None:
        """Turn into another operator with the same outputs."""
        self.node.op_type = operator
        self.set_inputs(*inputs)
        self.node.attributes.clear()
        for name, value in attributes.items():
            self.put(name, value)

    def replace_output(self, index: int, value: ir.Value) -> None:
        """Let `value` take over the name and the consumers of output `index`, which then is nobody's."""
        old = self.node.outputs[index]
        value.shape = old.shape
        value.type = old.type
        old.replace_all_uses_with(value, replace_graph_outputs=True)
        name, old.name = old.name, self.scope.unique(f"{old.name}_unused")
        value.name = name

    def drop_outputs(self, keep: int) -> None:
        """Keep the first `keep` outputs; the others are known to be unused."""
        self.node.resize_outputs(min(keep, len(self.node.outputs)))

    # -- shapes, at run time where they are not known ------------------------------------------

    def rank_tensor(self, value: ir.Value) -> ir.Value:
        """The rank of `value` as int64 of shape [1]."""
        return self.emit("Shape", self.emit("Shape", value))

    def trailing_axes(self, value: ir.Value, count: int | ir.Value) -> ir.Value:
        """`value` with `count` (a number, or int64 [1]) axes of size one put at its end."""
        if isinstance(count, int):
            count = self.integers([count])
        ones = self.emit("ConstantOfShape", count, value=ir.tensor(np.ones(1, np.int64)))
        shape = self.emit("Concat", self.emit("Shape", value), ones, axis=0)
        return self.emit("Reshape", value, shape, allowzero=1)

    def _graph(self) -> ir.Graph:
        return cast("ir.Graph", self.node.graph)
