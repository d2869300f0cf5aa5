"""Operators that move or copy elements without computing: reshapes, transpositions, casts, copies."""

from __future__ import annotations

import numpy as np

from igonnx.autodiff.broadcasting import unbroadcast
from igonnx.autodiff.builder import dtype_of, rank
from igonnx.autodiff.registry import Gradients, Vjp, rule


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshaped(v: Vjp) -> Gradients:
    """The same elements in another shape: shape the gradient back."""
    return [v.op.reshape_like(v.g, v.x), None]


@rule("Transpose")
def transpose(v: Vjp) -> Gradients:
    """Transpose: by the inverse permutation."""
    perm = v.attribute("perm") or list(range(rank(v.x)))[::-1]
    return [v.op.Transpose(v.g, perm=[int(axis) for axis in np.argsort(perm)])]


@rule("Cast", "CastLike")
def cast(v: Vjp) -> Gradients:
    """Cast between floating types: cast the gradient back."""
    return [v.op.cast(v.g, dtype_of(v.x)), None]


@rule("Dropout")
def dropout(v: Vjp) -> Gradients:
    """Dropout at inference is the identity."""
    training = v.constant(2)
    if training is not None and bool(training.reshape(())):
        raise v.unsupported("Dropout in training mode")
    return [v.g, None, None]


@rule("Expand")
def expand(v: Vjp) -> Gradients:
    """Expand copies along broadcast axes: sum over them."""
    return [unbroadcast(v.op, v.g, v.y, v.x), None]


@rule("Tile")
def tile(v: Vjp) -> Gradients:
    """Tile repeats the whole tensor along each axis: fold the repeats into axes of their own and sum over them."""
    op, axes = v.op, range(rank(v.x))
    repeats = v.input(1)
    folded = op.join(
        *(part for i in axes for part in (op.Slice(repeats, [i], [i + 1]), op.dim(v.x, i)))
    )
    return [op.ReduceSum(op.Reshape(v.g, folded), [2 * i for i in axes], keepdims=0), None]
