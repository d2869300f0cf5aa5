"""Models that explain themselves, run by onnxruntime-node."""

from __future__ import annotations

import json

import javascript_tools
import numpy as np
import pytest

import igonnx
from igonnx.models import digits

STEPS = 20


@pytest.fixture(scope="module")
def images():
    return digits.test_set()[0][:7]


@pytest.fixture(scope="module")
def explainer():
    return igonnx.Explainer(digits.load(), apply="softmax")


@pytest.fixture
def run(tmp_path):
    def run(model, **feeds):
        """Results of a model by name, and the names of the inputs that onnxruntime-node knows."""
        (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
        tensors = {
            name: {"type": str(value.dtype), "dims": value.shape, "data": value.ravel().tolist()}
            for name, value in feeds.items()
        }
        (tmp_path / "feeds.json").write_text(json.dumps(tensors))
        told = json.loads(
            javascript_tools.node("run_model.mjs", tmp_path / "model.onnx", tmp_path / "feeds.json")
        )
        results = {
            name: np.array(value["data"], value["type"]).reshape(value["dims"])
            for name, value in told["results"].items()
        }
        return results, told["inputs"]

    return run


def test_argmax_is_explained_where_nothing_is_fed(images, explainer, run):
    model = igonnx.augment(digits.load(), steps=STEPS, apply="softmax")
    results, inputs = run(model, image=images)
    expected = explainer.integrated_gradients(images, steps=STEPS)
    assert inputs == ["image"]  # those with a default cannot be fed from JavaScript
    same(results, expected, explainer.predict(images)["logits"])


def test_target_and_baseline(images, explainer, run):
    model = javascript_tools.page_builder().explaining(digits.load(), 0.0, STEPS)
    targets = np.array([3, 1, 4, 1, 5, 9, 2])
    feeds = {"target": targets, "baseline": np.full((1, 1, 1, 1), 0.5, np.float32)}
    results, inputs = run(model, image=images, explain=np.array([True]), **feeds)
    expected = explainer.integrated_gradients(
        images, baseline=0.5, target=targets.tolist(), steps=STEPS
    )
    assert inputs == ["image", "target", "baseline", "explain"]
    same(results, expected, explainer.predict(images)["logits"])


def same(results, expected, logits):
    difference = np.linalg.norm(results["attribution_image"] - expected.values)
    assert difference <= 1e-4 * np.linalg.norm(expected.values)
    np.testing.assert_allclose(results["completeness_delta"], expected.delta, atol=1e-5)
    np.testing.assert_allclose(results["logits"], logits, rtol=1e-5, atol=1e-5)
