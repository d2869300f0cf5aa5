"""The commonest operators over shapes, attributes and layouts that nobody picked by hand.

Hypothesis draws a node; its gradient along a random line has to be that of central differences in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from directional import error_along_a_line
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel
from rule_cases.check import session, validate
from slopes import STEP, variants

import igonnx

Draw = Callable[[Any], Any]
SIZES = st.integers(1, 5)


@dataclass
class Drawn:
    """A node: what floats go in, which integers are initializers, and its attributes; None: an input left out."""

    shapes: list[tuple[int, ...] | np.ndarray | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    positive: bool = False


def _shape(draw: Draw, least: int = 1, most: int = 4) -> tuple[int, ...]:
    return tuple(draw(st.lists(SIZES, min_size=least, max_size=most)))


def _broadcast(draw: Draw, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts to `shape`."""
    lead = draw(st.integers(0, len(shape)))
    return tuple(1 if draw(st.booleans()) else size for size in shape[lead:])


def _axis(draw: Draw, shape: tuple[int, ...]) -> int:
    return draw(st.integers(-len(shape), len(shape) - 1))


def _conv(draw: Draw) -> Drawn:
    groups, per_group, out = draw(st.integers(1, 2)), draw(SIZES), draw(st.integers(1, 3))
    spatial = draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, 3)) for _ in range(spatial)]
    dilations = [draw(st.integers(1, 2)) for _ in range(spatial)]
    sizes = [d * (k - 1) + draw(st.integers(1, 5)) for k, d in zip(kernel, dilations, strict=True)]
    weights = (groups * out, per_group, *kernel)
    bias = (groups * out,) if draw(st.booleans()) else None
    attributes: dict[str, Any] = {
        "group": groups,
        "dilations": dilations,
        "strides": [draw(st.integers(1, 3)) for _ in range(spatial)],
        "pads": [draw(st.integers(0, 2)) for _ in range(2 * spatial)],
    }
    return Drawn([(draw(SIZES), groups * per_group, *sizes), weights, bias], attributes)


def _pool(draw: Draw) -> Drawn:
    spatial = draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, 3)) for _ in range(spatial)]
    sizes = [k + draw(st.integers(0, 4)) for k in kernel]
    return Drawn(
        [(draw(SIZES), draw(SIZES), *sizes)],
        {
            "kernel_shape": kernel,
            "strides": [draw(st.integers(1, 3)) for _ in range(spatial)],
            "pads": [draw(st.integers(0, k - 1)) for _ in range(2) for k in kernel],
        },
    )


def _average_pool(draw: Draw) -> Drawn:
    drawn = _pool(draw)
    drawn.attributes["count_include_pad"] = draw(st.integers(0, 1))
    return drawn


def _matmul(draw: Draw) -> Drawn:
    n, k, m = (draw(SIZES) for _ in range(3))
    batch = _shape(draw, 0, 2)
    other = _broadcast(draw, batch)
    if draw(st.booleans()):
        batch, other = other, batch
    left = (k,) if draw(st.booleans()) else (*batch, n, k)
    right = (k,) if draw(st.booleans()) else (*other, k, m)
    return Drawn([left, right])


def _gemm(draw: Draw) -> Drawn:
    n, k, m = (draw(SIZES) for _ in range(3))
    a, b = draw(st.integers(0, 1)), draw(st.integers(0, 1))
    bias = draw(st.sampled_from([None, (m,), (1, m), (n, 1), (n, m), (1,), ()]))
    attributes = {"transA": a, "transB": b}
    attributes["alpha"] = draw(st.sampled_from([1.0, 0.5]))
    attributes["beta"] = draw(st.sampled_from([1.0, -2.0]))
    return Drawn([(k, n) if a else (n, k), (m, k) if b else (k, m), bias], attributes)


def _two(draw: Draw) -> Drawn:
    shape = _shape(draw)
    pair = [shape, _broadcast(draw, shape)]
    return Drawn(pair[:: draw(st.sampled_from([1, -1]))])


def _alone(draw: Draw) -> Drawn:
    return Drawn([_shape(draw, 0)])


def _softmax(draw: Draw) -> Drawn:
    shape = _shape(draw)
    return Drawn([shape], {"axis": _axis(draw, shape)})


def _layer_norm(draw: Draw) -> Drawn:
    shape = (*_shape(draw, 0, 3), draw(st.integers(2, 5)))
    axis = _axis(draw, shape)
    inner = shape[axis % len(shape) :]
    bias = inner if draw(st.booleans()) else None
    return Drawn([shape, inner, bias], {"axis": axis, "epsilon": 0.1})


def _batch_norm(draw: Draw) -> Drawn:
    shape = (draw(SIZES), draw(SIZES), *_shape(draw, 0, 2))
    channels = (shape[1],)
    return Drawn([shape, *[channels] * 4], {"epsilon": 0.1}, positive=True)


def _reshape(draw: Draw) -> Drawn:
    shape = _shape(draw)
    target = list(draw(st.permutations(shape)))
    if draw(st.booleans()):
        target[draw(st.integers(0, len(target) - 1))] = -1
    return Drawn([shape, np.array(target)])


def _transpose(draw: Draw) -> Drawn:
    shape = _shape(draw)
    return Drawn([shape], {"perm": list(draw(st.permutations(range(len(shape)))))})


def _concat(draw: Draw) -> Drawn:
    shape = _shape(draw)
    axis = _axis(draw, shape)
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        part = list(shape)
        part[axis] = draw(SIZES)
        parts.append(tuple(part))
    return Drawn(list(parts), {"axis": axis})


def _slice(draw: Draw) -> Drawn:
    shape = _shape(draw)
    axes = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    starts, ends, steps = [], [], []
    for axis in axes:
        step = draw(st.sampled_from([1, 2, 3, -1, -2]))
        first, last = sorted(draw(st.integers(0, shape[axis] - 1)) for _ in range(2))
        starts.append(first if step > 0 else last)
        # One past the end, in the direction of the step; before the front: a number far below it.
        ends.append(last + 1 if step > 0 else (first - 1 if first else -99))
        steps.append(step)
    return Drawn([shape, *(np.array(part) for part in (starts, ends, axes, steps))])


def _gather(draw: Draw) -> Drawn:
    shape = _shape(draw)
    axis = _axis(draw, shape)
    size = shape[axis]
    wanted = draw(st.lists(st.integers(-size, size - 1), min_size=1, max_size=6))
    indices = np.array(wanted)
    if draw(st.booleans()):
        indices = indices.reshape(1, -1)
    return Drawn([shape, indices if draw(st.booleans()) else np.array(wanted[0])], {"axis": axis})


def _split(draw: Draw) -> Drawn:
    shape = list(_shape(draw))
    axis = _axis(draw, tuple(shape))
    parts = [draw(SIZES) for _ in range(draw(st.integers(1, 3)))]
    shape[axis] = sum(parts)
    return Drawn([tuple(shape), np.array(parts)], {"axis": axis}, outputs=len(parts))


def _reduce_mean(draw: Draw) -> Drawn:
    shape = _shape(draw)
    axes = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    signed = [axis - len(shape) if draw(st.booleans()) else axis for axis in axes]
    return Drawn([shape], {"axes": signed, "keepdims": draw(st.integers(0, 1))})


def _resize(draw: Draw) -> Drawn:
    shape = (draw(SIZES), draw(SIZES), draw(st.integers(2, 5)), draw(st.integers(2, 5)))
    sizes = np.array([*shape[:2], draw(st.integers(1, 8)), draw(st.integers(1, 8))])
    mode = draw(st.sampled_from(["nearest", "linear", "cubic"]))
    transform = draw(
        st.sampled_from(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
    )
    if transform == "pytorch_half_pixel":
        # What one pixel is made of, ONNX's reference implementation takes from elsewhere than the runtime.
        sizes = np.maximum(sizes, np.array([1, 1, 2, 2]))
    attributes = {"mode": mode, "coordinate_transformation_mode": transform}
    return Drawn([shape, None, None, sizes], attributes)


def _pad(draw: Draw) -> Drawn:
    shape = tuple(draw(st.lists(st.integers(2, 5), min_size=1, max_size=3)))
    mode = draw(st.sampled_from(["constant", "reflect", "edge"]))
    least = -1 if mode == "constant" else 0
    pads = [draw(st.integers(least, size - 1)) for _ in range(2) for size in shape]
    for axis, size in enumerate(shape):  # something is left
        if size + pads[axis] + pads[axis + len(shape)] < 1:
            pads[axis] = 0
    return Drawn([shape, np.array(pads)], {"mode": mode})


def _clip(draw: Draw) -> Drawn:
    low, high = (draw(st.booleans()) for _ in range(2))
    bounds = [np.array(-0.4) if low else None, np.array(0.3) if high else None]
    return Drawn([_shape(draw, 0), *bounds])


def _where(draw: Draw) -> Drawn:
    shape = _shape(draw)
    condition = np.array(draw(st.lists(st.booleans(), min_size=shape[-1], max_size=shape[-1])))
    return Drawn([condition, shape, _broadcast(draw, shape)])


OPERATORS: dict[str, Callable[[Draw], Drawn]] = {
    "Add": _two,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Gather": _gather,
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Mul": _two,
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "Relu": _alone,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Transpose": _transpose,
    "Where": _where,
}


def _model(operator: str, drawn: Drawn, dtype: int) -> onnx.ModelProto:
    """The node, and a product behind it, so that its gradient is not the same everywhere."""
    inputs, stored, names = [], [], []
    for i, given_shape in enumerate(drawn.shapes):
        names.append("" if given_shape is None else f"x{i}")
        if isinstance(given_shape, tuple):
            inputs.append(helper.make_tensor_value_info(f"x{i}", dtype, given_shape))
        elif given_shape is not None:
            floating = given_shape.dtype.kind == "f"
            held = (
                given_shape.astype(helper.tensor_dtype_to_np_dtype(dtype))
                if floating
                else given_shape
            )
            stored.append(numpy_helper.from_array(held, f"x{i}"))
    outputs = [f"y{i}" for i in range(drawn.outputs)]
    nodes = [
        helper.make_node(operator, names, outputs, **drawn.attributes),
        helper.make_node("Mul", [outputs[-1], outputs[-1]], ["z"]),
    ]
    output = helper.make_empty_tensor_value_info("z")
    graph = helper.make_graph(nodes, "drawn", inputs, [output], stored)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(proto)
    graph.output[0].CopyFrom(inferred.graph.output[0])
    proto.graph.output[0].CopyFrom(inferred.graph.output[0])
    return proto


def _feeds(drawn: Drawn, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Numbers that are all different, and none of which is near zero or a bound of a Clip."""
    feeds = {}
    for i, shape in enumerate(drawn.shapes):
        if isinstance(shape, tuple):
            count = int(np.prod(shape))
            array = (rng.permutation(count) + rng.uniform(0.3, 0.7)) / count * 2 - 1
            feeds[f"x{i}"] = np.asarray(array * 0.95 + 0.013).reshape(shape)
            if drawn.positive and i:
                feeds[f"x{i}"] = np.abs(feeds[f"x{i}"]) + 0.5
    return feeds


@pytest.mark.parametrize("operator", OPERATORS)
def test_gradient_is_the_slope(operator):
    @settings(
        max_examples=20,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(data=st.data(), seed=st.integers(0, 2**16))
    def run(data: st.DataObject, seed: int) -> None:
        drawn = OPERATORS[operator](data.draw)
        note(f"{operator}: {drawn}")
        _check(operator, drawn, np.random.default_rng(seed))

    run()


def _check(operator: str, drawn: Drawn, rng: np.random.Generator) -> None:
    feeds = _feeds(drawn, rng)
    proto = _model(operator, drawn, TensorProto.DOUBLE)
    try:
        forward = session(proto)
    except NoKernel:
        _check_in_float32(_model(operator, drawn, TensorProto.FLOAT), feeds, rng)
        return
    (z,) = forward.run(["z"], feeds)
    cotangent = np.asarray(rng.standard_normal(z.shape))
    directions = {name: np.asarray(rng.standard_normal(a.shape)) for name, a in feeds.items()}

    def slope(name: str) -> float:
        ends = [
            forward.run(
                ["z"], {**feeds, name: np.asarray(feeds[name] + sign * STEP * directions[name])}
            )[0]
            for sign in (1, -1)
        ]
        return float(np.sum((ends[0] - ends[1]) * cotangent)) / (2 * STEP)

    slopes = {name: slope(name) for name in feeds}
    for layout, variant in variants(proto):
        if layout == "named":
            continue
        result = igonnx.gradient(variant, wrt=list(feeds))
        validate(result)
        try:
            runtime = session(result)
        except NoKernel:  # what goes forward in float64 may not go back in it
            _check_in_float32(_model(operator, drawn, TensorProto.FLOAT), feeds, rng)
            return
        found = runtime.run([f"grad_{name}" for name in feeds], {**feeds, "cotangent_z": cotangent})
        for (name, array), gradient in zip(feeds.items(), found, strict=True):
            assert gradient.shape == array.shape
            size = max(1.0, float(np.linalg.norm(gradient)))
            error = abs(float(np.sum(gradient * directions[name])) - slopes[name])
            assert error < 1e-6 * size, (layout, name, error)


def _check_in_float32(
    proto: onnx.ModelProto, feeds: dict[str, np.ndarray], rng: np.random.Generator
) -> None:
    narrow = {name: array.astype(np.float32) for name, array in feeds.items()}
    for layout, variant in variants(proto):
        if layout == "named":
            continue
        result = igonnx.gradient(variant, wrt=list(feeds))
        validate(result)
        runtime = session(result)
        (z,) = session(proto).run(["z"], narrow)
        zero = {**narrow, "cotangent_z": np.ones_like(z)}
        for name in feeds:
            (gradient,) = runtime.run([f"grad_{name}"], zero)
            assert gradient.shape == feeds[name].shape
            if np.linalg.norm(gradient) > 1e-3:
                assert error_along_a_line(result, narrow, name, rng, step=1e-6) < 1e-3
