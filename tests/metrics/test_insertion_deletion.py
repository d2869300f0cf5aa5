"""Insertion and deletion where the curves are known, what a random order scores, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from scipy import special

import igonnx
from igonnx.metrics import completeness, insertion_deletion

Array = np.ndarray[Any, np.dtype[Any]]
ModelMaker = Callable[..., onnx.ModelProto]


@pytest.fixture(scope="module")
def linear(model: ModelMaker) -> igonnx.Explainer:
    """y_k = sum over features of x w_k: [N, 6] to [N, 3], in double precision."""
    weights = np.random.default_rng(0).normal(size=(6, 3))
    return igonnx.Explainer(
        model("(double[N, 6] x) => (double[N, 3] y) { y = MatMul(x, w) }", {"w": weights})
    )


@pytest.fixture(scope="module")
def weights() -> Array:
    return np.random.default_rng(0).normal(size=(6, 3))


@pytest.fixture(scope="module")
def images(model: ModelMaker) -> igonnx.Explainer:
    """A linear score of images [N, 3, 4, 5], two outputs."""
    w = np.random.default_rng(1).normal(size=(60, 2)).astype(np.float32)
    return igonnx.Explainer(
        model(
            "(float[N, 3, 4, 5] x) => (float[N, 2] y) { f = Flatten(x) \n y = MatMul(f, w) }",
            {"w": w},
        )
    )


def test_curves_of_a_linear_model(linear: igonnx.Explainer, weights: Array) -> None:
    x = np.random.default_rng(2).normal(size=(4, 6))
    attribution = linear.integrated_gradients(x, baseline=0.5, target=1, steps=1)
    found = insertion_deletion(linear, x, attribution, baseline=0.5, apply=None)
    assert found.target == [(1,)] * 4
    assert found.apply is None
    np.testing.assert_allclose(found.fraction, np.arange(7) / 6)
    contributions = -np.sort(-(x - 0.5) * weights[:, 1], axis=1)
    start = np.full((4, 1), 0.5 * weights[:, 1].sum())
    gained = np.cumsum(contributions, axis=1)
    insertion = np.concatenate([start, start + gained], axis=1)
    np.testing.assert_allclose(found.insertion, insertion)
    end = x @ weights[:, 1:2]
    np.testing.assert_allclose(found.deletion, np.concatenate([end, end - gained], axis=1))
    # Both areas: a trapezoid of width 1/6 between neighbouring points.
    trapezoids = (found.insertion[:, 1:] + found.insertion[:, :-1]).sum(axis=1) / 12
    np.testing.assert_allclose(found.insertion_area, trapezoids)
    np.testing.assert_allclose(found.score, found.insertion_area - found.deletion_area)
    # of a linear model, the curves mirror each other
    np.testing.assert_allclose(found.insertion_area + found.deletion_area, (start + end)[:, 0])


def test_no_order_beats_the_true_one_and_its_reverse_is_the_worst(
    linear: igonnx.Explainer,
) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3, 6))
    best = linear.integrated_gradients(x, target=0, steps=1)

    def score(values: Array) -> Array:
        return insertion_deletion(linear, x, values, target=0, baseline=None, apply=None).score

    top = score(best.of())
    np.testing.assert_allclose(score(-best.of()), -top, atol=1e-12)
    for _ in range(20):
        assert (score(rng.normal(size=x.shape)) <= top + 1e-12).all()


def test_a_random_order_scores_zero_on_average(mlp: onnx.ModelProto) -> None:
    """Exactly so over all orders: each comes with its reverse."""
    import itertools

    explainer = igonnx.Explainer(mlp)
    x = np.random.default_rng(4).normal(size=(1, 6)).astype(np.float32)
    orders = np.array(list(itertools.permutations(range(6))), np.float64)
    many = np.repeat(x, len(orders), axis=0)
    scores = insertion_deletion(explainer, many, orders, target=2, baseline=0.0).score
    assert np.abs(scores).max() > 0.05
    assert abs(scores.mean()) < 1e-6
    best = explainer.integrated_gradients(x, target=2)
    assert insertion_deletion(explainer, x, best, baseline=0.0).score > 3 * scores.std() / 2


def test_pixels_are_ordered_by_the_sum_over_channels(images: igonnx.Explainer) -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    attribution = images.integrated_gradients(x, target=0, steps=1)
    found = insertion_deletion(images, x, attribution, baseline=None, apply=None)
    per_pixel = attribution.of().sum(axis=1).reshape(2, -1)
    gains = -np.sort(-per_pixel, axis=1)
    np.testing.assert_allclose(
        found.insertion[:, 1:], np.cumsum(gains, axis=1), rtol=1e-4, atol=1e-5
    )
    heat = attribution.of().sum(axis=1)
    again = insertion_deletion(images, x, heat, target=0, baseline=None, apply=None)
    np.testing.assert_array_equal(again.insertion, found.insertion)


def test_fewer_steps_are_points_of_the_same_curves(images: igonnx.Explainer) -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    values = rng.normal(size=(2, 4, 5))
    every = insertion_deletion(images, x, values, target=1, steps=1000)
    some = insertion_deletion(images, x, values, target=1, steps=8)
    assert len(every.fraction) == 21
    np.testing.assert_allclose(some.fraction, np.array([0, 2, 5, 8, 10, 12, 15, 18, 20]) / 20)
    at = np.searchsorted(every.fraction, some.fraction)
    np.testing.assert_allclose(some.insertion, every.insertion[:, at], rtol=1e-5)
    np.testing.assert_allclose(some.deletion, every.deletion[:, at], rtol=1e-5)


def test_patches_are_changed_whole(images: igonnx.Explainer) -> None:
    rng = np.random.default_rng(16)
    x = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    values = rng.normal(size=(2, 4, 5))
    found = insertion_deletion(images, x, values, target=0, baseline=None, apply=None, patch=3)
    np.testing.assert_allclose(found.fraction, np.arange(5) / 4)
    corners = [
        (slice(0, 3), slice(0, 3)),
        (slice(0, 3), slice(3, 5)),
        (slice(3, 4), slice(0, 3)),
        (slice(3, 4), slice(3, 5)),
    ]
    for example in range(2):
        order = np.argsort([-values[example][corner].mean() for corner in corners])
        shown = np.zeros_like(x[0])
        for point, index in enumerate(order, start=1):
            shown[:, *corners[index]] = x[example][:, *corners[index]]
            expected = images.predict(shown[None])["y"][0, 0]
            assert found.insertion[example, point] == pytest.approx(expected, rel=1e-4)
    whole = insertion_deletion(images, x, values, target=0, baseline=None, apply=None, patch=9)
    assert whole.insertion.shape == (2, 2)


def test_columns_of_a_table_have_no_neighbours(linear: igonnx.Explainer) -> None:
    x = np.random.default_rng(17).normal(size=(2, 6))
    one, many = (
        insertion_deletion(linear, x, x, target=0, baseline=None, patch=patch) for patch in (1, 4)
    )
    np.testing.assert_array_equal(one.insertion, many.insertion)


def test_equal_values_keep_their_order(linear: igonnx.Explainer, weights: Array) -> None:
    x = np.random.default_rng(7).normal(size=(1, 6))
    found = insertion_deletion(
        linear, x, np.array([[0, 1, 0, 1, 0, 1.0]]), target=2, baseline=None, apply=None
    )
    order = [1, 3, 5, 0, 2, 4]
    np.testing.assert_allclose(found.insertion[0, 1:], np.cumsum((x[0] * weights[:, 2])[order]))


def test_channels_last_and_series(model: ModelMaker) -> None:
    rng = np.random.default_rng(8)
    x = rng.normal(size=(2, 4, 5, 3)).astype(np.float32)
    values = rng.normal(size=(2, 4, 5))
    w = rng.normal(size=(60, 2)).astype(np.float32)
    text = "(float[N, {}] x) => (float[N, 2] y) {{ f = Flatten(x) \n y = MatMul(f, w) }}"
    last = igonnx.Explainer(model(text.format("4, 5, 3"), {"w": w}))
    series = igonnx.Explainer(model(text.format("20, 3"), {"w": w}))
    expected = insertion_deletion(last, x, values, target=0, baseline=None)
    found = insertion_deletion(
        series, x.reshape(2, 20, 3), values.reshape(2, 20), target=0, baseline=None, channel_axis=-1
    )
    np.testing.assert_allclose(found.insertion, expected.insertion, rtol=1e-5)
    columns = insertion_deletion(
        series, x.reshape(2, 20, 3), rng.normal(size=(2, 3)), target=0, baseline=None
    )
    assert len(columns.fraction) == 4  # by default the second axis of [N, C, T] is the channels


def test_several_inputs_are_ordered_together(model: ModelMaker) -> None:
    explainer = igonnx.Explainer(
        model(
            """(double[N, 2] a, double[N, 3] b, double[N, 2] m) => (double[N, 2] y) {
                c = Concat<axis = 1>(a, b)
                p = MatMul(c, w)
                y = Add(p, m)
            }""",
            {"w": np.array([[1.0, 0], [2, 0], [3, 0], [4, 0], [5, 0]])},
        ),
        wrt=["a", "b"],
    )
    arrays = {"a": np.ones((2, 2)), "b": np.ones((2, 3)), "m": np.array([[10.0, 0], [20, 0]])}
    attribution = explainer.integrated_gradients(arrays, target=0, steps=1)
    found = insertion_deletion(explainer, arrays, attribution, baseline=None, apply=None)
    gained = np.cumsum([0, 5, 4, 3, 2, 1])
    np.testing.assert_allclose(found.insertion, [10 + gained, 20 + gained])
    np.testing.assert_allclose(found.deletion, [25 - gained, 35 - gained])


# -- the score ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "asked", "used", "function"),
    [
        (None, "probability", "softmax", lambda y: special.softmax(y, axis=1)),
        ("softmax", "probability", "softmax", lambda y: special.softmax(y, axis=1)),
        ("log_softmax", "probability", "softmax", lambda y: special.softmax(y, axis=1)),
        (("log_softmax", 1), "probability", ("softmax", 1), lambda y: special.softmax(y, axis=1)),
        ("sigmoid", "probability", "sigmoid", special.expit),
        ("softmax", None, None, lambda y: y),
        (None, "sigmoid", "sigmoid", special.expit),
        (None, "log_softmax", "log_softmax", lambda y: special.log_softmax(y, axis=1)),
    ],
)
def test_what_is_measured(
    mlp: onnx.ModelProto, own: Any, asked: Any, used: Any, function: Callable[[Array], Array]
) -> None:
    explainer = igonnx.Explainer(mlp, apply=own)
    x = np.random.default_rng(9).normal(size=(3, 6)).astype(np.float32)
    y = function(explainer.predict(x)["logits"].astype(np.float64))
    found = insertion_deletion(explainer, x, x, target=[0, 1, 3], baseline=0.0, apply=asked)
    assert found.apply == used
    expected = y[[0, 1, 2], [0, 1, 3]]
    np.testing.assert_allclose(found.insertion[:, -1], expected, rtol=1e-5)
    np.testing.assert_array_equal(found.deletion[:, 0], found.insertion[:, -1])
    np.testing.assert_array_equal(found.deletion[:, -1], found.insertion[:, 0])


@pytest.mark.parametrize(
    ("text", "shape", "target"),
    [
        ("(float[N, 4] x) => (float[N, 4] y) { y = Softmax<axis = 1>(x) }", (2, 4), 1),
        ("(float[N, 4] x) => (float[N, 1] y) { y = ReduceSum<keepdims = 1>(x, one) }", (2, 4), 0),
        ("(float[N, 4] x) => (float[N] y) { y = ReduceSum<keepdims = 0>(x, one) }", (2, 4), None),
    ],
)
def test_softmax_is_not_applied_where_it_makes_no_sense(
    model: ModelMaker, text: str, shape: tuple[int, ...], target: Any
) -> None:
    explainer = igonnx.Explainer(model(text, {"one": np.array([1])} if "one" in text else {}))
    x = np.random.default_rng(10).normal(size=shape).astype(np.float32)
    found = insertion_deletion(explainer, x, x, target=target, baseline=0.0)
    assert found.apply is None
    y = explainer.predict(x)["y"].reshape(2, -1)[:, target or 0]
    np.testing.assert_allclose(found.insertion[:, -1], y, rtol=1e-5)


def test_normalised_curves_go_from_nothing_to_all(mlp: onnx.ModelProto) -> None:
    explainer = igonnx.Explainer(mlp)
    x = np.random.default_rng(11).normal(size=(5, 6)).astype(np.float32)
    plain = insertion_deletion(explainer, x, x, target=0, baseline=0.1)
    found = insertion_deletion(explainer, x, x, target=0, baseline=0.1, normalise=True)
    np.testing.assert_allclose(found.insertion[:, [0, -1]], np.tile([0.0, 1.0], (5, 1)))
    np.testing.assert_allclose(found.deletion[:, [0, -1]], np.tile([1.0, 0.0], (5, 1)))
    change = plain.insertion[:, -1] - plain.insertion[:, 0]
    np.testing.assert_allclose(found.score, plain.score / change, rtol=1e-6)
    changed = x.copy()
    changed[1] = 0.1
    with pytest.raises(
        igonnx.InputError, match=r"^normalise: the score of example 1 is .* no change"
    ):
        insertion_deletion(explainer, changed, x, target=0, baseline=0.1, normalise=True)


def test_examples_do_not_depend_on_each_other(images: igonnx.Explainer) -> None:
    rng = np.random.default_rng(12)
    x, values = rng.normal(size=(2, 7, 3, 4, 5)).astype(np.float32)
    together = insertion_deletion(images, x, values, target=0, steps=9)
    for index in range(7):
        one = slice(index, index + 1)
        alone = insertion_deletion(images, x[one], values[one], target=0, steps=9)
        np.testing.assert_allclose(alone.insertion, together.insertion[one], rtol=1e-5)
        np.testing.assert_allclose(alone.deletion, together.deletion[one], rtol=1e-5)


def test_the_seed_is_of_the_baseline(images: igonnx.Explainer) -> None:
    x = np.random.default_rng(13).normal(size=(1, 3, 4, 5)).astype(np.float32)

    def curve(seed: int) -> Array:
        return insertion_deletion(images, x, x, target=0, baseline="uniform", seed=seed).insertion

    np.testing.assert_array_equal(curve(1), curve(1))
    assert not np.array_equal(curve(1), curve(2))


def test_a_mask_is_measured_too(linear: igonnx.Explainer, weights: Array) -> None:
    x = np.random.default_rng(14).normal(size=(2, 6))
    mask = np.array([[1.0, 1, 0], [0, 1, -1]])
    attribution = linear.integrated_gradients(x, target=mask, steps=1)
    with pytest.raises(
        igonnx.InputError, match=r"^the attribution explains a mask: pass the same target=$"
    ):
        insertion_deletion(linear, x, attribution, baseline=None)
    found = insertion_deletion(linear, x, attribution, target=mask, baseline=None, apply=None)
    np.testing.assert_allclose(found.insertion[:, -1], (x @ weights * mask).sum(axis=1))
    assert found.target == [None, None]


def test_progress_timeout_and_cancel(mlp: onnx.ModelProto) -> None:
    explainer = igonnx.Explainer(mlp)
    x = np.ones((9, 6), np.float32)
    told: list[tuple[int, int]] = []
    insertion_deletion(
        explainer, x, x, baseline=0.0, progress=lambda done, total: told.append((done, total))
    )
    assert told[-1] == (9 * (7 + 5), 9 * (7 + 5))
    assert len(told) > 3
    token = igonnx.CancelToken()
    token.cancel()
    with pytest.raises(igonnx.CancelledError):
        insertion_deletion(explainer, x, x, baseline=0.0, cancel=token)
    with pytest.raises(igonnx.DeadlineError):
        insertion_deletion(explainer, x, x, baseline=0.0, timeout=1e-9)


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, r"^steps is 0; expected a whole number of at least 1$"),
        ({"steps": 2.0}, r"^steps is 2.0; expected a whole number"),
        ({"patch": 0}, r"^patch is 0; expected a whole number of at least 1$"),
        ({"seed": -1}, r"^seed is -1"),
        ({"normalise": "no"}, r"^normalise is 'no'; expected True or False$"),
        (
            {"baseline": [0.0, 1.0]},
            r"^baseline is a list; expected one baseline for insertion and deletion$",
        ),
        ({"baseline": "grey"}, r"^baseline is 'grey'"),
        ({"apply": "tanh"}, r"^apply is 'tanh'"),
        ({"target": 2}, r"^target 2 is outside"),
        ({"channel_axis": 0}, r"^channel_axis is 0; expected an axis of \[1, 3, 4, 5\] behind"),
        ({"channel_axis": "a"}, r"^channel_axis is 'a'; expected an axis"),
        ({"channel_axis": 1.0}, r"^channel_axis is 1.0; expected an axis"),
        ({"progress": 3}, r"^progress is 3; expected a function"),
        ({"channel_axis": 4}, r"^channel_axis is 4; expected an axis"),
        ({"channel_axis": -4}, r"^channel_axis is -4; expected an axis"),
    ],
)
def test_settings_that_make_no_sense(
    images: igonnx.Explainer, arguments: dict[str, Any], message: str
) -> None:
    x = np.ones((1, 3, 4, 5), np.float32)
    with pytest.raises(igonnx.InputError, match=message):
        insertion_deletion(images, x, x, **arguments)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (1, 3, 5, 4),
            r"has shape \[1, 3, 5, 4\]; expected \[1, 3, 4, 5\], or \[1, 4, 5\] without",
        ),
        ((2, 4, 5), r"has shape \[2, 4, 5\]; expected \[1, 3, 4, 5\]"),
        ((20,), r"has shape \[20\]"),
        ((), r"has shape \[\]"),
    ],
)
def test_values_of_other_shapes(
    images: igonnx.Explainer, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(igonnx.InputError, match=message):
        insertion_deletion(images, np.ones((1, 3, 4, 5), np.float32), np.zeros(shape))


def test_values_that_are_no_numbers(images: igonnx.Explainer, linear: igonnx.Explainer) -> None:
    x = np.ones((1, 3, 4, 5), np.float32)
    values = np.zeros((1, 4, 5))
    values[0, 0, 0] = np.nan
    with pytest.raises(igonnx.InputError, match=r"^1 of 20 values of the attribution are NaN"):
        insertion_deletion(images, x, values)
    with pytest.raises(
        igonnx.InputError, match=r"^the attribution is for \['z'\]; expected .*\['x'\]$"
    ):
        insertion_deletion(images, x, {"z": values})
    with pytest.raises(igonnx.InputError, match=r"shape \[1, 5\]; expected \[1, 6\]$"):
        insertion_deletion(linear, np.ones((1, 6)), np.ones((1, 5)), baseline=0.0)


def test_tensors_inside_the_model_are_changed_there(mlp: onnx.ModelProto) -> None:
    inner = igonnx.Explainer(mlp, wrt="t")
    x = np.random.default_rng(19).normal(size=(2, 6)).astype(np.float32)
    attribution = inner.integrated_gradients(x, target=1, steps=1)
    found = insertion_deletion(inner, x, attribution, baseline=0.0, apply=None)
    gained = np.cumsum(-np.sort(-attribution.of(), axis=1), axis=1)  # logits are linear in t
    np.testing.assert_allclose(found.insertion[:, 1:], gained, rtol=1e-4, atol=1e-6)


def test_one_pixel(model: ModelMaker) -> None:
    explainer = igonnx.Explainer(
        model("(float[N, 1, 1, 1] x) => (float[N, 1, 1, 1] y) { y = Mul(x, x) }")
    )
    found = insertion_deletion(
        explainer, np.full((1, 1, 1, 1), 3.0), np.zeros((1, 1, 1, 1)), baseline=None, apply=None
    )
    np.testing.assert_array_equal(found.insertion, [[0, 9]])
    np.testing.assert_array_equal(found.score, [0])


# -- completeness ------------------------------------------------------------------------------


def test_completeness(mlp: onnx.ModelProto) -> None:
    explainer = igonnx.Explainer(mlp)
    x = np.random.default_rng(15).normal(size=(3, 6)).astype(np.float32)
    rough, fine = (
        explainer.integrated_gradients(x, target=0, steps=n, rule="left") for n in (3, 300)
    )
    change = rough.scores - rough.baseline_scores
    np.testing.assert_allclose(completeness(rough), np.abs(rough.delta / change))
    assert (completeness(fine) < completeness(rough) / 20).all()
    nothing = dataclasses.replace(
        fine,
        values=np.zeros((3, 6)),
        delta=np.array([0.0, 1.0, 2.0]),
        baseline_scores=fine.scores - [0, 0, 4],
    )
    np.testing.assert_allclose(completeness(nothing), [0, np.inf, 0.5])
