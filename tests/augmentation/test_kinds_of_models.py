"""Augmented models of other dtypes, batch axes, control flow, and names."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import pytest
from augmented_runs import Build, assert_as_explained, checked, distance, random, run

import igonnx
from igonnx.models import digits

# -- batch axes --------------------------------------------------------------------------------

FREEABLE = "f = Reshape(x, flat) \n h = MatMul(f, w) \n y = Tanh(h)"
# Squeeze holds the batch axis at 1 for good
STUCK = "s = Squeeze(x, zero) \n f = Reshape(s, flat) \n h = MatMul(f, w) \n y = Tanh(h)"


def _loop_rows(model: onnx.ModelProto) -> int:
    """How many points of the path the Loop runs at once."""
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    trips = next(t for t in model.graph.initializer if t.name == loop.input[0])
    points = 1 + 20  # the baseline is one
    return -(-points // int(onnx.numpy_helper.to_array(trips)))


@pytest.mark.parametrize(("body", "at_once"), [(FREEABLE, 7), (STUCK, 1)])
def test_a_batch_fixed_at_one(model: Build, body: str, at_once: int) -> None:
    weights = {"w": random(6, 4), "flat": np.array([1, -1]), "zero": np.array([0])}
    used = {name: array for name, array in weights.items() if f"{name})" in body}
    graph = model(f"(float[1, 2, 3] x) => (float[1, 4] y) {{ {body} }}", used)
    augmented = checked(igonnx.augment(graph, steps=20))
    assert _loop_rows(augmented) == at_once
    x = random(1, 2, 3)
    found = run(augmented, {"x": x})
    assert_as_explained(found, igonnx.Explainer(graph).integrated_gradients(x, steps=20), ("x",))


@pytest.mark.parametrize(
    ("body", "at_once"),
    [
        (FREEABLE, 7),
        (
            "a, b = Split<axis = 0>(x, halves) \n j = Concat<axis = 0>(a, b) \n f = Reshape(j, flat) \n "
            "h = MatMul(f, w) \n y = Tanh(h)",
            1,
        ),
    ],
)
def test_a_batch_fixed_at_four(model: Build, body: str, at_once: int) -> None:
    weights = {"w": random(6, 4), "flat": np.array([4, 6]), "halves": np.array([2, 2])}
    used = {name: array for name, array in weights.items() if f"{name})" in body}
    graph = model(f"(float[4, 2, 3] x) => (float[4, 4] y) {{ {body} }}", used)
    augmented = checked(igonnx.augment(graph, steps=20))
    assert _loop_rows(augmented) == at_once
    x = random(4, 2, 3)
    found = run(augmented, {"x": x})
    assert_as_explained(found, igonnx.Explainer(graph).integrated_gradients(x, steps=20), ("x",))


def test_a_mean_over_the_fixed_batch_is_not_freed(model: Build) -> None:
    graph = model(
        "(float[1, 4] x) => (float[1, 4] y) { m = ReduceMean<keepdims = 1>(x) \n y = Mul(x, m) }"
    )
    x = np.float32([[1, 2, 3, 4]])
    augmented = igonnx.augment(graph, steps=20)
    assert _loop_rows(augmented) == 1
    expected = igonnx.Explainer(graph).integrated_gradients(x, steps=20)
    assert_as_explained(run(augmented, {"x": x}), expected, ("x",))


def test_an_output_without_batch_axis(model: Build) -> None:
    graph = model(
        f"(float[1, 2, 3] x) => (float[4] v) {{ {FREEABLE} \n v = Squeeze(y, zero) }}",
        {"w": random(6, 4), "flat": np.array([1, -1]), "zero": np.array([0])},
    )
    x = random(1, 2, 3)
    found = run(checked(igonnx.augment(graph, steps=20)), {"x": x})
    assert_as_explained(found, igonnx.Explainer(graph).integrated_gradients(x, steps=20), ("x",))


def test_a_batch_axis_further_back_in_the_output(model: Build) -> None:
    graph = model(
        """(float[N, T, 3] x) => (float[T, N, 3] y) {
            t = Transpose<perm = [1, 0, 2]>(x) \n s = Sin(t) \n y = Mul(s, t)
        }"""
    )
    x = random(4, 5, 3)
    explainer = igonnx.Explainer(graph, apply="softmax")
    found = run(checked(igonnx.augment(graph, apply="softmax", steps=20)), {"x": x})
    assert_as_explained(found, explainer.integrated_gradients(x, steps=20), ("x",))


def test_rows_that_share_a_branch_go_point_by_point(model: Build) -> None:
    """What is in a batch decides for all of its rows: points of the path must not decide for each other."""
    graph = model(
        """(float[N, 3] x) => (float[N, 3] y) {
            total = ReduceSum<keepdims = 0>(x) \n limit = Constant<value = float {1.0}>()
            large = Greater(total, limit)
            y = If (large) <
                then_branch = yes () => (float[N, 3] a) { a = Mul(x, x) },
                else_branch = no () => (float[N, 3] b) { b = Sin(x) }
            >
        }"""
    )
    augmented = checked(igonnx.augment(graph, steps=20))
    assert _loop_rows(augmented) == 1
    x = np.float32([[1, 2, 3]])
    expected = igonnx.Explainer(graph, batch_size=1)
    with pytest.warns(UserWarning, match="influence each other"):
        attribution = expected.integrated_gradients(x, steps=20)
    assert_as_explained(run(augmented, {"x": x}), attribution, ("x",))


def test_rows_that_share_a_scale_go_point_by_point(model: Build) -> None:
    graph = model(
        """(float[N, 3] x) => (float[N, 2] y) {
            codes, scale, zero = DynamicQuantizeLinear(x)
            q = DequantizeLinear(codes, scale, zero) \n h = MatMul(q, w) \n y = Tanh(h)
        }""",
        {"w": random(3, 2)},
    )
    augmented = checked(igonnx.augment(graph, steps=20))
    assert _loop_rows(augmented) == 1
    x = random(1, 3)
    with pytest.warns(UserWarning, match="influence each other"):
        expected = igonnx.Explainer(graph).integrated_gradients(x, steps=20)
    assert_as_explained(run(augmented, {"x": x}), expected, ("x",))


# -- inputs ------------------------------------------------------------------------------------


def test_several_inputs_and_baselines(model: Build) -> None:
    graph = model(
        "(float[N, 3] a, float[N, 3] b, float[3] c) => (float[N, 3] y) { p = Mul(a, b) \n q = Add(p, c) \n y = Sin(q) }"
    )
    augmented = checked(igonnx.augment(graph, wrt=["a", "b"], steps=20, baseline=0.5))
    names = [entry.name for entry in augmented.graph.input]
    assert names == ["a", "b", "c", "target", "baseline_a", "baseline_b"]
    feeds = {"a": random(4, 3), "b": random(4, 3, seed=1), "c": random(3, seed=2)}
    explainer = igonnx.Explainer(graph, wrt=["a", "b"])
    expected = explainer.integrated_gradients(feeds, steps=20, baseline=0.5)
    assert_as_explained(run(augmented, feeds), expected, ("a", "b"))
    given = {"a": random(4, 3, seed=3), "b": np.float32([[1, 2, 3]])}
    expected = explainer.integrated_gradients(feeds, steps=20, baseline=given)
    found = run(augmented, {**feeds, "baseline_a": given["a"], "baseline_b": given["b"]})
    assert_as_explained(found, expected, ("a", "b"))


def test_inputs_that_have_defaults_keep_them(model: Build) -> None:
    graph = model(
        "(float[N, 3] x, float[3] scale) => (float[N, 3] y) { s = Mul(x, scale) \n y = Sin(s) }",
        {"scale": np.float32([1, 2, 3])},
    )
    augmented = checked(igonnx.augment(graph, steps=20))
    x, scale = random(2, 3), np.float32([0.5, 1, 2])
    for feeds in ({"x": x}, {"x": x, "scale": scale}):
        found = run(augmented, feeds)
        factor = feeds.get("scale", np.float32([1, 2, 3]))
        y = np.sin(x * factor)
        np.testing.assert_allclose(found["y"], y, rtol=1e-6)
        chosen = y.argmax(axis=1)
        expected = np.where(np.arange(3) == chosen[:, None], y, 0)
        np.testing.assert_allclose(found["attribution_x"], expected, atol=1e-6)


def test_text_and_whole_numbers_beside_the_explained_input(model: Build) -> None:
    graph = model(
        "(float[N, 3] x, int64[N] place, string[N] note) => (float[N, 3] y, string[N] same) "
        "{ c = CastLike(place, x) \n u = Unsqueeze(c, one) \n p = Mul(x, u) \n y = Sin(p) \n same = Identity(note) }",
        {"one": np.array([1])},
    )
    feeds = {
        "x": random(2, 3),
        "place": np.array([1, 2]),
        "note": np.array(["a", "b"], dtype=object),
    }
    explainer = igonnx.Explainer(graph)
    found = run(checked(igonnx.augment(graph, steps=20)), feeds)
    assert_as_explained(found, explainer.integrated_gradients(feeds, steps=20), ("x",))
    assert list(found["same"]) == ["a", "b"]


# -- dtypes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "dtype"), [("float16", np.float16), ("double", np.float64)])
def test_other_floats(model: Build, kind: str, dtype: type) -> None:
    graph = model(
        f"({kind}[N, 3] x) => ({kind}[N, 2] y) {{ h = MatMul(x, w) \n y = Tanh(h) }}",
        {"w": random(3, 2).astype(dtype)},
    )
    x = random(2, 3, seed=6).astype(dtype)
    found = run(checked(igonnx.augment(graph, steps=30)), {"x": x})
    expected = igonnx.Explainer(graph).integrated_gradients(x, steps=30)
    assert found["attribution_x"].dtype == expected.values.dtype
    assert_as_explained(found, expected, ("x",), 1e-12 if dtype is np.float64 else 2e-3)


# -- bodies, functions, old files --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_recurrent_networks(model: Build, kind: str) -> None:
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[kind]
    graph = model(
        f"""(float[N, 6, 2] x) => (float[N, 5] y) {{
            t = Transpose<perm = [1, 0, 2]>(x)
            all, last = {kind}<hidden_size = 5>(t, w, r)
            y = Squeeze(last, zero)
        }}""",
        {
            "w": random(1, gates * 5, 2),
            "r": random(1, gates * 5, 5, seed=1),
            "zero": np.array([0]),
        },
    )
    x = random(3, 6, 2)
    expected = igonnx.Explainer(graph).integrated_gradients(x, steps=12)
    for lazy in (False, True):
        augmented = checked(igonnx.augment(graph, steps=12, chunk=5, lazy=lazy))
        feeds: dict[str, Any] = {"x": x} | ({"explain": np.array([True])} if lazy else {})
        assert_as_explained(run(augmented, feeds), expected, ("x",))


def test_a_loop_within_the_loop(model: Build) -> None:
    graph = model(
        """(float[N, 3] x) => (float[N, 3] y) {
            times = Constant<value = int64 {3}>() \n on = Constant<value = bool {1}>()
            y = Loop (times, on, x) <body = b (int64 i, bool c, float[N, 3] s) => (bool c2, float[N, 3] s2) {
                c2 = Identity(c) \n m = MatMul(s, w) \n s2 = Tanh(m)
            }>
        }""",
        {"w": random(3, 3)},
    )
    x = random(4, 3)
    expected = igonnx.Explainer(graph).integrated_gradients(x, steps=12)
    for lazy in (False, True):
        augmented = checked(igonnx.augment(graph, steps=12, chunk=5, lazy=lazy))
        feeds: dict[str, Any] = {"x": x} | ({"explain": np.array([True])} if lazy else {})
        assert_as_explained(run(augmented, feeds), expected, ("x",))


def test_functions_stay_functions() -> None:
    graph = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17, "own": 1]>
        main (float[N, 3] x) => (float[N, 3] y) { h = own.Wave(x) \n y = own.Wave(h) }
        <domain: "own", opset_import: ["": 17]>
        Wave (a) => (b) { s = Sin(a) \n b = Mul(s, a) }"""
    )
    x = random(2, 3)
    expected = igonnx.Explainer(graph).integrated_gradients(x, steps=12)
    augmented = checked(igonnx.augment(graph, steps=12))
    assert [function.name for function in augmented.functions] == ["Wave"]
    assert_as_explained(run(augmented, {"x": x}), expected, ("x",))


def test_a_network_brought_back_to_opset_17() -> None:
    images = digits.test_set()[0][:7]
    older = onnx.version_converter.convert_version(digits.load(), 17)
    augmented = checked(igonnx.augment(older, steps=12))
    assert [(entry.domain, entry.version) for entry in augmented.opset_import] == [("", 17)]
    expected = igonnx.Explainer(older).integrated_gradients(images, steps=12)
    assert_as_explained(run(augmented, {"image": images}), expected, ("image",))


def test_old_opsets_are_raised_and_new_ones_kept(model: Build) -> None:
    text = "(float[N, 3] x) => (float[N, 3] y) { s = Sin(x) \n y = Softmax<axis = 1>(s) }"
    for opset, made in ((9, 17), (17, 17), (21, 21)):
        augmented = checked(igonnx.augment(model(text, opset=opset), steps=12))
        assert [entry.version for entry in augmented.opset_import if not entry.domain] == [made]
        x = random(2, 3)
        expected = igonnx.Explainer(model(text, opset=opset)).integrated_gradients(x, steps=12)
        assert_as_explained(run(augmented, {"x": x}), expected, ("x",))


def test_operators_of_the_runtime_stay(model: Build) -> None:
    graph = model(
        "(float[N, 3] x) => (float[N, 3] y) { y = com.microsoft.Gelu(x) }",
        domains=', "com.microsoft": 1',
    )
    x = random(2, 3)
    augmented = igonnx.augment(graph, steps=12)
    assert augmented.graph.node[0].op_type == "Gelu"
    expected = igonnx.Explainer(graph).integrated_gradients(x, steps=12)
    assert_as_explained(run(augmented, {"x": x}), expected, ("x",))


# -- inner tensors -----------------------------------------------------------------------------


def test_a_tensor_inside(model: Build) -> None:
    graph = model(
        """(int64[N, T] ids, int64[N, T] mask) => (float[N, 4] y) {
            e = Gather(table, ids) \n m = Cast<to = 1>(mask) \n u = Unsqueeze(m, two) \n p = Mul(e, u)
            t = Tanh(p) \n s = ReduceSum<keepdims = 0>(t, one) \n y = MatMul(s, w)
        }""",
        {
            "table": random(20, 5), "w": random(5, 4), "one": np.array([1]), "two": np.array([2]),
        },
    )  # fmt: skip
    feeds = {"ids": np.arange(12).reshape(3, 4), "mask": np.array([[1, 1, 1, 0]] * 3)}
    expected = igonnx.Explainer(graph).integrated_gradients(feeds, steps=12)
    found = run(checked(igonnx.augment(graph, steps=12, chunk=5)), feeds)
    assert_as_explained(found, expected, ("e",))
    padding = random(20, 5)[np.zeros((1, 4), np.int64)]
    expected = igonnx.Explainer(graph).integrated_gradients(feeds, steps=12, baseline=padding)
    found = run(igonnx.augment(graph, steps=12, chunk=5), {**feeds, "baseline": padding})
    assert distance(found["attribution_e"], expected.values) < 1e-4
