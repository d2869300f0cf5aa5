"""ScatterElements, ScatterND and TensorScatter: every reduction, by what is there and by what is put there."""

from __future__ import annotations

import numpy as np

from rule_cases.case import Case, constant, fed, real

# What is there, and what is put there, in turns: no two close, and so the extrema are safe from differences.
_ELEMENTS = [
    ((5,), [1, -1, 3], 0),
    ((3, 3), [[1, 0, 2], [0, -1, 1]], 0),
    ((2, 5), [[1, -2]], 1),
    ((2, 5), [[1, 3], [0, 4]], -1),
    ((1, 2, 3), [[[2], [0]]], 2),
    ((2, 2, 3, 1), np.ones((1, 2, 1, 1), int), -2),
    ((4, 3), np.zeros((0, 3), int), 0),
]
_MEETING = [
    ((4,), [1, 1, -3, 0], 0),
    ((2, 3), [[0, 0, 0], [1, -2, -1]], 1),
    ((3, 2), [[0, 0], [0, 2], [-3, 0]], -2),
]
_TUPLES = [
    ((5,), [[1], [-1], [3]]),
    ((5,), [2]),
    ((3, 4), [[0, 1], [2, -1]]),
    ((3, 4), [[0], [-1]]),
    ((2, 3, 2), [[[0, 1]], [[1, -1]]]),
    ((1, 3, 2, 2), [[0, 2, 1]]),
    ((4, 3), np.zeros((0, 1), int)),
]
_MEETING_TUPLES = [
    ((4,), [[1], [1], [-3], [0]]),
    ((3, 2), [[0], [-3], [2]]),
    ((2, 3), [[0, 1], [0, 1], [0, -2], [1, 1]]),
]
_REDUCTIONS = [
    ("none", (17, 99)),
    ("add", (17, 99)),
    ("mul", (17, 99)),
    ("max", (18, 99)),
    ("min", (18, 99)),
]


def _cases(operator, shape, indices, updates, reduction, opsets, attributes):
    given = {**attributes, **({} if reduction == "none" else {"reduction": reduction})}
    label = f"{reduction} {np.ravel(indices).tolist()} {np.shape(indices)} of {shape} {attributes}"
    x, y = _apart(reduction, shape, updates)
    array = np.array(indices, np.int64)
    yield Case(operator, label, [x, constant(array), y], given, opsets)
    yield Case(operator, f"{label} fed", [x, fed(array), y], given, opsets[:1])


def _apart(reduction, shape, updates):
    if reduction in ("max", "min"):
        # Updates are larger; the next case has them smaller, so that both are chosen somewhere.
        return real(*shape, low=0, high=1, distinct=True), real(
            *updates, low=-1, high=-0.1, distinct=True
        )
    return real(*shape), real(*updates)


def _scatter_elements():
    for reduction, opsets in _REDUCTIONS:
        rows = _ELEMENTS if reduction == "none" else _ELEMENTS + _MEETING
        for shape, indices, axis in rows:
            yield from _cases(
                "ScatterElements",
                shape,
                indices,
                np.shape(indices),
                reduction,
                opsets,
                {"axis": axis},
            )


def _scatter_nd():
    for reduction, opsets in _REDUCTIONS:
        rows = _TUPLES if reduction == "none" else _TUPLES + _MEETING_TUPLES
        for shape, indices in rows:
            depth = np.shape(indices)[-1]
            updates = (*np.shape(indices)[:-1], *shape[depth:])
            yield from _cases("ScatterND", shape, indices, updates, reduction, opsets, {})


def _tensor_scatter():
    new = (24, 99)
    for shape, size, axis, first, mode in [
        ((2, 4, 3), 2, None, [1, 0], "linear"),
        ((2, 4, 3), 2, None, None, "linear"),
        ((2, 3, 4, 2), 1, -2, [3, 1], "linear"),
        ((2, 4), 3, 1, [1, 0], "linear"),
        ((2, 4, 3), 3, 1, [3, 2], "circular"),
        ((1, 2, 4, 3), 2, -1, [2], "circular"),
    ]:
        given = {"mode": mode, **({} if axis is None else {"axis": axis})}
        updates = list(shape)
        updates[-2 if axis is None else axis] = size
        inputs = [real(*shape), real(*updates)]
        label = f"{size} to {shape} axis {axis} at {first} {mode}"
        if first is None:
            yield Case("TensorScatter", label, inputs, given, new)
            continue
        yield Case("TensorScatter", label, [*inputs, constant(first)], given, new)
        yield Case("TensorScatter", f"{label} fed", [*inputs, fed(first)], given, (99,))


CASES = [*_scatter_elements(), *_scatter_nd(), *_tensor_scatter()]
