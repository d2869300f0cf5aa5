"""What happens inside the model, row by row: values, gradients and changes of its inner tensors, its layers.

    inputs   z:<name> [B, ...] per explained tensor, fixed:<name> for the other model inputs, cotangent [B, ...]
             direction:<name> [B, ...] per explained tensor, where changes are asked for
             neuron [B, ...] of the shape of a layer, where gradients through that layer are asked for
    outputs  value:<layer> [B, ...]
             gradient:<layer> [B, ...], of the score by that layer
             change:<layer> [B, ...], the layer's derivative as the explained tensors move along the direction
             through:<name> [B, ...], the part of the score's gradient by an explained tensor that goes through neurons

As in `igonnx.row_scores` the model is cut open at the explained tensors only, so what bypasses a layer is at each row
what it is for the explained tensors there.

The change is a product of the Jacobian J with the direction v, from the reverse walk alone: a walk back from the layer
with any u gives J^T u, which is linear in u; a second walk, over that graph, back from J^T u with v gives the gradient
of v . J^T u by u, which is J v.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import onnx_ir as ir
import onnx_ir.passes.common as passes

from igonnx.autodiff.expansion import expand
from igonnx.autodiff.gradient_values import zeros_like
from igonnx.autodiff.selection import NOT_STRAIGHT_THROUGH
from igonnx.autodiff.transform import differentiate
from igonnx.errors import InputError, ModelError
from igonnx.graph.builder import GraphBuilder, dims
from igonnx.graph.shape_inference import infer_shapes
from igonnx.lowering.apply import remove_straight_through
from igonnx.model import Model, dtype_name, is_floating
from igonnx.row_scores import Apply, OpenedRows, RowScores, needed_inputs, opened_rows, put_out

__all__ = ["Inside", "build_row_layers"]

# Gradients of the layers given, by values of the explained tensors: see `differentiate`.
Walk: TypeAlias = (
    "Callable[[Mapping[ir.Value, ir.Value], Sequence[ir.Value]], list[ir.Value | None]]"
)


@dataclass(frozen=True)
class Inside:
    """What is asked of a model's inner tensors, by name; see the module's text."""

    values: tuple[str, ...] = ()
    gradients: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    through: str | None = None  # a layer, of which `neuron` picks some

    @property
    def layers(self) -> tuple[str, ...]:
        """Every layer that is named, once."""
        named = [*self.values, *self.gradients, *self.changes]
        return tuple(dict.fromkeys(named if self.through is None else [*named, self.through]))


def build_row_layers(
    model: Model,
    asked: Inside,
    *,
    output: str,
    wrt: Sequence[str],
    apply: Apply = None,
    batch_axis: int | None = 0,
    fixed_rows: int | None = None,
    straight_through: bool = True,
) -> RowScores:
    """Build the graph for the layers of `asked`, for the score of `output` as a function of the tensors `wrt`.

    Raises `InputError` for a layer that is not floating, `ModelError` for one that the score, or that a change, does
    not reach differentiably, and `UnsupportedOperatorError` for an operator on the way that has no gradient.
    """
    copy = model.with_graph(model.clone())
    graph = copy.ir.graph
    if asked != Inside(values=asked.values):
        expand(copy.ir, wrt, output)
    for layer in asked.changes:
        expand(copy.ir, wrt, layer)
    found = {name: _layer(copy, name) for name in asked.layers}
    cut = [copy.find_tensor(name) for name in wrt]
    opened = opened_rows(copy, output, wrt, apply, batch_axis, fixed_rows)
    by_name = dict(zip(wrt, opened.sources, strict=True))
    layers = {name: by_name.get(name, value) for name, value in found.items()}
    for value in cut:
        if (
            value.producer() is not None
        ):  # what made it is still there, but the name is that of the source now
            value.name = opened.op.unique("cut")
    results = _Results(copy, opened, layers, by_name, straight_through)
    outputs = {f"value:{name}": layers[name] for name in asked.values}
    outputs |= results.gradients(asked.gradients, output)
    if asked.through is not None:
        outputs |= results.through(asked.through, output)
    for layer in asked.changes:
        outputs[f"change:{layer}"] = results.change(layer)
    for name, source in by_name.items():
        source.name = f"z:{name}"
    graph.outputs.clear()
    for name, value in outputs.items():
        put_out(results.op, value, name)
    remove_straight_through(copy.ir)
    passes.RemoveUnusedNodesPass()(copy.ir)
    for value in list(graph.inputs):
        if value.name == "cotangent" and not value.uses():
            graph.inputs.remove(value)
    graph.sort()
    return RowScores(
        copy.ir, tuple(wrt), needed_inputs(graph, opened.fixed), opened.dtype, fixed_rows
    )


def _layer(model: Model, name: str) -> ir.Value:
    value = model.find_tensor(name)
    if not is_floating(value):
        raise InputError(
            f"layer {name!r} is {dtype_name(value)}; expected a floating tensor inside the model"
        )
    return value


class _Results:
    """The values that are computed beside the model, in its opened graph."""

    def __init__(
        self,
        model: Model,
        opened: OpenedRows,
        layers: Mapping[str, ir.Value],
        sources: Mapping[str, ir.Value],
        straight_through: bool,
    ) -> None:
        self.op = opened.op
        self._model, self._opened = model, opened
        self._layers, self._sources = layers, sources
        self._straight_through = straight_through
        self._forward = list(opened.op.graph)  # the nodes of the model itself
        self._directions: dict[str, ir.Value] = {}

    def gradients(self, names: Sequence[str], output: str) -> dict[str, ir.Value]:
        """The gradients of the score by layers."""
        wanted = [self._layers[name] for name in names]
        if not wanted:
            return {}
        found = self._walk({self._opened.by_row: self._opened.seed}, wanted)
        results = {}
        for name, gradient in zip(names, found, strict=True):
            if gradient is None:
                raise self._no_path(f"from layer {name!r} to output {output!r}")
            results[f"gradient:{name}"] = gradient
        return results

    def through(self, layer: str, output: str) -> dict[str, ir.Value]:
        """The score's gradient by each explained tensor, as far as it goes through neurons of the layer."""
        value = self._layers[layer]
        gradient = self.gradients([layer], output)[f"gradient:{layer}"]
        chosen = self._input("neuron", value)
        # Where the neuron is not, nothing passes, be it infinite.
        seed = self.op.Where(self.op.Equal(chosen, 0), self.op.scalar(0.0, value), gradient)
        seed = self.op.Mul(seed, chosen)
        seed.shape, seed.type = value.shape, value.type
        found = self._walk({value: seed}, list(self._sources.values()))
        if all(part is None for part in found):
            raise self._no_path(f"from {', '.join(map(repr, self._sources))} to layer {layer!r}")
        return {
            f"through:{name}": zeros_like(self.op, source) if part is None else part
            for (name, source), part in zip(self._sources.items(), found, strict=True)
        }

    def change(self, layer: str) -> ir.Value:
        """The derivative of the layer along the direction of the explained tensors."""
        value, graph = self._layers[layer], self._model.ir.graph
        for name, source in self._sources.items():
            if name not in self._directions:
                self._directions[name] = self._input(f"direction:{name}", source)
        # Of the layer's shape, so that it can stand for this dummy afterwards.
        dummy = self._input(self.op.unique("dummy"), value)
        before = set(graph)
        backward = self._walk({value: dummy}, list(self._sources.values()))
        terms: dict[ir.Value, ir.Value] = {}
        for name, term in zip(self._sources, backward, strict=True):
            direction = self._directions[name]
            if term in terms:  # sums hand the same gradient to all that they add
                direction = self.op.Add(terms[term], direction)
            if term is not None:
                terms[term] = direction
        if not terms:
            sources = ", ".join(map(repr, self._sources))
            raise self._no_path(f"from {sources} to layer {layer!r}")
        change = self._second_walk(dummy, terms, before)
        dummy.replace_all_uses_with(value)
        graph.inputs.remove(dummy)
        _read_sizes_of_inputs(self.op)
        change.shape, change.type = value.shape, value.type
        return change

    def _second_walk(
        self, dummy: ir.Value, terms: Mapping[ir.Value, ir.Value], before: set[ir.Node]
    ) -> ir.Value:
        """The gradient by `dummy` of the sum of products of `terms`, over the nodes that the first walk has added."""
        graph, names = self._model.ir.graph, {}
        graph.outputs.clear()
        for term, direction in terms.items():
            if term is not dummy:
                graph.outputs.append(term)
            names[term.name or ""] = direction
        infer_shapes(
            self._model.ir
        )  # the walk has noted shapes of gradients, not what lies between
        for value in list(graph.outputs):
            expand(self._model.ir, [dummy.name or ""], value.name or "")
        graph.sort()
        known = {value.name: value for node in graph for value in node.outputs}
        known[dummy.name] = dummy
        self.op = GraphBuilder(self._model.ir, scope="change")
        nodes = [node for node in graph if node not in before]
        (change,) = differentiate(
            self.op,
            {known[name]: direction for name, direction in names.items()},
            [dummy],
            nodes,
            straight_through=self._straight_through,
        )
        if change is None:  # it reaches the explained tensors, so they reach it
            raise self._no_path(f"back to {dummy.name!r}")
        return change

    def _walk(
        self, seeds: Mapping[ir.Value, ir.Value], wrt: Sequence[ir.Value]
    ) -> list[ir.Value | None]:
        return differentiate(
            self.op, seeds, wrt, self._forward, straight_through=self._straight_through
        )

    def _input(self, name: str, like: ir.Value) -> ir.Value:
        value = ir.val(name, shape=like.shape, type=like.type)
        self._model.ir.graph.inputs.append(value)
        return value

    def _no_path(self, way: str) -> ModelError:
        reason = "" if self._straight_through else NOT_STRAIGHT_THROUGH
        return ModelError(f"{self._model.name}: no differentiable path leads {way}{reason}")


def _read_sizes_of_inputs(op: GraphBuilder) -> None:
    """Read sizes of graph inputs, where they have the same names, in the place of those of values that are computed.

    Of what the first walk has computed, nothing else may be needed by the second one: then it is not computed at all.
    """
    axes: dict[str, tuple[ir.Value, int]] = {}
    for given in op.graph.inputs:
        for axis, size in enumerate([] if given.shape is None else dims(given)):
            if isinstance(size, str):
                axes.setdefault(size, (given, axis))
    for node in list(op.graph):
        value = node.inputs[0] if node.op_type == "Shape" and not node.attributes else None
        if value is None or value.shape is None or value.producer() is None:
            continue
        sizes = dims(value)
        if not sizes or not all(isinstance(size, int) or size in axes for size in sizes):
            continue
        with op.before(node):
            parts = [
                op.ints([size]) if isinstance(size, int) else op.dim(*axes[cast("str", size)])
                for size in sizes
            ]
            joined = op.join(*parts)
            if len(parts) == 1:
                joined = op.Identity(joined)
        node.outputs[0].replace_all_uses_with(joined)
