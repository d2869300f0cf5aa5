"""Every quantised operator: its lowered form against onnxruntime, its gradient against the real operator's.

A case is a small network twice: on codes, and on the real numbers that they stand for (`twin`). The gradient of the
first must be that of the second at the dequantised inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import igonnx
from igonnx.lowering.apply import lower
from igonnx.model import Model

RNG = np.random.default_rng(11)


def codes(*shape: int, dtype: Any = np.int8) -> NDArray[Any]:
    """Random codes over the whole range of their type."""
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max + 1, size=shape).astype(dtype)


def dequantised(array: NDArray[Any], scale: Any, zero_point: Any = 0, axis: int = -1) -> Any:
    """(codes - zero point) * scale, with a scale per slice of `axis`, float32."""

    def along(number: Any) -> NDArray[np.float64]:
        number = np.asarray(number, np.float64)
        shape = [1] * array.ndim
        if number.ndim == 1 and number.size > 1:
            shape[axis] = -1
        return number.reshape(shape if number.ndim else ())

    return ((array - along(zero_point)) * along(scale)).astype(np.float32)


def f32(value: Any) -> NDArray[np.float32]:
    return np.asarray(value, np.float32)


@dataclass
class Case:
    """`text` computes y from x, where codes are made by q = QuantizeLinear(x, xs, xz); `twin` does so with reals."""

    name: str
    text: str
    twin: str
    shape: tuple[int, ...]
    weights: dict[str, Any] = field(default_factory=dict)
    reals: dict[str, Any] = field(default_factory=dict)  # initializers of the twin
    step: float = 0.0  # largest difference of the outputs: a code of y
    rank: int | None = None
    exact: bool = False  # x is not rounded to steps of 0.02 first


W = codes(3, 2, 3, 3)
WS, WZ = f32([0.004, 0.006, 0.008]), np.array([1, 0, -3], np.int8)
B = codes(4, 5)
BS, BZ = f32([0.005, 0.008, 0.012, 0.006, 0.005]), np.array([1, 0, -3, 4, 9], np.int8)
BIAS = RNG.integers(-300, 300, size=3).astype(np.int32)
ROW = RNG.normal(size=5).astype(np.float32)
X = {"xs": f32(0.02), "xz": np.uint8(120)}
Y = {"ys": f32(0.1), "yz": np.uint8(130)}
MS = "com.microsoft."
WQKV, SQKV = codes(4, 12), f32(np.linspace(0.005, 0.01, 12))
ZQKV = np.zeros(12, np.int8)
OTHER = codes(2, 3, 4, dtype=np.uint8)
Q = "q = QuantizeLinear(x, xs, xz)\n"
DQ = "\ny = DequantizeLinear(c, ys, yz)"


def conv(last: bool) -> Case:
    attributes = "pads=[1,0,1,2], strides=[2,1], dilations=[1,2]"
    domain, shape, inner = ("", (2, 2, 5, 7), attributes)
    twin = f"y = Conv<{attributes}>(x, w, b)"
    if last:
        domain, shape, inner = MS, (2, 5, 7, 2), attributes + ", channels_last=1"
        twin = f"t = Transpose<perm=[0,3,1,2]>(x) u = Conv<{attributes}>(t, w, b) y = Transpose<perm=[0,2,3,1]>(u)"
    return Case(
        "QLinearConv" + (" channels last" if last else ""),
        Q + f"c = {domain}QLinearConv<{inner}>(q, xs, xz, w, ws, wz, ys, yz, b)" + DQ,
        twin,
        shape,
        {**X, **Y, "w": W, "ws": WS, "wz": WZ, "b": BIAS},
        {"w": dequantised(W, WS, WZ, 0), "b": f32(BIAS * (f32(0.02) * WS))},
        step=0.1,
    )


def on_codes(
    name: str, operator: str, twin: str, shape: tuple[int, ...] = (2, 3, 4, 4), attributes: str = ""
) -> Case:
    """x and y, each with scale and zero point."""
    scales = {"ys": f32(0.02), "yz": np.uint8(110)}
    text = Q + f"c = {MS}{operator}{attributes}(q, xs, xz, ys, yz)" + DQ
    return Case(name, text, twin, shape, {**X, **scales}, step=0.02)


def two_sided(operator: str) -> Case:
    return Case(
        f"QLinear{operator}",
        Q + f"c = {MS}QLinear{operator}(q, xs, xz, a, ws, wz, ys, yz)" + DQ,
        f"y = {operator}(x, a)",
        (2, 3, 4),
        {**X, **Y, "a": OTHER[0], "ws": f32(0.01), "wz": np.uint8(99)},
        {"a": dequantised(OTHER[0], 0.01, 99)},
        step=0.1,
    )


def lstm(per_column: bool) -> Case:
    w, r = codes(1, 3, 8), codes(1, 2, 8)
    scale = f32(np.linspace(0.005, 0.01, 8)[None] if per_column else [0.01])
    zero = np.zeros(scale.shape, np.int8)
    real = [np.ascontiguousarray((a * scale.reshape(1, 1, -1)).transpose(0, 2, 1)) for a in (w, r)]
    bias = RNG.normal(size=(1, 16)).astype(np.float32)
    return Case(
        f"DynamicQuantizeLSTM {'per column' if per_column else 'per direction'}",
        f"s, h, c = {MS}DynamicQuantizeLSTM<hidden_size=2>(x, w, r, b, , , , , ws, wz, ws, wz)\n y = Mul(s, two)",
        "s, h, c = LSTM<hidden_size=2>(x, w, r, b)\n y = Mul(s, two)",
        (4, 2, 3),
        {"w": w, "r": r, "b": bias, "ws": scale, "wz": zero, "two": f32(2)},
        {"w": real[0], "r": real[1], "b": bias, "two": f32(2)},
        step=0.1,
        exact=True,
        rank=4,
    )


CASES = [
    conv(last=False),
    conv(last=True),
    Case(
        "ConvInteger",
        Q
        + "i = ConvInteger<pads=[1,1,1,1], group=1>(q, w, xz, w0)\n f = Cast<to=1>(i)\n y = Mul(f, xs)",
        "y = Conv<pads=[1,1,1,1]>(x, w)",
        (1, 2, 4, 5),
        {**X, "w": W, "w0": np.int8(2)},
        {"w": dequantised(W, 1.0, 2)},
    ),
    Case(
        "QLinearMatMul per column",
        Q + "c = QLinearMatMul(q, xs, xz, w, ws, wz, ys, yz)" + DQ,
        "y = MatMul(x, w)",
        (2, 3, 4),
        {**X, **Y, "w": B, "ws": BS, "wz": BZ},
        {"w": dequantised(B, BS, BZ)},
        step=0.1,
    ),
    Case(
        "MatMulInteger",
        Q + "i = MatMulInteger(q, w, xz, wz)\n f = Cast<to=1>(i)\n s = Mul(xs, ws)\n y = Mul(f, s)",
        "y = MatMul(x, w)",
        (3, 4),
        {**X, "w": B, "ws": BS, "wz": BZ},
        {"w": dequantised(B, BS, BZ)},
    ),
    Case(
        "MatMulInteger after DynamicQuantizeLinear",
        "q, s, z = DynamicQuantizeLinear(x)\n i = MatMulInteger(q, w, z, wz)\n f = Cast<to=1>(i)\n"
        "t = Mul(s, ws)\n y = Mul(f, t)",
        "y = MatMul(x, w)",
        (3, 4),
        {"w": B, "ws": f32(0.01), "wz": np.int8(3)},
        {"w": dequantised(B, 0.01, 3)},
        step=0.2,
        exact=True,
    ),
    Case(
        "MatMulIntegerToFloat",
        Q + f"y = {MS}MatMulIntegerToFloat(q, w, xs, ws, xz, wz, b)",
        "m = MatMul(x, w)\n y = Add(m, b)",
        (2, 3, 4),
        {**X, "w": B, "ws": BS, "wz": BZ, "b": ROW},
        {"w": dequantised(B, BS, BZ), "b": ROW},
        rank=3,
    ),
    Case(
        "DynamicQuantizeMatMul",
        f"y = {MS}DynamicQuantizeMatMul(x, w, ws, wz, b)",
        "m = MatMul(x, w)\n y = Add(m, b)",
        (2, 3, 4),
        {"w": B, "ws": BS, "wz": BZ, "b": ROW},
        {"w": dequantised(B, BS, BZ), "b": ROW},
        step=0.2,
        exact=True,
        rank=3,
    ),
    Case(
        "QGemm",
        Q + f"c = {MS}QGemm<transB=1, alpha=0.5>(q, xs, xz, w, ws, wz, b, ys, yz)" + DQ,
        "y = Gemm<alpha=0.5>(x, w, b)",
        (3, 4),
        {**X, **Y, "w": B.T, "ws": BS, "wz": BZ, "b": np.array([1000, -300, 0, 5, 99], np.int32)},
        {"w": dequantised(B, BS, BZ), "b": f32([1000, -300, 0, 5, 99]) * f32(0.01) * BS},
        step=0.1,
    ),
    Case(
        "QGemm to floats",
        Q + f"y = {MS}QGemm<transA=1>(q, xs, xz, w, w0, wz)",
        "t = Transpose(x)\n y = MatMul(t, w)",
        (4, 3),
        {**X, "w": B, "w0": f32(0.01), "wz": np.int8(3)},
        {"w": dequantised(B, 0.01, 3)},
        rank=2,
    ),
    two_sided("Add"),
    two_sided("Mul"),
    on_codes("QLinearSigmoid", "QLinearSigmoid", "y = Sigmoid(x)"),
    on_codes(
        "QLinearLeakyRelu",
        "QLinearLeakyRelu",
        "y = LeakyRelu<alpha=0.2>(x)",
        attributes="<alpha=0.2>",
    ),
    on_codes(
        "QLinearSoftmax",
        "QLinearSoftmax",
        "y = Softmax<axis=1>(x)",
        attributes="<axis=1, opset=13>",
    ),
    on_codes(
        "QLinearSoftmax before opset 13",
        "QLinearSoftmax",
        "f = Flatten<axis=2>(x)\n s = Softmax<axis=-1>(f)\n shape = Shape(x)\n y = Reshape(s, shape)",
        attributes="<axis=2, opset=11>",
    ),
    on_codes(
        "QLinearAveragePool",
        "QLinearAveragePool",
        "y = AveragePool<kernel_shape=[3,2], pads=[1,0,1,1], strides=[1,2]>(x)",
        attributes="<kernel_shape=[3,2], pads=[1,0,1,1], strides=[1,2]>",
    ),
    on_codes(
        "QLinearAveragePool channels last",
        "QLinearAveragePool",
        "t = Transpose<perm=[0,3,1,2]>(x)\n u = AveragePool<kernel_shape=[3,2]>(t)\n y = Transpose<perm=[0,2,3,1]>(u)",
        (2, 4, 4, 3),
        attributes="<kernel_shape=[3,2], channels_last=1>",
    ),
    on_codes("QLinearGlobalAveragePool", "QLinearGlobalAveragePool", "y = GlobalAveragePool(x)"),
    Case(
        "QLinearConcat",
        Q + f"c = {MS}QLinearConcat<axis=1>(ys, yz, q, xs, xz, a, ws, wz)" + DQ,
        "y = Concat<axis=1>(x, a)",
        (2, 3, 4),
        {**X, **Y, "a": OTHER, "ws": f32(0.01), "wz": np.uint8(99)},
        {"a": dequantised(OTHER, 0.01, 99)},
        step=0.1,
    ),
    Case(
        "QLinearWhere",
        Q + f"c = {MS}QLinearWhere(m, q, xs, xz, a, ws, wz, ys, yz)" + DQ,
        "y = Where(m, x, a)",
        (2, 3, 4),
        {**X, **Y, "m": OTHER > 99, "a": OTHER, "ws": f32(0.01), "wz": np.uint8(99)},
        {"m": OTHER > 99, "a": dequantised(OTHER, 0.01, 99)},
        step=0.1,
    ),
    lstm(per_column=False),
    lstm(per_column=True),
    *(
        Case(
            f"QAttention{' unidirectional' if one_way else ''}",
            f"{Q}y = {MS}QAttention<num_heads=2, unidirectional={one_way}>(q, w, b, xs, ws, m, xz, wz)",
            f"y = {MS}Attention<num_heads=2, unidirectional={one_way}>(x, w, b, m)",
            (2, 3, 4),
            {
                **X,
                "w": WQKV,
                "ws": SQKV,
                "wz": ZQKV,
                "b": f32(np.ones(12)),
                "m": np.array([3, 2], np.int32),
            },
            {
                "w": dequantised(WQKV, SQKV, ZQKV),
                "b": f32(np.ones(12)),
                "m": np.array([3, 2], np.int32),
            },
            rank=3,
            step=1e-3,
        )
        for one_way in (0, 1)
    ),
    Case(
        "com.microsoft QuantizeLinear of 16 bits",
        f"q = {MS}QuantizeLinear(x, xs, z)\n y = {MS}DequantizeLinear(q, xs, z)",
        "y = Identity(x)",
        (2, 3),
        {"xs": f32(0.001), "z": np.uint16(30000)},
        step=0.001,
        exact=True,
    ),
]


Build = Callable[..., onnx.ModelProto]


def built(
    model: Build, case: Case, text: str, weights: dict[str, Any], *, named: bool = False
) -> onnx.ModelProto:
    rank = case.rank or len(case.shape)
    shape = ", ".join(f"n{i}" for i in range(rank))
    inputs = ", ".join(f"i{i}" if named else str(size) for i, size in enumerate(case.shape))
    return model(
        f"(float[{inputs}] x) => (float[{shape}] y) {{\n{text}\n}}",
        weights,
        domains=', "com.microsoft": 1',
    )


def drawn(case: Case) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Inputs in the range of the codes, and what these make of them."""
    x = np.random.default_rng(17).uniform(-2, 2, size=case.shape).astype(np.float32)
    if case.exact:
        return x, x
    rounded = np.round(x / f32(0.02)) * f32(0.02)
    return x, rounded.astype(np.float32)


@pytest.mark.parametrize("named", [False, True], ids=["static", "named"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "_"))
def test_gradient_is_that_of_the_real_operator(
    case: Case, named: bool, model: Build, run: Any
) -> None:
    deployed, twin = (
        built(model, case, case.text, case.weights, named=named),
        built(model, case, case.twin, case.reals),
    )
    x, rounded = drawn(case)
    (expected,) = run(deployed, {"x": x})
    v = RNG.normal(size=expected.shape).astype(np.float32)
    y, gradient = run(igonnx.gradient(deployed), {"x": x, "cotangent_y": v})
    real, real_gradient = run(igonnx.gradient(twin), {"x": rounded, "cotangent_y": v})
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_allclose(y, real, rtol=1e-4, atol=case.step * 1.01 + 1e-4)
    scale = np.abs(real_gradient).max()
    assert scale > 0
    np.testing.assert_allclose(gradient, real_gradient, rtol=0, atol=2e-4 * scale)


def _is_quantised(node: ir.Node) -> bool:
    return node.domain != "" or node.op_type.startswith("QLinear")


# Integers of 32 bits have floats as their lowered form, and codes of 16 bits one for type and shape only.
LOWERED = [case for case in CASES if "Integer" not in case.text and "16 bits" not in case.name]


@pytest.mark.parametrize("case", LOWERED, ids=lambda case: case.name.replace(" ", "_"))
def test_lowered_form_computes_what_onnxruntime_does(case: Case, model: Build, run: Any) -> None:
    deployed = built(model, case, case.text, case.weights)
    x, _ = drawn(case)
    (expected,) = run(deployed, {"x": x})
    loaded = Model.load(deployed).clone()
    assert lower(loaded, list(loaded.graph), _is_quantised, straight_through=False)
    (lowered,) = run(ir.to_proto(loaded), {"x": x})
    np.testing.assert_allclose(lowered, expected, rtol=1e-4, atol=case.step * 1.01 + 1e-4)


def test_qembed_layer_normalization(run: Any) -> None:
    """Its tables are codes; its inputs are integers, so that its output is where explanations start."""
    names = ["word", "position", "segment", "gamma", "beta"]
    shapes = [(9, 8), (6, 8), (2, 8), (8,), (8,)]
    tables = dict(zip(names, (codes(*shape, dtype=np.uint8) for shape in shapes), strict=True))
    stored = {name: numpy_helper.from_array(table, name) for name, table in tables.items()}
    for name in names:
        stored[f"{name}_s"] = numpy_helper.from_array(f32(0.01), f"{name}_s")
        stored[f"{name}_z"] = numpy_helper.from_array(np.uint8(99), f"{name}_z")
    fed = ["ids", "segments", "mask"]
    node = helper.make_node(
        "QEmbedLayerNormalization",
        ["ids", "segments", *names, "mask", *(f"{n}_s" for n in names), *(f"{n}_z" for n in names)],
        ["e", "count"],
        domain="com.microsoft",
        epsilon=1e-12,
    )
    graph = helper.make_graph(
        [node, helper.make_node("ReduceSum", ["e"], ["y"])],
        "embedding",
        [helper.make_tensor_value_info(name, TensorProto.INT32, ["n", "s"]) for name in fed],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 1])],
        list(stored.values()),
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    deployed = helper.make_model(graph, opset_imports=imports, ir_version=8)
    deployed.graph.output.append(
        helper.make_tensor_value_info("e", TensorProto.FLOAT, ["n", "s", 8])
    )
    feeds = {
        "ids": RNG.integers(0, 9, (2, 5)).astype(np.int32),
        "segments": RNG.integers(0, 2, (2, 5)).astype(np.int32),
        "mask": np.ones((2, 5), np.int32),
    }
    expected = run(deployed, feeds)
    loaded = Model.load(deployed)
    assert loaded.find_tensor("e").shape is not None
    twin = loaded.clone()
    assert lower(twin, list(twin.graph), _is_quantised, straight_through=False)
    for given, wanted in zip(run(ir.to_proto(twin), feeds), expected, strict=True):
        np.testing.assert_allclose(given, wanted, rtol=1e-4, atol=1e-4)
