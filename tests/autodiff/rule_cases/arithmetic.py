"""Arithmetic with broadcasting, both ways."""

from __future__ import annotations

import numpy as np

from rule_cases.case import Case, constant, fed, held, real

_PAIRS = [
    ((), ()),
    ((4,), (4,)),
    ((), (2, 3)),
    ((2, 3), ()),
    ((3,), (2, 3)),
    ((2, 3), (1,)),
    ((2, 1), (1, 3)),
    ((2, 1, 3), (4, 1)),
    ((1, 3, 1, 2), (2, 1, 2, 2)),
    ((2,), (1, 2, 1, 3, 2)),
    ((1, 1), (1, 1)),
    ((1,), (1, 1, 1)),
]


def _binary(operator, *, left=(-1.0, 1.0), right=(-1.0, 1.0)):
    def ranged(shape, bounds):
        return real(*shape, low=bounds[0], high=bounds[1])

    return [Case(operator, f"{a} {b}", [ranged(a, left), ranged(b, right)]) for a, b in _PAIRS]


def _unary(operator, **bounds):
    return [
        Case(operator, f"{shape}", [real(*shape, **bounds)])
        for shape in ((), (5,), (2, 1, 3), (1, 2, 1, 2, 2))
    ]


def _choices(operator):
    """Max and Min, on values of which no two are close: the inputs lie in bands one above the other, shuffled."""
    mask = np.array([[True, False, True], [False, False, True]])
    offset = np.where(mask, 2.0, -2.0)
    return [
        Case(operator, "one", [real(2, 3)]),
        Case(operator, "two", [real(2, 3), constant(offset)]),
        Case(operator, "two the other way", [constant(offset), real(3)]),
        Case(
            operator, "row and column", [real(1, 3, low=-1, high=-0.1), real(2, 1, low=0.1, high=1)]
        ),
        Case(
            operator, "three", [real(2, 3), real(3, low=1.2, high=2), real(2, 1, low=-2, high=-1.2)]
        ),
        Case(operator, "scalar", [real(low=0.2), real(2, 3, low=-1, high=0)]),
        Case(operator, "fed", [real(2, 3), fed(offset)]),
    ]


def _pow():
    base, squares = real(2, 3, low=0.3, high=2), real(2, 3, low=-2, high=2, away=(0,))
    exact = [
        Case("Pow", f"to the {p} ({kind})", [source, constant(p, dtype)])
        for p in (0, 1, 2, 3, -1)
        for kind, dtype, source in [("float", np.float64, squares), ("int", np.int64, squares)]
    ]
    return [
        *exact,
        Case("Pow", "half", [base, constant(0.5)]),
        Case("Pow", "half of shape 1x1x1", [base, constant(np.full([1, 1, 1], 0.5))]),
        Case("Pow", "two of shape 1x1x1", [base, constant(np.full([1, 1, 1], 2.0))]),
        Case("Pow", "vector of exponents", [squares, constant([0.0, 1.0, 2.0])]),
        Case("Pow", "integers at run time", [squares, fed([0, 2, 3])]),
        Case(
            "Pow",
            "negative base by exponent",
            [real(2, 3, low=-2, high=2), constant([0.0, 2.0, 3.0])],
        ),
        Case("Pow", "int32 exponent", [squares, constant(3, np.int32)]),
        *(
            Case(
                "Pow", f"{a} {b}", [real(*a, low=0.3, high=2), real(*b, low=-2, high=2, away=(0,))]
            )
            for a, b in _PAIRS
        ),
    ]


def _mean(*inputs):
    return sum(inputs) / len(inputs)


def _mod():
    # The quotients lie between whole numbers.
    a, b = real(2, 3, low=2.2, high=2.8), real(2, 3, low=0.95, high=1.05)
    for sign, other in ((1, 1), (-1, 1), (1, -1), (-1, -1)):
        left = real(2, 3, low=min(2.2 * sign, 2.8 * sign), high=max(2.2 * sign, 2.8 * sign))
        right = real(3, low=min(0.95 * other, 1.05 * other), high=max(0.95 * other, 1.05 * other))
        yield Case("Mod", f"signs {sign} {other}", [left, right], {"fmod": 1})
    yield Case(
        "Mod",
        "row and column",
        [real(1, 3, low=2.2, high=2.8), real(2, 1, low=0.95, high=1.05)],
        {"fmod": 1},
    )
    yield Case("Mod", "by a constant", [a, constant(1.0)], {"fmod": 1})
    yield Case("Mod", "of a constant", [constant(2.5), b], {"fmod": 1})


_CONDITION = np.array([[True, False, True], [False, False, True]])

CASES = [
    *_binary("Add"),
    *_binary("Sub"),
    *_binary("Mul"),
    *_binary("Div", right=(0.4, 2.0)),
    Case("Div", "negative divisor", [real(2, 3), real(2, 3, low=-2, high=-0.4)]),
    Case("Add", "held", [real(2, 3), held(3)]),
    Case("Add", "held is larger", [real(3), held(2, 1)]),
    Case("Mul", "held first", [held(2, 1, 3), real(3)]),
    Case("Div", "held first", [held(2, 1, 3), real(3, low=0.5, high=2)]),
    Case("Sub", "held first", [held(1), real(3)]),
    *_unary("Neg"),
    *_unary("Reciprocal", low=0.4, high=2.0),
    *_unary("Sqrt", low=0.2, high=3.0),
    *_unary("Abs", away=(0.0,)),
    *_unary("Identity"),
    *_pow(),
    *_mod(),
    *_choices("Max"),
    *_choices("Min"),
    *(
        Case(operator, label, inputs, formula=_mean if operator == "Mean" else None)
        for operator in ("Sum", "Mean")
        for label, inputs in [
            ("one", [real(2, 3)]),
            ("two", [real(2, 3), real(3)]),
            ("three", [real(1, 3), real(2, 1), real()]),
            ("held between", [real(2, 3), held(3), real(4, 1, 1)]),
        ]
    ),
    Case("Where", "same", [constant(_CONDITION), real(2, 3), real(2, 3)]),
    Case("Where", "fed", [fed(_CONDITION), real(2, 3), real(3)]),
    Case("Where", "all broadcast", [fed(_CONDITION[:, :1]), real(3), real(4, 1, 1)]),
    Case("Where", "condition is largest", [fed(_CONDITION), real(), real(1, 1)]),
    Case("Where", "condition is one", [fed(np.array(True)), real(2, 3), real(3)]),
    Case("Where", "held branch", [fed(_CONDITION), real(1, 3), held()]),
    Case("Where", "first held", [fed(_CONDITION), held(1), real(2, 1)]),
]
