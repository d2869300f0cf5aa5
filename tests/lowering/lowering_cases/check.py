"""Compares the lowered form of a node with onnxruntime's own kernel, and its gradient with differences.

Differences are those of the lowered form in float64, which the first comparison has shown to mean the same; where
onnxruntime lacks float64 kernels, those of the node itself in float32 by a wide step.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidGraph
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

import igonnx
from igonnx.lowering.apply import lower
from igonnx.lowering.registry import find
from igonnx.model import Model
from lowering_cases.case import Case, as_dtype

Arrays = Mapping[str, NDArray[Any]]


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """The model in onnxruntime as it stands, without any optimisation."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def lowered(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` without any operator that has a lowering."""
    copy = Model.load(model).clone()
    lower(copy, list(copy.graph), lambda node: find(node) is not None, straight_through=False)
    left = [node.op_type for node in copy.graph.all_nodes() if find(node) is not None]
    assert not left, f"not lowered: {left}"
    return ir.to_proto(copy)


def check(case: Case, opset: int, seed: int) -> None:
    """Raise AssertionError where the lowered form of `case`, or its gradient, is not what the node computes."""
    seed = seed if case.seed is None else case.seed
    rng = np.random.default_rng([seed, zlib.crc32(f"{case.operator}-{case.label}".encode())])
    arrays = case.draw(rng)
    feeds = _feeds(case, arrays, np.float32)
    expected = _expected(case, arrays, feeds, opset)
    names = [f"y{i}" for i, used in enumerate(case.outputs) if used]
    ranks = {name: expected[min(i, len(expected) - 1)].ndim for i, name in enumerate(names)}
    for static in (True, False):
        model = case.model(arrays, np.float32, opset, static=static, ranks=ranks)
        actual = session(lowered(model)).run(None, feeds)
        for number, (one, other) in enumerate(zip(actual, expected, strict=False)):
            assert one.shape == other.shape, f"output {number}: {one.shape}, not {other.shape}"
            assert one.dtype == other.dtype, f"output {number}: {one.dtype}, not {other.dtype}"
            if one.dtype == object:
                assert one.tolist() == other.tolist()
                continue
            np.testing.assert_allclose(
                one, other, rtol=case.tolerance, atol=case.tolerance, err_msg=f"output {number}"
            )
        if case.differentiable and case.explained:
            twin = case.model(arrays, np.float64, opset, static=True, ranks=ranks)
            _check_gradient(case, model, twin, arrays, rng)


def _expected(case: Case, arrays: Arrays, feeds: Arrays, opset: int) -> list[Any]:
    if case.kernel:
        node = case.model(arrays, np.float32, opset, static=True)
        return session(node).run(None, dict(feeds))
    given = [arrays.get(f"x{i}") for i in range(len(case.inputs))]
    return [np.asarray(case.expected(*given), np.float32)]


def _feeds(case: Case, arrays: Arrays, dtype: Any) -> dict[str, NDArray[Any]]:
    return {
        f"x{i}": as_dtype(arrays[f"x{i}"], dtype)
        for i, given in enumerate(case.inputs)
        if given and not given.held
    }


def _check_gradient(
    case: Case,
    model: onnx.ModelProto,
    twin: onnx.ModelProto,
    arrays: Arrays,
    rng: np.random.Generator,
) -> None:
    output = f"y{case.explained_output}"
    run, dtype, step, tolerance = _oracle(model, twin, output)
    if case.types.get(case.explained_output) == np.float32:
        # The result is float32 whatever the inputs are.
        step, tolerance = max(step, 1e-3), max(tolerance, 5e-4)
    tolerance = case.slope or tolerance
    feeds = _feeds(case, arrays, dtype)
    cotangent = rng.standard_normal(run(feeds).shape)
    graph = igonnx.gradient(model, wrt=case.explained, output=output)
    narrow = _feeds(case, arrays, np.float32)
    narrow[f"cotangent_{output}"] = cotangent.astype(np.float32)
    names = [f"grad_{name}" for name in case.explained]
    gradients = dict(zip(case.explained, session(graph).run(names, narrow), strict=True))
    for name in case.explained:
        assert gradients[name].shape == arrays[name].shape
        direction = rng.standard_normal(arrays[name].shape)
        ahead, behind = (
            run({**feeds, name: np.asarray(arrays[name] + s * step * direction, dtype)}) * cotangent
            for s in (1, -1)
        )
        difference = (ahead - behind).sum() / (2 * step)
        slope = (gradients[name] * direction).sum()
        size = np.abs(gradients[name] * direction).sum() + np.abs(ahead).max()
        assert abs(slope - difference) <= tolerance * max(size, 1e-3), (
            f"{name}: slope {slope}, by differences {difference}"
        )


def _oracle(
    model: onnx.ModelProto, twin: onnx.ModelProto, output: str
) -> tuple[Callable[[Arrays], NDArray[np.float64]], Any, float, float]:
    """The lowered node as a function, the dtype to feed it, the step of differences and what they may be off."""
    try:
        runtime = session(lowered(twin))
        dtype, step, tolerance = np.float64, 1e-5, 1e-4
    except (NoKernel, InvalidGraph):
        runtime = session(lowered(model))
        dtype, step, tolerance = np.float32, 1e-2, 1e-3

    def run(feeds: Arrays) -> NDArray[np.float64]:
        return runtime.run([output], dict(feeds))[0].astype(np.float64)

    return run, dtype, step, tolerance
