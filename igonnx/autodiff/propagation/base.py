"""What a propagation is: a specification that calls can be told apart by, and the state of one walk by it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from igonnx.autodiff.registry import Gradients, Vjp

if TYPE_CHECKING:
    from igonnx.graph.builder import GraphBuilder

__all__ = ["Propagation", "PropagationSpec"]


class PropagationSpec(ABC):
    """A propagation and its parameters: a frozen dataclass, for specifications are hashed and compared.

    Equal ones share an engine.
    """

    # Whether the walk wants the values that tensors have for the baseline; the row's graph then has an input
    # reference:<name> per explained tensor, and `begin` is told of them.
    needs_reference: ClassVar[bool] = False
    # Whether what arrives at the explained tensor is a contribution, rather than a multiplier of (x - baseline). Then
    # the walk starts from output times cotangent, and the slope of rows has no meaning.
    gives_relevance: ClassVar[bool] = False
    # Whether a Gelu that a model writes out may be put together for the native engine before the walk. If not, both
    # engines walk through the same operators.
    takes_fused_gelu: ClassVar[bool] = True
    # What has to lie on the way for it to be other than the gradient; None: it may well be the gradient, and no caller
    # need be warned.
    acts_on: ClassVar[str | None] = None

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call it, and the record of a call: name and parameters."""

    @abstractmethod
    def walk(self) -> Propagation:
        """A fresh walk."""

    def prepare(self, model: ir.Model, nodes: Sequence[ir.Node]) -> None:  # noqa: B027
        """Write `nodes` of the model's main graph in operators that the walk has rules for, in place.

        They are those between the explained tensors and the output. By default nothing is done. Names of tensors have
        to stay; types and shapes of new ones have to be known.
        """


class Propagation:
    """One walk by a propagation, and the nodes that its own rules have served."""

    def __init__(self, name: str) -> None:
        """Start a walk by the propagation that messages call `name`."""
        self.name = name
        self.served: set[ir.Node] = set()

    def begin(self, op: GraphBuilder, references: Mapping[ir.Value, ir.Value]) -> None:
        """Hear what the walk starts from: the value for the baseline by explained tensor, where it was asked for."""

    def backward(self, v: Vjp) -> Gradients | None:
        """The gradients of the inputs of the node by a rule of this propagation; None where it leaves them alone."""
        gradients = self.rule(v)
        if gradients is not None:
            self.served.add(v.node)
        return gradients

    def rule(self, v: Vjp) -> Gradients | None:  # noqa: ARG002 - for those that have rules
        """What `backward` gives; by default nothing, so that the ordinary rules serve."""
        return None
