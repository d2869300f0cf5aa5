"""The case tables of the rule tests: one module per file of igonnx/autodiff/rules, each with a list `CASES`."""

from __future__ import annotations

from rule_cases import (
    activations,
    arithmetic,
    convolution,
    elementary,
    indexing,
    linear,
    normalization,
    pooling,
    reductions,
    shapes,
)
from rule_cases.case import Case

__all__ = ["ALL", "Case"]

ALL: list[Case] = [
    *activations.CASES,
    *arithmetic.CASES,
    *convolution.CASES,
    *elementary.CASES,
    *indexing.CASES,
    *linear.CASES,
    *normalization.CASES,
    *pooling.CASES,
    *reductions.CASES,
    *shapes.CASES,
]
