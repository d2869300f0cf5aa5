"""Checks the gradient of a whole model along a random line.

Differences of a float32 model drown in rounding where they are small and cross kinks where they are not. So the
model is converted to float64 and evaluated by onnx's reference implementation, with kernels in plain NumPy for the
operators that it computes slowly or in float32; the gradient it is compared with comes from onnxruntime in float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from scipy.special import erf

Array = NDArray[Any]


def runtime(model: onnx.ModelProto) -> ort.InferenceSession:
    """The model in onnxruntime, on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def error_along_a_line(
    gradient_model: onnx.ModelProto,
    feeds: Mapping[str, Array],
    wrt: str,
    rng: np.random.Generator,
    *,
    step: float = 2e-8,
) -> float:
    """Error of `grad_<wrt>` along a random direction, relative to the norm of the gradient.

    `gradient_model` is the result of `igonnx.gradient`, whose inputs other than the cotangent are `feeds`.
    The `step` is so small that hardly ever a kink lies in between.
    """
    session = runtime(gradient_model)
    cotangent_name = next(v.name for v in session.get_inputs() if v.name.startswith("cotangent_"))
    output = cotangent_name.removeprefix("cotangent_")
    precise = ReferenceEvaluator(in_float64(gradient_model, output), new_ops=KERNELS)
    known = set(precise.input_names)
    wide = {name: _wide(array) for name, array in feeds.items() if name in known}
    direction = rng.standard_normal(feeds[wrt].shape)

    def at(position: float) -> Array:
        return precise.run([output], {**wide, wrt: wide[wrt] + position * direction})[0]

    above, below = at(step), at(-step)
    cotangent = rng.standard_normal(above.shape)
    given = {v.name: feeds[v.name] for v in session.get_inputs() if v.name in feeds}
    gradient = session.run(
        [f"grad_{wrt}"], {**given, cotangent_name: cotangent.astype(np.float32)}
    )[0]
    size = np.linalg.norm(gradient)
    assert size > 0
    difference = np.sum((above - below) * cotangent) / (2 * step)
    # A random direction of unit variance sees slopes of the gradient's own norm.
    return float(abs(difference - np.sum(gradient * direction)) / size)


def in_float64(model: onnx.ModelProto, output: str) -> onnx.ModelProto:
    """What `model` needs to compute `output`, in float64: tensors, attributes, casts and inputs."""
    converted = onnx.ModelProto()
    converted.CopyFrom(model)
    graph = converted.graph
    needed, nodes = {output}, []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    for field in ("node", "value_info", "output", "initializer", "input"):
        graph.ClearField(field)
    graph.node.extend(reversed(nodes))
    graph.initializer.extend(_widened(t) for t in model.graph.initializer if t.name in needed)
    graph.input.extend(value for value in model.graph.input if value.name in needed)
    graph.output.extend(value for value in model.graph.output if value.name == output)
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in graph.node:
        if node.op_type == "LayerNormalization":
            del node.output[1:]  # the gradient has switched them on
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                attribute.t.CopyFrom(_widened(attribute.t))
            if (
                node.op_type == "Cast"
                and attribute.name == "to"
                and attribute.i == TensorProto.FLOAT
            ):
                attribute.i = TensorProto.DOUBLE
    return converted


def _widened(tensor: onnx.TensorProto) -> onnx.TensorProto:
    return numpy_helper.from_array(_wide(numpy_helper.to_array(tensor)), tensor.name)


def _wide(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype == np.float32 else array


def _taps(
    x: Array, kernel: tuple[int, ...], strides, pads, dilations, fill: float
) -> Iterator[tuple[Any, Array]]:
    """Per position in the kernel, the elements of `x` [N, C, ...] it meets: [N, C, outputs...]."""
    n = len(kernel)
    strides, dilations, pads = strides or [1] * n, dilations or [1] * n, pads or [0] * (2 * n)
    width = [(0, 0), (0, 0), *zip(pads[:n], pads[n:], strict=True)]
    padded = np.pad(x, width, constant_values=fill) if any(pads) else x
    reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    sizes = [(p - r - 1) // s + 1 for p, r, s in zip(padded.shape[2:], reach, strides, strict=True)]
    for tap in itertools.product(*map(range, kernel)):
        spans = [
            slice(i * d, i * d + (size - 1) * s + 1, s)
            for i, d, s, size in zip(tap, dilations, strides, sizes, strict=True)
        ]
        yield tap, padded[(slice(None), slice(None), *spans)]


class Conv(OpRun):
    op_domain = ""

    def _run(
        self, x, w, b=None, auto_pad=None, dilations=None, group=None, pads=None, strides=None, **_
    ):
        if (auto_pad or "NOTSET") not in ("NOTSET", "VALID"):
            raise NotImplementedError(auto_pad)
        group = group or 1
        total: Any = None
        for tap, met in _taps(x, w.shape[2:], strides, pads, dilations, 0.0):
            weights = w[(slice(None), slice(None), *tap)]
            if weights.shape[1] == 1 and group == len(weights):
                product = met * weights.reshape(-1, *[1] * (met.ndim - 2))
            else:
                grouped = met.reshape(met.shape[0], group, weights.shape[1], -1)
                product = weights.reshape(group, -1, weights.shape[1]) @ grouped
                product = product.reshape(met.shape[0], len(weights), *met.shape[2:])
            total = product if total is None else np.add(total, product, out=total)
        return (total if b is None else total + b.reshape(-1, *[1] * (x.ndim - 2)),)


class MaxPool(OpRun):
    op_domain = ""

    def _run(
        self,
        x,
        kernel_shape=None,
        auto_pad=None,
        ceil_mode=None,
        dilations=None,
        pads=None,
        strides=None,
        **_,
    ):
        if ceil_mode or (auto_pad or "NOTSET") not in ("NOTSET", "VALID"):
            raise NotImplementedError(auto_pad)
        taps = _taps(x, tuple(kernel_shape), strides, pads, dilations, -np.inf)
        largest = next(taps)[1].copy()
        for _, met in taps:
            np.maximum(largest, met, out=largest)
        return (largest,)


class AveragePool(OpRun):
    op_domain = ""

    def _run(
        self,
        x,
        kernel_shape=None,
        auto_pad=None,
        ceil_mode=None,
        count_include_pad=None,
        dilations=None,
        pads=None,
        strides=None,
    ):
        if ceil_mode or (auto_pad or "NOTSET") not in ("NOTSET", "VALID"):
            raise NotImplementedError(auto_pad)
        window = (tuple(kernel_shape), strides, pads, dilations)
        total = sum(met for _, met in _taps(x, *window, 0.0))
        counted = sum(
            met for _, met in _taps(np.ones_like(x), *window, float(bool(count_include_pad)))
        )
        return (total / counted,)


class BatchNormalization(OpRun):
    op_domain = ""

    def _run(self, x, scale, bias, mean, variance, epsilon=None, **_):
        slope = scale / np.sqrt(variance + epsilon)
        shape = (-1, *[1] * (x.ndim - 2))
        return (x * slope.reshape(shape) + (bias - mean * slope).reshape(shape),)


class LayerNormalization(OpRun):
    op_domain = ""

    def _run(self, x, scale, bias=None, axis=None, epsilon=None, **_):
        axes = tuple(range(axis % x.ndim, x.ndim))
        centred = x - x.mean(axis=axes, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=axes, keepdims=True) + epsilon)
        return (centred / deviation * scale + (0 if bias is None else bias),)


class LRN(OpRun):
    op_domain = ""

    def _run(self, x, alpha=None, beta=None, bias=None, size=None):
        squares = np.pad(x * x, [(0, 0), ((size - 1) // 2, size // 2), (0, 0), (0, 0)])
        near = sum(squares[:, i : i + x.shape[1]] for i in range(size))
        return (x / (bias + alpha / size * near) ** beta,)


class Gelu(OpRun):
    op_domain = ""

    def _run(self, x, approximate=None):
        if approximate != "none":
            raise NotImplementedError(approximate)
        return (x * (1 + erf(x / np.sqrt(2))) / 2,)


class Erf(OpRun):
    op_domain = ""

    def _run(self, x):
        return (np.asarray(erf(x)),)


KERNELS = [AveragePool, BatchNormalization, Conv, Erf, Gelu, LayerNormalization, LRN, MaxPool]
