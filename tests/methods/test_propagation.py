"""Guided backpropagation and deconvolutional networks: against closed forms in NumPy, by both engines."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from igonnx.autodiff.propagation import PROPAGATIONS, require_propagation
from igonnx.engine.plan import Requests, RowPlan
from igonnx.errors import InputError
from igonnx.inputs import batched_inputs
from igonnx.model import Model
from igonnx.preparation import ENGINES, Gradients, Prepared, Settings, prepare
from igonnx.row_gradient import build_row_gradient
from igonnx.working_memory import fingerprint

Array: TypeAlias = NDArray[Any]
Build: TypeAlias = Callable[..., onnx.ModelProto]
OTHERS = [name for name in PROPAGATIONS if name != "gradient"]


# -- what is expected -----------------------------------------------------------------------


@dataclass(frozen=True)
class Affine:
    """y = x matrix + bias, on flattened examples."""

    matrix: Array
    bias: Array


@dataclass(frozen=True)
class Rectified:
    """y = min(max(x, 0), upper)."""

    upper: float = np.inf


@dataclass(frozen=True)
class Residual:
    """y = x + what the layers make of x."""

    layers: Sequence[Layer]


Layer: TypeAlias = "Affine | Rectified | Residual"


def forward(layers: Sequence[Layer], x: Array) -> list[Array]:
    """The input of every layer, and the output of the last one."""
    values = [x]
    for layer in layers:
        x = values[-1]
        if isinstance(layer, Affine):
            values.append(x @ layer.matrix + layer.bias)
        elif isinstance(layer, Rectified):
            values.append(np.clip(x, 0, layer.upper))
        else:
            values.append(x + forward(layer.layers, x)[-1])
    return values


def expected(layers: Sequence[Layer], x: Array, g: Array, propagation: str) -> Array:
    """What arrives at x of the cotangent g: [examples, elements], all float64."""
    values = forward(layers, x)
    for layer, x in zip(reversed(layers), reversed(values[:-1]), strict=True):
        if isinstance(layer, Affine):
            g = g @ layer.matrix.T
        elif isinstance(layer, Residual):
            g = g + expected(layer.layers, x, g, propagation)
        else:
            if propagation != "gradient":
                g = np.maximum(g, 0)
            if propagation != "deconvnet":
                g = g * ((x > 0) & (x < layer.upper))
    return g


def convolved(x: Array, weight: Array, stride: int) -> Array:
    """x [N, C, H, W] by weight [M, C, 3, 3], with a border of zeros, one wide."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("nchwij,mcij->nmhw", windows[:, :, ::stride, ::stride], weight)


def convolution(weight: Array, bias: Array, size: tuple[int, int], stride: int = 1) -> Affine:
    """The convolution of images of `size` as a matrix, made from what it makes of every single pixel."""
    channels = weight.shape[1]
    pixels = np.eye(channels * size[0] * size[1]).reshape(-1, channels, *size)
    images = convolved(pixels, weight, stride)
    places = images.shape[2] * images.shape[3]
    return Affine(images.reshape(len(images), -1), np.repeat(bias, places))


# -- what is given --------------------------------------------------------------------------


def prepared(model: Any, x: Array, engine: str = "native", batch_size: int | None = 2) -> Prepared:
    """The model with the input x and the output y, ready to be explained."""
    loaded = Model.load(model)
    settings = Settings("y", ("x",), None, engine, None, 1, batch_size=batch_size)
    return prepare(loaded, settings, {"x": x}, batched_inputs(loaded, {"x": x}, ("x",)))


def at_x(gradients: Gradients, x: Array, cotangent: Array, batch_size: int = 2) -> Array:
    """What arrives at x, of the shape of x."""
    x, cotangent = (np.ascontiguousarray(array, gradients.dtype) for array in (x, cotangent))
    requests = Requests({"x": x}, {"x": np.zeros_like(x)}, {}, {}, cotangent)
    ones = np.ones(len(x))
    plan = RowPlan(np.arange(len(x)), ones, ones)
    return gradients.engine.run(requests, plan, batch_size=batch_size).weighted_gradient["x"]


def check(model: Any, layers: Sequence[Layer], x: Array, outputs: int) -> None:
    """Compare every propagation by every engine, in batches of several sizes, with the closed form."""
    cotangent = np.random.default_rng(9).standard_normal((len(x), outputs))
    flat = x.reshape(len(x), -1).astype(np.float64)
    found = {}
    for name in PROPAGATIONS:
        found[name] = expected(layers, flat, cotangent, name).reshape(x.shape)
    for engine in ENGINES:
        ready = prepared(model, x, engine)
        for name in PROPAGATIONS:
            for batch_size in (1, 2, len(x)):
                given = at_x(ready.gradients(name), x, cotangent, batch_size)
                assert distance(given, found[name]) < 1e-5, (engine, name, batch_size)
    for i, one in enumerate(PROPAGATIONS):
        assert all(distance(found[one], found[other]) > 0.01 for other in PROPAGATIONS[:i])


def distance(given: Array, expected: Array) -> float:
    """Of each other, relative to what is expected."""
    return float(np.linalg.norm(given - expected) / np.linalg.norm(expected))


def random(*shape: int, seed: int = 0, dtype: type = np.float32) -> Array:
    """Normal random numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# -- tests ----------------------------------------------------------------------------------

# How ReLU and ReLU6 and their like are written: text, weights, and where they end.
RELUS: dict[str, tuple[str, float]] = {
    "relu": ("Relu(h)", np.inf),
    "relu6": ("Clip(h, zero, six)", 6.0),
    "clip without end": ("Clip(h, zero)", np.inf),
    "clip at 0.6": ("Clip(h, zero, some)", 0.6),
    "max": ("Max(h, zero)", np.inf),
    "max, zero first": ("Max(zeros, h)", np.inf),
}
CONSTANTS = {"zero": 0.0, "six": 6.0, "some": 0.6, "zeros": np.zeros((1, 9))}


@pytest.mark.parametrize("examples", [1, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", RELUS)
def test_fully_connected(model: Build, form: str, dtype: type, examples: int) -> None:
    text, upper = RELUS[form]
    w1, w2, w3 = random(7, 9, seed=1), 2 * random(9, 11, seed=2), random(11, 3, seed=3)
    b1, b2, b3 = random(9, seed=4), random(11, seed=5), random(3, seed=6)
    weights = {"w1": w1, "w2": w2, "w3": w3, "b1": b1, "b2": b2, "b3": b3} | {
        name: np.asarray(value) for name, value in CONSTANTS.items() if name in text
    }
    kind = {np.float32: "float", np.float64: "double"}[dtype]
    proto = model(
        f"""({kind}[N, 7] x) => ({kind}[N, 3] y) {{
            h = Gemm(x, w1, b1)
            r = {text}
            i = Gemm(r, w2, b2)
            s = Relu(i)
            y = Gemm(s, w3, b3)
        }}""",
        {name: array.astype(dtype) for name, array in weights.items()},
    )
    layers = [Affine(w1, b1), Rectified(upper), Affine(w2, b2), Rectified(), Affine(w3, b3)]
    check(proto, layers, random(examples, 7, seed=7, dtype=dtype), 3)


@pytest.mark.parametrize("channels", [8, 5])
@pytest.mark.parametrize("fused", [False, True])
def test_residual_convolutions(model: Build, channels: int, fused: bool) -> None:
    """Convolutions, ReLU6 and ReLU around a residual block, images of odd sizes, channels that fill blocks or not."""
    size, wider = (7, 5), channels * 2
    w1 = random(channels, 3, 3, 3, seed=1)
    w2 = random(channels, channels, 3, 3, seed=2) / 2
    w3 = random(wider, channels, 3, 3, seed=3) / 2
    b1, b2, b3 = random(channels, seed=4), random(channels, seed=5), random(wider, seed=6)
    w4, b4 = random(wider * 4 * 3, 4, seed=7), random(4, seed=8)
    first = "p = Conv<pads=[1, 1, 1, 1]>(x, w1, b1) a = Relu(p)"
    if fused:
        first = 'a = com.microsoft.FusedConv<pads=[1, 1, 1, 1], activation="Relu">(x, w1, b1)'
    proto = model(
        f"""(float[N, 3, 7, 5] x) => (float[N, 4] y) {{
            {first}
            c = Conv<pads=[1, 1, 1, 1]>(a, w2, b2)
            d = Clip(c, zero, six)
            e = Add(a, d)
            f = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(e, w3, b3)
            h = Relu(f)
            i = Flatten(h)
            y = Gemm(i, w4, b4)
        }}""",
        {
            "w1": w1,
            "w2": w2,
            "w3": w3,
            "w4": w4,
            "b1": b1,
            "b2": b2,
            "b3": b3,
            "b4": b4,
            "zero": np.float32(0),
            "six": np.float32(6),
        },
        domains=', "com.microsoft": 1' if fused else "",
    )
    layers = [
        convolution(w1, b1, size),
        Rectified(),
        Residual([convolution(w2, b2, size), Rectified(6.0)]),
        convolution(w3, b3, size, stride=2),
        Rectified(),
        Affine(w4, b4),
    ]
    check(proto, layers, random(3, 3, *size, seed=9), 4)


def test_residual_with_relu_behind_the_sum(model: Build) -> None:
    """As in ResNet: what arrives at the block's output is rectified as a sum, then goes both ways."""
    w1, w2 = random(6, 6, seed=1), random(6, 6, seed=2)
    proto = model(
        """(float[N, 6] x) => (float[N, 6] y) {
            a = MatMul(x, w1)
            b = Relu(a)
            c = Add(b, x)
            d = Relu(c)
            y = MatMul(d, w2)
        }""",
        {"w1": w1, "w2": w2},
    )
    block = Residual([Affine(w1, np.zeros(6)), Rectified()])
    layers = [block, Rectified(), Affine(w2, np.zeros(6))]
    check(proto, layers, random(5, 6, seed=3), 6)


def test_max_with_zeros_of_more_examples(model: Build) -> None:
    """What arrives is summed over what a tensor is repeated along, after it has been rectified."""
    proto = model(
        "(float[N, 1, 3] x) => (float[N, 2, 3] y) { y = Max(x, zeros) }",
        {"zeros": np.zeros((2, 3), np.float32)},
    )
    x = np.array([[[1, -1, 2]]], np.float32)
    cotangent = np.array([[[1, 2, -3], [4, -5, -6]]], np.float32)
    ready = prepared(proto, x)
    np.testing.assert_array_equal(at_x(ready.gradients("deconvnet"), x, cotangent), [[[5, 2, 0]]])
    guided = at_x(ready.gradients("guided_backprop"), x, cotangent)
    np.testing.assert_array_equal(guided, [[[5, 0, 0]]])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("form", ["Relu(x)", "Clip(x, zero, six)", "Max(x, zero)"])
def test_at_the_kinks(model: Build, form: str, engine: str) -> None:
    """Guided backpropagation takes a ReLU for closed at its ends; the deconvolutional network does not ask."""
    weights = {name: np.float32(CONSTANTS[name]) for name in ("zero", "six") if name in form}
    proto = model(f"(float[N, 4] x) => (float[N, 4] y) {{ y = {form} }}", weights)
    x = np.array([[0, 6, 3, -1], [0, 7, 3, 9]], np.float32)
    cotangent = np.array([[1, 1, 1, 1], [-1, 1, -1, 1]], np.float32)
    ready = prepared(proto, x, engine)
    open_above = 0 if "six" in form else 1
    guided = [[0, open_above, 1, 0], [0, open_above, 0, open_above]]
    found = at_x(ready.gradients("guided_backprop"), x, cotangent)
    np.testing.assert_array_equal(found, guided)
    found = at_x(ready.gradients("deconvnet"), x, cotangent)
    np.testing.assert_array_equal(found, [[1, 1, 1, 1], [0, 1, 0, 1]])


def test_bounds_that_are_attributes(model: Build) -> None:
    """As Clip had them before opset 11."""
    proto = model("(float[N, 3] x) => (float[N, 3] y) { y = Clip<min=0.0, max=6.0>(x) }", opset=9)
    x = np.array([[-1, 3, 7]], np.float32)
    ready = prepared(proto, x)
    for name, found in {"guided_backprop": [[0, 1, 0]], "deconvnet": [[1, 1, 1]]}.items():
        np.testing.assert_array_equal(at_x(ready.gradients(name), x, np.ones((1, 3))), found)


@pytest.mark.parametrize("engine", ENGINES)
def test_relu_between_codes(model: Build, engine: str) -> None:
    """In a quantised network what arrives goes straight through the rounding, within the range of its codes."""
    proto = model(
        """(float[N, 4] x) => (float[N, 4] y) {
            q = QuantizeLinear(x, scale, point)
            d = DequantizeLinear(q, scale, point)
            r = Relu(d)
            p = QuantizeLinear(r, scale, point)
            y = DequantizeLinear(p, scale, point)
        }""",
        {"scale": np.float32(0.1), "point": np.int8(0)},
    )
    x = np.array([[-1, 2, 3, 99]], np.float32)  # 12.7 is the largest number that has a code
    cotangent = np.array([[1, 1, -1, 1]], np.float32)
    ready = prepared(proto, x, engine)
    for name, found in {"guided_backprop": [[0, 1, 0, 0]], "deconvnet": [[1, 1, 0, 0]]}.items():
        np.testing.assert_array_equal(at_x(ready.gradients(name), x, cotangent), found)


BODIES = {
    "If": "y = If(c) <then_branch = yes () => (float[N, 3] t) { t = Relu(x) }, "
    "else_branch = no () => (float[N, 3] f) { f = Neg(x) }>",
    "Loop": "y = Loop(trips, , x) <body = step (int64 i, bool go, float[N, 3] s) => (bool on, float[N, 3] t) "
    "{ on = Identity(go) t = Relu(s) }>",
}


@pytest.mark.parametrize("name", BODIES)
def test_relu_in_a_body(model: Build, name: str) -> None:
    parameter = "float[N, 3] x, bool c" if name == "If" else "float[N, 3] x"
    weights = {"trips": np.int64(2)} if name == "Loop" else {}
    proto = model(f"({parameter}) => (float[N, 3] y) {{ {BODIES[name]} }}", weights)
    loaded = Model.load(proto)
    for propagation in OTHERS:
        rows = build_row_gradient(loaded, output="y", wrt=["x"], propagation=propagation)
        assert rows.overridden == 1
    if name == "Loop":
        x = np.array([[1, 1, -1], [2, -1, 2]], np.float32)
        cotangent = np.array([[1, -1, 1], [-1, 1, 1]], np.float32)
        ready = prepared(proto, x)
        guided = at_x(ready.gradients("guided_backprop"), x, cotangent)
        np.testing.assert_array_equal(guided, [[1, 0, 0], [0, 0, 1]])
        found = at_x(ready.gradients("deconvnet"), x, cotangent)
        np.testing.assert_array_equal(found, [[1, 0, 1], [0, 1, 1]])


NOT_RELUS = {
    "LeakyRelu(x)": {},
    "PRelu(x, slope)": {"slope": np.float32(0)},
    "Clip(x)": {},
    "Clip(x, minus, one)": {"minus": np.float32(-1), "one": np.float32(1)},
    "Clip(x, zero, other)": {"zero": np.float32(0), "other": np.float32(0)},
    "Max(x, one)": {"one": np.float32(1)},
    "Max(x, zero, zero)": {"zero": np.float32(0)},
    "Max(x, z)": {},
    "Min(x, zero)": {"zero": np.float32(0)},
    "Tanh(x)": {},
}


@pytest.mark.parametrize("form", NOT_RELUS)
def test_without_relu_it_is_the_gradient_and_says_so(model: Build, form: str) -> None:
    body = f"z = Neg(x) a = {form}" if "z)" in form and "(x, z)" in form else f"a = {form}"
    proto = model(
        f"(float[N, 4] x) => (float[N, 4] y) {{ {body} y = Mul(a, two) }}",
        NOT_RELUS[form] | {"two": np.float32(2)},
    )
    x, cotangent = random(3, 4, seed=1), random(3, 4, seed=2)
    ready = prepared(proto, x)
    plain = at_x(ready.gradients(), x, cotangent)
    for propagation in OTHERS:
        for _ in range(2):
            with pytest.warns(UserWarning, match=f"no ReLU .* 'y': {propagation} is the plain"):
                gradients = ready.gradients(propagation)
            assert gradients is ready.gradients()
        np.testing.assert_array_equal(at_x(gradients, x, cotangent), plain)


def test_relu_off_the_way_does_not_count(model: Build) -> None:
    proto = model(
        "(float[N, 4] x) => (float[N, 4] y, float[N, 4] other) { y = Exp(x) other = Relu(x) }"
    )
    ready = prepared(proto, random(2, 4))
    with pytest.warns(UserWarning, match="no ReLU"):
        assert ready.gradients("deconvnet").overridden == 0


def test_engines_are_kept_per_propagation(model: Build) -> None:
    proto = model("(float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }")
    ready = prepared(proto, random(2, 4))
    found = [ready.gradients(name) for name in PROPAGATIONS]
    assert len({id(gradients) for gradients in found}) == len(PROPAGATIONS)
    assert [gradients.overridden for gradients in found] == [0, 1, 1]
    assert [ready.gradients(name) for name in PROPAGATIONS] == found
    assert ready.gradients() is found[0]


def test_graphs_have_fingerprints_of_their_own(model: Build) -> None:
    """Of what is measured once per fingerprint, each propagation has its own."""
    loaded = Model.load(model("(float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"))
    graphs = [
        build_row_gradient(loaded, output="y", wrt=["x"], propagation=name).model.graph
        for name in PROPAGATIONS
    ]
    assert len({fingerprint(graph) for graph in graphs}) == len(PROPAGATIONS)


def test_unknown_propagation(model: Build) -> None:
    proto = model("(float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }")
    wanted = "propagation is 'guided'; expected one of 'gradient', 'guided_backprop', 'deconvnet'"
    with pytest.raises(InputError, match=wanted):
        require_propagation("guided")
    with pytest.raises(InputError, match=wanted):
        build_row_gradient(Model.load(proto), output="y", wrt=["x"], propagation="guided")
    with pytest.raises(InputError, match=wanted):
        prepared(proto, random(2, 4)).gradients("guided")


def test_masking_operators_of_the_native_engine(model: Build) -> None:
    """Depthwise convolutions, max pooling and strides, where native operators mask by themselves."""
    rng = np.random.default_rng(0)
    for channels, stride in ((8, 1), (16, 2), (12, 1)):
        shapes = {
            "w1": (channels, 3, 3, 3),
            "w2": (channels, 1, 3, 3),
            "w3": (16, channels, 1, 1),
            "w4": (5, 16),
        }
        weights = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
        proto = model(
            f"""(float[N, 3, 13, 9] x) => (float[N, 5] y) {{
                a = Conv<pads=[1, 1, 1, 1]>(x, w1)
                b = Clip(a, zero, six)
                c = Conv<pads=[1, 1, 1, 1], strides=[{stride}, {stride}], group={channels}>(b, w2)
                d = Clip(c, zero, six)
                e = Conv(d, w3)
                f = Relu(e)
                h = MaxPool<kernel_shape=[3, 3], strides=[2, 2]>(f)
                i = Relu(h)
                m = GlobalAveragePool(i)
                k = Flatten(m)
                y = Gemm<transB=1>(k, w4)
            }}""",
            weights | {"zero": np.float32(0), "six": np.float32(6)},
        )
        x, cotangent = random(3, 3, 13, 9, seed=channels), random(3, 5, seed=stride)
        engines = [prepared(proto, x, engine) for engine in ENGINES]
        for propagation in PROPAGATIONS:
            native, reference = (at_x(e.gradients(propagation), x, cotangent) for e in engines)
            assert distance(native, reference) < 1e-5, (channels, propagation)


def test_nothing_is_said_where_a_relu_is(model: Build) -> None:
    proto = model("(float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert prepared(proto, random(2, 4)).gradients("deconvnet").overridden == 1
