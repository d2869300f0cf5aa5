"""DeepLIFT: multipliers that carry a difference from a reference back (Shrikumar et al., 2017, arXiv:1704.02685).

Every operator y = f(x) hands each of its inputs a multiplier such that the sum of multiplier times difference from the
reference, x - x0, over all inputs is y - y0 exactly. Multipliers of a chain are multiplied like derivatives. So the
attribution, the multiplier at an input times (x - baseline), adds up to the change of the score from the baseline to
the input: summation to delta. The walk of the gradient does it, with these rules:

* linear operators: the ordinary rule, that of the gradient;
* functions of one tensor, element by element: the slope of the chord, (y - y0) / (x - x0) ("rescale"), and the
  derivative where x and x0 nearly coincide;
* products of two tensors that both depend on the input (Mul, MatMul, Gemm, Conv, Einsum): the ordinary rule with each
  factor at the mean of itself and its reference: ab - a0 b0 = (a - a0) (b + b0) / 2 + (b - b0) (a + a0) / 2;
* other functions of two tensors, element by element (Div, Pow, Max, Min, PRelu): what each changes, averaged over the
  two orders in which they can change (Shapley values);
* maxima (MaxPool, GlobalMaxPool, ReduceMax, ReduceMin): if the maximum grew, where it is now; if it fell, where it was;
* softmax: exp(x - log sum exp x), the chord for each exp and log: exact, and it does not overflow;
* norms, normalisations and recurrent layers are taken apart into these.

Where a choice between two tensors depends on the input (Where with such a condition), the two changes are weighted by
how often each is chosen and scaled to the change of the result. Nothing is left of that where neither changes and the
result still jumps: that is missing in the sum, and `Attribution.delta` shows it. What else has no rule is refused.

"reveal_cancel" tells positive from negative changes at each nonlinearity whose input a convolution, a matrix product
or a sum has computed, and gives them slopes of their own (section 3.5.3 of the paper), so that what cancels is seen.
Behind other operators it is "rescale".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from igonnx.autodiff.propagation.base import Propagation, PropagationSpec
from igonnx.autodiff.propagation.chords import CHORDS, chord
from igonnx.autodiff.propagation.forms import take_apart
from igonnx.autodiff.propagation.linear_operators import BILINEAR, is_linear, mean_of_ends
from igonnx.autodiff.propagation.references import References
from igonnx.autodiff.propagation.reveal_cancel import RevealCancel
from igonnx.autodiff.propagation.several_inputs import SEVERAL
from igonnx.autodiff.registry import Gradients, Vjp
from igonnx.errors import InputError, UnsupportedOperatorError
from igonnx.graph.builder import GraphBuilder

__all__ = ["RULES", "DeepLift"]

RULES = ("rescale", "reveal_cancel")


@dataclass(frozen=True)
class DeepLift(PropagationSpec):
    """DeepLIFT by one of `RULES`; `InputError` for another one."""

    nonlinearities: str = "rescale"
    needs_reference: ClassVar[bool] = True
    takes_fused_gelu: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the rule."""
        if self.nonlinearities not in RULES:
            known = " or ".join(map(repr, RULES))
            raise InputError(f"rule is {self.nonlinearities!r}; expected {known}")

    @property
    def name(self) -> str:
        """deep_lift and its rule."""
        return f"deep_lift rule={self.nonlinearities}"

    def prepare(self, model: ir.Model, nodes: Sequence[ir.Node]) -> None:
        """Take norms and their kind apart."""
        take_apart(model, nodes)

    def walk(self) -> Propagation:
        """A walk by this rule."""
        return _Walk(self.name, reveal_cancel=self.nonlinearities == "reveal_cancel")


class _Walk(Propagation):
    def __init__(self, name: str, *, reveal_cancel: bool) -> None:
        super().__init__(name)
        self._reveals = reveal_cancel

    def begin(self, op: GraphBuilder, references: Mapping[ir.Value, ir.Value]) -> None:
        self._references = References(op, references)
        self._cancel = RevealCancel(self._references) if self._reveals else None

    def rule(self, v: Vjp) -> Gradients | None:
        references, kind = self._references, _operator(v.node)
        if references.is_copy(v.node):
            return [None] * (len(v.node.inputs) + len(v.captured))
        for value in v.node.outputs:
            references.of(value)  # refuses what it cannot have
        live = references.live_inputs(v.node)
        if self._cancel is not None:
            split = self._cancel.through(v, live)
            if split is not None:
                return split
        if kind == ("", "Scan") or is_linear(v, live):
            return None
        if kind in BILINEAR:
            return mean_of_ends(v, references, live)
        if kind in CHORDS and live == [0]:
            return [chord(v, references), *[None] * (len(v.node.inputs) - 1)]
        if kind in SEVERAL:
            return SEVERAL[kind](v, references)
        raise UnsupportedOperatorError(
            f"{v.where()}: DeepLIFT has no rule for it with such inputs; explain a tensor behind it with wrt=, or use "
            "integrated_gradients"
        )


def _operator(node: ir.Node) -> tuple[str, str]:
    return ("" if node.domain == "ai.onnx" else node.domain, node.op_type)
