"""Inputs and baselines that do not fit: one line that says what was given and what was expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

import igonnx
from igonnx.inputs import BatchedInputs, batched_inputs, checked_baseline, numpy_dtype
from igonnx.model import Model

Build = Callable[..., onnx.ModelProto]


def _message(action: Callable[[], Any], error: type[Exception] = igonnx.InputError) -> str:
    with pytest.raises(error) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def pair(model: Build) -> igonnx.Explainer:
    """image float32 [N, 3, 4, W], ids int64 [N, 2], flag bool [N]."""
    return igonnx.Explainer(
        model(
            """(float[N, 3, 4, W] image, int64[N, 2] ids, bool[N] flag) => (float[N] y) {
                s = ReduceSum<keepdims = 0>(image, axes)
                t = Sin(s)
                i = ReduceSum<keepdims = 0>(ids, one)
                j = Cast<to = 1>(i)
                k = Cast<to = 1>(flag)
                m = Mul(t, j)
                y = Add(m, k)
            }""",
            {"axes": np.array([1, 2, 3]), "one": np.array([1])},
        )
    )


def _fine(**changes: Any) -> dict[str, Any]:
    good = {
        "image": np.ones((2, 3, 4, 5), np.float32),
        "ids": np.ones((2, 2), np.int64),
        "flag": np.ones(2, bool),
    }
    return {name: array for name, array in (good | changes).items() if array is not None}


def test_what_fits(pair: igonnx.Explainer) -> None:
    for changes in (
        {},
        {"image": np.ones((2, 3, 4, 9))},
        {"image": np.ones((2, 3, 4, 5), np.uint8)},
        {"image": np.ones((2, 3, 4, 5), np.float16).tolist()},
        {"ids": np.ones((2, 2), np.int32)},
        {"ids": np.ones((2, 2), bool)},
        {"flag": [0, 1]},
        {"flag": np.ones(2, np.uint8)},
    ):
        assert pair.predict(_fine(**changes))["y"].shape == (2,)


NAN = np.ones((2, 3, 4, 5), np.float32)
NAN[1, 2, 3, 4] = np.nan
INF = np.ones((2, 3, 4, 5), np.float32)
INF[0, 0, 0, 1] = INF[0, 0, 0, 2] = -np.inf
IMAGE = "expected [N, 3, 4, W]"

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "missing": (
        {"ids": None},
        "inputs given: 'image', 'flag'; the model expects 'image', 'ids', 'flag'",
    ),
    "unknown": (
        {"imgs": 1},
        "inputs given: 'image', 'ids', 'flag', 'imgs'; the model expects 'image', 'ids', 'flag'",
    ),
    "rank": (
        {"image": np.ones((3, 4, 5), np.float32)},
        f"input 'image' has shape [3, 4, 5]; {IMAGE}",
    ),
    "channels": (
        {"image": np.ones((2, 1, 4, 5), np.float32)},
        f"input 'image' has shape [2, 1, 4, 5]; {IMAGE}",
    ),
    "layout": (
        {"image": np.ones((2, 4, 5, 3), np.float32)},
        f"input 'image' has shape [2, 4, 5, 3]; {IMAGE}",
    ),
    "scalar": ({"image": 1.0}, f"input 'image' has shape []; {IMAGE}"),
    "strings": ({"image": np.full((2, 3, 4, 5), "a")}, "input 'image' is <U1; expected float32"),
    "objects": (
        {"image": np.full((2, 3, 4, 5), None)},
        "input 'image' is object; expected float32",
    ),
    "complex": (
        {"image": np.ones((2, 3, 4, 5), complex)},
        "input 'image' is complex128; expected float32",
    ),
    "none": ({"image": [None]}, "input 'image' is object; expected float32"),
    "fractions": ({"ids": np.full((2, 2), 0.5)}, "input 'ids' is float64; expected int64"),
    "floats": ({"ids": np.ones((2, 2), np.float32)}, "input 'ids' is float32; expected int64"),
    "too large": (
        {"ids": np.full((2, 2), 2**63, np.uint64)},
        "input 'ids' is uint64 with values that int64 cannot hold",
    ),
    "not boolean": (
        {"flag": np.array([0, 2])},
        "input 'flag' is int64 with values that bool cannot hold",
    ),
    "nan": (
        {"image": NAN},
        "input 'image' is nan at [1, 2, 3, 4] (1 such values); expected finite numbers",
    ),
    "inf": (
        {"image": INF},
        "input 'image' is -inf at [0, 0, 0, 1] (2 such values); expected finite numbers",
    ),
    "empty": (
        {"image": np.ones((0, 3, 4, 5))},
        "input 'image' holds no examples: shape [0, 3, 4, 5]",
    ),
    "counts": (
        {"ids": np.ones((3, 2), np.int64)},
        "inputs hold different numbers of examples: {'image': 2, 'ids': 3, 'flag': 2}; "
        "name those to explain with wrt=",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_inputs_that_do_not_fit(pair: igonnx.Explainer, name: str) -> None:
    changes, expected = WRONG[name]
    for method in (pair.predict, pair.integrated_gradients):
        assert _message(lambda m=method: m(_fine(**changes))) == expected


def test_lists_of_different_lengths(mlp: onnx.ModelProto) -> None:
    explainer = igonnx.Explainer(mlp)
    assert _message(lambda: explainer.predict([[1.0, 2.0], [3.0]])).startswith(
        "input 'x' cannot be made an array: setting an array element with a sequence."
    )
    x = np.ones((2, 6), np.float32)
    assert _message(
        lambda: explainer.integrated_gradients(x, baseline={"x": [[1.0], [1.0, 2.0]]})
    ).startswith("baseline of 'x' cannot be made an array:")


def test_a_list_of_numbers_may_mean_two_things(mlp: onnx.ModelProto) -> None:
    explainer, x = igonnx.Explainer(mlp), np.ones((2, 6), np.float32)
    numbers = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert _message(lambda: explainer.integrated_gradients(x, baseline=numbers)) == (
        "baseline is a list of 6 numbers: one array of them, or 6 baselines? Pass numpy.array([...]) for the one, a "
        "list of arrays for the other"
    )
    one = explainer.integrated_gradients(x, target=0, baseline=np.array(numbers))
    nested = explainer.integrated_gradients(x, target=0, baseline=[numbers])
    np.testing.assert_allclose(one.values, nested.values, rtol=1e-5)


def test_one_array_for_several_inputs(pair: igonnx.Explainer) -> None:
    message = _message(lambda: pair.predict(np.ones((2, 3, 4, 5))))
    assert (
        message
        == "one array was given; the model has 3 inputs: pass a dict of ['image', 'ids', 'flag']"
    )
    assert (
        _message(lambda: pair.predict({}))
        == "inputs given: nothing; the model expects 'image', 'ids', 'flag'"
    )


def test_half_precision_overflow(model: Build) -> None:
    explainer = igonnx.Explainer(model("(float16[N, 2] x) => (float16[N, 2] y) { y = Relu(x) }"))
    message = _message(lambda: explainer.predict(np.float32([[1, 1e6]])))
    assert message == "input 'x' is inf at [0, 1] (1 such values); expected finite numbers"


def test_fixed_tables_must_have_their_length(model: Build) -> None:
    explainer = igonnx.Explainer(
        model(
            "(float[N, 3] x, float[5, 3] table) => (float[N, 5] y) { t = Transpose(table) \n y = MatMul(x, t) }"
        ),
        wrt="x",
    )
    x = np.ones((2, 3), np.float32)
    assert explainer.predict({"x": x, "table": np.ones((5, 3), np.float32)})["y"].shape == (2, 5)
    message = _message(lambda: explainer.predict({"x": x, "table": np.ones((2, 3), np.float32)}))
    assert message == "input 'table' has shape [2, 3]; expected [5, 3]"


def test_string_inputs_pass(model: Build) -> None:
    explainer = igonnx.Explainer(
        model(
            """(float[N, 2] x, string[N] word) => (float[N, 2] y, string[N] same) {
                y = Sin(x)
                same = Identity(word)
            }"""
        )
    )
    inputs = {"x": np.ones((2, 2), np.float32), "word": ["cat", "dog"]}
    assert explainer.predict(inputs)["same"].tolist() == ["cat", "dog"]
    assert explainer.integrated_gradients(inputs, target=0, steps=2).values.shape == (2, 2)
    assert (
        _message(lambda: explainer.predict(inputs | {"word": [1, 2]}))
        == "input 'word' is int64; expected strings"
    )


BROADCAST = "expected [2, 6], or a shape that broadcasts to it"
BASELINES: dict[str, tuple[Any, str]] = {
    "shape": (np.ones((2, 5)), f"baseline of 'x' has shape [2, 5]; {BROADCAST}"),
    "rank": (np.ones((1, 2, 6)), f"baseline of 'x' has shape [1, 2, 6]; {BROADCAST}"),
    "nan": (np.nan, "baseline of 'x' is nan; expected finite numbers"),
    "inf": (np.full(6, np.inf), "baseline of 'x' is inf at [0] (6 such values); expected finite numbers"),
    "name": ("grey", "baseline is 'grey'; expected 'black', 'white', 'mean', 'blurred', 'uniform', a number or "
        "an array"),
    "table": ("black", "baseline 'black' is for images and series; for an input of shape [2, 6] pass an array, such "
        "as the means of your data"),
    "string": (np.array("black"), "baseline of 'x' is <U5; expected float32"),
    "unknown": ({"y": 0}, "baseline for 'y', which is not explained; expected 'x'"),
    "complex": (1j, "baseline of 'x' is complex128; expected float32"),
}  # fmt: skip


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_that_do_not_fit(mlp: onnx.ModelProto, name: str) -> None:
    given, expected = BASELINES[name]
    explainer = igonnx.Explainer(mlp)
    x = np.ones((2, 6), np.float32)
    assert _message(lambda: explainer.integrated_gradients(x, baseline=given)) == expected


def test_one_baseline_array_for_several_tensors() -> None:
    x = {"a": np.ones((2, 3)), "b": np.ones((2, 4))}
    message = _message(lambda: checked_baseline(np.zeros(3), x, np.float32))
    assert (
        message == "one baseline array was given for 2 explained tensors: pass a dict of ['a', 'b']"
    )
    filled = checked_baseline(0.5, x, np.float32)
    assert {name: (array.dtype, array.min(), array.shape) for name, array in filled.items()} == {
        "a": (np.float32, 0.5, (2, 3)),
        "b": (np.float32, 0.5, (2, 4)),
    }
    assert all(array.flags.c_contiguous for array in filled.values())


def test_settings_that_do_not_fit(mlp: onnx.ModelProto) -> None:
    explainer = igonnx.Explainer(mlp)
    x = np.ones((1, 6), np.float32)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"steps": 0}, "steps is 0; expected a whole number of at least 1"),
        ({"steps": 2.5}, "steps is 2.5; expected a whole number of at least 1"),
        (
            {"rule": "simpson"},
            "unknown rule 'simpson'; expected one of left, right, middle, trapezoid, gauss_legendre",
        ),
    ]
    for tolerance in (0, 1, -0.1, 2.0, np.nan, "0.1", True):
        expected = f"tolerance is {tolerance!r}; expected a number between 0 and 1, such as 0.01"
        cases.append(({"tolerance": tolerance}, expected))
    for max_steps in (0, 12, None, 100.0, "100"):
        expected = f"max_steps is {max_steps!r}; expected a whole number of at least 13"
        cases.append(({"tolerance": 0.1, "max_steps": max_steps}, expected))
    for options, expected in cases:
        assert _message(lambda o=options: explainer.integrated_gradients(x, **o)) == expected


def test_which_inputs_count_examples(model: Build) -> None:
    loaded = Model.load(
        model(
            """(float[N, T] x, float[M, 2] other, float[T] places, float[4, 2] table, float s) => (float[N, T] y) {
                y = Sin(x)
            }"""
        )
    )

    def batched(**sizes: int) -> BatchedInputs:
        n, m = sizes["n"], sizes["m"]
        arrays = {
            "x": np.ones((n, 4)),
            "other": np.ones((m, 2)),
            "places": np.ones(4),
            "table": np.ones((4, 2)),
            "s": np.ones(()),
        }
        return batched_inputs(loaded, arrays, ["x"])

    assert batched(n=4, m=4) == BatchedInputs(("x",), ("other",))
    assert batched(n=3, m=4) == BatchedInputs(("x",), ())
    assert batched(n=3, m=3) == BatchedInputs(("x",), ("other",))
    assert batched(n=1, m=5) == BatchedInputs(("x",), ())


def test_a_scalar_has_no_examples(model: Callable[..., onnx.ModelProto]) -> None:
    explainer = igonnx.Explainer(model("(float x) => (float y) { y = Tanh(x) }"))
    expected = "wrt 'x' is a scalar: it has no batch axis to explain examples along"
    assert _message(lambda: explainer.predict(np.float32(1))) == expected
    assert _message(lambda: explainer.saliency(np.float32(1))) == expected


def test_dtypes_of_names() -> None:
    assert numpy_dtype("float32") == np.float32
    assert numpy_dtype("string") == np.dtype(object)
    assert numpy_dtype("bfloat16").name == "bfloat16"
    assert numpy_dtype("float8e4m3fn").name == "float8_e4m3fn"
    assert numpy_dtype("int4").name == "int4"


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_gradients_that_are_not_finite(model: Build, engine: str) -> None:
    # a root has no slope at zero; a norm has none at the origin
    root = igonnx.Explainer(
        model("(float[N, 3] x) => (float[N, 3] y) { y = Sqrt(x) }"), engine=engine, batch_size=3
    )
    x = np.ones((3, 3), np.float32)
    start = np.float32([[1, 1, 1], [1, 0, 1], [0, 0, 0]]) + 0 * x
    for rule, points in (("left", 6), ("trapezoid", 6)):
        message = _message(
            lambda r=rule: root.integrated_gradients(x, baseline=start, target=1, steps=5, rule=r),
            igonnx.EngineError,
        )
        assert message == (
            f"the gradient is not finite at alpha = 0 on the path of example 1 (2 of {3 * points} points): "
            "try another baseline, or wrt= a tensor behind the singularity"
        )
    # Gauss-Legendre looks at the baseline only for its score, which is finite
    found = root.integrated_gradients(x, baseline=start, target=1, steps=50)
    np.testing.assert_allclose(found.values[:, 1], [0, 1, 1], atol=0.02)
    np.testing.assert_allclose(found.baseline_scores, [1, 0, 0])
    message = _message(
        lambda: root.integrated_gradients(x, target=1, tolerance=0.1), igonnx.EngineError
    )
    assert message.startswith("the gradient is not finite at alpha = 0 on the path of example 0 ")
    logarithm = igonnx.Explainer(
        model("(float[N, 3] x) => (float[N, 3] y) { y = Log(x) }"), engine=engine
    )
    message = _message(
        lambda: logarithm.integrated_gradients(x, target=1, steps=5), igonnx.EngineError
    )
    assert message.startswith("the score is not finite at alpha = 0 on the path of example 0 ")
    assert np.isfinite(root.integrated_gradients(x, baseline=0.5, target=1).values).all()
