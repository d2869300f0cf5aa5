"""Normalisation layers."""

from __future__ import annotations

import numpy as np

from rule_cases.case import Case, constant, held, real


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
    yield _layer("no examples", [real(0, 2, 3), real(3), real(3)])
    yield _layer("one scale", [real(2, 3, 4, distinct=True), constant([0.7]), constant([0.1])])


def _instance(x, scale, bias, epsilon=1e-5):
    axes = tuple(range(2, x.ndim))
    centred = x - x.mean(axis=axes, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=axes, keepdims=True) + epsilon)
    columns = (-1, *[1] * len(axes))
    return centred / deviation * scale.reshape(columns) + bias.reshape(columns)


def _instance_normalization():
    for shape in [(2, 3, 5), (1, 2, 3, 4), (2, 1, 2, 2, 3), (0, 2, 3)]:
        for kind, made in (("held", held), ("all", real)):
            inputs = [real(*shape), made(shape[1]), made(shape[1])]
            given, label = {"epsilon": 0.05}, f"{shape} {kind}"
            yield Case("InstanceNormalization", label, inputs, given, formula=_instance)
    inputs = [real(2, 2, 6, distinct=True), held(2), held(2)]
    yield Case("InstanceNormalization", "default", inputs, formula=_instance)


def _lrn():
    # onnxruntime takes images and odd sizes only.
    for shape, size in [((2, 5, 1, 3), 3), ((1, 3, 2, 2), 5), ((1, 1, 2, 2), 3), ((2, 4, 2, 1), 1)]:
        strong = {"size": size, "alpha": 0.5, "beta": 0.6, "bias": 1.3}
        x, label = real(*shape, high=3), f"{shape} size {size}"
        yield Case("LRN", label, [x], strong, (17, 99), formula=response)
        yield Case("LRN", f"{label} default", [x], {"size": size}, (17,), formula=response)


def response(x, size, alpha=1e-4, beta=0.75, bias=1.0):
    channels = range(x.shape[1])
    squares = [
        (x[:, max(c - (size - 1) // 2, 0) : c + size // 2 + 1] ** 2).sum(axis=1) for c in channels
    ]
    return x / (bias + alpha / size * np.stack(squares, axis=1)) ** beta


CASES = [
    *_instance_normalization(),
    *_layer_normalization(),
    *_lrn(),
]
