"""`igonnx.gradient`: a model that also computes its own input gradient, in standard ONNX operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from igonnx.autodiff.expansion import expand
from igonnx.autodiff.selection import NOT_STRAIGHT_THROUGH, tensors_to_explain
from igonnx.autodiff.transform import differentiate
from igonnx.errors import ModelError
from igonnx.graph.builder import GraphBuilder
from igonnx.lowering.apply import remove_straight_through
from igonnx.model import Model, ModelSource

__all__ = ["gradient"]


def gradient(
    model: ModelSource,
    *,
    wrt: Sequence[str] | str | None = None,
    output: str | None = None,
    straight_through: bool = True,
) -> onnx.ModelProto:
    """Build the reverse-mode gradient of `output` with respect to the tensors `wrt`, as plain ONNX.

    The result keeps the model's inputs and outputs. It adds the input ``cotangent_<output>`` (shape and dtype of the
    output: the vector v of the vector-Jacobian product v^T J; one-hot rows select a class) and, per name of `wrt`, the
    output ``grad_<name>`` (shape and dtype of that tensor). It uses standard operators only, or operators that the
    model itself used. External data stays in the original's files: save the result beside them.

    Args:
        model: path, bytes or `onnx.ModelProto`.
        wrt: graph inputs or floating intermediate tensors; default: every floating input that has a path to the output,
            or for a model fed with integers its embedding.
        output: name; default: the first floating output.
        straight_through: gradients go straight through the rounding of quantised operators, with slope one inside the
            range of the codes and zero outside, as through torch.fake_quantize; False: rounding has its own slope,
            zero, and nothing passes.

    Raises:
        ModelError: the model cannot be read, or no differentiable path exists.
        UnsupportedOperatorError: the gradient must cross an operator without a rule.
        InputError: an unknown name, or a tensor that is not floating.

    """
    loaded = Model.load(model)
    chosen = loaded.find_output(output)
    names = [
        cast("str", value.name)
        for value in tensors_to_explain(loaded, wrt, chosen, straight_through=straight_through)
    ]
    copy = loaded.with_graph(loaded.clone())
    graph = copy.ir.graph
    expand(copy.ir, names, cast("str", chosen.name))
    target = copy.find_output(chosen.name)
    op = GraphBuilder(copy.ir, scope="gradient")
    cotangent = ir.val(f"cotangent_{target.name}", shape=target.shape, type=target.type)
    sources = [copy.find_tensor(name) for name in names]
    results = differentiate(op, {target: cotangent}, sources, straight_through=straight_through)
    _refuse_taken_names(graph, [cotangent.name, *(f"grad_{name}" for name in names)])
    graph.inputs.append(cotangent)
    by_default = wrt is None and any(result is not None for result in results)
    # By name: a Loop that had to put out more has given its outputs' names to others.
    for name, source, result in zip(names, sources, results, strict=True):
        if result is None and by_default:
            continue  # an input of settings: a scale, a region, a grid looked up to the nearest pixel
        if result is None:
            reason = "" if straight_through else NOT_STRAIGHT_THROUGH
            raise ModelError(f"no gradient reaches {name!r} from output {chosen.name!r}{reason}")
        named = op.Identity(result)
        named.name, named.shape, named.type = f"grad_{name}", source.shape, source.type
        graph.outputs.append(named)
    remove_straight_through(copy.ir)
    passes.RemoveUnusedNodesPass()(copy.ir)
    passes.RemoveUnusedOpsetsPass()(copy.ir)
    try:
        return ir.to_proto(copy.ir)
    except ir.serde.SerdeError as error:
        raise ModelError(
            f"{loaded.name}: a tensor's data or an attribute is damaged: the gradient cannot be written down"
        ) from error


def _refuse_taken_names(graph: ir.Graph, names: Sequence[str | None]) -> None:
    taken = {value.name for value in [*graph.inputs, *graph.initializers.values()]}
    taken.update(value.name for node in graph for value in node.outputs)
    for name in names:
        if name in taken:
            raise ModelError(f"the model already has a tensor called {name!r}: rename it first")
