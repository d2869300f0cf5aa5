"""Activation functions away from their kinks; what happens at the kinks is in test_kinks.py."""

from __future__ import annotations

import numpy as np
from scipy.special import erf

from rule_cases.case import Case, constant, fed, held, real


def _celu(x, alpha=1.0):
    return np.where(x > 0, x, alpha * np.expm1(x / alpha))


def _gelu(x, approximate="none"):
    if approximate == "none":
        return x * (1 + erf(x / np.sqrt(2))) / 2
    return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2


_FORMULAS = {"Celu": _celu, "Gelu": _gelu, "Softsign": lambda x: x / (1 + np.abs(x))}


def _pointwise(
    operator, label="", *, opsets=(17, 99), low=-3.0, high=3.0, away=(0.0,), **attributes
):
    return [
        Case(
            operator,
            f"{label} {shape}".strip(),
            [real(*shape, low=low, high=high, away=away)],
            attributes,
            opsets,
            formula=_FORMULAS.get(operator),
        )
        for shape in ((), (9,), (2, 3, 1, 2))
    ]


def _at(value):
    """A bound whose gradient is wanted."""
    return real(low=value, high=value)


CASES = [
    *_pointwise("Relu"),
    *_pointwise("Sigmoid"),
    *_pointwise("Softplus"),
    *_pointwise("Softsign"),
    *_pointwise("LeakyRelu"),
    *_pointwise("LeakyRelu", "steep", alpha=0.3),
    *_pointwise("ThresholdedRelu", away=(1.0,)),
    *_pointwise("ThresholdedRelu", "low", alpha=-0.5, away=(-0.5,)),
    *_pointwise("Elu"),
    *_pointwise("Elu", "alpha 2", alpha=2.0),
    *_pointwise("Celu"),
    *_pointwise("Celu", "alpha 0.5", alpha=0.5),
    *_pointwise("Selu"),
    *_pointwise("Selu", "given", alpha=1.2, gamma=0.7),
    *_pointwise("HardSigmoid", away=(-2.5, 2.5)),
    *_pointwise("HardSigmoid", "given", alpha=0.5, beta=0.4, away=(-0.8, 1.2)),
    *_pointwise("HardSwish", away=(-3.0, 3.0), low=-5.0, high=5.0),
    *_pointwise("Mish", opsets=(18, 99)),
    *_pointwise("Gelu", opsets=(20, 99)),
    *_pointwise("Gelu", "tanh", opsets=(20, 99), approximate="tanh"),
    # Clip: every way to give bounds.
    Case(
        "Clip", "both", [real(4, 5, low=-2, high=2, away=(-1, 0.5)), constant(-1.0), constant(0.5)]
    ),
    Case("Clip", "relu6", [real(4, 5, low=-3, high=9, away=(0, 6)), constant(0.0), constant(6.0)]),
    Case("Clip", "lower", [real(3, 4, away=(0.1,)), constant(0.1)]),
    Case("Clip", "upper", [real(3, 4, away=(0.1,)), None, constant(0.1)]),
    Case("Clip", "none", [real(3, 4)]),
    Case("Clip", "bounds at run time", [real(3, 4, away=(-0.2, 0.5)), fed(-0.2), fed(0.5)]),
    Case("Clip", "relu6 at run time", [real(9, low=-3, high=9, away=(0, 6)), fed(0.0), fed(6.0)]),
    Case(
        "Clip",
        "by both bounds",
        [real(4, 5, low=-2, high=2, away=(-0.5, 0.5)), _at(-0.5), _at(0.5)],
    ),
    Case("Clip", "by the lower bound", [real(9, away=(0.1,)), _at(0.1)]),
    Case("Clip", "by the upper bound", [real(9, away=(0.1,)), None, _at(0.1)]),
    Case("Clip", "bounds in the wrong order", [real(2, 9, away=(0.5, -0.5)), _at(0.5), _at(-0.5)]),
    Case("Clip", "no elements", [real(0, 3), _at(0.5), _at(0.7)]),
    Case("Clip", "rank 0", [real(away=(0.1,)), constant(0.1)]),
    # PRelu: slopes that broadcast towards x only.
    Case("PRelu", "same shape", [real(3, 4, away=(0,)), real(3, 4)]),
    Case("PRelu", "one slope", [real(2, 3, 4, away=(0,)), real(1)]),
    Case("PRelu", "per channel", [real(2, 3, 4, 1, away=(0,)), real(3, 1, 1)]),
    Case("PRelu", "held slope", [real(2, 3, 4, away=(0,)), held(3, 1)]),
    # Softmax along any axis.
    *(
        Case(
            operator,
            f"axis {axis} of {shape}",
            [real(*shape)],
            {} if axis is None else {"axis": axis},
        )
        for operator in ("Softmax", "LogSoftmax")
        for shape, axis in [
            ((5,), None),
            ((2, 3), None),
            ((2, 3), 0),
            ((2, 3, 4), 1),
            ((2, 3, 4), -2),
            ((1, 2, 3, 2), 3),
            ((3, 1), 1),
        ]
    ),
    *_pointwise("Softplus", "steep", low=-60.0, high=60.0, opsets=(17,)),
    *_pointwise("Mish", "steep", low=-60.0, high=60.0, opsets=(18,)),
    *_pointwise("Gelu", "tanh, steep", opsets=(20,), low=-60, high=60, approximate="tanh"),
    *_pointwise("Sigmoid", "steep", low=-60.0, high=60.0, opsets=(17,)),
    Case("PRelu", "no elements", [real(0, 3, 2), real(3, 1)]),
    Case("Softmax", "no elements", [real(0, 3)]),
    Case("Softmax", "large", [real(3, 4, low=80, high=90)], {"axis": -1}),
    Case("Clip", "array bounds", [real(5, away=(-0.2,)), constant(np.array(-0.2))]),
]
