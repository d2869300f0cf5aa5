"""Bring a graph of opset 1 to 16 up to opset 17, in place.

ONNX's own version converter knows too few operators, loses subgraphs, stops at unknown shapes and custom domains, and
copies the whole model through one protobuf. Here, each breaking change of an operator is one adapter: a short
function, registered with the operator and the opset that brought the change. What an adapter cannot know from the
graph, such as a rank, it has computed at run time. Nodes of other domains stay as they are.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from igonnx.errors import ModelError
from igonnx.upgrade import elementwise, indexing, layers, resampling, scan, shapes
from igonnx.upgrade.adapter import TARGET, Adaptation, Scope, changes

__all__ = ["TARGET", "unify_opsets", "upgrade"]

# Imported for the adapters they register.
_FAMILIES = (elementwise, indexing, layers, resampling, scan, shapes)

_STANDARD = ("", "ai.onnx")


def unify_opsets(model: ir.Model, name: str) -> None:
    """Have the model and its functions import one version of the standard operators, called ""; in place.

    "ai.onnx" is another name of that domain. A function may import another version than the model as long as its
    operators are the same in both. Raises `ModelError` where they are not, or where the version is newer than the
    installed onnx.
    """
    for imports in (model.opset_imports, *(f.opset_imports for f in model.functions.values())):
        if "ai.onnx" in imports:
            imports.setdefault("", imports["ai.onnx"])
            del imports["ai.onnx"]
    imported = [f.opset_imports[""] for f in model.functions.values() if "" in f.opset_imports]
    # A model of other domains only imports no standard operators; its gradient will.
    opset = model.opset_imports.setdefault("", max(imported, default=TARGET))
    known = onnx.defs.onnx_opset_version()
    if opset > known:
        raise ModelError(
            f"{name}: opset {opset} is newer than onnx {onnx.__version__} knows, which ends at {known}: "
            "upgrade onnx, or re-export the model at an older opset"
        )
    if opset < 1:
        raise ModelError(f"{name}: opset {opset} is none; expected 1 or more")
    for function in model.functions.values():
        other = function.opset_imports.get("", opset)
        for node in function.all_nodes() if other != opset else ():
            if node.domain in _STANDARD and _since(node, other) != _since(node, opset):
                raise ModelError(
                    f"{name}: function {function.name!r} uses {node.op_type} of opset {other}, "
                    f"which is not that of the model's opset {opset}"
                )
        if "" in function.opset_imports:
            function.opset_imports[""] = opset


def upgrade(model: ir.Model, name: str) -> None:
    """Rewrite the standard operators of `model` to those of opset 17, in place; newer models stay as they are.

    Functions are inlined before. Ranks and dtypes, where known, make shorter graphs. Raises `ModelError` where an
    operator has no equal in opset 17.
    """
    opset = model.opset_imports.get("", TARGET)
    if opset >= TARGET:
        return
    scope = Scope(model, name)
    for node in list(model.graph.all_nodes()):
        if node.domain in _STANDARD:
            _upgrade_node(node, opset, scope)
    for graph in (model.graph, *model.graph.subgraphs()):
        if "" in graph.opset_imports:
            graph.opset_imports[""] = TARGET
    model.opset_imports[""] = TARGET


def _upgrade_node(node: ir.Node, version: int, scope: Scope) -> None:
    if version < 6:
        # In-place hints of the first opsets, on two dozen operators; they never changed a result.
        node.attributes.pop("consumed_inputs", None)
    adaptation = Adaptation(node, scope)
    # One change at a time: an adapter may make another operator of the node, with changes of its own.
    while pending := changes(node.op_type, version):
        version, adapt = pending[0]
        adapt(adaptation)


def _since(node: ir.Node, opset: int) -> int:
    try:
        return onnx.defs.get_schema(node.op_type, opset, "").since_version
    except onnx.defs.SchemaError:
        return 0
