"""Pooling windows: overlapping, padded, dilated, cut off at the end."""

from __future__ import annotations

from rule_cases.case import Case, real

# label: (input [N, C, ...], attributes)
_WINDOWS = {
    "1d": ((2, 2, 7), {"kernel_shape": [3]}),
    "1d strided": ((1, 2, 9), {"kernel_shape": [2], "strides": [3]}),
    "2x2": ((2, 2, 6, 4), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "rest": ((1, 2, 7, 5), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "overlapping": ((1, 2, 7, 6), {"kernel_shape": [3, 3], "strides": [2, 2]}),
    "dense": ((1, 1, 5, 4), {"kernel_shape": [3, 2]}),
    "padded": ((2, 2, 6, 5), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "uneven pads": ((1, 2, 5, 6), {"kernel_shape": [3, 2], "strides": [1, 2], "pads": [2, 0, 1, 1]}),
    "kernel below stride": ((1, 2, 8, 9), {"kernel_shape": [2, 1], "strides": [3, 2]}),
    "ceil": ((1, 2, 6, 5), {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
    "ceil padded": ((1, 2, 6, 7), {"kernel_shape": [3, 3], "strides": [2, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    "ceil far": ((1, 1, 7, 8), {"kernel_shape": [2, 3], "strides": [3, 3], "pads": [0, 1, 0, 1], "ceil_mode": 1}),
    "3d": ((1, 2, 3, 4, 3), {"kernel_shape": [2, 2, 2], "strides": [1, 2, 1]}),
    "3d padded": ((1, 1, 3, 4, 3), {"kernel_shape": [2, 3, 2], "strides": [2, 2, 2], "pads": [1, 1, 0, 0, 1, 1]}),
    "VALID": ((1, 2, 7, 6), {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "VALID"}),
    "SAME_UPPER": ((1, 2, 7, 6), {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "SAME_LOWER": ((1, 2, 7, 6), {"kernel_shape": [2, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "SAME_UPPER dense": ((1, 2, 5, 4), {"kernel_shape": [3, 2], "auto_pad": "SAME_UPPER"}),
    "SAME_LOWER 3": ((1, 1, 8, 7), {"kernel_shape": [4, 3], "strides": [3, 3], "auto_pad": "SAME_LOWER"}),
    "SAME_UPPER below stride": ((1, 1, 7, 8), {"kernel_shape": [1, 2], "strides": [2, 3], "auto_pad": "SAME_UPPER"}),
    "1d SAME_LOWER": ((1, 2, 8), {"kernel_shape": [2], "auto_pad": "SAME_LOWER"}),
}  # fmt: skip
_DILATED = {
    "dilated": ((1, 2, 7, 8), {"kernel_shape": [3, 2], "dilations": [2, 3]}),
    "dilated strided": (
        (1, 1, 8, 9),
        {"kernel_shape": [2, 3], "dilations": [3, 2], "strides": [2, 2]},
    ),
    "dilated padded": (
        (1, 2, 6, 7),
        {"kernel_shape": [3, 2], "dilations": [2, 2], "pads": [2, 1, 1, 0]},
    ),
    "dilated ceil": (
        (1, 2, 8, 8),
        {"kernel_shape": [2, 2], "dilations": [2, 3], "strides": [2, 3], "ceil_mode": 1},
    ),
}
# "ceil far": the last window would lie in the padding and is left out, which onnx infers from opset 22 on only.
_OPSETS = {"ceil far": (22, 99), "ceil padded": (17, 19, 99), "padded": (17, 19, 99)}


def _max_pool():
    for label, (shape, attributes) in (_WINDOWS | _DILATED).items():
        x = real(*shape, distinct=True)
        yield Case("MaxPool", label, [x], attributes, _OPSETS.get(label, (17,)))
    for label in ("1d strided", "uneven pads", "3d padded", "SAME_LOWER"):
        shape, attributes = _WINDOWS[label]
        x, given = real(*shape, distinct=True), {**attributes, "storage_order": 1}
        yield Case("MaxPool", f"column-major {label}", [x], given)
    yield Case("MaxPool", "no examples", [real(0, 2, 5)], {"kernel_shape": [2]})
    around = {"kernel_shape": [2], "dilations": [3], "pads": [1, 1]}
    yield Case("MaxPool", "all taps in the padding", [real(2, 2, 2)], around)
    named = {"kernel_shape": [2, 2], "strides": [2, 2]}
    yield Case(
        "MaxPool",
        "with indices",
        [real(2, 3, 4, 5, distinct=True)],
        named,
        (17, 99),
        outputs=2,
        used=1,
    )


def _average_pool():
    for include in (0, 1):
        for label, (shape, attributes) in _WINDOWS.items():
            given = {**attributes, "count_include_pad": include}
            x, opsets = real(*shape, fixed=(1,)), _OPSETS.get(label, (17, 19))
            yield Case("AveragePool", f"{label} include {include}", [x], given, opsets, linear=True)
        for label, (shape, attributes) in _DILATED.items():
            given = {**attributes, "count_include_pad": include}
            x = real(*shape, fixed=(1,))
            yield Case(
                "AveragePool", f"{label} include {include}", [x], given, (19, 99), linear=True
            )

    for label in ("1d strided", "uneven pads", "ceil", "3d padded", "SAME_LOWER 3"):
        shape, attributes = _WINDOWS[label]
        yield Case("AveragePool", f"free channels {label}", [real(*shape)], attributes, linear=True)
    # ONNX Runtime takes part of a window where the input is too small for a whole one.
    for include in (0, 1):
        given = {"kernel_shape": [2, 5], "strides": [2, 3], "count_include_pad": include}
        x, label = real(2, 2, 5, 3), f"window beyond the input, include {include}"
        yield Case("AveragePool", label, [x], given, (17, 19, 99), linear=True)
    for side in ("SAME_UPPER", "SAME_LOWER"):
        given = {"kernel_shape": [3, 2], "strides": [2, 1], "auto_pad": side, "ceil_mode": 1}
        x, label = real(1, 2, 7, 6, fixed=(1,)), f"{side} ceil, include 1"
        yield Case("AveragePool", label, [x], {**given, "count_include_pad": 1}, linear=True)
    around = {"kernel_shape": [2], "dilations": [3], "pads": [1, 1]}
    x = real(2, 2, 2, fixed=(1,))
    yield Case("AveragePool", "all taps in the padding", [x], around, (19, 99), linear=True)
    none = {"kernel_shape": [2, 2], "strides": [2, 1], "pads": [1, 0, 0, 1]}
    yield Case("AveragePool", "no examples", [real(0, 2, 5, 4)], none, linear=True)


def _global_maximum(x):
    return x.max(axis=tuple(range(2, x.ndim)), keepdims=True)


_GLOBAL = [(2, 3, 5), (1, 2, 3, 4), (2, 1, 1, 5), (1, 2, 2, 3, 2), (1, 1, 1, 1), (0, 2, 3)]

CASES = [
    *_max_pool(),
    *_average_pool(),
    *(Case("GlobalAveragePool", f"{shape}", [real(*shape)], linear=True) for shape in _GLOBAL),
    *(
        Case("GlobalMaxPool", f"{shape}", [real(*shape, distinct=True)], formula=_global_maximum)
        for shape in _GLOBAL
    ),
]
