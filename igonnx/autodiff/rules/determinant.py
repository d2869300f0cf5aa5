"""Det: the determinant of square matrices."""

from __future__ import annotations

import numpy as np

from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.graph.builder import dims, dtype_of, rank

_LARGEST = 64  # whose cofactors take 64 MiB per matrix


@rule("Det")
def det(v: Vjp) -> Gradients:
    """Det (batches of [n, n]): g times the cofactors (Jacobi's formula), which exist for singular matrices too.

    A cofactor is the determinant of the matrix with row i replaced by unit vector j: n^2 determinants per matrix,
    meant for the small matrices that occur.
    """
    op, x, n = v.op, v.x, rank(v.x)
    size = dims(x)[-1]
    if not isinstance(size, int):
        size = dims(x)[-2]
    if isinstance(size, int) and size > _LARGEST:
        raise v.unsupported(f"matrices of {size}x{size}; at most {_LARGEST}x{_LARGEST}")
    if isinstance(size, int):
        eye = op.constant(np.eye(size, dtype=dtype_of(x).numpy()))
    else:
        steps = op.Range(op.ints(0), op.Squeeze(op.dim(x, -1), [0]), op.ints(1))
        eye = op.cast(op.Equal(op.Unsqueeze(steps, [1]), steps), dtype_of(x))
    row = op.Unsqueeze(eye, [1, 3])  # [i, 1, row, 1]: whether this is row i
    unit = op.Mul(row, op.Unsqueeze(eye, [0, 2]))  # [i, j, row, column]
    kept = op.Mul(op.Unsqueeze(x, [n - 2, n - 1]), op.Sub(op.scalar(1, x), row))
    cofactors = op.Det(op.Add(kept, unit))
    g = op.Unsqueeze(v.g, [n - 2, n - 1])
    return [op.Mul(g, cofactors)]
