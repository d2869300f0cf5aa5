"""Guided backpropagation and the deconvolutional network: rules for ReLUs.

"guided_backprop"
    guided backpropagation (Springenberg, Dosovitskiy, Brox and Riedmiller, 2015, arXiv:1412.6806): back through a ReLU
    passes what is positive, where the ReLU let something through on the way forward: max(g, 0) where x > 0, else 0.
"deconvnet"
    the deconvolutional network (Zeiler and Fergus, 2014, arXiv:1311.2901): back through a ReLU passes what is positive,
    whatever happened on the way forward: max(g, 0).

A ReLU is, on tensors of real numbers: Relu; Clip from the constant 0 up to a constant above it or without end (ReLU6,
which guided backpropagation takes for closed at 6 and above, and the deconvolutional network for open everywhere);
Max of a tensor and a constant that is 0. Activations that a runtime has fused into a convolution or a matrix product
are unfolded before the walk, and count. LeakyRelu, PRelu, Elu, Gelu, SiLU and their kind keep their derivatives, and so
does a ReLU that a model spells out otherwise (by a comparison and a product, say) or that quantisation has folded into
the range of its codes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from igonnx.autodiff.broadcasting import unbroadcast
from igonnx.autodiff.gradient_values import is_real_tensor
from igonnx.autodiff.registry import Gradients, Vjp
from igonnx.autodiff.rules.activations import pass_between

__all__ = ["RELU_RULES", "Override"]

# The gradients of a node's inputs, or None where the ordinary rule serves.
Override: TypeAlias = "Callable[[Vjp], Gradients | None]"


def _guided(v: Vjp) -> Gradients | None:
    """What is positive of the gradient, where the ReLU was strictly between its ends."""
    ends = _relu_ends(v)
    if ends is None:
        return None
    index, upper = ends
    return _to_input(v, index, pass_between(v.op, v.op.Relu(v.g), v.y, 0.0, upper))


def _deconvolved(v: Vjp) -> Gradients | None:
    """What is positive of the gradient."""
    ends = _relu_ends(v)
    return None if ends is None else _to_input(v, ends[0], v.op.Relu(v.g))


def _to_input(v: Vjp, index: int, gradient: ir.Value) -> Gradients:
    """`gradient`, in the shape of the output, for input `index` alone: the others are constants."""
    if len(v.node.inputs) > 1 and v.node.op_type == "Max":
        gradient = unbroadcast(v.op, gradient, v.y, v.input(index))
    return [gradient if i == index else None for i in range(len(v.node.inputs))]


def _relu_ends(v: Vjp) -> tuple[int, float] | None:
    """Which input of the node the ReLU is of, and where it ends above; None where the node is no ReLU."""
    if not is_real_tensor(v.y):
        return None
    if v.node.op_type == "Relu":
        return 0, np.inf
    if v.node.op_type == "Clip":
        return _clip_ends(v)
    zeros = [_is_zero(v.constant(index)) for index in range(len(v.node.inputs))]
    return (zeros.index(False), np.inf) if sorted(zeros) == [False, True] else None


def _clip_ends(v: Vjp) -> tuple[int, float] | None:
    upper = v.constant(2)
    if not _is_zero(v.constant(1)) or (upper is None and v.optional_input(2) is not None):
        return None
    end = np.inf if upper is None else float(upper.reshape(()))
    return (0, end) if end > 0 else None


def _is_zero(constant: np.ndarray | None) -> bool:
    return constant is not None and constant.size > 0 and not constant.any()


_RELUS = (("", "Relu"), ("", "Clip"), ("", "Max"))
RELU_RULES: dict[str, dict[tuple[str, str], Override]] = {
    "guided_backprop": dict.fromkeys(_RELUS, _guided),
    "deconvnet": dict.fromkeys(_RELUS, _deconvolved),
}
