"""`Explainer` on models of many kinds: inputs, outputs, batch axes, dtypes, names, threads, progress."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import igonnx

Build = Callable[..., onnx.ModelProto]
ENGINES = ["native", "reference"]
each_engine = pytest.mark.parametrize("engine", ENGINES)


def _random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _complete(found: igonnx.Attribution, bound: float = 1e-4) -> None:
    """Sums of values are changes of scores."""
    arrays = list(found.values.values()) if isinstance(found.values, dict) else [found.values]
    sums = sum(array.astype(np.float64).reshape(len(array), -1).sum(axis=1) for array in arrays)
    change = found.scores - found.baseline_scores
    assert np.abs(change).min() > 0
    np.testing.assert_allclose(sums, change, atol=bound * max(1.0, float(np.abs(change).max())))


# -- several inputs --------------------------------------------------------------------------


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
            "w1": _random(5, 4),
            "w2": _random(3, 4, seed=1),
            "table": _random(6, 4, seed=2),
        },
    )


def _gated_inputs(count: int) -> dict[str, Any]:
    return {
        "left": _random(count, 2, 5, seed=3),
        "right": _random(count, 3, seed=4),
        "mask": (np.random.default_rng(5).random((count, 5)) > 0.3).astype(np.float32),
        "ids": np.arange(count) % 6,
        "temperature": np.float32(2.5),
    }


def _gated_gradients(
    inputs: dict[str, Any], z: dict[str, Any], target: list[int]
) -> dict[str, Any]:
    w1, w2, table = _random(5, 4), _random(3, 4, seed=1), _random(6, 4, seed=2)
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
    _complete(found, 2e-3)


@each_engine
def test_one_explained_input_of_several(gated: onnx.ModelProto, engine: str) -> None:
    inputs = _gated_inputs(2)
    found = igonnx.Explainer(gated, wrt="right", engine=engine).integrated_gradients(inputs)
    assert found.values.shape == (2, 3)
    _complete(found)


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
    x, place = _random(4, 4), _random(4, seed=1)  # as many places as examples
    together = explainer.integrated_gradients({"x": x, "place": place}, steps=30)
    _complete(together)
    alone = explainer.integrated_gradients({"x": x[2:3], "place": place}, steps=30)
    np.testing.assert_allclose(together.values[2:3], alone.values, rtol=1e-5, atol=1e-7)


# -- integers only, intermediate tensors -----------------------------------------------------


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
    _complete(found, 1e-3)
    padded = {key: np.pad(array, ((0, 1), (0, 3))) for key, array in inputs.items()}
    longer = explainer.integrated_gradients(
        padded, target=1, steps=20
    )  # another size in the same session
    assert longer.values.shape == (3, 10, 32)


@each_engine
def test_intermediate_tensor(mlp: onnx.ModelProto, engine: str) -> None:
    explainer = igonnx.Explainer(mlp, wrt="h", engine=engine)
    x = _random(3, 6)
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


# -- outputs ---------------------------------------------------------------------------------


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
    w = _random(3, 4)
    constants = {"one": np.array([1]), "two": np.array([2]), "w": w, "row": w[0]}
    used = {key: value for key, value in constants.items() if f", {key})" in body}
    graph = model(f"(float[N, 3] x) => (float[{axes}] y) {{ s = Sin(x) \n {body} }}", used)
    x = _random(2, 3, seed=2)
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
    w = _random(3, 4)
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
        x = _random(count, length, 3, seed=count)
        assert explainer.predict(x)["y"].shape == (length, count, 4)
        targets = [(length - 1, i) for i in range(count)]
        found = explainer.integrated_gradients(x, target=targets, steps=10)
        assert found.values.shape == x.shape
        assert np.abs(found.values[:, :-1]).max() == 0  # other times do not matter
        assert (np.abs(found.values[:, -1]).sum(axis=1) > 0).all()
        _complete(found)


@each_engine
@pytest.mark.parametrize("apply", [None, "softmax"])
def test_segmentation_with_a_mask(model: Build, engine: str, apply: str | None) -> None:
    w = _random(4, 2, 3, 3)
    graph = model(
        "(float[N, 2, H, W] x) => (float[N, 4, H, W] y) { y = Conv<pads = [1, 1, 1, 1]>(x, w) }",
        {"w": w},
    )
    x = _random(2, 2, 6, 5)
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
    _complete(found)
    assert np.abs(found.values[1, :, 2:, 2:]).max() == 0  # out of sight of the corner
    other = explainer.integrated_gradients(_random(1, 2, 9, 4), target=(2, 8, 3), steps=3)
    assert other.values.shape == (1, 2, 9, 4)


@each_engine
def test_scalar_output_without_a_batch_axis(model: Build, engine: str) -> None:
    graph = model(
        "(float[N, 3] x) => (float y) { s = Mul(x, x) \n y = ReduceSum<keepdims = 0>(s) }"
    )
    x = _random(3, 3)
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
    _complete(sigmoid)


def test_output_that_flattens_examples_is_explained_one_by_one(model: Build) -> None:
    graph = model(
        "(float[N, T, 2] x) => (float[R, 3] y) { f = Reshape(x, s) \n h = MatMul(f, w) \n y = Tanh(h) }",
        {"s": np.array([-1, 2]), "w": _random(2, 3)},
    )
    found = igonnx.Explainer(graph).integrated_gradients(
        _random(2, 4, 2), target=[(3, 1), (0, 2)], steps=30
    )
    assert np.abs(found.values[0, :3]).max() == np.abs(found.values[1, 1:]).max() == 0
    _complete(found)


def test_identity(model: Build) -> None:
    graph = model("(float[N, 3] x) => (float[N, 3] y) { y = Identity(x) }")
    x = _random(2, 3)
    for engine in ENGINES:
        found = igonnx.Explainer(graph, engine=engine).integrated_gradients(x, target=1, steps=1)
        np.testing.assert_array_equal(found.values, x * [0, 1, 0])
        assert found.delta.tolist() == [0, 0]


# -- fixed batch sizes -----------------------------------------------------------------------


def _fixed(model: Build, batch: int, body: str) -> onnx.ModelProto:
    weights = {
        "w": _random(6, 4),
        "flat": np.array([batch, -1]),
        "flat_inferred": np.array([batch, 6]),
    }
    used = {name: array for name, array in weights.items() if f"{name})" in body}
    return model(f"(float[{batch}, 2, 3] x) => (float[{batch}, 4] y) {{ {body} }}", used)


FREEABLE = "f = Reshape(x, flat) \n h = MatMul(f, w) \n y = Tanh(h)"
LISTED = "f = Reshape(x, flat_inferred) \n h = MatMul(f, w) \n y = Tanh(h)"
# Squeeze holds the batch axis at 1 for good
STUCK = "s = Squeeze(x, zero) \n f = Reshape(s, flat) \n h = MatMul(f, w) \n y = Tanh(h)"


@each_engine
@pytest.mark.parametrize("body", [FREEABLE, LISTED])
@pytest.mark.parametrize("batch", [1, 4])
def test_fixed_batch_is_freed(model: Build, body: str, batch: int, engine: str) -> None:
    explainer = igonnx.Explainer(_fixed(model, batch, body), engine=engine)
    x = _random(3, 2, 3)
    found = explainer.integrated_gradients(x, target=[0, 1, 3], steps=25)
    (prepared,) = explainer._prepared.values()
    assert prepared.fixed_rows is None
    _matches_tanh(found, x)
    assert explainer.predict(x)["y"].shape == (3, 4)


@each_engine
def test_fixed_batch_that_cannot_be_freed_is_looped(model: Build, engine: str) -> None:
    graph = model(
        f"(float[1, 2, 3] x) => (float[1, 4] y) {{ {STUCK} }}",
        {"w": _random(6, 4), "flat": np.array([1, -1]), "zero": np.array([0])},
    )
    explainer = igonnx.Explainer(graph, engine=engine)
    x = _random(3, 2, 3)
    found = explainer.integrated_gradients(x, target=[0, 1, 3], steps=25)
    (prepared,) = explainer._prepared.values()
    assert prepared.fixed_rows == 1
    _matches_tanh(found, x)
    assert explainer.predict(x)["y"].shape == (3, 4)
    tolerant = explainer.integrated_gradients(x, target=[0, 1, 3], tolerance=0.01)
    np.testing.assert_allclose(tolerant.values, found.values, atol=0.01)


@each_engine
def test_fixed_batch_of_four_that_cannot_be_freed_is_padded(model: Build, engine: str) -> None:
    graph = model(
        """(float[4, 2, 3] x) => (float[4, 4] y) {
            a, b = Split<axis = 0>(x, halves)
            j = Concat<axis = 0>(a, b)
            f = Reshape(j, flat)
            h = MatMul(f, w)
            y = Tanh(h)
        }""",
        {"w": _random(6, 4), "flat": np.array([4, 6]), "halves": np.array([2, 2])},
    )
    explainer = igonnx.Explainer(graph, engine=engine)
    for count in (1, 3, 4, 6):
        x = _random(count, 2, 3)
        found = explainer.integrated_gradients(x, target=[i % 4 for i in range(count)], steps=25)
        _matches_tanh(found, x, [i % 4 for i in range(count)])
        assert explainer.predict(x)["y"].shape == (count, 4)
    (prepared,) = explainer._prepared.values()
    assert prepared.fixed_rows == 4


@each_engine
def test_a_fixed_batch_of_one_with_a_bare_vector_as_output(model: Build, engine: str) -> None:
    graph = model(
        f"(float[1, 2, 3] x) => (float[4] v) {{ {FREEABLE} \n v = Squeeze(y, zero) }}",
        {"w": _random(6, 4), "flat": np.array([1, -1]), "zero": np.array([0])},
    )
    explainer = igonnx.Explainer(graph, engine=engine)
    x = _random(3, 2, 3)
    _matches_tanh(explainer.integrated_gradients(x, target=[0, 1, 3], steps=25), x)
    _matches_tanh(explainer.integrated_gradients(x[:1], target=0, steps=25), x[:1], [0])


def _matches_tanh(found: igonnx.Attribution, x: NDArray[Any], targets: Any = (0, 1, 3)) -> None:
    """IG of tanh(x . w) in closed form: x's shares of w . x times the change of tanh."""
    w = _random(6, 4).astype(np.float64)[:, list(targets)].T
    parts = x.reshape(len(x), 6) * w
    total = parts.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        found.values.reshape(len(x), 6), parts / total * np.tanh(total), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(found.scores, np.tanh(total)[:, 0], rtol=1e-5)


def test_freed_batch_must_not_mix_rows(model: Build) -> None:
    # Reshape to [1, -1] in the middle, then a mean over everything: fine for one row, wrong for two
    graph = model(
        "(float[1, 4] x) => (float[1, 4] y) { m = ReduceMean<keepdims = 1>(x) \n y = Mul(x, m) }",
    )
    x = np.float32([[1, 2, 3, 4], [1, 1, 1, 1]])
    explainer = igonnx.Explainer(graph)
    np.testing.assert_allclose(explainer.predict(x)["y"], x * x.mean(axis=1, keepdims=True))
    found = explainer.integrated_gradients(x, target=0, steps=4)
    np.testing.assert_allclose(found.delta, 0, atol=1e-5)
    constant = np.ones((2, 4), np.float32)  # rows that look the same must not hide it
    np.testing.assert_allclose(
        igonnx.Explainer(graph).predict(constant * [[1], [3]])["y"], [[1] * 4, [9] * 4]
    )


# -- dtypes, opsets, names -------------------------------------------------------------------


@each_engine
@pytest.mark.parametrize(("onnx_type", "dtype"), [("float16", np.float16), ("double", np.float64)])
def test_other_floats(model: Build, engine: str, onnx_type: str, dtype: type) -> None:
    w = _random(3, 2).astype(dtype)
    graph = model(
        f"({onnx_type}[N, 3] x) => ({onnx_type}[N, 2] y) {{ h = MatMul(x, w) \n y = Tanh(h) }}",
        {"w": w},
    )
    x = _random(2, 3, seed=6).astype(dtype)
    found = igonnx.Explainer(graph, engine=engine).integrated_gradients(x, target=1, steps=30)
    # a contribution may exceed what float16 holds
    assert found.values.dtype == (np.float64 if dtype is np.float64 else np.float32)
    parts = x.astype(np.float64) * w[:, 1]
    total = parts.sum(axis=1, keepdims=True)
    bound = 1e-11 if dtype is np.float64 else 5e-3
    np.testing.assert_allclose(found.values, parts / total * np.tanh(total), atol=bound)
    assert found.scores.dtype == np.float64


@each_engine
def test_float_and_double_together(model: Build, engine: str) -> None:
    graph = model(
        "(float[N, 2] a, double[N, 2] b) => (double[N, 2] y) { c = Cast<to = 11>(a) \n p = Mul(c, b) \n y = Sin(p) }"
    )
    inputs = {"a": _random(2, 2), "b": _random(2, 2, seed=1).astype(np.float64)}
    found = igonnx.Explainer(graph, engine=engine).integrated_gradients(inputs, target=0, steps=30)
    assert {name: array.dtype for name, array in found.values.items()} == {
        "a": np.float64,
        "b": np.float64,
    }
    assert np.abs(found.delta).max() < 1e-7


def test_old_opset_and_initializers_listed_as_inputs(model: Build) -> None:
    w = _random(4, 3)
    graph = model(
        """(float[1, 4] x, float[4, 3] w) => (float[1, 3] y) {
            d, unused = Dropout<ratio = 0.5>(x)
            u = Unsqueeze<axes = [0]>(d)
            q = Squeeze<axes = [0]>(u)
            h = MatMul(q, w)
            y = Softmax<axis = 1>(h)
        }""",
        {"w": w},
        opset=9,
        ir_version=3,
    )
    explainer = igonnx.Explainer(graph)
    assert [info.name for info in explainer.model.inputs] == ["x"]
    assert explainer.model.file_opset == 9
    found = explainer.integrated_gradients(_random(2, 4, seed=1), target=2, steps=50)
    _complete(found)


def test_overridable_initializers_keep_their_values(model: Build) -> None:
    graph = model(
        "(float[N, 3] x, float[3] scale) => (float[N, 3] y) { y = Mul(x, scale) }",
        {"scale": np.float32([1, 2, 3])},
    )
    explainer = igonnx.Explainer(graph)
    assert explainer.wrt == ("x",)
    found = explainer.integrated_gradients(np.ones((1, 3), np.float32), steps=1)
    np.testing.assert_array_equal(found.values, [[0, 0, 3]])


NAMES = [
    "row", "alpha", "weight", "cotangent", "score", "slope", "x", "z:x", "x:x", "baseline:x", "fixed:x",
    "gradient:x", "weighted_gradient:x", "rows", "requests", "igonnx/Mul", "igonnx/constant", "plan/Gather", "batch",
]  # fmt: skip


def _with_names(role: str) -> onnx.ModelProto:
    """A model in which tensors of one role carry every name that igonnx uses itself."""
    node, inputs, weights = onnx.helper.make_node, ["IN"], []
    if role == "input":
        inputs = NAMES
        nodes = [node("Sum", NAMES, ["last"])]
    elif role == "fixed":
        inputs = ["IN", *NAMES]
        nodes = [node("Sum", NAMES, ["sum"]), node("Mul", ["IN", "sum"], ["last"])]
    elif role == "inner":
        chain = ["IN", *NAMES, "last"]
        nodes = [node("Sin", [a], [b]) for a, b in pairwise(chain)]
    elif role == "weight":
        weights = NAMES
        nodes = [node("Sum", NAMES, ["sum"]), node("Mul", ["IN", "sum"], ["last"])]
    else:
        chain = ["IN", *(f"t{i}" for i in range(len(NAMES) - 1)), "last"]
        nodes = [
            node("Sin", [a], [b], name=n) for (a, b), n in zip(pairwise(chain), NAMES, strict=False)
        ]
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [*nodes, node("Tanh", ["last"], ["OUT"])],
        "names",
        [info(name, onnx.TensorProto.FLOAT, ["rows", 3]) for name in inputs],
        [info("OUT", onnx.TensorProto.FLOAT, ["rows", 3])],
        [onnx.numpy_helper.from_array(_random(3, seed=i), name) for i, name in enumerate(weights)],
    )
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )


@each_engine
@pytest.mark.parametrize("role", ["input", "fixed", "inner", "weight", "node"])
def test_tensors_may_have_any_name(role: str, engine: str) -> None:
    proto = _with_names(role)
    before = proto.SerializeToString()
    explainer = igonnx.Explainer(proto, wrt=None if role == "input" else "IN", engine=engine)
    inputs = {info.name: _random(2, 3, seed=i) / 4 for i, info in enumerate(explainer.model.inputs)}
    found = explainer.integrated_gradients(inputs, target=1, steps=20)
    _complete(found)
    if role == "input":
        assert list(explainer.wrt) == NAMES
    if role == "inner":
        for name in ("score", "gradient:x"):
            inner = igonnx.Explainer(proto, wrt=name, engine=engine).integrated_gradients(
                inputs, target=1, steps=20
            )
            _complete(inner)
    assert proto.SerializeToString() == before  # the caller's model stays as it was


@each_engine
@pytest.mark.parametrize("name", ["row", "score", "x", "x:x", "weighted_gradient:x", "igonnx/Mul"])
def test_outputs_may_have_any_name(name: str, engine: str) -> None:
    proto = _with_names("node")
    proto.graph.output[0].name = proto.graph.node[-1].output[0] = name
    explainer = igonnx.Explainer(proto, engine=engine)
    _complete(explainer.integrated_gradients(_random(2, 3), target=1, steps=20))
    assert list(explainer.predict(_random(2, 3))) == [name]


@each_engine
def test_model_with_a_branch_outside_the_gradient(model: Build, engine: str) -> None:
    graph = model(
        """(float[N, 2] x, bool flag) => (float[N, 2] y) {
            factor = If (flag) <
                then_branch = then () => (float[1] row) { row = Constant<value = float[1] {3.0}>() },
                else_branch = other () => (float[1] alpha) { alpha = Constant<value = float[1] {5.0}>() }
            >
            y = Mul(x, factor)
        }"""
    )
    explainer = igonnx.Explainer(graph, engine=engine)
    for flag, factor in ((True, 3), (False, 5)):
        found = explainer.integrated_gradients(
            {"x": np.float32([[1, 2]]), "flag": np.array(flag)}, target=1
        )
        np.testing.assert_allclose(found.values, [[0, 2 * factor]], rtol=1e-6)


# -- baselines and targets -------------------------------------------------------------------


def test_baselines(mlp: onnx.ModelProto) -> None:
    explainer = igonnx.Explainer(mlp)
    x = _random(2, 6)
    ends = {
        "none": (None, np.zeros((2, 6))),
        "number": (0.5, np.full((2, 6), 0.5)),
        "integer": (1, np.ones((2, 6))),
        "feature": (_random(6, seed=1), np.tile(_random(6, seed=1), (2, 1))),
        "example": (_random(2, 1, seed=1), np.tile(_random(2, 1, seed=1), (1, 6))),
        "full": (_random(2, 6, seed=1), _random(2, 6, seed=1)),
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


def test_targets(mlp: onnx.ModelProto) -> None:
    explainer = igonnx.Explainer(mlp)
    x = _random(3, 6)
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


# -- progress and threads --------------------------------------------------------------------


@each_engine
@pytest.mark.parametrize(
    "options", [{"steps": 30}, {"tolerance": 0.05}], ids=["fixed", "tolerance"]
)
def test_progress_rises_to_the_total(
    mlp: onnx.ModelProto, engine: str, options: dict[str, Any]
) -> None:
    calls: list[tuple[int, int]] = []
    explainer = igonnx.Explainer(mlp, engine=engine, batch_size=7)
    explainer.integrated_gradients(
        _random(3, 6), progress=lambda *call: calls.append(call), **options
    )
    done, totals = zip(*calls, strict=True)
    assert len(set(totals)) == 1
    assert list(done) == sorted(done)
    assert done[-1] == totals[0]
    assert done[0] > 0
    assert len(calls) > 3


@each_engine
@pytest.mark.parametrize(
    "options", [{"steps": 300}, {"tolerance": 0.001}], ids=["fixed", "tolerance"]
)
def test_an_exception_in_progress_stops(
    mlp: onnx.ModelProto, engine: str, options: dict[str, Any]
) -> None:
    class EnoughError(Exception):
        pass

    calls = []

    def stop(done: int, total: int) -> None:
        calls.append((done, total))
        if len(calls) == 2:
            raise EnoughError

    explainer = igonnx.Explainer(mlp, engine=engine, batch_size=4)
    with pytest.raises(EnoughError):
        explainer.integrated_gradients(_random(3, 6), progress=stop, **options)
    assert len(calls) == 2
    _complete(explainer.integrated_gradients(_random(3, 6), steps=100))  # and it still works


@each_engine
def test_several_threads_share_an_explainer(mlp: onnx.ModelProto, engine: str) -> None:
    explainer = igonnx.Explainer(mlp, engine=engine, threads=1)
    expected = {
        count: igonnx.Explainer(mlp, engine=engine).integrated_gradients(
            _random(count, 6, seed=count), target=1
        )
        for count in range(1, 5)
    }
    start = threading.Barrier(8)

    def work(number: int) -> bool:
        count = number % 4 + 1
        start.wait()
        found = [
            explainer.integrated_gradients(_random(count, 6, seed=count), target=1).values
            for _ in range(5)
        ]
        return all(np.allclose(one, expected[count].values, atol=1e-6) for one in found)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_steps_used_and_method(mlp: onnx.ModelProto) -> None:
    explainer = igonnx.Explainer(mlp)
    found = explainer.integrated_gradients(_random(2, 6), steps=9, rule="trapezoid")
    assert found.steps_used.tolist() == [10, 10]
    assert found.method == "integrated_gradients rule=trapezoid steps=9"
    assert found.error_estimate is None
    assert len(found.path[0].alpha) == 10
    gauss = explainer.integrated_gradients(_random(2, 6), steps=9)
    assert gauss.steps_used.tolist() == [9, 9]
    assert len(gauss.path[0].alpha) == 11  # the ends, for their scores
    assert gauss.path[0].weight[[0, -1]].tolist() == [0, 0]


def test_inputs_need_not_be_contiguous_and_stay_as_they_are(mlp: onnx.ModelProto) -> None:
    explainer = igonnx.Explainer(mlp)
    x = _random(6, 3).T
    strided = _random(6, 12)[::2, ::2]
    for given in (x, strided, x.astype(np.float64), x.tolist()):
        before = np.array(given)
        found = explainer.integrated_gradients(given, target=0, steps=3)
        np.testing.assert_array_equal(given, before)
        again = explainer.integrated_gradients(
            np.ascontiguousarray(given, np.float32), target=0, steps=3
        )
        np.testing.assert_array_equal(found.values, again.values)


def test_predict_needs_no_gradient() -> None:
    """A tree of one decision, x[0] <= 0.5: it has no gradient, and that is said only where one is asked for."""
    tree = onnx.helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[0.5, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0, 0],
        target_nodeids=[1, 2],
        target_ids=[0, 0],
        target_weights=[-1.0, 2.0],
    )
    floats = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [tree],
        "forest",
        [onnx.helper.make_tensor_value_info("x", floats, ["N", 2])],
        [onnx.helper.make_tensor_value_info("y", floats, ["N", 1])],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("ai.onnx.ml", 3)]
    explainer = igonnx.Explainer(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8))
    x = np.array([[0.0, 3.0], [1.0, 3.0]], np.float32)
    np.testing.assert_array_equal(explainer.predict(x)["y"], [[-1.0], [2.0]])
    with pytest.raises(igonnx.UnsupportedOperatorError, match="perturbation"):
        explainer.integrated_gradients(x)


# -- which axis counts examples, settled by trying --------------------------------------------


@each_engine
@pytest.mark.parametrize("count", [1, 3, 4])
def test_a_table_as_long_as_the_batch_is_no_batch(model: Build, engine: str, count: int) -> None:
    graph = model(
        """(float[N, 3] x, float[K, 3] table) => (float[N, 1] y) {
            t = Transpose<perm = [1, 0]>(table)
            d = MatMul(x, t)
            e = Tanh(d)
            y = ReduceSum<keepdims = 1>(e, axes)
        }""",
        {"axes": np.array([1])},
    )
    x, table = _random(count, 3), _random(4, 3, seed=1)
    explainer = igonnx.Explainer(graph, wrt="x", engine=engine)
    found = explainer.integrated_gradients({"x": x, "table": table}, target=0)
    np.testing.assert_allclose(found.scores, np.tanh(x @ table.T).sum(axis=1), rtol=1e-5, atol=1e-6)
    _complete(found)


@each_engine
def test_batch_axes_of_several_names_are_one(model: Build, engine: str) -> None:
    graph = model(
        "(float[unk_1, 3] x, float[unk_2, 3] mask) => (float[unk_3, 3] y) { p = Mul(x, mask) \n y = Sin(p) }"
    )
    x, mask = _random(4, 3), np.eye(4, 3, dtype=np.float32)
    explainer = igonnx.Explainer(graph, wrt="x", engine=engine)
    found = explainer.integrated_gradients({"x": x, "mask": mask}, target=1)
    np.testing.assert_allclose(found.scores, np.sin(x * mask)[:, 1], rtol=1e-5, atol=1e-6)


@each_engine
def test_examples_that_influence_each_other_are_run_alone(model: Build, engine: str) -> None:
    graph = model(
        """(float[N, 3] x) => (float[N, 2] y) {
            m = ReduceMax<axes = [0], keepdims = 1>(x)
            d = Div(x, m)
            y = MatMul(d, w)
        }""",
        {"w": _random(3, 2)},
    )
    x = np.abs(_random(4, 3, seed=1)) + 1
    explainer = igonnx.Explainer(graph, engine=engine)
    with pytest.warns(UserWarning, match="examples of a batch influence each other"):
        found = explainer.integrated_gradients(x, baseline=0.5, target=0)
    alone = [explainer.integrated_gradients(one[None], baseline=0.5, target=0) for one in x]
    np.testing.assert_allclose(found.scores, [one.scores[0] for one in alone], rtol=1e-6)
    np.testing.assert_allclose(
        found.values, np.concatenate([one.values for one in alone]), atol=1e-6
    )
    together = explainer.predict(x)["y"]
    np.testing.assert_allclose(together, x / x.max(axis=0) @ _random(3, 2), rtol=1e-5)


def test_examples_along_a_later_axis_are_refused(model: Build) -> None:
    graph = model(
        """(float[T, N, 3] x) => (float[N, 3] y) {
            t = Tanh(x)
            y = ReduceMean<axes = [0], keepdims = 0>(t)
        }"""
    )
    with pytest.raises(igonnx.ModelError) as caught:
        igonnx.Explainer(graph).integrated_gradients(_random(5, 1, 3))
    assert str(caught.value) == (
        "output 'y' counts examples by 'N', which is axis 1 of input 'x': "
        "only models with the examples along the first axis can be explained"
    )


# -- values at the edge ----------------------------------------------------------------------


@each_engine
def test_an_additive_mask_may_be_infinite(model: Build, engine: str) -> None:
    graph = model(
        "(float[N, 3] x, float[N, 3] mask) => (float[N, 3] y) { a = Add(x, mask) \n y = Softmax(a) }"
    )
    x = _random(2, 3)
    mask = np.array([[0, 0, -np.inf]] * 2, np.float32)
    explainer = igonnx.Explainer(graph, wrt="x", engine=engine)
    found = explainer.integrated_gradients({"x": x, "mask": mask}, target=0)
    assert np.abs(found.values[:, 2]).max() == 0
    _complete(found)


@each_engine
@pytest.mark.parametrize("rule", ["gauss_legendre", "right", "middle"])
def test_a_singularity_at_the_baseline_alone_does_no_harm(
    model: Build, engine: str, rule: str
) -> None:
    graph = model("(float[N, 3] x) => (float[N, 3] y) { y = Sqrt(x) }")
    x = np.array([[1.0, 4.0, 9.0]], np.float32)
    explainer = igonnx.Explainer(graph, engine=engine)
    found = explainer.integrated_gradients(x, target=1, steps=400, rule=rule)
    np.testing.assert_allclose(found.values, [[0, 2, 0]], atol=0.08)
    assert found.baseline_scores[0] == 0


@each_engine
def test_half_precision_contributions_do_not_overflow(model: Build, engine: str) -> None:
    graph = model(
        "(float16[N, 2] x) => (float16[N, 1] y) { y = MatMul(x, w) }",
        {"w": np.array([[300], [-300]], np.float16)},
    )
    x = np.array([[250, 249]], np.float16)
    found = igonnx.Explainer(graph, engine=engine).integrated_gradients(x, target=0)
    np.testing.assert_allclose(found.values, [[75000, -74700]])
