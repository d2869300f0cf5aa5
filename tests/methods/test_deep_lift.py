"""DeepLIFT and DeepLIFT-SHAP as methods: sums, closed forms, the paper's examples, batches and baselines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import igonnx
from igonnx.autodiff.propagation.deep_lift import RULES

Array: TypeAlias = NDArray[Any]
Build: TypeAlias = Callable[..., onnx.ModelProto]


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# -- networks: text, weights, shape of an example ----------------------------------------------

NETWORKS: dict[str, tuple[str, dict[str, Array], tuple[int, ...]]] = {
    "mlp": (
        "(float[N, 6] x) => (float[N, 3] y) { a = Gemm(x, u, b) r = Relu(a) m = MatMul(r, v) c = Add(m, d) "
        "t = Tanh(c) y = MatMul(t, w) }",
        {
            "u": random(6, 9, seed=1),
            "b": random(9, seed=2),
            "v": random(9, 7, seed=3),
            "d": random(7, seed=4),
            "w": random(7, 3, seed=5),
        },
        (6,),
    ),
    "residual": (
        "(float[N, 2, 9, 9] x) => (float[N, 3] y) { a = Conv<pads = [1, 1, 1, 1]>(x, k, b) "
        "n = BatchNormalization(a, s, t, mean, var) r = Relu(n) "
        "p = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(r) "
        "c = Conv<pads = [1, 1, 1, 1]>(p, l) q = Add(c, p) z = Relu(q) g = GlobalAveragePool(z) f = Flatten(g) "
        "o = MatMul(f, w) y = Softmax<axis = -1>(o) }",
        {
            "k": random(4, 2, 3, 3, seed=1),
            "b": random(4, seed=2),
            "s": random(4, seed=3),
            "t": random(4, seed=4),
            "mean": random(4, seed=5),
            "var": np.abs(random(4, seed=6)) + np.float32(0.5),
            "l": random(4, 4, 3, 3, seed=7),
            "w": random(4, 3, seed=8) / 8,
        },
        (2, 9, 9),
    ),
    "transformer": (
        "(float[N, 5, 8] x) => (float[N, 3] y) { q = MatMul(x, a) k = MatMul(x, b) v = MatMul(x, c) "
        "kt = Transpose<perm = [0, 2, 1]>(k) s = MatMul(q, kt) p = Softmax<axis = -1>(s) o = MatMul(p, v) "
        "r = Add(o, x) l = LayerNormalization(r, scale, shift) g = Gelu(l) m = ReduceMean<keepdims = 0>(g, one) "
        "y = MatMul(m, w) }",
        {
            "a": random(8, 8, seed=1) / 2,
            "b": random(8, 8, seed=2) / 2,
            "c": random(8, 8, seed=3),
            "scale": random(8, seed=4),
            "shift": random(8, seed=5),
            "one": np.array([1]),
            "w": random(8, 3, seed=6),
        },
        (5, 8),
    ),
    "norms": (
        "(float[N, 3, 5, 5] x) => (float[N, 3] y) { i = InstanceNormalization(x, s, t) "
        "l = LRN<size = 3, alpha = 0.3>(i) "
        "e = ReduceLogSumExp<keepdims = 0>(l, axes) n = ReduceL2<keepdims = 0>(x, axes) "
        "p = LpNormalization<axis = 1>(e) "
        "y = Div(p, n) }",
        {"s": random(3, seed=1), "t": random(3, seed=2), "axes": np.array([2, 3])},
        (3, 5, 5),
    ),
    "lstm": (
        "(float[N, 6, 4] x) => (float[N, 3] y) { t = Transpose<perm = [1, 0, 2]>(x) "
        'a, h, c = LSTM<hidden_size = 5, direction = "bidirectional">(t, u, r, b) '
        "s = Transpose<perm = [1, 0, 2]>(h) f = Flatten(s) y = MatMul(f, w) }",
        {
            "u": random(2, 20, 4, seed=1),
            "r": random(2, 20, 5, seed=2),
            "b": random(2, 40, seed=3),
            "w": random(10, 3, seed=4),
        },
        (6, 4),
    ),
    "gru": (
        "(float[N, T, 4] x) => (float[N, 3] y) { t = Transpose<perm = [1, 0, 2]>(x) "
        "a, h = GRU<hidden_size = 5, linear_before_reset = 1>(t, u, r, b) z = Squeeze(h, zero) y = MatMul(z, w) }",
        {
            "u": random(1, 15, 4, seed=1),
            "r": random(1, 15, 5, seed=2),
            "b": random(1, 30, seed=3),
            "zero": np.array([0]),
            "w": random(5, 3, seed=4),
        },
        (7, 4),
    ),
}


def network(model: Build, name: str) -> tuple[onnx.ModelProto, Array, Array]:
    """The model, five examples and their baselines; the first element of an example equals its baseline."""
    text, weights, shape = NETWORKS[name]
    x, baseline = random(5, *shape, seed=11), random(5, *shape, seed=12)
    x[(slice(None), *[0] * len(shape))] = baseline[(slice(None), *[0] * len(shape))]
    return model(text, weights, opset=20, ir_version=10), x, baseline


TARGET = [0, 1, 2, 0, 1]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NETWORKS)
def test_sum_is_the_change_of_the_score(model: Build, name: str, rule: str) -> None:
    """By both engines, for any batch size; an element like its baseline gets nothing."""
    proto, x, baseline = network(model, name)
    found = {}
    for engine, size in (("native", 2), ("native", 5), ("reference", 3)):
        explainer = igonnx.Explainer(proto, engine=engine, batch_size=size)
        attribution = explainer.deep_lift(x, baseline=baseline, target=TARGET, rule=rule)
        values = attribution.values
        scale = np.abs(values).sum(axis=tuple(range(1, x.ndim))).max()
        assert np.abs(attribution.delta).max() <= 1e-6 * scale
        assert not values[(slice(None), *[0] * (x.ndim - 1))].any()
        assert attribution.method == f"deep_lift rule={rule}"
        found[engine, size] = values
    first, *others = found.values()
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-4, atol=1e-6 * np.abs(first).max())


@pytest.mark.parametrize("name", ["mlp", "transformer"])
def test_double_precision(model: Build, name: str) -> None:
    text, weights, shape = NETWORKS[name]
    double = {k: a.astype(np.float64) if a.dtype == np.float32 else a for k, a in weights.items()}
    text = text.replace("float[", "double[").replace("Gelu", "Tanh")  # no Erf of doubles on the CPU
    proto = model(text, double, opset=20, ir_version=10)
    x, baseline = random(2, *shape, seed=1).astype(float), random(2, *shape, seed=2).astype(float)
    found = igonnx.Explainer(proto).deep_lift(x, baseline=baseline, target=0)
    assert np.abs(found.delta).max() <= 1e-13


@pytest.mark.parametrize("rule", RULES)
def test_linear_model(model: Build, rule: str) -> None:
    weights = random(4, 3, seed=1)
    proto = model(
        "(float[N, 4] x) => (float[N, 3] y) { m = MatMul(x, w) y = Add(m, b) }",
        {"w": weights, "b": random(3, seed=2)},
    )
    x, baseline = random(3, 4, seed=3), random(3, 4, seed=4)
    found = igonnx.Explainer(proto).deep_lift(x, baseline=baseline, target=[0, 1, 2], rule=rule)
    np.testing.assert_allclose(found.values, weights.T * (x - baseline), rtol=1e-5, atol=1e-6)


# -- the paper's examples ----------------------------------------------------------------------

# min(i1, i2) = i1 - max(0, i1 - i2), of two columns of x.
MINIMUM = (
    "(float[N, 2] x) => (float[N, 1] y) "
    "{ d = MatMul(x, difference) r = Relu(d) f = MatMul(x, first) y = Sub(f, r) }"
)
COLUMNS = {
    "difference": np.array([[1], [-1]], np.float32),
    "first": np.array([[1], [0]], np.float32),
}


def test_minimum_of_two(model: Build) -> None:
    """Section 3.4 of the paper: rescale gives all to the smaller one, RevealCancel half to each."""
    x = np.array([[3, 1], [1, 4], [2, 2], [5, 0]], np.float32)
    explainer = igonnx.Explainer(model(MINIMUM, COLUMNS))
    by_rescale = explainer.deep_lift(x, target=0).values
    np.testing.assert_allclose(by_rescale, [[0, 1], [1, 0], [2, 0], [0, 0]], atol=1e-6)
    revealed = explainer.deep_lift(x, target=0, rule="reveal_cancel").values
    half = x.min(axis=1, keepdims=True) / 2
    np.testing.assert_allclose(revealed, np.hstack([half, half]), atol=1e-6)


def test_saturation(model: Build) -> None:
    """Figure 1: y = 1 - max(0, 1 - (i1 + i2)) has no gradient at (1, 1), and both inputs matter alike."""
    proto = model(
        "(float[N, 2] x) => (float[N, 1] y) { s = MatMul(x, ones) d = Sub(one, s) r = Relu(d) y = Sub(one, r) }",
        {"ones": np.ones((2, 1), np.float32), "one": np.float32(1)},
    )
    explainer = igonnx.Explainer(proto)
    x = np.ones((1, 2), np.float32)
    assert not explainer.saliency(x, target=0).values.any()
    for rule in RULES:
        found = explainer.deep_lift(x, target=0, rule=rule).values
        np.testing.assert_allclose(found, [[0.5, 0.5]], atol=1e-6)


def reveal_cancel(x: Array, x0: Array, w: Array, b: Array, out: Array) -> Array:
    """RevealCancel through out . tanh(x w + b), by the formulas of section 3.5: float64 [N, inputs]."""
    parts = (x - x0)[:, :, None] * w
    positive, negative = np.maximum(parts, 0).sum(1), np.minimum(parts, 0).sum(1)
    h0 = x0 @ w + b
    f0, f = np.tanh(h0), np.tanh(h0 + positive + negative)
    fp, fn = np.tanh(h0 + positive), np.tanh(h0 + negative)
    slopes = [((fp - f0) + (f - fn)) / 2 / positive, ((fn - f0) + (f - fp)) / 2 / negative]
    multiplier = np.where(parts > 0, slopes[0][:, None], slopes[1][:, None])
    return np.asarray((parts * multiplier * out).sum(axis=2))


LAYERS = {
    "Gemm": "h = Gemm(x, w, b)",
    "MatMul": "m = MatMul(x, w) h = Add(m, b)",
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("engine", ["native", "reference"])
def test_reveal_cancel_by_its_definition(model: Build, layer: str, engine: str) -> None:
    w, b, out = random(5, 7, seed=1), random(7, seed=2), random(7, 1, seed=3)
    weights = {"w": w, "b": b, "o": out}
    proto = model(
        f"(float[N, 5] x) => (float[N, 1] y) {{ {LAYERS[layer]} t = Tanh(h) y = MatMul(t, o) }}",
        weights,
    )
    x, x0 = random(4, 5, seed=4), random(4, 5, seed=5)
    found = igonnx.Explainer(proto, engine=engine).deep_lift(
        x, baseline=x0, target=0, rule="reveal_cancel"
    )
    wide = [array.astype(np.float64) for array in (x, x0, w, b, out[:, 0])]
    np.testing.assert_allclose(found.values, reveal_cancel(*wide), rtol=1e-4, atol=1e-5)


def test_reveal_cancel_behind_a_convolution(model: Build) -> None:
    """Images of one pixel: the convolution is a matrix product."""
    w, b, out = random(5, 7, seed=1), random(7, seed=2), random(7, 1, seed=3)
    proto = model(
        "(float[N, 5, 1, 1] x) => (float[N, 1] y) { h = Conv(x, k, b) t = Tanh(h) f = Flatten(t) y = MatMul(f, o) }",
        {"k": np.ascontiguousarray(w.T)[:, :, None, None], "b": b, "o": out},
    )
    x, x0 = random(4, 5, 1, 1, seed=4), random(4, 5, 1, 1, seed=5)
    found = igonnx.Explainer(proto).deep_lift(x, baseline=x0, target=0, rule="reveal_cancel").values
    wide = [a.astype(np.float64) for a in (x[..., 0, 0], x0[..., 0, 0], w, b, out[:, 0])]
    np.testing.assert_allclose(found[..., 0, 0], reveal_cancel(*wide), rtol=1e-4, atol=1e-5)


# -- what is explained, and from where ---------------------------------------------------------


def test_inner_tensor_and_apply(model: Build) -> None:
    proto, x, baseline = network(model, "mlp")
    explainer = igonnx.Explainer(proto, wrt=["r"], apply="softmax")
    found = explainer.deep_lift(x, baseline={"x": baseline}, target=1)
    assert found.values.shape == (5, 9)
    assert np.abs(found.delta).max() <= 1e-6


def test_several_inputs_and_fixed_ones(model: Build) -> None:
    proto = model(
        "(float[N, 4] a, float[N, 4] b, float[N, 4] gate) => (float[N, 4] y) "
        "{ p = Mul(a, gate) q = Sigmoid(b) y = Mul(p, q) }"
    )
    a, b, gate = (random(3, 4, seed=i) for i in range(3))
    explainer = igonnx.Explainer(proto, wrt=["a", "b"])
    found = explainer.deep_lift({"a": a, "b": b, "gate": gate}, target=2)
    q = 1 / (1 + np.exp(-b.astype(float)))
    wanted = np.zeros((3, 4))
    wanted[:, 2] = (a * gate * (q + 0.5) / 2)[:, 2]
    np.testing.assert_allclose(found.values["a"], wanted, rtol=1e-5)
    wanted[:, 2] = (a * gate / 2 * (q - 0.5))[:, 2]
    np.testing.assert_allclose(found.values["b"], wanted, rtol=1e-4, atol=1e-7)


def test_fixed_batch(model: Build) -> None:
    text, weights, _ = NETWORKS["mlp"]
    free, x, baseline = network(model, "mlp")
    fixed = model(text.replace("[N,", "[1,"), weights, opset=20, ir_version=10)
    for engine in ("native", "reference"):
        found, wanted = (
            igonnx.Explainer(proto, engine=engine).deep_lift(x, baseline=baseline, target=0).values
            for proto in (fixed, free)
        )
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_several_baselines_and_noise(model: Build) -> None:
    proto, x, baseline = network(model, "mlp")
    explainer = igonnx.Explainer(proto)
    each = [explainer.deep_lift(x, baseline=b, target=1).values for b in (baseline, 0.0)]
    both = explainer.deep_lift(x, baseline=[baseline, 0.0], target=1)
    np.testing.assert_allclose(both.values, np.mean(each, axis=0), rtol=1e-5, atol=1e-6)
    noisy = [
        explainer.deep_lift(x, target=1, noise="smoothgrad", noise_samples=4, seed=seed).values
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert np.abs(noisy[0] - noisy[2]).max() > 1e-3


# -- DeepLIFT-SHAP -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "residual"])
def test_shap_is_the_mean_over_baselines(model: Build, name: str) -> None:
    proto, x, _ = network(model, name)
    baselines = random(4, *x.shape[1:], seed=7)
    for engine in ("native", "reference"):
        explainer = igonnx.Explainer(proto, engine=engine, batch_size=3)
        found = explainer.deep_lift_shap(x, baseline=baselines, target=TARGET)
        each = [
            explainer.deep_lift(x, baseline=np.broadcast_to(b, x.shape), target=TARGET)
            for b in baselines
        ]
        wanted = np.mean([one.values for one in each], axis=0)
        np.testing.assert_allclose(found.values, wanted, rtol=1e-4, atol=1e-6)
        scores = np.mean([one.baseline_scores for one in each], axis=0)
        np.testing.assert_allclose(found.baseline_scores, scores, rtol=1e-5)
        assert np.abs(found.delta).max() <= 1e-5
        assert list(found.steps_used) == [4] * 5


def test_shap_draws_without_repetition(model: Build) -> None:
    """Of a linear model the values tell which baselines were drawn."""
    proto = model("(float[N, 3] x) => (float[N, 1] y) { y = MatMul(x, w) }", {"w": random(3, 1)})
    explainer = igonnx.Explainer(proto)
    x = np.zeros((1, 3), np.float32)
    baselines = np.diag(2.0 ** np.arange(3)).astype(np.float32)
    found = explainer.deep_lift_shap(x, baseline=baselines, target=0, samples=2, seed=3)
    assert np.count_nonzero(found.values) == 2
    again = explainer.deep_lift_shap(x, baseline=baselines, target=0, samples=2, seed=3)
    np.testing.assert_array_equal(again.values, found.values)
    every = explainer.deep_lift_shap(x, baseline=baselines, target=0, samples=9)
    np.testing.assert_allclose(every.values, -(2.0 ** np.arange(3)) / 3 * random(3, 1).T, rtol=1e-5)


# -- errors ------------------------------------------------------------------------------------


def test_refusals(model: Build) -> None:
    proto, x, _ = network(model, "mlp")
    explainer = igonnx.Explainer(proto)
    with pytest.raises(igonnx.InputError, match="rule is 'epsilon'"):
        explainer.deep_lift(x, rule="epsilon")
    with pytest.raises(igonnx.InputError, match="samples is 0; expected a whole number"):
        explainer.deep_lift_shap(x, samples=0)
    x[2, 3] = np.nan
    with pytest.raises(igonnx.InputError, match=r"nan at .* expected finite"):
        explainer.deep_lift(x)


def test_a_value_that_is_not_finite_is_told(model: Build) -> None:
    proto = model("(float[N, 2] x) => (float[N, 2] y) { y = Log(x) }")
    with pytest.raises(igonnx.EngineError, match=r"not finite .* example 0"):
        igonnx.Explainer(proto).deep_lift(np.ones((1, 2), np.float32), target=0)
