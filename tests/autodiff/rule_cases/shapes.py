"""Operators that move or copy elements."""

from __future__ import annotations

import numpy as np

from rule_cases.case import Case, constant, fed, real

CASES = [
    *(
        Case("Reshape", f"{shape} to {target}", [real(*shape), constant(target, "int64")])
        for shape, target in [
            ((6,), [2, 3]),
            ((2, 3), [-1]),
            ((2, 3, 4), [0, -1]),
            ((2, 3, 4), [4, 0, 2]),
            ((), [1]),
            ((1,), []),
            ((1, 2, 3, 2), [-1, 1, 3]),
        ]
    ),
    Case("Reshape", "at run time", [real(2, 3, 4), fed([4, -1])]),
    Case("Reshape", "empty by copy", [real(2, 0, 3), constant([3, 0, 2])]),
    Case("Reshape", "empty to inferred", [real(0, 3), constant([3, -1, 2])]),
    Case("Transpose", "rank 0", [real()]),
    Case("Reshape", "empty", [real(2, 0, 3), constant([0, 2, 0])], {"allowzero": 1}),
    *(
        Case("Flatten", f"{shape} axis {axis}", [real(*shape)], {"axis": axis})
        for shape, axis in [
            ((2, 3, 2), 1),
            ((2, 3, 2), 0),
            ((2, 3, 2), 3),
            ((2, 3, 2), -1),
            ((4,), 1),
            ((1, 2, 1, 3), 2),
        ]
    ),
    Case("Squeeze", "all", [real(1, 3, 1, 2)], layouts=("static",)),
    Case("Squeeze", "axes", [real(1, 3, 1, 2), constant([0, -2])]),
    Case("Squeeze", "one", [real(3, 1), constant([1])]),
    Case("Squeeze", "to rank 0", [real(1), constant([0])]),
    Case("Unsqueeze", "ends", [real(3, 2), constant([0, -1])]),
    Case("Unsqueeze", "middle", [real(3, 2), constant([1, 2])]),
    Case("Unsqueeze", "rank 0", [real(), constant([0, 1])]),
    Case("Transpose", "default", [real(2, 3, 4)]),
    Case("Transpose", "default rank 1", [real(3)]),
    *(
        Case("Transpose", f"{perm}", [real(*range(1, len(perm) + 1))], {"perm": perm})
        for perm in ([1, 0], [2, 0, 1], [1, 2, 0], [0, 2, 3, 1], [4, 0, 3, 1, 2])
    ),
    Case("Cast", "to the same", [real(2, 3)], {"to": "real"}),
    Case("CastLike", "to the same", [real(2, 3), fed(np.zeros(2))]),
    Case("Dropout", "default", [real(2, 3)]),
    Case("Dropout", "ratio", [real(2, 3), constant(np.float32(0.3))]),
    Case("BitCast", "to the same", [real(2, 3)], {"to": "real"}, (26,)),
    Case("Dropout", "not training fed", [real(2, 3), constant(np.float32(0.3)), fed(False)]),
    *(
        Case(
            "Dropout",
            label,
            [real(4, 5), ratio, training],
            {"seed": 3},
            outputs=2,
            used=1,
            layouts=("static",),
        )
        for label, ratio, training in [
            ("training at ratio 0", constant(np.float32(0)), constant(True)),
            ("training at ratio 0 fed", fed(np.float32(0)), fed(True)),
        ]
    ),
    Case(
        "Dropout",
        "not training",
        [real(2, 3), constant(np.float32(0.3)), constant(False)],
        outputs=2,
        used=1,
    ),
    *(
        Case("Expand", f"{shape} to {target}", [real(*shape), constant(target)])
        for shape, target in [
            ((3,), [2, 3]),
            ((3, 1), [3, 4]),
            ((), [2, 2]),
            ((2, 3), [1, 1]),
            ((2, 1, 3), [3, 1, 4, 1]),
            ((2, 3), [2, 3]),
            ((1, 1), [1]),
        ]
    ),
    Case("Expand", "at run time", [real(3, 1), fed([2, 3, 4])]),
    Case("Expand", "one at run time", [real(3, 1), fed([1])]),
    *(
        Case("Tile", f"{shape} by {repeats}", [real(*shape), constant(repeats)])
        for shape, repeats in [
            ((3,), [4]),
            ((2, 3), [1, 1]),
            ((2, 1, 3), [2, 3, 1]),
            ((1, 2, 1, 3), [1, 2, 2, 1]),
        ]
    ),
    Case("Tile", "none", [real(2, 3), constant([0, 2])]),
    Case("Tile", "of nothing", [real(2, 0), constant([2, 2])]),
    Case("Tile", "none at run time", [real(2, 3), fed([2, 0])]),
    *(
        Case(operator, f"{shape} {given}", [real(*shape)], given)
        for operator, shape, given in [
            ("DepthToSpace", (1, 4, 2, 3), {"blocksize": 2}),
            ("DepthToSpace", (2, 8, 1, 3), {"blocksize": 2, "mode": "DCR"}),
            ("DepthToSpace", (2, 12, 2, 1), {"blocksize": 2, "mode": "CRD"}),
            ("DepthToSpace", (1, 18, 1, 1), {"blocksize": 3, "mode": "CRD"}),
            ("DepthToSpace", (2, 3, 2, 1), {"blocksize": 1, "mode": "CRD"}),
            ("SpaceToDepth", (1, 1, 2, 4), {"blocksize": 2}),
            ("SpaceToDepth", (2, 3, 4, 2), {"blocksize": 2}),
            ("SpaceToDepth", (1, 2, 3, 6), {"blocksize": 3}),
        ]
    ),
    Case("Tile", "at run time", [real(2, 3), fed([2, 3])]),
]
