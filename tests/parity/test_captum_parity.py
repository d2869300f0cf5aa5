"""Integrated Gradients against Captum: same model, input, baseline, target, nodes and weights.

Captum differentiates the PyTorch model, igonnx the file exported from it; both in float32, so they
differ by rounding: less than 1e-6 on smooth models, more where ReLU and ReLU6 turn rounding into a
derivative that changes by all of itself (see test_gradient_parity.py).

What the names mean. Captum's `riemann_left`, `riemann_right` and `riemann_middle` with n steps are
igonnx's "left", "right" and "middle" with n steps, and `gausslegendre` is "gauss_legendre"; for one
step, Captum has the last alone. Captum's `riemann_trapezoid` with n steps evaluates n points, from
0 to 1 in n - 1 intervals, but weighs them by 1/n (half of that at the ends), so its weights sum to
(n - 1)/n. igonnx's "trapezoid" with n - 1 steps has the same points, and weights that sum to 1:
Captum's attributions are (n - 1)/n of igonnx's.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import pytest

import igonnx
from igonnx.models.efficientnet_lite0 import PREPROCESSING
from igonnx.quadrature import nodes_and_weights

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
captum_attr = pytest.importorskip("captum.attr")
captum_rules = pytest.importorskip("captum.attr._utils.approximation_methods")

pytestmark = pytest.mark.parity

PHOTOS = {"chelsea": 285, "coffee": 967, "rocket": 657, "astronaut": 450}
BLACK = (0 - PREPROCESSING.mean) / PREPROCESSING.std
STEPS = 50
ROWS = 10  # gradients that Captum computes at once; it has no influence on the result
SMOOTH = 1e-4
KINKED = 1e-2
BASELINE_WORD = 3
RULES = {
    "riemann_left": "left",
    "riemann_right": "right",
    "riemann_middle": "middle",
    "riemann_trapezoid": "trapezoid",
    "gausslegendre": "gauss_legendre",
}


class Result(NamedTuple):
    """Attributions and Captum's convergence delta."""

    values: np.ndarray
    delta: np.ndarray


def captum(model, tensors, words=None, *, baseline, method="gausslegendre", steps=STEPS):
    """Captum's Integrated Gradients of each example's largest output; returns a `Result`."""
    with torch.no_grad():
        target = model(*tensors).argmax(dim=-1)
    settings = {
        "baselines": baseline,
        "target": target,
        "additional_forward_args": tuple(tensors[1:]) or None,
        "n_steps": steps,
        "method": method,
        "return_convergence_delta": True,
    }
    if words is None:
        explain = captum_attr.IntegratedGradients(model)
    else:
        explain = captum_attr.LayerIntegratedGradients(model, words)
    if method == "gausslegendre":
        settings["internal_batch_size"] = ROWS
    values, delta = explain.attribute(tensors[0], **settings)
    return Result(values.detach().numpy(), delta.detach().numpy())


def compare(given, expected, measured, tolerance):
    """Attributions and convergence deltas within `tolerance`."""
    cosine = measured.cosine(given.values, expected.values)
    error = measured.relative_l2(given.values, expected.values)
    difference = compare_deltas(given, expected.delta, measured)
    assert error <= tolerance
    assert cosine >= 0.9999
    assert difference <= tolerance / 100  # errors of single values cancel in their sum


def compare_deltas(given, delta, measured):
    """The largest difference of two convergence deltas, as a share of the terms they sum."""
    magnitudes = np.abs(given.values).reshape(len(given.values), -1).sum(axis=1)
    terms = magnitudes + np.abs(given.scores) + np.abs(given.baseline_scores)
    measured("largest delta / terms", np.max(np.abs(given.delta) / terms))
    return measured("deltas differ / terms", np.max(np.abs(given.delta - delta) / terms))


@pytest.mark.parametrize("apply", [None, "softmax"])
@pytest.mark.parametrize("photo", PHOTOS)
def test_efficientnet_on_photos(photo, apply, subject, measured):
    tested = subject("efficientnet")
    path, _ = tested.export("igonnx")
    index = list(PHOTOS).index(photo)
    image = tested.inputs["pixel_values"][index : index + 1]
    given = igonnx.Explainer(path, apply=apply).integrated_gradients(
        image, baseline=BLACK, steps=STEPS
    )
    assert given.target == [(PHOTOS[photo],)]

    def probabilities(x):
        return torch.softmax(tested.model(x), dim=-1)

    model = tested.model if apply is None else probabilities
    expected = captum(model, [torch.from_numpy(image)], baseline=BLACK)
    compare(given, expected, measured, KINKED)
    # 50 steps leave errors of some percent here: far from rounding, so the deltas tell more.
    change = np.abs(given.scores - given.baseline_scores)
    measured("delta / change", given.delta[0] / change[0])
    measured("Captum's", expected.delta[0] / change[0])
    assert np.all(np.abs(given.delta - expected.delta) <= KINKED * change)


@pytest.fixture(scope="module")
def captum_of(subject):
    """A function from a subject's name to Captum's result on its first example."""

    @functools.cache
    def explain(name):
        tested = subject(name)
        tensors = [torch.from_numpy(array[:1]) for array in tested.inputs.values()]
        baseline = 0 if tested.words is None else torch.full_like(tensors[0], BASELINE_WORD)
        return captum(tested.model, tensors, tested.words, baseline=baseline)

    return explain


@pytest.mark.parametrize("exporter", ["script", "dynamo"])
@pytest.mark.parametrize(
    ("name", "tolerance"), [("resnet50", KINKED), ("vit", SMOOTH), ("bert", SMOOTH)]
)
def test_random_models(name, tolerance, exporter, subject, captum_of, measured):
    tested = subject(name)
    path, wrt = tested.export(exporter)
    inputs = {key: array[:1] for key, array in tested.inputs.items()}
    baseline = 0
    if tested.words is not None:
        baseline = tested.words.weight.detach().numpy()[BASELINE_WORD]
    given = igonnx.Explainer(path, wrt=wrt).integrated_gradients(
        inputs, baseline=baseline, steps=STEPS
    )
    compare(given, captum_of(name), measured, tolerance)
    if name == "bert":  # words that the attention mask hides have no influence
        hidden = inputs["attention_mask"] == 0
        assert hidden.any()
        assert not given.values[hidden].any()


@pytest.mark.parametrize("steps", [2, 3, 10, 50, 51])
@pytest.mark.parametrize("method", RULES)
def test_nodes_and_weights(method, steps):
    weights, nodes = (
        np.array(values(steps)) for values in captum_rules.approximation_parameters(method)
    )
    if method == "riemann_trapezoid":
        given_nodes, given_weights = nodes_and_weights("trapezoid", steps - 1)
        given_weights = given_weights * (steps - 1) / steps
    else:
        given_nodes, given_weights = nodes_and_weights(RULES[method], steps)
    # Captum's Riemann nodes are rounded to float32.
    np.testing.assert_allclose(given_nodes, nodes, rtol=0, atol=2e-7)
    np.testing.assert_allclose(given_weights, weights, rtol=1e-12)


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("method", RULES)
def test_rules_on_bert(method, engine, subject, measured):
    """Few steps, so that the rules differ and the convergence delta is far from rounding."""
    steps = 6
    tested = subject("bert")
    path, wrt = tested.export("script")
    tensors = [torch.from_numpy(array) for array in tested.inputs.values()]
    baseline = torch.full_like(tensors[0], BASELINE_WORD)
    expected = captum(
        tested.model, tensors, tested.words, baseline=baseline, method=method, steps=steps
    )
    trapezoid = method == "riemann_trapezoid"
    given = igonnx.Explainer(path, wrt=wrt, engine=engine).integrated_gradients(
        tested.inputs,
        baseline=tested.words.weight.detach().numpy()[BASELINE_WORD],
        rule=RULES[method],
        steps=steps - 1 if trapezoid else steps,
    )
    values, delta = expected
    if trapezoid:
        values = values * (steps / (steps - 1))
        change = given.scores - given.baseline_scores
        delta = (delta + change) * (steps / (steps - 1)) - change
    assert measured.relative_l2(given.values, values) <= SMOOTH
    assert compare_deltas(given, delta, measured) <= 1e-6
    if method in ("riemann_left", "riemann_right"):  # far from rounding: sign and value count
        np.testing.assert_allclose(given.delta, delta, rtol=1e-2)
