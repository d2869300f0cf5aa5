"""Layer-wise relevance propagation: how the relevance of a sum is dealt out to its terms.

A tensor z that is a sum of terms t_k hands its relevance R on in proportion, t_k R / (z + epsilon sign(z)), with
sign(0) = 1 (the epsilon rule: Bach et al., 2015, doi 10.1371/journal.pone.0130140, equation 58). Terms that do not
depend on the explained tensors, biases above all, keep their share: it is gone from the total.

A tensor that is linear in the explained ones is such a sum of x_i dz/dx_i. So the ordinary backward rule of its
operator, given R / (z + epsilon sign(z)) in the place of a gradient, leads to all shares: x_i times what it returns.

Where elements are only scaled, z is a single term, there is nothing to be dealt out, and epsilon takes no part: else
the result would depend on how often a graph that writes its activations out scales them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.autodiff.broadcasting import unbroadcast
from igonnx.autodiff.propagation.lrp_parameters import Context
from igonnx.autodiff.registry import Gradients, Rule, Vjp, find, is_code
from igonnx.errors import UnsupportedOperatorError
from igonnx.graph.builder import GraphBuilder, dtype_of

__all__ = [
    "in_proportion",
    "live_inputs",
    "ordinary",
    "passed_to",
    "product_of_factors",
    "quotient",
    "refused",
]


def quotient(op: GraphBuilder, relevance: ir.Value, z: ir.Value, epsilon: float) -> ir.Value:
    """R / (z + epsilon sign(z)), in the shape that the two broadcast to; where that is 0 / 0, it is 0."""
    zero = op.scalar(0.0, z)
    if float(np.asarray(epsilon).astype(dtype_of(z).numpy())) == 0:
        nothing = op.Equal(z, zero)
        share = op.Div(relevance, op.Where(nothing, op.scalar(1.0, z), z))
        return cast("ir.Value", op.Where(nothing, zero, share))
    shift = op.Where(op.Less(z, zero), op.scalar(-epsilon, z), op.scalar(epsilon, z))
    return cast("ir.Value", op.Div(relevance, op.Add(z, shift)))


def ordinary(v: Vjp, arriving: ir.Value, wanted: Collection[int] | None = None) -> Gradients:
    """What the ordinary rule of the node returns when `arriving` is the gradient of its first output.

    `wanted` are the inputs that are asked for; by default those that the walk asks for.
    """
    asked = v.wanted if wanted is None else tuple(i in wanted for i in range(len(v.node.inputs)))
    arriving.shape, arriving.type = v.y.shape, v.y.type
    rest = tuple(None for _ in v.node.outputs[1:])
    function = cast("Rule", find(v.node))
    return function(replace(v, gradients=(arriving, *rest), wanted=asked))


def live_inputs(v: Vjp) -> list[int]:
    """The inputs that depend on explained tensors."""
    return [index for index, wanted in enumerate(v.wanted) if wanted]


def in_proportion(
    context: Context,
    v: Vjp,
    *,
    degree: float = 1,
    among: Collection[int] | None = None,
) -> Gradients:
    """Shares of the node's inputs in its first output, which the live ones are linear in.

    A product of so many live factors as `degree` is divided between them evenly, and so is a function that is
    homogeneous of that degree: the sum of x_i dy/dx_i is degree times y then (Euler). `among` are the inputs that get
    something; the others count as constants.
    """
    if is_code(v.y):
        raise refused(v, "sums of the codes of a quantised network")
    live = live_inputs(v) if among is None else [i for i in live_inputs(v) if i in among]
    if not live:
        raise refused(v, f"input {live_inputs(v)[0]}, which is no signal")
    share = quotient(v.op, v.g, v.y, context.epsilon)
    if degree != 1:
        share = v.op.Div(share, float(degree))
    slopes = ordinary(v, share, live)
    return [
        None if slope is None or index not in live else v.op.Mul(v.input(index), slope)
        for index, slope in enumerate(slopes)
    ]


def passed_to(v: Vjp, index: int) -> Gradients:
    """All relevance to input `index`, in its shape: summed where it is broadcast."""
    given = v.g
    if len(v.node.inputs) > 1:
        given = unbroadcast(v.op, given, v.y, v.input(index))
    return [given if i == index else None for i in range(len(v.node.inputs))]


def product_of_factors(v: Vjp, among: Collection[int]) -> Gradients:
    """A product or quotient, element by element: all relevance to the inputs `among`, evenly; none from zeros."""
    if is_code(v.y):
        raise refused(v, "products of the codes of a quantised network")
    op, zero = v.op, v.op.scalar(0.0, v.y)
    given = op.Where(op.Equal(v.y, zero), op.scalar(0.0, v.g), v.g)
    if len(among) > 1:
        given = op.Div(given, float(len(among)))
    return [
        unbroadcast(op, given, v.y, v.input(index)) if index in among else None
        for index in range(len(v.node.inputs))
    ]


def refused(v: Vjp, what: str) -> UnsupportedOperatorError:
    """The error for an operator, or a form of it, that relevance cannot cross."""
    return UnsupportedOperatorError(f"{v.where()}: lrp has no rule for {what}")
