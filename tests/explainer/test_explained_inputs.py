"""`Explainer` on models of several inputs, of integers only, and on tensors in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from explaining import Build, assert_complete, each_engine, random

import igonnx

# -- several inputs ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gated(model: Build) -> onnx.ModelProto:
    """Two images explained, a mask and ids per example or shared, a scalar temperature."""
    return model(
        """(float[N, 2, 5] left, float[N, 3] right, float[M, 5] mask, int64[K] ids, float temperature)
            => (float[N, 4] y) {
            left_sum = ReduceSum<keepdims = 0>(left, one)
            masked = Mul(left_sum, mask)
            a = MatMul(masked, w1)
            b = MatMul(right, w2)
            shift = Gather(table, ids)
            c = Sum(a, b, shift)
            d = Div(c, temperature)
            y = Tanh(d)
        }""",
        {
            "one": np.array([1]),
            "w1": random(5, 4),
            "w2": random(3, 4, seed=1),
            "table": random(6, 4, seed=2),
        },
    )


def _gated_inputs(count: int) -> dict[str, Any]:
    return {
        "left": random(count, 2, 5, seed=3),
        "right": random(count, 3, seed=4),
        "mask": (np.random.default_rng(5).random((count, 5)) > 0.3).astype(np.float32),
        "ids": np.arange(count) % 6,
        "temperature": np.float32(2.5),
    }


def _gated_gradients(
    inputs: dict[str, Any], z: dict[str, Any], target: list[int]
) -> dict[str, Any]:
    w1, w2, table = random(5, 4), random(3, 4, seed=1), random(6, 4, seed=2)
    pre = (z["left"].sum(1) * inputs["mask"]) @ w1 + z["right"] @ w2 + table[inputs["ids"]]
    slope = (1 - np.tanh(pre / 2.5) ** 2) / 2.5
    picked = slope * np.eye(4)[target]
    left = (picked @ w1.T * inputs["mask"])[:, None, :].repeat(2, axis=1)
    return {"left": left, "right": picked @ w2.T}


@each_engine
@pytest.mark.parametrize("shared", [(), ("mask",), ("ids",), ("mask", "ids")], ids=str)
def test_fixed_inputs_per_example_and_shared(
    gated: onnx.ModelProto, engine: str, shared: tuple[str, ...]
) -> None:
    inputs = _gated_inputs(3)
    inputs |= {name: inputs[name][:1] for name in shared}
    explainer = igonnx.Explainer(gated, wrt=["left", "right"], engine=engine)
    found = explainer.integrated_gradients(inputs, target=[0, 3, 2], steps=20, rule="middle")
    expected = {name: np.zeros(inputs[name].shape) for name in ("left", "right")}
    for alpha in (np.arange(20) + 0.5) / 20:
        z = {name: alpha * inputs[name].astype(np.float64) for name in expected}
        for name, gradient in _gated_gradients(inputs, z, [0, 3, 2]).items():
            expected[name] += inputs[name] * gradient / 20
    assert isinstance(found.values, dict)
    assert list(found.values) == ["left", "right"]
    for name in expected:
        assert found.values[name].dtype == np.float32
        np.testing.assert_allclose(found.values[name], expected[name], atol=2e-6)
    assert_complete(found, 2e-3)


@each_engine
def test_one_explained_input_of_several(gated: onnx.ModelProto, engine: str) -> None:
    inputs = _gated_inputs(2)
    found = igonnx.Explainer(gated, wrt="right", engine=engine).integrated_gradients(inputs)
    assert found.values.shape == (2, 3)
    assert_complete(found)


def test_default_explains_what_holds_examples(gated: onnx.ModelProto, model: Build) -> None:
    # not the scalar; the mask, floating and with an axis of its own, may be asked for or left out with wrt=
    assert igonnx.Explainer(gated).wrt == ("left", "right", "mask")
    scaled = model(
        "(float[N, 3] x, float[1] scale, float s) => (float[N, 3] y) { a = Mul(x, scale) \n y = Mul(a, s) }"
    )
    explainer = igonnx.Explainer(scaled)
    assert explainer.wrt == ("x",)
    found = explainer.integrated_gradients(
        {"x": np.ones((2, 3), np.float32), "scale": np.float32([3]), "s": 2.0}, target=1
    )
    np.testing.assert_allclose(found.values, [[0, 6, 0]] * 2, rtol=1e-6)


def test_an_axis_named_like_a_length_does_not_count_examples(model: Build) -> None:
    graph = model(
        """(float[N, T] x, float[T] place) => (float[N] y) {
            moved = Mul(x, place)
            s = Sin(moved)
            y = ReduceSum<keepdims = 0>(s, one)
        }""",
        {"one": np.array([1])},
    )
    explainer = igonnx.Explainer(graph)
    assert explainer.wrt == ("x",)
    x, place = random(4, 4), random(4, seed=1)  # as many places as examples
    together = explainer.integrated_gradients({"x": x, "place": place}, steps=30)
    assert_complete(together)
    alone = explainer.integrated_gradients({"x": x[2:3], "place": place}, steps=30)
    np.testing.assert_allclose(together.values[2:3], alone.values, rtol=1e-5, atol=1e-7)


def test_baselines_of_several_inputs(gated: onnx.ModelProto) -> None:
    explainer = igonnx.Explainer(gated, wrt=["left", "right"])
    inputs = _gated_inputs(2)
    number = explainer.integrated_gradients(inputs, baseline=0.5, target=0, steps=5)
    named = explainer.integrated_gradients(
        inputs, baseline={"left": 0.5, "right": 0.5}, target=0, steps=5
    )
    partly = explainer.integrated_gradients(
        inputs, baseline={"right": inputs["right"]}, target=0, steps=5
    )
    np.testing.assert_array_equal(number.of("left"), named.of("left"))
    assert np.abs(partly.of("right")).max() == 0


# -- integers only, intermediate tensors -------------------------------------------------------


@each_engine
def test_integers_only_explain_the_word_embedding(data: Path, engine: str) -> None:
    explainer = igonnx.Explainer(data / "bert_dynamo.onnx", engine=engine)
    with np.load(data / "bert_dynamo.npz") as arrays:
        inputs = {name: arrays[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    (name,) = explainer.wrt
    producer = explainer.model.find_tensor(name).producer()
    assert producer is not None
    assert producer.op_type == "Gather"
    assert "word" in str(producer.inputs[0].name)
    found = explainer.integrated_gradients(inputs, steps=50)
    assert found.values.shape == (2, 7, 32)
    assert_complete(found, 1e-3)
    padded = {key: np.pad(array, ((0, 1), (0, 3))) for key, array in inputs.items()}
    longer = explainer.integrated_gradients(
        padded, target=1, steps=20
    )  # another size in the same session
    assert longer.values.shape == (3, 10, 32)


@each_engine
def test_intermediate_tensor(mlp: onnx.ModelProto, engine: str) -> None:
    explainer = igonnx.Explainer(mlp, wrt="h", engine=engine)
    x = random(3, 6)
    found = explainer.integrated_gradients(x, target=[1, 0, 3], steps=40)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in mlp.graph.initializer}
    h = x @ weights["w1"] + weights["b1"]
    exact = np.tanh(h) * weights["w2"][:, [1, 0, 3]].T  # from a baseline of zeros, unit by unit
    np.testing.assert_allclose(found.values, exact, atol=2e-5)


def test_intermediate_and_input_together(model: Build) -> None:
    graph = model(
        "(float[N, 2] x) => (float[N, 2] y) { h = Mul(x, x) \n t = Tanh(h) \n y = Add(t, x) }",
    )
    x = np.float32([[1.0, -2.0]])
    found = igonnx.Explainer(graph, wrt=["h", "x"]).integrated_gradients(x, target=1, steps=50)
    np.testing.assert_allclose(found.of("h"), [[0, np.tanh(4.0)]], atol=1e-5)
    np.testing.assert_allclose(found.of("x"), [[0, -2]], atol=1e-6)  # only what does not pass h


def test_intermediate_tensor_that_is_also_an_output(model: Build) -> None:
    graph = model(
        "(float[N, 2] x) => (float[N, 2] y, float[N, 2] h) { h = Exp(x) \n y = Mul(h, h) }"
    )
    found = igonnx.Explainer(graph, wrt="h").integrated_gradients(
        np.zeros((1, 2), np.float32), target=0, steps=5
    )
    np.testing.assert_allclose(found.values, [[1, 0]], atol=1e-6)
