"""Whole networks as onnxruntime's optimiser leaves them: their gradients are those of the original files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from lowering_cases.check import session
from onnx import TensorProto, helper, numpy_helper

import igonnx

DATA = Path(__file__).parent.parent / "data"
EMBEDDINGS = {
    "bert_dynamo": "embedding",
    "bert_script": "/model/bert/embeddings/word_embeddings/Gather_output_0",
}


def _gradient(path: Path, wrt: str | None, feeds: dict[str, np.ndarray]) -> np.ndarray:
    built = session(igonnx.gradient(path, wrt=wrt))
    (name,) = (output.name for output in built.get_outputs() if output.name.startswith("grad_"))
    (cotangent,) = (i for i in built.get_inputs() if i.name.startswith("cotangent_"))
    shape = session(onnx.load(path)).run(None, feeds)[0].shape
    weights = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return built.run([name], {**feeds, cotangent.name: weights})[0]


@pytest.mark.parametrize("level", ["BASIC", "EXTENDED"])
@pytest.mark.parametrize(
    "name",
    [
        f"{stem}_{exporter}"
        for stem in ("bert", "vit", "resnet", "mobilenet_v2", "mobilenet_v2_any_size", "convnext")
        for exporter in ("dynamo", "script")
    ],
)
def test_optimised_file(name: str, level: str, tmp_path: Path):
    path, wrt = DATA / f"{name}.onnx", EMBEDDINGS.get(name)
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    runtime = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given = np.load(DATA / f"{name}.npz")
    feeds = {i.name: given[i.name] for i in runtime.get_inputs()}
    expected = _gradient(path, wrt, feeds)
    actual = _gradient(tmp_path / "optimised.onnx", wrt, feeds)
    assert np.abs(actual - expected).max() <= 2e-6 * np.abs(expected).max()


def _network(nodes, inputs, weights, domains, *, opset: int) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "S", 16])
    initializers = [
        numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()
    ]
    graph = helper.make_graph(nodes, "network", values, [output], initializers)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def _node(operator, inputs, outputs, domain="com.microsoft", **attributes):
    names = {"name": f"{operator}_{outputs}", "domain": domain}
    return helper.make_node(operator, inputs.split(" "), outputs.split(" "), **names, **attributes)


def _weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=s).astype(np.float32) * 0.4 for name, s in shapes.items()}


def _check_differences(model: onnx.ModelProto, wrt: str | None, feeds: dict[str, np.ndarray]):
    """The gradient of a network by an inner tensor, against differences of the rest of the network."""
    built = igonnx.gradient(model, wrt=wrt)
    name = next(o.name for o in built.graph.output if o.name.startswith("grad_"))
    tensor = name.removeprefix("grad_")
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    rng, step = np.random.default_rng(2), 2e-3
    model.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
    y, point = session(model).run(["y", tensor], feeds)
    cotangent = rng.standard_normal(y.shape).astype(np.float32)
    slope = session(built).run([name], {**feeds, "cotangent_y": cotangent})[0]
    for node in rest.graph.node:
        node.output[:] = [f"{o}_of_before" if o == tensor else o for o in node.output]
    if tensor not in {value.name for value in rest.graph.input}:
        rest.graph.input.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
    runtime = session(rest)
    for _ in range(3):
        direction = rng.standard_normal(point.shape).astype(np.float32)
        ahead, behind = (
            runtime.run(["y"], {**feeds, tensor: point + s * step * direction})[0].astype(float)
            for s in (1, -1)
        )
        difference = ((ahead - behind) * cotangent).sum() / (2 * step)
        size = np.abs(slope * direction).sum()
        assert abs((slope * direction).sum() - difference) <= 1e-3 * size


def test_encoder():
    """BERT as onnxruntime.transformers fuses it: embeddings, attention and feed-forward in one operator each."""
    weights = _weights(
        words=(20, 16), places=(8, 16), kinds=(2, 16), g=(16,), b=(16,), qkv=(16, 48), qkv_b=(48,),
        out=(16, 16), up=(16, 32), up_b=(32,), down=(32, 16), bias=(16,),
    )  # fmt: skip
    nodes = [
        _node("EmbedLayerNormalization", "ids kind words places kinds g b mask", "e count",
              epsilon=1e-5),
        _node("Attention", "e qkv qkv_b count", "a", num_heads=4),
        _node("MatMul", "a out", "o", ""),
        _node("SkipLayerNormalization", "o e g b bias", "n", epsilon=1e-5),
        _node("MatMul", "n up", "u", ""),
        _node("FastGelu", "u up_b", "f"),
        _node("MatMul", "f down", "d", ""),
        _node("SkipLayerNormalization", "d n g b", "y", epsilon=1e-5),
    ]  # fmt: skip
    inputs = [(name, TensorProto.INT32, ["N", "S"]) for name in ("ids", "kind", "mask")]
    model = _network(nodes, inputs, weights, ["com.microsoft"], opset=17)
    feeds = {
        "ids": np.array([[3, 1, 19, 0], [5, 5, 2, 7]], np.int32),
        "kind": np.array([[0, 0, 1, 1], [0, 1, 1, 1]], np.int32),
        "mask": np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.int32),
    }
    _check_differences(model, None, feeds)


@pytest.mark.parametrize("opset", [14, 17, 21])
def test_decoder(opset: int):
    """A block of a language model: root mean square norms in the standard domain, grouped attention, gated units."""
    weights = _weights(
        table=(20, 16), g=(16,), wq=(16, 64), wk=(16, 32), wv=(16, 32), wo=(64, 16),
        up=(16, 24), down=(24, 16), cos=(16, 8), sin=(16, 8),
    ) | {"ends": np.array([3, 3], np.int32), "total": np.array(4, np.int32)}  # fmt: skip
    nodes = [
        _node("Gather", "table ids", "e", ""),
        _node("SimplifiedLayerNormalization", "e g", "n", "", epsilon=1e-5, axis=-1),
        *(_node("MatMul", f"n w{name}", name, "") for name in "qkv"),
        _node("GroupQueryAttention", "q k v   ends total cos sin", "a pk pv",
              num_heads=4, kv_num_heads=2, do_rotary=1),
        _node("MatMul", "a wo", "o", ""),
        _node("SkipSimplifiedLayerNormalization", "o e g", "m   s", epsilon=1e-5),
        _node("MatMul", "m up", "u", ""),
        _node("QuickGelu", "u", "f", alpha=1.0),
        _node("MatMul", "f down", "d", ""),
        _node("SkipSimplifiedLayerNormalization", "d s g", "y", epsilon=1e-5),
    ]  # fmt: skip
    inputs = [("ids", TensorProto.INT64, ["N", "S"])]
    model = _network(nodes, inputs, weights, ["com.microsoft"], opset=opset)
    feeds = {"ids": np.array([[3, 1, 19, 0], [5, 5, 2, 7]])}
    _check_differences(model, "e", feeds)


def test_layer_normalization_of_an_old_opset():
    """The optimiser writes LayerNormalization into the standard domain of files older than that operator."""
    weights = _weights(table=(20, 16), g=(16,), b=(16,))
    nodes = [
        _node("Gather", "table ids", "e", ""),
        _node("LayerNormalization", "e g b", "y", "", epsilon=1e-5, axis=-1),
    ]
    inputs = [("ids", TensorProto.INT64, ["N", "S"])]
    model = _network(nodes, inputs, weights, [], opset=12)
    _check_differences(model, "e", {"ids": np.array([[3, 1, 19, 0], [5, 5, 2, 7]])})


def test_operators_nobody_knows_are_not_let_through():
    model = _network(
        [_node("Nonsense", "x", "y", "")], [("x", 1, ["N", "S", 16])], {}, [], opset=17
    )
    with pytest.raises(igonnx.ModelError, match="Nonsense"):
        igonnx.gradient(model)
