"""Augmented networks beside `Explainer`: every kind of layer, optimisation level, batch size and chunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from augmented_runs import (
    LEVELS,
    Build,
    assert_as_explained,
    checked,
    distance,
    random,
    run,
    session,
)
from onnx.reference import ReferenceEvaluator

import igonnx
from igonnx.models import digits

NETWORKS = ["bert", "convnext", "mobilenet_v2", "mobilenet_v2_any_size", "resnet", "vit"]


def _examples(path: Path, count: int) -> dict[str, np.ndarray]:
    """`count` examples made of the recorded ones."""
    recorded = np.load(path.with_suffix(".npz"))
    inputs = [entry.name for entry in onnx.load(path).graph.input]
    random = np.random.default_rng(count)
    feeds = {}
    for name in inputs:
        rows = np.resize(recorded[name], (count, *recorded[name].shape[1:]))
        noise = random.normal(size=rows.shape) if rows.dtype == np.float32 else 0
        feeds[name] = (rows + noise).astype(rows.dtype)
    return feeds


@pytest.mark.parametrize("exporter", ["dynamo", "script"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str, exporter: str, data: Path) -> None:
    path = data / f"{name}_{exporter}.onnx"
    model = checked(igonnx.augment(path, steps=8, chunk=3))
    explainer = igonnx.Explainer(path)
    for count in (1, 7):
        feeds = _examples(path, count)
        found = run(model, feeds)
        assert_as_explained(found, explainer.integrated_gradients(feeds, steps=8), explainer.wrt)
        for output, array in run(path, feeds).items():
            np.testing.assert_array_equal(found[output], array)  # to the last bit


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_every_optimisation_level(name: str, level: str, data: Path) -> None:
    path = data / f"{name}_dynamo.onnx"
    feeds = _examples(path, 2)
    found = run(igonnx.augment(path, steps=8, chunk=4), feeds, level)
    explainer = igonnx.Explainer(path)
    assert_as_explained(found, explainer.integrated_gradients(feeds, steps=8), explainer.wrt)
    np.testing.assert_array_equal(found["logits"], run(path, feeds, level)["logits"])


@pytest.mark.parametrize("level", LEVELS)
def test_digits_at_every_optimisation_level(level: str) -> None:
    images, _ = digits.test_set()
    expected = igonnx.Explainer(digits.load()).integrated_gradients(images[:7])
    found = run(igonnx.augment(digits.load()), {"image": images[:7]}, level)
    assert_as_explained(found, expected, ("image",))


@pytest.mark.parametrize("chunk", [1, 3, 10, 100])
@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 20},
        {"steps": 7, "rule": "trapezoid", "apply": "softmax"},
        {"steps": 10, "rule": "right"},
        {"steps": 1, "rule": "left", "apply": "log_softmax"},
    ],
)
def test_the_chunk_changes_nothing(chunk: int, settings: dict[str, Any]) -> None:
    images, _ = digits.test_set()
    options = dict(settings)
    explainer = igonnx.Explainer(digits.load(), apply=options.pop("apply", None))
    model = session(checked(igonnx.augment(digits.load(), chunk=chunk, **settings)))
    for count in (1, 7):
        expected = explainer.integrated_gradients(images[:count], **options)
        names = [output.name for output in model.get_outputs()]
        found = dict(zip(names, model.run(None, {"image": images[:count]}), strict=True))
        assert_as_explained(found, expected, ("image",))


def test_one_chunk_needs_no_loop() -> None:
    def loops(**settings: Any) -> int:
        nodes = igonnx.augment(digits.load(), **settings).graph.node
        return sum(node.op_type == "Loop" for node in nodes)

    assert loops(steps=9, chunk=10) == 0
    assert loops(steps=10, chunk=10) == 1  # the baseline is a point too
    assert loops(steps=9, rule="trapezoid", chunk=10) == 0
    assert loops(method="saliency") == loops(method="input_x_gradient") == 0


@pytest.mark.parametrize("settings", [{}, {"lazy": True}, {"chunk": 100}])
def test_the_reference_evaluator_agrees(settings: dict[str, Any]) -> None:
    images, _ = digits.test_set()
    model = igonnx.augment(digits.load(), steps=6, **{"chunk": 3, **settings})
    feeds: dict[str, np.ndarray] = {"image": images[:2]}
    # It wants every input, also those with a default.
    feeds |= {"target": np.array([-1]), "baseline": np.zeros((1, 1, 1, 1), np.float32)}
    if "lazy" in settings:
        feeds["explain"] = np.array([True])
    names = [output.name for output in model.graph.output]
    found = dict(zip(names, ReferenceEvaluator(model).run(None, feeds), strict=True))
    expected = igonnx.Explainer(digits.load()).integrated_gradients(images[:2], steps=6)
    assert_as_explained(found, expected, ("image",))


@pytest.mark.parametrize("method", ["saliency", "input_x_gradient"])
def test_one_gradient(method: str) -> None:
    images, _ = digits.test_set()
    expected = getattr(igonnx.Explainer(digits.load()), method)(images[:7])
    found = run(checked(igonnx.augment(digits.load(), method=method)), {"image": images[:7]})
    assert_as_explained(found, expected, ("image",))


def test_noise_of_no_width_leaves_integrated_gradients() -> None:
    images, _ = digits.test_set()
    model = igonnx.augment(
        digits.load(), method="smoothgrad_ig", noise_std=0.0, noise_samples=3, steps=10, chunk=4
    )
    expected = igonnx.Explainer(digits.load()).integrated_gradients(images[:2], steps=10)
    assert_as_explained(run(checked(model), {"image": images[:2]}), expected, ("image",))


@pytest.mark.parametrize("noise_std", [None, 0.3])
def test_smoothgrad(noise_std: float | None) -> None:
    """The mean over many noisy copies, near that of other draws, and nearer than without noise."""
    images, _ = digits.test_set()
    settings = {"noise_samples": 400, "noise_std": noise_std, "steps": 8}
    expected = igonnx.Explainer(digits.load()).smoothgrad_ig(images[:2], **settings)
    plain = igonnx.Explainer(digits.load()).integrated_gradients(images[:2], steps=8)
    model = igonnx.augment(digits.load(), method="smoothgrad_ig", chunk=9, **settings)
    found = run(checked(model), {"image": images[:2]})["attribution_image"]
    assert distance(found, expected.values) < min(0.2, distance(plain.values, expected.values) / 2)
    opened = session(model)
    for _ in range(2):
        (again,) = opened.run(["attribution_image"], {"image": images[:2]})
        np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize("opset", [17, 21, 22, 23])
def test_noise_in_every_opset(model: Build, opset: int) -> None:
    """ONNX Runtime draws no numbers by the operators of opset 22 and up."""
    graph = model("(float[N, 3] x) => (float[N, 3] y) { y = Sin(x) }", opset=opset)
    settings = {"steps": 6, "noise_std": 0.5, "noise_samples": 2000, "target": 1}
    x = random(2, 3)
    found = run(igonnx.augment(graph, method="smoothgrad_ig", **settings), {"x": x})
    target = settings.pop("target")
    expected = igonnx.Explainer(graph).smoothgrad_ig(x, target=target, **settings)
    assert distance(found["attribution_x"], expected.values) < 0.1


def test_noise_depends_on_the_seed_and_the_input() -> None:
    images, _ = digits.test_set()
    settings = {"method": "smoothgrad_ig", "steps": 4, "noise_samples": 1}
    found = [
        run(igonnx.augment(digits.load(), seed=seed, **settings), {"image": images[:1]})
        for seed in (0, 0, 1)
    ]
    first, same, other = (one["attribution_image"] for one in found)
    np.testing.assert_array_equal(first, same)
    assert distance(other, first) > 0.05
