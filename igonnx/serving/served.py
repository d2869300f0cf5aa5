"""What is known of a request that has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Served"]


@dataclass(frozen=True)
class Served:
    """What is known of a request that was answered, or not: for logs and metrics.

    model: the handler's name. verb: "predict" or "explain". status: of HTTP. seconds: in all; waited: until its turn
    came. examples, steps (gradients per example), completeness_error and method: where there is an answer. together:
    requests that were computed with it, itself included.
    """

    model: str
    verb: str
    status: int
    seconds: float
    waited: float = 0.0
    examples: int = 0
    method: str = ""
    steps: Sequence[int] = ()
    completeness_error: Sequence[float] = ()
    together: int = 0
    message: str = ""
