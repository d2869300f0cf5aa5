"""Compares the gradient graph of a case with central differences of the operator itself.

The differences are of sum(output * cotangent), computed by onnxruntime in float64. Where it has no such kernel: by
onnxruntime in float32 with a step of one for what is linear in the explained inputs (rounding is the only error), by
the case's own formula, or by onnx's reference implementation, whose output has to agree with onnxruntime's float32.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidGraph
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

import igonnx
from rule_cases.case import OUTPUT, Case, Layout, as_dtype, options

Arrays = Mapping[str, NDArray[Any]]
STEP = 1e-5
# Differences of order STEP**2 times a third derivative, and float64's epsilon over STEP.
TOLERANCE = {np.float64: 1e-6, np.float32: 4e-5}


@dataclass(frozen=True)
class Oracle:
    """What a case should give for one draw of inputs."""

    arrays: Arrays
    output: NDArray[Any]
    cotangent: NDArray[np.float64]
    gradients: Arrays
    precise: bool  # whether onnxruntime computes the operator in float64


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """The model in onnxruntime."""
    return ort.InferenceSession(
        model.SerializeToString(), options(), providers=["CPUExecutionProvider"]
    )


def check(case: Case, opset: int, seed: int) -> None:
    """Raise AssertionError where the gradient of `case` is not that of its differences."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{case.operator}-{case.label}".encode())])
    oracle = _oracle(case, opset, rng)
    for layout in case.layouts:
        _compare(case, opset, oracle, layout, case.explained)
    if len(case.explained) > 1:
        for name in case.explained:
            others = [other for other in case.explained if other != name]
            _compare(case, opset, oracle, case.layouts[-1], [name])
            _compare(case, opset, oracle, case.layouts[0], [name], constants=others)


def _oracle(case: Case, opset: int, rng: np.random.Generator) -> Oracle:
    arrays = case.draw(rng)
    run, dtype, precise, step = _forward(case, opset, arrays)
    feeds = {name: as_dtype(arrays[name], dtype) for name in _fed(case)}
    output = run(feeds)
    cotangent = rng.standard_normal(output.shape)
    gradients = {name: _differences(run, feeds, name, cotangent, step) for name in case.explained}
    return Oracle(arrays, output, cotangent, gradients, precise)


def _forward(
    case: Case, opset: int, arrays: Arrays
) -> tuple[Callable[[Arrays], NDArray[Any]], Any, bool, float]:
    """The operator as a function, the dtype to feed it, whether that is onnxruntime's float64, and the step."""
    model = case.model(arrays, opset=opset, dtype=np.float64)
    try:
        runtime = session(model)
    except (NoKernel, InvalidGraph):  # an operator not defined for float64 makes the graph invalid
        if case.linear:
            runtime = session(case.model(arrays, opset=opset, dtype=np.float32))
            return lambda feeds: runtime.run([OUTPUT], dict(feeds))[0], np.float32, False, 1.0
        if case.formula is not None:
            formula, given = case.formula, [name for name in arrays if name not in _fed(case)]
            held = {name: arrays[name] for name in given}
            return lambda feeds: _apply(formula, {**held, **feeds}, case), np.float64, False, STEP
        evaluator = ReferenceEvaluator(model)
        return lambda feeds: evaluator.run([OUTPUT], dict(feeds))[0], np.float64, False, STEP
    return lambda feeds: runtime.run([OUTPUT], dict(feeds))[0], np.float64, True, STEP


def _apply(formula: Callable[..., Any], arrays: Arrays, case: Case) -> NDArray[Any]:
    names = [f"x{i}" for i, given in enumerate(case.inputs) if given is not None]
    return np.asarray(formula(*(arrays[name] for name in names), **case.attributes))


def _fed(case: Case) -> list[str]:
    return [f"x{i}" for i, given in enumerate(case.inputs) if given and given.role != "held"]


def _differences(
    run: Callable[[Arrays], NDArray[Any]],
    feeds: Arrays,
    name: str,
    cotangent: NDArray[np.float64],
    step: float,
) -> NDArray[np.float64]:
    """d sum(output * cotangent) / d feeds[name], element by element."""
    gradient = np.zeros(feeds[name].shape)
    for index in np.ndindex(gradient.shape):
        ends = []
        for sign in (1, -1):
            moved = feeds[name].copy()
            moved[index] += sign * step
            ends.append((moved[index], run({**feeds, name: moved}).astype(np.float64)))
        (high, above), (low, below) = ends
        gradient[index] = np.sum((above - below) * cotangent) / (float(high) - float(low))
    return gradient


def _compare(
    case: Case,
    opset: int,
    oracle: Oracle,
    layout: Layout,
    wrt: Sequence[str],
    constants: Sequence[str] = (),
) -> None:
    where = f"{case.operator} {case.label}, opset {opset}, {layout} shapes, wrt {wrt}, constants {constants}"
    for dtype in (np.float64, np.float32) if oracle.precise else (np.float32,):
        model = case.model(
            oracle.arrays,
            opset=opset,
            dtype=dtype,
            layout=layout,
            constants=constants,
            output=oracle.output.shape,
        )
        proto = igonnx.gradient(model, wrt=wrt)
        validate(proto)
        try:
            runtime = session(proto)
            break
        except NoKernel:
            # The backward pass may need a kernel that exists in float32 only.
            if dtype is np.float32:
                raise
    feeds = {
        name: as_dtype(oracle.arrays[name], dtype) for name in _fed(case) if name not in constants
    }
    feeds[f"cotangent_{OUTPUT}"] = oracle.cotangent.astype(dtype)
    names = [value.name for value in runtime.get_outputs()]
    results = dict(zip(names, runtime.run(None, feeds), strict=True))
    tolerance = max(TOLERANCE[dtype], case.tolerance)
    _close(results[OUTPUT], oracle.output, max(tolerance, 1e-5), f"{where}: output")
    for name in wrt:
        given = results[f"grad_{name}"]
        if given.dtype != dtype or given.shape != oracle.gradients[name].shape:
            raise AssertionError(
                f"{where}: gradient is {given.dtype} {given.shape}, "
                f"expected {np.dtype(dtype)} {oracle.gradients[name].shape}"
            )
        _close(given, oracle.gradients[name], tolerance, f"{where}: gradient of {name}")


def validate(proto: onnx.ModelProto) -> None:
    """Raise unless the graph passes the full check and holds standard operators only."""
    onnx.checker.check_model(proto, full_check=True)
    domains = {node.domain for node in proto.graph.node} - {"", "ai.onnx"}
    if domains or proto.functions:
        raise AssertionError(
            f"not standard ONNX: domains {domains}, {len(proto.functions)} functions"
        )


def _close(given: NDArray[Any], expected: NDArray[Any], tolerance: float, what: str) -> None:
    scale = max(1.0, float(np.max(np.abs(expected), initial=0.0)))
    np.testing.assert_allclose(given, expected, rtol=0, atol=tolerance * scale, err_msg=what)
