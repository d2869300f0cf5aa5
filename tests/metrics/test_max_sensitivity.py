"""Max-sensitivity: nothing where the explanation is constant, the definition elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import igonnx
from igonnx.metrics import max_sensitivity

Array = np.ndarray[Any, np.dtype[Any]]


def test_what_never_changes_is_not_sensitive(linear: igonnx.Explainer) -> None:
    x = np.random.default_rng(2).normal(size=(4, 6))
    found = max_sensitivity(linear, x, "saliency", absolute=False)
    assert found.distance.shape == (4, 10)
    np.testing.assert_array_equal(found.score, 0)
    constant = max_sensitivity(linear, x, lambda inputs, target: np.ones((4, 6)), radius=5.0)
    np.testing.assert_array_equal(constant.score, 0)
    assert constant.target == [None] * 4
    nothing = max_sensitivity(linear, x, lambda inputs, target: np.zeros((4, 6)))
    np.testing.assert_array_equal(nothing.score, 0)


@pytest.mark.parametrize("order", [1, 2, np.inf])
def test_the_definition(linear: igonnx.Explainer, order: float) -> None:
    """Of the identity as an explanation, the distance is that of the inputs."""
    x = np.random.default_rng(3).normal(size=(3, 6))
    moves: list[Array] = []

    def moved(x: Any, radius: float, random: np.random.Generator) -> Any:
        moves.append(random.uniform(-radius, radius, (3, 6)))
        return {"x": x["x"] + moves[-1]}

    found = max_sensitivity(
        linear,
        x,
        lambda inputs, target: inputs["x"],
        perturbation=moved,
        radius=0.3,
        samples=6,
        order=order,
    )
    assert len(moves) == 6
    norms = np.stack([np.linalg.norm(move, ord=order, axis=1) for move in moves], axis=1)
    expected = norms / np.linalg.norm(x, ord=order, axis=1)[:, None]
    np.testing.assert_allclose(found.distance, expected)
    np.testing.assert_allclose(found.score, expected.max(axis=1))


def test_neighbours_lie_in_the_cube(linear: igonnx.Explainer) -> None:
    x = np.random.default_rng(4).normal(size=(3, 6))
    seen: list[Array] = []

    def kept(inputs: Any, **_: Any) -> Array:
        seen.append(inputs["x"] - x)
        return x

    max_sensitivity(linear, x, kept, radius=0.5, samples=40)
    shifts = np.stack(seen[1:])
    assert np.abs(shifts).max() <= 0.5 + 1e-12
    assert np.abs(shifts).max() > 0.45
    assert np.abs(shifts.mean()) < 0.1
    # Every example has the same draws.
    np.testing.assert_allclose(shifts, np.broadcast_to(shifts[:, :1], shifts.shape), atol=1e-12)


def test_the_target_is_that_of_the_input_itself(linear: igonnx.Explainer) -> None:
    x = np.random.default_rng(5).normal(size=(4, 6))
    told: list[Any] = []

    def explained(inputs: Any, target: Any) -> igonnx.Attribution:
        told.append(target)
        return linear.saliency(inputs, target=target, absolute=False)

    # So far away that other classes win.
    found = max_sensitivity(linear, x, explained, radius=50.0, samples=3)
    best = [(int(k),) for k in linear.predict(x)["y"].argmax(axis=1)]
    assert told == [best] * 4
    assert found.target == best
    np.testing.assert_array_equal(found.score, 0)
    mask = np.eye(3)[[0, 1, 2, 0]]
    assert max_sensitivity(linear, x, "saliency", target=mask).target == [None] * 4


def test_names_functions_and_batches_agree(mlp: onnx.ModelProto) -> None:
    explainer = igonnx.Explainer(mlp)
    x = np.random.default_rng(6).normal(size=(5, 6)).astype(np.float32)
    settings: dict[str, Any] = {"target": 1, "steps": 5, "baseline": 0.2, "samples": 4}
    named = max_sensitivity(explainer, x, "integrated_gradients", **settings)
    assert (named.score > 1e-3).all()
    other = max_sensitivity(explainer, x, explainer.integrated_gradients, **settings)
    np.testing.assert_array_equal(other.distance, named.distance)
    alone = max_sensitivity(explainer, x[2:3], "integrated_gradients", **settings)
    np.testing.assert_allclose(alone.distance, named.distance[2:3], rtol=1e-4)
    seeded = max_sensitivity(explainer, x, "integrated_gradients", seed=9, **settings)
    assert not np.array_equal(seeded.distance, named.distance)


def test_progress_timeout_and_cancel(linear: igonnx.Explainer) -> None:
    x = np.ones((1, 6))
    told: list[tuple[int, int]] = []
    max_sensitivity(linear, x, "saliency", progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 11) for done in range(1, 12)]
    token = igonnx.CancelToken()
    token.cancel()
    with pytest.raises(igonnx.CancelledError):
        max_sensitivity(linear, x, "saliency", cancel=token)
    with pytest.raises(igonnx.DeadlineError):
        max_sensitivity(linear, x, lambda inputs, target: x, timeout=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 0}, r"^samples is 0"),
        ({"radius": 0}, r"^radius is 0; expected a number above 0$"),
        ({"order": 0}, r"^order is 0"),
        ({"order": "fro"}, r"^order is 'fro'"),
        ({"seed": 1.5}, r"^seed is 1.5"),
        (
            {"method": "no_such"},
            r"^method is 'no_such'; expected the name of a method of Explainer",
        ),
        ({"method": "predict"}, r"^method is 'predict'; expected the name"),
        ({"method": "_prepare"}, r"^method is '_prepare'; expected the name"),
        ({"method": 3}, r"^method is 3; expected the name"),
        ({"perturbation": 1}, r"^perturbation is 1; expected a function, or None$"),
        (
            {"perturbation": lambda x, radius, r: 5},
            r"^the perturbation gives a int; expected \{name",
        ),
    ],
)
def test_settings_that_make_no_sense(
    linear: igonnx.Explainer, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(igonnx.InputError, match=message):
        max_sensitivity(linear, np.ones((1, 6)), **{"method": "saliency", **arguments})


def test_integers_have_no_neighbours(model: Any) -> None:
    words = np.random.default_rng(7).normal(size=(5, 3)).astype(np.float32)
    explainer = igonnx.Explainer(
        model(
            "(int64[N, 4] ids) => (float[N, 3] y) { e = Gather(w, ids) \n y = ReduceMax<axes = [1], keepdims = 0>(e) }",
            {"w": words},
        )
    )
    with pytest.raises(igonnx.InputError, match=r"no input is floating, so none has neighbours$"):
        max_sensitivity(explainer, np.zeros((1, 4), np.int64), "saliency")
