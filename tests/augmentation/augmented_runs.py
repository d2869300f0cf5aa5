"""What tests of augmented models share: running them by a bare runtime, and comparing with `Explainer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

import igonnx

__all__ = [
    "LEVELS",
    "Arrays",
    "Build",
    "assert_as_explained",
    "checked",
    "distance",
    "random",
    "run",
    "session",
]

Arrays = Mapping[str, NDArray[Any]]
Build = Callable[..., onnx.ModelProto]
Source = onnx.ModelProto | bytes | Path | str

LEVELS = {
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Normal numbers, the same for the same seed."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def checked(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, which ONNX's checker has found in order."""
    onnx.checker.check_model(model, full_check=True)
    return model


def session(model: Source, level: str = "all") -> onnxruntime.InferenceSession:
    """A session on a stock runtime, which says nothing of initializers that are inputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = LEVELS[level]
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    return onnxruntime.InferenceSession(
        str(source) if isinstance(source, Path) else source,
        options,
        providers=["CPUExecutionProvider"],
    )


def run(model: Source, feeds: Arrays, level: str = "all") -> dict[str, NDArray[Any]]:
    """All outputs by name."""
    opened = session(model, level)
    names = [output.name for output in opened.get_outputs()]
    return dict(zip(names, opened.run(None, dict(feeds)), strict=True))


def distance(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Relative L2 distance."""
    assert found.shape == expected.shape
    scale = float(np.linalg.norm(expected.astype(np.float64)))
    return float(np.linalg.norm(found.astype(np.float64) - expected)) / scale


def assert_as_explained(
    found: Arrays, expected: igonnx.Attribution, wrt: tuple[str, ...], bound: float = 1e-4
) -> None:
    """The outputs of an augmented model are those of an explainer."""
    for name in wrt:
        assert distance(found[f"attribution_{name}"], expected.of(name)) <= bound
    scale = 1 + float(np.abs(expected.scores - expected.baseline_scores).max())
    np.testing.assert_allclose(found["completeness_delta"], expected.delta, atol=bound * scale)
