"""Metrics of Quantus on an ONNX model; skipped where Quantus is not installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import special

import igonnx

quantus = pytest.importorskip("quantus")
bridge = pytest.importorskip("igonnx.quantus")

Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture
def x() -> Array:
    return np.random.default_rng(2).normal(size=(4, 3, 8, 9)).astype(np.float32)


@pytest.fixture
def y(pictures: igonnx.Explainer, x: Array) -> Array:
    return np.asarray(pictures.predict(x)["y"].argmax(axis=1))


SETTINGS = {"disable_warnings": True, "display_progressbar": False}


@pytest.mark.parametrize(
    "metric",
    [
        lambda: quantus.FaithfulnessCorrelation(
            nr_runs=10, subset_size=20, return_aggregate=False, **SETTINGS
        ),
        lambda: quantus.PixelFlipping(features_in_step=18, **SETTINGS),
        lambda: quantus.MaxSensitivity(nr_samples=3, **SETTINGS),
        lambda: quantus.Sparseness(**SETTINGS),
        lambda: quantus.RandomLogit(num_classes=4, **SETTINGS),
        lambda: quantus.RelativeOutputStability(nr_samples=3, **SETTINGS),
        lambda: quantus.RelativeRepresentationStability(nr_samples=3, **SETTINGS),
    ],
)
def test_metrics_of_every_kind(metric: Any, pictures: igonnx.Explainer, x: Array, y: Array) -> None:
    scores = bridge.evaluate(
        metric(), pictures, x, y, method="integrated_gradients", options={"steps": 8}
    )
    flat = np.array([np.ravel(score) for score in scores], dtype=float)
    assert len(flat) == 4
    assert np.isfinite(flat).all()


def test_completeness_is_what_integrated_gradients_promise(
    pictures: igonnx.Explainer, x: Array, y: Array
) -> None:
    metric = quantus.Completeness(abs=False, normalise=False, output_func=lambda v: v, **SETTINGS)
    found = bridge.evaluate(
        metric, pictures, x, y, options={"steps": 400, "rule": "middle", "baseline": 0.0}
    )
    attribution = pictures.integrated_gradients(
        x, target=[int(k) for k in y], steps=400, rule="middle"
    )
    again = bridge.evaluate(metric, pictures, x, y, attribution=attribution)
    np.testing.assert_array_equal(found, again)


def test_randomised_layers(pictures: igonnx.Explainer, x: Array, y: Array) -> None:
    metric = quantus.MPRT(
        layer_order="top_down", seed=3, return_average_correlation=False, **SETTINGS
    )
    scores = bridge.evaluate(metric, pictures, x, y, method="saliency")
    assert list(scores) == ["original", "last_weight", "second_weight", "first_weight"]
    np.testing.assert_allclose(scores["original"], 1, atol=1e-6)
    assert (np.array(scores["first_weight"]) < 0.9).all()


def test_a_shift_of_the_input_is_undone_by_the_first_layer(
    pictures: igonnx.Explainer, x: Array, y: Array
) -> None:
    """Quantus' InputInvariance leaves the first pixel where it is: here all are shifted."""
    shifted = bridge.OnnxModel(pictures).add_mean_shift_to_first_layer(-1.5, x[:1].shape)
    moved = x - np.float32(1.5)
    np.testing.assert_allclose(shifted.predict(moved)["y"], pictures.predict(x)["y"], rtol=1e-4)
    assert np.abs(shifted.predict(x)["y"] - pictures.predict(x)["y"]).max() > 1e-3
    one, other = (
        bridge.explain(e, z, y, method="saliency") for e, z in ((pictures, x), (shifted, moved))
    )
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)
    metric = quantus.InputInvariance(abs=False, normalise=False, **SETTINGS)
    found = bridge.evaluate(metric, pictures, x, y, method="input_x_gradient")
    assert not np.any(found)  # the input is in it


def test_the_model_as_quantus_sees_it(pictures: igonnx.Explainer, x: Array) -> None:
    seen = bridge.OnnxModel(pictures)
    logits = pictures.predict(x)["y"]
    np.testing.assert_array_equal(seen.predict(x), logits)
    np.testing.assert_array_equal(seen.predict(x.astype(np.float64)), logits)
    softmax = bridge.OnnxModel(pictures, softmax=True).predict(x)
    np.testing.assert_allclose(softmax, special.softmax(logits.astype(np.float64), axis=1))
    np.testing.assert_array_equal(seen.shape_input(x[0], x.shape[1:], channel_first=True), x[:1])
    last = bridge.OnnxModel(pictures, channel_first=False)
    turned = last.shape_input(x, x.shape, channel_first=True, batched=True)
    np.testing.assert_array_equal(turned, np.moveaxis(x, 1, -1))
    assert set(seen.state_dict()) == {
        "first_weight",
        "first_bias",
        "second_weight",
        "last_weight",
        "last_bias",
    }
    assert seen.get_model() is pictures
    assert seen.random_layer_generator_length == 3
    layers = [name for name, _ in seen.get_random_layer_generator("bottom_up")]
    assert layers == ["first_weight", "second_weight", "last_weight"]
    hidden = seen.get_hidden_representations(x, ["first_weight"])
    assert hidden.shape == (4, 5 * 8 * 9)
    np.testing.assert_array_equal(seen.get_hidden_representations(x, ["a"]), hidden)
    np.testing.assert_allclose(seen.get_hidden_representations(x, layer_indices=[-1]), logits)
    assert seen.get_hidden_representations(x).shape == (4, 5 * 72 + 6 * 6 * 7 + 4)


def test_functions_are_taken_as_methods(pictures: igonnx.Explainer, x: Array, y: Array) -> None:
    def edges(_: igonnx.Explainer, inputs: Array, **__: Any) -> Array:
        return np.gradient(inputs, axis=3)

    metric = quantus.MPRT(layer_order="independent", return_average_correlation=False, **SETTINGS)
    scores = bridge.evaluate(metric, pictures, x, y, method=edges)
    for values in scores.values():
        np.testing.assert_allclose(values, 1, atol=1e-6)


def test_what_is_refused(pictures: igonnx.Explainer, model: Any, x: Array, y: Array) -> None:
    two = igonnx.Explainer(
        model("(float[N, 2] a, float[N, 2] b) => (float[N, 2] y) { y = Add(a, b) }")
    )
    with pytest.raises(
        igonnx.InputError, match=r"Quantus gives models one input; this one has 'a', 'b'$"
    ):
        bridge.OnnxModel(two)
    with pytest.raises(
        igonnx.InputError, match=r"^method is 'nothing'; expected the name of a method"
    ):
        bridge.evaluate(quantus.Sparseness(**SETTINGS), pictures, x, y, method="nothing")


def test_quantus_is_left_as_it_was(pictures: igonnx.Explainer, x: Array, y: Array) -> None:
    from quantus.helpers import utils

    before = utils.get_wrapped_model
    bridge.evaluate(quantus.Sparseness(**SETTINGS), pictures, x, y, method="saliency")
    assert utils.get_wrapped_model is before
    with pytest.raises(ValueError, match="Model needs to be"):
        utils.get_wrapped_model(pictures, True, False)


@pytest.mark.filterwarnings("ignore:The settings for perturbing input:UserWarning")
def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    script = Path(__file__).parents[2] / "examples" / "quantus_metrics.py"
    spec = importlib.util.spec_from_file_location("quantus_metrics", script)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    assert example.main(["--count", "4"]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["integrated_gradients", "saliency", "guided_backprop"]
    assert len(rows) == 4
    numbers = np.array([[float(cell) for cell in row.split()[-3:]] for row in rows])
    assert np.isfinite(numbers).all()
