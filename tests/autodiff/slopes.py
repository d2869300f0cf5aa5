"""Compares every gradient of a small model with central differences, in float64, by onnxruntime.

A model is written once, with static shapes; it is checked as it is, with each size replaced by a symbol, and with
nothing known but the number of axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray
from rule_cases.check import session, validate

import igonnx

Array = NDArray[Any]
STEP = 1e-5
# Differences of order STEP**2 times a third derivative, and float64's epsilon over STEP.
TOLERANCE = 2e-7


def parse(text: str, *, opset: int = 17, **initializers: Array) -> onnx.ModelProto:
    """A model from ONNX's text form, "(inputs) => (outputs) { nodes }"."""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> main {text}')
    for name, array in initializers.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


def check(
    proto: onnx.ModelProto,
    feeds: Mapping[str, Array],
    *,
    wrt: Sequence[str] | None = None,
    output: str | None = None,
    layouts: Sequence[str] = ("static", "named", "unnamed"),
    tolerance: float = TOLERANCE,
) -> None:
    """Raise AssertionError where a gradient of `proto` is not that of differences at `feeds`.

    By default, of its first output with respect to all floating inputs.
    """
    onnx.checker.check_model(proto)
    output = output or proto.graph.output[0].name
    filled = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value.name for value in proto.graph.input if value.name not in filled]
    names = list(wrt or [name for name in inputs if feeds[name].dtype == np.float64])
    runtime = session(proto)
    (y,) = runtime.run([output], dict(feeds))
    cotangent = np.random.default_rng(3).standard_normal(y.shape)
    expected = {
        name: differences(
            lambda changed: runtime.run([output], {**feeds, **changed})[0], feeds, name, cotangent
        )
        for name in names
    }
    for layout, variant in variants(proto):
        if layout not in layouts:
            continue
        result = igonnx.gradient(variant, wrt=names, output=output)
        validate(result)
        given = session(result).run(
            [output, *(f"grad_{name}" for name in names)],
            {**feeds, f"cotangent_{output}": cotangent},
        )
        np.testing.assert_allclose(given[0], y, rtol=1e-12, atol=1e-12, err_msg=f"{layout} output")
        for name, gradient in zip(names, given[1:], strict=True):
            assert gradient.shape == feeds[name].shape, f"{layout} {name}: {gradient.shape}"
            scale = max(1.0, float(np.max(np.abs(expected[name]), initial=0.0)))
            np.testing.assert_allclose(
                gradient,
                expected[name],
                rtol=0,
                atol=tolerance * scale,
                err_msg=f"{layout} gradient of {name}",
            )


def differences(run: Any, feeds: Mapping[str, Array], name: str, cotangent: Array) -> Array:
    """d sum(run({name: array}) * cotangent) / d feeds[name], element by element."""
    gradient = np.zeros(feeds[name].shape)
    for index in np.ndindex(gradient.shape):
        ends = []
        for sign in (1, -1):
            moved = feeds[name].copy()
            moved[index] += sign * STEP
            ends.append(np.sum(run({name: moved}) * cotangent))
        gradient[index] = (ends[0] - ends[1]) / (2 * STEP)
    return gradient


def variants(proto: onnx.ModelProto) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The model as it is; with sizes that are symbols, the same for the same size; and with unnamed ones."""
    yield "static", proto
    for layout in ("named", "unnamed"):
        variant = onnx.ModelProto()
        variant.CopyFrom(proto)
        for value in [*variant.graph.input, *variant.graph.output]:
            for dim in value.type.tensor_type.shape.dim:
                if layout == "unnamed":
                    dim.Clear()
                elif dim.HasField("dim_value"):
                    dim.dim_param = f"size{dim.dim_value}"
        yield layout, variant
