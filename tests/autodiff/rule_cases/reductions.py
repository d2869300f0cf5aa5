"""Reductions: axes as attribute and as input, kept and dropped, none at all, known at run time."""

from __future__ import annotations

from rule_cases.case import Case, constant, fed, real

_BOUNDS = {
    "ReduceSum": {},
    "ReduceMean": {},
    "ReduceMax": {"distinct": True},
    "ReduceMin": {"distinct": True},
    "ReduceProd": {},
    "ReduceL1": {"away": (0.0,)},
    "ReduceL2": {},
    "ReduceSumSquare": {},
    "ReduceLogSum": {"low": 0.2, "high": 2.0},
    "ReduceLogSumExp": {},
}
_AXES = [
    ((5,), [0]),
    ((5,), [-1]),
    ((2, 3), [1]),
    ((2, 3, 4), [0, 2]),
    ((2, 3, 4), [-1, 0]),
    ((2, 1, 3), [1]),
    ((2, 3, 1, 2), [-3, 3]),
    ((1, 2, 1, 3, 2), [1, 2, 4]),
]
# From opset 18 on, axes are an input everywhere; in ReduceSum they already are at 13.
_OLD, _NEW = (17,), (18, 99)


def _reductions(operator):
    bounds = _BOUNDS[operator]
    as_input = (17, *_NEW) if operator == "ReduceSum" else _NEW
    for shape, axes in _AXES:
        for keepdims in (0, 1):
            label, attributes = f"{axes} of {shape} keep {keepdims}", {"keepdims": keepdims}
            x = real(*shape, **bounds)
            yield Case(operator, label, [x, constant(axes)], attributes, as_input[:2])
            if operator != "ReduceSum":
                yield Case(operator, f"{label} attribute", [x], {**attributes, "axes": axes}, _OLD)
    for keepdims in (0, 1):
        attributes = {"keepdims": keepdims}
        x = real(2, 3, 2, **bounds)
        yield Case(operator, f"all keep {keepdims}", [x], attributes, (17, 99))
        yield Case(operator, f"scalar keep {keepdims}", [real(**bounds)], attributes, (17, 99))
        yield Case(
            operator, f"axes at run time keep {keepdims}", [x, fed([0, -1])], attributes, as_input
        )
        empty = fed([], "int64")
        yield Case(
            operator, f"no axes at run time keep {keepdims}", [x, empty], attributes, as_input
        )
        yield Case(
            operator,
            f"empty axes keep {keepdims}",
            [x, constant([], "int64")],
            attributes,
            as_input,
        )
        nothing = {**attributes, "noop_with_empty_axes": 1}
        yield Case(operator, f"noop keep {keepdims}", [x], nothing, as_input)
        yield Case(
            operator, f"noop empty keep {keepdims}", [x, constant([], "int64")], nothing, as_input
        )
        yield Case(operator, f"noop at run time keep {keepdims}", [x, empty], nothing, as_input)
        yield Case(
            operator, f"noop with axes keep {keepdims}", [x, constant([1])], nothing, as_input
        )


CASES = [case for operator in _BOUNDS for case in _reductions(operator)]
