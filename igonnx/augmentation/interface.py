"""The inputs and outputs that an augmented model has besides its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from igonnx.errors import InputError
from igonnx.graph.builder import GraphBuilder, dims, rank
from igonnx.graph.tensors import own_tensor
from igonnx.model import Model

__all__ = ["Interface", "Result", "interface_of"]


@dataclass(frozen=True)
class Interface:
    """The inputs added to the model."""

    target: ir.Value
    baselines: list[ir.Value]  # per explained tensor
    explain: ir.Value | None  # with lazy


@dataclass(frozen=True)
class Result:
    """An output to be added: a value [N, ...], and where the sizes of its other axes come from."""

    name: str
    value: ir.Value
    sizes: Sequence[
        tuple[ir.Value, int] | int
    ] = ()  # an axis of a tensor of the model, or a number

    def of_no_examples(self, op: GraphBuilder) -> ir.Value:
        """The same for an empty batch, [0, ...], made in the graph of `op`."""
        sizes = [[size] if isinstance(size, int) else op.dim(*size) for size in self.sizes]
        return op.zeros(op.join([0], *sizes), cast("ir.DataType", self.value.dtype))

    def declared(self, examples: int | str | None) -> ir.Shape:
        """The shape to declare."""
        return ir.Shape(
            [examples, *(s if isinstance(s, int) else dims(s[0])[s[1]] for s in self.sizes)]
        )


def interface_of(
    model: Model,
    wrt: Sequence[str],
    outputs: Sequence[str],
    dtype: np.dtype[np.generic],
    baseline: float,
    target: int,
    *,
    lazy: bool,
    optional: bool,
) -> Interface:
    """Add the inputs to `model`, in place; `outputs` are names that will be needed.

    Where they are `optional`, each has an initializer of the same name: it may be left out.

    Raises `InputError` where the model has an input or output of such a name. Tensors inside it give theirs up.
    """
    several = len(wrt) > 1
    names = [f"baseline_{name}" if several else "baseline" for name in wrt]
    _free_names(model, ["target", *names, *(["explain"] if lazy else []), *outputs], wrt)
    ranks = [rank(model.find_tensor(name)) for name in wrt]
    add = partial(_added_input, model.ir.graph, optional=optional)
    picked = add("target", np.array([target]), ["targets"])
    starts = [
        add(name, np.full([1] * axes, baseline, dtype), [f"{name}_axis_{i}" for i in range(axes)])
        for name, axes in zip(names, ranks, strict=True)
    ]
    asked = add("explain", np.array([False]), [1]) if lazy else None
    return Interface(picked, starts, asked)


def _added_input(
    graph: ir.Graph,
    name: str,
    default: NDArray[np.generic],
    shape: Sequence[int | str],
    *,
    optional: bool,
) -> ir.Value:
    tensor = ir.tensor(default, name=name)
    value = ir.val(name, shape=ir.Shape(shape), type=ir.TensorType(tensor.dtype))
    graph.inputs.append(value)
    if optional:
        value.const_value = tensor
        graph.register_initializer(value)
    return value


def _free_names(model: Model, needed: Sequence[str], wrt: Sequence[str]) -> None:
    """Rename tensors inside `model` that are called like something in `needed`."""
    graph = model.ir.graph
    for kind, values in (("an input", graph.inputs), ("an output", graph.outputs)):
        for value in values:
            if value.name in needed:
                raise InputError(
                    f"{model.name}: the model has {kind} called {value.name!r}, which an augmented model needs for its "
                    "own: rename it first, e.g. all of them by onnx.compose.add_prefix(model, 'model/')"
                )
    values = [value for node in graph.all_nodes() for value in node.outputs]
    values += graph.initializers.values()
    taken = {value.name for value in values}
    for value in values:
        if value.name not in needed:
            continue
        if value.name in wrt:
            raise InputError(
                f"wrt {value.name!r} has a name that an augmented model needs for its own"
            )
        fresh = f"of_model/{value.name}"
        while fresh in taken:
            fresh += "_"
        taken.add(fresh)
        if value.const_value is not None:
            value.const_value = own_tensor(value.const_value)
        value.name = fresh
