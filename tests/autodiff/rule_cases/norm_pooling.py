"""LpPool, GlobalLpPool and LpNormalization: p from 1 to 4, windows as in the other pooling."""

from __future__ import annotations

import itertools

import numpy as np

from rule_cases.case import Case, real

# label: (input [N, C, ...], attributes)
_WINDOWS = {
    "1d": ((2, 2, 7), {"kernel_shape": [3]}),
    "1d strided": ((1, 2, 9), {"kernel_shape": [2], "strides": [3]}),
    "overlapping": ((1, 2, 7, 6), {"kernel_shape": [3, 3], "strides": [2, 2]}),
    "uneven pads": ((1, 2, 5, 6), {"kernel_shape": [3, 2], "strides": [1, 2], "pads": [2, 0, 1, 1]}),
    "SAME_UPPER": ((1, 2, 7, 6), {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "SAME_LOWER": ((1, 2, 7, 6), {"kernel_shape": [2, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "VALID": ((1, 1, 7, 6), {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "VALID"}),
    "3d": ((1, 2, 3, 4, 3), {"kernel_shape": [2, 2, 2], "strides": [1, 2, 1], "pads": [1, 0, 0, 0, 1, 0]}),
}  # fmt: skip
# From opset 18 on.
_NEWER = {
    "dilated": ((1, 2, 7, 8), {"kernel_shape": [3, 2], "dilations": [2, 3], "strides": [1, 2]}),
    "ceil": ((1, 2, 6, 5), {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
    "ceil padded": (
        (1, 1, 6, 7),
        {"kernel_shape": [3, 3], "strides": [2, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1},
    ),
}


def _pooled(
    x, kernel_shape, p=2, strides=None, pads=None, dilations=None, auto_pad="NOTSET", ceil_mode=0
):
    """LpPool window by window."""
    n = x.ndim - 2
    strides, dilations, pads = strides or [1] * n, dilations or [1] * n, pads or [0] * (2 * n)
    extents = [(k - 1) * d + 1 for k, d in zip(kernel_shape, dilations, strict=True)]
    begins, counts = [], []
    for i, (size, extent, stride) in enumerate(zip(x.shape[2:], extents, strides, strict=True)):
        begin, end = pads[i], pads[n + i]
        if auto_pad.startswith("SAME"):
            total = max((-(-size // stride) - 1) * stride + extent - size, 0)
            begin = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
            end = total - begin
        rest = size + begin + end - extent
        begins.append(begin)
        count = (-(-rest // stride) if ceil_mode else rest // stride) + 1
        # A window that would start behind the input is left out.
        counts.append(count - 1 if (count - 1) * stride >= size + begin else count)
    y = np.zeros((*x.shape[:2], *counts))
    for place in itertools.product(*map(range, counts)):
        for tap in itertools.product(*map(range, kernel_shape)):
            at = [
                q * s + k * d - b
                for q, s, k, d, b in zip(place, strides, tap, dilations, begins, strict=True)
            ]
            if all(0 <= a < size for a, size in zip(at, x.shape[2:], strict=True)):
                y[(..., *place)] += np.abs(x[(..., *at)]) ** p
    return y ** (1 / p)


def _global(x, p=2):
    axes = tuple(range(2, x.ndim))
    return (np.abs(x) ** p).sum(axis=axes, keepdims=True) ** (1 / p)


def _lp_pool():
    for table, opsets in ((_WINDOWS, (17, 18, 99)), (_NEWER, (18, 99))):
        for label, (shape, attributes) in table.items():
            for p in (1, 2, 3):
                # Away from zero, where abs(x) has a kink and a norm too steep a slope for differences.
                x = real(*shape, away=(0.0,), fixed=(1,) if p == 3 else ())
                given = {**attributes, "p": p}
                yield Case("LpPool", f"{label} p {p}", [x], given, opsets, formula=_pooled)
    none = [real(0, 2, 5)]
    yield Case("LpPool", "no examples", none, {"kernel_shape": [2]}, formula=_pooled)
    default = [real(1, 2, 5, away=(0.0,))]
    yield Case("LpPool", "default p", default, {"kernel_shape": [2]}, formula=_pooled)


def _global_lp_pool():
    for shape in [(2, 3, 5), (1, 2, 3, 4), (1, 2, 2, 3, 2), (1, 1, 1, 1), (0, 2, 3)]:
        for given in ({}, {"p": 1}, {"p": 2}, {"p": 3}, {"p": 4}):
            label, x = f"{shape} {given or ''}".strip(), real(*shape, away=(0.0,))
            # onnxruntime has no kernel from opset 22 on.
            yield Case("GlobalLpPool", label, [x], given, (17, 21), formula=_global)


def _normalization():
    for shape, axis in [((5,), None), ((2, 3), None), ((2, 3, 4), 1), ((2, 3, 4), -3), ((3, 1), 1)]:
        for p in (None, 1, 2):
            given = {"axis": axis, "p": p}
            given = {name: value for name, value in given.items() if value is not None}
            label = f"{shape} {given or ''}".strip()
            yield Case("LpNormalization", label, [real(*shape, away=(0.0,))], given)


CASES = [
    *_lp_pool(),
    *_global_lp_pool(),
    *_normalization(),
]
