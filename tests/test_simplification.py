"""Folding batch normalisation: the same function with fewer nodes, and hands off where it would not be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray

from igonnx.model import Model
from igonnx.simplification import simplified

Build = Callable[..., onnx.ModelProto]


def _parameters(channels: int, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    return {
        "scale": rng.normal(size=channels).astype(np.float32),
        "shift": rng.normal(size=channels).astype(np.float32),
        "mean": rng.normal(size=channels).astype(np.float32),
        "var": rng.uniform(0.5, 2, channels).astype(np.float32),
    }


def _run(model: ir.Model, x: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"x": x}), strict=True))


def _operators(model: Model) -> list[str]:
    return [node.op_type for node in model.ir.graph]


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_folding_keeps_the_function(model: Build, group: int, bias: bool) -> None:
    rng = np.random.default_rng(group + 2 * bias)
    weights = {
        "w": rng.normal(size=(6, 4 // group, 3, 3)).astype(np.float32),
        **_parameters(6, rng),
    }
    if bias:
        weights["b"] = rng.normal(size=6).astype(np.float32)
    source = model(
        f"""(float[N, 4, 7, 9] x) => (float[N, 6, 5, 7] y) {{
            c = Conv<group = {group}>(x, w{", b" if bias else ""})
            n = BatchNormalization<epsilon = 0.01>(c, scale, shift, mean, var)
            y = Relu(n)
        }}""",
        weights,
    )
    loaded = Model.load(source)
    folded = simplified(loaded, keep=[])
    assert _operators(folded) == ["Conv", "Relu"]
    assert _operators(loaded) == ["Conv", "BatchNormalization", "Relu"], "the original stays"
    x = rng.normal(size=(3, 4, 7, 9)).astype(np.float32)
    expected = _run(loaded.ir, x)["y"]
    np.testing.assert_allclose(_run(folded.ir, x)["y"], expected, rtol=1e-5, atol=1e-5)


TWICE_USED = """(float[N, 4, 7, 9] x) => (float[N, 6, 5, 7] y) {
    c = Conv(x, w)
    n = BatchNormalization(c, scale, shift, mean, var)
    y = Add(n, c)
}"""
COMPUTED = """(float[N, 4, 7, 9] x) => (float[N, 6, 5, 7] y) {
    c = Conv(x, w)
    m = ReduceSum<keepdims = 0>(c, axes)
    n = BatchNormalization(c, scale, m, mean, var)
    y = Relu(n)
}"""
ALONE = """(float[N, 6, 5, 7] x) => (float[N, 6, 5, 7] y) {
    r = Relu(x)
    y = BatchNormalization(r, scale, shift, mean, var)
}"""


@pytest.mark.parametrize("text", [TWICE_USED, COMPUTED, ALONE])
def test_what_cannot_be_folded_stays(model: Build, text: str) -> None:
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(6, 4, 3, 3)).astype(np.float32),
        "axes": np.array([0, 2, 3]),
        **_parameters(6, rng),
    }
    folded = simplified(
        Model.load(model(text, {k: v for k, v in weights.items() if k in text})), keep=[]
    )
    assert "BatchNormalization" in _operators(folded)


@pytest.mark.parametrize("kept", ["c", "n"])
def test_tensors_to_explain_stay_as_they_are(model: Build, kept: str) -> None:
    rng = np.random.default_rng(1)
    source = model(
        """(float[N, 4, 7, 9] x) => (float[N, 6, 5, 7] y) {
            c = Conv(x, w)
            n = BatchNormalization(c, scale, shift, mean, var)
            y = Relu(n)
        }""",
        {"w": rng.normal(size=(6, 4, 3, 3)).astype(np.float32), **_parameters(6, rng)},
    )
    assert "BatchNormalization" in _operators(simplified(Model.load(source), keep=[kept]))
