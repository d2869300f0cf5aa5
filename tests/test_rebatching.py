"""Freeing a fixed batch axis: only when it is certain that rows stay what they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import igonnx
from igonnx.engine.forward import Forward
from igonnx.model import Model
from igonnx.rebatching import fixed_batch, rebatched

Build = Callable[..., onnx.ModelProto]
LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"

X = np.random.default_rng(0).normal(size=(1, 4, 6)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(6, 6)).astype(np.float32)
WIDE = np.random.default_rng(2).normal(size=(24, 5)).astype(np.float32)


def _load(
    model: Build, body: str, out: str = "1, ?", weights: dict[str, np.ndarray] | None = None
) -> Model:
    declared = f"float[{out}]" if out else "float"
    return Model.load(model(f"(float[1, 4, 6] x) => ({declared} y) {{ {body} }}", weights))


FREE: dict[str, tuple[str, str, dict[str, np.ndarray]]] = {
    "plain": ("y = Relu(x)", "1, 4, 6", {}),
    "flatten": ("f = Flatten(x) \n y = MatMul(f, w)", "1, 5", {"w": WIDE}),
    "reshape": (
        "f = Reshape(x, s) \n y = MatMul(f, w)",
        "1, 5",
        {"w": WIDE, "s": np.array([1, 24])},
    ),
    "reshape with -1": (
        "f = Reshape(x, s) \n y = MatMul(f, w)",
        "1, 5",
        {"w": WIDE, "s": np.array([1, -1])},
    ),
    "heads": (
        "h = Reshape(x, s) \n t = Transpose<perm = [0, 2, 1, 3]>(h) \n y = Reshape(t, r)",
        "1, 4, 6",
        {"s": np.array([1, 4, 2, 3]), "r": np.array([1, 4, 6])},
    ),
    "time first": ("y = Transpose<perm = [1, 0, 2]>(x)", "4, 1, 6", {}),
    "shape computed": (
        "n = Shape<start = 0, end = 1>(x) \n s = Concat<axis = 0>(n, r) \n y = Reshape(x, s)",
        "1, 24",
        {"r": np.array([-1])},
    ),
}


@pytest.mark.parametrize("name", FREE)
def test_freed(model: Build, name: str) -> None:
    body, out, weights = FREE[name]
    loaded = _load(model, body, out, weights)
    assert fixed_batch(loaded, ["x"]) == 1
    free = rebatched(loaded, {"x": X}, ["x"])
    assert free is not None
    assert fixed_batch(free, ["x"]) is None
    assert fixed_batch(loaded, ["x"]) == 1  # the original stays
    rows = np.random.default_rng(3).normal(size=(5, 4, 6)).astype(np.float32)
    together = Forward(free).run({"x": rows}, ["x"], {})["y"]
    apart = [Forward(loaded).run({"x": rows[i : i + 1]}, ["x"], {})["y"] for i in range(5)]
    np.testing.assert_allclose(
        together, np.concatenate(apart, axis=1 if name == "time first" else 0), rtol=1e-5
    )


HELD: dict[str, tuple[str, str, dict[str, np.ndarray]]] = {
    "squeezed": (
        "s = Squeeze(x, zero) \n m = MatMul(s, w) \n y = Unsqueeze(m, zero)",
        "1, 4, 6",
        {"zero": np.array([0]), "w": W},
    ),
    "mean over everything": ("m = ReduceMean<keepdims = 1>(x) \n y = Mul(x, m)", "1, 4, 6", {}),
    "softmax over examples": ("y = Softmax<axis = 0>(x)", "1, 4, 6", {}),
    "first example only": (
        "f = Gather<axis = 0>(x, zero) \n y = Identity(f)",
        "4, 6",
        {"zero": np.array(0)},
    ),
    "mixed by a reshape": (
        "f = Reshape(x, s) \n y = ReduceMax<axes = [0]>(f)",
        "1, 6",
        {"s": np.array([-1, 6])},
    ),
    "scalar": ("y = ReduceSum<keepdims = 0>(x)", "", {}),
}


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("sample", ["random", "constant", "zero"])
def test_not_freed(model: Build, name: str, sample: str) -> None:
    body, out, weights = HELD[name]
    x = {"random": X, "constant": np.ones_like(X), "zero": np.zeros_like(X)}[sample]
    assert rebatched(_load(model, body, out, weights), {"x": x}, ["x"]) is None


def test_a_free_model_is_returned_as_it_is(mlp: onnx.ModelProto) -> None:
    loaded = Model.load(mlp)
    assert fixed_batch(loaded, ["x"]) is None
    assert rebatched(loaded, {"x": np.ones((1, 6), np.float32)}, ["x"]) is loaded


def test_several_inputs_and_several_at_once(model: Build) -> None:
    loaded = Model.load(
        model(
            """(float[2, 3] x, int64[2] ids, float[4, 3] table) => (float[2, 3] y) {
                rows = Gather(table, ids)
                s = Reshape(rows, shape)
                y = Mul(x, s)
            }""",
            {"shape": np.array([2, 3])},
        )
    )
    sample = {
        "x": np.ones((1, 3), np.float32),
        "ids": np.array([3]),
        "table": np.eye(4, 3, dtype=np.float32),
    }
    free = rebatched(loaded, sample, ["x", "ids"])
    assert free is not None
    assert [info.shape[0] for info in free.inputs] == ["batch", "batch", 4]


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_old_published_models(name: str) -> None:
    """shufflenet splits and joins its channels by reshapes that hold the batch axis at 1."""
    loaded = Model.load(LIGHT / f"light_{name}.onnx")
    (info,) = loaded.inputs
    sample = {info.name: np.random.default_rng(0).random(info.shape).astype(np.float32)}
    free = rebatched(loaded, sample, [info.name])
    assert free is not None


def test_a_fixed_forward_joins_what_it_ran_in_parts(model: Build) -> None:
    loaded = Model.load(
        model("(float[2, 3] x) => (float[3, 2] turned, float[2, 3] same, float[3] last) { turned = Transpose(x) \n"
            " same = Relu(x) \n last = Gather<axis = 0>(x, one) }", {"one": np.array(1)})
    )  # fmt: skip
    x = np.arange(15, dtype=np.float32).reshape(5, 3)
    results = Forward(loaded, fixed_rows=2).run({"x": x}, ["x"], {})
    np.testing.assert_array_equal(results["turned"], x.T)
    np.testing.assert_array_equal(results["same"], x)
    np.testing.assert_array_equal(results["last"], [x[1], x[3], x[4]])  # no batch axis: one per run


LOOP = """
    n = Constant<value = int64 {3}>()
    go = Constant<value = bool {1}>()
    y = Loop(n, go, x)<body = step (int64 i, bool c, float[1, 4, 6] h) => (bool d, float[1, 4, 6] r) {
        d = Identity(c)
        s = Constant<value = int64[3] {1, 4, 6}>()
        v = Reshape(h, s)
        m = Mul(v, x)
        r = Tanh(m)
    }>
"""
SCAN = """
    first = ReduceMean<axes = [1], keepdims = 0>(x)
    slices = Transpose<perm = [1, 0, 2]>(x)
    y, all = Scan<num_scan_inputs = 1, body = step (float[1, 6] h, float[1, 6] s) => (float[1, 6] r, float[1, 6] t) {
        m = Mul(h, s)
        r = Tanh(m)
        t = Identity(r)
    }>(first, slices)
"""
BRANCH = """
    zero = Constant<value = float {0}>()
    most = ReduceMax<keepdims = 0>(x)
    positive = Greater(most, zero)
    y = If(positive)<
        then_branch = yes () => (float[1, 4, 6] a) { a = Mul(x, x) },
        else_branch = no () => (float[1, 4, 6] b) { b = Exp(x) }>
"""


@pytest.mark.parametrize(("body", "out"), [(LOOP, "1, 4, 6"), (SCAN, "1, 6")], ids=["loop", "scan"])
def test_bodies_forget_the_fixed_batch_too(model: Build, body: str, out: str) -> None:
    """What is declared inside a loop would else end up in its gradient as a size."""
    loaded = _load(model, body, out)
    assert rebatched(loaded, {"x": X}, ["x"]) is not None
    x = np.random.default_rng(3).normal(size=(5, 4, 6)).astype(np.float32)
    explainer = igonnx.Explainer(loaded, batch_size=64)
    together = explainer.integrated_gradients(x, target=(0,) * (len(out.split(",")) - 1), steps=60)
    np.testing.assert_allclose(together.delta, 0, atol=1e-4)
    alone = igonnx.Explainer(loaded, batch_size=1).integrated_gradients(
        x, target=(0,) * (len(out.split(",")) - 1), steps=60
    )
    np.testing.assert_allclose(together.values, alone.values, rtol=1e-4, atol=1e-6)


def test_rows_that_decide_on_a_branch_together_stay_apart(model: Build) -> None:
    """One row with a positive element would else take the others along."""
    loaded = _load(model, BRANCH, "1, 4, 6")
    assert rebatched(loaded, {"x": X}, ["x"]) is None
    x = np.stack([np.full((4, 6), 2.0), np.full((4, 6), -2.0)]).astype(np.float32)
    found = igonnx.Explainer(loaded).integrated_gradients(x, target=(0, 0), baseline=1.5 * x)
    np.testing.assert_allclose(found.scores, [4.0, np.exp(-2)], rtol=1e-5)
    np.testing.assert_allclose(found.values[:, 0, 0], [4 - 9, np.exp(-2) - np.exp(-3)], rtol=1e-5)


def test_shared_branches_are_noticed_whatever_rows_on_trial_do(model: Build) -> None:
    body = BRANCH.replace("1, 4, 6", "N, 4, 6")
    free = model(f"(float[N, 4, 6] x) => (float[N, 4, 6] y) {{ {body} }}")
    x = np.stack([np.full((4, 6), 2.0), np.full((4, 6), -2.0)]).astype(np.float32)
    with pytest.warns(UserWarning, match="influence each other"):
        found = igonnx.Explainer(free).integrated_gradients(x, target=(0, 0), baseline=1.5 * x)
    np.testing.assert_allclose(found.values[:, 0, 0], [4 - 9, np.exp(-2) - np.exp(-3)], rtol=1e-5)
