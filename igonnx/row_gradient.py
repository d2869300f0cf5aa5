"""The model cut open at the explained tensors, with its scalar score and the gradient of that score, row by row.

    inputs   z:<name> [B, ...] per explained tensor, fixed:<name> for the other model inputs, cotangent [B, ...]
             reference:<name> [B, ...], where a propagation reads what tensors are for the baseline
    outputs  score [B], the sum of output times cotangent; gradient:<name> [B, ...] of the score

Rows are independent. The explanation graph wraps this with interpolation and the weighted sum; the reference engine
runs it as it is and does the rest in NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from igonnx.autodiff.expansion import expand
from igonnx.autodiff.gradient_values import zeros_like
from igonnx.autodiff.propagation import GRADIENT, PropagationSpec, specification
from igonnx.autodiff.selection import NOT_STRAIGHT_THROUGH
from igonnx.autodiff.transform import between, differentiate
from igonnx.errors import InputError, ModelError
from igonnx.graph.native_target import NativeTarget
from igonnx.lowering.apply import remove_straight_through
from igonnx.model import Model, is_floating
from igonnx.row_scores import Apply, OpenedRows, named_output, needed_inputs, opened_rows

__all__ = ["RowGradient", "build_row_gradient"]


@dataclass(frozen=True)
class RowGradient:
    """A graph of the form above, and the names in it."""

    model: ir.Model
    explained: tuple[str, ...]  # tensors of the model; inputs are z:<name>
    fixed: tuple[str, ...]  # other model inputs that are still needed; inputs are fixed:<name>
    dtype: np.dtype[np.generic]  # of cotangent and score: float64 for a float64 model, else float32
    fixed_rows: int | None  # the only number of rows the model takes; None: any
    overridden: int = 0  # nodes that a propagation's own rules have served
    # Those of `explained` that have an input reference:<name>, what z:<name> is for the baseline.
    referenced: tuple[str, ...] = ()


def build_row_gradient(
    model: Model,
    *,
    output: str,
    wrt: Sequence[str],
    apply: Apply = None,
    batch_axis: int | None = 0,
    fixed_rows: int | None = None,
    native: NativeTarget | None = None,
    straight_through: bool = True,
    propagation: str | PropagationSpec = GRADIENT,
) -> RowGradient:
    """Build the graph for `output` after `apply`, explained by the tensors `wrt` (names known to the model).

    What it calls gradient is what `propagation` makes of it (see `igonnx.autodiff.propagation`). One that wants to know
    what tensors are for the baseline adds the inputs reference:<name> [B, ...], one per explained tensor.
    """
    spec = specification(propagation)
    walk = spec.walk()
    copy = model.with_graph(model.clone())
    graph = copy.ir.graph
    expand(copy.ir, wrt, output)
    tensors = [copy.find_tensor(name) for name in wrt]
    spec.prepare(copy.ir, between(graph, tensors, [copy.find_output(output)]))
    for name in wrt:
        if not is_floating(copy.find_tensor(name)):
            raise InputError(f"wrt {name!r} is not floating")
    recognised = native if spec.takes_fused_gelu else None
    opened = opened_rows(copy, output, wrt, apply, batch_axis, fixed_rows, recognised)
    opened.op.native = native
    references = _references(opened, wrt) if spec.needs_reference else {}
    walk.begin(opened.op, references)
    seed = opened.seed
    if spec.gives_relevance:
        seed = opened.op.Mul(opened.by_row, seed)
    gradients = differentiate(
        opened.op,
        {opened.by_row: seed},
        opened.sources,
        straight_through=straight_through,
        propagation=walk,
    )
    for name, source in zip(wrt, opened.sources, strict=True):
        source.name = f"z:{name}"  # until here it has the name that messages should show
    graph.outputs.clear()
    graph.outputs.append(named_output(opened.op, opened.score, "score", ir.Shape([opened.rows])))
    for name, source, gradient in zip(wrt, opened.sources, gradients, strict=True):
        if gradient is None and spec.gives_relevance:
            gradient = zeros_like(opened.op, source)  # all that depends on it is weights of others
        if gradient is None:
            reason = "" if straight_through else NOT_STRAIGHT_THROUGH
            raise ModelError(
                f"{model.name}: no gradient reaches {name!r} from output {output!r}{reason}; "
                "explain other tensors with wrt="
            )
        graph.outputs.append(named_output(opened.op, gradient, f"gradient:{name}", source.shape))
    remove_straight_through(copy.ir)
    passes.RemoveUnusedNodesPass()(copy.ir)
    needed = needed_inputs(graph, opened.fixed)
    return RowGradient(
        copy.ir,
        tuple(wrt),
        needed,
        opened.dtype,
        fixed_rows,
        len(walk.served),
        _kept_references(graph, dict(zip(wrt, references.values(), strict=False))),
    )


def _references(opened: OpenedRows, wrt: Sequence[str]) -> dict[ir.Value, ir.Value]:
    """A new graph input reference:<name> for each explained tensor."""
    made = {
        source: ir.val(f"reference:{name}", shape=source.shape, type=source.type)
        for name, source in zip(wrt, opened.sources, strict=True)
    }
    opened.op.graph.inputs.extend(made.values())
    return made


def _kept_references(graph: ir.Graph, references: Mapping[str, ir.Value]) -> tuple[str, ...]:
    """The explained tensors whose reference is read; the inputs of the others are dropped."""
    for value in references.values():
        if not value.uses():
            graph.inputs.remove(value)
    return tuple(name for name, value in references.items() if value.uses())
