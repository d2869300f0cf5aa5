"""Feature ablation and permutation: against plain loops, by hand, with masks of all kinds, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from tanh_net import Arrays, TanhNet, as_dict, assert_close

import igonnx
from igonnx.methods.superpixels import superpixels

Build = Callable[..., onnx.ModelProto]
NET = TanhNet.make(7)
TARGET = np.array([2, 0, 1, 1])
each_engine = pytest.mark.parametrize("engine", ["native", "reference"])
METHODS = ["feature_ablation", "feature_permutation"]

# Features of a [2, 3] and b [4]: three of them in both, one element that none has.
MASKS = {"a": np.array([[5, 5, 7], [9, -1, 7]]), "b": np.array([9, 12, 12, 5])}
NUMBERS = (5, 7, 9, 12)


def _expected(x: Arrays, other: Arrays, masks: Arrays) -> dict[str, NDArray[np.float64]]:
    """The loss of each feature where its elements come from `other`; masks [N, ...] hold the numbers."""
    whole = NET.score(x, TARGET[: len(x["a"])])
    found = {name: np.zeros(array.shape) for name, array in x.items()}
    for number in NUMBERS:
        under = {name: masks[name] == number for name in x}
        masked = {name: np.where(under[name], other[name], x[name]) for name in x}
        loss = whole - NET.score(masked, TARGET[: len(whole)])
        for name, values in found.items():
            column = loss.reshape(-1, *[1] * (values.ndim - 1))
            values += under[name] * column
    return found


def _shuffled(count: int) -> Arrays:
    """Features of each example: the common ones, with elements in another order."""
    random = np.random.default_rng(0)
    return {
        name: np.stack([random.permutation(mask.ravel()).reshape(mask.shape) for _ in range(count)])
        for name, mask in MASKS.items()
    }


@each_engine
@pytest.mark.parametrize("own", [False, True])
def test_a_plain_loop(model: Build, engine: str, own: bool) -> None:
    x, baseline = (NET.inputs(4, seed, np.float64) for seed in (1, 2))
    masks = _shuffled(4) if own else {name: mask[None] for name, mask in MASKS.items()}
    explainer = igonnx.Explainer(NET.onnx(model, np.float64), engine=engine, batch_size=3)
    found = explainer.feature_ablation(
        x, target=TARGET.tolist(), baseline=baseline, feature_mask=masks
    )
    assert_close(found.values, _expected(x, baseline, masks), 1e-12)
    assert (found.steps_used == len(NUMBERS) + 1).all()
    np.testing.assert_allclose(found.scores, NET.score(x, TARGET), rtol=1e-12)


@each_engine
def test_every_element_alone(model: Build, engine: str) -> None:
    x, graph = NET.inputs(3), NET.onnx(model)
    explainer = igonnx.Explainer(graph, engine=engine)
    options: dict[str, Any] = {"target": TARGET[:3].tolist(), "baseline": -0.5}
    found = explainer.feature_ablation(x, **options)
    windows = explainer.occlusion(x, window=1, **options)
    assert_close(found.values, as_dict(windows.values), 1e-6)
    numbers = {"a": np.arange(6).reshape(2, 3) * 3, "b": np.arange(4) + 100}
    masked = explainer.feature_ablation(x, feature_mask=numbers, **options)
    assert_close(masked.values, as_dict(found.values), 1e-6)


def test_a_mask_that_broadcasts(model: Build) -> None:
    # y = the sum of x [2, 3], weighted; columns are features.
    graph = model(
        """(float[N, 2, 3] x) => (float[N, 1] y) {
            f = Flatten(x)
            y = MatMul(f, w)
        }""",
        {"w": np.arange(1, 7, dtype=np.float32)[:, None]},
    )
    x = np.ones((2, 2, 3), np.float32)
    explainer = igonnx.Explainer(graph)
    for mask in ([0, 1, 1], [[4, 5, 5]], np.array([[[4, 5, 5]]]), np.tile([7, 8, 8], (2, 2, 1))):
        found = explainer.feature_ablation(x, feature_mask=mask)
        np.testing.assert_allclose(found.values, np.tile([5, 16, 16], (2, 2, 1)), rtol=1e-6)


@each_engine
@pytest.mark.parametrize("method", METHODS)
def test_batches_change_nothing(model: Build, engine: str, method: str) -> None:
    x, graph = NET.inputs(4), NET.onnx(model)
    options: dict[str, Any] = {"target": TARGET.tolist(), "feature_mask": _shuffled(4)}
    first, *others = [
        getattr(igonnx.Explainer(graph, engine=engine, batch_size=n), method)(x, **options)
        for n in (1, 2, 7, 500)
    ]
    for other in others:
        assert_close(other.values, as_dict(first.values), 1e-5)
    if method == "feature_ablation":  # permutations are about the others
        one = {name: array[2:3] for name, array in x.items()}
        options["feature_mask"] = {n: mask[2] for n, mask in options["feature_mask"].items()}
        alone = igonnx.Explainer(graph, engine=engine).feature_ablation(
            one, **options | {"target": int(TARGET[2])}
        )
        assert_close(alone.values, {n: a[2:3] for n, a in as_dict(first.values).items()}, 1e-5)


@each_engine
def test_permutations_of_two_are_swaps(model: Build, engine: str) -> None:
    x = NET.inputs(2, dtype=np.float64)
    masks = {name: mask[None] for name, mask in MASKS.items()}
    explainer = igonnx.Explainer(NET.onnx(model, np.float64), engine=engine)
    options: dict[str, Any] = {"target": TARGET[:2].tolist(), "feature_mask": masks}
    found = explainer.feature_permutation(x, **options)
    swapped = {name: array[::-1] for name, array in x.items()}
    assert_close(found.values, _expected(x, swapped, masks), 1e-12)
    again = explainer.feature_permutation(x, baseline=2.0, seed=4, **options)
    assert_close(again.values, as_dict(found.values), 1e-12)
    assert (found.steps_used == len(NUMBERS) + 1).all()


def test_permutations_of_many(model: Build) -> None:
    # y = x0 of x [N, 2]: an example loses what it had and gets another's.
    graph = model(
        "(float[N, 2] x) => (float[N, 1] y) { y = MatMul(x, w) }",
        {"w": np.array([[1], [0]], np.float32)},
    )
    x = np.stack([2.0 ** np.arange(8), np.ones(8)], axis=1).astype(np.float32)
    explainer = igonnx.Explainer(graph)
    found = explainer.feature_permutation(x, seed=1)
    assert (found.values[:, 1] == 0).all()
    lent = x[:, 0] - found.values[:, 0]
    np.testing.assert_array_equal(np.sort(lent), x[:, 0])  # everyone's value is lent once
    assert (lent != x[:, 0]).any()
    same, other = (explainer.feature_permutation(x, seed=seed).values for seed in (1, 2))
    np.testing.assert_array_equal(same, found.values)
    assert (other != same).any()


def test_several_baselines_and_noise(model: Build) -> None:
    x, graph = NET.inputs(3, dtype=np.float64), NET.onnx(model, np.float64)
    explainer = igonnx.Explainer(graph)
    options: dict[str, Any] = {"target": TARGET[:3].tolist(), "feature_mask": _shuffled(3)}
    both = explainer.feature_ablation(x, baseline=[0.5, -1.0], **options)
    parts = [explainer.feature_ablation(x, baseline=b, **options).values for b in (0.5, -1.0)]
    mean = {name: (as_dict(parts[0])[name] + as_dict(parts[1])[name]) / 2 for name in x}
    assert_close(both.values, mean, 1e-12)
    # Copies lend each other nothing: with noise of next to nothing it is as without.
    plain = explainer.feature_permutation(x, **options)
    noisy = explainer.feature_permutation(x, noise="smoothgrad", noise_std=1e-9, **options)
    assert_close(noisy.values, as_dict(plain.values), 1e-6)


@each_engine
def test_trees(model: Build, engine: str) -> None:
    # Two stumps: x0 <= 0.5 gives 1, else 3; x2 <= -1 gives 10, else 20.
    attributes = (
        "nodes_treeids = [0, 0, 0, 1, 1, 1], nodes_nodeids = [0, 1, 2, 0, 1, 2], "
        "nodes_featureids = [0, 0, 0, 2, 0, 0], nodes_values = [0.5, 0.0, 0.0, -1.0, 0.0, 0.0], "
        'nodes_modes = ["BRANCH_LEQ", "LEAF", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"], '
        "nodes_truenodeids = [1, 0, 0, 1, 0, 0], nodes_falsenodeids = [2, 0, 0, 2, 0, 0], "
        "target_treeids = [0, 0, 1, 1], target_nodeids = [1, 2, 1, 2], target_ids = [0, 0, 0, 0], "
        "target_weights = [1.0, 3.0, 10.0, 20.0], n_targets = 1"
    )
    graph = model(
        "(float[N, 3] x) => (float[N, 1] y) "
        f"{{ y = ai.onnx.ml.TreeEnsembleRegressor<{attributes}>(x) }}",
        domains=', "ai.onnx.ml": 3',
    )
    explainer = igonnx.Explainer(graph, engine=engine)
    x = np.array([[1, 7, 0], [0, 8, -2]], np.float32)
    found = explainer.feature_ablation(x)
    np.testing.assert_allclose(found.values, [[2, 0, 0], [0, 0, -10]])
    together = explainer.feature_ablation(x, feature_mask=[4, 4, 7])
    np.testing.assert_allclose(together.values, [[2, 2, 0], [0, 0, -10]])
    # A feature counts once: 2 - (23 - 21), and -10 - (11 - 21).
    np.testing.assert_allclose(together.delta, [0, 0], atol=1e-5)
    np.testing.assert_allclose(explainer.occlusion(x).values, found.values)
    swapped = explainer.feature_permutation(x)
    np.testing.assert_allclose(swapped.values, [[2, 0, 10], [-2, 0, -10]])
    with pytest.raises(igonnx.Error):
        explainer.integrated_gradients(x)


def test_superpixels(model: Build) -> None:
    random = np.random.default_rng(0)
    coarse = random.random((2, 3, 2, 3))  # patches of one colour each
    x = np.kron(coarse, np.ones((1, 1, 12, 12))).astype(np.float32)
    found = superpixels(x, 6)
    assert found.shape == (2, 1, 24, 36)
    for one in found[:, 0]:
        assert one.min() == 0
        patches = one.reshape(2, 12, 3, 12).transpose(0, 2, 1, 3).reshape(6, -1)
        assert all(len(np.unique(patch)) == 1 for patch in patches)
    np.testing.assert_array_equal(superpixels(np.moveaxis(x, 1, -1), 6)[..., 0], found[:, 0])
    assert (superpixels(np.full((1, 1, 9, 9), 1e300), 1) == 0).all()
    graph = model(
        "(float[N, 3, 24, 36] x) => (float[N, 1] y) { f = Flatten(x)\n y = MatMul(f, w) }",
        {"w": random.random((3 * 24 * 36, 1)).astype(np.float32)},
    )
    explainer = igonnx.Explainer(graph)
    for method in METHODS:
        by_segments = getattr(explainer, method)(x, segments=6)
        by_mask = getattr(explainer, method)(x, feature_mask=found)
        np.testing.assert_array_equal(by_segments.values, by_mask.values)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((2, 3)), "feature_mask is one array; 2 tensors are explained: 'a', 'b'"),
        ({"a": MASKS["a"]}, "feature_mask is for 'a'; expected one for 'a', 'b'"),
        ({"a": MASKS["a"], "b": np.ones(4)}, "feature_mask of 'b' has dtype float64; expected integers"),
        (
            {"a": np.zeros((3, 2), int), "b": MASKS["b"]},
            "feature_mask of 'a' has shape [3, 2]; expected [2, 3], [2, 2, 3] or one that broadcasts to it",
        ),
        (
            {"a": np.zeros((3, 2, 3), int), "b": MASKS["b"]},
            "feature_mask of 'a' has shape [3, 2, 3]; expected [2, 3], [2, 2, 3] or one that broadcasts to it",
        ),
        ({"a": -1, "b": [-2]}, "feature_mask is negative everywhere: there is no feature to mask"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", METHODS)
def test_masks_that_are_refused(model: Build, method: str, mask: Any, message: str) -> None:
    explainer = igonnx.Explainer(NET.onnx(model))
    with pytest.raises(igonnx.InputError) as raised:
        getattr(explainer, method)(NET.inputs(2), target=0, feature_mask=mask)
    assert str(raised.value) == message


def test_what_else_is_refused(model: Build) -> None:
    explainer = igonnx.Explainer(NET.onnx(model))
    with pytest.raises(igonnx.InputError, match="was given one example; expected at least two"):
        explainer.feature_permutation(NET.inputs(1), target=0)
    with pytest.raises(igonnx.InputError, match="pass one of them"):
        explainer.feature_ablation(NET.inputs(1), feature_mask=MASKS, segments=3)
    with pytest.raises(igonnx.InputError, match="segments cuts one input that holds pictures"):
        explainer.feature_ablation(NET.inputs(1), segments=3)
    with pytest.raises(igonnx.InputError, match="segments is 0; expected a whole number"):
        superpixels(np.zeros((1, 3, 8, 8)), 0)
    with pytest.raises(igonnx.InputError, match=r"the input has shape \[2, 8\]: pass feature_mask"):
        superpixels(np.zeros((2, 8)), 4)


@pytest.mark.parametrize("method", METHODS)
def test_progress_and_stopping(model: Build, method: str) -> None:
    explainer = igonnx.Explainer(NET.onnx(model), batch_size=3)
    x, seen = NET.inputs(2), list[tuple[int, int]]()
    getattr(explainer, method)(x, target=0, progress=lambda *counts: seen.append(counts))
    assert seen[-1] == (22, 22)
    assert sorted(seen) == seen
    stop = igonnx.CancelToken()
    with pytest.raises(igonnx.CancelledError):
        getattr(explainer, method)(x, target=0, cancel=stop, progress=lambda *_: stop.cancel())


def test_single_pixels_as_features_are_warned_of(
    model: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("igonnx.methods.masking.MANY_PASSES", 3)
    graph = model(
        "(float[N, 4] x) => (float[N] y) { y = ReduceSum<keepdims = 0>(x, one) }",
        {"one": np.array([1])},
    )
    explainer, x = igonnx.Explainer(graph), np.ones((2, 4), np.float32)
    for method in (explainer.feature_ablation, explainer.shapley_value_sampling):
        with pytest.warns(UserWarning, match=r"forward passes for each example, as it has 4 feat"):
            method(x)
    explainer.feature_ablation(x, feature_mask=[0, 0, 1, 1])  # warnings are errors
