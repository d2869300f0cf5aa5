"""CumSum, CumProd, Trilu, Range, Det."""

from __future__ import annotations

import numpy as np

from rule_cases.case import Case, constant, fed, real


def _cumulative(operator, opsets):
    for shape, axis in [((5,), 0), ((3, 2), 1), ((2, 3, 2), -2), ((1, 4), 1), ((2, 0), 1)]:
        for exclusive in (0, 1):
            for reverse in (0, 1):
                given = {"exclusive": exclusive, "reverse": reverse}
                label = f"{shape} axis {axis} {exclusive}{reverse}"
                yield Case(operator, label, [real(*shape), constant(axis)], given, opsets)
        yield Case(operator, f"{shape} axis {axis} fed", [real(*shape), fed(axis)], {}, opsets[:1])
    narrow = fed(np.int32(1))
    yield Case(operator, "int32 axis", [real(2, 3), narrow], {}, opsets[:1])


def _trilu():
    for shape in [(3, 3), (2, 4), (4, 2), (2, 1, 3, 3), (0, 2)]:
        for upper in (0, 1):
            yield Case("Trilu", f"{shape} {upper}", [real(*shape)], {"upper": upper})
            for k in (-1, 0, 2, 9):
                x, given = real(*shape), {"upper": upper}
                yield Case("Trilu", f"{shape} {upper} by {k}", [x, constant(k)], given, (17,))
    yield Case("Trilu", "fed", [real(3, 4), fed(1)])


def _range():
    # The bounds lie where the number of elements does not change.
    start, delta = real(low=0.1, high=0.4), real(low=0.9, high=0.95)
    down = [real(low=5.2, high=5.4), fed(0.3), real(low=-0.95, high=-0.9)]
    yield Case("Range", "all", [start, fed(5.2), delta], opsets=(17, 26))
    yield Case("Range", "down", down, opsets=(17, 26))
    yield Case("Range", "by one", [start, constant(4.5), constant(1.0)], opsets=(17, 26))
    yield Case("Range", "none", [start, constant(-1.0), delta], opsets=(17, 26))


def _det():
    for shape in [(1, 1), (2, 2), (3, 3), (5, 5), (2, 3, 3), (2, 1, 2, 2), (0, 2, 2)]:
        yield Case("Det", f"{shape}", [real(*shape)], formula=np.linalg.det)


CASES = [
    *_cumulative("CumSum", (17, 99)),
    *_cumulative("CumProd", (26,)),
    *_trilu(),
    *_range(),
    *_det(),
]
