"""Random weights: which change, and what that does to explanations that depend on them, and to one that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from scipy import stats

import igonnx
from igonnx.metrics import (
    cosine_similarity,
    randomised,
    rank_correlation,
    structural_similarity,
    weight_randomisation,
    weighted_layers,
)
from igonnx.model import Model

Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture
def x() -> Array:
    return np.random.default_rng(2).normal(size=(3, 3, 8, 9)).astype(np.float32)


def _weights(model: Any) -> dict[str, Array]:
    return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}


# -- layers ------------------------------------------------------------------------------------


def test_layers_from_the_bottom_to_the_top(pictures: igonnx.Explainer) -> None:
    layers = weighted_layers(pictures.model)
    assert [layer.name for layer in layers] == ["first_weight", "second_weight", "last_weight"]
    assert layers[0].weights == ("first_weight", "first_bias")
    assert layers[1].weights == ("second_weight",)
    assert layers[2].weights == ("last_weight", "last_bias")  # the bias behind the product


def test_what_is_no_weight_is_no_layer(model: Any) -> None:
    rng = np.random.default_rng(3)
    text = """(float[N, 4] x) => (float[N, 4] y, float[N, 4] z) {
        s = Sub(x, mean)
        c = Clip(s, low)
        h = MatMul(c, shared)
        r = Relu(h)
        k = Mul(r, two)
        g = MatMul(k, shared)
        y = Softmax(g)
        z = MatMul(r, elsewhere)
    }"""
    arrays = {"mean": rng.normal(size=4), "shared": rng.normal(size=(4, 4)), "low": np.array(-9.0)}
    arrays |= {"two": np.array(2.0), "elsewhere": rng.normal(size=(4, 4))}
    proto = model(text, {name: array.astype(np.float32) for name, array in arrays.items()})
    # What two nodes share belongs to the one on top.
    assert [layer.weights for layer in weighted_layers(proto)] == [("shared",)]
    other = weighted_layers(proto, "z")
    assert [layer.weights for layer in other] == [("shared",), ("elsewhere",)]


def test_masks_are_no_weights(model: Any) -> None:
    rng = np.random.default_rng(9)
    text = """(float[N, 4, 3] x) => (float[N, 4, 4] y) {
        h = MatMul(x, w)
        b = Add(h, bias)
        s = Mul(b, ones)
        y = Add(s, mask)
    }"""
    arrays = {"w": rng.normal(size=(3, 4)), "bias": rng.normal(size=4), "ones": np.ones(4)}
    arrays |= {"mask": np.triu(np.full((4, 4), -1e9), 1)}
    proto = model(text, {name: array.astype(np.float32) for name, array in arrays.items()})
    assert [layer.weights for layer in weighted_layers(proto)] == [("w", "bias")]


def test_weights_of_bodies_are_found(model: Any) -> None:
    text = """(float[N, 3] x, bool c) => (float[N, 3] y) {
        y = If(c) <
            then_branch = one () => (float[N, 3] a) { a = MatMul(x, w) },
            else_branch = two () => (float[N, 3] b) { b = MatMul(x, v) }
        >
    }"""
    w, v = np.random.default_rng(4).normal(size=(2, 3, 3)).astype(np.float32)
    (layer,) = weighted_layers(model(text, {"w": w, "v": v}))
    assert set(layer.weights) == {"w", "v"}


# -- random weights ----------------------------------------------------------------------------


@pytest.mark.parametrize("draw", ["normal", "shuffle"])
def test_the_weights_asked_for_change_and_no_others(
    pictures: igonnx.Explainer, tmp_path: Path, draw: Any
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(pictures.model.to_proto(), path)
    before, content = _weights(onnx.load(path)), path.read_bytes()
    changed = randomised(path, ["second_weight", "last_bias"], seed=3, draw=draw)
    after = _weights(changed.to_proto())
    assert path.read_bytes() == content
    assert set(after) == set(before)
    for name, array in before.items():
        assert after[name].dtype == array.dtype
        assert np.array_equal(after[name], array) == (name not in ("second_weight", "last_bias"))
    one, other = before["second_weight"], after["second_weight"]
    if draw == "shuffle":
        np.testing.assert_array_equal(np.sort(one, axis=None), np.sort(other, axis=None))
    else:
        assert other.std() == pytest.approx(one.std(), rel=0.2)
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.25
    # The graph is the same, and so is the model that it was made from.
    proto = changed.to_proto()
    assert [node.op_type for node in proto.graph.node] == [
        node.op_type for node in pictures.model.to_proto().graph.node
    ]
    loaded = Model.load(path)
    randomised(loaded, ["second_weight"], seed=3, draw=draw)
    np.testing.assert_array_equal(_weights(loaded.to_proto())["second_weight"], one)


def test_weights_of_one_sign_keep_it(model: Any) -> None:
    rng = np.random.default_rng(5)
    arrays = {"s": rng.uniform(1, 2, 4), "b": rng.normal(size=4), "m": rng.normal(size=4)}
    arrays |= {"v": rng.uniform(1, 2, 4)}
    proto = model(
        "(float[N, 4] x) => (float[N, 4] y) { y = BatchNormalization(x, s, b, m, v) }",
        {name: array.astype(np.float32) for name, array in arrays.items()},
    )
    (layer,) = weighted_layers(proto)
    assert layer.weights == ("s", "b", "m", "v")
    after = _weights(randomised(proto, layer.weights).to_proto())
    for name in "sv":
        np.testing.assert_allclose(np.sort(after[name]), np.sort(arrays[name]), rtol=1e-6)
    assert not np.isin(after["b"], arrays["b"].astype(np.float32)).any()


def test_the_seed_and_the_name_decide(pictures: igonnx.Explainer) -> None:
    def drawn(names: list[str], seed: int) -> Array:
        return _weights(randomised(pictures.model, names, seed=seed).to_proto())["first_weight"]

    alone = drawn(["first_weight"], 0)
    np.testing.assert_array_equal(drawn(["last_bias", "first_weight"], 0), alone)
    assert not np.array_equal(drawn(["first_weight"], 1), alone)


def test_names_that_are_no_weights(pictures: igonnx.Explainer) -> None:
    with pytest.raises(igonnx.InputError, match=r"'nothing' is no floating weight of the model$"):
        randomised(pictures.model, ["nothing"])
    with pytest.raises(igonnx.InputError, match=r"^draw is 'zeros'; expected 'normal' or"):
        randomised(pictures.model, [], draw="zeros")  # type: ignore[arg-type]


# -- the check ---------------------------------------------------------------------------------


def test_what_depends_on_the_weights_and_what_does_not(
    pictures: igonnx.Explainer, x: Array
) -> None:
    found = weight_randomisation(pictures, x, "integrated_gradients", target=1, steps=4)
    assert found.layers == ["last_weight", "second_weight", "first_weight"]
    assert found.rank.shape == found.structure.shape == found.cosine.shape == (3, 3)
    # Its magnitudes keep the factor |x|, whatever the weights.
    assert (found.score < 0.8).all()
    assert (found.cosine[:, -1] < 0.5).all()
    assert found.target == [(1,)] * 3

    def edges(_: igonnx.Explainer, inputs: Any, **__: Any) -> Array:
        return np.gradient(inputs["x"], axis=3)

    blind = weight_randomisation(pictures, x, edges)
    np.testing.assert_allclose(blind.rank, 1)
    np.testing.assert_allclose(blind.structure, 1)
    np.testing.assert_allclose(blind.cosine, 1)


def test_each_stage_is_the_model_with_those_weights(pictures: igonnx.Explainer, x: Array) -> None:
    original = pictures.saliency(x, target=2).of()
    stages = {
        "cascading": [["last_weight", "last_bias"], ["last_weight", "last_bias", "second_weight"]],
        "independent": [["last_weight", "last_bias"], ["second_weight"]],
    }
    for order, changed in stages.items():
        found = weight_randomisation(pictures, x, "saliency", target=2, seed=5, order=order)  # type: ignore[arg-type]
        for stage, names in enumerate(changed):
            model = randomised(pictures.model, names, seed=5)
            other = igonnx.Explainer(model).saliency(x, target=2).of()
            expected = rank_correlation(original, other)
            np.testing.assert_allclose(found.rank[:, stage], expected, rtol=1e-5)
            expected = cosine_similarity(original, other)
            np.testing.assert_allclose(found.cosine[:, stage], expected, rtol=1e-5)
            maps = [np.abs(one).sum(axis=1) for one in (original, other)]
            np.testing.assert_allclose(
                found.structure[:, stage], structural_similarity(*maps), rtol=1e-4
            )


def test_stages_and_layers(pictures: igonnx.Explainer, x: Array) -> None:
    every = weight_randomisation(pictures, x, "saliency", target=0)
    some = weight_randomisation(pictures, x, "saliency", target=0, stages=2)
    assert some.layers == ["second_weight", "first_weight"]
    np.testing.assert_allclose(some.rank, every.rank[:, 1:], rtol=1e-6)
    only = weight_randomisation(
        pictures, x, "saliency", target=0, layers=["f*"], order="independent"
    )
    assert only.layers == ["first_weight"]


def test_the_target_is_that_of_the_trained_model(pictures: igonnx.Explainer, x: Array) -> None:
    told: list[Any] = []

    def kept(explainer: igonnx.Explainer, inputs: Any, target: Any) -> igonnx.Attribution:
        told.append(target)
        return explainer.saliency(inputs, target=target)

    found = weight_randomisation(pictures, x, kept)
    best = [(int(k),) for k in pictures.predict(x)["y"].argmax(axis=1)]
    assert told == [best] * 4
    assert found.target == best


def test_tables_have_no_structure(mlp: onnx.ModelProto) -> None:
    x = np.random.default_rng(6).normal(size=(2, 6)).astype(np.float32)
    found = weight_randomisation(igonnx.Explainer(mlp), x, "saliency")
    assert np.isnan(found.structure).all()
    assert np.isfinite(found.rank).all()


def test_progress_timeout_cancel_and_refusals(pictures: igonnx.Explainer, x: Array) -> None:
    told: list[tuple[int, int]] = []
    weight_randomisation(
        pictures, x, "saliency", progress=lambda done, total: told.append((done, total))
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    token = igonnx.CancelToken()
    token.cancel()
    with pytest.raises(igonnx.CancelledError):
        weight_randomisation(pictures, x, "saliency", cancel=token)
    with pytest.raises(igonnx.DeadlineError):
        weight_randomisation(pictures, x, "saliency", timeout=1e-9)
    for arguments, message in (
        ({"order": "random"}, r"^order is 'random'; expected 'cascading' or 'independent'$"),
        ({"draw": "zeros"}, r"^draw is 'zeros'"),
        ({"stages": 0}, r"^stages is 0"),
        ({"layers": ["third*"]}, r"no layer is called 'third\*'; the topmost is 'last_weight'"),
        ({"method": "nothing"}, r"^method is 'nothing'"),
    ):
        with pytest.raises(igonnx.InputError, match=message):
            weight_randomisation(pictures, x, **{"method": "saliency", **arguments})


def test_models_without_weights(model: Any) -> None:
    explainer = igonnx.Explainer(model("(float[N, 3] x) => (float[N, 3] y) { y = Tanh(x) }"))
    with pytest.raises(igonnx.InputError, match=r"no layer has floating weights to randomise$"):
        weight_randomisation(explainer, np.ones((1, 3), np.float32), "saliency")


# -- similarities ------------------------------------------------------------------------------


def test_similarities_against_their_definitions() -> None:
    a, b = np.random.default_rng(7).normal(size=(2, 4, 30))
    b[:, 5:9] = b[:, 5:6]  # ties
    expected = [
        stats.spearmanr(np.abs(one), np.abs(other)).statistic
        for one, other in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(rank_correlation(a, b), expected)
    np.testing.assert_allclose(rank_correlation(a, -3 * a), 1)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(cosine_similarity(a, b), (a * b).sum(axis=1) / norms)
    np.testing.assert_allclose(cosine_similarity(a, -2 * a), -1)
    maps = np.random.default_rng(8).random((3, 9, 8))
    np.testing.assert_allclose(structural_similarity(maps, 5 * maps), 1)
    assert (structural_similarity(maps, maps[::-1])[[0, 2]] < 0.5).all()


def test_similarities_of_nothing() -> None:
    flat, maps = np.ones((1, 5)), np.ones((1, 8, 8))
    assert np.isnan(rank_correlation(flat, np.arange(5.0)[None])).all()
    assert np.isnan(cosine_similarity(flat, 0 * flat)).all()
    assert np.isnan(structural_similarity(maps, 0 * maps)).all()
    assert np.isnan(structural_similarity(maps[:, :2], maps[:, :2])).all()
    assert np.isfinite(structural_similarity(maps[:, :3], maps[:, :3])).all()
    with pytest.raises(
        igonnx.InputError, match=r"^the attributions have shapes \[1, 5\] and \[1, 4"
    ):
        cosine_similarity(flat, np.ones((1, 4)))
