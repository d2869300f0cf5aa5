"""BatchNormalization with given statistics; with the batch's own it is in test_statistics.py."""

from __future__ import annotations

from rule_cases.case import Case, held, real

_SHAPES = [(2, 3, 4, 5), (2, 3), (1, 4, 3), (1, 2, 2, 3, 2)]


def _inference(shape, **attributes):
    channels = shape[1]
    variance = {"low": 0.3, "high": 2}
    given = [held(channels), held(channels), held(channels), held(channels, **variance)]
    free = [real(channels), real(channels), real(channels), real(channels, **variance)]
    label = f"{shape} {attributes or ''}".strip()
    x = real(*shape, fixed=(1,))
    yield Case("BatchNormalization", label, [x, *given], attributes, (17, 99))
    yield Case("BatchNormalization", f"{label} all", [real(*shape), *free], attributes)


CASES = [
    *(case for shape in _SHAPES for case in _inference(shape)),
    *_inference((2, 3, 2, 2), epsilon=0.2),
    *_inference((0, 3, 2)),
]
