"""The README's examples run as they stand: Python blocks, and `igonnx` lines through the real command."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import skimage.data
import skimage.io
from onnx import TensorProto, helper, numpy_helper

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("igonnx ")]


@pytest.mark.parametrize("code", blocks("python"))
def test_python_examples_run(code: str, tmp_path: Path) -> None:
    checks = (
        "\nif 'result' in dir():"
        "\n    assert result.values.shape == (4, 1, 8, 8)"
        "\n    assert result.target == [(2,), (8,), (7,), (2,)]"
        "\n    assert (sure.relative_delta < 0.01).all()"
        "\n    assert picture.shape == (8, 8, 3)"
        "\nelif 'several' in dir():"
        "\n    assert regions.values.shape == expected.values.shape == several.values.shape"
        "\n    assert smooth.values.min() >= 0 and outlined.shape == (8, 8, 3)"
        "\nelif 'shares' in dir():"
        "\n    assert len(names) == 3 and names[0] == '/2/Relu_output_0: Relu, float32 [batch, 16, 8, 8]'"
        "\n    assert places.values.shape == neuron.values.shape == hidden.values.shape == shares.values.shape"
        "\n    assert through.values.shape == (2, 48, 2, 2) and abs(shares.delta).max() < 1e-6"
        "\nelif 'explained' in dir():"
        "\n    assert {v.name for v in explained.graph.input} == {'image', 'target', 'baseline', 'explain'}"
        "\n    outputs = ['attribution_image', 'completeness_delta', 'heatmap_image', 'overlay_image']"
        "\n    assert [v.name for v in explained.graph.output] == ['logits', *outputs]"
        "\nelse:"
        "\n    assert [v.name for v in model.graph.output] == ['logits', 'grad_image']"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code + checks],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the command examples name."""
    folder = tmp_path_factory.mktemp("readme")
    rng = np.random.default_rng(7)
    onnx.save(image_model(rng), folder / "model.onnx")
    onnx.save(tabular_model(rng), folder / "tabular.onnx")
    onnx.save(tree_model(), folder / "trees.onnx")
    skimage.io.imsave(folder / "cat.jpg", skimage.data.chelsea(), check_contrast=False)
    skimage.io.imsave(folder / "dog.jpg", skimage.data.astronaut(), check_contrast=False)
    np.save(folder / "rows.npy", rng.standard_normal((5, 4)).astype(np.float32))
    np.save(folder / "mean.npy", np.zeros(4, np.float32))
    return folder


def image_model(rng: np.random.Generator) -> onnx.ModelProto:
    weights = {
        "w": rng.standard_normal((8, 3, 3, 3)) * 0.3,
        "b": rng.standard_normal(8),
        "v": rng.standard_normal((8, 5)),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["c"], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["logits"]),
    ]
    return made(nodes, weights, ("image", ["n", 3, 32, 32]), ("logits", ["n", 5]))


def tabular_model(rng: np.random.Generator) -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])]
    return made(nodes, {"w": rng.standard_normal((4, 3))}, ("x", ["n", 4]), ("y", ["n", 3]))


def tree_model() -> onnx.ModelProto:
    """One question: 2 if x[0] <= 0.5, else 5."""
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[0.5, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0, 0],
        target_nodeids=[1, 2],
        target_ids=[0, 0],
        target_weights=[2.0, 5.0],
    )
    return made([node], {}, ("x", ["n", 4]), ("y", ["n", 1]))


def made(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    source: tuple[str, list[str | int]],
    target: tuple[str, list[str | int]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "readme",
        [helper.make_tensor_value_info(source[0], TensorProto.FLOAT, source[1])],
        [helper.make_tensor_value_info(target[0], TensorProto.FLOAT, target[1])],
        [
            numpy_helper.from_array(array.astype(np.float32), name)
            for name, array in weights.items()
        ],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


# They run for ever, or on extras: tests/serving and tests/scale run them.
ELSEWHERE = ("igonnx serve ", "igonnx batch ")


@pytest.mark.parametrize("command", [one for one in commands() if one.startswith(ELSEWHERE)])
def test_options_exist_of_commands_that_are_run_elsewhere(command: str) -> None:
    words = shlex.split(command)
    done = subprocess.run(
        [sys.executable, "-m", *words[:2], "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    options = [word for word in words if word.startswith("-")]
    assert options
    assert all(re.search(rf"(?<!\S){option}(?!\S)", done.stdout) for option in options)


@pytest.mark.parametrize("command", [one for one in commands() if not one.startswith(ELSEWHERE)])
def test_commands_run(command: str, folder: Path) -> None:
    words = shlex.split(command)
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for option, *names in (
        ("-o", "why.png", "outline.png", "places.png", "pictures"),
        ("--save", "out.npz"),
    ):
        written = [
            name
            for name in names
            if option in words and words[words.index(option) + 1].rstrip("/") == name
        ]
        assert all((folder / name).exists() for name in written)


def test_readme_has_examples() -> None:
    assert len(blocks("python")) >= 2
    assert len(commands()) >= 5


def test_make_demo_names_options_that_exist() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text(encoding="utf-8")
    (line,) = re.findall(r"igonnx demo (.*)$", makefile, flags=re.MULTILINE)
    help_text = subprocess.run(
        [sys.executable, "-m", "igonnx", "demo", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for option in (word for word in line.split() if word.startswith("-")):
        assert option in help_text.split()
