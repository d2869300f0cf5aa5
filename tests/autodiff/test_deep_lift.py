"""DeepLIFT's rules: each against its formula in NumPy, and the sum of contributions for whatever is made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import igonnx
from igonnx.autodiff.propagation.chords import CHORDS
from igonnx.autodiff.propagation.deep_lift import DeepLift
from igonnx.autodiff.propagation.forms import FORMS
from igonnx.autodiff.propagation.linear_operators import BILINEAR, EVERY, SOME
from igonnx.autodiff.propagation.several_inputs import SEVERAL
from igonnx.autodiff.registry import registered

Array: TypeAlias = NDArray[Any]
Build: TypeAlias = Callable[..., onnx.ModelProto]
ENGINES = ("native", "reference")


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def explained(
    proto: onnx.ModelProto, x: Array, x0: Array, mask: Array, engine: str = "native", **options: Any
) -> igonnx.Attribution:
    """DeepLIFT of the sum of mask times output, which has the mask's shape behind the batch axis."""
    explainer = igonnx.Explainer(proto, engine=engine)
    return explainer.deep_lift(x, baseline=x0, target=mask, **options)


def contributions(proto: onnx.ModelProto, x: Array, x0: Array, **options: Any) -> Array:
    """What `explained` finds for an output of the input's shape, of which every element has its own weight."""
    return np.asarray(explained(proto, x, x0, 1 + random(*x.shape, seed=9), **options).values)


# -- one input, element by element -------------------------------------------------------------

UNARY: dict[str, Callable[[Array], Array]] = {
    "Relu(x)": lambda x: np.maximum(x, 0),
    "LeakyRelu<alpha = 0.2>(x)": lambda x: np.where(x > 0, x, 0.2 * x),
    "Clip(x, zero, six)": lambda x: np.clip(x, 0, 1.5),
    "Abs(x)": np.abs,
    "HardSigmoid(x)": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "Elu<alpha = 0.5>(x)": lambda x: np.where(x > 0, x, 0.5 * np.expm1(np.minimum(x, 0))),
    "Sigmoid(x)": lambda x: 1 / (1 + np.exp(-x)),
    "Tanh(x)": np.tanh,
    "Exp(x)": np.exp,
    "Softplus(x)": lambda x: np.log1p(np.exp(x)),
    "Sin(x)": np.sin,
    "PRelu(x, six)": lambda x: np.where(x > 0, x, 1.5 * x),
    "Pow(x, two)": lambda x: x**2,
    "Pow(x, three)": lambda x: x**3,
    "Max(x, six, zero)": lambda x: np.maximum(x, 1.5),
    "Min(six, x)": lambda x: np.minimum(x, 1.5),
    "Mul(x, x)": lambda x: x * x,
}
POSITIVE: dict[str, Callable[[Array], Array]] = {
    "Log(x)": np.log,
    "Sqrt(x)": np.sqrt,
    "Reciprocal(x)": lambda x: 1 / x,
    "Div(six, x)": lambda x: 1.5 / x,
    "Pow(x, half)": np.sqrt,
    "Pow(x, minus_half)": lambda x: x**-0.5,
    "Pow(x, minus_one)": lambda x: 1 / x,
    "Pow(x, odd)": lambda x: x**1.7,
    "Pow(six, x)": lambda x: 1.5**x,
}
NUMBERS = {
    "zero": 0.0,
    "six": 1.5,
    "two": 2.0,
    "three": 3.0,
    "half": 0.5,
    "minus_half": -0.5,
    "minus_one": -1.0,
    "odd": 1.7,
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("form", [*UNARY, *POSITIVE])
def test_chord(model: Build, form: str, engine: str) -> None:
    """The change of each element, whatever it is: also where it is small, nothing at all, or crosses a kink."""
    function = {**UNARY, **POSITIVE}[form]
    weights = {name: np.float32(value) for name, value in NUMBERS.items() if name in form}
    proto = model(f"(float[N, 8] x) => (float[N, 8] y) {{ y = {form} }}", weights, opset=18)
    x, x0 = 2 * random(6, 8, seed=1), 2 * random(6, 8, seed=2)
    if form in POSITIVE:
        x, x0 = np.abs(x) + np.float32(0.1), np.abs(x0) + np.float32(0.1)
    x0[0] = x[0] * np.float32(1 + 1e-6)
    x0[1] = x[1] + np.float32(1e-3)
    x0[2] = x[2]
    found = contributions(proto, x, x0, engine=engine)
    wide, wide0 = x.astype(np.float64), x0.astype(np.float64)
    wanted = (1 + random(6, 8, seed=9)) * (function(wide) - function(wide0))
    size = np.abs(function(wide)).max() + 1
    np.testing.assert_allclose(found, wanted, atol=2e-6 * size, rtol=2e-5)
    assert not found[2].any()


SMOOTH = ["Sigmoid(x)", "Tanh(x)", "Exp(x)", "Softplus(x)", "Sin(x)", "Gelu(x)", "Erf(x)"]


@pytest.mark.parametrize("form", SMOOTH)
def test_near_the_baseline_it_is_the_derivative(model: Build, form: str) -> None:
    """The multiplier itself, for the sum hides it: large opposite changes in front of one that is nearly nothing."""
    proto = model(
        f"(float[N, 2] x) => (float[N, 1] y) {{ s = MatMul(x, ones) y = {form.replace('(x)', '(s)')} }}",
        {"ones": np.ones((2, 1), np.float32)},
        opset=20,
        ir_version=10,
    )
    x0 = random(50, 2, seed=3)
    step = random(50, seed=4)
    tiny = 1e-5 * random(50, seed=5)
    x = x0 + np.stack([step, tiny - step], axis=1)
    gradient = igonnx.Explainer(proto).saliency(x, target=0, absolute=False).values
    values = igonnx.Explainer(proto).deep_lift(x, baseline=x0, target=0).values
    np.testing.assert_allclose(values, gradient * (x - x0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["LeakyRelu(s)", "HardSwish(s)", "Elu(s)", "Relu(s)", "Selu(s)"])
def test_roundings_make_no_slope(model: Build, form: str) -> None:
    """Two large changes that cancel but for rounding, away from the kink."""
    proto = model(
        f"(float[N, 2] x) => (float[N, 1] y) {{ s = MatMul(x, w) y = {form} }}",
        {"w": np.array([[1 / 3], [1]], np.float32)},
    )
    x0 = -np.abs(random(200, 2, seed=3)) - np.float32(0.1)
    step = random(200, seed=4)
    x = x0 + np.stack([3 * step, -step], axis=1)
    gradient = igonnx.Explainer(proto).saliency(x, target=0, absolute=False).values
    values = igonnx.Explainer(proto).deep_lift(x, baseline=x0, target=0).values
    np.testing.assert_allclose(values, gradient * (x - x0), atol=0.05 * np.abs(x - x0).max())


# -- two inputs, element by element ------------------------------------------------------------

PAIRS: dict[str, Callable[[Array, Array], Array]] = {
    "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a / b,
    "Max": np.maximum,
    "Min": np.minimum,
    "Pow": lambda a, b: a**b,
}


def shapley(f: Callable[[Array, Array], Array], a: Array, b: Array, a0: Array, b0: Array) -> Array:
    """What the first of two changes, in the mean of both orders."""
    return np.asarray((f(a, b0) - f(a0, b0) + f(a, b) - f(a0, b)) / 2)


@pytest.mark.parametrize("operator", PAIRS)
def test_two_tensors(model: Build, operator: str) -> None:
    proto = model(
        f"(float[N, 3, 4] a, float[N, 1, 4] b) => (float[N, 3, 4] y) {{ y = {operator}(a, b) }}"
    )
    a, a0 = (np.abs(random(5, 3, 4, seed=i)) + np.float32(0.5) for i in (1, 2))
    b, b0 = (np.abs(random(5, 1, 4, seed=i)) + np.float32(0.5) for i in (3, 4))
    weights = random(5, 3, 4, seed=5)
    for engine in ENGINES:
        explainer = igonnx.Explainer(proto, engine=engine)
        found = explainer.deep_lift(
            {"a": a, "b": b}, baseline={"a": a0, "b": b0}, target=weights
        ).values
        f = PAIRS[operator]
        of_a = weights * shapley(f, a, b, a0, b0)
        of_b = weights * (f(a, b) - f(a0, b0)) - of_a
        np.testing.assert_allclose(found["a"], of_a, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            found["b"], of_b.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-5
        )


PRODUCTS = {
    "MatMul(a, t)": "t = Transpose<perm = [0, 2, 1]>(b)",
    "Gemm<transB = 1, alpha = 0.5>(p, q)": "p = Reshape(a, rows) q = Reshape(b, rows)",
    'Einsum<equation = "nij,nkj->nik">(a, b)': "",
}


@pytest.mark.filterwarnings("ignore:main. the examples of a batch influence each other")
@pytest.mark.parametrize("form", PRODUCTS)
def test_products_of_two_tensors(model: Build, form: str) -> None:
    """Bilinear: each factor's change, times the mean of the other at both ends."""
    weights = {"rows": np.array([-1, 4])} if "rows" in PRODUCTS[form] else {}
    free = "Gemm" in form
    proto = model(
        "(float[N, 3, 4] a, float[N, 3, 4] b) => (float[M, K, L] y) "
        f"{{ {PRODUCTS[form]} z = {form} y = {'Reshape(z, cube)' if free else 'Identity(z)'} }}",
        {**weights, **({"cube": np.array([-1, 3, 3])} if free else {})},
    )
    a, a0, b, b0 = (random(1, 3, 4, seed=i) for i in range(4))
    mask = random(1, 3, 3, seed=7)
    found = igonnx.Explainer(proto).deep_lift(
        {"a": a, "b": b}, baseline={"a": a0, "b": b0}, target=mask
    )
    scale = 0.5 if free else 1.0
    of_a = scale * np.einsum("nik,nkj->nij", mask, (b + b0) / 2) * (a - a0)
    of_b = scale * np.einsum("nik,nij->nkj", mask, (a + a0) / 2) * (b - b0)
    np.testing.assert_allclose(found.values["a"], of_a, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.values["b"], of_b, rtol=1e-4, atol=1e-6)


# -- maxima ------------------------------------------------------------------------------------


def test_maximum_by_hand(model: Build) -> None:
    """What has grown to be the maximum gets all of it; where it fell, what was the maximum does."""
    proto = model("(float[N, 3] x) => (float[N] y) { y = ReduceMax<axes = [1], keepdims = 0>(x) }")
    x = np.array([[1, 5, 2], [1, 0, 2], [3, 3, 0]], np.float32)
    x0 = np.array([[4, 0, 0], [1, 6, 0], [0, 0, 3]], np.float32)
    found = igonnx.Explainer(proto).deep_lift(x, baseline=x0, target=())
    np.testing.assert_array_equal(found.values, [[0, 1, 0], [0, -4, 0], [0, 0, 0]])


POOLS = {
    "MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)": "4, 4",
    "MaxPool<kernel_shape = [3, 3], strides = [1, 1], pads = [1, 1, 1, 1]>(x)": "8, 8",
    "MaxPool<kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1>(x)": "4, 4",
    "GlobalMaxPool(x)": "1, 1",
    "ReduceMax<axes = [2, 3]>(x)": "1, 1",
    "ReduceMin<axes = [3]>(x)": "8, 1",
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("form", POOLS)
def test_maxima_add_up_element_by_element(model: Build, form: str, engine: str) -> None:
    """Every window's change arrives somewhere; no multiplier is above 1, and none is negative."""
    shape = POOLS[form]
    proto = model(f"(float[N, 2, 8, 8] x) => (float[N, 2, {shape}] y) {{ y = {form} }}")
    x, x0 = random(3, 2, 8, 8, seed=1), random(3, 2, 8, 8, seed=2)
    explainer = igonnx.Explainer(proto, engine=engine)
    ends = [explainer.predict(array)["y"] for array in (x, x0)]
    one = np.zeros_like(ends[0])
    one[:, 1, -1, -1] = 1
    found = explainer.deep_lift(x, baseline=x0, target=one).values
    np.testing.assert_allclose(
        found.sum(axis=(1, 2, 3)), (ends[0] - ends[1])[:, 1, -1, -1], atol=1e-6
    )
    multiplier = found / (x - x0)
    assert multiplier.min() >= 0
    assert multiplier.max() <= 1 + 1e-6
    assert not found[:, 0].any()


# -- softmax -----------------------------------------------------------------------------------


def log_sum_exp_multipliers(x: Array, x0: Array) -> Array:
    u, u0 = np.exp(x), np.exp(x0)
    total, total0 = u.sum(-1, keepdims=True), u0.sum(-1, keepdims=True)
    return np.asarray((u - u0) / (x - x0) * (np.log(total) - np.log(total0)) / (total - total0))


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
def test_softmax_by_its_definition(model: Build, operator: str) -> None:
    proto = model(f"(float[N, 5] x) => (float[N, 5] y) {{ y = {operator}<axis = -1>(x) }}")
    x, x0, g = (3 * random(6, 5, seed=i) for i in range(3))
    wide, wide0 = x.astype(np.float64), x0.astype(np.float64)
    z, z0 = (a - np.log(np.exp(a).sum(-1, keepdims=True)) for a in (wide, wide0))
    slope = (np.exp(z) - np.exp(z0)) / (z - z0) if operator == "Softmax" else 1.0
    arriving = g * slope
    inner = log_sum_exp_multipliers(wide, wide0)
    wanted = (arriving - inner * arriving.sum(-1, keepdims=True)) * (wide - wide0)
    for engine in ENGINES:
        found = explained(proto, x, x0, g, engine).values
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("far", [1.0, 200.0, 1e4])
def test_softmax_adds_up_however_far(model: Build, operator: str, far: float) -> None:
    proto = model(f"(float[N, 4] x) => (float[N, 4] y) {{ y = {operator}<axis = -1>(x) }}")
    x, x0 = random(9, 4, seed=1), random(9, 4, seed=2)
    x[::2] *= np.float32(far)
    x0[1::3] += np.float32(far)
    found = igonnx.Explainer(proto).deep_lift(x, baseline=x0, target=2)
    rounding = (1e-7 if operator == "Softmax" else 1e-6) * far  # of numbers of that size
    assert np.abs(found.delta).max() <= 1e-6 + rounding


def test_masked_softmax(model: Build) -> None:
    """What minus infinity hides gets nothing."""
    proto = model(
        "(float[N, 4] x, bool[N, 4] hidden) => (float[N, 4] y) "
        "{ m = Where(hidden, nothing, x) y = Softmax<axis = -1>(m) }",
        {"nothing": np.float32(-np.inf)},
    )
    x, x0 = random(3, 4, seed=1), random(3, 4, seed=2)
    hidden = np.zeros((3, 4), bool)
    hidden[:, 1] = True
    found = igonnx.Explainer(proto, wrt=["x"]).deep_lift(
        {"x": x, "hidden": hidden}, baseline=x0, target=0
    )
    assert not found.values[:, 1].any()
    assert np.abs(found.delta).max() <= 1e-6


# -- choices -----------------------------------------------------------------------------------


def test_leaky_relu_written_out(model: Build) -> None:
    proto = model(
        "(float[N, 6] x) => (float[N, 6] y) { c = Greater(x, zero) s = Mul(x, tenth) y = Where(c, x, s) }",
        {"zero": np.float32(0), "tenth": np.float32(0.1)},
    )
    x, x0 = random(5, 6, seed=1), random(5, 6, seed=2)
    values = [np.where(a > 0, a, 0.1 * a) for a in (x, x0)]
    wanted = (1 + random(5, 6, seed=9)) * (values[0] - values[1])
    np.testing.assert_allclose(contributions(proto, x, x0), wanted, atol=1e-6)


def test_a_jump_is_missed_and_told(model: Build) -> None:
    proto = model(
        "(float[N, 2] x) => (float[N, 2] y) { c = Greater(x, zero) s = Where(c, one, zero) "
        "y = Add(s, x) }",
        {"zero": np.float32(0), "one": np.float32(1)},
    )
    x, x0 = np.ones((1, 2), np.float32), -np.ones((1, 2), np.float32)
    with pytest.warns(UserWarning, match=r"1 of 1 examples miss .* \(example 0: 1 of 3\)"):
        found = igonnx.Explainer(proto).deep_lift(x, baseline=x0, target=0)
    np.testing.assert_allclose(found.values, [[2, 0]])
    np.testing.assert_allclose(found.delta, [-1])


# -- what is refused ---------------------------------------------------------------------------

REFUSED = {
    "TopK": "v, i = TopK(x, two) y = MatMul(v, w)",
    "Einsum": 'y = Einsum<equation = "ni,ni,ni->ni">(x, x, x)',
    "ReduceProd": "y = ReduceProd<axes = [1]>(x)",
    "If": "c = ReduceSum<keepdims = 0>(x) b = Greater(c, zero) y = If(b) <then_branch = yes () => "
    "(float[N, 4] t) { t = Relu(x) }, else_branch = no () => (float[N, 4] f) { f = Neg(x) }>",
    "Loop": "y = Loop(two, , x) <body = step (int64 i, bool go, float[N, 4] s) => (bool on, float[N, 4] t) "
    "{ on = Identity(go) t = Relu(s) }>",
    "GatherND": "a = ArgMax<axis = 1>(x) i = Cast<to = 7>(a) s = Tanh(x) y = GatherND<batch_dims = 1>(s, i)",
}


@pytest.mark.filterwarnings("ignore:main. the examples of a batch influence each other")
@pytest.mark.parametrize("operator", REFUSED)
def test_refused_by_name(model: Build, operator: str) -> None:
    body = REFUSED[operator]
    weights = {"two": np.array([2]), "w": random(2, 1), "zero": np.float32(0)}
    if operator == "Loop":
        weights["two"] = np.array(2)
    used = {name: array for name, array in weights.items() if name in body}
    proto = model(f"(float[N, 4] x) => (float[N, K] y) {{ {body} }}", used)
    if operator == "GatherND":
        proto.graph.output[0].type.tensor_type.shape.dim.pop()
    explainer = igonnx.Explainer(proto)
    with pytest.raises(igonnx.UnsupportedOperatorError, match=rf"operator {operator} .*DeepLIFT"):
        explainer.deep_lift(random(2, 4), target=None)


def test_a_body_off_the_way_does_not_matter(model: Build) -> None:
    proto = model(
        "(float[N, 4] x) => (float[N, 4] y, float[N, 4] z) "
        f"{{ y = Relu(x) {REFUSED['Loop'].replace('y = Loop', 'z = Loop')} }}",
        {"two": np.array(2)},
    )
    found = igonnx.Explainer(proto, output="y").deep_lift(random(2, 4), target=1)
    assert np.abs(found.delta).max() <= 1e-6


def test_unknown_rule() -> None:
    with pytest.raises(igonnx.InputError, match="rule is 'epsilon'; expected 'rescale' or 'reveal"):
        DeepLift("epsilon")


def test_tables_name_operators_that_exist() -> None:
    """A rule for an operator without a gradient would never be asked."""
    tables = [CHORDS, BILINEAR, SEVERAL, {("", name) for name in (*EVERY, *SOME)}]
    named = {kind for table in tables for kind in table}
    assert named <= set(registered())
    assert not {name for _, name in named} & {*FORMS} - {"Clip", "Max", "Min", "ReduceLogSumExp"}
