"""Operators that move or copy elements without computing: reshapes, transpositions, casts, copies."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from igonnx.autodiff.broadcasting import unbroadcast
from igonnx.autodiff.registry import Gradients, Vjp, is_code, rule
from igonnx.graph.builder import dtype_of, rank


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshaped(v: Vjp) -> Gradients:
    """The same elements in another shape: shape the gradient back."""
    return [v.op.reshape_like(v.g, v.x), None]


@rule("Transpose")
def transpose(v: Vjp) -> Gradients:
    """Transpose: by the inverse permutation."""
    perm = v.attribute("perm") or range(rank(v.x))[::-1]
    if len(perm) < 2:
        return [v.g]
    return [v.op.Transpose(v.g, perm=[int(axis) for axis in np.argsort(perm)])]


@rule("Cast", "CastLike")
def cast(v: Vjp) -> Gradients:
    """Cast between floating types: cast the gradient back. From codes: it stays a real number."""
    return [v.g if is_code(v.x) else v.op.cast(v.g, dtype_of(v.x)), None]


@rule("BitCast")
def bit_cast(v: Vjp) -> Gradients:
    """BitCast to the same type is the identity; another type's reading of the bits has no derivative."""
    if v.x.dtype is None or v.x.dtype != v.y.dtype:
        raise v.unsupported(f"bits of {v.x.dtype} read as {v.y.dtype}")
    return [v.g]


@rule("Dropout")
def dropout(v: Vjp) -> Gradients:
    """Dropout is the identity at inference; in training, x mask / (1 - ratio) with the node's own random mask.

    A model that can do nothing but drop at random is refused: no two of its gradients are the same.
    """
    op, training = v.op, v.optional_input(2)
    constant = v.constant(2)
    if training is None or (constant is not None and not constant.reshape(())):
        return [v.g, None, None]
    rate = np.float64(0.5) if v.optional_input(1) is None else v.constant(1)
    if rate is not None and not rate.reshape(()):
        return [v.g, None, None]
    if constant is not None and rate is not None:
        raise v.unsupported("Dropout in training mode")
    if len(v.node.outputs) < 2:
        v.node.resize_outputs(2)
    mask = v.node.outputs[1]
    if not mask.name:
        mask.name = op.unique("Dropout_mask")
        mask.type, mask.shape = ir.TensorType(ir.DataType.BOOL), v.x.shape
    ratio = v.optional_input(1)
    kept = op.scalar(0.5, v.g) if ratio is None else op.Sub(op.scalar(1, ratio), ratio)
    # Out of training, what the ratio says is not done.
    kept = op.cast(op.Where(training, kept, op.scalar(1, kept)), dtype_of(v.g))
    return [op.Where(mask, op.Div(v.g, kept), op.scalar(0, v.g)), None, None]


@rule("Expand")
def expand(v: Vjp) -> Gradients:
    """Expand copies along broadcast axes: sum over them."""
    return [unbroadcast(v.op, v.g, v.y, v.x), None]


@rule("Tile")
def tile(v: Vjp) -> Gradients:
    """Tile repeats the whole tensor along each axis: fold the repeats into axes of their own and sum over them."""
    op, axes, repeats = v.op, range(rank(v.x)), v.constant(1)
    if rank(v.x) == 0:
        return [v.g, None]
    times = (
        [op.Slice(v.input(1), [i], [i + 1]) for i in axes]
        if repeats is None
        else [op.ints([int(n)]) for n in repeats]
    )
    folded = op.join(*(part for i in axes for part in (times[i], op.dim(v.x, i))))
    # A size of zero is meant as it is: none of the repeats.
    g = op.Reshape(v.g, folded, allowzero=1)
    return [op.ReduceSum(g, [2 * i for i in axes], keepdims=0), None]


@rule("DepthToSpace")
def depth_to_space(v: Vjp) -> Gradients:
    """DepthToSpace moves blocks of channels into the plane; SpaceToDepth moves them back, in the order DCR.

    In the order CRD, the channels [C, b, b] of x become [b, b, C] of that.
    """
    op, block = v.op, v.attribute("blocksize")
    back = op.SpaceToDepth(v.g, blocksize=block)
    if v.attribute("mode", "DCR") == "DCR":
        return [back]
    area, depth = block * block, op.dim(v.x, 1)
    known = depth.const_value
    groups = op.ints([int(known.numpy()[0]) // area]) if known else op.Div(depth, [area])
    apart = op.join(op.dim(v.x, 0), [area], groups, op.dim(v.x, 2), op.dim(v.x, 3))
    turned = op.Transpose(op.Reshape(back, apart, allowzero=1), perm=[0, 2, 1, 3, 4])
    return [op.reshape_like(turned, v.x)]


@rule("SpaceToDepth")
def space_to_depth(v: Vjp) -> Gradients:
    """SpaceToDepth moves blocks of the plane into channels; DepthToSpace of the same order moves them back."""
    mode = v.attribute("mode", "DCR")
    return [v.op.DepthToSpace(v.g, blocksize=v.attribute("blocksize"), mode=mode)]
