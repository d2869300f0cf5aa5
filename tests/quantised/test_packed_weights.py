"""Products with weights of few bits against onnxruntime: the unpacked weight, and the gradient through it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import igonnx
from igonnx.lowering.apply import lower
from igonnx.model import Model

RNG = np.random.default_rng(3)
COLUMNS, ROWS = 40, 6  # K, N: the last block of 16 is cut short
ZERO_POINTS = ["default", "packed", "floating"]


def one_node(
    operator: str,
    inputs: dict[str, Any],
    attributes: dict[str, Any],
) -> onnx.ModelProto:
    """A model of one operator of com.microsoft whose first input, x or the data, is fed if it is None."""
    names = ["" if value is None else name for name, value in inputs.items()]
    node = helper.make_node(operator, names, ["y"], name="n", domain="com.microsoft", **attributes)
    stored = [
        numpy_helper.from_array(value, name)
        for name, value in inputs.items()
        if value is not None and not isinstance(value, str)
    ]
    fed = [
        helper.make_tensor_value_info(
            name, TensorProto.INT64 if value == "ids" else TensorProto.FLOAT, ["a", "b"]
        )
        for name, value in inputs.items()
        if isinstance(value, str)
    ]
    axes = ["c", "d", "e"] if operator.startswith("Gather") else ["c", "d"]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, axes)
    graph = helper.make_graph([node], "g", fed, [result], stored)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def matmul_nbits(
    bits: int, zero_points: str, *, bias: bool, group: bool = False
) -> onnx.ModelProto:
    block = 16
    blocks = -(-COLUMNS // block)
    packed = RNG.integers(0, 256, size=(ROWS, blocks, block * bits // 8), dtype=np.uint8)
    scales = RNG.uniform(0.1, 0.2, size=ROWS * blocks).astype(np.float32)
    zeros = {
        "default": None,
        "packed": RNG.integers(0, 256, size=ROWS * -(-blocks * bits // 8), dtype=np.uint8),
        "floating": RNG.uniform(3, 9, size=ROWS * blocks).astype(np.float32),
    }[zero_points]
    order = (np.arange(COLUMNS) * 7 % blocks).astype(np.int32) if group else None
    inputs = {"x": "fed", "w": packed, "s": scales, "z": zeros, "g": order}
    inputs["b"] = RNG.normal(size=ROWS).astype(np.float32) if bias else None
    attributes = {"K": COLUMNS, "N": ROWS, "bits": bits, "block_size": block}
    return one_node("MatMulNBits", inputs, attributes)


def check_product(model: onnx.ModelProto, run: Any) -> None:
    """Compare the lowered form with the kernel; the gradient with the columns of the weight that the kernel shows."""
    x = RNG.normal(size=(3, COLUMNS)).astype(np.float32)
    (expected,) = run(model, {"x": x})
    loaded = Model.load(model).clone()
    assert lower(loaded, list(loaded.graph), lambda node: node.domain != "", straight_through=False)
    (lowered,) = run(ir.to_proto(loaded), {"x": x})
    np.testing.assert_allclose(lowered, expected, rtol=1e-4, atol=1e-4)
    (bias,) = run(model, {"x": np.zeros((1, COLUMNS), np.float32)})
    (shown,) = run(model, {"x": np.eye(COLUMNS, dtype=np.float32)})
    v = RNG.normal(size=expected.shape).astype(np.float32)
    y, gradient = run(igonnx.gradient(model), {"x": x, "cotangent_y": v})
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_allclose(gradient, v @ (shown - bias).T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("bits", "zero_points"),
    # onnxruntime has no kernel for floating zero points of 8-bit weights.
    [
        (bits, given)
        for bits in (2, 4, 8)
        for given in ZERO_POINTS
        if (bits, given) != (8, "floating")
    ],
)
def test_matmul_nbits(bits: int, zero_points: str, run: Any) -> None:
    check_product(matmul_nbits(bits, zero_points, bias=False), run)


def test_matmul_nbits_with_bias(run: Any) -> None:
    check_product(matmul_nbits(4, "packed", bias=True), run)


@pytest.mark.parametrize("zero_points", ["default", "floating"])
def test_matmul_nbits_with_groups(zero_points: str, run: Any) -> None:
    check_product(matmul_nbits(4, zero_points, bias=False, group=True), run)


def test_groups_with_packed_zero_points_are_refused() -> None:
    with pytest.raises(igonnx.UnsupportedOperatorError, match="kernels disagree"):
        igonnx.gradient(matmul_nbits(4, "packed", bias=False, group=True))


@pytest.mark.parametrize("kind", [0, 1], ids=["FP4", "NF4"])
def test_matmul_bnb4(kind: int, run: Any) -> None:
    packed = RNG.integers(0, 256, size=COLUMNS * ROWS // 2, dtype=np.uint8)
    largest = RNG.uniform(0.5, 2, size=COLUMNS * ROWS // 16).astype(np.float32)
    attributes = {"K": COLUMNS, "N": ROWS, "block_size": 16, "quant_type": kind}
    model = one_node("MatMulBnb4", {"x": "fed", "w": packed, "s": largest}, attributes)
    check_product(model, run)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("offset", [False, True])
def test_gather_block_quantized_in_bytes(bits: int, offset: bool, run: Any) -> None:
    width, block = 32, 16
    data = RNG.integers(0, 256, size=(9, width * bits // 8), dtype=np.uint8)
    scales = RNG.uniform(0.1, 0.2, size=(9, width // block)).astype(np.float32)
    zeros = RNG.integers(0, 256, size=(9, width // block * bits // 8), dtype=np.uint8)
    inputs = {"d": data, "i": "ids", "s": scales, "z": zeros if offset else None}
    attributes = {"block_size": block, "bits": bits, "quantize_axis": 1, "gather_axis": 0}
    model = one_node("GatherBlockQuantized", inputs, attributes)
    ids = np.array([[3, 0, 8], [1, 1, 2]])
    (expected,) = run(model, {"i": ids})
    loaded = Model.load(model).clone()
    assert lower(loaded, list(loaded.graph), lambda node: node.domain != "", straight_through=False)
    (lowered,) = run(ir.to_proto(loaded), {"i": ids})
    np.testing.assert_allclose(lowered, expected, rtol=1e-5)


def test_shapes_are_known_behind_packed_weights() -> None:
    model = matmul_nbits(4, "packed", bias=True)
    model.graph.node[0].output[0] = "product"
    model.graph.node.append(helper.make_node("Relu", ["product"], ["y"]))
    shape = Model.load(model).find_tensor("product").shape
    assert shape is not None
    assert shape[1] == ROWS
