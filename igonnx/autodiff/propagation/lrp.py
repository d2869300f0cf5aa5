"""Layer-wise relevance propagation (LRP): the score, dealt out backwards from layer to layer.

Bach, Binder, Montavon, Klauschen, Mueller and Samek, 2015, doi 10.1371/journal.pone.0130140. Every tensor between the
explained ones and the output gets a relevance R of its shape. At the output it is output times cotangent, which sums to
the score; each operator hands the relevance of its output on to its inputs:

layers with weights   Conv, ConvTranspose, Gemm, MatMul and Einsum with constants, by the rule chosen for their kind
                      (`lrp_layers`); a constant that is added to what a layer puts out is its bias; a batch
                      normalisation behind a convolution has been folded into that before, so that the rule sees the
                      weights that act
sums                  in proportion to the terms (epsilon rule, `lrp_shares`): residual connections, means, average
                      pooling, interpolation, a batch normalisation that stands alone
maxima                the winner takes all
activations           functions of one variable pass relevance on as it is
products              of two tensors that both depend on the explained ones: a gate gets nothing, the signal all (LSTM,
                      squeeze-and-excitation, SiLU); else half each, as in attention (`lrp_rules`)
quotients             all to the numerator; likewise products with constants: what is scaled takes all
softmax               x_i (R_i - s_i sum_j R_j): the first-order expansion, whose constant term keeps relevance
normalisations        the deviation counts as a constant (`lrp_normalisation`)
moves                 reshaping, slicing, gathering, padding, quantising and their kind take relevance along

Recurrent layers, attention and other composite operators are taken apart into these. What has no rule is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from igonnx.autodiff.propagation.base import Propagation, PropagationSpec
from igonnx.autodiff.propagation.lrp_parameters import (
    AlphaBeta,
    Box,
    Context,
    Epsilon,
    Flat,
    Gamma,
    InputRule,
    LayerRule,
)
from igonnx.autodiff.propagation.lrp_rules import rule_of
from igonnx.autodiff.registry import Gradients, Vjp

__all__ = ["AlphaBeta", "Box", "Epsilon", "Flat", "Gamma", "InputRule", "LayerRule", "Lrp"]


@dataclass(frozen=True)
class Lrp(PropagationSpec):
    """LRP by rules for kinds of layers.

    epsilon: what keeps denominators away from zero, in the units of the tensors. dense: rule of Gemm and MatMul;
    convolution: of Conv and ConvTranspose; first: of those that read an explained tensor, where it is not the same.
    bias: whether the biases of layers keep their share where the rule is not epsilon.
    """

    gives_relevance: ClassVar[bool] = True

    known_as: str
    dense: LayerRule
    convolution: LayerRule
    first: InputRule | None = None
    epsilon: float = 1e-9
    bias: bool = True

    @property
    def name(self) -> str:
        """What it is called, with its rule and parameters."""
        return self.known_as

    def walk(self) -> Propagation:
        """A fresh walk."""
        return _LrpWalk(self)


class _LrpWalk(Propagation):
    def __init__(self, spec: Lrp) -> None:
        super().__init__(spec.name)
        self._context = Context(spec.epsilon, spec.bias, spec.dense, spec.convolution, spec.first)

    def rule(self, v: Vjp) -> Gradients | None:
        return rule_of(v)(self._context, v)
