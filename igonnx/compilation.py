"""`igonnx.compile`: the explanation graph as a file, for engines that have no Python."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import cast

import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes

from igonnx.autodiff.selection import tensors_per_example, tensors_to_explain
from igonnx.batching import settle_batching
from igonnx.errors import InputError, ModelError
from igonnx.explanation_graph import build_explanation_graph
from igonnx.graph.builder import rank
from igonnx.model import Model, ModelSource
from igonnx.row_gradient import build_row_gradient
from igonnx.row_scores import Apply, normalised_apply

__all__ = ["METADATA", "compile"]

METADATA = "igonnx.compiled"


def compile(  # noqa: A001
    model: ModelSource,
    *,
    output: str | None = None,
    wrt: Sequence[str] | str | None = None,
    apply: Apply = None,
    straight_through: bool = True,
) -> onnx.ModelProto:
    """Build the explanation graph of `output` by the tensors `wrt` (see `igonnx.explanation_graph`), in plain ONNX.

    It takes requests (`x:<tensor>`, `baseline:<tensor>`, other inputs, `cotangent`) and rows (`row`, `alpha`,
    `weight`), and gives `weighted_gradient:<tensor>`, `score` and `slope`. Every path method is a choice of rows. This
    is what the C API loads, and what any ONNX runtime can run. External data stays in the model's files: save the
    result beside them.

    Its metadata_props say what is in it: "igonnx.explanation_graph", as the engine reads it, and "igonnx.compiled",
    JSON with the version, the explained output, the axis of it that counts examples (null: it has none, and the model
    takes one example) and `apply`.

    The arguments, and what is raised, are those of `igonnx.augment`.
    """
    loaded = Model.load(model)
    if METADATA in loaded.metadata:
        raise InputError(
            f"{loaded.name}: this is an explanation graph already (it was made by igonnx.compile): compile the model"
        )
    explained = loaded.find_output(output)
    tensors = tensors_to_explain(loaded, wrt, explained, straight_through=straight_through)
    if wrt is None:
        tensors = tensors_per_example(loaded, tensors)
    normalised_apply(apply, rank(explained))
    names = [cast("str", value.name) for value in tensors]
    name = cast("str", explained.name)
    batching = settle_batching(loaded, name, names)
    rows = build_row_gradient(
        batching.model,
        output=name,
        wrt=names,
        apply=apply,
        batch_axis=batching.batch_axis,
        fixed_rows=batching.fixed_rows if batching.apart else 1,
        straight_through=straight_through,
    )
    graph = build_explanation_graph(rows, batching.batched)
    graph.model.metadata_props[METADATA] = json.dumps(
        {
            "version": version("igonnx"),
            "output": name,
            "batch_axis": batching.batch_axis,
            "apply": apply,
            "straight_through": straight_through,
        }
    )
    passes.RemoveUnusedOpsetsPass()(graph.model)
    try:
        return ir.to_proto(graph.model)
    except ir.serde.SerdeError as error:
        raise ModelError(
            f"{loaded.name}: a tensor's data or an attribute is damaged: the graph cannot be written down"
        ) from error
