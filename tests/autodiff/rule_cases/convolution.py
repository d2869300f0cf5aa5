"""Conv and ConvTranspose: groups, strides, dilations, paddings, one to three dimensions."""

from __future__ import annotations

import numpy as np

from rule_cases.case import Case, fed, held, real

# label: (input [N, C, ...], weight [O, C / group, ...], attributes)
_CONV = {
    "1d": ((2, 3, 7), (4, 3, 3), {}),
    "1d strided": ((1, 2, 9), (3, 2, 3), {"strides": [2]}),
    "1d stride 3 pads": ((2, 2, 8), (3, 2, 4), {"strides": [3], "pads": [2, 1]}),
    "1d dilated and strided": ((1, 2, 11), (2, 2, 3), {"strides": [2], "dilations": [2], "pads": [1, 2]}),
    "pointwise": ((2, 3, 4, 5), (4, 3, 1, 1), {}),
    "3x3": ((2, 2, 5, 6), (3, 2, 3, 3), {}),
    "3x3 padded": ((1, 2, 5, 4), (3, 2, 3, 3), {"pads": [1, 1, 1, 1]}),
    "asymmetric pads": ((1, 2, 5, 4), (3, 2, 3, 2), {"pads": [0, 2, 1, 0]}),
    "uneven kernel": ((1, 2, 4, 7), (3, 2, 1, 5), {"pads": [0, 2, 0, 2]}),
    "even kernel": ((1, 1, 6, 5), (2, 1, 4, 2), {"pads": [1, 0, 2, 1]}),
    "pads beyond reach": ((1, 1, 3, 4), (2, 1, 2, 2), {"pads": [3, 2, 2, 4]}),
    "pads beyond reach strided": ((1, 1, 3, 4), (2, 1, 2, 2), {"pads": [5, 2, 3, 4], "strides": [2, 3]}),
    "pads beyond reach 1x1": ((1, 2, 3, 3), (2, 2, 1, 1), {"pads": [1, 2, 2, 1]}),
    "1x1 pads strided": ((1, 2, 4, 5), (2, 2, 1, 1), {"pads": [1, 2, 2, 1], "strides": [2, 3]}),
    "stride 2": ((2, 2, 6, 6), (3, 2, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "stride 2 odd": ((1, 2, 7, 5), (3, 2, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "stride 2 even kernel": ((1, 2, 8, 7), (2, 2, 2, 2), {"strides": [2, 2]}),
    "stride 3": ((1, 2, 8, 10), (3, 2, 3, 3), {"strides": [3, 3]}),
    "stride per axis": ((1, 2, 7, 8), (3, 2, 3, 3), {"strides": [1, 3], "pads": [1, 0, 1, 2]}),
    "stride per axis 2": ((1, 2, 7, 8), (3, 2, 2, 4), {"strides": [3, 2], "pads": [0, 1, 1, 2]}),
    "patches": ((2, 3, 8, 8), (4, 3, 4, 4), {"strides": [4, 4]}),
    "patches with a rest": ((1, 3, 9, 11), (4, 3, 4, 4), {"strides": [4, 4]}),
    "kernel below stride": ((1, 2, 7, 8), (2, 2, 1, 1), {"strides": [2, 2]}),
    "kernel below stride 3": ((1, 2, 9, 8), (2, 2, 2, 1), {"strides": [3, 3], "pads": [1, 0, 0, 0]}),
    "kernel below stride rest": ((1, 1, 11, 10), (2, 1, 2, 2), {"strides": [3, 4]}),
    "unused end": ((1, 2, 8, 6), (2, 2, 3, 3), {"strides": [2, 2]}),
    "far unused end": ((1, 1, 9, 9), (2, 1, 2, 3), {"strides": [5, 4]}),
    "one output": ((1, 2, 3, 3), (2, 2, 3, 3), {"strides": [2, 2]}),
    "dilated": ((1, 2, 7, 8), (3, 2, 3, 3), {"dilations": [2, 3]}),
    "dilated padded": ((1, 2, 6, 5), (3, 2, 3, 2), {"dilations": [2, 2], "pads": [2, 1, 2, 0]}),
    "dilated strided": ((1, 2, 9, 9), (3, 2, 3, 3), {"dilations": [2, 2], "strides": [2, 2], "pads": [2, 2, 2, 2]}),
    "dilated strided uneven": (
        (1, 2, 9, 10), (2, 2, 3, 2), {"dilations": [2, 3], "strides": [3, 2], "pads": [1, 0, 2, 3]},
    ),
    "dilated one axis, strided other": ((1, 2, 7, 8), (2, 2, 3, 3), {"dilations": [2, 1], "strides": [1, 2]}),
    "dilation equals stride": ((1, 1, 8, 8), (2, 1, 2, 2), {"dilations": [3, 2], "strides": [3, 2]}),
    "groups": ((2, 4, 5, 4), (6, 2, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "groups strided": ((1, 6, 5, 6), (3, 2, 3, 2), {"group": 3, "strides": [2, 2], "pads": [1, 0, 1, 1]}),
    "depthwise": ((2, 3, 5, 5), (3, 1, 3, 3), {"group": 3, "pads": [1, 1, 1, 1]}),
    "depthwise strided": ((1, 3, 6, 7), (3, 1, 3, 3), {"group": 3, "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "depthwise stride 3": ((1, 3, 7, 8), (3, 1, 2, 3), {"group": 3, "strides": [3, 3]}),
    "depthwise multiplier": ((1, 2, 5, 6), (6, 1, 3, 3), {"group": 2, "strides": [2, 1], "pads": [1, 1, 1, 1]}),
    "depthwise dilated": ((1, 2, 7, 7), (2, 1, 3, 3), {"group": 2, "dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    "3d": ((1, 2, 3, 4, 3), (2, 2, 2, 3, 2), {}),
    "3d strided": ((1, 2, 4, 5, 4), (2, 2, 2, 3, 3), {"strides": [2, 2, 2], "pads": [0, 1, 1, 0, 1, 1]}),
    "3d uneven": (
        (1, 2, 4, 5, 5), (2, 1, 2, 3, 2),
        {"strides": [1, 2, 3], "dilations": [2, 1, 2], "group": 2, "pads": [1, 0, 0, 0, 1, 2]},
    ),
}  # fmt: skip
_SAME = {
    "3x3": ((1, 2, 5, 6), (2, 2, 3, 3), {}),
    "even": ((1, 2, 5, 6), (2, 2, 2, 4), {}),
    "stride 2": ((1, 2, 7, 6), (2, 2, 3, 3), {"strides": [2, 2]}),
    "stride 2 even": ((1, 2, 7, 6), (2, 2, 4, 2), {"strides": [2, 2]}),
    "stride 3": ((1, 2, 7, 8), (2, 2, 5, 3), {"strides": [3, 2]}),
    "kernel below stride": ((1, 2, 7, 8), (2, 2, 1, 2), {"strides": [2, 3]}),
    "depthwise": ((2, 3, 6, 5), (3, 1, 3, 3), {"strides": [2, 2], "group": 3}),
    "1d": ((1, 2, 8), (2, 2, 4), {"strides": [3]}),
}


def _input(shape):
    """The input, with the channels known in every layout."""
    return real(*shape, fixed=(1,))


def _conv():
    for label, (x, w, attributes) in _CONV.items():
        opsets = (17, 99) if label in ("3x3", "stride 2", "3d strided") else (17,)
        yield Case("Conv", label, [_input(x), held(*w)], attributes, opsets, linear=True)
    for pad in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        for label, (x, w, attributes) in _SAME.items():
            given = {**attributes, "auto_pad": pad}
            yield Case("Conv", f"{pad} {label}", [_input(x), held(*w)], given, (17,), linear=True)
    pads = {"auto_pad": "NOTSET", "pads": [1, 0, 1, 2], "kernel_shape": [3, 3]}
    yield Case("Conv", "NOTSET", [_input((1, 2, 5, 4)), held(2, 2, 3, 3)], pads, (17,), linear=True)
    free = [real(2, 2, 5, 6), held(3, 2, 3, 3)]
    yield Case(
        "Conv", "free channels", free, {"strides": [2, 1], "pads": [1, 1, 1, 1]}, linear=True
    )
    bias = [_input((2, 2, 5, 4)), held(3, 2, 3, 3), real(3)]
    yield Case("Conv", "bias", bias, {"strides": [2, 1]}, (17, 99), linear=True)


def _filters(label, x, w, attributes, opsets=(17,)):
    """By the weights and the input, with the weights' sizes known, their channels unknown, and nothing known."""
    spatial = tuple(range(2, len(w)))
    for name, fixed in (("", (0, 1, *spatial)), ("free channels ", spatial), ("free ", ())):
        weights = real(*w, fixed=fixed)
        yield f"{name}{label}", [_input(x), weights], attributes, opsets


def _conv_filters():
    for label, (x, w, attributes) in _CONV.items():
        opsets = (17, 99) if label == "3x3" else (17,)
        for name, inputs, given, at in _filters(label, x, w, attributes, opsets):
            yield Case("Conv", f"filters {name}", inputs, given, at, linear=True)
    for pad in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        for label in ("stride 2 even", "even", "depthwise"):
            x, w, attributes = _SAME[label]
            for name, inputs, given, at in _filters(label, x, w, attributes):
                given = {**given, "auto_pad": pad}
                yield Case("Conv", f"filters {pad} {name}", inputs, given, at, linear=True)
    stated = {"kernel_shape": [3, 2], "strides": [2, 1], "auto_pad": "SAME_LOWER"}
    inputs = [real(2, 2, 5, 4), real(3, 2, 3, 2), real(3)]
    yield Case("Conv", "filters all free, kernel stated", inputs, stated, linear=True)
    grouped = [real(2, 4, 5, 4), real(2, 2, 3, 2)]
    yield Case("Conv", "filters all free, groups", grouped, {"group": 2}, linear=True)
    strided = {"strides": [2, 2], "pads": [1, 1, 0, 0]}
    yield Case(
        "Conv", "no examples", [_input((0, 2, 5, 4)), held(3, 2, 3, 3)], strided, linear=True
    )
    for x in ((0, 2, 5, 4), (0, 4, 5)):
        inputs = [fed(np.zeros(x)), real(2, 2, *(2,) * (len(x) - 2))]
        given = {"group": x[1] // 2, "strides": [2] * (len(x) - 2)}
        yield Case("Conv", f"filters no examples {x}", inputs, given, linear=True)


_TRANSPOSED = {
    "plain": ((1, 2, 3, 4), (2, 3, 3, 3), {}),
    "strided": ((2, 2, 3, 4), (2, 3, 2, 2), {"strides": [2, 2]}),
    "padded": ((1, 2, 4, 3), (2, 3, 3, 3), {"strides": [2, 1], "pads": [1, 0, 1, 2]}),
    "output padding": ((1, 2, 3, 3), (2, 1, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    "dilated": ((1, 2, 3, 4), (2, 2, 2, 3), {"dilations": [2, 1], "strides": [1, 3]}),
    "groups": ((1, 4, 3, 3), (4, 3, 2, 2), {"group": 2, "strides": [2, 2]}),
    "depthwise": ((2, 3, 3, 3), (3, 1, 3, 3), {"group": 3, "strides": [2, 2]}),
    "1d": ((2, 2, 5), (2, 3, 4), {"strides": [3], "pads": [1, 1]}),
    "3d": ((1, 2, 2, 3, 2), (2, 2, 2, 2, 3), {"strides": [2, 1, 2]}),
    "stride rest": ((1, 1, 4, 3), (1, 2, 2, 3), {"strides": [3, 2], "output_padding": [2, 1]}),
    "dilated padded": ((1, 2, 4, 3), (2, 1, 3, 2), {"dilations": [2, 3], "pads": [1, 2, 0, 1]}),
    "VALID": ((1, 2, 3, 4), (2, 3, 3, 3), {"strides": [2, 1], "auto_pad": "VALID"}),
    "SAME_UPPER": ((1, 2, 3, 4), (2, 3, 4, 5), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "SAME_LOWER": ((1, 2, 3, 4), (2, 3, 4, 5), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "SAME_UPPER groups": (
        (1, 4, 3, 3), (4, 1, 3, 4),
        {"strides": [1, 3], "auto_pad": "SAME_UPPER", "group": 2},
    ),
    "SAME_LOWER dilated": ((1, 2, 5, 4), (2, 1, 3, 2), {"dilations": [2, 3], "auto_pad": "SAME_LOWER"}),
    "output shape": ((1, 2, 3, 4), (2, 3, 4, 5), {"strides": [2, 2], "output_shape": [7, 8]}),
    "output shape and padding": (
        (1, 2, 3, 4), (2, 3, 4, 5), {"strides": [2, 2], "output_shape": [8, 8], "output_padding": [1, 0]},
    ),
    "output shape SAME_UPPER": (
        (1, 2, 3, 4), (2, 3, 4, 5), {"strides": [2, 2], "output_shape": [7, 8], "auto_pad": "SAME_UPPER"},
    ),
    "output shape SAME_LOWER": (
        (1, 2, 3), (2, 3, 5), {"strides": [2], "output_shape": [6], "auto_pad": "SAME_LOWER"},
    ),
}  # fmt: skip


def _conv_transpose():
    for label, (x, w, attributes) in _TRANSPOSED.items():
        opsets = (17, 99) if label in ("plain", "3d", "output shape", "SAME_UPPER") else (17,)
        yield Case("ConvTranspose", label, [_input(x), held(*w)], attributes, opsets, linear=True)
        for name, inputs, given, at in _filters(label, x, w, attributes, opsets):
            yield Case("ConvTranspose", f"filters {name}", inputs, given, at, linear=True)
    bias = [real(2, 2, 3, 3), real(2, 3, 2, 2), real(3)]
    yield Case("ConvTranspose", "bias", bias, {"strides": [2, 2]}, linear=True)
    none = [fed(np.zeros((0, 2, 3, 3))), real(2, 3, 2, 2)]
    yield Case("ConvTranspose", "no examples", none, {"strides": [2, 2]}, linear=True)


CASES = [*_conv(), *_conv_filters(), *_conv_transpose()]
