"""Normalisation layers."""

from __future__ import annotations

import numpy as np

from rule_cases.case import Case, constant, held, real


def _batch_normalization(shape, **attributes):
    channels = shape[1]
    parameters = [held(channels), held(channels), held(channels), held(channels, low=0.3, high=2)]
    return Case(
        "BatchNormalization",
        f"{shape} {attributes or ''}".strip(),
        [real(*shape, fixed=(1,)), *parameters],
        attributes,
        (17, 99),
    )


def _layer(label, inputs, attributes=None):
    # The mean and the deviation are float32 (stash_type) whatever the input is.
    return Case("LayerNormalization", label, inputs, attributes or {}, tolerance=2e-5)


def _layer_normalization():
    for shape, axis in [
        ((2, 5), -1),
        ((2, 3, 4), -1),
        ((2, 3, 4), 1),
        ((2, 3, 4), -2),
        ((1, 2, 2, 4), 3),
        ((5,), 0),
    ]:
        inner = shape[axis:]
        x = real(*shape)
        # Of a few values that happen to lie close together, the slope is too steep for differences.
        label, given = f"{shape} axis {axis}", {"axis": axis, "epsilon": 0.02}
        yield _layer(f"{label} held", [x, held(*inner), held(*inner)], given)
        yield _layer(f"{label} all", [x, real(*inner), real(*inner)], given)
        yield _layer(f"{label} no bias", [x, held(*inner)], {**given, "epsilon": 0.1})
    yield _layer("defaults", [real(2, 3, 4, distinct=True), held(4), held(4)])
    yield _layer("one scale", [real(2, 3, 4, distinct=True), constant([0.7]), constant([0.1])])


def _lrn():
    # onnxruntime takes images and odd sizes only.
    for shape, size in [((2, 5, 1, 3), 3), ((1, 3, 2, 2), 5), ((1, 1, 2, 2), 3), ((2, 4, 2, 1), 1)]:
        strong = {"size": size, "alpha": 0.5, "beta": 0.6, "bias": 1.3}
        x, label = real(*shape, high=3), f"{shape} size {size}"
        yield Case("LRN", label, [x], strong, (17, 99), formula=_response)
        yield Case("LRN", f"{label} default", [x], {"size": size}, (17,), formula=_response)


def _response(x, size, alpha=1e-4, beta=0.75, bias=1.0):
    channels = range(x.shape[1])
    squares = [
        (x[:, max(c - (size - 1) // 2, 0) : c + size // 2 + 1] ** 2).sum(axis=1) for c in channels
    ]
    return x / (bias + alpha / size * np.stack(squares, axis=1)) ** beta


CASES = [
    _batch_normalization((2, 3, 4, 5)),
    _batch_normalization((2, 3)),
    _batch_normalization((1, 4, 3)),
    _batch_normalization((1, 2, 2, 3, 2)),
    _batch_normalization((2, 3, 2, 2), epsilon=0.2),
    *_layer_normalization(),
    *_lrn(),
]
