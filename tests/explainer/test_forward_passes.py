"""Calls of forward passes only: scores at any points, values of inner tensors, models without a gradient, siblings."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

import igonnx
from igonnx.methods.call import Call, MethodResult, scores_at

STEPS = """<ir_version: 8, opset_import: ["": 17]> steps (float[N, 3] x) => (float[N, 2] y) {
    w = Constant<value = float[3, 2] {1, -2, 3, 4, -5, 6}>()
    h = MatMul(x, w)
    i = Cast<to = 7>(h)
    y = Cast<to = 1>(i)
}"""
SKIP = """<ir_version: 8, opset_import: ["": 17]> skip (float[N, 3] x, float[N, 3] shift) => (float[N] y) {
    h = Sigmoid(x)
    inner = Mul(h, h)
    added = Add(inner, x)
    moved = Add(added, shift)
    last = Constant<value = int64[1] {1}>()
    y = ReduceSum<keepdims = 0>(moved, last)
}"""
LOOKUP = """<ir_version: 8, opset_import: ["": 17]> lookup (int64[N, 3] ids) => (float[N] y) {
    squares = Mul(ids, ids)
    real = Cast<to = 1>(squares)
    last = Constant<value = int64[1] {1}>()
    y = ReduceSum<keepdims = 0>(real, last)
}"""


def _model(text: str) -> onnx.ModelProto:
    return parser.parse_model(text)


def _seen(explainer: igonnx.Explainer, inputs: object, points: dict, names: list[str]) -> tuple:
    """Scores and values of `names` at `points`, one for each example in reverse order."""
    seen = []

    def core(call: Call) -> MethodResult:
        rows = np.arange(len(call))[::-1].copy()
        scores = scores_at(call, rows, points)
        seen.append((scores, call.values(names, rows, points) if call.values and names else {}))
        zeros = {name: np.zeros(array.shape) for name, array in call.requests.x.items()}
        return MethodResult(zeros, np.zeros(len(call), np.int64))

    explainer.explain_with(
        core, inputs, method="seen", propagation=None, target=explainer_target(explainer)
    )
    return seen[0]


def explainer_target(explainer: igonnx.Explainer) -> int | None:
    return 1 if explainer.model.name == "steps" else None


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_model_without_a_gradient_has_scores_and_values(count: int) -> None:
    rng = np.random.default_rng(count)
    x = rng.normal(size=(count, 3)).astype(np.float32) * 3
    points = {"x": rng.normal(size=(count, 3)).astype(np.float32) * 3}
    weights = np.array([[1, -2], [3, 4], [-5, 6]], np.float32)
    scores, values = _seen(igonnx.Explainer(_model(STEPS)), x, points, ["h"])
    np.testing.assert_allclose(values["h"], points["x"] @ weights, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(scores, np.trunc(points["x"] @ weights)[:, 1])


def test_gradients_of_such_a_model_are_refused() -> None:
    explainer = igonnx.Explainer(_model(STEPS))
    with pytest.raises(igonnx.ModelError, match="no differentiable path from 'x'"):
        explainer.integrated_gradients(np.ones((1, 3), np.float32))


def test_inputs_of_integers() -> None:
    explainer = igonnx.Explainer(_model(LOOKUP), wrt="ids")
    ids = np.array([[1, 2, 3], [4, 5, 1 << 20]])
    scores, _ = _seen(explainer, ids, {"ids": ids[::-1].astype(np.float64)}, [])
    expected = (ids[::-1].astype(np.float32) ** 2).sum(axis=1)
    np.testing.assert_array_equal(scores, expected)
    with pytest.raises(igonnx.InputError, match="only floating tensors have gradients"):
        explainer.saliency(ids)


@pytest.mark.parametrize("count", [1, 3])
def test_points_of_an_inner_tensor(count: int) -> None:
    rng = np.random.default_rng(count)
    x, shift, inner = rng.normal(size=(3, count, 3)).astype(np.float32)
    explainer = igonnx.Explainer(_model(SKIP), wrt="inner")
    given = {"x": x, "shift": shift}
    scores, values = _seen(explainer, given, {"inner": inner}, ["added", "moved", "inner"])
    rows = slice(None, None, -1)  # what is not explained belongs to the example of each point
    np.testing.assert_allclose(values["added"], inner + x[rows], rtol=1e-6)
    np.testing.assert_allclose(values["moved"], inner + x[rows] + shift[rows], rtol=1e-6)
    np.testing.assert_array_equal(values["inner"], inner)
    np.testing.assert_allclose(scores, (inner + x[rows] + shift[rows]).sum(axis=1), rtol=1e-5)


def test_a_tensor_that_does_not_count_the_examples() -> None:
    text = SKIP.replace("moved = Add", "turned = Transpose<perm = [1, 0]>(added)\n moved = Add")
    explainer = igonnx.Explainer(_model(text), wrt="x")
    given = {name: np.ones((2, 3), np.float32) for name in ("x", "shift")}
    with pytest.raises(igonnx.InputError, match=r"'turned' has shape \[3, 2\] for 2 examples"):
        _seen(explainer, given, {"x": given["x"]}, ["turned"])


class TestSiblings:
    def test_another_tensor_and_another_output(self) -> None:
        explainer = igonnx.Explainer(_model(SKIP), wrt="x")
        assert explainer.sibling(wrt="inner").wrt == ("inner",)
        assert explainer.sibling(wrt="inner") is explainer.sibling(wrt=["inner"])
        assert explainer.sibling(wrt="x") is explainer
        given = {"x": np.array([[0.5, -1, 2]], np.float32), "shift": np.ones((1, 3), np.float32)}
        neuron = explainer.sibling(output="inner").saliency(given, target=1, absolute=False)
        h = 1 / (1 + np.exp(1.0))
        np.testing.assert_allclose(neuron.values, [[0, 2 * h * h * (1 - h), 0]], rtol=1e-5)
        assert explainer.output == "y"

    def test_unknown_names_and_inputs(self) -> None:
        explainer = igonnx.Explainer(_model(SKIP), wrt="x")
        with pytest.raises(igonnx.InputError, match=r"unknown tensor 'iner'.*did you mean 'inner'"):
            explainer.sibling(output="iner")
        with pytest.raises(igonnx.InputError, match="'shift' is an input of the model"):
            explainer.sibling(output="shift")
