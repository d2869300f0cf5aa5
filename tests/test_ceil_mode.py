"""Pooling windows that would start behind the input are dropped, whatever shape inference counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import igonnx
from igonnx.model import Model

Build = Callable[..., onnx.ModelProto]


@pytest.mark.parametrize("operator", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize(
    ("window", "size", "windows"),
    [
        ("kernel_shape=[1, 1], strides=[2, 2]", 4, 2),  # one too many by the formula
        ("kernel_shape=[1, 1], strides=[2, 2]", 5, 3),
        ("kernel_shape=[2, 2], strides=[3, 3]", 6, 2),
        ("kernel_shape=[2, 2], strides=[2, 2]", 5, 3),  # the last window hangs over, and stays
        ("kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]", 6, 4),
    ],
)
def test_windows(model: Build, operator: str, window: str, size: int, windows: int) -> None:
    proto = model(
        f"""(float[N, 2, {size}, {size}] x) => (float[N, 2, h, w] y) {{
            p = {operator}<{window}, ceil_mode=1>(x)
            y = Mul(p, p)
        }}"""
    )
    pooled = Model.load(proto).find_tensor("p").shape
    assert pooled is not None
    assert list(pooled)[2:] == [windows, windows]
    rng = np.random.default_rng(size)
    x, direction = rng.standard_normal((2, 3, 2, size, size)).astype(np.float32)
    forward = ort.InferenceSession(proto.SerializeToString())
    y = forward.run(None, {"x": x})[0]
    cotangent = rng.standard_normal(y.shape).astype(np.float32)
    graph = ort.InferenceSession(igonnx.gradient(proto).SerializeToString())
    (given,) = graph.run(["grad_x"], {"x": x, "cotangent_y": cotangent})
    step = 1e-3
    ends = [forward.run(None, {"x": x + s * step * direction})[0] for s in (1, -1)]
    expected = float(((ends[0] - ends[1]).astype(np.float64) * cotangent).sum() / (2 * step))
    assert abs(expected - float((given * direction).sum())) < 1e-2 * np.abs(given * direction).sum()
