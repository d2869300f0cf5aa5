"""Integrated Gradients on functions whose integral is known, and the axioms of the paper (arXiv:1703.01365)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from scipy import special

import igonnx
from igonnx.quadrature import RULES, nodes_and_weights

Build = Callable[..., onnx.ModelProto]
ENGINES = ["native", "reference"]

X = np.array([[0.7, -1.3, 2.0], [1.5, 0.4, -0.6]])
BASELINE = np.array([[0.1, 0.5, -1.0], [0.0, -0.2, 0.3]])


def _ig(
    model: onnx.ModelProto, x: Any = X, baseline: Any = BASELINE, **options: Any
) -> igonnx.Attribution:
    engine = options.pop("engine", "reference")
    explainer = igonnx.Explainer(model, engine=engine, apply=options.pop("apply", None))
    dtype = explainer.model.inputs[0].dtype
    return explainer.integrated_gradients(
        np.asarray(x, dtype), baseline=np.asarray(baseline, dtype), **options
    )


def _discrete(
    gradient: Callable[[NDArray[np.float64]], NDArray[np.float64]], rule: str, steps: int
) -> NDArray[np.float64]:
    """The rule's sum, from a gradient in closed form."""
    nodes, weights = nodes_and_weights(rule, steps)
    total = np.zeros_like(X)
    for alpha, weight in zip(nodes, weights, strict=True):
        total += weight * gradient(BASELINE + alpha * (X - BASELINE))
    return (X - BASELINE) * total


# name: graph, gradient at z, integral in closed form
FUNCTIONS: dict[str, tuple[str, Callable[..., Any], Callable[..., Any]]] = {
    "linear": (
        "y = MatMul(x, w)",
        lambda z: np.broadcast_to([2.0, -3.0, 0.5], z.shape),
        lambda x, b: (x - b) * [2.0, -3.0, 0.5],
    ),
    "quadratic": (
        "s = Mul(x, x) \n y = MatMul(s, w)",
        lambda z: 2 * z * [2.0, -3.0, 0.5],
        lambda x, b: (x**2 - b**2) * [2.0, -3.0, 0.5],
    ),
    "product": (
        # x0 * x1 * x2: a cubic along the path
        "a = Gather<axis = 1>(x, i0) \n b = Gather<axis = 1>(x, i1) \n c = Gather<axis = 1>(x, i2) \n"
        "ab = Mul(a, b) \n y = Mul(ab, c)",
        lambda z: np.stack([z[:, 1] * z[:, 2], z[:, 0] * z[:, 2], z[:, 0] * z[:, 1]], axis=1),
        None,  # by Gauss-Legendre of enough points, below
    ),
    "exp": (
        "e = Exp(x) \n y = MatMul(e, w)",
        lambda z: np.exp(z) * [2.0, -3.0, 0.5],
        lambda x, b: (np.exp(x) - np.exp(b)) * [2.0, -3.0, 0.5],
    ),
    "sin": (
        "e = Sin(x) \n y = MatMul(e, w)",
        lambda z: np.cos(z) * [2.0, -3.0, 0.5],
        lambda x, b: (np.sin(x) - np.sin(b)) * [2.0, -3.0, 0.5],
    ),
    "relu": (
        "e = Relu(x) \n y = MatMul(e, w)",
        lambda z: (z > 0) * [2.0, -3.0, 0.5],
        lambda x, b: (np.maximum(x, 0) - np.maximum(b, 0)) * [2.0, -3.0, 0.5],
    ),
    "softmax pair": (
        # the first of two classes whose scores differ by s = w . x: sigmoid(s)
        "s = MatMul(x, w) \n n = Sub(zero, s) \n a = Unsqueeze(s, one) \n b = Unsqueeze(n, one) \n"
        "t = Concat<axis = 1>(a, b) \n h = Mul(t, half) \n y2 = Softmax<axis = 1>(h) \n"
        "y = Gather<axis = 1>(y2, first)",
        lambda z: _sigmoid_slope(z @ [2.0, -3.0, 0.5])[:, None] * [2.0, -3.0, 0.5],
        lambda x, b: _sigmoid_integral(x, b),
    ),
}


def _sigmoid_slope(s: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(special.expit(s) * special.expit(-s))


def _sigmoid_integral(x: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.array([2.0, -3.0, 0.5])
    start, end = b @ weights, x @ weights
    share = (x - b) * weights / (end - start)[:, None]
    return share * (special.expit(end) - special.expit(start))[:, None]


def _function(model: Build, name: str) -> onnx.ModelProto:
    constants = {
        "w": np.array([2.0, -3.0, 0.5]),
        "zero": np.array(0.0),
        "half": np.array(0.5),
        "one": np.array([1]),
        "first": np.array(0),
        **{f"i{i}": np.array(i) for i in range(3)},
    }
    used = {key: value for key, value in constants.items() if key in FUNCTIONS[name][0]}
    return model(f"(double[N, 3] x) => (double[N] y) {{ {FUNCTIONS[name][0]} }}", used)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_rule_gives_its_own_sum(model: Build, name: str, rule: str, engine: str) -> None:
    _, gradient, _ = FUNCTIONS[name]
    for steps in (1, 2, 7):
        found = _ig(_function(model, name), rule=rule, steps=steps, engine=engine)
        np.testing.assert_allclose(
            found.values, _discrete(gradient, rule, steps), rtol=1e-12, atol=1e-13
        )
        change = found.scores - found.baseline_scores
        np.testing.assert_allclose(found.delta, found.values.sum(axis=1) - change, atol=1e-13)
        assert (found.steps_used == steps + (rule == "trapezoid")).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_closed_forms(model: Build, name: str) -> None:
    _, gradient, integral = FUNCTIONS[name]
    exact = _discrete(gradient, "gauss_legendre", 3) if integral is None else integral(X, BASELINE)
    bounds = {"left": 0.2, "right": 0.2, "middle": 2e-2, "trapezoid": 2e-2, "gauss_legendre": 2e-2}
    for rule, bound in bounds.items():
        found = _ig(_function(model, name), rule=rule, steps=200)
        np.testing.assert_allclose(found.values, exact, atol=bound, err_msg=rule)
        assert np.abs(found.delta).max() < bound
    smooth = _ig(_function(model, name), steps=200)
    if name != "relu":
        np.testing.assert_allclose(smooth.values, exact, rtol=1e-12, atol=1e-13)
        assert np.abs(smooth.delta).max() < 1e-12


@pytest.mark.parametrize(("name", "steps"), [("linear", 1), ("quadratic", 1), ("product", 2)])
def test_gauss_legendre_is_exact_on_polynomials(model: Build, name: str, steps: int) -> None:
    _, gradient, _ = FUNCTIONS[name]
    found = _ig(_function(model, name), steps=steps)
    np.testing.assert_allclose(found.values, _discrete(gradient, "gauss_legendre", 40), rtol=1e-13)
    assert np.abs(found.delta).max() < 1e-13


def test_product_of_two_shares_equally(model: Build) -> None:
    product = model(
        "(float[N, 1] a, float[N, 1] b) => (float[N, 1] y) { y = Mul(a, b) }",
    )
    inputs = {"a": np.full((1, 1), 3, np.float32), "b": np.full((1, 1), 5, np.float32)}
    found = igonnx.Explainer(product).integrated_gradients(inputs, steps=1)
    assert {name: array.item() for name, array in found.values.items()} == {"a": 7.5, "b": 7.5}
    assert found.delta.tolist() == [0]


def test_path_holds_the_saturation_curve(model: Build) -> None:
    found = _ig(_function(model, "sin"), steps=9, rule="trapezoid")
    for example, path in enumerate(found.path):
        z = BASELINE[example] + path.alpha[:, None] * (X - BASELINE)[example]
        np.testing.assert_allclose(path.score, np.sin(z) @ [2.0, -3.0, 0.5], rtol=1e-12)
        slope = np.cos(z) * [2.0, -3.0, 0.5] @ (X - BASELINE)[example]
        np.testing.assert_allclose(path.slope, slope, rtol=1e-12)
        assert path.weight.sum() == pytest.approx(1)
        assert path.score[0] == found.baseline_scores[example]
        assert path.score[-1] == found.scores[example]


# -- the axioms ------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("apply", [None, "softmax", "log_softmax", "sigmoid"])
def test_completeness(mlp: onnx.ModelProto, engine: str, apply: str | None) -> None:
    x = np.random.default_rng(0).normal(size=(5, 6))
    found = _ig(mlp, x, np.zeros((5, 6)), apply=apply, steps=100, engine=engine)
    change = found.scores - found.baseline_scores
    np.testing.assert_allclose(
        found.values.sum(axis=1), change, atol=2e-5 * max(1, np.abs(change).max())
    )
    assert np.abs(found.delta).max() < 2e-5 * max(1, np.abs(found.scores).max())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("tolerance", [None, 0.01])
def test_a_feature_that_does_not_matter_gets_zero(
    model: Build, engine: str, tolerance: float | None
) -> None:
    weights = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    weights[2] = 0  # nothing of feature 2 gets in
    graph = model(
        """(float[N, 5] x) => (float[N, 3] y) {
            used = Gather<axis = 1>(x, index)
            h = MatMul(used, w)
            y = Tanh(h)
        }""",
        {"w": weights, "index": np.array([0, 1, 2, 3])},  # feature 4 is never read
    )
    x = np.random.default_rng(2).normal(size=(3, 5))
    found = _ig(graph, x, np.ones((3, 5)), engine=engine, target=1, tolerance=tolerance)
    assert (found.values[:, [2, 4]] == 0).all()
    assert (found.values[:, [0, 1, 3]] != 0).all()
    unmoved = _ig(graph, x, np.where(np.arange(5) == 1, x, 0), engine=engine, target=1)
    assert (unmoved.values[:, 1] == 0).all()  # the same in input and baseline


@pytest.mark.parametrize("rule", RULES)
def test_linearity(model: Build, rule: str) -> None:
    a, b = 1.75, -0.4
    f, g = (
        "f0 = Sin(x) \n f = MatMul(f0, w)",
        "g0 = Mul(x, x) \n g = ReduceSum<keepdims = 0>(g0, axes)",
    )
    weights = {"w": np.array([2.0, -3.0, 0.5]), "axes": np.array([1])}
    mixed = model(
        f"(double[N, 3] x) => (double[N] y) {{ {f} \n {g} \n af = Mul(f, a) \n bg = Mul(g, b) \n y = Add(af, bg) }}",
        weights | {"a": np.array(a), "b": np.array(b)},
    )
    of_f = model(f"(double[N, 3] x) => (double[N] f) {{ {f} }}", {"w": weights["w"]})
    of_g = model(f"(double[N, 3] x) => (double[N] g) {{ {g} }}", {"axes": weights["axes"]})
    parts = a * _ig(of_f, rule=rule, steps=8).values + b * _ig(of_g, rule=rule, steps=8).values
    np.testing.assert_allclose(_ig(mixed, rule=rule, steps=8).values, parts, rtol=1e-12)


def _convolutions(model: Build) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The same function twice: Conv and BatchNormalization, and the two folded into one Conv."""
    rng = np.random.default_rng(3)
    w, scale, shift = rng.normal(size=(4, 2, 3, 3)), rng.uniform(0.5, 2, 4), rng.normal(size=4)
    mean, variance, last = rng.normal(size=4), rng.uniform(0.5, 2, 4), rng.normal(size=(4, 3))
    factor = scale / np.sqrt(variance + 1e-5)
    tail = "a = Relu(n) \n p = GlobalAveragePool(a) \n q = Flatten(p) \n y = MatMul(q, last)"
    apart = model(
        f"""(double[N, 2, 6, 6] x) => (double[N, 3] y) {{
            c = Conv<pads = [1, 1, 1, 1]>(x, w)
            n = BatchNormalization(c, scale, shift, mean, variance) \n {tail}
        }}""",
        {"w": w, "scale": scale, "shift": shift, "mean": mean, "variance": variance, "last": last},
    )
    folded = model(
        f"(double[N, 2, 6, 6] x) => (double[N, 3] y) {{ n = Conv<pads = [1, 1, 1, 1]>(x, w, bias) \n {tail} }}",
        {"w": w * factor[:, None, None, None], "bias": shift - mean * factor, "last": last},
    )
    return apart, folded


@pytest.mark.parametrize("tolerance", [None, 0.02])
def test_implementation_invariance_of_folded_batch_norm(
    model: Build, tolerance: float | None
) -> None:
    apart, folded = _convolutions(model)
    # float32, as runtimes have no double convolution with every option
    apart, folded = (_single_precision(graph) for graph in (apart, folded))
    x = np.random.default_rng(4).normal(size=(3, 2, 6, 6))
    results = [
        _ig(graph, x, np.zeros_like(x), target=[0, 1, 2], tolerance=tolerance)
        for graph in (apart, folded)
    ]
    np.testing.assert_allclose(results[0].values, results[1].values, rtol=1e-3, atol=2e-6)
    np.testing.assert_allclose(results[0].scores, results[1].scores, rtol=1e-5, atol=1e-6)


def _single_precision(graph: onnx.ModelProto) -> onnx.ModelProto:
    graph = onnx.ModelProto.FromString(graph.SerializeToString())
    for value in [*graph.graph.input, *graph.graph.output]:
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    for tensor in graph.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float64:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float32), tensor.name))
    return graph


@pytest.mark.parametrize("engine", ENGINES)
def test_implementation_invariance_of_gemm(model: Build, engine: str) -> None:
    rng = np.random.default_rng(6)
    w, b = rng.normal(size=(3, 5)), rng.normal(size=5)
    tail = "t = Sigmoid(h) \n y = ReduceMean<axes = [1], keepdims = 0>(t)"
    forms = [
        (f"h = Gemm(x, w, b) \n {tail}", {"w": w, "b": b}),
        (
            f"h = Gemm<transB = 1, alpha = 2.0, beta = 0.5>(x, w, b) \n {tail}",
            {"w": w.T / 2, "b": b * 2},
        ),
        (f"m = MatMul(x, w) \n h = Add(m, b) \n {tail}", {"w": w, "b": b}),
        (f'm = Einsum<equation = "nd,de->ne">(x, w) \n h = Sum(m, b) \n {tail}', {"w": w, "b": b}),
    ]
    values = []
    for text, weights in forms:
        graph = model(f"(double[N, 3] x) => (double[N] y) {{ {text} }}", weights)
        try:
            values.append(_ig(graph, steps=12, engine=engine).values)
        except igonnx.UnsupportedOperatorError:
            assert "Einsum" in text
    assert len(values) >= 3
    for other in values[1:]:
        np.testing.assert_allclose(other, values[0], rtol=1e-12)


def test_symmetric_features_get_the_same(model: Build) -> None:
    graph = model(
        """(double[N, 4] x) => (double[N] y) {
            s = ReduceSum<keepdims = 0>(x, axes)
            e = Exp(x)
            f = Mul(e, e)
            p = ReduceMean<axes = [1], keepdims = 0>(f)
            t = Mul(s, p)
            y = Sin(t)
        }""",
        {"axes": np.array([1])},
    )
    found = _ig(graph, [[0.3, 0.9, 0.3, 0.9]], [[0.1, 0.2, 0.1, 0.2]], steps=30).values[0]
    assert found[0] == pytest.approx(found[2], rel=1e-13)
    assert found[1] == pytest.approx(found[3], rel=1e-13)
    assert not math.isclose(found[0], found[1], rel_tol=1e-3)


# -- what must not change a result -----------------------------------------------------------


def _close(found: igonnx.Attribution, expected: igonnx.Attribution, bound: float) -> None:
    scale = np.abs(expected.values).max()
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=bound * scale)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=bound, atol=bound)
    np.testing.assert_allclose(found.delta, expected.delta, rtol=0, atol=5 * bound * scale)
    assert found.target == expected.target


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rule", RULES)
def test_batch_size_changes_nothing(mlp: onnx.ModelProto, engine: str, rule: str) -> None:
    x = np.random.default_rng(7).normal(size=(4, 6)).astype(np.float32)
    results = []
    for batch_size in (1, 2, 3, 7, 64):
        explainer = igonnx.Explainer(mlp, engine=engine, batch_size=batch_size)
        results.append(explainer.integrated_gradients(x, target=[0, 3, 1, 1], rule=rule, steps=10))
    for other in results[1:]:
        _close(other, results[0], 1e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "options", [{"steps": 11}, {"tolerance": 0.01}], ids=["fixed", "tolerance"]
)
def test_examples_together_are_as_one_by_one(
    mlp: onnx.ModelProto, engine: str, options: dict[str, Any]
) -> None:
    explainer = igonnx.Explainer(mlp, engine=engine, batch_size=7)
    x = np.random.default_rng(8).normal(size=(5, 6)).astype(np.float32)
    baseline = np.random.default_rng(9).normal(size=(5, 6)).astype(np.float32)
    targets = [3, 0, 2, 2, 1]
    together = explainer.integrated_gradients(x, baseline=baseline, target=targets, **options)
    for i, target in enumerate(targets):
        one = explainer.integrated_gradients(
            x[i : i + 1], baseline=baseline[i : i + 1], target=target, **options
        )
        scale = np.abs(one.values).max()
        np.testing.assert_allclose(together.values[i], one.values[0], rtol=0, atol=1e-6 * scale)
        assert together.target[i] == one.target[0] == (target,)
        assert together.steps_used[i] == one.steps_used[0]
        np.testing.assert_allclose(together.path[i].score, one.path[0].score, atol=2e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_tolerance_does_not_depend_on_the_batch_size(mlp: onnx.ModelProto, engine: str) -> None:
    x = np.random.default_rng(10).normal(size=(2, 6)).astype(np.float32)
    truth = igonnx.Explainer(mlp, engine=engine).integrated_gradients(x, target=2, steps=200).values
    found = [
        igonnx.Explainer(mlp, engine=engine, batch_size=batch_size).integrated_gradients(
            x, target=2, tolerance=0.01
        )
        for batch_size in (1, 2, 3, 7, 64)
    ]
    error = np.linalg.norm(found[0].values - truth, axis=1) / np.linalg.norm(truth, axis=1)
    assert (error < 0.01).all()
    for other in found[1:]:
        assert list(other.steps_used) == list(found[0].steps_used)
        _close(other, found[0], 1e-6)
