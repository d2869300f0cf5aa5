"""Matrix products: MatMul and Gemm."""

from __future__ import annotations

from typing import cast

import onnx_ir as ir

from igonnx.autodiff.broadcasting import unbroadcast
from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.graph.builder import GraphBuilder, rank


@rule("MatMul")
def matmul(v: Vjp) -> Gradients:
    """MatMul as numpy.matmul: g B^T and A^T g, summed over the axes that were broadcast."""
    op, a, b, g = v.op, v.x, v.input(1), v.g
    if rank(a) == 1:
        g = op.Unsqueeze(g, [-1 if rank(b) == 1 else rank(b) - 2])
    if rank(b) == 1:
        g = op.Unsqueeze(g, [-1])
    row = a if rank(a) > 1 else _with_axis(op, a, 0)
    column = b if rank(b) > 1 else _with_axis(op, b, 1)
    to_a = to_b = None
    if v.wanted[0]:
        full = op.MatMul(g, transpose_last(op, column))
        to_a = _reduced(op, full, v, row, a)
    if v.wanted[1]:
        if rank(column) == 2 and rank(row) > 2:
            # One product over all leading axes instead of a batched one that is then summed.
            flat_a, flat_g = (op.Flatten(value, axis=rank(row) - 1) for value in (row, g))
            to_b = op.MatMul(op.Transpose(flat_a, perm=[1, 0]), flat_g)
            to_b = op.reshape_like(to_b, b) if rank(b) == 1 else to_b
        else:
            full = op.MatMul(transpose_last(op, row), g)
            to_b = _reduced(op, full, v, column, b)
    return [to_a, to_b]


def _reduced(
    op: GraphBuilder, full: ir.Value, v: Vjp, matrix: ir.Value, target: ir.Value
) -> ir.Value:
    """`full`, the gradient of `matrix` with the leading axes of the product, summed back to `target`."""
    leading = max(rank(v.x), rank(v.input(1)), 2) - 2
    known = [None] * leading if v.y.shape is None else list(v.y.shape)
    output = known[:leading]
    full.shape = ir.Shape([*output, *list(cast("ir.Shape", matrix.shape))[-2:]])
    reduced = unbroadcast(op, full, full, matrix)
    return reduced if matrix is target else op.reshape_like(reduced, target)


def _with_axis(op: GraphBuilder, vector: ir.Value, axis: int) -> ir.Value:
    matrix = cast("ir.Value", op.Unsqueeze(vector, [axis]))
    dims = list(cast("ir.Shape", vector.shape))
    matrix.shape = ir.Shape([*dims[:axis], 1, *dims[axis:]])
    return matrix


def transpose_last(op: GraphBuilder, matrix: ir.Value) -> ir.Value:
    """Swap the last two axes."""
    axes = list(range(rank(matrix)))
    axes[-2:] = axes[-1], axes[-2]
    result = cast("ir.Value", op.Transpose(matrix, perm=axes))
    sizes = list(cast("ir.Shape", matrix.shape))
    result.shape = ir.Shape([sizes[axis] for axis in axes])
    return result


@rule("Gemm")
def gemm(v: Vjp) -> Gradients:
    """Gemm, alpha A' B' + beta C, where the prime is an optional transposition."""
    op, a, b, g = v.op, v.x, v.input(1), v.g
    alpha, beta = v.attribute("alpha", 1.0), v.attribute("beta", 1.0)
    flip_a, flip_b = v.attribute("transA", 0), v.attribute("transB", 0)
    to_a = to_b = to_c = None
    if v.wanted[0]:
        if flip_a:
            to_a = op.Gemm(b, g, alpha=alpha, transA=flip_b, transB=1)
        else:
            to_a = op.Gemm(g, b, alpha=alpha, transB=1 - flip_b)
    if v.wanted[1]:
        if flip_b:
            to_b = op.Gemm(g, a, alpha=alpha, transA=1, transB=flip_a)
        else:
            to_b = op.Gemm(a, g, alpha=alpha, transA=1 - flip_a)
    c = v.optional_input(2)
    if c is not None and v.wanted[2]:
        to_c = unbroadcast(op, g if beta == 1.0 else op.Mul(g, beta), v.y, c)
    return [to_a, to_b, to_c]
