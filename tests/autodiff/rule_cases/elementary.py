"""Elementary functions of one variable, each on its own domain."""

from __future__ import annotations

from scipy.special import erf

from rule_cases.case import Case, real

_DOMAINS = {
    "Exp": (-2, 2),
    "Log": (0.2, 3),
    "Sin": (-4, 4),
    "Cos": (-4, 4),
    "Tan": (-1.2, 1.2),
    "Asin": (-0.9, 0.9),
    "Acos": (-0.9, 0.9),
    "Atan": (-3, 3),
    "Sinh": (-2, 2),
    "Cosh": (-2, 2),
    "Tanh": (-2, 2),
    "Asinh": (-3, 3),
    "Acosh": (1.2, 3),
    "Atanh": (-0.8, 0.8),
    "Erf": (-2, 2),
}
_FORMULAS = {"Erf": erf}
_SHAPES = {"rank 0": (), "rank 1": (7,), "rank 3": (2, 1, 3), "rank 5": (1, 2, 1, 3, 2)}

CASES = [
    Case(operator, label, [real(*shape, low=low, high=high)], formula=_FORMULAS.get(operator))
    for operator, (low, high) in _DOMAINS.items()
    for label, shape in _SHAPES.items()
]
