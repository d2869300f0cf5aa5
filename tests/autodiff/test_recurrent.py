"""RNN, GRU and LSTM: what they are lowered to computes what the runtime does, and has the right gradient.

The runtime has them in float32 only; what they are lowered to runs in float64, where differences are sharp.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel
from rule_cases.check import session, validate
from slopes import STEP

import igonnx

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
TIME, BATCH, WIDTH, HIDDEN = 4, 3, 2, 5
Arrays = dict[str, np.ndarray]


def layer(
    kind: str,
    *,
    direction: str = "forward",
    layout: int = 0,
    bias: bool = True,
    lengths: bool = False,
    initial: bool = True,
    peepholes: bool = False,
    dtype: type = np.float64,
    axes: str = "static",
    **attributes: Any,
) -> tuple[onnx.ModelProto, Arrays]:
    """A model of one node, all of whose tensors are inputs, and something to feed it with."""
    rng = np.random.default_rng(len(str((kind, direction, sorted(attributes)))))
    ways = 2 if direction == "bidirectional" else 1

    def array(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * 0.6).astype(dtype)

    state = (BATCH, ways, HIDDEN) if layout else (ways, BATCH, HIDDEN)
    wide = GATES[kind] * HIDDEN
    given: dict[str, np.ndarray | None] = {
        "x": array(BATCH, TIME, WIDTH) if layout else array(TIME, BATCH, WIDTH),
        "w": array(ways, wide, WIDTH),
        "r": array(ways, wide, HIDDEN),
        "b": array(ways, 2 * wide) if bias else None,
        "lengths": np.array([TIME, 1, TIME - 1], np.int32) if lengths else None,
        "h0": array(*state) if initial else None,
    }
    if kind == "LSTM":
        given["c0"] = array(*state) if initial else None
        given["p"] = array(ways, 3 * HIDDEN) if peepholes else None
    feeds = {name: a for name, a in given.items() if a is not None}
    outputs = ["y", "last", "cell"][: 3 if kind == "LSTM" else 2]
    node = helper.make_node(
        kind,
        [name if name in feeds else "" for name in given],
        outputs,
        hidden_size=HIDDEN,
        direction=direction,
        **({"layout": layout} if layout else {}),
        **attributes,
    )
    floating = TensorProto.DOUBLE if dtype is np.float64 else TensorProto.FLOAT
    shapes = {name: a.shape if axes == "static" else [None] * a.ndim for name, a in feeds.items()}
    if axes == "symbolic":
        shapes |= {"w": feeds["w"].shape, "r": feeds["r"].shape}
        shapes["x"] = ("batch", "time", WIDTH) if layout else ("time", "batch", WIDTH)
    inputs = [
        helper.make_tensor_value_info(
            name, TensorProto.INT32 if name == "lengths" else floating, shape
        )
        for name, shape in shapes.items()
    ]
    found = [
        helper.make_tensor_value_info(name, floating, [None] * (4 if name == "y" else 3))
        for name in outputs
    ]
    graph = helper.make_graph([node], "recurrent", inputs, found)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ), feeds


FORMS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "plain": (("RNN", "GRU", "LSTM"), {}),
    "lengths": (("RNN", "GRU", "LSTM"), {"lengths": True}),
    "bare": (("RNN", "GRU", "LSTM"), {"bias": False, "initial": False}),
    "clip": (("RNN", "GRU", "LSTM"), {"clip": 0.4}),
    "clip and lengths": (("RNN", "GRU", "LSTM"), {"clip": 0.5, "lengths": True, "initial": False}),
    "late reset": (("GRU",), {"linear_before_reset": 1}),
    "late reset, bare": (("GRU",), {"linear_before_reset": 1, "bias": False, "lengths": True}),
    "late reset, clip": (("GRU",), {"linear_before_reset": 1, "clip": 0.5}),
    "peepholes": (("LSTM",), {"peepholes": True}),
    "peepholes and more": (("LSTM",), {"peepholes": True, "clip": 0.5, "lengths": True}),
    "coupled": (("LSTM",), {"input_forget": 1}),
}
CASES = [
    pytest.param(kind, direction, options, id=f"{kind}-{direction}-{label}")
    for label, (kinds, options) in FORMS.items()
    for kind in kinds
    for direction in ("forward", "reverse", "bidirectional")
]
ACTIVATIONS = {
    "scaled": ("RNN", {"activations": ["ScaledTanh"], "activation_alpha": [0.7], "activation_beta": [1.2]}),
    "affine": ("RNN", {"activations": ["Affine"], "activation_alpha": [0.7], "activation_beta": [0.2]}),
    "relu": ("RNN", {"activations": ["Relu"]}),
    "softplus": ("RNN", {"activations": ["Softplus"]}),
    "elu": ("RNN", {"activations": ["Elu"], "activation_alpha": [0.8]}),
    "leaky": ("RNN", {"activations": ["LeakyRelu"]}),
    "thresholded": ("RNN", {"activations": ["ThresholdedRelu"], "activation_alpha": [0.1]}),
    "gru": ("GRU", {"activations": ["HardSigmoid", "Softsign"]}),
    "lstm": ("LSTM", {"activations": ["HardSigmoid", "Tanh", "LeakyRelu"], "activation_alpha": [0.3, 0.1]}),
    "both ways": (
        "RNN",
        {
            "direction": "bidirectional",
            "activations": ["ScaledTanh", "ScaledTanh"],
            "activation_alpha": [0.7, 0.8],
            "activation_beta": [1.2, 0.9],
        },
    ),
    "both ways, one with parameters": (
        "RNN",
        {
            "direction": "bidirectional",
            "activations": ["Tanh", "LeakyRelu"],
            "activation_alpha": [0.3],
        },
    ),
}  # fmt: skip


def _check(kind: str, **options: Any) -> None:
    for axes in ("static", "symbolic", "unnamed"):
        proto, feeds = layer(kind, axes=axes, **options)
        single, _ = layer(kind, axes=axes, dtype=np.float32, **options)
        narrow = {n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in feeds.items()}
        names = [value.name for value in proto.graph.output]
        if options.get("layout"):
            expected = ReferenceEvaluator(proto).run(names, feeds)
        else:
            expected = session(single).run(names, narrow)
        for output, y in zip(names, expected, strict=True):
            if axes != "static" and output != "y":
                continue
            _check_output(proto, feeds, output, y)


def _check_output(proto: onnx.ModelProto, feeds: Arrays, output: str, y: np.ndarray) -> None:
    wrt = [name for name in feeds if name != "lengths"]
    result = igonnx.gradient(proto, wrt=wrt, output=output)
    validate(result)
    dtype, step, tolerance = np.float64, STEP, 1e-6
    try:
        runtime = session(result)
    except NoKernel:  # the activation has none in float64
        dtype, step, tolerance = np.float32, 2e-3, 3e-3
        runtime = session(igonnx.gradient(_single(proto), wrt=wrt, output=output))
    rng = np.random.default_rng(4)
    cotangent = rng.standard_normal(y.shape).astype(dtype)
    given = {name: a if name == "lengths" else a.astype(dtype) for name, a in feeds.items()}
    given[f"cotangent_{output}"] = cotangent
    found, *gradients = runtime.run([output, *(f"grad_{name}" for name in wrt)], given)
    np.testing.assert_allclose(found, y, atol=2e-6, err_msg=output)
    for name, gradient in zip(wrt, gradients, strict=True):
        direction = rng.standard_normal(feeds[name].shape)
        ends = []
        for sign in (1, -1):
            moved = (feeds[name] + sign * step * direction).astype(dtype)
            (end,) = runtime.run([output], {**given, name: moved})
            ends.append(end.astype(np.float64))
        slope = np.sum((ends[0] - ends[1]) * cotangent) / (2 * step)
        scale = max(1.0, float(np.linalg.norm(gradient)))
        assert abs(slope - np.sum(gradient * direction)) < tolerance * scale, (output, name)


def _single(proto: onnx.ModelProto) -> onnx.ModelProto:
    narrow = onnx.ModelProto()
    narrow.CopyFrom(proto)
    for value in [*narrow.graph.input, *narrow.graph.output]:
        if value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return narrow


@pytest.mark.parametrize(("kind", "direction", "options"), CASES)
def test_layer(kind, direction, options):
    _check(kind, direction=direction, **options)


@pytest.mark.parametrize("case", ACTIVATIONS)
def test_activations(case):
    kind, options = ACTIVATIONS[case]
    _check(kind, **options)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_batch_first(kind):
    """The runtime refuses this layout: onnx's reference implementation says what it means."""
    _check(kind, layout=1)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("asked", ["y", "last"])
def test_one_output_alone(kind, asked):
    proto, feeds = layer(kind, direction="bidirectional")
    (y,) = [
        array
        for name, array in zip(
            ("y", "last"),
            session(igonnx.gradient(proto)).run(
                ["y", "last"], {**feeds, "cotangent_y": np.zeros((TIME, 2, BATCH, HIDDEN))}
            ),
            strict=True,
        )
        if name == asked
    ]
    node = proto.graph.node[0]
    node.output[:] = ["y"] if asked == "y" else ["", "last"]
    for value in list(proto.graph.output):
        if value.name != asked:
            proto.graph.output.remove(value)
    _check_output(proto, feeds, asked, y)


def test_outputs_used_more_than_once():
    proto, feeds = layer("LSTM")
    more = [
        helper.make_node("Mul", ["y", "y"], ["squared"]),
        helper.make_node("ReduceSum", ["squared"], ["total"], keepdims=0),
        helper.make_node("Mul", ["last", "cell"], ["product"]),
        helper.make_node("Mul", ["product", "total"], ["more"]),
        helper.make_node("Add", ["more", "last"], ["z"]),
    ]
    proto.graph.node.extend(more)
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.DOUBLE, [None] * 3))
    given = {**feeds, "cotangent_z": np.zeros((1, BATCH, HIDDEN))}
    (z,) = session(igonnx.gradient(proto, output="z")).run(["z"], given)
    _check_output(proto, feeds, "z", z)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_half_precision(kind):
    proto, feeds = layer(kind)
    expected_proto = igonnx.gradient(proto, wrt="x")
    cotangent = np.ones((TIME, 1, BATCH, HIDDEN))
    (expected,) = session(expected_proto).run(["grad_x"], {**feeds, "cotangent_y": cotangent})
    for value in [*proto.graph.input, *proto.graph.output]:
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    given = {name: array.astype(np.float16) for name, array in feeds.items()}
    (gradient,) = session(igonnx.gradient(proto, wrt="x")).run(
        ["grad_x"], {**given, "cotangent_y": cotangent.astype(np.float16)}
    )
    assert gradient.dtype == np.float16
    np.testing.assert_allclose(gradient, expected, atol=2e-2)
