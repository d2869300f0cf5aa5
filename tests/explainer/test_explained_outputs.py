"""`Explainer` and the output that is explained; baselines and targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from explaining import ENGINES, Build, assert_complete, each_engine, random

import igonnx

# -- outputs -----------------------------------------------------------------------------------


def test_output_by_name(model: Build) -> None:
    graph = model(
        """(float[N, 3] x) => (int64[N] best, float[N, 3] first, float[N] second) {
            first = Sin(x)
            best = ArgMax<axis = 1, keepdims = 0>(first)
            second = ReduceMax<axes = [1], keepdims = 0>(x)
        }"""
    )
    x = np.float32([[0.1, 0.7, 0.3], [0.9, 0.2, 0.1]])
    default = igonnx.Explainer(graph)
    assert default.output == "first"
    assert default.integrated_gradients(x).target == [(1,), (0,)]
    second = igonnx.Explainer(graph, output="second").integrated_gradients(x)
    assert second.target == [(), ()]
    np.testing.assert_allclose(second.values, [[0, 0.7, 0], [0.9, 0, 0]], rtol=1e-6)
    predicted = default.predict(x)
    assert list(predicted) == ["best", "first", "second"]
    np.testing.assert_array_equal(predicted["best"], [1, 0])


SHAPES = {
    "[N]": ("y = ReduceSum<keepdims = 0>(s, one)", "N", (), None),
    "[N,1]": ("y = ReduceSum<keepdims = 1>(s, one)", "N, 1", (0,), 0),
    "[N,C]": ("y = MatMul(s, w)", "N, 4", (2,), 2),
    "[N,T,C]": ("u = Unsqueeze(s, two) \n y = Mul(u, row)", "N, 3, 4", (1, 3), (1, 3)),
}


@each_engine
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(
    "symbol", ["N", "M", ""], ids=["same symbol", "another symbol", "no symbol"]
)
def test_output_shapes(model: Build, name: str, symbol: str, engine: str) -> None:
    body, axes, index, target = SHAPES[name]
    axes = axes.replace("N", symbol or "?")
    w = random(3, 4)
    constants = {"one": np.array([1]), "two": np.array([2]), "w": w, "row": w[0]}
    used = {key: value for key, value in constants.items() if f", {key})" in body}
    graph = model(f"(float[N, 3] x) => (float[{axes}] y) {{ s = Sin(x) \n {body} }}", used)
    x = random(2, 3, seed=2)
    found = igonnx.Explainer(graph, engine=engine).integrated_gradients(x, target=target, steps=20)
    factor = {"[N]": 1, "[N,1]": 1, "[N,C]": w[:, 2], "[N,T,C]": np.array([0, 1, 0]) * w[0, 3]}[
        name
    ]
    np.testing.assert_allclose(found.values, np.sin(x) * factor, atol=2e-6)
    assert found.target == [index, index]
    assert found.scores.shape == found.delta.shape == (2,)


@each_engine
@pytest.mark.parametrize(
    ("batch", "out"),
    [
        ("N", "T, N, 4"),
        ("N", "A, B, 4"),
        ("N", "?, ?, 4"),
        ("1", "T, 1, 4"),
        ("1", "?, ?, 4"),
        ("2", "T, 2, 4"),
    ],
)
def test_time_first_output(model: Build, batch: str, out: str, engine: str) -> None:
    w = random(3, 4)
    graph = model(
        f"""(float[{batch}, T, 3] x) => (float[{out}] y) {{
            t = Transpose<perm = [1, 0, 2]>(x)
            h = MatMul(t, w)
            y = LogSoftmax<axis = -1>(h)
        }}""",
        {"w": w},
    )
    explainer = igonnx.Explainer(graph, engine=engine)
    for count, length in ((3, 5), (1, 7), (4, 4), (2, 2)):
        x = random(count, length, 3, seed=count)
        assert explainer.predict(x)["y"].shape == (length, count, 4)
        targets = [(length - 1, i) for i in range(count)]
        found = explainer.integrated_gradients(x, target=targets, steps=10)
        assert found.values.shape == x.shape
        assert np.abs(found.values[:, :-1]).max() == 0  # other times do not matter
        assert (np.abs(found.values[:, -1]).sum(axis=1) > 0).all()
        assert_complete(found)


@each_engine
@pytest.mark.parametrize("apply", [None, "softmax"])
def test_segmentation_with_a_mask(model: Build, engine: str, apply: str | None) -> None:
    w = random(4, 2, 3, 3)
    graph = model(
        "(float[N, 2, H, W] x) => (float[N, 4, H, W] y) { y = Conv<pads = [1, 1, 1, 1]>(x, w) }",
        {"w": w},
    )
    x = random(2, 2, 6, 5)
    explainer = igonnx.Explainer(graph, engine=engine, apply=apply)
    mask = np.zeros((2, 4, 6, 5), bool)
    mask[0, 1, 2:4, 1:3] = mask[1, 3, 0, 0] = True
    found = explainer.integrated_gradients(x, target=mask, steps=60)
    assert found.target == [None, None]
    output = explainer.predict(x)["y"].astype(np.float64)
    if apply:
        output = np.exp(output) / np.exp(output).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        found.scores, (output * mask).sum(axis=(1, 2, 3)), rtol=1e-4, atol=1e-5
    )
    assert_complete(found)
    assert np.abs(found.values[1, :, 2:, 2:]).max() == 0  # out of sight of the corner
    other = explainer.integrated_gradients(random(1, 2, 9, 4), target=(2, 8, 3), steps=3)
    assert other.values.shape == (1, 2, 9, 4)


@each_engine
def test_scalar_output_without_a_batch_axis(model: Build, engine: str) -> None:
    graph = model(
        "(float[N, 3] x) => (float y) { s = Mul(x, x) \n y = ReduceSum<keepdims = 0>(s) }"
    )
    x = random(3, 3)
    explainer = igonnx.Explainer(graph, engine=engine)
    found = explainer.integrated_gradients(x, steps=2)  # each example by itself
    np.testing.assert_allclose(found.values, x**2, rtol=1e-5)
    np.testing.assert_allclose(found.scores, (x**2).sum(axis=1), rtol=1e-6)
    assert found.target == [(), (), ()]
    assert explainer.predict(x)["y"] == pytest.approx((x**2).sum(), rel=1e-6)
    single = explainer.integrated_gradients(x[:1], steps=2)
    np.testing.assert_allclose(single.values, found.values[:1])
    sigmoid = igonnx.Explainer(graph, engine=engine, apply="sigmoid").integrated_gradients(
        x, steps=30
    )
    assert_complete(sigmoid)


def test_output_that_flattens_examples_is_explained_one_by_one(model: Build) -> None:
    graph = model(
        "(float[N, T, 2] x) => (float[R, 3] y) { f = Reshape(x, s) \n h = MatMul(f, w) \n y = Tanh(h) }",
        {"s": np.array([-1, 2]), "w": random(2, 3)},
    )
    found = igonnx.Explainer(graph).integrated_gradients(
        random(2, 4, 2), target=[(3, 1), (0, 2)], steps=30
    )
    assert np.abs(found.values[0, :3]).max() == np.abs(found.values[1, 1:]).max() == 0
    assert_complete(found)


def test_identity(model: Build) -> None:
    graph = model("(float[N, 3] x) => (float[N, 3] y) { y = Identity(x) }")
    x = random(2, 3)
    for engine in ENGINES:
        found = igonnx.Explainer(graph, engine=engine).integrated_gradients(x, target=1, steps=1)
        np.testing.assert_array_equal(found.values, x * [0, 1, 0])
        assert found.delta.tolist() == [0, 0]


# -- baselines and targets ---------------------------------------------------------------------


def test_baselines(mlp: onnx.ModelProto) -> None:
    explainer = igonnx.Explainer(mlp)
    x = random(2, 6)
    ends = {
        "none": (None, np.zeros((2, 6))),
        "number": (0.5, np.full((2, 6), 0.5)),
        "integer": (1, np.ones((2, 6))),
        "feature": (random(6, seed=1), np.tile(random(6, seed=1), (2, 1))),
        "example": (random(2, 1, seed=1), np.tile(random(2, 1, seed=1), (1, 6))),
        "full": (random(2, 6, seed=1), random(2, 6, seed=1)),
        "double": (np.full((1, 6), 0.25, np.float64), np.full((2, 6), 0.25)),
        "list": ([[0, 1, 0, 1, 0, 1]], np.tile([0, 1] * 3, (2, 1))),
        "dict": ({"x": 0.5}, np.full((2, 6), 0.5)),
        "empty dict": ({}, np.zeros((2, 6))),
    }
    for name, (given, full) in ends.items():
        found = explainer.integrated_gradients(x, baseline=given, target=1, steps=5)
        expected = explainer.integrated_gradients(
            x, baseline=full.astype(np.float32), target=1, steps=5
        )
        np.testing.assert_array_equal(found.values, expected.values, err_msg=name)
        np.testing.assert_allclose(
            found.baseline_scores, explainer.predict(full)["logits"][:, 1], rtol=1e-5
        )


def test_targets(mlp: onnx.ModelProto) -> None:
    explainer = igonnx.Explainer(mlp)
    x = random(3, 6)
    best = explainer.predict(x)["logits"].argmax(axis=1)
    one_hot = np.eye(4, dtype=np.float32)
    forms: dict[str, tuple[Any, list[int]]] = {
        "argmax": (None, best.tolist()),
        "int": (2, [2, 2, 2]),
        "numpy int": (np.int64(2), [2, 2, 2]),
        "zero-dimensional": (np.array(2), [2, 2, 2]),
        "tuple": ((2,), [2, 2, 2]),
        "negative": (-1, [3, 3, 3]),
        "list": ([0, 3, 1], [0, 3, 1]),
        "list of tuples": ([(0,), (3,), (1,)], [0, 3, 1]),
        "array": (np.array([0, 3, 1]), [0, 3, 1]),
        "column": (np.array([[0], [3], [1]], np.uint8), [0, 3, 1]),
        "mask": (one_hot[[0, 3, 1]], [0, 3, 1]),
    }
    for name, (given, classes) in forms.items():
        found = explainer.integrated_gradients(x, target=given, steps=4)
        expected = explainer.integrated_gradients(x, target=classes, steps=4)
        np.testing.assert_allclose(found.values, expected.values, atol=1e-7, err_msg=name)
        assert found.target == ([None] * 3 if name == "mask" else [(c,) for c in classes])
    difference = explainer.integrated_gradients(x, target=np.float32([[1, -1, 0, 0]] * 3), steps=4)
    parts = [explainer.integrated_gradients(x, target=c, steps=4).values for c in (0, 1)]
    np.testing.assert_allclose(difference.values, parts[0] - parts[1], atol=1e-5)


def test_argmax_is_taken_after_apply(model: Build) -> None:
    graph = model("(float[N, 2, 2] x) => (float[N, 2, 2] y) { y = Identity(x) }")
    x = np.float32([[[5, 4.9], [1, -9]]])  # the largest logit has a close rival beside it
    assert igonnx.Explainer(graph).integrated_gradients(x, steps=1).target == [(0, 0)]
    assert igonnx.Explainer(graph, apply="softmax").integrated_gradients(x, steps=1).target == [
        (1, 0)
    ]
    assert igonnx.Explainer(graph, apply=("softmax", 1)).integrated_gradients(
        x, steps=1
    ).target == [(0, 1)]


@each_engine
def test_classes_that_a_mask_rules_out(model: Build, engine: str) -> None:
    graph = model(
        """(float[N, 3] x) => (float[N, 3] y) {
            allowed = Constant<value = bool[3] {1, 1, 0}>()
            nothing = Constant<value = float {-inf}>()
            squares = Mul(x, x)
            y = Where(allowed, squares, nothing)
        }"""
    )
    x = np.float32([[0.5, 2, 3], [1, 0.5, 9]])
    explainer = igonnx.Explainer(graph, engine=engine)
    result = explainer.integrated_gradients(x)
    assert result.target == [(1,), (0,)]
    np.testing.assert_allclose(result.values, [[0, 4, 0], [1, 0, 0]], rtol=1e-5)
    np.testing.assert_allclose(result.scores, [4, 1], rtol=1e-6)
    ablated = explainer.feature_ablation(x)
    np.testing.assert_allclose(ablated.values, [[0, 4, 0], [1, 0, 0]], rtol=1e-5)
