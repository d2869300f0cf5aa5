"""Layer-wise relevance propagation: against formulas in NumPy, by both engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from igonnx import Explainer
from igonnx.errors import EngineError, InputError, UnsupportedOperatorError
from igonnx.methods.lrp import RULES

Array: TypeAlias = NDArray[Any]
Build: TypeAlias = Callable[..., onnx.ModelProto]
ENGINES = ("native", "reference")
DATA = Path(__file__).parents[1] / "data"


def drawn(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def settings(rule: str) -> dict[str, Any]:
    return {"rule": rule, **({"low": -6, "high": 6} if rule.endswith("box") else {})}


def relative(given: Array, wanted: Array) -> float:
    return float(np.linalg.norm(given - wanted) / np.linalg.norm(wanted))


# -- networks ---------------------------------------------------------------------------------


@pytest.fixture
def dense(model: Build) -> onnx.ModelProto:
    """ReLUs without biases."""
    return model(
        """(float[N, 6] x) => (float[N, 4] y) {
            h = Gemm(x, w1) r = Relu(h) g = MatMul(r, w2) s = Relu(g) y = MatMul(s, w3)
        }""",
        {"w1": drawn(6, 9), "w2": drawn(9, 7), "w3": drawn(7, 4)},
    )


@pytest.fixture
def convolutional(model: Build) -> onnx.ModelProto:
    """Convolutions without biases, one of them strided, a residual sum, both kinds of pooling."""
    return model(
        """(float[N, 2, 9, 8] x) => (float[N, 3] y) {
            a = Conv <pads=[1,1,1,1]> (x, w1) b = Relu(a) c = Conv <pads=[1,1,1,1]> (b, w2) d = Add(b, c) e = Relu(d)
            f = MaxPool <kernel_shape=[2,2], strides=[1,1]> (e) g = Conv <strides=[2,2]> (f, w3) h = Relu(g)
            i = AveragePool <kernel_shape=[2,2]> (h) j = GlobalAveragePool(i) k = Flatten(j) y = Gemm(k, w4)
        }""",
        {
            "w1": drawn(4, 2, 3, 3),
            "w2": drawn(4, 4, 3, 3),
            "w3": drawn(6, 4, 2, 2),
            "w4": drawn(6, 3),
        },
    )


ATTENTION = """(float[N, 5, 4] x) => (float[N, 3] y) {
    q = MatMul(x, wq) k = MatMul(x, wk) t = Transpose <perm=[0,2,1]> (k) s = MatMul(q, t)
    a = Softmax <axis=-1> (s) v = MatMul(x, wv) o = MatMul(a, v) p = MatMul(o, wo) r = Add(x, p)
    m = ReduceMean <axes=[1], keepdims=0> (r) y = MatMul(m, wy)
}"""


def attention_weights() -> dict[str, Array]:
    weights = {name: drawn(4, 4, seed=i) for i, name in enumerate(("wq", "wk", "wv", "wo"))}
    return {**weights, "wy": drawn(4, 3)}


# -- conservation -----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("name", "shape"), [("dense", (6,)), ("convolutional", (2, 9, 8))])
def test_without_biases_relevance_adds_up_to_the_score(name, shape, rule, engine, request):
    x = drawn(7, *shape, seed=1)
    if name == "convolutional":
        x = np.abs(
            x
        )  # else an output may have no contribution of one sign, which takes its share along
    explainer = Explainer(request.getfixturevalue(name), engine=engine)
    found = explainer.lrp(x, **settings(rule))
    assert found.values.shape == x.shape
    assert found.values.dtype == np.float32
    np.testing.assert_array_equal(found.baseline_scores, 0)
    size = np.abs(found.values).sum(axis=tuple(range(1, x.ndim)))
    assert np.abs(found.delta / size).max() < 1e-4
    assert np.abs(found.scores).min() > 1e-3  # there is something to add up to


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("name", "shape"), [("dense", (6,)), ("convolutional", (2, 9, 8))])
def test_the_epsilon_rule_is_input_times_gradient_without_biases(name, shape, engine, request):
    x = drawn(5, *shape, seed=2)
    explainer = Explainer(request.getfixturevalue(name), engine=engine)
    for epsilon in (0, 1e-9):
        given = explainer.lrp(x, epsilon=epsilon, target=1)
        assert relative(given.values, explainer.input_x_gradient(x, target=1).values) < 1e-5


def test_delta_is_what_biases_and_epsilon_took(model):
    net = model(
        "(float[N, 2] x) => (float[N, 1] y) { y = Gemm(x, w, b) }",
        {"w": np.float32([[2], [1]]), "b": np.float32([3])},
    )
    x = np.float32([[1, 4]])
    found = Explainer(net).lrp(x, epsilon=1)  # y = 9, over 10
    np.testing.assert_allclose(found.values, [[1.8, 3.6]], rtol=1e-6)
    np.testing.assert_allclose(found.delta, [-(3 * 0.9 + 0.9)], rtol=1e-6)
    kept = Explainer(net).lrp(x, rule="z_plus", bias=False)
    np.testing.assert_allclose(kept.values, [[3, 6]], rtol=1e-6)


# -- the rules by hand ------------------------------------------------------------------------

X = np.float32([[4, -2, 3]])
W = np.float32([[2, -1], [1, 3], [-1, 1]])
B = np.float32([0.5, -0.5])


def contributions() -> Array:
    """Of one layer [inputs + bias, outputs]."""
    return np.concatenate([X[0, :, None] * W, B[None]]).astype(np.float64)


def by_hand(relevance: Array, rule: str, gamma: float, alpha: float) -> Array:
    parts = contributions()
    positive, negative = np.maximum(parts, 0), np.minimum(parts, 0)
    z = parts.sum(axis=0)
    if rule == "epsilon":
        shares = parts / z
    elif rule == "gamma":
        boosted = parts + gamma * np.where(z >= 0, positive, negative)
        shares = boosted / boosted.sum(axis=0)
    else:
        shares = alpha * positive / positive.sum(axis=0)
        shares = shares - (alpha - 1) * negative / negative.sum(axis=0)
    return (shares * relevance).sum(axis=1)[:3]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("rule", "given"),
    [
        ("epsilon", {}),
        ("gamma", {"gamma": 0.7}),
        ("alpha_beta", {"alpha": 3.0}),
        ("alpha_beta", {"beta": 0.5}),
        ("z_plus", {}),
    ],
)
def test_one_layer_by_hand(rule, given, engine, model):
    z = contributions().sum(axis=0)
    assert z.min() < 0 < z.max()  # outputs of both signs
    alpha = given.get("alpha", 1 + given.get("beta", 0.0))
    for text in (
        "y = Gemm(x, w, b)",
        "h = MatMul(x, w) y = Add(h, b)",
        "h = MatMul(x, w) y = Add(b, h)",
        """h = Einsum <equation="ni,io->no"> (x, w) y = Add(h, b)""",
    ):
        net = model(f"(float[N, 3] x) => (float[N, 2] y) {{ {text} }}", {"w": W, "b": B})
        for weights in ([1.0, 0.0], [0.0, 1.0], [0.5, 2.0]):
            cotangent = np.float32([weights])
            found = Explainer(net, engine=engine).lrp(X, rule=rule, target=cotangent, **given)
            wanted = by_hand(z * weights, rule, given.get("gamma", 0.0), alpha)
            np.testing.assert_allclose(found.values[0], wanted, rtol=1e-5)


def test_contributions_of_one_sign_get_everything(model):
    net = model(
        "(float[N, 2] x) => (float[N, 2] y) { y = MatMul(x, w) }",
        {"w": np.float32([[1, -1], [3, -1]])},
    )
    for target, wanted in ((0, [2.0, 3.0]), (1, [-2.0, -1.0])):
        found = Explainer(net).lrp(np.float32([[2, 1]]), rule="alpha_beta", target=target)
        np.testing.assert_allclose(found.values, [wanted], rtol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_flat_and_box_at_the_first_layer(engine, model):
    """A padded convolution behind the standardisation of its input, and a layer behind it."""
    w, v = drawn(2, 1, 3), np.abs(drawn(12, 2))
    net = model(
        """(float[N, 1, 6] x) => (float[N, 2] y) {
            c = Sub(x, mean) s = Div(c, std) h = Conv <pads=[1,1]> (s, w, b) r = Relu(h) f = Flatten(r)
            y = MatMul(f, v)
        }""",
        {"mean": np.float32(0.4), "std": np.float32(-0.5), "w": w, "b": drawn(2), "v": v},
    )
    x = np.random.default_rng(0).uniform(size=(3, 1, 6)).astype(np.float32)
    matrix = np.zeros((6, 2, 6))  # of the convolution: input, channel, output
    for k in range(3):
        for out in range(6):
            if 0 <= out + k - 1 < 6:
                matrix[out + k - 1, :, out] = w[:, 0, k]
    matrix = matrix.reshape(6, 12)
    s, low, high = ((end - 0.4) / -0.5 for end in (x[:, 0], 1.0, 0.0))  # turned around
    z = np.maximum(s @ matrix + np.repeat(drawn(2), 6), 0)
    arriving = z * v[:, 1]
    explainer = Explainer(net, engine=engine)
    touches = (matrix != 0).astype(float)
    wanted = (arriving / touches.sum(axis=0)) @ touches.T
    found = explainer.lrp(x, rule="epsilon_plus_flat", target=1)
    np.testing.assert_allclose(found.values[:, 0], wanted, rtol=1e-5)
    above, below = np.maximum(matrix, 0), np.minimum(matrix, 0)
    share = arriving / (s @ matrix - (low * above + high * below).sum(axis=0))
    wanted = s * (share @ matrix.T) - low * (share @ above.T) - high * (share @ below.T)
    for ends in ({"low": 0, "high": 1}, {"low": np.zeros((1, 6)), "high": np.ones(6)}):
        found = explainer.lrp(x, rule="epsilon_gamma_box", target=1, **ends)
        np.testing.assert_allclose(found.values[:, 0], wanted, rtol=2e-4, atol=1e-5)


# -- sums, products, attention ------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_a_gate_gets_nothing(engine, model):
    net = model(
        "(float[N, 3] x, float[N, 3] g) => (float[N, 1] y) { s = Sigmoid(g) p = Mul(s, x) y = MatMul(p, w) }",
        {"w": drawn(3, 1)},
    )
    x, g = drawn(4, 3), drawn(4, 3, seed=1)
    found = Explainer(net, engine=engine).lrp({"x": x, "g": g})
    np.testing.assert_allclose(found.values["x"], x / (1 + np.exp(-g)) * drawn(3, 1).T, rtol=1e-5)
    np.testing.assert_array_equal(found.values["g"], 0)


def test_two_signals_share_evenly(model):
    net = model("(float[N, 3] x, float[N, 3] g) => (float[N, 3] y) { y = Mul(g, x) }")
    x, g = drawn(4, 3), drawn(4, 3, seed=1)
    found = Explainer(net).lrp({"x": x, "g": g}, target=np.ones((4, 3)))
    for name in ("x", "g"):
        np.testing.assert_allclose(found.values[name], x * g / 2, rtol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "y = Gelu(x)",
        "a = Div(x, root) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half)",
        "a = Mul(x, half) b = Div(x, root) c = Erf(b) d = Add(one, c) y = Mul(d, a)",
        "a = Sigmoid(x) y = Mul(a, x)",
        "a = HardSigmoid(x) y = Mul(x, a)",
        "a = Add(x, three) b = Clip(a, zero, six) c = Mul(x, b) y = Div(c, six)",
        "a = Softplus(x) b = Tanh(a) y = Mul(x, b)",
    ],
)
def test_activations_written_out_pass_relevance(text, model):
    constants = {
        "root": np.float32(np.sqrt(2)),
        "one": np.float32(1),
        "half": np.float32(0.5),
        "three": np.float32(3),
        "zero": np.float32(0),
        "six": np.float32(6),
    }
    net = model(
        f"(float[N, 4] x) => (float[N, 4] y) {{ {text} }}", constants, opset=20, ir_version=9
    )
    x = drawn(3, 4) + 0.1
    for engine in ENGINES:
        explainer = Explainer(net, engine=engine)
        for epsilon in (1e-9, 0.5):  # there is nothing to be absorbed: an element is only scaled
            found = explainer.lrp(x, target=np.ones((3, 4)), epsilon=epsilon)
            np.testing.assert_allclose(
                found.values, explainer.predict(x)["y"], rtol=1e-4, atol=1e-7
            )


@pytest.mark.parametrize("engine", ENGINES)
def test_a_residual_sum_against_numpy(engine, model):
    w1, w2, w3 = drawn(4, 5), drawn(5, 4), drawn(4, 2)
    net = model(
        """(float[N, 4] x) => (float[N, 2] y) {
            h = MatMul(x, w1) r = Relu(h) g = MatMul(r, w2) s = Add(x, g) a = Relu(s) y = MatMul(a, w3)
        }""",
        {"w1": w1, "w2": w2, "w3": w3},
    )
    x = drawn(6, 4, seed=3)
    r = np.maximum(x @ w1, 0)
    g = r @ w2
    s = x + g
    wanted = np.zeros_like(x)
    at_sum = np.maximum(s, 0) * w3[:, 0]
    at_g = g / s * at_sum
    at_r = r * ((at_g / g) @ w2.T)
    hidden = x @ w1
    wanted = x / s * at_sum + x * ((at_r / hidden) @ w1.T)
    found = Explainer(net, engine=engine).lrp(x, target=0)
    np.testing.assert_allclose(found.values, wanted, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.delta, 0, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_attention_against_numpy(engine, model):
    """Halves at both products, the expansion of the softmax between them (arXiv:2402.05602)."""
    weights = attention_weights()
    x = drawn(3, 5, 4, seed=4)
    found = Explainer(model(ATTENTION, weights), engine=engine).lrp(x, target=1)
    wide = {name: w.astype(np.float64) for name, w in weights.items()}
    z = x.astype(np.float64)
    q, k, v = (z @ wide[name] for name in ("wq", "wk", "wv"))
    s = q @ k.transpose(0, 2, 1)
    a = np.exp(s) / np.exp(s).sum(axis=-1, keepdims=True)
    o = a @ v
    p = o @ wide["wo"]
    r = z + p
    at_r = r / 5 * wide["wy"][:, 1]
    at_o = o * ((at_r / r) @ wide["wo"].T)
    at_a = a * ((at_o / o) @ v.transpose(0, 2, 1)) / 2
    at_v = v * (a.transpose(0, 2, 1) @ (at_o / o)) / 2
    at_s = s * (at_a - a * at_a.sum(axis=-1, keepdims=True))
    at_q = q * ((at_s / s) @ k) / 2
    at_k = k * ((at_s / s).transpose(0, 2, 1) @ q) / 2
    wanted = z / r * at_r
    for at, value, name in ((at_q, q, "wq"), (at_k, k, "wk"), (at_v, v, "wv")):
        wanted = wanted + z * ((at / value) @ wide[name].T)
    assert relative(found.values, wanted) < 1e-4
    # The softmax alone keeps relevance.
    np.testing.assert_allclose(found.delta, (at_s - at_a).sum(axis=(1, 2)), atol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_constant_beside_a_product_of_two_signals_keeps_its_share(engine, model):
    net = model(
        """(float[N, 2, 3] x) => (float[N, 2, 2] y) {
            t = Transpose <perm=[0,2,1]> (x) p = MatMul(x, t) y = Add(p, c)
        }""",
        {"c": drawn(2, 2)},
    )
    for rule in ("epsilon", "z_plus"):
        found = Explainer(net, engine=engine).lrp(
            drawn(3, 2, 3), target=np.ones((3, 2, 2)), rule=rule
        )
        np.testing.assert_allclose(found.delta, -drawn(2, 2).sum(), rtol=1e-5)


def test_masked_attention_stays_finite(model):
    text = ATTENTION.replace(
        "a = Softmax <axis=-1> (s)", "n = Add(s, mask) a = Softmax <axis=-1> (n)"
    )
    mask = np.triu(np.full((5, 5), -np.inf, np.float32), 1)
    x = drawn(2, 5, 4)
    finite = np.triu(np.full((5, 5), -1e9, np.float32), 1)
    found, same = (
        Explainer(model(text, {**attention_weights(), "mask": m})).lrp(x, target=0)
        for m in (mask, finite)
    )
    assert np.isfinite(found.values).all()
    assert relative(found.values, same.values) < 1e-5


@pytest.mark.parametrize("engine", ENGINES)
def test_a_normalisation_and_its_written_out_form_agree(engine, model):
    weights = {
        "g": drawn(6),
        "b": drawn(6, seed=1),
        "w": drawn(6, 2),
        "e": np.float32(1e-5),
        "two": np.float32(2),
    }
    forms = [
        "n = LayerNormalization <axis=-1, epsilon=0.00001> (x, g, b)",
        """m = ReduceMean <axes=[-1]> (x) c = Sub(x, m) q = Pow(c, two) v = ReduceMean <axes=[-1]> (q)
           f = Add(v, e) d = Sqrt(f) s = Div(c, d) t = Mul(s, g) n = Add(t, b)""",
        """m = ReduceMean <axes=[-1]> (x) c = Sub(x, m) q = Mul(c, c) v = ReduceMean <axes=[-1]> (q)
           f = Add(v, e) d = Sqrt(f) i = Reciprocal(d) s = Mul(c, i) t = Mul(s, g) n = Add(t, b)""",
    ]
    x = drawn(4, 6)
    results = [
        Explainer(
            model(f"(float[N, 6] x) => (float[N, 2] y) {{ {form} y = MatMul(n, w) }}", weights),
            engine=engine,
        ).lrp(x, target=1)
        for form in forms
    ]
    c = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    bias = (weights["b"] * weights["w"][:, 1]).sum()
    np.testing.assert_allclose(results[0].delta, -bias, rtol=1e-3, atol=1e-3)
    assert np.abs(c).max() > 1
    for other in results[1:]:
        assert relative(other.values, results[0].values) < 1e-4


@pytest.mark.parametrize("engine", ENGINES)
def test_a_recurrent_layer_conserves_relevance(engine, model):
    """Gates get nothing, so that all of it comes back to the input and the candidate's path."""
    text = """(float[N, 5, 3] x) => (float[N, 4] y) {
        t = Transpose <perm=[1,0,2]> (x) all, h, c = LSTM <hidden_size=4> (t, w, r) y = Squeeze(h, zero)
    }"""
    net = model(text, {"w": drawn(1, 16, 3), "r": drawn(1, 16, 4), "zero": np.int64([0])})
    found = Explainer(net, engine=engine).lrp(drawn(3, 5, 3), target=2)
    np.testing.assert_allclose(found.delta, 0, atol=1e-5)
    assert (np.abs(found.values).sum(axis=(0, 2)) > 0).all()


LOOP = """(float[N, 4] x) => (float[N, 4] y) {
    n = Constant <value = int64 {3}> () c = Constant <value = bool {1}> ()
    y = Loop (n, c, x) <body = b (int64 i, bool on, float[N, 4] h) => (bool further, float[N, 4] next) {
        further = Identity(on) g = MatMul(h, w) next = Relu(g)
    }>
}"""
UNROLLED = """(float[N, 4] x) => (float[N, 4] y) {
    a = MatMul(x, w) b = Relu(a) c = MatMul(b, w) d = Relu(c) e = MatMul(d, w) y = Relu(e)
}"""


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "alpha_beta"])
def test_a_loop_is_its_iterations(rule, model):
    w, x = np.abs(drawn(4, 4)) - 0.3, drawn(3, 4)
    for engine in ENGINES:
        looped, unrolled = (
            Explainer(model(text, {"w": w}), engine=engine).lrp(x, rule=rule, target=2)
            for text in (LOOP, UNROLLED)
        )
        np.testing.assert_allclose(looped.values, unrolled.values, rtol=1e-5, atol=1e-7)
        assert np.abs(looped.values).max() > 0.01


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions(dtype, model):
    kind = {np.float16: "float16", np.float64: "double"}[dtype]
    text = "(KIND[N, 6] x) => (KIND[N, 3] y) { h = Gemm(x, w, b) r = Relu(h) y = MatMul(r, v) }"
    weights = {"w": drawn(6, 8), "b": drawn(8), "v": drawn(8, 3)}
    x = drawn(3, 6)
    given, wanted = (
        Explainer(
            model(text.replace("KIND", name), {k: w.astype(to) for k, w in weights.items()})
        ).lrp(x.astype(to), rule="z_plus", target=1)
        for name, to in ((kind, dtype), ("float", np.float32))
    )
    assert given.values.dtype == (np.float64 if dtype is np.float64 else np.float32)
    assert relative(given.values, wanted.values) < (2e-2 if dtype is np.float16 else 1e-5)


def test_log_softmax_conserves_relevance_and_softmax_is_its_expansion(dense):
    x = drawn(4, 6)
    found = Explainer(dense, apply="log_softmax").lrp(x, target=1)
    np.testing.assert_allclose(found.delta, 0, atol=1e-4)
    explainer = Explainer(dense, apply="softmax")
    wanted = explainer.input_x_gradient(x, target=1).values
    np.testing.assert_allclose(explainer.lrp(x, target=1).values, wanted, rtol=1e-3, atol=1e-6)


# -- engines, batches, exports ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet", "convnext", "vit", "bert"])
def test_exporters_and_engines_agree(name):
    """Two exporters write Gelu, normalisations and biases differently; engines put Gelu together or do not."""
    found = {}
    for exporter, engine in (("script", "native"), ("dynamo", "reference")):
        path = DATA / f"{name}_{exporter}.onnx"
        with np.load(DATA / f"{name}_{exporter}.npz") as arrays:
            given = dict(arrays)
        explainer = Explainer(path, wrt=str(given["wrt"]), engine=engine)
        inputs = {info.name: given[info.name] for info in explainer.model.inputs}
        found[exporter] = [
            explainer.lrp(inputs, rule=rule).values for rule in ("epsilon", "z_plus")
        ]
    for ours, theirs in zip(*found.values(), strict=True):
        assert relative(ours, theirs) < 1e-4


@pytest.mark.parametrize("rule", ["epsilon", "epsilon_gamma_box", "alpha_beta"])
def test_batches_change_nothing(rule, convolutional):
    x = drawn(7, 2, 9, 8)
    target = [0, 1, 2, 0, 1, 2, 0]
    whole = Explainer(convolutional, batch_size=7).lrp(x, target=target, **settings(rule))
    for size in (1, 3):
        parts = Explainer(convolutional, batch_size=size).lrp(x, target=target, **settings(rule))
        np.testing.assert_allclose(parts.values, whole.values, rtol=1e-4, atol=1e-6)
    alone = Explainer(convolutional).lrp(x[3:4], target=target[3], **settings(rule))
    np.testing.assert_allclose(alone.values[0], whole.values[3], rtol=1e-4, atol=1e-6)


def test_the_baseline_changes_nothing(dense):
    x = drawn(3, 6)
    explainer = Explainer(dense)
    given = explainer.lrp(x)
    for baseline in (1.5, x, [0.0, 2.0]):
        np.testing.assert_allclose(
            explainer.lrp(x, baseline=baseline).values, given.values, rtol=1e-6
        )


def test_noise_has_a_seed(dense):
    x = drawn(3, 6)
    explainer = Explainer(dense)
    first, again, other = (
        explainer.lrp(x, noise="smoothgrad", noise_samples=4, seed=seed).values
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert relative(other, first) > 1e-3


def test_dead_features_get_nothing(model):
    w = drawn(5, 4)
    w[2] = 0
    net = model(
        "(float[N, 5] x) => (float[N, 2] y) { h = Gemm(x, w, b) t = Tanh(h) y = MatMul(t, v) }",
        {"w": w, "b": drawn(4), "v": drawn(4, 2)},
    )
    for rule in RULES:
        if not rule.endswith("flat"):  # which spreads over all that is read, by definition
            assert not Explainer(net).lrp(drawn(3, 5), **settings(rule)).values[:, 2].any()


def test_inner_tensors_and_layers_used_twice(model):
    """The same weights twice: relevance of both uses adds up, and conserves the score at every tensor."""
    net = model(
        """(float[N, 4] x) => (float[N, 4] y) {
            a = MatMul(x, w) b = Relu(a) c = MatMul(b, w) d = Relu(c) y = MatMul(d, w)
        }""",
        {"w": drawn(4, 4)},
    )
    x = drawn(5, 4)
    for wrt in ("x", "b", "d"):
        found = Explainer(net, wrt=wrt).lrp(x, target=0)
        np.testing.assert_allclose(found.delta, 0, atol=1e-5)


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rule": "lrp0"}, "rule is 'lrp0'; expected one of 'epsilon'"),
        ({"rule": ["epsilon"]}, "rule is ['epsilon']; expected one of 'epsilon'"),
        ({"epsilon": -1}, "epsilon is -1; expected a number of at least 0"),
        ({"gamma": 0.5}, "gamma is given, but the rule 'epsilon' does not have it"),
        ({"rule": "gamma", "gamma": np.nan}, "gamma is nan; expected a number of at least 0"),
        ({"rule": "alpha_beta", "alpha": 2, "beta": 2}, "expected alpha - beta = 1"),
        ({"rule": "alpha_beta", "alpha": 0.5}, "expected alpha - beta = 1"),
        ({"rule": "z_plus", "alpha": 2}, "alpha is given, but the rule 'z_plus' does not have it"),
        ({"low": 0}, "low is given, but the rule 'epsilon' does not have it"),
        ({"rule": "epsilon_gamma_box", "low": 0}, "high is None; the box rule needs"),
        ({"rule": "epsilon_gamma_box", "low": 1, "high": 0}, "low is above high in places"),
        (
            {"rule": "epsilon_gamma_box", "low": [0, 0], "high": [1, 1, 1]},
            "expected ones that broadcast",
        ),
        (
            {"rule": "epsilon_gamma_box", "low": -1, "high": np.inf},
            "values of high are NaN or infinite",
        ),
        ({"rule": "epsilon_gamma_box", "low": [0] * 5, "high": 1}, "broadcasts to [6]"),
        (
            {"bias": False},
            "bias is False, but the rule 'epsilon' has no layers that do without biases",
        ),
    ],
)
def test_arguments_that_make_no_sense(given, message, dense):
    with pytest.raises(InputError) as raised:
        Explainer(dense).lrp(drawn(2, 6), **given)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_not_finite_is_refused(model, dense):
    x = drawn(2, 6)
    x[1, 2] = np.nan
    with pytest.raises(InputError):
        Explainer(dense).lrp(x)
    net = model(
        "(float[N, 2] x) => (float[N, 1] y) { h = Log(x) y = MatMul(h, w) }",
        {"w": np.float32([[1], [1]])},
    )
    with pytest.raises(EngineError, match="example 1"):
        Explainer(net).lrp(np.float32([[1, 2], [0, 1]]))


def test_an_operator_without_a_rule_is_named(model):
    net = model("(float[N, 3] x) => (float[N, 1] y) { y = ReduceProd <axes=[1]> (x) }")
    with pytest.raises(
        UnsupportedOperatorError, match=r"operator ReduceProd \(node .*lrp has no rule"
    ):
        Explainer(net).lrp(drawn(2, 3))
