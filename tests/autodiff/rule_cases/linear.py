"""MatMul over every pair of ranks, Gemm over every transposition."""

from __future__ import annotations

from rule_cases.case import Case, held, real

_MATRICES = [
    ((3,), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3,)),
    ((2, 3), (3, 4)),
    ((3,), (2, 3, 4)),
    ((2, 4, 3), (3,)),
    ((2, 4, 3), (3, 2)),
    ((4, 3), (2, 3, 2)),
    ((2, 4, 3), (2, 3, 2)),
    ((1, 4, 3), (2, 3, 2)),
    ((2, 4, 3), (1, 3, 2)),
    ((2, 1, 2, 3), (4, 3, 2)),
    ((2, 3, 2, 3), (3, 1)),
    ((3, 2, 3), (2, 1, 3, 2)),
    ((1, 2, 2, 3), (2, 1, 3, 2)),
    ((1, 1), (1, 1)),
    ((1, 1, 1), (1, 1)),
    ((3,), (1, 2, 3, 2)),
    ((1, 2, 2, 3), (3,)),
    ((1, 2, 1, 2, 3), (2, 3, 1)),
]


def _gemm():
    for flip_a in (0, 1):
        for flip_b in (0, 1):
            a = real(*((3, 2) if flip_a else (2, 3)))
            b = real(*((4, 3) if flip_b else (3, 4)))
            flips = {"transA": flip_a, "transB": flip_b}
            yield Case("Gemm", f"{flip_a}{flip_b}", [a, b], flips)
            yield Case(
                "Gemm",
                f"{flip_a}{flip_b} scaled",
                [a, b, real(4)],
                {**flips, "alpha": 0.5, "beta": 2.0},
            )


CASES = [
    *(Case("MatMul", f"{a} {b}", [real(*a), real(*b)]) for a, b in _MATRICES),
    Case("MatMul", "held right", [real(2, 4, 3), held(3, 5)]),
    Case("MatMul", "held left", [held(2, 1, 4, 3), real(3, 5)]),
    Case("MatMul", "one row", [real(1, 3), held(3, 4)]),
    Case("MatMul", "no columns", [real(2, 2, 3), real(3, 0)]),
    Case("MatMul", "no examples", [real(0, 2, 3), real(3, 2)]),
    *_gemm(),
    *(
        Case("Gemm", f"bias {shape}", [real(2, 3), real(3, 4), real(*shape)])
        for shape in [(), (1,), (4,), (1, 4), (2, 1), (1, 1), (2, 4)]
    ),
    Case("Gemm", "held weights", [real(2, 3), held(4, 3), held(4)], {"transB": 1}),
    Case("Gemm", "one row", [real(1, 3), held(4, 3), real(4)], {"transB": 1}),
]
