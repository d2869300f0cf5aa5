"""Making room for the walk: operators without a rule are written in operators that have one."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from igonnx.autodiff import registry
from igonnx.autodiff.transform import between
from igonnx.constant_folding import fold_constants
from igonnx.constants import settle_constants
from igonnx.lowering.apply import lower
from igonnx.shape_inference import infer_shapes

__all__ = ["expand"]


def expand(model: ir.Model, sources: Iterable[ir.Value], outputs: Iterable[ir.Value]) -> None:
    """Lower, in place, what lies between `sources` and `outputs`, has no rule, and is made of operators that have.

    Names of tensors stay; find values again by name afterwards. Quantised operators go on computing what they do and
    get a straight-through form beside them: `igonnx.lowering.apply.remove_straight_through` ends it.
    """
    nodes = between(model.graph, sources, outputs)
    if lower(model, nodes, _needs_lowering, straight_through=True):
        settle_constants(model)
        infer_shapes(model)
        if fold_constants(model.graph):
            infer_shapes(model)


def _needs_lowering(node: ir.Node) -> bool:
    return registry.find(node) is None and not registry.is_nondifferentiable(node)
