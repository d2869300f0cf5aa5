"""Matrix products in bfloat16, with sums in float32: by the plugin's operator MatMulBFloat16.

Everything else stays as it is, in float32: each product rounds its two factors and gives float32 again. The operator
takes transposed factors, so a Transpose in front of a product, as in every gradient of one, goes: then constant weights
are what the product reads, and are packed once.
"""

from __future__ import annotations

from typing import cast

import onnx_ir as ir
import onnx_ir.passes.common as passes

from igonnx.graph.builder import GraphBuilder
from igonnx.graph.node_view import take_place

__all__ = ["multiply_in_bfloat16"]

PLUGIN = "ai.igonnx"


def multiply_in_bfloat16(model: ir.Model) -> int:
    """Replace MatMul, Gemm and FusedMatMul of float32 tensors, in place; how many were replaced."""
    op = GraphBuilder(model, scope="bfloat16")
    count = 0
    for node in list(model.graph.all_nodes()):
        if _is_product(node):
            with op.before(node):
                _replace(op, node)
            count += 1
    if count:
        model.opset_imports.setdefault(PLUGIN, 1)
        passes.RemoveUnusedNodesPass()(model)
    return count


def _is_product(node: ir.Node) -> bool:
    """Whether the operator can compute it: not where a Gemm scales its C, or the stacks of matrices are transposed."""
    known = {value.dtype for value in (*node.inputs[:2], *node.outputs) if value is not None}
    if ir.DataType.FLOAT not in known:
        return False
    if node.domain == "com.microsoft":
        swapped = node.attributes.get_int("transBatchA", 0) or node.attributes.get_int(
            "transBatchB", 0
        )
        return node.op_type == "FusedMatMul" and not swapped
    if node.domain not in ("", "ai.onnx"):
        return False
    alone = (
        len(node.inputs) < 3
        or node.inputs[2] is None
        or node.attributes.get_float("beta", 1.0) == 1
    )
    return node.op_type == "MatMul" or (node.op_type == "Gemm" and alone)


def _replace(op: GraphBuilder, node: ir.Node) -> None:
    a, transposed_a = _untransposed(cast("ir.Value", node.inputs[0]))
    b, transposed_b = _untransposed(cast("ir.Value", node.inputs[1]))
    settings = {
        "transA": int(bool(node.attributes.get_int("transA", 0)) != transposed_a),
        "transB": int(bool(node.attributes.get_int("transB", 0)) != transposed_b),
    }
    old = node.outputs[0]
    product = op.emit(
        "MatMulBFloat16",
        a,
        b,
        domain=PLUGIN,
        alpha=node.attributes.get_float("alpha", 1.0),
        **settings,
    )
    product.type, product.shape = ir.TensorType(ir.DataType.FLOAT), old.shape
    if node.op_type == "Gemm" and len(node.inputs) > 2 and node.inputs[2] is not None:
        product = op.Add(product, node.inputs[2])
        product.type, product.shape = ir.TensorType(ir.DataType.FLOAT), old.shape
    take_place(old, product)
    cast("ir.Graph", node.graph).remove(node, safe=True)


def _untransposed(factor: ir.Value) -> tuple[ir.Value, bool]:
    """What a Transpose of the last two axes makes `factor` from, and True; or `factor` itself."""
    node = factor.producer()
    if node is None or node.op_type != "Transpose" or node.domain not in ("", "ai.onnx"):
        return factor, False
    source = cast("ir.Value", node.inputs[0])
    perm = node.attributes.get("perm")
    if perm is None:
        is_matrix = source.shape is not None and len(source.shape) == 2
        return (source, True) if is_matrix else (factor, False)
    axes = list(perm.as_ints())
    *lead, last, last_but_one = range(len(axes))
    return (source, True) if axes == [*lead, last_but_one, last] else (factor, False)
