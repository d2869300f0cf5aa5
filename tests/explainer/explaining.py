"""What tests of `Explainer` share: both engines, random arrays, completeness."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import igonnx

__all__ = ["ENGINES", "Build", "assert_complete", "each_engine", "random"]

Build = Callable[..., onnx.ModelProto]
ENGINES = ["native", "reference"]
each_engine = pytest.mark.parametrize("engine", ENGINES)


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Normal numbers, the same for the same seed."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_complete(found: igonnx.Attribution, bound: float = 1e-4) -> None:
    """Sums of values are changes of scores."""
    arrays = list(found.values.values()) if isinstance(found.values, dict) else [found.values]
    sums = sum(array.astype(np.float64).reshape(len(array), -1).sum(axis=1) for array in arrays)
    change = found.scores - found.baseline_scores
    assert np.abs(change).min() > 0
    np.testing.assert_allclose(sums, change, atol=bound * max(1.0, float(np.abs(change).max())))
