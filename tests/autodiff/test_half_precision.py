"""Half precision runs on the CPU where gradients add up in one place, and agrees with float32."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from rule_cases.check import session

import igonnx

_GRAPHS = {
    "MaxPool": ("REAL[N,2,7,6] x", "p = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (x)"),
    "GlobalMaxPool": ("REAL[N,2,7,6] x", "p = GlobalMaxPool(x)"),
    "LpPool": ("REAL[N,2,7,6] x", "p = LpPool <kernel_shape = [1, 2], p = 4> (x)"),
    "GlobalLpPool": ("REAL[N,2,7,6] x", "p = GlobalLpPool <p = 3> (x)"),
    "Gather": ("REAL[N,5] x", "p = Gather <axis = 1> (x, places)"),
    "Slice": ("REAL[N,7] x", "p = Slice(x, one, far, one, two)"),
    "Pad": ("REAL[N,5] x", "p = Pad <mode = 'reflect'> (x, pads)".replace("'", '"')),
    "ReduceL2": ("REAL[N,5] x", "p = ReduceL2 <axes = [1]> (x)"),
}
_STORED = """int64[2,2] places = {3, 0, 3, 3}, int64[1] one = {1}, int64[1] two = {2}, int64[1] far = {99},
    int64[4] pads = {0, 2, 0, 3}"""


def _gradient(case: str, dtype: str, x: np.ndarray, weights: np.ndarray | None):
    signature, body = _GRAPHS[case]
    axes = ", ".join("abcd"[: 4 if "Pool" in case else 3 if case == "Gather" else 2])
    text = (
        f'<ir_version: 8, opset_import: ["" : 17]> g ({signature}) => (REAL[{axes}] y)'
        f" <{_STORED}> {{ {body} y = Mul(p, p) }}"
    )
    proto = onnx.parser.parse_model(text.replace("REAL", dtype))
    (y,) = session(proto).run(["y"], {"x": x})
    weights = np.random.default_rng(1).standard_normal(y.shape) if weights is None else weights
    runtime = session(igonnx.gradient(proto))
    (gradient,) = runtime.run(["grad_x"], {"x": x, "cotangent_y": weights.astype(x.dtype)})
    return gradient, weights


@pytest.mark.parametrize("case", _GRAPHS)
def test_agrees_with_float32(case: str):
    rng = np.random.default_rng(0)
    shape = (2, 2, 7, 6) if "Pool" in case else (2, 7) if case == "Slice" else (2, 5)
    # Distinct maxima, and exact in half precision.
    x = rng.permutation(int(np.prod(shape))).reshape(shape).astype(np.float16) / 64 - 0.5
    x = x.astype(np.float16)
    half, weights = _gradient(case, "float16", x, None)
    weights = weights.astype(np.float16).astype(np.float32)
    single, _ = _gradient(case, "float", x.astype(np.float32), weights)
    assert half.dtype == np.float16
    assert np.any(single != 0)
    np.testing.assert_allclose(half, single, rtol=4e-3, atol=4e-3)


def test_many_terms_in_one_place():
    """4,096 ones are more than half precision can count one by one."""
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float16[3] x, int64[n] i) => (float16[n] y)'
        " { y = Gather(x, i) }"
    )
    feeds = {"x": np.zeros(3, np.float16), "i": np.ones(4096, np.int64)}
    runtime = session(igonnx.gradient(proto))
    (gradient,) = runtime.run(["grad_x"], {**feeds, "cotangent_y": np.ones(4096, np.float16)})
    np.testing.assert_array_equal(gradient, [0, 4096, 0])
