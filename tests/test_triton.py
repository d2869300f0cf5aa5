"""Configurations for Triton, read as Triton reads them and compared with models as its ONNX Runtime backend does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from onnx import TensorProto, helper

import igonnx
from igonnx.augmentation.triton import triton_config, with_required_target
from igonnx.errors import InputError
from igonnx.models import digits

Build = Callable[..., onnx.ModelProto]

# Fields and numbers of https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto.
DATA_TYPES = [
    "TYPE_INVALID", "TYPE_BOOL", "TYPE_UINT8", "TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64", "TYPE_INT8", "TYPE_INT16",
    "TYPE_INT32", "TYPE_INT64", "TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_STRING", "TYPE_BF16",
]  # fmt: skip
MESSAGES = {
    "ModelTensorReshape": "repeated int64 shape = 1",
    "ModelInput": "string name = 1; DataType data_type = 2; repeated int64 dims = 4; "
    "ModelTensorReshape reshape = 5; bool optional = 8",
    "ModelOutput": "string name = 1; DataType data_type = 2; repeated int64 dims = 3; "
    "ModelTensorReshape reshape = 5",
    "ModelDynamicBatching": "repeated int32 preferred_batch_size = 1; uint64 max_queue_delay_microseconds = 2",
    "ModelConfig": "string name = 1; string platform = 2; int32 max_batch_size = 4; repeated ModelInput input = 5; "
    "repeated ModelOutput output = 6; string default_model_filename = 8; ModelDynamicBatching dynamic_batching = 11; "
    "string backend = 17",
}
ONNX_TYPES = {
    TensorProto.BOOL: "TYPE_BOOL",
    TensorProto.UINT8: "TYPE_UINT8",
    TensorProto.INT32: "TYPE_INT32",
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.FLOAT16: "TYPE_FP16",
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.DOUBLE: "TYPE_FP64",
    TensorProto.STRING: "TYPE_STRING",
}


def _model_config() -> type[Any]:
    """The class of Triton's message ModelConfig, of the fields that igonnx writes."""
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="model_config.proto", package="inference", syntax="proto3"
    )
    values = file.enum_type.add(name="DataType").value
    for number, name in enumerate(DATA_TYPES):
        values.add(name=name, number=number)
    for message, fields in MESSAGES.items():
        added = file.message_type.add(name=message)
        for field in fields.split("; "):
            *repeated, kind, name, _, number = field.split()
            entry = added.field.add(name=name, number=int(number))
            entry.label = field_type.LABEL_REPEATED if repeated else field_type.LABEL_OPTIONAL
            if kind == "DataType":
                entry.type, entry.type_name = field_type.TYPE_ENUM, ".inference.DataType"
            elif kind in MESSAGES:
                entry.type, entry.type_name = field_type.TYPE_MESSAGE, f".inference.{kind}"
            else:
                entry.type = getattr(field_type, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))


MODEL_CONFIG = _model_config()


def read(text: str) -> Any:
    return text_format.Parse(text, MODEL_CONFIG())


def opened(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def assert_backend_loads(config: Any, session: onnxruntime.InferenceSession) -> None:
    """What Triton (ValidateIOShape) and its backend (ValidateInputs, ValidateOutputs) check when they load a model."""
    batching = config.max_batch_size > 0
    assert config.backend == "onnxruntime"
    assert config.default_model_filename == "model.onnx"
    for io in [*config.input, *config.output]:
        assert len(io.dims) > 0
        assert all(dim >= 1 or dim == -1 for dim in io.dims)
        if io.HasField("reshape"):
            assert batching or len(io.reshape.shape) > 0
            assert np.prod(io.dims) == np.prod(list(io.reshape.shape))
    required = session.get_inputs()
    defaults = session.get_overridable_initializers()
    assert len(required) == sum(not io.optional for io in config.input)
    assert not (batching and any(io.optional for io in config.input))
    known = {value.name: value for value in [*required, *defaults]}
    for ios, values, exact in (
        (config.input, known, False),
        (config.output, {value.name: value for value in session.get_outputs()}, True),
    ):
        for io in ios:
            shape = [axis if isinstance(axis, int) else -1 for axis in values[io.name].shape]
            dims = list(io.reshape.shape if io.HasField("reshape") else io.dims)
            if not shape and not batching:
                assert set(dims) == {1}
                continue
            assert not batching or shape[0] == -1
            full = [-1, *dims] if batching else dims
            assert len(shape) == len(full)
            assert all(a == b or (a == -1 and not exact) for a, b in zip(shape, full, strict=True))


def assert_says_what_the_file_says(config: Any, model: onnx.ModelProto) -> None:
    """Names, order, types and shapes; optional are the inputs that have an initializer."""
    filled = {tensor.name for tensor in model.graph.initializer}
    batching = config.max_batch_size > 0
    inputs = [v for v in model.graph.input if not (batching and v.name in filled)]
    assert [io.name for io in config.input] == [value.name for value in inputs]
    assert [io.name for io in config.output] == [value.name for value in model.graph.output]
    for io, value in zip(
        [*config.input, *config.output], [*inputs, *model.graph.output], strict=True
    ):
        tensor = value.type.tensor_type
        assert DATA_TYPES[io.data_type] == ONNX_TYPES[tensor.elem_type]
        shape = [axis.dim_value or -1 for axis in tensor.shape.dim][1 if batching else 0 :]
        # Where the file leaves a size open, the runtime may know it.
        dims = list(io.reshape.shape if io.HasField("reshape") else io.dims)
        if shape or batching:
            assert len(dims) == len(shape)
            assert all(a in (b, -1) for a, b in zip(shape, dims, strict=True))
    for io in config.input:
        assert io.optional == (io.name in filled)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = opened(model)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


TEXTS = {
    "several inputs": "(float[N, 3] a, float[N, 2, 2] b) => (float[N, 3] y)"
    " { f = Flatten(b) \n g = Gemm(f, w) \n y = Add(a, g) }",
    "sizes left open": "(float[batch, 4] x) => (float[n, classes] y) { y = Gemm(x, w) }",
    "nothing said of the output": "(float[N, 4] x) => (float[rows, 1] z, float[rows, c] y)"
    " { y = Gemm(x, w) \n z = ReduceMax<axes = [1]>(y) }",
    "doubles": "(double[N, 4] x) => (double[N, 3] y) { v = Cast<to = 11>(w) \n y = Gemm(x, v) }",
    "halves": "(float16[N, 4] x) => (float16[N, 3] y) { v = Cast<to = 10>(w) \n y = Gemm(x, v) }",
    "two at a time": "(float[2, 4] x) => (float[2, 3] y) { y = Gemm(x, w) }",
    "more outputs": "(float[N, 4] x) => (float[N, 3] y, int64[N] best, bool[N, 3] positive)"
    " { y = Gemm(x, w) \n best = ArgMax<axis = 1, keepdims = 0>(y) \n"
    " zero = Constant<value = float {0}>() \n positive = Greater(y, zero) }",
    "a number": "(float[N, 4] x, float scale) => (float[N, 3] y, float largest)"
    " { s = Mul(x, scale) \n y = Gemm(s, w) \n largest = ReduceMax<keepdims = 0>(y) }",
}


def built(name: str, model: Build) -> onnx.ModelProto:
    rng = np.random.default_rng(3)
    return model(TEXTS[name], {"w": rng.normal(size=(4, 3)).astype(np.float32)})


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("lazy", [False, True])
def test_unbatched(name: str, lazy: bool, model: Build) -> None:
    augmented = igonnx.augment(built(name, model), steps=3, lazy=lazy, output="y")
    config = read(triton_config(augmented, name="model"))
    assert (config.name, config.max_batch_size) == ("model", 0)
    assert not config.HasField("dynamic_batching")
    assert_backend_loads(config, opened(augmented))
    assert_says_what_the_file_says(config, augmented)


@pytest.mark.parametrize(
    "name", [name for name in TEXTS if name not in ("two at a time", "a number")]
)
@pytest.mark.parametrize("size", [1, 8])
def test_batched(name: str, size: int, model: Build) -> None:
    augmented = with_required_target(igonnx.augment(built(name, model), steps=3, output="y"))
    config = read(triton_config(augmented, name="model", max_batch_size=size))
    assert config.max_batch_size == size
    assert config.HasField("dynamic_batching") == (size > 1)
    assert_backend_loads(config, opened(augmented))
    assert_says_what_the_file_says(config, augmented)
    assert [io.name for io in config.input if "baseline" in io.name] == []


@pytest.mark.parametrize("heatmap", [None, "overlay"])
@pytest.mark.parametrize("batched", [False, True])
def test_digits(heatmap: str | None, batched: bool) -> None:
    augmented = igonnx.augment(digits.load(), steps=3, heatmap=heatmap)
    if batched:
        augmented = with_required_target(augmented)
    config = read(triton_config(augmented, name="digits", max_batch_size=4 if batched else 0))
    assert_backend_loads(config, opened(augmented))
    assert_says_what_the_file_says(config, augmented)
    dims = {io.name: list(io.dims) for io in [*config.input, *config.output]}
    free = [] if batched else [-1]
    assert dims["image"] == dims["attribution_image"] == [*free, 1, 8, 8]
    assert dims["logits"] == [*free, 10]
    assert dims["target"] == dims["completeness_delta"] == ([1] if batched else [-1])
    assert heatmap is None or dims["overlay_image"] == [*free, 8, 8, 4]


@pytest.mark.parametrize("name", ["bert_script", "vit_dynamo", "resnet_script"])
def test_exported_networks(name: str, data: Path) -> None:
    augmented = igonnx.augment(data / f"{name}.onnx", steps=3, lazy=True)
    config = read(triton_config(augmented, name=name))
    assert_backend_loads(config, opened(augmented))
    assert_says_what_the_file_says(config, augmented)


def test_requests_put_together_get_what_they_got_alone() -> None:
    """As the backend does it: inputs joined along the first axis, outputs cut apart along theirs."""
    model = igonnx.augment(digits.load(), steps=5, heatmap="overlay")
    served = with_required_target(model)
    images = digits.test_set()[0][:5]
    targets = np.array([-1, 3, 4, -1, 0])
    together = run(served, {"image": images, "target": targets})
    for part in (slice(0, 2), slice(2, 5)):
        alone = run(model, {"image": images[part], "target": targets[part]})
        for name, values in alone.items():
            if values.dtype == np.uint8:
                np.testing.assert_allclose(together[name][part].astype(int), values, atol=2)
            else:
                np.testing.assert_allclose(together[name][part], values, rtol=1e-4, atol=1e-5)


def test_what_is_optional_may_be_left_out_and_fed() -> None:
    model = igonnx.augment(digits.load(), steps=5, lazy=True)
    config = read(triton_config(model, name="digits"))
    optional = {io.name: list(io.dims) for io in config.input if io.optional}
    assert optional == {"target": [-1], "baseline": [-1, -1, -1, -1], "explain": [1]}
    images = digits.test_set()[0][:3]
    plain = run(model, {"image": images})
    assert plain["attribution_image"].shape == (0, 1, 8, 8)
    fed = {
        "target": np.array([1, 2, 3]),
        "baseline": np.full((1, 1, 1, 1), 0.5, np.float32),
        "explain": np.array([True]),
    }
    asked = run(model, {"image": images, **fed})
    expected = igonnx.Explainer(digits.load()).integrated_gradients(
        images, steps=5, target=[1, 2, 3], baseline=0.5
    )
    np.testing.assert_allclose(asked["attribution_image"], expected.values, rtol=1e-3, atol=1e-5)


def test_only_the_default_of_the_target_goes() -> None:
    model = igonnx.augment(digits.load(), steps=3)
    before = model.SerializeToString()
    served = with_required_target(model)
    assert model.SerializeToString() == before
    names = [tensor.name for tensor in model.graph.initializer]
    names.remove("target")
    assert [tensor.name for tensor in served.graph.initializer] == names
    assert [value.name for value in opened(served).get_inputs()] == ["image", "target"]


def test_names_are_quoted(model: Build) -> None:
    odd = 'café "x"\\n\t'
    graph = model("(float[N, 4] x) => (float[N, 4] y) { y = Neg(x) }")
    graph.graph.input[0].name = graph.graph.node[0].input[0] = odd
    text = triton_config(graph, name="model")
    assert text.isascii()
    assert [io.name for io in read(text).input] == [odd]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "(float[2, 4] x) => (float[2, 4] y) { y = Neg(x) }",
            r"input 'x' \[2, 4\] does not count examples along its first axis",
        ),
        (
            "(float[N, 4] x, float scale) => (float[N, 4] y) { y = Mul(x, scale) }",
            r"input 'scale' \[\] does not count examples",
        ),
        (
            "(float[N, T] x) => (float[T, N] y) { y = Transpose<perm = [1, 0]>(x) }",
            r"output 'y' \[T, N\] does not count examples",
        ),
    ],
)
def test_models_that_cannot_be_batched(text: str, message: str, model: Build) -> None:
    graph = model(text)
    with pytest.raises(InputError, match=f"{message}.*; expected a max_batch_size of 0"):
        triton_config(graph, name="model", max_batch_size=4)
    assert_backend_loads(read(triton_config(graph, name="model")), opened(graph))


def test_lazy_models_cannot_be_batched() -> None:
    model = igonnx.augment(digits.load(), steps=3, lazy=True)
    with pytest.raises(InputError, match="cannot batch a model that explains only when asked"):
        triton_config(model, name="model", max_batch_size=4)


def test_what_triton_does_not_serve(model: Build) -> None:
    graph = model("(float[N, 4] x) => (seq(float[N, 4]) y) { y = SequenceConstruct(x) }")
    with pytest.raises(InputError, match=r"output 'y' is seq\(tensor\(float\)\), which Triton"):
        triton_config(graph, name="model")
    empty = helper.make_model(
        helper.make_graph(
            [helper.make_node("Neg", ["x"], ["y"])],
            "empty",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 0])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 0])],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    with pytest.raises(InputError, match="input 'x' has an axis of size 0"):
        triton_config(empty, name="model")


@pytest.mark.parametrize("size", [-1, 2**31, 1.5, True])
def test_sizes_that_are_none(size: Any) -> None:
    with pytest.raises(InputError, match=r"^max_batch_size is "):
        triton_config(digits.load(), name="model", max_batch_size=size)
