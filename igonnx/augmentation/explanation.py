"""The explanation as nodes: added to the model's graph, or to a branch that is taken when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import onnx_ir as ir
import onnx_ir.passes.common as passes

from igonnx.augmentation.heat import Picture, draw
from igonnx.augmentation.interface import Interface, Result, interface_of
from igonnx.augmentation.path import Ends, Noise, Points, Walked, walk
from igonnx.augmentation.target import pick
from igonnx.batching import Batching
from igonnx.graph.builder import GraphBuilder, dims, rank
from igonnx.model import Model
from igonnx.row_gradient import RowGradient
from igonnx.row_scores import Apply

__all__ = ["Plan", "with_explanation"]

SCOPE = "explanation"  # how names begin that are added inside the graph


@dataclass(frozen=True)
class Plan:
    """What is to be added to the model."""

    output: str
    wrt: tuple[str, ...]
    apply: Apply
    batching: Batching
    points: Points
    noise: Noise | None
    baseline: float  # that fills the default baseline
    target: int  # the default: a place in an example's output, or ARGMAX
    lazy: bool
    optional_inputs: bool
    pictures: tuple[Picture, ...]

    def described(self) -> dict[str, object]:
        """What a file says of it, as JSON has it."""
        noise = self.noise
        return {
            "chunk": self.points.at_once,
            "apply": self.apply,
            "output": self.output,
            "wrt": list(self.wrt),
            "target": self.target,
            "baseline": self.baseline,
            "lazy": self.lazy,
            "optional_inputs": self.optional_inputs,
            "noise_samples": None if noise is None else noise.samples,
            "noise_std": None if noise is None else noise.std,
            "seed": None if noise is None else noise.seed,
        }

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs added."""
        attributions = [f"attribution_{name}" for name in self.wrt]
        drawn = [name for picture in self.pictures for name in picture.outputs]
        return [*attributions, "completeness_delta", *drawn]


def with_explanation(model: Model, plan: Plan, rows: RowGradient) -> ir.Model:
    """`model` with its explanation, in place; `rows` is taken apart for it."""
    face = interface_of(
        model,
        plan.wrt,
        plan.outputs,
        rows.dtype,
        plan.baseline,
        plan.target,
        lazy=plan.lazy,
        optional=plan.optional_inputs,
    )
    op = GraphBuilder(model.ir, scope=SCOPE)
    examples = dims(model.find_tensor(plan.wrt[0]))[0]
    if face.explain is None:
        results = _explanation(op, plan, rows, model, face, _read(plan, model))
    else:
        results = _when_asked(op, face.explain, plan, rows, model, face)
        examples = "explained_examples"
    for result in results:
        made = op.Identity(result.value)
        made.name, made.type = result.name, result.value.type
        made.shape = result.declared(examples)
        model.ir.graph.outputs.append(made)
    _drop_unused(model.ir.graph)
    passes.RemoveUnusedOpsetsPass()(model.ir)
    return model.ir


def _drop_unused(graph: ir.Graph) -> None:
    """Remove constants that were made for nothing, of which runtimes would warn."""
    for name, value in list(graph.initializers.items()):
        if name.startswith(f"{SCOPE}/") and not value.uses():
            del graph.initializers[name]


def _when_asked(
    op: GraphBuilder,
    explain: ir.Value,
    plan: Plan,
    rows: RowGradient,
    model: Model,
    face: Interface,
) -> list[Result]:
    """The explanation in a branch of its own, beside one that gives the same outputs for no examples."""
    read = {name: _not_put_out(op, value) for name, value in _read(plan, model).items()}
    asked, not_asked = op.nested("explained"), op.nested("not_explained")
    results = _explanation(asked, plan, rows, model, face, read)
    for result in results:
        asked.put_out(result.value, shape=result.declared(None))
        not_asked.put_out(result.of_no_examples(not_asked), shape=result.declared(0))
    chosen = op.emit_all(
        "If",
        op.Squeeze(explain, [0]),
        outputs=len(results),
        then_branch=asked.graph,
        else_branch=not_asked.graph,
    )
    for value, result in zip(chosen, results, strict=True):
        value.type = result.value.type
    return [replace(result, value=value) for value, result in zip(chosen, results, strict=True)]


def _read(plan: Plan, model: Model) -> dict[str, ir.Value]:
    """What the explanation reads of the model: its output, and the explained tensors."""
    return {name: model.find_tensor(name) for name in (plan.output, *plan.wrt)}


def _not_put_out(op: GraphBuilder, value: ir.Value) -> ir.Value:
    """`value`, or a copy where it is an output of the model: OpenVINO cannot have a branch read one."""
    if not value.is_graph_output():
        return value
    copy = cast("ir.Value", op.Identity(value))
    copy.shape, copy.type = value.shape, value.type
    return copy


def _explanation(
    op: GraphBuilder,
    plan: Plan,
    rows: RowGradient,
    model: Model,
    face: Interface,
    read: Mapping[str, ir.Value],
) -> list[Result]:
    """Emit the explanation into the graph of `op`; `read` holds the model's tensors that it needs, by name."""
    dtype = ir.DataType.from_numpy(rows.dtype)
    picked = pick(
        op,
        read[plan.output],
        face.target,
        apply=plan.apply,
        batch_axis=plan.batching.batch_axis,
        dtype=dtype,
    )
    fixed = {v.name: v for v in model.input_values if v.name in rows.fixed}
    batched = {name: value for name, value in fixed.items() if name in plan.batching.batched}
    shared = {name: value for name, value in fixed.items() if name not in batched}
    tensors = [read[name] for name in plan.wrt]
    x = [op.cast(tensor, dtype) for tensor in tensors]
    ends = Ends(x, face.baselines, {**batched, "cotangent": picked.cotangent}, shared)
    walked = walk(op, rows, ends, plan.points, plan.noise)
    results = [
        Result(f"attribution_{name}", value, [(tensor, axis) for axis in range(1, rank(tensor))])
        for name, tensor, value in zip(plan.wrt, tensors, walked.attributions, strict=True)
    ]
    delta = op.Sub(_sum(op, walked), op.Sub(picked.score, walked.baseline_score))
    delta = op.Where(picked.valid, delta, op.scalar(float("nan"), delta))
    by_name = dict(zip(plan.wrt, walked.attributions, strict=True))
    maps = [drawn for p in plan.pictures for drawn in draw(op, p, by_name[p.name], model)]
    return [*results, Result("completeness_delta", delta), *maps]


def _sum(op: GraphBuilder, walked: Walked) -> ir.Value:
    """The sum of each example's attributions, [N]."""
    sums = [
        op.ReduceSum(op.Flatten(value, axis=1), [1], keepdims=0) for value in walked.attributions
    ]
    return cast("ir.Value", sums[0] if len(sums) == 1 else op.Sum(*sums))
