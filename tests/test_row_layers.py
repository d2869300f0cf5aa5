"""Changes of layers along a direction, by two walks back: against the gradient itself, operator by operator.

For any cotangent u of the layer and direction v of what is explained, u . (J v) has to be (J^T u) . v.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

import igonnx
from igonnx.model import Model
from igonnx.row_layers import Inside, build_row_layers

Build = Callable[..., onnx.ModelProto]
RANDOM = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


IMAGE, ROWS = "(float[N, 2, 6, 6] x)", "(float[N, 4] x, float[N, 4] z)"
# What computes y from x (and z), and weights.
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "convolutions": (
        IMAGE,
        "a = Conv<pads = [1, 1, 1, 1], strides = [2, 2], group = 2>(x, k) \n y = Sin(a)",
        {"k": weights(4, 1, 3, 3)},
    ),
    "transposed convolution": (IMAGE, "y = ConvTranspose<strides = [2, 2]>(x, k)", {"k": weights(2, 3, 3, 3)}),
    "pooling": (IMAGE, "a = MaxPool<kernel_shape = [2, 2]>(x) \n y = AveragePool<kernel_shape = [2, 2]>(a)", {}),
    "normalisation": (IMAGE, "y = InstanceNormalization(x, s, b)", {"s": weights(2), "b": weights(2)}),
    "slices": (
        IMAGE,
        "a, b = Split<axis = 3>(x) \n c = Mul(a, b) \n y = Pad(c, p)",
        {"p": np.array([0, 0, 1, 0, 0, 0, 0, 2])},
    ),
    "resizing": (IMAGE, "y = Resize<mode = \"linear\">(x, , s)", {"s": np.array([1, 1, 2, 2], np.float32)}),
    "attention": (
        IMAGE,
        "f = Flatten<axis = 3>(x) \n t = Transpose<perm = [1, 0]>(f) \n d = MatMul(f, t) \n"
        "s = Softmax<axis = 1>(d) \n m = MatMul(s, f) \n y = Reshape(m, sizes)",
        {"sizes": np.array([-1, 72])},
    ),
    "a sum": (ROWS, "y = Add(x, z)", {}),
    "sums of all kinds": (ROWS, "a = Sub(x, z) \n b = Sum(a, x, z) \n c = Mul(b, x) \n y = Add(c, z)", {}),
    "a shared input": (ROWS, "a = Add(x, z) \n b = Exp(a) \n y = Mul(a, b)", {}),
    "one of two": (ROWS, "a = Sin(z) \n b = Add(a, x) \n n = Shape(x) \n y = Reshape(b, n)", {}),
    "layer norm": (ROWS, "a = Mul(x, z) \n y = LayerNormalization(a, s, b)", {"s": weights(4), "b": weights(4)}),
    "choice": (ROWS, "c = Less(x, z) \n a = Exp(z) \n y = Where(c, x, a)", {}),
    "order": (ROWS, "y, i = TopK(x, k) \n", {"k": np.array([3])}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_against_the_gradient(model: Build, name: str) -> None:
    inputs, nodes, initializers = CASES[name]
    rank = {"attention": 2}.get(name, 4 if inputs is IMAGE else 2)
    shape = ", ".join(["M"] + [f"D{i}" for i in range(rank - 1)])
    loaded = Model.load(model(f"{inputs} => (float[{shape}] y) {{ {nodes} }}", initializers))
    wrt = [info.name for info in loaded.inputs][: 1 if name == "order" else None]
    asked = Inside(values=("y",), gradients=tuple(wrt), changes=("y",))
    rows = build_row_layers(loaded, asked, output="y", wrt=wrt)
    session = ort.InferenceSession(ir.to_proto(rows.model).SerializeToString())
    shapes = {info.name: [3, *info.shape[1:]] for info in loaded.inputs}
    x = {one: weights(*size) for one, size in shapes.items()}
    like = ort.InferenceSession(loaded.to_proto().SerializeToString()).run(["y"], x)[0]
    feeds: dict[str, Any] = {}
    for one in session.get_inputs():
        kind, _, of = one.name.partition(":")
        feeds[one.name] = {
            "z": lambda of=of: x[of],
            "fixed": lambda of=of: x[of],
            "direction": lambda of=of: weights(*shapes[of]),
            "cotangent": lambda: weights(*like.shape),
        }[kind]()
    names = [one.name for one in session.get_outputs()]
    found = dict(zip(names, session.run(None, feeds), strict=True))
    np.testing.assert_allclose(found["value:y"], like, rtol=1e-5)
    forwards = (feeds["cotangent"] * found["change:y"]).sum(dtype=np.float64)
    terms = [found[f"gradient:{one}"] * feeds[f"direction:{one}"] for one in wrt]
    backwards = sum(term.sum(dtype=np.float64) for term in terms)
    np.testing.assert_allclose(forwards, backwards, atol=1e-5 * sum(np.abs(t).sum() for t in terms))
    assert forwards != 0


def test_a_layer_off_the_way(model: Build) -> None:
    loaded = Model.load(
        model("(float[N, 4] x, float[N, 4] z) => (float[N, 4] y) { a = Sin(z) \n y = Mul(x, a) }")
    )
    for asked in (Inside(changes=("a",)), Inside(through="a")):
        with pytest.raises(
            igonnx.ModelError, match="no differentiable path leads from 'x' to layer 'a'"
        ):
            build_row_layers(loaded, asked, output="y", wrt=["x"])
    integers = Model.load(
        model("(float[N, 4] x) => (float[N, 4] y) { i = Cast<to = 7>(x) \n y = Sin(x) }")
    )
    with pytest.raises(igonnx.InputError, match="layer 'i' is int64; expected a floating tensor"):
        build_row_layers(integers, Inside(values=("i",)), output="y", wrt=["x"])


def test_names_that_the_graph_needs_itself(model: Build) -> None:
    """Layers may be called as the inputs and outputs of the opened graph are."""
    graph = model(
        "(float[N, 4] x) => (float[N, 4] y) { score = Sin(x) \n neuron = Exp(score) \n y = Tanh(neuron) }"
    )
    explainer, x = igonnx.Explainer(graph), weights(2, 4)
    expected = np.sin(x)
    np.testing.assert_allclose(
        explainer.layer_activation(x, layer="score").values, expected, rtol=1e-5
    )
    for layer in ("score", "neuron"):
        found = explainer.layer_conductance(x, layer=layer, target=1, steps=20)
        assert np.abs(found.delta).max() < 1e-5
        explainer.neuron_conductance(x, layer=layer, target=1, neuron=1)
