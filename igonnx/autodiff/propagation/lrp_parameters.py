"""Layer-wise relevance propagation: which rule is for which layers, and what the rules of one walk share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import onnx_ir as ir

__all__ = ["AlphaBeta", "Box", "Context", "Epsilon", "Flat", "Gamma", "InputRule", "LayerRule"]


@dataclass(frozen=True)
class Epsilon:
    """The epsilon rule."""


@dataclass(frozen=True)
class Gamma:
    """The gamma rule."""

    gamma: float


@dataclass(frozen=True)
class AlphaBeta:
    """The alpha-beta rule."""

    alpha: float
    beta: float


@dataclass(frozen=True)
class Flat:
    """The flat rule: every input that an output reads gets the same, whatever it is."""


@dataclass(frozen=True)
class Box:
    """The box rule, for inputs that lie between two bounds.

    A bound is the bytes and the shape of a float64 array that broadcasts to the input without its batch axis.
    """

    low: tuple[bytes, tuple[int, ...]]
    high: tuple[bytes, tuple[int, ...]]


LayerRule: TypeAlias = Epsilon | Gamma | AlphaBeta
InputRule: TypeAlias = Flat | Box


@dataclass(frozen=True)
class Context:
    """What the rules of one walk share: the parameters, and what one node leaves for another."""

    epsilon: float
    bias: bool  # whether biases take their share of what layers by other rules than epsilon pass on
    dense: LayerRule
    convolution: LayerRule
    first: (
        InputRule | None
    )  # of layers that read an explained tensor; None: they are like the others
    # What is added to a layer's output, and the sum, by that output: the two are one layer.
    sums: dict[ir.Value, tuple[ir.Value, ir.Value]] = field(default_factory=dict)
    # Maps element by element in front of the first layer, which has taken them into account.
    seen: set[ir.Node] = field(default_factory=set)
