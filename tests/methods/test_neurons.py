"""Methods of neurons: what they are by the methods of the same name, closed forms, and what adds up to what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from tanh_net import TanhNet, as_dict, assert_close
from test_layers import NET, TARGET, array, close, inputs

import igonnx

Build = Callable[..., onnx.ModelProto]
# Name, the method of the whole model, and settings of both.
SAME: dict[str, tuple[str, dict[str, Any]]] = {
    "neuron_gradient": ("saliency", {"absolute": False}),
    "neuron_integrated_gradients": ("integrated_gradients", {"steps": 7, "rule": "trapezoid"}),
    "neuron_gradient_shap": ("gradient_shap", {"samples": 6, "noise_std": 0.1, "seed": 3}),
    "neuron_deep_lift_shap": ("deep_lift_shap", {}),
    "neuron_guided_backprop": ("guided_backprop", {}),
    "neuron_deconvnet": ("deconvnet", {}),
}
ENDS_THERE = """(float[N, 5] x) => (float[N, 7] r) {
    g = MatMul(x, w1)
    r = Relu(g)
}"""
GOES_ON = """(float[N, 5] x) => (float[N, 3] y) {
    g = MatMul(x, w1)
    r = Relu(g)
    p = MatMul(r, w2)
    y = Tanh(p)
}"""


def both(model: Build) -> tuple[igonnx.Explainer, igonnx.Explainer]:
    """A model that goes on behind its layer r, and one that ends there."""
    rng = np.random.default_rng(4)
    w1, w2 = (rng.normal(size=shape).astype(np.float32) for shape in ((5, 7), (7, 3)))
    return (
        igonnx.Explainer(model(GOES_ON, {"w1": w1, "w2": w2})),
        igonnx.Explainer(model(ENDS_THERE, {"w1": w1})),
    )


@pytest.mark.parametrize("name", SAME)
@pytest.mark.parametrize("neuron", [2, (4,), [0, 3, 6], -1])
def test_methods_of_the_model_that_ends_there(model: Build, name: str, neuron: Any) -> None:
    whole, end = both(model)
    method, options = SAME[name]
    x = np.abs(inputs()) if "deep_lift" in name else inputs()
    expected = getattr(end, method)(x, target=neuron, **options)
    found = getattr(whole, name)(x, layer="r", neuron=neuron, **options)
    close(found.values, array(expected.values), 2e-6)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    np.testing.assert_allclose(found.delta, expected.delta, atol=1e-6)
    assert found.target == expected.target
    assert found.method.startswith(f"{name} layer=r neuron=")
    again = getattr(whole, name)(x, layer="r*", neuron=neuron, **options)
    close(again.values, array(found.values), 0)


def test_gradient_by_differences(model: Build) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model, np.float64)), inputs(dtype=np.float64)
    found = explainer.neuron_gradient(x, layer="h", neuron=3)
    close(found.values, NET.jacobian(x)[..., 3], 1e-12)
    step = 1e-6 * np.eye(5)
    columns = [(NET.layer(x + step[i]) - NET.layer(x - step[i]))[:, 3] / 2e-6 for i in range(5)]
    close(found.values, np.stack(columns, axis=1), 1e-8)
    np.testing.assert_allclose(found.scores, NET.layer(x)[:, 3], atol=1e-12)
    magnitude = explainer.neuron_gradient(x, layer="h", neuron=3, absolute=True)
    close(magnitude.values, np.abs(NET.jacobian(x)[..., 3]), 1e-12)


def test_integrated_gradients_add_up_to_the_neuron(model: Build) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model, np.float64)), inputs(dtype=np.float64)
    found = explainer.neuron_integrated_gradients(x, layer="h", neuron=1, steps=30, baseline=0.1)
    start = np.full_like(x, 0.1)
    change = (NET.layer(x) - NET.layer(start))[:, 1]
    np.testing.assert_allclose(array(found.values).sum(axis=1), change, atol=1e-12)
    refined = explainer.neuron_integrated_gradients(
        x, layer="h", neuron=1, tolerance=1e-3, exact_sum=True
    )
    assert np.abs(refined.delta).max() < 1e-12


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_conductance(model: Build, dtype: Any) -> None:
    explainer = igonnx.Explainer(NET.onnx(model, dtype))
    x, bound = inputs(dtype=dtype), 1e-5 if dtype is np.float32 else 1e-12
    wide = x.astype(np.float64)
    each = NET.integral(wide, np.full_like(wide, 0.3), TARGET, 9, "neurons")
    options: dict[str, Any] = {"target": TARGET, "baseline": 0.3, "steps": 9, "layer": "h"}
    for neuron in (0, 5):
        found = explainer.neuron_conductance(x, neuron=neuron, **options)
        close(found.values, each[..., neuron], bound)
        assert found.steps_used.tolist() == [9] * 3
    found = explainer.neuron_conductance(x, neuron=[1, 2, 6], **options)
    close(found.values, np.stack([each[i, :, k] for i, k in enumerate([1, 2, 6])]), bound)
    weights = np.random.default_rng(0).normal(size=(3, 7)).astype(dtype)
    found = explainer.neuron_conductance(x, neuron=weights, **options)
    close(found.values, np.einsum("nk,ndk->nd", weights.astype(np.float64), each), bound)
    layer = explainer.layer_conductance(x, **options)
    close(each.sum(axis=1), array(layer.values).astype(np.float64), bound)


def test_conductance_of_all_neurons_is_integrated_gradients(model: Build) -> None:
    net = TanhNet.make(4)
    explainer, x = igonnx.Explainer(net.onnx(model)), net.inputs(3)
    options: dict[str, Any] = {"target": TARGET, "steps": 8, "baseline": 0.2}
    whole = explainer.integrated_gradients(x, **options)
    ones = np.ones((3, 8), np.float32)
    found = explainer.neuron_conductance(x, layer="t", neuron=ones, **options)
    assert_close(found.values, as_dict(whole.values), 1e-5)
    np.testing.assert_allclose(found.delta, whole.delta, atol=1e-5)


def test_conductance_of_noisy_copies(model: Build) -> None:
    """A list of neurons follows the examples that the copies are of."""
    explainer, x = igonnx.Explainer(NET.onnx(model)), inputs()
    options: dict[str, Any] = {"target": TARGET, "layer": "h", "steps": 5}
    noise: dict[str, Any] = {"noise": "smoothgrad", "noise_samples": 3, "noise_std": 0.2, "seed": 1}
    found = explainer.neuron_conductance(x, neuron=[1, 2, 6], **noise, **options)
    each = [explainer.neuron_conductance(x, neuron=k, **noise, **options).values for k in (1, 2, 6)]
    close(found.values, np.stack([array(e)[i] for i, e in enumerate(each)]))
    with pytest.raises(igonnx.InputError, match="2 neurons were given for 3 examples"):
        explainer.neuron_conductance(x, neuron=[1, 2], **noise, **options)


@pytest.mark.parametrize("name", [*SAME, "neuron_conductance"])
def test_batches_change_nothing(model: Build, name: str) -> None:
    x, options = np.abs(inputs(4)), SAME.get(name, ("", {}))[1]
    graph = both(model)[0].model.to_proto()
    first, *others = [
        getattr(igonnx.Explainer(graph, batch_size=size), name)(x, layer="r", neuron=2, **options)
        for size in (1, 3, 50)
    ]
    for other in others:
        close(other.values, array(first.values), 2e-6)


@pytest.mark.parametrize("name", [*SAME, "neuron_conductance"])
def test_neurons_that_are_not_there(model: Build, name: str) -> None:
    method, x = getattr(both(model)[0], name), inputs()
    for neuron, expected in (
        (7, r"neuron 7 is outside layer 'r', whose shape is \[7\] per example: expected one index"),
        ((0, 0), r"neuron \(0, 0\) is outside layer 'r'"),
        ("2", "neuron is '2'; expected an index into layer 'r' without its batch axis"),
        (1.0, "neuron is 1.0; expected an index"),
        (None, "neuron is None; expected an index"),
        ([0, 1, 9], "neuron 9 is outside layer 'r'"),
    ):
        with pytest.raises(igonnx.InputError, match=expected) as caught:
            method(x, layer="r", neuron=neuron)
        assert "\n" not in str(caught.value)
    with pytest.raises(igonnx.InputError, match="no floating tensor between 'x' and output 'y'"):
        method(x, layer="rr", neuron=1)
    with pytest.raises(igonnx.InputError, match="layer is"):
        method(x, layer=["r", "g"], neuron=1)
    for missing in ({"layer": "r"}, {"neuron": 0}):
        with pytest.raises(TypeError, match="missing"):
            method(x, **missing)


def test_an_explained_tensor_has_no_neurons_behind_it(model: Build) -> None:
    explainer, x = both(model)[0], inputs()
    with pytest.raises(igonnx.InputError, match="layer 'x' is explained itself"):
        explainer.neuron_gradient(x, layer="x", neuron=1)
    # of conductance it is a share of Integrated Gradients
    whole = explainer.integrated_gradients(x, target=0, steps=5)
    found = explainer.neuron_conductance(x, target=0, layer="x", neuron=1, steps=5)
    alone = np.zeros_like(array(whole.values))
    alone[:, 1] = array(whole.values)[:, 1]
    close(found.values, alone)


def test_a_layer_of_one_number(model: Build) -> None:
    graph = model(
        "(float[N, 5] x) => (float[N] y) { s = ReduceSum<keepdims = 0>(x, axes) \n y = Tanh(s) }",
        {"axes": np.array([1])},
    )
    explainer, x = igonnx.Explainer(graph), inputs()
    close(explainer.neuron_gradient(x, layer="s", neuron=()).values, np.ones_like(x))
    with pytest.raises(igonnx.InputError, match=r"shape is \[\] per example: expected \(\)$"):
        explainer.neuron_gradient(x, layer="s", neuron=0)


@pytest.mark.parametrize("name", [*SAME, "neuron_conductance"])
@pytest.mark.parametrize("wrt", [("x", "z"), ("x", "h")])
def test_explained_tensors_that_do_not_matter(
    model: Build, name: str, wrt: tuple[str, str]
) -> None:
    """Of two explained tensors the neuron depends on one: the other, an input or an inner tensor, gets zeros."""
    graph = model(
        """(float[N, 5] x, float[N, 3] z) => (float[N, 3] y) {
            g = MatMul(x, w1) r = Relu(g) p = MatMul(r, w2) h = Tanh(z) y = Mul(p, h)
        }""",
        {
            "w1": np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32),
            "w2": np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32),
        },
    )
    feeds = {"x": np.abs(inputs()), "z": np.ones((3, 3), np.float32)}
    options: dict[str, Any] = {**SAME.get(name, ("", {}))[1], "layer": "r", "neuron": 2}
    if name == "neuron_conductance":
        options["target"] = 1
    options.pop("baseline", None)
    both_of, alone = igonnx.Explainer(graph, wrt=wrt), igonnx.Explainer(graph, wrt="x")
    found = getattr(both_of, name)(feeds, baseline={"x": 0.25, wrt[1]: 0.5}, **options)
    expected = getattr(alone, name)(feeds, baseline={"x": 0.25}, **options)
    assert isinstance(found.values, dict)
    assert list(found.values) == list(wrt)
    if name != "neuron_conductance":  # there the other baseline is felt behind the neuron
        close(found.values["x"], array(expected.values), 2e-6)
        np.testing.assert_allclose(found.delta, expected.delta, atol=1e-6)
    assert found.values[wrt[1]].shape == (3, 3)
    assert not found.values[wrt[1]].any()


def test_apply_is_for_the_output(model: Build) -> None:
    """The neuron itself is explained, not the softmax of its layer."""
    graph = both(model)[0].model.to_proto()
    x = inputs()
    plain, softened = (
        igonnx.Explainer(graph, apply=apply).neuron_gradient(x, layer="g", neuron=1).values
        for apply in (None, "softmax")
    )
    close(softened, array(plain))
