"""Models of opset 1 to 16 compute the same after they are brought to opset 17."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from scipy.special import expit

import igonnx
from igonnx.model import MINIMUM_OPSET, Model
from igonnx.upgrade.adapter import registered

Arrays = dict[str, Any]
Formula = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """A model in ONNX's text form; its results are those of ONNX Runtime, or for opset < 7 of a formula."""

    name: str
    opset: int
    text: str  # "(float[2, 3] x) => (float[2, 3] y) { ... }"
    weights: Mapping[str, Any] = field(default_factory=dict)
    formula: Formula | None = None  # of the inputs, in order
    low: float = -2.0

    def proto(self) -> onnx.ModelProto:
        header = f'<ir_version: 8, opset_import: ["": {self.opset}]> main '
        proto = onnx.parser.parse_model(header + self.text)
        for name, value in self.weights.items():
            proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return proto

    def feeds(self) -> Arrays:
        rng = np.random.default_rng(len(self.text))
        feeds = {}
        for value in self.proto().graph.input:
            kind = value.type.tensor_type
            shape = [dim.dim_value or 2 for dim in kind.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
            drawn = rng.uniform(self.low, 2, size=shape)
            feeds[value.name] = (drawn > 0) if dtype == np.bool_ else drawn.astype(dtype)
        return feeds

    def expected(self) -> list[Any]:
        feeds = self.feeds()
        if self.formula is not None:
            found = self.formula(*feeds.values())
            return list(found) if isinstance(found, tuple) else [found]
        return _run(self.proto(), feeds)


def _broadcast(operator: str, opset: int, shape: str, attributes: str, aligned: Any) -> Case:
    text = f"(float[2, 3, 4] a, float[{shape}] b) => (float[2, 3, 4] y) {{ y = {operator}<{attributes}>(a, b) }}"
    compute = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}[operator]
    return Case(
        f"{operator}-{opset}-{shape}-{attributes}",
        opset,
        text,
        formula=lambda a, b: compute(a, b.reshape(aligned)),
        low=0.5,
    )


def _logical(operator: str, compute: Formula) -> Case:
    kind = "bool" if operator in ("And", "Or", "Xor") else "float"
    if operator == "Equal":
        kind = "int64"
    text = f"({kind}[3, 4] a, {kind}[3] b) => (bool[3, 4] y) {{ y = {operator}<broadcast = 1, axis = 0>(a, b) }}"
    return Case(f"{operator}-1", 6, text, formula=lambda a, b: compute(a, b[:, None]))


def _soft(operator: str, opset: int, axis: str) -> Case:
    text = f"(float[2, 3, 4] x) => (float[2, 3, 4] y) {{ y = {operator}{axis}(x) }}"
    return Case(f"{operator}-{opset}{axis}", opset, text)


def _normalised(x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
    return (x - mean) / np.sqrt(variance + 1e-5) * scale + bias


_MEANS = "float[3] s, float[3] b, float[3] m, float[3] v"
_CHANNEL = (slice(None), None, None)

BROADCASTS = [
    _broadcast("Add", 6, "4", "broadcast = 1", (4,)),
    _broadcast("Sub", 6, "3", "broadcast = 1, axis = 1", (3, 1)),
    _broadcast("Mul", 6, "2", "broadcast = 1, axis = 0", (2, 1, 1)),
    _broadcast("Div", 6, "2, 3", "broadcast = 1, axis = 0", (2, 3, 1)),
    _broadcast("Mul", 1, "3", "broadcast = 1, axis = 1, consumed_inputs = [0, 0]", (3, 1)),
    _broadcast("Add", 6, "3", "broadcast = 1, axis = -2", (3, 1)),
    _broadcast("Sub", 6, "2, 3, 4", "broadcast = 0", (2, 3, 4)),
    Case(
        "Pow-1",
        6,
        "(float[2, 3, 4] a, float[2] b) => (float[2, 3, 4] y) { y = Pow<broadcast = 1, axis = 0>(a, b) }",
        formula=lambda a, b: a ** b.reshape(2, 1, 1),
        low=0.5,
    ),
    _logical("And", np.logical_and),
    _logical("Or", np.logical_or),
    _logical("Xor", np.logical_xor),
    _logical("Greater", np.greater),
    _logical("Less", np.less),
    _logical("Equal", np.equal),
    Case(
        "PRelu-6",
        6,
        "(float[2, 3, 4, 5] x, float[3] s) => (float[2, 3, 4, 5] y) { y = PRelu(x, s) }",
        formula=lambda x, s: np.where(x < 0, x * s[_CHANNEL], x),
    ),
    Case(
        "PRelu-6-one",
        6,
        "(float[2, 3] x, float[1] s) => (float[2, 3] y) { y = PRelu(x, s) }",
        formula=lambda x, s: np.where(x < 0, x * s, x),
    ),
]

ACTIVATIONS = [
    Case(
        "Selu-1",
        5,
        "(float[2, 3] x) => (float[2, 3] y) { y = Selu<consumed_inputs = [0]>(x) }",
        formula=lambda x: 1.0507 * np.where(x > 0, x, 1.6732 * (np.exp(x) - 1)),
    ),
    *[
        Case(
            f"Clip-{opset}{bounds}",
            opset,
            f"(float[2, 9] x) => (float[2, 9] y) {{ y = Clip{bounds}(x) }}",
        )
        for opset in (7, 10)
        for bounds in ("", "<min = -1.0>", "<max = 0.5>", "<min = -0.5, max = 1.0>")
    ],
    Case(
        "Clip-6-double",
        10,
        "(double[9] x) => (double[9] y) { y = Clip<min = -1.0, max = 0.5>(x) }",
        formula=lambda x: x.clip(-1, 0.5),
    ),
    Case(
        "Clip-6-half",
        7,
        "(float16[9] x) => (float16[9] y) { y = Clip<min = -1.0, max = 100000.0>(x) }",
        formula=lambda x: x.clip(-1),
    ),
    Case(
        "Clip-1",
        5,
        "(float[9] x) => (float[9] y) { y = Clip<max = 0.5, consumed_inputs = [0]>(x) }",
        formula=lambda x: np.minimum(x, 0.5),
    ),
    Case(
        "Cast-1",
        5,
        '(float[9] x) => (int64[9] y) { y = Cast<to = "INT64">(x) }',
        formula=lambda x: x.astype(np.int64),
    ),
    Case(
        "experimental",
        8,
        """(float[2, 3, 4, 5] x) => (float[2, 3, 4, 5] y) {
            a = Affine<alpha = 2.0, beta = 0.5>(x)
            b = ScaledTanh<alpha = 0.5, beta = 2.0>(a)
            c = Scale<scale = 3.0>(b)
            d = ParametricSoftplus<alpha = 0.7, beta = 1.5>(c)
            y = ImageScaler<scale = 1.5, bias = [0.1, 0.2, 0.3]>(d)
        }""",
        formula=lambda x: (
            1.5 * 0.7 * np.log(np.exp(1.5 * 3 * 0.5 * np.tanh(2 * (2 * x + 0.5))) + 1)
            + np.array([0.1, 0.2, 0.3])[_CHANNEL]
        ),
    ),
]

SHAPES = [
    Case(
        "Reshape-1",
        4,
        "(float[2, 3] x) => (float[3, 2] y) { y = Reshape<shape = [3, -1]>(x) }",
        formula=lambda x: x.reshape(3, 2),
    ),
    Case(
        "Concat-1",
        3,
        "(float[2, 3] a, float[2, 2] b) => (float[2, 5] y) { y = Concat(a, b) }",
        formula=lambda a, b: np.concatenate([a, b], 1),
    ),
    Case("Squeeze-1", 9, "(float[1, 3, 1] x) => (float[3, 1] y) { y = Squeeze<axes = [0]>(x) }"),
    Case("Squeeze-11-all", 12, "(float[1, 3, 1] x) => (float[3] y) { y = Squeeze(x) }"),
    Case(
        "Unsqueeze-11",
        11,
        "(float[3] x) => (float[1, 3, 1] y) { y = Unsqueeze<axes = [0, -1]>(x) }",
    ),
    Case(
        "ReduceSum-11",
        12,
        """(float[2, 3, 4] x) => (float[2, 1, 1] y, float[2, 4] z, float[1, 1, 1] w) {
            y = ReduceSum<axes = [-1, 1]>(x)
            z = ReduceSum<axes = [1], keepdims = 0>(x)
            w = ReduceSum(x)
        }""",
    ),
    Case(
        "Split-2",
        9,
        "(float[4, 6] x) => (float[4, 3] y, float[4, 3] z) { y, z = Split<axis = 1>(x) }",
    ),
    Case(
        "Split-11",
        12,
        "(float[4, 6] x) => (float[4, 1] y, float[4, 5] z) { y, z = Split<axis = -1, split = [1, 5]>(x) }",
    ),
    Case(
        "Split-1-input",
        1,
        "(float[4, 6] x) => (float[1, 6] y, float[3, 6] z) { y, z = Split<axis = 0>(x, s) }",
        {"s": np.array([1, 3], np.float32)},
        formula=lambda x: (x[:1], x[1:]),
    ),
    Case(
        "Tile-1",
        5,
        "(float[2, 3] x) => (float[2, 6] y) { y = Tile(x, n, axis) }",
        {"n": np.float32(2), "axis": np.float32(1)},
        formula=lambda x: np.tile(x, (1, 2)),
    ),
    Case(
        "Pad-2",
        10,
        "(float[2, 3] x) => (float[3, 6] y) { y = Pad<pads = [1, 1, 0, 2], value = 1.5>(x) }",
    ),
    Case(
        "Pad-2-reflect",
        10,
        '(float[2, 3] x) => (float[3, 6] y) { y = Pad<pads = [1, 1, 0, 2], mode = "reflect">(x) }',
    ),
    Case(
        "Pad-1",
        1,
        "(float[2, 3] x) => (float[3, 6] y) { y = Pad<paddings = [1, 1, 0, 2]>(x) }",
        formula=lambda x: np.pad(x, ((1, 0), (1, 2))),
    ),
    Case(
        "Slice-1",
        9,
        """(float[4, 5] x) => (float[3, 2] y, float[2, 5] z) {
            y = Slice<axes = [0, 1], starts = [1, -3], ends = [2147483647, -1]>(x)
            z = Slice<starts = [2], ends = [4]>(x)
        }""",
    ),
    Case(
        "TopK-1", 9, "(float[4, 5] x) => (float[4, 2] y, int64[4, 2] i) { y, i = TopK<k = 2>(x) }"
    ),
    Case(
        "TopK-10",
        10,
        "(float[4, 5] x) => (float[3, 5] y, int64[3, 5] i) { y, i = TopK<axis = 0>(x, k) }",
        {"k": [3]},
    ),
    Case(
        "Scatter-9",
        9,
        "(float[3, 3] x, float[1, 3] u) => (float[3, 3] y) { y = Scatter(x, i, u) }",
        {"i": np.array([[0, 2, 1]])},
    ),
]

LAYERS = [
    *[
        _soft(operator, opset, axis)
        for operator in ("Softmax", "LogSoftmax", "Hardmax")
        for opset, axis in (
            (9, ""),
            (9, "<axis = 0>"),
            (9, "<axis = 2>"),
            (12, "<axis = -1>"),
            (12, "<axis = -2>"),
        )
    ],
    Case("Softmax-ones", 9, "(float[2, 5, 1, 1] x) => (float[2, 5, 1, 1] y) { y = Softmax(x) }"),
    Case(
        "BatchNormalization-7",
        7,
        f"(float[2, 3, 4, 5] x, {_MEANS}) => (float[2, 3, 4, 5] y) {{ y = BatchNormalization(x, s, b, m, v) }}",
        low=0.5,
    ),
    Case(
        "BatchNormalization-1",
        5,
        f"""(float[2, 3, 4, 5] x, {_MEANS}) => (float[2, 3, 4, 5] y) {{
            y = BatchNormalization<is_test = 1, consumed_inputs = [0, 0, 0, 1, 1]>(x, s, b, m, v)
        }}""",
        formula=lambda x, *others: _normalised(x, *(other[_CHANNEL] for other in others)),
        low=0.5,
    ),
    Case(
        "BatchNormalization-7-per-activation",
        7,
        """(float[2, 3, 4] x, float[3, 4] s, float[3, 4] b, float[3, 4] m, float[3, 4] v) => (float[2, 3, 4] y) {
            y = BatchNormalization<spatial = 0>(x, s, b, m, v)
        }""",
        formula=_normalised,
        low=0.5,
    ),
    Case(
        "BatchNormalization-9-training",
        9,
        f"""(float[2, 3, 4, 5] x, {_MEANS}) => (float[2, 3, 4, 5] y, float[3] p, float[3] q) {{
            y, p, q, t, u = BatchNormalization<momentum = 0.8>(x, s, b, m, v)
        }}""",
        formula=lambda x, s, b, m, v: (
            _normalised(
                x, s[_CHANNEL], b[_CHANNEL], x.mean((0, 2, 3))[_CHANNEL], x.var((0, 2, 3))[_CHANNEL]
            ),
            0.8 * m + 0.2 * x.mean((0, 2, 3)),
            0.8 * v + 0.2 * x.var((0, 2, 3)),
        ),
        low=0.5,
    ),
    Case("Dropout-7", 7, "(float[2, 3] x) => (float[2, 3] y) { y = Dropout<ratio = 0.9>(x) }"),
    Case("Dropout-10", 10, "(float[2, 3] x) => (float[2, 3] y) { y = Dropout<ratio = 0.9>(x) }"),
    Case(
        "Dropout-7-mask",
        7,
        "(float[2, 3] x) => (float[2, 3] y, float[2, 3] m) { y, m = Dropout(x) }",
        formula=lambda x: (x, np.ones_like(x)),
    ),
    Case(
        "Dropout-1",
        5,
        "(float[2, 3] x) => (float[2, 3] y) { y = Dropout<is_test = 1, consumed_inputs = [0]>(x) }",
        formula=lambda x: x,
    ),
    Case(
        "Gemm-6",
        6,
        "(float[2, 3] a, float[3, 4] b, float[4] c) => (float[2, 4] y) { y = Gemm<broadcast = 1>(a, b, c) }",
        formula=lambda a, b, c: a @ b + c,
    ),
    Case(
        "LpPool-1",
        1,
        "(float[1, 2, 4] x) => (float[1, 2, 2] y) { y = LpPool<kernel_shape = [2], strides = [2], p = 1.0>(x) }",
        formula=lambda x: np.abs(x).reshape(1, 2, 2, 2).sum(-1),
    ),
    Case(
        "GlobalLpPool-1",
        1,
        "(float[1, 2, 4] x) => (float[1, 2, 1] y) { y = GlobalLpPool(x) }",
        formula=lambda x: np.sqrt((x * x).sum(-1, keepdims=True)),
    ),
    *[
        Case(
            f"{operator}-7",
            7,
            f"""(float[3, 2, 4] x, float[1, {gates * 5}, 4] w, float[1, {gates * 5}, 5] r) => (float[3, 1, 2, 5] y) {{
                y = {operator}<hidden_size = 5>(x, w, r)
            }}""",
        )
        for operator, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4))
    ],
    Case(
        "RNN-1",
        6,
        """(float[3, 2, 4] x, float[1, 5, 4] w, float[1, 5, 5] r) => (float[1, 2, 5] y) {
            z, y = RNN<hidden_size = 5, output_sequence = 1>(x, w, r)
        }""",
        formula=lambda x, w, r: _recurrent(x, w[0], r[0])[None],
    ),
    *[
        Case(
            f"GRU-1-{direction}",
            2,
            f"""(float[3, 2, 4] x, float[1, 15, 4] w, float[1, 15, 5] r) => (float[1, 2, 5] y) {{
                z, y = GRU<hidden_size = 5, direction = "{direction}">(x, w, r)
            }}""",
            formula=lambda x, w, r: _gru(x, w[0], r[0])[None],
        )
        for direction in ("forward", "foward")
    ],
    Case(
        "LSTM-1",
        6,
        """(float[3, 2, 4] x, float[1, 20, 4] w, float[1, 20, 5] r) => (float[1, 2, 5] y) {
            z, y = LSTM<hidden_size = 5, output_sequence = 1>(x, w, r)
        }""",
        formula=lambda x, w, r: _lstm(x, w[0], r[0])[None],
    ),
]


def _recurrent(x: Any, w: Any, r: Any) -> Any:
    h = np.zeros((x.shape[1], r.shape[0]), x.dtype)
    for step in x:
        h = np.tanh(step @ w.T + h @ r.T)
    return h


def _gru(x: Any, w: Any, r: Any) -> Any:
    size = r.shape[1]
    h = np.zeros((x.shape[1], size), x.dtype)
    for step in x:
        update, reset, new = np.split(step @ w.T, 3, 1)
        update = expit(update + h @ r[:size].T)
        reset = expit(reset + h @ r[size : 2 * size].T)
        new = np.tanh(new + (reset * h) @ r[2 * size :].T)
        h = (1 - update) * new + update * h
    return h


def _lstm(x: Any, w: Any, r: Any) -> Any:
    h = c = np.zeros((x.shape[1], r.shape[1]), x.dtype)
    for step in x:
        enter, leave, forget, new = np.split(step @ w.T + h @ r.T, 4, 1)
        c = expit(forget) * c + expit(enter) * np.tanh(new)
        h = expit(leave) * np.tanh(c)
    return h


def _scaled(opset: int, mode: str, scales: list[float]) -> Case:
    attribute = f'mode = "{mode}"'
    dims = [int(size * scale) for size, scale in zip((1, 2, 5, 6), scales, strict=True)]
    shape = ", ".join(str(dim) for dim in dims)
    if opset < 9:
        attribute += f", scales = {scales}"
    operator = "Upsample" if opset < 10 else "Resize"
    arguments = "x" if opset < 9 else "x, s"
    return Case(
        f"{operator}-{opset}-{mode}-{scales}",
        opset,
        f"(float[1, 2, 5, 6] x) => (float[{shape}] y) {{ y = {operator}<{attribute}>({arguments}) }}",
        {} if opset < 9 else {"s": np.array(scales, np.float32)},
    )


RESAMPLING = [
    *[
        _scaled(opset, mode, scales)
        for opset in (7, 9, 10)
        for mode in ("nearest", "linear")
        for scales in (
            [1.0, 1.0, 2.0, 3.0],
            [1.0, 1.0, 1.5, 2.3],
            [1.0, 1.0, 0.6, 0.5],
            [1.0, 1.0, 2.5, 0.7],
        )
        if opset > 9 or min(scales) >= 1
    ],
    Case(
        "Upsample-1",
        6,
        """(float[1, 2, 3, 4] x) => (float[1, 2, 6, 12] y) {
            y = Upsample<height_scale = 2.0, width_scale = 3.0>(x)
        }""",
        formula=lambda x: x.repeat(2, 2).repeat(3, 3),
    ),
    Case(
        "Resize-11-sizes",
        11,
        """(float[1, 2, 3, 4] x) => (float[1, 2, 6, 7] y) {
            y = Resize<mode = "linear", coordinate_transformation_mode = "pytorch_half_pixel">(x, none, none, sizes)
        }""",
        {"none": np.zeros(0, np.float32), "sizes": [1, 2, 6, 7]},
    ),
    Case(
        "Resize-11-tf-half-pixel",
        12,
        """(float[1, 2, 3, 4] x) => (float[1, 2, 6, 6] y) {
            y = Resize<nearest_mode = "floor", coordinate_transformation_mode = "tf_half_pixel_for_nn">(x, none, s)
        }""",
        {"none": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 1.5], np.float32)},
    ),
    Case(
        "RoiAlign-10",
        10,
        """(float[1, 2, 6, 6] x) => (float[1, 2, 2, 2] y) {
            y = RoiAlign<output_height = 2, output_width = 2, sampling_ratio = 2>(x, r, i)
        }""",
        {"r": np.array([[0.5, 1.0, 4.2, 3.7]], np.float32), "i": [0]},
    ),
]

CASES = [*BROADCASTS, *ACTIVATIONS, *SHAPES, *LAYERS, *RESAMPLING]


def _run(proto: onnx.ModelProto, feeds: Mapping[str, Any]) -> list[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, dict(feeds)))


def _check(proto: onnx.ModelProto, feeds: Mapping[str, Any], expected: list[Any]) -> None:
    loaded = Model.load(proto)
    assert loaded.opset == MINIMUM_OPSET
    upgraded = loaded.to_proto()
    onnx.checker.check_model(upgraded)
    for found, wanted in zip(_run(upgraded, feeds), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-6)
        assert found.shape == np.shape(wanted)
        assert found.dtype == np.asarray(wanted).dtype or wanted.dtype == np.float64


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_main_graph(case: Case) -> None:
    _check(case.proto(), case.feeds(), case.expected())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_ranks_known_at_run_time_only(case: Case) -> None:
    proto, feeds = case.proto(), {}
    nodes = []
    for value in proto.graph.input:
        array = case.feeds()[value.name]
        feeds[f"{value.name}_flat"] = array
        feeds[f"{value.name}_shape"] = np.array(array.shape)
        if case.opset < 5:
            pytest.skip("Reshape has no shape known at run time before opset 5")
        nodes.append(
            onnx.helper.make_node(
                "Reshape", [f"{value.name}_flat", f"{value.name}_shape"], [value.name]
            )
        )
        value.name = f"{value.name}_flat"
    for name in [node.output[0] for node in nodes]:
        proto.graph.input.append(
            onnx.helper.make_tensor_value_info(
                f"{name}_shape", onnx.TensorProto.INT64, ["K" + name]
            )
        )
    nodes += list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    _check(proto, feeds, case.expected())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_inside_a_branch(case: Case) -> None:
    proto = case.proto()
    branches = []
    for branch in ("then", "else"):
        copy = case.proto().graph
        names = {name for node in copy.node for name in node.output}
        for node in copy.node:
            for names_of in (node.input, node.output):
                renamed = [f"{branch}_{name}" if name in names else name for name in names_of]
                del names_of[:]
                names_of.extend(renamed)
        outputs = [_renamed(value, f"{branch}_{value.name}") for value in copy.output]
        branches.append(onnx.helper.make_graph(list(copy.node), branch, [], outputs))
    outputs = [value.name for value in proto.graph.output]
    del proto.graph.node[:]
    proto.graph.node.append(
        onnx.helper.make_node(
            "If", ["condition"], outputs, then_branch=branches[0], else_branch=branches[1]
        )
    )
    proto.graph.input.append(
        onnx.helper.make_tensor_value_info("condition", onnx.TensorProto.BOOL, [])
    )
    for condition in (True, False):
        _check(proto, {**case.feeds(), "condition": np.array(condition)}, case.expected())


def _renamed(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    copy.name = name
    return copy


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_inside_a_function(case: Case) -> None:
    proto = case.proto()
    graph = proto.graph
    inputs = [value.name for value in [*graph.input, *graph.initializer]]
    outputs = [value.name for value in graph.output]
    standard = [onnx.helper.make_opsetid("", case.opset)]
    body = onnx.helper.make_function("mine", "inner", inputs, outputs, list(graph.node), standard)
    proto.functions.append(body)
    proto.opset_import.append(onnx.helper.make_opsetid("mine", 1))
    del graph.node[:]
    graph.node.append(onnx.helper.make_node("inner", inputs, outputs, domain="mine"))
    _check(proto, case.feeds(), case.expected())


def test_every_adapter_has_a_case() -> None:
    tried = {(node.op_type, case.opset) for case in CASES for node in case.proto().graph.node}
    # Chains, through the names an operator had before.
    tried |= {("Resize", opset) for operator, opset in tried if operator == "Upsample"}
    tried |= {("Scan", 8)}
    for operator, versions in registered().items():
        for version in versions:
            assert operator in _DROPPED or any(
                name == operator and opset < version for name, opset in tried
            ), f"{operator}, version {version}"


_DROPPED = {"ATen", "ConstantFill", "Crop", "DynamicSlice", "GRUUnit", "GivenTensorFill"}


# -- whole models ----------------------------------------------------------------------------


def test_scan_over_a_batch() -> None:
    """Opset 8: the examples of a batch are scanned one by one."""
    body = onnx.parser.parse_graph(
        "body (float[3] state, float[3] item) => (float[3] next, float[3] seen) {"
        " next = Add(state, item) \n seen = Identity(next) }"
    )
    for backwards in (0, 1):
        node = onnx.helper.make_node(
            "Scan",
            ["", "s", "x"],
            ["last", "all"],
            body=body,
            num_scan_inputs=1,
            directions=[backwards],
        )
        graph = onnx.helper.make_graph(
            [node],
            "main",
            [_floats("s", [2, 3]), _floats("x", [2, 5, 3])],
            [_floats("last", [2, 3]), _floats("all", [2, 5, 3])],
        )
        proto = onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 8)], ir_version=4
        )
        rng = np.random.default_rng(0)
        s, x = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 3), (2, 5, 3)))
        ordered = x[:, ::-1] if backwards else x
        sums = s[:, None] + ordered.cumsum(1)
        _check(proto, {"s": s, "x": x}, [sums[:, -1], sums])


def _floats(name: str, shape: list[Any]) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def _simple(
    opsets: dict[str, int], operator: str = "Relu", domain: str = "", **attributes: Any
) -> onnx.ModelProto:
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, ["x"], ["y"], domain=domain, **attributes)],
        "main",
        [_floats("x", ["N", 3])],
        [_floats("y", ["N", 3])],
    )
    imports = [onnx.helper.make_opsetid(*item) for item in opsets.items()]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)


@pytest.mark.parametrize("ir_version", [3, 4])
@pytest.mark.parametrize("opset", [7, 12, 17, 18])
def test_initializers_among_the_inputs(ir_version: int, opset: int) -> None:
    """IR 3 had to list them there; since IR 4, it means that callers may feed others."""
    proto = Case("m", opset, "(float[2] x, float[2] w) => (float[2] y) { y = Mul(x, w) }").proto()
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "w"))
    proto.ir_version = ir_version
    loaded = Model.load(proto)
    assert [value.name for value in loaded.ir.graph.inputs] == ["x", "w"][: ir_version - 2]
    assert loaded.ir.ir_version >= 8
    _run(loaded.to_proto(), {"x": np.ones(2, np.float32)})


@pytest.mark.parametrize("shape", [(2, 0, 4), (0, 3, 4), (2, 3, 0)], ids=str)
def test_softmax_of_nothing(shape: tuple[int, ...]) -> None:
    """Flattening and unflattening keep axes of size zero."""
    proto = Case(
        "m", 11, "(float[A, B, C] x) => (float[A, B, C] y) { y = Softmax<axis = 1>(x) }"
    ).proto()
    _check(proto, {"x": np.zeros(shape, np.float32)}, [np.zeros(shape, np.float32)])


def test_external_data_stay_outside(tmp_path: Path) -> None:
    text = "(float[N, 3] x) => (float[N, 3] y) { h = MatMul(x, w) \n y = Clip<max = 0.5>(h) }"
    proto = Case("m", 9, text, {"w": np.eye(3, dtype=np.float32)}).proto()
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    loaded = Model.load(path)
    assert loaded.opset == MINIMUM_OPSET
    tensor = loaded.ir.graph.initializers["w"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    assert str(tensor.base_dir) == str(tmp_path)


def test_names_that_collide() -> None:
    proto = Case(
        "m",
        9,
        """(float[2, 3, 4] upgrade_constant) => (float[2, 3, 4] y) {
            y_Flatten = Softmax(upgrade_constant)
            y_Softmax = Clip<max = 0.1>(y_Flatten)
            y_Shape = Clip<max = 0.05>(y_Softmax)
            y = Softmax(y_Shape)
        }""",
    )
    _check(proto.proto(), proto.feeds(), proto.expected())


def test_other_domains_stay() -> None:
    for opsets in ({"": 12, "mine": 1}, {"mine": 1}):
        loaded = Model.load(_simple(opsets, "Mystery", "mine", axes=[1]))
        assert loaded.opset == MINIMUM_OPSET
        assert [(n.domain, n.op_type, list(n.attributes)) for n in loaded.ir.graph] == [
            ("mine", "Mystery", ["axes"])
        ]


def test_the_other_name_of_the_standard_domain() -> None:
    loaded = Model.load(_simple({"ai.onnx": 12}, "Softmax", axis=0))
    assert loaded.ir.opset_imports == {"": MINIMUM_OPSET}
    assert loaded.file_opset == 12
    assert [node.op_type for node in loaded.ir.graph] == ["Flatten", "Softmax", "Shape", "Reshape"]


def test_newer_than_onnx() -> None:
    with pytest.raises(igonnx.ModelError, match=r"^main: opset 999 is newer than onnx .* knows"):
        Model.load(_simple({"": 999}))


@pytest.mark.parametrize(
    ("proto", "reason"),
    [
        (_simple({"": 8}, "ConstantFill"), "ConstantFill node 'y': this experimental operator"),
        (_simple({"": 1}, "GlobalLpPool", p=1.5), "p is 1.5; since opset 2 it is a whole number"),
        (_simple({"": 5}, "Cast", to="REAL"), "'REAL', which names no dtype"),
        (_simple({"": 1}, "Split"), "the axis is not given"),
    ],
    ids=["dropped", "p", "dtype", "axis"],
)
def test_what_has_no_equal_is_refused(proto: onnx.ModelProto, reason: str) -> None:
    with pytest.raises(igonnx.ModelError) as caught:
        Model.load(proto)
    opset = proto.opset_import[0].version
    assert str(caught.value).startswith(f"main: cannot be upgraded from opset {opset} to 17: ")
    assert reason in str(caught.value)
    assert str(caught.value).endswith("; re-export it at opset 17 or later")


# ONNX's tests that its shape inference, as onnx-ir applies it, gives tensors where sequences are.
_SEQUENCES = {f"test_sequence_model{number}" for number in range(1, 9)}
_SEQUENCES |= {"test_if_opt", "test_loop16_seq_none"}
# What stock runtimes do not have: training operators, some integer types. (Nor all locales: StringNormalizer.)
_NOT_RUNNABLE = {
    "test_gradient_of_add",
    "test_gradient_of_add_and_mul",
    "test_convinteger_with_padding",
    "test_max_int16",
    "test_max_uint16",
    "test_min_int16",
    "test_min_uint16",
    "test_pow_types_float32_uint64",
    "test_pow_types_float32_uint32",
}


@pytest.mark.parametrize("kind", ["simple", "pytorch-converted", "pytorch-operator"])
def test_models_of_onnx(kind: str) -> None:
    """ONNX's own test models give the outputs that come with them."""
    tried = 0
    for test in load_model_tests(kind=kind):
        if test.name in _NOT_RUNNABLE | _SEQUENCES or "strnorm" in test.name:
            continue
        proto = onnx.load(os.path.join(test.model_dir, "model.onnx"))
        if all(
            o.version >= MINIMUM_OPSET for o in proto.opset_import if o.domain in ("", "ai.onnx")
        ):
            continue
        folder = os.path.join(test.model_dir, "test_data_set_0")
        found = _run(Model.load(proto).to_proto(), _stored(folder, "input", proto.graph.input))
        for name, wanted in _stored(folder, "output", proto.graph.output).items():
            index = [value.name for value in proto.graph.output].index(name)
            np.testing.assert_allclose(
                found[index], wanted, rtol=1e-3, atol=1e-5, err_msg=test.name
            )
        tried += 1
    assert tried >= {"simple": 5, "pytorch-converted": 60, "pytorch-operator": 30}[kind]


def _node_tests() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overflows in the data that onnx makes
        return list(load_model_tests(kind="node"))


def test_nodes_of_onnx() -> None:
    """Each of ONNX's node tests of an old opset gives what its own file gives in the runtime."""
    tried = 0
    for test in _node_tests():
        opsets = {item.domain: item.version for item in test.model.opset_import}
        if opsets.get("", MINIMUM_OPSET) >= MINIMUM_OPSET or "strnorm" in test.name:
            continue
        names = [value.name for value in test.model.graph.input if value.name]
        values = [v if isinstance(v, list | None) else np.asarray(v) for v in test.data_sets[0][0]]
        feeds = dict(zip(names, values, strict=False))
        if test.name in _NOT_RUNNABLE | _SEQUENCES:
            continue
        found = _run(Model.load(test.model).to_proto(), feeds)
        for one, wanted in zip(found, test.data_sets[0][1], strict=True):
            pairs = zip(one, wanted, strict=True) if isinstance(wanted, list) else [(one, wanted)]
            for a, b in pairs:
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5, err_msg=test.name)
        tried += 1
    assert tried >= 450


def _stored(folder: str, kind: str, values: Any) -> Arrays:
    found = {}
    for index, value in enumerate(values):
        path = os.path.join(folder, f"{kind}_{index}.pb")
        if os.path.exists(path):
            found[value.name] = numpy_helper.to_array(onnx.load_tensor(path))
    return found
