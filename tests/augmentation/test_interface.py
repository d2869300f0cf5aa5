"""What an augmented model takes and gives: targets, baselines, lazy explanations, names, metadata."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import pytest
from augmented_runs import Build, assert_as_explained, checked, distance, random, run, session
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, RuntimeException

import igonnx
from igonnx.models import digits


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return digits.test_set()[0][:7]


@pytest.fixture(scope="module")
def augmented() -> onnx.ModelProto:
    return checked(igonnx.augment(digits.load(), steps=12, chunk=5))


# -- inputs and outputs ------------------------------------------------------------------------


def test_names_types_and_shapes(augmented: onnx.ModelProto) -> None:
    opened = session(augmented)
    original = session(digits.load())
    assert [(e.name, e.type, e.shape) for e in opened.get_inputs()] == [
        (e.name, e.type, e.shape) for e in original.get_inputs()
    ]
    optional = {(e.name, e.type, len(e.shape)) for e in opened.get_overridable_initializers()}
    assert optional == {("baseline", "tensor(float)", 4), ("target", "tensor(int64)", 1)}
    assert [e.name for e in augmented.graph.input] == ["image", "target", "baseline"]
    assert [(e.name, e.type, e.shape) for e in opened.get_outputs()] == [
        ("logits", "tensor(float)", ["batch", 10]),
        ("attribution_image", "tensor(float)", ["batch", 1, 8, 8]),
        ("completeness_delta", "tensor(float)", ["batch"]),
    ]


def test_predictions_are_the_same_to_the_last_bit(
    augmented: onnx.ModelProto, images: np.ndarray
) -> None:
    expected = run(digits.load(), {"image": images})["logits"]
    np.testing.assert_array_equal(run(augmented, {"image": images})["logits"], expected)


def test_metadata() -> None:
    model = igonnx.augment(digits.load(), steps=12, rule="middle", apply="softmax", target=3)
    (entry,) = (e for e in model.metadata_props if e.key == "igonnx.augmented")
    said = json.loads(entry.value)
    assert said["version"] == igonnx.__version__
    known = {"method": "integrated_gradients", "steps": 12, "rule": "middle", "apply": "softmax"}
    known |= {"output": "logits", "wrt": ["image"], "target": 3, "chunk": 10, "lazy": False}
    assert {key: said[key] for key in known} == known


# -- targets -----------------------------------------------------------------------------------


def test_targets(augmented: onnx.ModelProto, images: np.ndarray) -> None:
    explainer = igonnx.Explainer(digits.load())
    for given in ([3], [0, 1, 2, 3, 4, 5, 9]):
        target: Any = given[0] if len(given) == 1 else given
        expected = explainer.integrated_gradients(images, target=target, steps=12)
        found = run(augmented, {"image": images, "target": np.array(given)})
        assert_as_explained(found, expected, ("image",))


def test_the_largest_for_some_and_a_class_for_others(
    augmented: onnx.ModelProto, images: np.ndarray
) -> None:
    largest = run(augmented, {"image": images})["attribution_image"]
    third = run(augmented, {"image": images, "target": np.array([3])})["attribution_image"]
    mixed = np.array([-1, 3, -1, 3, -1, 3, -1])
    found = run(augmented, {"image": images, "target": mixed})["attribution_image"]
    np.testing.assert_array_equal(
        found, np.where((mixed == 3)[:, None, None, None], third, largest)
    )


def test_no_such_target_explains_nothing(augmented: onnx.ModelProto, images: np.ndarray) -> None:
    target = np.array([0, 10, -2, 1000, -1, 9, 2])
    there = np.array([True, False, False, False, True, True, True])
    found = run(augmented, {"image": images, "target": target})
    assert not found["attribution_image"][~there].any()
    assert np.isnan(found["completeness_delta"][~there]).all()
    assert np.isfinite(found["completeness_delta"][there]).all()
    assert found["attribution_image"][there].reshape(4, -1).any(axis=1).all()


def test_another_number_of_targets_is_refused(
    augmented: onnx.ModelProto, images: np.ndarray
) -> None:
    for target in ([1, 2, 3], []):
        for rows in (images, images[:1]):
            with pytest.raises(
                (Fail, RuntimeException), match="target_must_be_one_or_one_per_example"
            ):
                run(augmented, {"image": rows, "target": np.array(target, np.int64)})


@pytest.mark.parametrize(("target", "place"), [((1, 2), 5), ((0, 0), 0), ([1, 0], 3)])
def test_places_in_outputs_of_several_axes(model: Build, target: Any, place: int) -> None:
    graph = model("(float[N, 2, 3] x) => (float[N, 2, 3] y) { s = Sin(x) \n y = Mul(s, x) }")
    x = random(2, 2, 3)
    expected = igonnx.Explainer(graph).integrated_gradients(x, target=tuple(target), steps=12)
    baked = igonnx.augment(graph, target=target, steps=12)
    assert_as_explained(run(baked, {"x": x}), expected, ("x",))
    fed = run(igonnx.augment(graph, steps=12), {"x": x, "target": np.array([place])})
    assert_as_explained(fed, expected, ("x",))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (10, r"^target is 10; expected an index into an example's output, which has shape \[10\]$"),
        (-1, r"^target is -1; expected an index"),
        ((1, 2), r"^target is \(1, 2\); expected an index"),
        ("largest", r"^target is 'largest'; expected 'argmax', an int or a tuple of ints$"),
        (1.5, r"^target is 1.5; expected 'argmax'"),
    ],
)
def test_default_targets_that_do_not_fit(target: Any, message: str) -> None:
    with pytest.raises(igonnx.InputError, match=message):
        igonnx.augment(digits.load(), target=target)


# -- baselines ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 8, 8), (7, 1, 8, 8), (7, 1, 1, 1)])
def test_baselines(augmented: onnx.ModelProto, images: np.ndarray, shape: tuple[int, ...]) -> None:
    baseline = abs(random(*shape)) / 3
    explainer = igonnx.Explainer(digits.load())
    expected = explainer.integrated_gradients(images, baseline=baseline, steps=12)
    found = run(augmented, {"image": images, "baseline": baseline})
    assert_as_explained(found, expected, ("image",))


def test_the_default_baseline(images: np.ndarray) -> None:
    expected = igonnx.Explainer(digits.load()).integrated_gradients(images, baseline=0.25, steps=12)
    model = igonnx.augment(digits.load(), baseline=0.25, steps=12)
    assert_as_explained(run(model, {"image": images}), expected, ("image",))


@pytest.mark.parametrize("shape", [(1, 1, 8, 4), (2, 1, 8, 8), (1, 3, 8, 8)])
def test_a_baseline_of_another_shape_is_refused(
    augmented: onnx.ModelProto, images: np.ndarray, shape: tuple[int, ...]
) -> None:
    for count in (1, 7):
        with pytest.raises((Fail, RuntimeException), match="baseline_must_broadcast_to_its_input"):
            run(augmented, {"image": images[:count], "baseline": np.zeros(shape, np.float32)})


@pytest.mark.parametrize("baseline", ["black", float("nan"), float("inf"), None, [0.0], 10**400])
def test_a_default_baseline_is_a_number(baseline: Any) -> None:
    with pytest.raises(igonnx.InputError, match=r"^baseline is .*; expected a finite number$"):
        igonnx.augment(digits.load(), baseline=baseline)


def test_a_default_baseline_is_finite_in_the_dtype_of_the_model() -> None:
    with pytest.raises(igonnx.InputError, match=r"^baseline is 1e\+39; expected .* in float32$"):
        igonnx.augment(digits.load(), baseline=1e39)


# -- lazy --------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"chunk": 100}, {"heatmap": "overlay"}])
def test_lazy(settings: dict[str, Any], images: np.ndarray) -> None:
    model = checked(igonnx.augment(digits.load(), steps=12, lazy=True, **settings))
    eager = run(igonnx.augment(digits.load(), steps=12, **settings), {"image": images})
    names = [entry.name for entry in model.graph.input]
    assert names == ["image", "target", "baseline", "explain"]
    asked = run(model, {"image": images, "explain": np.array([True])})
    assert asked.keys() == eager.keys()
    for name, array in eager.items():
        assert distance(asked[name], array) < 1e-6 or not array.any()
    for feeds in ({}, {"explain": np.array([False])}):
        plain = run(model, {"image": images, **feeds})
        np.testing.assert_array_equal(plain["logits"], eager["logits"])
        for name in set(plain) - {"logits"}:
            assert plain[name].shape == (0, *eager[name].shape[1:])
            assert plain[name].dtype == eager[name].dtype


def test_inputs_that_must_be_fed(images: np.ndarray) -> None:
    """Runtimes for JavaScript cannot feed inputs that have initializers."""
    model = checked(igonnx.augment(digits.load(), steps=12, lazy=True, optional_inputs=False))
    opened = session(model)
    names = [entry.name for entry in opened.get_inputs()]
    assert names == ["image", "target", "baseline", "explain"]
    assert not opened.get_overridable_initializers()
    feeds = {
        "image": images,
        "target": np.array([-1]),
        "baseline": np.zeros((1, 1, 1, 1), np.float32),
        "explain": np.array([True]),
    }
    expected = igonnx.Explainer(digits.load()).integrated_gradients(images, steps=12)
    assert_as_explained(run(model, feeds), expected, ("image",))
    assert run(model, {**feeds, "explain": np.array([False])})["attribution_image"].shape[0] == 0


def test_lazy_with_sizes_known_at_run_time(model: Build) -> None:
    graph = model("(float[N, T, 3] x) => (float[N, T, 3] y) { s = Sin(x) \n y = Mul(s, x) }")
    opened = checked(igonnx.augment(graph, steps=4, lazy=True))
    assert run(opened, {"x": random(2, 5, 3)})["attribution_x"].shape == (0, 5, 3)


@pytest.mark.parametrize(
    "settings",
    [{}, {"chunk": 100}, {"method": "smoothgrad_ig", "noise_samples": 2}, {"heatmap": "overlay"}],
)
def test_no_examples_are_predicted_and_explained(
    settings: dict[str, Any], images: np.ndarray
) -> None:
    found = run(igonnx.augment(digits.load(), steps=12, **settings), {"image": images[:0]})
    shapes = {name: array.shape for name, array in found.items()}
    drawn = {"heatmap_image": (0, 8, 8), "overlay_image": (0, 8, 8, 4)}
    assert shapes == {
        "logits": (0, 10),
        "attribution_image": (0, 1, 8, 8),
        "completeness_delta": (0,),
        **(drawn if "heatmap" in settings else {}),
    }


def test_settings_may_be_numbers_of_numpy() -> None:
    settings = {"method": "smoothgrad_ig", "heatmap": "overlay"}
    plain = igonnx.augment(
        digits.load(),
        steps=4,
        target=3,
        baseline=float(np.float32(3e38)),
        noise_std=0.5,
        heatmap_threshold=0.25,
        **settings,
    )
    same = igonnx.augment(
        digits.load(),
        steps=np.int64(4),
        target=np.int64(3),
        baseline=np.float32(3e38),
        noise_std=np.float32(0.5),
        heatmap_threshold=np.float32(0.25),
        **settings,
    )
    assert same == plain


# -- what is refused ---------------------------------------------------------------------------


def test_an_augmented_model_is_not_augmented_again(augmented: onnx.ModelProto) -> None:
    with pytest.raises(igonnx.InputError, match="explains itself already"):
        igonnx.augment(augmented)


def test_an_explanation_graph_is_not_augmented() -> None:
    with pytest.raises(igonnx.InputError, match="is the explanation graph of"):
        igonnx.augment(igonnx.compile(digits.load()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"wrt": "nothing"}, r"^unknown tensor 'nothing'"),
        ({"output": "nothing"}, r"^unknown output 'nothing'"),
        ({"method": "guided_ig"}, r"^method is 'guided_ig'; expected one of integrated_gradients"),
        ({"rule": "simpson"}, r"^unknown rule 'simpson'"),
        ({"steps": 0}, r"^steps is 0; expected a whole number of at least 1$"),
        ({"chunk": 0}, r"^chunk is 0; expected a whole number of at least 1$"),
        ({"apply": "relu"}, r"^apply is 'relu'; expected None"),
        ({"heatmap": "rainbow"}, r"^heatmap is 'rainbow'; expected None, 'sum', 'absolute', 'over"),
        ({"heatmap": "sum", "heatmap_threshold": 2}, r"^heatmap_threshold is 2; expected a number"),
        (
            {"heatmap": "sum", "heatmap_threshold": "low"},
            r"^heatmap_threshold is 'low'; expected a",
        ),
        ({"method": "smoothgrad_ig", "noise_samples": 0}, r"^noise_samples is 0; expected"),
        ({"method": "smoothgrad_ig", "noise_std": -1.0}, r"^noise_std is -1.0; expected None or"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(igonnx.InputError, match=message):
        igonnx.augment(digits.load(), **settings)


@pytest.mark.parametrize("name", ["target", "baseline", "attribution_x", "completeness_delta"])
def test_names_that_are_needed(model: Build, name: str) -> None:
    as_input = model(
        f"(float[N, 3] x, float[N, 3] {name}) => (float[N, 3] y) {{ y = Mul(x, {name}) }}"
    )
    with pytest.raises(igonnx.InputError, match=f"has an input called '{name}'.*rename it first"):
        igonnx.augment(as_input, wrt="x")
    as_output = model(f"(float[N, 3] x) => (float[N, 3] {name}) {{ {name} = Sin(x) }}")
    with pytest.raises(igonnx.InputError, match=f"has an output called '{name}'"):
        igonnx.augment(as_output)
    inside = model(
        f"(float[N, 3] x) => (float[N, 3] y) {{ {name} = Sin(x) \n y = Mul({name}, x) }}"
    )
    x = random(2, 3)
    expected = igonnx.Explainer(inside).integrated_gradients(x, steps=12)
    found = run(checked(igonnx.augment(inside, steps=12)), {"x": x})
    assert_as_explained(found, expected, ("x",))
    weight = model(
        f"(float[N, 3] x) => (float[N, 3] y) {{ s = Sin(x) \n y = Mul({name}, s) }}",
        {name: random(3)},
    )
    before = weight.SerializeToString()
    expected = igonnx.Explainer(weight).integrated_gradients(x, steps=12)
    found = run(checked(igonnx.augment(weight, steps=12)), {"x": x})
    assert_as_explained(found, expected, ("x",))
    assert weight.SerializeToString() == before  # the caller's model stays as it was


def test_a_model_without_a_path(model: Build) -> None:
    with pytest.raises(igonnx.ModelError, match="no differentiable path"):
        igonnx.augment(model("(float[N, 3] x) => (float[N, 3] y) { y = Round(x) }"))
