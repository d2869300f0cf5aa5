"""`igonnx.compile`: the explanation graph as a file that any runtime can run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

import igonnx
from igonnx.models import digits
from igonnx.quadrature import nodes_and_weights

Build = Callable[..., onnx.ModelProto]


def _run(model: onnx.ModelProto, feeds: dict[str, Any]) -> dict[str, NDArray[Any]]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def _said(model: onnx.ModelProto, key: str) -> dict[str, Any]:
    found = {entry.key: entry.value for entry in model.metadata_props}
    return dict(json.loads(found[key]))


def test_rows_make_integrated_gradients() -> None:
    images = digits.test_set()[0][:3]
    model = igonnx.compile(digits.load(), apply="softmax")
    alpha, weight = (array.astype(np.float32) for array in nodes_and_weights("middle", 20))
    expected = igonnx.Explainer(digits.load(), apply="softmax").integrated_gradients(
        images, target=[1, 2, 3], steps=20, rule="middle"
    )
    found = _run(
        model,
        {
            "x:image": images,
            "baseline:image": np.zeros_like(images),
            "row": np.repeat(np.arange(3), 20),
            "alpha": np.tile(alpha, 3),
            "weight": np.tile(weight, 3),
            "cotangent": np.eye(10, dtype=np.float32)[[1, 2, 3]],
        },
    )
    total = found["weighted_gradient:image"] * images
    np.testing.assert_allclose(total, expected.values, atol=1e-6)
    np.testing.assert_allclose(
        found["score"].reshape(3, 20), np.stack([p.score[1:-1] for p in expected.path]), atol=1e-6
    )


def test_metadata() -> None:
    model = igonnx.compile(digits.load(), apply="softmax")
    assert _said(model, "igonnx.explanation_graph") == {
        "explained": ["image"],
        "batched": [],
        "shared": [],
        "dtype": "float32",
        "fixed_rows": None,
    }
    assert _said(model, "igonnx.compiled") == {
        "version": igonnx.__version__,
        "output": "logits",
        "batch_axis": 0,
        "apply": "softmax",
        "straight_through": True,
    }


def test_which_inputs_count_examples_is_told_without_running(model: Build) -> None:
    graph = model(
        "(float[N, 3] x, float[N, 3] scale, float[K, 3] table) => (float[N, K] y) "
        "{ s = Mul(x, scale) \n t = Transpose(table) \n y = MatMul(s, t) }"
    )
    said = _said(igonnx.compile(graph, wrt="x"), "igonnx.explanation_graph")
    assert (said["batched"], said["shared"]) == (["fixed:scale"], ["fixed:table"])
    own_names = model(
        "(float[N, 3] x, float[M, 3] scale) => (float[K, 3] y) { s = Mul(x, scale) \n y = Sin(s) }"
    )
    said = _said(igonnx.compile(own_names, wrt="x"), "igonnx.explanation_graph")
    assert (said["batched"], said["shared"]) == (["fixed:scale"], [])
    fixed = model(
        "(float[N, 3] x, float[N, 3] scale, float[4, 3] table) => (float[N, 4] y) "
        "{ s = Mul(x, scale) \n t = Transpose(table) \n y = MatMul(s, t) }"
    )
    said = _said(igonnx.compile(fixed, wrt="x"), "igonnx.explanation_graph")
    assert (said["batched"], said["shared"]) == (["fixed:scale"], ["fixed:table"])


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ("f = Reshape(x, flat) \n h = MatMul(f, w) \n y = Tanh(h)", None),
        ("s = Squeeze(x, zero) \n f = Reshape(s, flat) \n h = MatMul(f, w) \n y = Tanh(h)", 1),
    ],
)
def test_a_fixed_batch(model: Build, body: str, rows: int | None) -> None:
    weights = {"w": np.ones((6, 4), np.float32), "flat": np.array([1, -1]), "zero": np.array([0])}
    used = {name: array for name, array in weights.items() if f"{name})" in body}
    graph = model(f"(float[1, 2, 3] x) => (float[1, 4] y) {{ {body} }}", used)
    said = _said(igonnx.compile(graph), "igonnx.explanation_graph")
    assert said["fixed_rows"] == rows


def test_time_before_batch_is_refused(model: Build) -> None:
    graph = model(
        "(float[T, N, 3] x) => (float[N, 3] y) { s = Sin(x) \n y = ReduceSum<keepdims = 0>(s, zero) }",
        {"zero": np.array([0])},
    )
    message = "counts examples by 'N', which is axis 1 of input 'x'"
    for build in (igonnx.compile, igonnx.augment):
        with pytest.raises(igonnx.ModelError, match=message):
            build(graph)


def test_external_data_stay_outside(tmp_path: Path) -> None:
    path = tmp_path / "digits.onnx"
    onnx.save(
        digits.load(), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    model = igonnx.compile(path)
    external = [t.name for t in model.graph.initializer if t.data_location == t.EXTERNAL]
    assert "0.weight" in external
    assert model.ByteSize() < 40_000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"wrt": "nothing"}, "^unknown tensor 'nothing'"),
        ({"output": "nothing"}, "^unknown output 'nothing'"),
        ({"apply": "relu"}, "^apply is 'relu'"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(igonnx.InputError, match=message):
        igonnx.compile(digits.load(), **settings)


def test_an_explanation_graph_is_not_compiled_again() -> None:
    with pytest.raises(igonnx.InputError, match="is an explanation graph already"):
        igonnx.compile(igonnx.compile(digits.load()))
