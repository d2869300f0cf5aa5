"""Running small models; makes the modules beside this file importable (importlib mode adds no folder to the path)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))

Run = Callable[[onnx.ModelProto, Mapping[str, NDArray[Any]]], "list[NDArray[Any]]"]


@pytest.fixture(scope="session")
def run() -> Run:
    """The outputs of a model in onnxruntime as it is written: no QDQ pair is fused."""

    def compute(model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return [np.asarray(value) for value in session.run(None, dict(feeds))]

    return compute
