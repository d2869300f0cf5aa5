"""Gather, Slice, Split, Concat, Pad."""

from __future__ import annotations

import sys

import numpy as np

from rule_cases.case import Case, constant, fed, held, real

_FAR = sys.maxsize


def _gather():
    for shape, axis, indices in [
        ((5,), 0, [1, 3]),
        ((5,), 0, [4, 0, 4, 4]),
        ((5,), 0, 2),
        ((5,), 0, -1),
        ((5,), 0, [-2]),
        ((4, 3), 0, [[0, 1], [3, -1]]),
        ((4, 3), 1, [2, 0, 2, -3]),
        ((4, 3), -1, 1),
        ((4, 3), 1, -3),
        ((4, 3), 0, [[-1]]),
        ((2, 3, 4), 1, [0, 2, -1, 1]),
        ((2, 3, 4), 1, [[1, 1], [0, -1]]),
        ((2, 3, 4), -1, [[[0]]]),
        ((2, 3, 4), 2, [[3, 0]]),
        ((2, 3, 4), 1, []),
        ((1, 3, 2, 2, 2), 1, [2, 2, 0]),
        ((2, 1, 3), 1, [0, 0, -1]),
    ]:
        label = f"{indices} of {shape} axis {axis}".replace("\n", "")
        held_indices = constant(np.array(indices, np.int64))
        yield Case("Gather", label, [real(*shape), held_indices], {"axis": axis})
        yield Case(
            "Gather",
            f"{label} fed",
            [real(*shape), fed(np.array(indices, np.int64))],
            {"axis": axis},
            (17,),
        )
    narrow = np.array([0, 2, -1, 2], np.int32)
    yield Case("Gather", "int32", [real(3, 2), constant(narrow)])
    yield Case("Gather", "int32 fed", [real(2, 3), fed(narrow)], {"axis": 1})
    yield Case("Gather", "one int32", [real(2, 3), constant(np.int32(-1))], {"axis": 1})
    yield Case("Gather", "one int32 fed", [real(2, 3), fed(np.int32(-1))], {"axis": 1})


def _slice():
    for shape, arguments in [
        ((7,), ([2], [5])),
        ((7,), ([-4], [-1])),
        ((7,), ([1], [_FAR])),
        ((7,), ([-100], [100])),
        ((7,), ([5], [2])),
        ((7,), ([0], [7], [0], [2])),
        ((7,), ([1], [7], [0], [3])),
        ((7,), ([-1], [-_FAR], [0], [-1])),
        ((7,), ([5], [0], [0], [-2])),
        ((7,), ([-100], [-101], [0], [-2])),
        ((7,), ([100], [1], [0], [-3])),
        ((7,), ([-7], [-7], [0], [-1])),
        ((7,), ([8], [9], [0], [2])),
        ((5, 8), ([0, 1], [5, 8], [0, 1], [2, 2])),
        ((3, 5), ([1, 0], [3, -1])),
        ((3, 5), ([1], [4], [1])),
        ((3, 5), ([1], [-1], [-1])),
        ((3, 5), ([-1, 0], [-_FAR, 5], [1, 0], [-1, 2])),
        ((3, 5), ([0, 1], [2, 4], [-1, -2])),
        ((2, 3, 4), ([1, -3], [_FAR, -1], [1, 2], [1, 1])),
        ((2, 3, 4), ([0], [1], [0])),
        ((1, 2, 3, 2, 3), ([1, 0], [3, 2], [2, 4])),
    ]:
        label = f"{shape} {' '.join(map(str, arguments))}".replace(str(_FAR), "max")
        yield Case("Slice", label, [real(*shape), *map(constant, arguments)])
        yield Case("Slice", f"{label} fed", [real(*shape), *map(fed, arguments)], {}, (17,))
        narrow = [
            constant(np.clip(given, -(2**31) + 1, 2**31 - 1).astype(np.int32))
            for given in arguments
        ]
        yield Case("Slice", f"{label} int32", [real(*shape), *narrow], {}, (17,))
    yield Case("Slice", "starts fed", [real(3, 5), fed([1]), constant([4]), constant([1])])
    yield Case(
        "Slice", "ends fed", [real(3, 5), constant([1]), fed([4]), constant([1]), constant([1])]
    )
    yield Case("Slice", "axes fed", [real(3, 5), constant([1]), constant([3]), fed([-1])])
    yield Case(
        "Slice",
        "steps without axes",
        [real(3, 5), constant([0, 0]), constant([3, 5]), None, constant([2, 1])],
    )


def _concat():
    for shapes, axis in [
        (((3,),), 0),
        (((3,), (2,)), 0),
        (((2, 3), (2, 1), (2, 4)), 1),
        (((2, 3), (1, 3)), -2),
        (((1, 2, 3), (1, 2, 3)), -1),
        (((1, 2, 2, 1, 2), (1, 3, 2, 1, 2)), 1),
    ]:
        yield Case(
            "Concat", f"{shapes} axis {axis}", [real(*shape) for shape in shapes], {"axis": axis}
        )
    yield Case("Concat", "held between", [real(2, 3), held(1, 3), real(3, 3)], {"axis": 0})
    yield Case("Concat", "empty part", [real(2, 3), real(0, 3)], {"axis": 0})


def _split():
    for shape, axis, sizes in [
        ((6,), 0, [2, 4]),
        ((2, 5), 1, [1, 3, 1]),
        ((3, 2, 2), -3, [1, 2]),
        ((4, 2), 0, [4]),
    ]:
        label = f"{shape} axis {axis} {sizes}"
        count, given = len(sizes), {"axis": axis}
        yield Case("Split", label, [real(*shape), constant(sizes)], given, outputs=count)
        if count > 1:
            yield Case(
                "Split",
                f"{label} first",
                [real(*shape), constant(sizes)],
                given,
                outputs=count,
                used=1,
            )
        yield Case("Split", f"{label} fed", [real(*shape), fed(sizes)], given, (17,), outputs=count)
    yield Case("Split", "even", [real(6, 2)], {}, (17,), outputs=3)
    yield Case("Split", "num_outputs", [real(6, 2)], {"num_outputs": 3}, (18, 99), outputs=3)
    yield Case(
        "Split",
        "num_outputs with a rest",
        [real(2, 7)],
        {"num_outputs": 3, "axis": 1},
        (18, 99),
        outputs=3,
    )
    yield Case(
        "Split",
        "two of three",
        [real(2, 7)],
        {"num_outputs": 3, "axis": -1},
        (18, 99),
        outputs=3,
        used=2,
    )


_PADS = [
    ((5,), [2, 1]),
    ((3, 4), [1, 0, 0, 2]),
    ((3, 4), [0, 1, 2, 0]),
    ((2, 3, 4), [0, 1, 2, 0, 0, 1]),
    ((1, 2, 3, 3), [0, 0, 1, 2, 0, 0, 2, 1]),
]


def _pad():
    for shape, pads in [*_PADS, ((5,), [-1, 2]), ((5, 4), [-1, 1, -2, -1]), ((3, 4), [0, 0, 0, 0])]:
        yield Case("Pad", f"{shape} {pads}", [real(*shape), constant(pads)])
        yield Case("Pad", f"{shape} {pads} fed", [real(*shape), fed(pads)])
        yield Case(
            "Pad",
            f"{shape} {pads} with value",
            [real(*shape), constant(pads), real()],
            {"mode": "constant"},
        )
    for mode, opsets in [("reflect", (17, 99)), ("edge", (17, 99)), ("wrap", (19, 99))]:
        for shape, pads in _PADS:
            given = {"mode": mode}
            yield Case(
                "Pad", f"{mode} {shape} {pads}", [real(*shape), constant(pads)], given, opsets
            )
            yield Case(
                "Pad", f"{mode} {shape} {pads} fed", [real(*shape), fed(pads)], given, opsets[:1]
            )
    new = (18, 99)
    x, pads, axes = real(2, 3, 4), constant([1, 0, 2, 1]), constant([2, -3])
    yield Case("Pad", "axes", [x, pads, None, axes], {}, new)
    yield Case("Pad", "axes fed", [x, fed([1, 0, 2, 1]), None, fed([2, -3])], {}, new)
    yield Case("Pad", "axes int32 fed", [x, pads, None, fed([2, -3], np.int32)], {}, new)
    yield Case("Pad", "axes with value", [x, pads, real(), axes], {}, new)
    yield Case("Pad", "axes reflect", [x, pads, None, axes], {"mode": "reflect"}, new)


CASES = [*_gather(), *_slice(), *_concat(), *_split(), *_pad()]
