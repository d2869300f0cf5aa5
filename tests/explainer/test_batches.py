"""`Explainer` and the axis that counts examples: fixed batch sizes, and what settles it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from explaining import Build, assert_complete, each_engine, random
from numpy.typing import NDArray

import igonnx

# -- fixed batch sizes -------------------------------------------------------------------------


def _fixed(model: Build, batch: int, body: str) -> onnx.ModelProto:
    weights = {
        "w": random(6, 4),
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
    x = random(3, 2, 3)
    found = explainer.integrated_gradients(x, target=[0, 1, 3], steps=25)
    (prepared,) = explainer._prepared.values()
    assert prepared.fixed_rows is None
    _matches_tanh(found, x)
    assert explainer.predict(x)["y"].shape == (3, 4)


@each_engine
def test_fixed_batch_that_cannot_be_freed_is_looped(model: Build, engine: str) -> None:
    graph = model(
        f"(float[1, 2, 3] x) => (float[1, 4] y) {{ {STUCK} }}",
        {"w": random(6, 4), "flat": np.array([1, -1]), "zero": np.array([0])},
    )
    explainer = igonnx.Explainer(graph, engine=engine)
    x = random(3, 2, 3)
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
        {"w": random(6, 4), "flat": np.array([4, 6]), "halves": np.array([2, 2])},
    )
    explainer = igonnx.Explainer(graph, engine=engine)
    for count in (1, 3, 4, 6):
        x = random(count, 2, 3)
        found = explainer.integrated_gradients(x, target=[i % 4 for i in range(count)], steps=25)
        _matches_tanh(found, x, [i % 4 for i in range(count)])
        assert explainer.predict(x)["y"].shape == (count, 4)
    (prepared,) = explainer._prepared.values()
    assert prepared.fixed_rows == 4


@each_engine
def test_a_fixed_batch_of_one_with_a_bare_vector_as_output(model: Build, engine: str) -> None:
    graph = model(
        f"(float[1, 2, 3] x) => (float[4] v) {{ {FREEABLE} \n v = Squeeze(y, zero) }}",
        {"w": random(6, 4), "flat": np.array([1, -1]), "zero": np.array([0])},
    )
    explainer = igonnx.Explainer(graph, engine=engine)
    x = random(3, 2, 3)
    _matches_tanh(explainer.integrated_gradients(x, target=[0, 1, 3], steps=25), x)
    _matches_tanh(explainer.integrated_gradients(x[:1], target=0, steps=25), x[:1], [0])


def _matches_tanh(found: igonnx.Attribution, x: NDArray[Any], targets: Any = (0, 1, 3)) -> None:
    """IG of tanh(x . w) in closed form: x's shares of w . x times the change of tanh."""
    w = random(6, 4).astype(np.float64)[:, list(targets)].T
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


# -- which axis counts examples, settled by trying ---------------------------------------------


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
    x, table = random(count, 3), random(4, 3, seed=1)
    explainer = igonnx.Explainer(graph, wrt="x", engine=engine)
    found = explainer.integrated_gradients({"x": x, "table": table}, target=0)
    np.testing.assert_allclose(found.scores, np.tanh(x @ table.T).sum(axis=1), rtol=1e-5, atol=1e-6)
    assert_complete(found)


@each_engine
def test_batch_axes_of_several_names_are_one(model: Build, engine: str) -> None:
    graph = model(
        "(float[unk_1, 3] x, float[unk_2, 3] mask) => (float[unk_3, 3] y) { p = Mul(x, mask) \n y = Sin(p) }"
    )
    x, mask = random(4, 3), np.eye(4, 3, dtype=np.float32)
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
        {"w": random(3, 2)},
    )
    x = np.abs(random(4, 3, seed=1)) + 1
    explainer = igonnx.Explainer(graph, engine=engine)
    with pytest.warns(UserWarning, match="examples of a batch influence each other"):
        found = explainer.integrated_gradients(x, baseline=0.5, target=0)
    alone = [explainer.integrated_gradients(one[None], baseline=0.5, target=0) for one in x]
    np.testing.assert_allclose(found.scores, [one.scores[0] for one in alone], rtol=1e-6)
    np.testing.assert_allclose(
        found.values, np.concatenate([one.values for one in alone]), atol=1e-6
    )
    together = explainer.predict(x)["y"]
    np.testing.assert_allclose(together, x / x.max(axis=0) @ random(3, 2), rtol=1e-5)


def test_examples_along_a_later_axis_are_refused(model: Build) -> None:
    graph = model(
        """(float[T, N, 3] x) => (float[N, 3] y) {
            t = Tanh(x)
            y = ReduceMean<axes = [0], keepdims = 0>(t)
        }"""
    )
    with pytest.raises(igonnx.ModelError) as caught:
        igonnx.Explainer(graph).integrated_gradients(random(5, 1, 3))
    assert str(caught.value) == (
        "output 'y' counts examples by 'N', which is axis 1 of input 'x': "
        "only models with the examples along the first axis can be explained"
    )
