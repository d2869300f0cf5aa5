"""Shared by all tests: small ONNX models written down where they are used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

DATA = Path(__file__).parent / "data"

# For toy_graph and busy_engine: importlib mode adds no folder to the path.
sys.path.insert(0, str(Path(__file__).parent))

_ONNX_TYPES = {"float32": "float", "float64": "double"}


def _model(
    text: str,
    weights: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    ir_version: int = 8,
    domains: str = "",
) -> onnx.ModelProto:
    """A checked model from ONNX's text form, "(float[N, 3] x) => (float[N] y) { ... }"; `weights` are initializers."""
    header = f'<ir_version: {ir_version}, opset_import: ["": {opset}{domains}]> main '
    model = onnx.parser.parse_model(header + text)
    for name, array in (weights or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    onnx.checker.check_model(model)
    return model


@pytest.fixture(scope="session", autouse=True)
def _no_cache() -> Iterator[None]:
    """Tests neither read nor write what is remembered on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IGONNX_CACHE_DIR", "off")
        yield


@pytest.fixture(scope="session")
def model() -> Callable[..., onnx.ModelProto]:
    """Builds an ONNX model: model("(float[N, 3] x) => (float[N, 2] y) { y = MatMul(x, w) }", {"w": array})."""
    return _model


@pytest.fixture(scope="session")
def mlp() -> onnx.ModelProto:
    """A smooth little classifier with random weights: x float32 [N, 6] -> logits [N, 4]."""
    rng = np.random.default_rng(5)
    weights = {
        "w1": rng.normal(size=(6, 9)).astype(np.float32),
        "b1": rng.normal(size=9).astype(np.float32),
        "w2": rng.normal(size=(9, 4)).astype(np.float32),
    }
    return _model(
        """(float[N, 6] x) => (float[N, 4] logits) {
            h = Gemm(x, w1, b1)
            t = Tanh(h)
            logits = MatMul(t, w2)
        }""",
        weights,
    )


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of test models."""
    return DATA
