"""Gaussian noise made of plain arithmetic."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from augmented_runs import run
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from scipy import stats

from igonnx.augmentation.normal import PRIME, normal_noise
from igonnx.graph.builder import GraphBuilder


def _graph(shape: tuple[int, ...], seed: int) -> ir.Model:
    model = ir.Model(ir.Graph([], [], nodes=[], name="g", opset_imports={"": 17}), ir_version=8)
    op = GraphBuilder(model, scope="test")
    made = normal_noise(op, op.ints(shape), [seed])
    made.name, made.shape = "noise", ir.Shape(shape)
    made.type = ir.TensorType(ir.DataType.FLOAT)
    model.graph.outputs.append(made)
    return model


def _noise(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    return np.asarray(run(ir.to_proto(_graph(shape, seed)), {})["noise"])


def test_its_distribution_is_normal() -> None:
    found = _noise((4, 3, 100, 100))
    assert found.shape == (4, 3, 100, 100)
    assert found.dtype == np.float32
    assert stats.kstest(found.ravel(), "norm").pvalue > 0.01
    assert np.isfinite(found).all()


@pytest.mark.parametrize("lag", [1, 2, 64, 224, PRIME - 1, PRIME, PRIME + 1, 2 * PRIME])
def test_places_are_not_correlated(lag: int) -> None:
    values = _noise((200_000,)).astype(np.float64)
    for powers in (values, values**2):
        correlation = np.corrcoef(powers[:-lag], powers[lag:])[0, 1]
        assert abs(correlation) * np.sqrt(len(values) - lag) < 4  # standard deviations


def test_seeds_are_not_correlated() -> None:
    values = np.stack([_noise((50_000,), seed) for seed in range(4)])
    apart = np.corrcoef(values) - np.eye(4)
    assert np.abs(apart).max() * np.sqrt(50_000) < 4


def test_every_runtime_makes_the_same() -> None:
    model = ir.to_proto(_graph((3, 50), 5))
    (found,) = ReferenceEvaluator(model).run(None, {})
    np.testing.assert_allclose(found, _noise((3, 50), 5), atol=1e-5)


def test_none_at_all() -> None:
    assert _noise((0, 3)).shape == (0, 3)
