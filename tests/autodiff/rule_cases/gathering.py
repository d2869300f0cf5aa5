"""GatherElements, GatherND, Compress, TopK, ReverseSequence, Unique, OneHot."""

from __future__ import annotations

import numpy as np

from rule_cases.case import Case, Input, constant, real


def _both(operator, label, inputs, attributes=None, **given):
    """With the other inputs as constants, and fed at run time."""
    attributes = attributes or {}
    yield Case(operator, label, inputs, attributes, **given)
    running = [
        Input("fed", i.shape, i.values) if i is not None and i.values is not None else i
        for i in inputs
    ]
    yield Case(operator, f"{label} fed", running, attributes, **given)


def _gather_elements():
    for shape, indices, axis in [
        ((5,), [4, 0, -1, 0], 0),
        ((3, 2), [[0, 1], [2, -3]], 0),
        ((2, 3), [[0, 0, -1, 2]], 1),
        ((2, 3), [[0, 0, -1, 2], [1, 1, 1, 1]], -1),
        ((1, 2, 3), [[[0, 1], [-1, -1]]], -1),
        ((2, 3, 2, 2), np.zeros((1, 2, 2, 1), int), -3),
        ((2, 3), np.zeros((2, 0), int), 1),
    ]:
        held = constant(np.array(indices, np.int64))
        label = f"{np.shape(indices)} of {shape} axis {axis}"
        yield from _both("GatherElements", label, [real(*shape), held], {"axis": axis})
    yield from _both("GatherElements", "int32", [real(3), constant(np.array([2, -1], np.int32))])


def _gather_nd():
    for shape, indices, batch in [
        ((5,), [[1], [-1], [1]], 0),
        ((5,), [3], 0),
        ((3, 2), [[0, 1], [2, -1], [-3, 1]], 0),
        ((3, 2), [[0], [-1], [0]], 0),
        ((3, 2), [2], 0),
        ((2, 3, 2), [[[0, 1]], [[1, -1]]], 0),
        ((2, 3, 4), [[1], [-2]], 1),
        ((2, 3, 4), [[[1], [1]], [[-2], [0]]], 1),
        ((2, 3, 4), [[1, 2], [-2, 0]], 1),
        ((1, 3, 2, 2), [[[1], [0], [-1]]], 2),
        ((2, 2, 2, 1, 3), [[[1, 0]], [[0, 0]]], 1),
        ((4, 3), np.zeros((0, 1), int), 0),
    ]:
        held = constant(np.array(indices, np.int64))
        label = f"{np.shape(indices)} {np.ravel(indices).tolist()} of {shape} batch {batch}"
        given = {"batch_dims": batch} if batch else {}
        yield from _both("GatherND", label, [real(*shape), held], given)


def _compress():
    for shape, axis, condition in [
        ((5,), 0, [True, False, True, True, False]),
        ((5,), None, [False, True]),
        ((3, 4), 0, [False, True, True]),
        ((3, 4), 1, [True, False, True]),
        ((3, 4), -1, [False] * 4),
        ((3, 4), None, [False, True, True, False, False, True]),
        ((1, 3, 2, 2), -3, [True, False, True]),
        ((2, 3, 2), 2, [True, True]),
        ((), None, [True]),
    ]:
        if shape == ():
            continue
        label = f"{shape} axis {axis} {np.array(condition).astype(int).tolist()}"
        given = {} if axis is None else {"axis": axis}
        yield from _both("Compress", label, [real(*shape), constant(condition)], given)


def _top_k():
    for shape, k, given in [
        ((5,), 2, {}),
        ((5,), 5, {"largest": 0}),
        ((2, 4), 3, {"axis": 1}),
        ((4, 3), 2, {"axis": 0}),
        ((4, 3), 2, {"axis": -2, "sorted": 0}),
        ((2, 3, 2, 2), 1, {"axis": -3, "largest": 0}),
        ((1, 6), 0, {}),
    ]:
        x = real(*shape, distinct=True)
        label = f"{k} of {shape} {given}"
        yield from _both("TopK", label, [x, constant([k])], given, outputs=2, used=1)


def _reverse_sequence():
    for shape, lengths, given in [
        ((4, 3), [1, 2, 4], {}),
        ((3, 4), [1, 2, 4], {"time_axis": 1, "batch_axis": 0}),
        ((1, 2), [2], {"time_axis": 1, "batch_axis": 0}),
        ((3, 2, 2), [3, 1], {"time_axis": 0, "batch_axis": 1}),
    ]:
        label = f"{shape} {lengths}"
        yield from _both("ReverseSequence", label, [real(*shape), constant(lengths)], given)


def _unique():
    for shape, given in [
        ((5,), {}),
        ((2, 3), {}),
        ((2, 3), {"sorted": 0}),
        ((3, 2), {"axis": 0}),
        ((2, 3), {"axis": -1, "sorted": 0}),
        ((2, 3, 2), {"axis": 1}),
    ]:
        yield Case("Unique", f"{shape} {given}", [real(*shape, distinct=True)], given)
    yield Case(
        "Unique", "four outputs", [real(2, 3, distinct=True)], {"axis": 1}, outputs=4, used=1
    )


def _one_hot_formula(indices, depth, values, axis=-1):
    depth = int(np.reshape(depth, ()))
    hot = np.arange(depth) == (np.asarray(indices)[..., None] % depth)
    return np.moveaxis(np.where(hot, values[1], values[0]), -1, axis)


def _one_hot():
    for indices, depth, given in [
        ([0, 2, -1], 3, {}),
        ([[0, 2], [1, 1], [-3, 0]], 3, {"axis": 1}),
        ([[0, 2], [1, 1]], 3, {"axis": 0}),
        ([[0, 2]], 5, {"axis": -2}),
    ]:
        inputs = [constant(np.array(indices)), constant(depth), real(2)]
        label = f"{indices} {depth} {given}"
        yield from _both("OneHot", label, inputs, given, formula=_one_hot_formula)


CASES = [
    *_gather_elements(),
    *_gather_nd(),
    *_compress(),
    *_top_k(),
    *_reverse_sequence(),
    *_unique(),
    *_one_hot(),
]
