"""Methods of layers, against closed forms of a network with a path that bypasses the layer, and what has to add up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from tanh_net import TanhNet

import igonnx
from igonnx.engine import row_forward

Build = Callable[..., onnx.ModelProto]
Array = NDArray[np.float64]
TARGET = [0, 2, 1]
METHODS = ("layer_activation", "layer_gradient_x_activation", "layer_conductance", "internal_influence")  # fmt: skip


@dataclass(frozen=True)
class Bypassed:
    """y = tanh(h^2 W2 + x U) V with the layer h = sin(x W1): x U goes past it."""

    w1: Array
    w2: Array
    u: Array
    v: Array

    @classmethod
    def make(cls) -> Bypassed:
        rng = np.random.default_rng(3)
        shapes = (5, 7), (7, 6), (5, 6), (6, 3)
        return cls(*(rng.normal(size=shape) / 2 for shape in shapes))

    def onnx(self, build: Build, dtype: Any = np.float32, *, bypass: bool = True) -> Any:
        kind = {np.float32: "float", np.float64: "double"}[dtype]
        joined = "q = MatMul(x, u) \n s = Add(p, q)" if bypass else "s = Identity(p)"
        weights = {name: array.astype(dtype) for name, array in vars(self).items()}
        if not bypass:
            del weights["u"]
        return build(
            f"""({kind}[N, 5] x) => ({kind}[N, 3] y) {{
                g = MatMul(x, w1)
                h = Sin(g)
                hh = Mul(h, h)
                p = MatMul(hh, w2)
                {joined}
                t = Tanh(s)
                y = MatMul(t, v)
            }}""",
            weights,
        )

    def layer(self, x: Array) -> Array:
        return np.asarray(np.sin(x @ self.w1))

    def score(self, x: Array, target: Any) -> Array:
        s = self.layer(x) ** 2 @ self.w2 + x @ self.u
        return np.asarray(
            np.take_along_axis(np.tanh(s) @ self.v, np.array(target)[:, None], 1)[:, 0]
        )

    def slope(self, x: Array, target: Any) -> Array:
        """dF/dh, [N, 7]: what bypasses h is what it is at x."""
        h = self.layer(x)
        s = h**2 @ self.w2 + x @ self.u
        back = self.v.T[target] * (1 - np.tanh(s) ** 2)
        return np.asarray(2 * h * (back @ self.w2.T))

    def jacobian(self, x: Array) -> Array:
        """dh/dx, [N, 5, 7]."""
        return np.asarray(np.cos(x @ self.w1)[:, None, :] * self.w1)

    def integral(self, x: Array, start: Array, target: Any, steps: int, of: str) -> Array:
        """By Gauss-Legendre; `of` "conductance" [N, 7], "influence" [N, 7] or "neurons" [N, 5, 7]."""
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        total: Any = 0
        for alpha, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            z = start + alpha * (x - start)
            slope, jacobian = self.slope(z, target), self.jacobian(z)
            parts = {
                "influence": slope,
                "conductance": slope * np.einsum("nd,ndk->nk", x - start, jacobian),
                "neurons": slope[:, None] * (x - start)[..., None] * jacobian,
            }
            total = total + weight * parts[of]
        return np.asarray(total)


NET = Bypassed.make()


def inputs(count: int = 3, seed: int = 0, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(seed).normal(size=(count, 5)).astype(dtype)


def array(values: Any) -> Any:
    assert isinstance(values, np.ndarray)
    return values


def close(found: Any, expected: Any, bound: float = 1e-5) -> None:
    assert array(found).shape == expected.shape
    scale = max(float(np.abs(expected).max()), 1e-12)
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound * scale)


# -- closed forms ------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_closed_forms(model: Build, dtype: Any, engine: str) -> None:
    explainer = igonnx.Explainer(NET.onnx(model, dtype), engine=engine)
    x, start, bound = inputs(dtype=dtype), 0.3, 1e-5 if dtype is np.float32 else 1e-12
    wide = x.astype(np.float64)
    h, slope = NET.layer(wide), NET.slope(wide, TARGET)
    for layer in ("h", ["h"]):
        found = explainer.layer_activation(x, target=TARGET, layer=layer)
        close(found.values, h, bound)
        assert array(found.values).dtype == dtype
        assert found.steps_used.tolist() == [0, 0, 0]
    found = explainer.layer_gradient_x_activation(x, target=TARGET, layer="h")
    close(found.values, h * slope, bound)
    for method, of in (("layer_conductance", "conductance"), ("internal_influence", "influence")):
        found = getattr(explainer, method)(x, target=TARGET, baseline=start, layer="h", steps=9)
        close(found.values, NET.integral(wide, np.full_like(wide, start), TARGET, 9, of), bound)
        assert found.steps_used.tolist() == [9, 9, 9]
        np.testing.assert_allclose(found.scores, NET.score(wide, TARGET), rtol=1e-4)
        base = NET.score(np.full_like(wide, start), TARGET)
        np.testing.assert_allclose(found.baseline_scores, base, rtol=1e-4)


def test_the_value_of_what_goes_past_is_that_on_the_path(model: Build) -> None:
    """Were x U that of the input all along, the slopes would be others."""
    x = inputs(dtype=np.float64)
    found = igonnx.Explainer(NET.onnx(model, np.float64)).internal_influence(
        x, target=TARGET, layer="h", steps=30
    )
    right = NET.integral(x, np.zeros_like(x), TARGET, 30, "influence")
    frozen = 0.0
    nodes, weights = np.polynomial.legendre.leggauss(30)
    for alpha, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        h = NET.layer(alpha * x)
        back = NET.v.T[TARGET] * (1 - np.tanh(h**2 @ NET.w2 + x @ NET.u) ** 2)
        frozen = frozen + weight * 2 * h * (back @ NET.w2.T)
    close(found.values, right, 1e-12)
    assert np.abs(right - frozen).max() > 0.01 * np.abs(right).max()


@pytest.mark.parametrize("layer", ["g", "h", "hh", "p", "s", "t", "y", "x"])
def test_conductance_adds_up(model: Build, layer: str) -> None:
    """Over a layer that everything goes through, to what Integrated Gradients add up to: to the last step."""
    explainer = igonnx.Explainer(NET.onnx(model, np.float64, bypass=False))
    x = inputs(dtype=np.float64)
    for steps, rule in ((3, "gauss_legendre"), (4, "trapezoid"), (5, "left")):
        options: dict[str, Any] = {"target": TARGET, "baseline": 0.2, "steps": steps, "rule": rule}
        whole = explainer.integrated_gradients(x, **options)
        found = explainer.layer_conductance(x, layer=layer, **options)
        np.testing.assert_allclose(found.delta, whole.delta, atol=1e-12)
        if layer == "x":
            close(found.values, array(whole.values), 1e-12)
        if layer == "y":  # nothing but the target has a share
            assert np.count_nonzero(found.values) == 3
    many = explainer.layer_conductance(x, target=TARGET, layer=layer, steps=40)
    assert np.abs(many.delta).max() < 1e-12


def test_conductance_tells_what_goes_past(model: Build) -> None:
    x = inputs(dtype=np.float64)
    explainer = igonnx.Explainer(NET.onnx(model, np.float64))
    found = explainer.layer_conductance(x, target=TARGET, layer="h", steps=60)
    past = explainer.layer_conductance(x, target=TARGET, layer="q", steps=60)
    np.testing.assert_allclose(found.delta, -array(past.values).sum(axis=1), atol=1e-12)
    assert np.abs(found.delta).min() > 1e-3


def test_differences_are_those_of_captum(model: Build) -> None:
    """Gradients at the nodes times the layer's steps, and with more of them the same as by default, end to end."""
    explainer = igonnx.Explainer(NET.onnx(model, np.float64))
    x = inputs(dtype=np.float64)
    found = explainer.layer_conductance(x, target=TARGET, layer="h", steps=7, differences=True)
    alpha = (np.polynomial.legendre.leggauss(8)[0] + 1) / 2
    points = [alpha_k * x for alpha_k in alpha]
    expected = sum(
        NET.slope(a, TARGET) * (NET.layer(b) - NET.layer(a)) for a, b in pairwise(points)
    )
    close(found.values, expected, 1e-12)
    assert found.method.endswith(" differences")
    exact = explainer.layer_conductance(x, target=TARGET, layer="h", steps=40)
    errors = [
        np.abs(
            array(
                explainer.layer_conductance(
                    x, target=TARGET, layer="h", steps=n, rule="trapezoid", differences=True
                ).values
            )
            - exact.values
        ).max()
        for n in (20, 40)
    ]
    assert errors[1] < 0.6 * errors[0] < 0.1


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_several_layers_at_once(model: Build, method: str) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model)), inputs()
    call = getattr(explainer, method)
    together = call(x, target=TARGET, layer=["t", "h"])
    assert list(together.values) == ["t", "h"]
    for name in ("t", "h"):
        close(together.values[name], array(call(x, target=TARGET, layer=name).values))
    total = sum(values.sum(axis=1, dtype=np.float64) for values in together.values.values())
    change = together.scores - together.baseline_scores
    np.testing.assert_allclose(together.delta, total - change, atol=1e-5)


def test_names_that_are_not_there(model: Build) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model)), inputs()
    for layer, expected in (
        ("hidden", "layer 'hidden' is no floating tensor between 'x' and output 'y'; there are"),
        ("?", "layer '?' matches 8 tensors: 'x', 'g', 'h', 'p', 'q', 's', ...; name one of them"),
        (
            "hhh",
            "layer 'hhh' is no floating tensor between 'x' and output 'y'; did you mean 'hh', 'h'?",
        ),
        (["h", "h"], "layer names a tensor twice"),
        ([], "layer is an empty list; expected at least one tensor's name"),
        (4, "layer is 4; expected the name of a tensor"),
        (None, "layer is None; expected the name of a tensor"),
    ):
        with pytest.raises(igonnx.InputError) as caught:
            explainer.internal_influence(x, layer=layer)  # type: ignore[arg-type]
        assert str(caught.value).startswith(expected)
        assert "\n" not in str(caught.value)
    with pytest.raises(TypeError, match="layer"):
        explainer.layer_activation(x)  # type: ignore[call-arg]


def test_a_name_goes_before_a_pattern(model: Build) -> None:
    graph = model("(float[N, 2] x) => (float[N, 2] y) { a = Sin(x) \n b = Cos(a) \n y = Tanh(b) }")
    for value in [*graph.graph.node[0].output, *graph.graph.node[1].output]:
        new = {"a": "l*", "b": "l1"}[value]
        for node in graph.graph.node:
            for names in (node.input, node.output):
                names[:] = [new if name == value else name for name in names]
    x = np.ones((1, 2), np.float32)
    explainer = igonnx.Explainer(graph)
    close(explainer.layer_activation(x, layer="l*").values, np.sin(x))
    close(explainer.layer_activation(x, layer="?1").values, np.cos(np.sin(x)))


def test_tensors(model: Build) -> None:
    explainer = igonnx.Explainer(NET.onnx(model))
    found = explainer.tensors()
    assert [tensor.name for tensor in found] == ["x", "g", "h", "hh", "p", "q", "s", "t", "y"]
    assert str(found[2]) == "h: Sin, float32 [N, 7]"
    assert [tensor.operator for tensor in found][:3] == ["input", "MatMul", "Sin"]
    assert [tensor.name for tensor in explainer.tensors("?h")] == ["hh"]
    inner = igonnx.Explainer(NET.onnx(model), wrt="hh")
    assert [tensor.name for tensor in inner.tensors()] == ["hh", "p", "s", "t", "y"]
    assert len(inner.tensors(anywhere=True)) == 8


def test_activations_of_what_leads_elsewhere(model: Build) -> None:
    """Another output, and a tensor in front of what is explained."""
    graph = model(
        "(float[N, 2] x) => (float[N, 2] y, float[N, 2] z) { a = Sin(x) \n y = Tanh(a) \n b = Cos(x) \n z = Exp(b) }"
    )
    explainer, x = igonnx.Explainer(graph, wrt="a"), np.ones((1, 2), np.float32)
    close(explainer.layer_activation(x, layer="b").values, np.cos(x))
    whole = igonnx.Explainer(graph)
    close(whole.layer_activation(x, layer="x").values, x)  # what is explained is a layer, too
    with pytest.raises(igonnx.InputError, match="no floating tensor between 'a' and output 'y'"):
        explainer.layer_gradient_x_activation(x, layer="b")


# -- batches, noise, baselines -----------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_batches_change_nothing(model: Build, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, graph = inputs(4), NET.onnx(model)
    options: dict[str, Any] = {"target": [0, 2, 1, 1], "layer": "h", "baseline": 0.1}
    first = getattr(igonnx.Explainer(graph), method)(x, **options)
    for size in (1, 3, 7):
        monkeypatch.setattr(row_forward, "MOST_POINTS", size)
        explainer = igonnx.Explainer(graph, batch_size=size)
        close(getattr(explainer, method)(x, **options).values, array(first.values), 2e-6)
        if method == "layer_conductance":
            few = getattr(explainer, method)(x, differences=True, **options)
            monkeypatch.setattr(row_forward, "MOST_POINTS", 500)
            many = getattr(explainer, method)(x, differences=True, **options)
            close(few.values, array(many.values), 2e-6)
    alone = getattr(igonnx.Explainer(graph), method)(x[1:2], **options | {"target": 2})
    close(alone.values, array(first.values)[1:2], 2e-6)


@pytest.mark.parametrize("method", METHODS)
def test_noise_and_several_baselines(model: Build, method: str) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model)), inputs()
    options: dict[str, Any] = {"target": TARGET, "layer": "h"}
    call = getattr(explainer, method)
    noisy = [
        call(x, noise="smoothgrad", noise_samples=4, noise_std=0.2, seed=seed, **options).values
        for seed in (1, 1, 2)
    ]
    close(noisy[0], array(noisy[1]), 0)
    assert np.abs(noisy[0] - noisy[2]).max() > 1e-4
    draws = np.random.default_rng(1).standard_normal((4, 5), dtype=np.float32)
    by_hand = np.mean([array(call(x + 0.2 * d, **options).values) for d in draws], axis=0)
    close(noisy[0], by_hand)
    mean = call(x, baseline=[0.0, 0.5], **options)
    parts = [array(call(x, baseline=start, **options).values) for start in (0.0, 0.5)]
    close(mean.values, np.mean(parts, axis=0))


def test_progress_and_stopping(model: Build) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model)), inputs(4)
    told: list[tuple[int, int]] = []
    explainer.layer_conductance(
        x, layer="h", steps=50, progress=lambda done, of: told.append((done, of))
    )
    assert told[-1] == (200, 200)
    assert len(told) > 2
    token = igonnx.CancelToken()
    with pytest.raises(igonnx.CancelledError):
        explainer.layer_conductance(x, layer="h", progress=lambda *_: token.cancel(), cancel=token)


def test_arguments(model: Build) -> None:
    explainer, x = igonnx.Explainer(NET.onnx(model)), inputs()
    for options in ({"steps": 0}, {"rule": "simpson"}, {"seed": -1}, {"target": 9}):
        for method in ("layer_conductance", "internal_influence"):
            with pytest.raises(igonnx.InputError):
                getattr(explainer, method)(x, layer="h", **options)


# -- kinds of models ---------------------------------------------------------------------------


@pytest.mark.parametrize("wrt", [None, ["a"], ["b"], ["p"]])
def test_several_inputs(model: Build, wrt: Any) -> None:
    """All that goes through t: the sums are those of Integrated Gradients by whatever is explained."""
    net = TanhNet.make(2)
    explainer = igonnx.Explainer(net.onnx(model, np.float64), wrt=wrt)
    x = net.inputs(3, dtype=np.float64)
    options: dict[str, Any] = {"target": TARGET, "steps": 6}
    whole = explainer.integrated_gradients(x, **options)
    found = explainer.layer_conductance(x, layer="t", **options)
    np.testing.assert_allclose(found.delta, whole.delta, atol=1e-12)
    assert np.abs(array(found.values)).max() > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_a_fixed_batch_of_one(model: Build, method: str) -> None:
    w = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    weights = {"w": w, "flat": np.array([1, -1]), "zero": np.array([0])}
    fixed = model(
        "(float[1, 2, 3] x) => (float[1, 4] y) { s = Squeeze(x, zero) \n f = Reshape(s, flat) \n"
        "h = MatMul(f, w) \n t = Tanh(h) \n y = Mul(t, h) }",
        weights,
    )
    free = model(
        "(float[N, 2, 3] x) => (float[N, 4] y) { f = Flatten(x) \n h = MatMul(f, w) \n t = Tanh(h) \n y = Mul(t, h) }",
        {"w": w},
    )
    x = np.random.default_rng(1).normal(size=(3, 2, 3)).astype(np.float32)
    found, expected = (
        getattr(igonnx.Explainer(graph), method)(x, layer="t", target=TARGET)
        for graph in (fixed, free)
    )
    close(found.values, array(expected.values))


def test_the_batch_axis_of_a_layer_has_to_be_the_first(model: Build) -> None:
    graph = model(
        "(float[N, 4] x) => (float[N, 4] y) { a = Transpose<perm = [1, 0]>(x) \n b = Sin(a) \n"
        "y = Transpose<perm = [1, 0]>(b) }"
    )
    with pytest.raises(igonnx.InputError, match=r"tensor 'b' has shape \[4, 3\] for 3 examples"):
        igonnx.Explainer(graph).layer_activation(np.ones((3, 4), np.float32), layer="b")


TRANSFORMER = """(int64[N, 6] ids) => (float[N, 3] y) {
    e = Gather(table, ids)
    q = MatMul(e, wq)
    k = MatMul(e, wk)
    v = MatMul(e, wv)
    kt = Transpose<perm = [0, 2, 1]>(k)
    dots = MatMul(q, kt)
    a = Softmax<axis = -1>(dots)
    m = MatMul(a, v)
    r = Add(e, m)
    n = LayerNormalization(r, scale, shift)
    f = ReduceMean<axes = [1], keepdims = 0>(n)
    y = MatMul(f, head)
}"""


def test_inside_a_transformer(model: Build) -> None:
    """Token ids: what is explained is the embedding, the layers lie behind it."""
    rng = np.random.default_rng(0)
    shapes = {"table": (9, 8), "wq": (8, 8), "wk": (8, 8), "wv": (8, 8), "head": (8, 3)}
    weights = {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}
    weights |= {"scale": np.ones(8, np.float32), "shift": np.zeros(8, np.float32)}
    explainer, ids = igonnx.Explainer(model(TRANSFORMER, weights)), rng.integers(0, 9, (2, 6))
    assert explainer.wrt == ("e",)
    options: dict[str, Any] = {"target": [0, 2], "steps": 12, "baseline": 0.5}
    whole = explainer.integrated_gradients(ids, **options)
    for layer in ("r", "n", "f"):
        found = explainer.layer_conductance(ids, layer=layer, **options)
        np.testing.assert_allclose(found.delta, whole.delta, atol=2e-5)
    weights_of_attention = explainer.layer_activation(ids, layer="a")
    np.testing.assert_allclose(array(weights_of_attention.values).sum(axis=-1), 1, rtol=1e-5)
    # and from an inner tensor on
    inner = igonnx.Explainer(model(TRANSFORMER, weights), wrt="m")
    whole = inner.integrated_gradients(ids, **options)
    found = inner.layer_conductance(ids, layer="n", **options)
    np.testing.assert_allclose(found.delta, whole.delta, atol=2e-5)


def test_activations_need_no_gradient(model: Build) -> None:
    """Nothing passes the rounding; the layer in front of it is there all the same."""
    graph = model(
        "(float[N, 3] x) => (float[N, 3] y) { h = Sin(x) \n i = Cast<to = 7>(h) \n y = Cast<to = 1>(i) }"
    )
    explainer, x = igonnx.Explainer(graph), np.ones((2, 3), np.float32)
    found = explainer.layer_activation(x, layer="h", target=0)
    close(found.values, np.sin(x))
    with pytest.raises(igonnx.ModelError, match="no differentiable path leads from layer 'h'"):
        explainer.layer_gradient_x_activation(x, layer="h", target=0)


def test_what_is_not_finite_is_refused(model: Build) -> None:
    graph = model("(float[N, 2] x) => (float[N, 2] y) { h = Abs(x) \n s = Sqrt(h) \n y = Sin(s) }")
    explainer, x = igonnx.Explainer(graph), np.array([[1, 2], [0, 1]], np.float32)
    explainer.layer_gradient_x_activation(x[:1], layer="h")
    with pytest.raises(
        igonnx.EngineError, match="gradient of 'h' is not finite at a point of example 1"
    ):
        explainer.layer_gradient_x_activation(x, layer="h", target=0)
    with pytest.raises(igonnx.EngineError, match="is not finite"):
        explainer.layer_conductance(x, layer="s", rule="left", target=0)
    with pytest.raises(igonnx.InputError, match="nan"):
        explainer.layer_activation(x * np.nan, layer="h")
