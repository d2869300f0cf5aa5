"""A linear model, of which every exact attribution is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

import igonnx

Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture(scope="session")
def slopes() -> Array:
    """The weights of `linear`, [6, 3]."""
    return np.random.default_rng(0).normal(size=(6, 3))


@pytest.fixture(scope="session")
def linear(model: Callable[..., onnx.ModelProto], slopes: Array) -> igonnx.Explainer:
    """y_k = sum over features of x w_k: [N, 6] to [N, 3], in double precision."""
    return igonnx.Explainer(
        model("(double[N, 6] x) => (double[N, 3] y) { y = MatMul(x, w) }", {"w": slopes})
    )


@pytest.fixture(scope="session")
def pictures(model: Callable[..., onnx.ModelProto]) -> igonnx.Explainer:
    """A small convolutional network: [N, 3, 8, 9] to [N, 4]."""
    rng = np.random.default_rng(1)
    weights = {
        "first.weight": rng.normal(size=(5, 3, 3, 3)) / 4,
        "first.bias": rng.normal(size=5) / 4,
        "second.weight": rng.normal(size=(6, 5, 3, 3)) / 5,
        "last.weight": rng.normal(size=(6, 4)),
        "last.bias": rng.normal(size=4),
    }
    text = """(float[N, 3, 8, 9] x) => (float[N, 4] y) {
        a = Conv<pads = [1, 1, 1, 1]>(x, "first.weight", "first.bias")
        b = Relu(a)
        c = Conv(b, "second.weight")
        d = Relu(c)
        e = GlobalAveragePool(d)
        f = Flatten(e)
        g = MatMul(f, "last.weight")
        y = Add(g, "last.bias")
    }"""
    for name in weights:
        text = text.replace(f'"{name}"', name.replace(".", "_"))
    arrays = {name.replace(".", "_"): array.astype(np.float32) for name, array in weights.items()}
    return igonnx.Explainer(model(text, arrays))
