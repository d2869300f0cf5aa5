"""Loading models: what is told about them, what is chosen by default, and every file that is not one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import igonnx
from igonnx.model import Model, TensorInfo

Build = Callable[..., onnx.ModelProto]


def _message(error: type[Exception], action: Callable[[], Any]) -> str:
    with pytest.raises(error) as caught:
        action()
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def _large(model: Build) -> onnx.ModelProto:
    w = np.random.default_rng(0).normal(size=(3, 400)).astype(np.float32)
    v = np.random.default_rng(1).normal(size=(400, 2)).astype(np.float32)
    body = "h = MatMul(x, w) \n t = Tanh(h) \n y = MatMul(t, v)"
    return model(f"(float[N, 3] x) => (float[N, 2] y) {{ {body} }}", {"w": w, "v": v})


# -- what is told ----------------------------------------------------------------------------


def test_facts(model: Build) -> None:
    proto = model(
        """(float[N, 3, H, 8] x, int64[N] ids, float16 s, float[5] w) => (float[N, 2] y, bool[N] z) {
            a = ReduceMean<axes = [2, 3], keepdims = 0>(x)
            y = MatMul(a, v)
            z = Greater(ids, zero)
        }""",
        {"v": np.ones((3, 2), np.float32), "zero": np.array(0), "w": np.ones(5, np.float32)},
    )
    loaded = Model.load(proto)
    assert loaded.inputs == [
        TensorInfo("x", "float32", ("N", 3, "H", 8)),
        TensorInfo("ids", "int64", ("N",)),
        TensorInfo("s", "float16", ()),
    ]
    assert [str(info) for info in loaded.outputs] == ["y: float32 [N, 2]", "z: bool [N]"]
    assert loaded.parameter_count == 6 + 5
    assert loaded.operator_counts == {"Greater": 1, "MatMul": 1, "ReduceMean": 1}
    assert loaded.opset == loaded.file_opset == 17
    assert Model.load(loaded) is loaded


def test_sources_agree(model: Build, tmp_path: Path) -> None:
    proto = _large(model)
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    x = np.ones((1, 3), np.float32)
    results = [
        igonnx.Explainer(source).integrated_gradients(x, target=0, steps=3).values
        for source in (proto, path, str(path), path.read_bytes(), bytearray(path.read_bytes()))
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])
    assert Model.load(path).name == "model.onnx"


def test_loading_leaves_the_protobuf_alone(data: Path) -> None:
    proto = onnx.load(data / "bert_script.onnx")
    before = proto.SerializeToString()
    igonnx.gradient(proto)
    igonnx.Explainer(proto)
    assert proto.SerializeToString() == before


def test_functions_and_constants_are_resolved() -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17, "mine": 1]>
        main (float[N, 3] x) => (float[N, 3] y) {
            h = mine.twice(x)
            c = Constant<value = float {2.0}>()
            y = Mul(h, c)
        }
        <domain: "mine", opset_import: ["": 17]> twice (a) => (b) { b = Add(a, a) }"""
    )
    loaded = Model.load(proto)
    assert loaded.operator_counts["mine::twice"] == 1
    found = igonnx.Explainer(proto).integrated_gradients(
        np.ones((1, 3), np.float32), target=0, steps=1
    )
    assert found.values.tolist() == [[4, 0, 0]]


@pytest.mark.parametrize("opset", [9, 17])
@pytest.mark.parametrize("engine", ["native", "reference"])
def test_external_data(model: Build, tmp_path: Path, engine: str, opset: int) -> None:
    proto = _large(model)
    proto.opset_import[0].version = opset
    x = np.ones((2, 3), np.float32)
    inside = igonnx.Explainer(proto, engine=engine).integrated_gradients(x, target=1, steps=5)
    path = tmp_path / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert path.stat().st_size < 1000
    found = igonnx.Explainer(path, engine=engine).integrated_gradients(x, target=1, steps=5)
    np.testing.assert_allclose(found.values, inside.values, rtol=1e-6)
    gradient = igonnx.gradient(path)
    onnx.save(gradient, tmp_path / "gradient.onnx")
    onnx.checker.check_model(str(tmp_path / "gradient.onnx"), full_check=True)


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_external_weights_with_reserved_names(model: Build, tmp_path: Path, engine: str) -> None:
    w = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    proto = model("(float[N, 3] x) => (float[N, 2] y) { y = MatMul(x, weight) }", {"weight": w})
    onnx.save(
        proto, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    found = igonnx.Explainer(tmp_path / "m.onnx", engine=engine).integrated_gradients(
        np.ones((1, 3), np.float32), target=0, steps=1
    )
    np.testing.assert_allclose(found.values[0], w[:, 0], rtol=1e-6)


# -- files that are no model -----------------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.onnx"
    for source in (path, str(path)):
        assert (
            _message(igonnx.ModelError, lambda s=source: igonnx.Explainer(s))
            == f"{path}: no such file"
        )
    assert _message(igonnx.ModelError, lambda: igonnx.gradient(path)) == f"{path}: no such file"


def test_folder(tmp_path: Path) -> None:
    message = _message(igonnx.ModelError, lambda: igonnx.Explainer(tmp_path))
    assert message == f"{tmp_path}: a folder, expected an ONNX file"


def test_truncated_files(data: Path, tmp_path: Path) -> None:
    whole = (data / "vit_dynamo.onnx").read_bytes()
    for length in (1, 7, 100, len(whole) // 2, len(whole) - 1):
        path = tmp_path / f"cut{length}.onnx"
        path.write_bytes(whole[:length])
        message = _message(igonnx.ModelError, lambda p=path: igonnx.Explainer(p))
        assert message.startswith((str(path), path.name))
        for said in (
            message,
            _message(igonnx.ModelError, lambda p=path: Model.load(p.read_bytes())),
        ):
            assert "not an ONNX model" in said or "not a valid ONNX model" in said


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"hello\n",
        b"This is a text file named .onnx.\n" * 50,
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        bytes(64),
    ],
    ids=["empty", "newline", "word", "text", "png", "zeros"],
)
def test_files_that_are_something_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.onnx"
    path.write_bytes(content)
    message = _message(igonnx.ModelError, lambda: igonnx.Explainer(path))
    assert message.startswith(f"{path}: not an ONNX model")
    assert f"{len(content):,} bytes" in message


def test_another_protobuf(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.ones((3, 3), np.float32), "t")
    path = tmp_path / "tensor.onnx"
    path.write_bytes(tensor.SerializeToString())
    assert "not an ONNX model" in _message(igonnx.ModelError, lambda: igonnx.Explainer(path))
    assert "not an ONNX model" in _message(
        igonnx.ModelError, lambda: Model.load(onnx.ModelProto().SerializeToString())
    )
    _message(igonnx.ModelError, lambda: Model.load(onnx.ModelProto()))


def test_invalid_graph(model: Build) -> None:
    proto = model("(float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }")
    proto.graph.node[0].input[0] = "nowhere"
    message = _message(igonnx.ModelError, lambda: igonnx.Explainer(proto))
    assert message.startswith("main: not a valid ONNX model: ")
    assert "nowhere" in message


def test_missing_external_data(model: Build, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(
        _large(model), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    (tmp_path / "weights.bin").unlink()
    message = _message(igonnx.ModelError, lambda: igonnx.Explainer(path))
    assert message.startswith("model.onnx: not a valid ONNX model: ")
    assert "weights.bin" in message
    onnx.save(
        _large(model), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    data = path.read_bytes()  # bytes know no folder to look into
    message = _message(
        igonnx.Error,
        lambda: igonnx.Explainer(data).integrated_gradients(np.ones((1, 3), np.float32), target=0),
    )
    assert "weights.bin" in message or "external" in message.lower()


@pytest.mark.parametrize("source", [None, 3, ["a.onnx"], np.zeros(3)], ids=str)
def test_wrong_type(source: Any) -> None:
    message = _message(igonnx.InputError, lambda: igonnx.Explainer(source))
    assert (
        message == f"model must be a path, bytes or an onnx.ModelProto, not {type(source).__name__}"
    )


# -- outputs and wrt -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def several(model: Build) -> onnx.ModelProto:
    return model(
        """(float[N, 3] image, int64[N, 1] ids) => (float[N, 3] logits, int64[N] best, float[N, 3] other) {
            h = Relu(image)
            logits = Mul(h, h)
            best = ArgMax<axis = 1, keepdims = 0>(logits)
            f = Cast<to = 1>(ids)
            other = Add(f, h)
        }"""
    )


def test_unknown_output(several: onnx.ModelProto) -> None:
    assert _message(igonnx.InputError, lambda: igonnx.Explainer(several, output="logit")) == (
        "unknown output 'logit'; the model has 'logits', 'best', 'other'; did you mean 'logits'?"
    )
    assert _message(igonnx.InputError, lambda: igonnx.Explainer(several, output="zzz")) == (
        "unknown output 'zzz'; the model has 'logits', 'best', 'other'"
    )
    for wrong in (3, ["logits"], b"logits"):
        message = _message(igonnx.InputError, lambda w=wrong: igonnx.Explainer(several, output=w))
        assert message.startswith(f"unknown output {wrong!r}; the model has")
    assert "did you mean 'logits'?" in _message(
        igonnx.InputError, lambda: igonnx.gradient(several, output="logit")
    )


def test_integer_output(several: onnx.ModelProto, model: Build) -> None:
    message = _message(igonnx.InputError, lambda: igonnx.Explainer(several, output="best"))
    assert message == "output 'best' is int64: only floating outputs can be explained"
    integers = model("(float[N, 3] x) => (int64[N] y) { y = ArgMax<axis = 1, keepdims = 0>(x) }")
    message = _message(igonnx.ModelError, lambda: igonnx.Explainer(integers))
    assert message == "main: no output is floating, so none has a gradient"


def test_wrong_wrt(several: onnx.ModelProto) -> None:
    known = "the model has 'image', 'ids', 'h', 'logits', 'best', 'f', 'other'"
    cases: list[tuple[Any, str]] = [
        ("imag", f"unknown tensor 'imag'; {known}; did you mean 'image'?"),
        (["image", "nothing"], f"unknown tensor 'nothing'; {known}"),
        ("ids", "wrt 'ids' is int64: only floating tensors have gradients"),
        ("best", "wrt 'best' is int64: only floating tensors have gradients"),
        ("logits", "wrt 'logits' is the output itself: there is nothing between them to explain"),
        ([], "wrt is empty: name at least one tensor"),
        (["image", "image"], "wrt names a tensor twice: ['image', 'image']"),
        ([3], f"unknown tensor 3; {known}"),
    ]
    for wrt, expected in cases:
        assert (
            _message(igonnx.InputError, lambda w=wrt: igonnx.Explainer(several, wrt=w)) == expected
        )
        assert (
            _message(igonnx.InputError, lambda w=wrt: igonnx.gradient(several, wrt=w)) == expected
        )


def test_wrt_without_a_path(several: onnx.ModelProto, model: Build) -> None:
    reason = "every path crosses an operator without a derivative, or there is none"
    message = _message(igonnx.ModelError, lambda: igonnx.Explainer(several, wrt="f"))
    assert message == f"main: no differentiable path from 'f' to output 'logits': {reason}"
    crossed = model(
        "(float[N, 3] x) => (float[N, 3] y) { i = Cast<to = 7>(x) \n f = Cast<to = 1>(i) \n y = Mul(f, f) }"
    )
    rows = np.ones((2, 3), np.float32)
    for action in (
        lambda: igonnx.Explainer(crossed).saliency(rows),
        lambda: igonnx.gradient(crossed),
    ):
        assert _message(igonnx.ModelError, action) == (
            f"main: no differentiable path from 'x' to output 'y': {reason}"
        )
    constant = model("(int64[N] x) => (float[1] y) { s = Shape(x) \n y = Cast<to = 1>(s) }")
    assert "no differentiable path from 'x' to output 'y'" in _message(
        igonnx.ModelError, lambda: igonnx.Explainer(constant)
    )


def test_wrt_filled_by_an_initializer(model: Build) -> None:
    proto = model(
        "(float[N, 3] x, float[3] w) => (float[N, 3] y) { y = Mul(x, w) }",
        {"w": np.ones(3, np.float32)},
    )
    message = _message(igonnx.InputError, lambda: igonnx.Explainer(proto, wrt="w"))
    assert message == "wrt 'w' is filled by an initializer: only what callers provide has a path"


def test_operator_without_a_rule() -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17, "custom": 1]>
        main (float[N, 3] image) => (float[N, 3] y) <float[N, 3] b> {
            a = Relu(image)
            b = custom.Mystery(a)
            y = Exp(b)
        }"""
    )
    for action in (
        lambda: igonnx.gradient(proto),
        lambda: igonnx.Explainer(proto).integrated_gradients(np.ones((1, 3), np.float32)),
    ):
        message = _message(igonnx.Error, action)
        assert "custom" in message
        assert "Mystery" in message
    assert "image -> " in _message(igonnx.UnsupportedOperatorError, lambda: igonnx.gradient(proto))


def test_outputs_without_a_shape(model: Build) -> None:
    """ONNX's checker wants one, ONNX Runtime does without."""
    proto = model("(float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    explainer = igonnx.Explainer(proto)
    assert explainer.model.outputs[0].shape == ("N", 3)


# -- the constructor's other arguments -------------------------------------------------------


def test_wrong_settings(mlp: onnx.ModelProto) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"engine": "cuda"}, "engine is 'cuda'; expected 'native' or 'reference'"),
        ({"engine": None}, "engine is None; expected 'native' or 'reference'"),
        ({"batch_size": 0}, "batch_size is 0; expected a whole number from 1 to 1048576, or None"),
        (
            {"batch_size": 2.0},
            "batch_size is 2.0; expected a whole number from 1 to 1048576, or None",
        ),
        (
            {"batch_size": True},
            "batch_size is True; expected a whole number from 1 to 1048576, or None",
        ),
        ({"threads": -1}, "threads is -1; expected a whole number from 1 to 1024, or None"),
        ({"apply": ("softmax", 2)}, "apply axis 2 is outside the output, which has 2 axes"),
    ]
    for options, expected in cases:
        assert _message(igonnx.InputError, lambda o=options: igonnx.Explainer(mlp, **o)) == expected
    for apply in (
        "relu",
        "",
        3,
        ("softmax",),
        ("softmax", "1"),
        ("relu", 1),
        ["softmax", 1],
        ("softmax", 1, 2),
    ):
        message = _message(igonnx.InputError, lambda a=apply: igonnx.Explainer(mlp, apply=a))
        assert message.startswith(
            f"apply is {apply!r}; expected None, 'softmax', 'log_softmax', 'sigmoid'"
        )


def test_apply_over_the_examples_is_refused(mlp: onnx.ModelProto, model: Build) -> None:
    explainer = igonnx.Explainer(mlp, apply=("softmax", 0))
    message = _message(
        igonnx.InputError, lambda: explainer.integrated_gradients(np.ones((2, 6), np.float32))
    )
    assert (
        message
        == "apply ('softmax', 0) would run over axis 0 of output 'logits', which counts the examples"
    )
    regression = model("(float[N] x) => (float[N] y) { y = Sin(x) }")
    explainer = igonnx.Explainer(regression, apply="log_softmax")
    message = _message(
        igonnx.InputError, lambda: explainer.integrated_gradients(np.ones(2, np.float32))
    )
    assert (
        message
        == "apply 'log_softmax' would run over axis 0 of output 'y', which counts the examples"
    )
    found = igonnx.Explainer(regression, apply="sigmoid").integrated_gradients(
        np.ones(2, np.float32)
    )
    assert found.values.shape == (2,)


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_unknown_provider(mlp: onnx.ModelProto, engine: str) -> None:
    explainer = igonnx.Explainer(mlp, providers=["MagicExecutionProvider"], engine=engine)
    message = _message(igonnx.EngineError, lambda: explainer.predict(np.ones((1, 6), np.float32)))
    assert "has no 'MagicExecutionProvider'; this build has " in message
    assert "CPUExecutionProvider" in message


def _classifier_with_maps(operator: str) -> onnx.ModelProto:
    number = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])
    maps = onnx.helper.make_sequence_type_proto(
        onnx.helper.make_map_type_proto(onnx.TensorProto.INT64, number)
    )
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Softmax", ["x"], ["p"]),
            onnx.helper.make_node(
                operator, ["p"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
            ),
        ],
        "classifier",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 2])],
        [onnx.helper.make_value_info("z", maps)],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("ai.onnx.ml", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_maps_of_classes_are_tensors() -> None:
    """skl2onnx's classifiers end in a ZipMap unless told otherwise."""
    proto = _classifier_with_maps("ZipMap")
    before = proto.SerializeToString()
    explainer = igonnx.Explainer(proto)
    x = np.array([[0.5, -1.0]], np.float32)
    scores = np.exp(x) / np.exp(x).sum()
    np.testing.assert_allclose(explainer.predict(x)["z"], scores, rtol=1e-6)
    found = explainer.integrated_gradients(x, target=0)
    assert abs(found.values.sum() - (scores[0, 0] - 0.5)) < 1e-5
    assert proto.SerializeToString() == before


def test_map_as_an_input() -> None:
    number = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])
    given = onnx.helper.make_map_type_proto(onnx.TensorProto.INT64, number)
    node = onnx.helper.make_node(
        "DictVectorizer", ["x"], ["y"], domain="ai.onnx.ml", int64_vocabulary=[0, 1]
    )
    graph = onnx.helper.make_graph(
        [node],
        "words",
        [onnx.helper.make_value_info("x", given)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 2])],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("ai.onnx.ml", 1)]
    proto = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    message = _message(igonnx.ModelError, lambda: igonnx.Explainer(proto))
    assert message == "words: input 'x' is a map: only models that take tensors can be explained"
