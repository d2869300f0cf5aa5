"""Gradients of whole models: against PyTorch's, and along random lines."""

from __future__ import annotations

from pathlib import Path

import directional
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from rule_cases.check import validate

import igonnx
from igonnx.models import digits, efficientnet_lite0

DATA = Path(__file__).parents[1] / "data"
EXPORTS = sorted(path.stem for path in DATA.glob("*.onnx"))
LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
LIGHT_MODELS = sorted(path.stem for path in LIGHT.glob("*.onnx"))


@pytest.fixture(params=EXPORTS)
def export(request):
    """The model's path and what PyTorch says about it."""
    with np.load(DATA / f"{request.param}.npz") as arrays:
        return DATA / f"{request.param}.onnx", dict(arrays)


def test_gradient_equals_pytorch(export):
    path, arrays = export
    wrt = str(arrays["wrt"])
    proto = igonnx.gradient(path, wrt=wrt)
    validate(proto)
    session = directional.runtime(proto)
    feeds = {v.name: arrays[v.name] for v in session.get_inputs() if v.name in arrays}
    logits, gradient = session.run(
        ["logits", f"grad_{wrt}"], {**feeds, "cotangent_logits": arrays["cotangent"]}
    )
    np.testing.assert_allclose(logits, arrays["logits"], atol=1e-5)
    assert gradient.shape == arrays["gradient"].shape
    error = np.linalg.norm(gradient - arrays["gradient"]) / np.linalg.norm(arrays["gradient"])
    assert error < 1e-5


def test_default_wrt_is_what_pytorch_was_asked_for(export):
    path, arrays = export
    assert f"grad_{arrays['wrt']}" in [value.name for value in igonnx.gradient(path).graph.output]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("exporter", ["script", "dynamo"])
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("resnet", (33, 70)),
        ("convnext", (32, 48)),
        ("mobilenet_v2_any_size", (40, 33)),
        ("mobilenet_v2", (32, 32)),
        ("vit", (32, 32)),
    ],
)
def test_other_sizes_along_a_line(name, exporter, sizes, batch):
    rng = np.random.default_rng(0)
    proto = igonnx.gradient(DATA / f"{name}_{exporter}.onnx")
    feeds = {"pixel_values": rng.standard_normal((batch, 3, *sizes)).astype(np.float32)}
    assert directional.error_along_a_line(proto, feeds, "pixel_values", rng) < 1e-4


@pytest.mark.parametrize("shape", [(1, 5), (3, 11)])
@pytest.mark.parametrize("exporter", ["script", "dynamo"])
def test_other_sequence_lengths_along_a_line(exporter, shape):
    """The embedding is computed inside the model: it becomes an input here, so that it can be moved."""
    rng = np.random.default_rng(1)
    with np.load(DATA / f"bert_{exporter}.npz") as arrays:
        wrt, width = str(arrays["wrt"]), arrays["gradient"].shape[-1]
    model = onnx.load(DATA / f"bert_{exporter}.onnx")
    for node in model.graph.node:
        node.output[:] = [f"{name}_unused" if name == wrt else name for name in node.output]
    dims = [model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param for axis in (0, 1)]
    model.graph.input.append(
        helper.make_tensor_value_info(wrt, onnx.TensorProto.FLOAT, [*dims, width])
    )
    proto = igonnx.gradient(model, wrt=wrt)
    feeds = {
        "input_ids": rng.integers(0, 20, shape),
        "attention_mask": np.ones(shape, np.int64),
        "token_type_ids": np.zeros(shape, np.int64),
        wrt: rng.standard_normal((*shape, width)).astype(np.float32),
    }
    assert directional.error_along_a_line(proto, feeds, wrt, rng) < 1e-4


def _with_weights(
    path: Path, rng: np.random.Generator
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A model of onnx's test data with its constant weights as inputs, and sensible values to feed there."""
    model = onnx.load(path)
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    shapes = {
        node.output[0]: tuple(int(i) for i in numpy_helper.to_array(stored[node.input[0]]))
        for node in graph.node
        if node.op_type == "ConstantOfShape"
    }
    shapes |= {
        name: tuple(t.dims) for name, t in stored.items() if t.data_type == onnx.TensorProto.FLOAT
    }
    # The wide layers of the oldest networks hold 500 MB and nothing to learn: made narrow.
    shapes = {
        name: tuple(64 if size == 4096 else size for size in shape)
        for name, shape in shapes.items()
    }
    del graph.value_info[:]
    kept = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    del graph.node[:]
    graph.node.extend(kept)
    inputs = [value for value in graph.input if value.name not in shapes]
    inputs += [
        helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape)
        for n, shape in shapes.items()
    ]
    del graph.input[:]
    graph.input.extend(inputs)
    tensors = [tensor for name, tensor in stored.items() if name not in shapes]
    del graph.initializer[:]
    graph.initializer.extend(tensors)
    roles = {
        name: (node.op_type, index)
        for node in kept
        for index, name in enumerate(node.input)
        if name in shapes
    }
    # A prime number of values, repeated: quicker than drawing 25 million.
    pool = rng.standard_normal(100_003).astype(np.float32)
    return model, {
        name: _weight(shape, *roles.get(name, ("", 0)), pool) for name, shape in shapes.items()
    }


def _weight(shape: tuple[int, ...], operator: str, index: int, pool: np.ndarray) -> np.ndarray:
    values = np.resize(np.roll(pool, len(shape) * 7919 + int(np.prod(shape))), shape)
    if operator in ("Conv", "Gemm") and index == 1:
        return values * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    if operator == "BatchNormalization" and index in (1, 4):
        return np.abs(values) / 4 + np.float32(0.4 if index == 1 else 0.9)
    if operator == "Unsqueeze":  # a scale or shift per channel
        return values / 10 + np.float32(0.8)
    return values / 10


@pytest.mark.parametrize("name", LIGHT_MODELS)
def test_light_model(name):
    rng = np.random.default_rng(2)
    path = LIGHT / f"{name}.onnx"
    validate(igonnx.gradient(path))
    model, weights = _with_weights(path, rng)
    image = next(value.name for value in model.graph.input if value.name.endswith("data_0"))
    feeds = {**weights, image: rng.standard_normal((1, 3, 224, 224)).astype(np.float32)}
    narrow = igonnx.gradient(model, wrt=image)
    assert directional.error_along_a_line(narrow, feeds, image, rng, step=2e-7) < 5e-3


def test_the_nine_light_models_are_there():
    assert len(LIGHT_MODELS) == 9


@pytest.mark.parametrize("batch", [1, 5])
def test_digits_along_a_line(batch):
    images, _ = digits.test_set()
    rng = np.random.default_rng(3)
    proto = igonnx.gradient(digits.load())
    validate(proto)
    # Blank paper is full of ties, where a derivative does not exist.
    written = images[:batch] + rng.uniform(0, 0.1, images[:batch].shape).astype(np.float32)
    assert directional.error_along_a_line(proto, {"image": written}, "image", rng) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2])
def test_efficientnet_lite0_along_a_line(batch):
    rng = np.random.default_rng(4)
    proto = igonnx.gradient(efficientnet_lite0.build())
    validate(proto)
    name = proto.graph.input[0].name
    smooth = rng.standard_normal((batch, 3, 14, 14)).repeat(16, axis=2).repeat(16, axis=3)
    feeds = {name: smooth.astype(np.float32)}
    assert directional.error_along_a_line(proto, feeds, name, rng) < 1e-3
