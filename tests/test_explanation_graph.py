"""The explanation graph by itself: its interface, and its numbers in a plain session of ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray

import igonnx
from igonnx.explanation_graph import ExplanationGraph, build_explanation_graph
from igonnx.model import Model
from igonnx.row_gradient import build_row_gradient
from igonnx.row_scores import batch_axis_of, normalised_apply

Build = Callable[..., onnx.ModelProto]
DATA = Path(__file__).parent / "data"


def _graph(
    proto: Any, wrt: list[str], *, batched: tuple[str, ...] = (), output: str = "y", **options: Any
) -> ExplanationGraph:
    return build_explanation_graph(
        build_row_gradient(Model.load(proto), output=output, wrt=wrt, **options), batched
    )


def _session(graph: ExplanationGraph) -> onnxruntime.InferenceSession:
    proto = ir.to_proto(graph.model)
    onnx.checker.check_model(proto, full_check=True)
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )


@pytest.fixture(scope="module")
def two(model: Build) -> onnx.ModelProto:
    """y = tanh((a * b + shift + scale) W): shift is per example, scale shared, unused not needed."""
    return model(
        """(float[N, 3] a, float[N, 3] b, float[N, 1] shift, float scale, int64[N] unused)
            => (float[N, 2] y, int64[N] copy) {
            p = Mul(a, b)
            q = Add(p, shift)
            r = Add(q, scale)
            h = MatMul(r, w)
            y = Tanh(h)
            copy = Identity(unused)
        }""",
        {"w": np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)},
    )


def test_interface(two: onnx.ModelProto) -> None:
    graph = _graph(two, ["a", "b"], batched=("shift",))
    assert graph.explained == ("a", "b")
    assert graph.batched == ("fixed:shift",)
    assert graph.shared == ("fixed:scale",)
    assert graph.dtype == np.float32
    assert graph.fixed_rows is None
    session = _session(graph)
    declared = {value.name: (value.type, value.shape) for value in session.get_inputs()}
    floats = "tensor(float)"
    assert declared == {
        "x:a": (floats, ["requests", 3]),
        "baseline:a": (floats, ["requests", 3]),
        "x:b": (floats, ["requests", 3]),
        "baseline:b": (floats, ["requests", 3]),
        "fixed:shift": (floats, ["requests", 1]),
        "fixed:scale": (floats, []),
        "row": ("tensor(int64)", ["rows"]),
        "alpha": (floats, ["rows"]),
        "weight": (floats, ["rows"]),
        "cotangent": (floats, ["requests", 2]),
    }
    returned = {value.name: (value.type, value.shape) for value in session.get_outputs()}
    assert returned == {
        "weighted_gradient:a": (floats, ["requests", 3]),
        "weighted_gradient:b": (floats, ["requests", 3]),
        "score": (floats, ["rows"]),
        "slope": (floats, ["rows"]),
    }
    described = json.loads(session.get_modelmeta().custom_metadata_map["igonnx.explanation_graph"])
    assert described == {
        "explained": ["a", "b"],
        "batched": ["fixed:shift"],
        "shared": ["fixed:scale"],
        "dtype": "float32",
        "fixed_rows": None,
    }


def _feeds(requests: int, rows: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)

    def floats(*shape: int) -> NDArray[np.float32]:
        return rng.normal(size=shape).astype(np.float32)

    return {
        "x:a": floats(requests, 3), "baseline:a": floats(requests, 3),
        "x:b": floats(requests, 3), "baseline:b": floats(requests, 3),
        "fixed:shift": floats(requests, 1), "fixed:scale": np.array(0.7, np.float32),
        "row": np.sort(rng.integers(0, requests, rows)), "alpha": rng.random(rows).astype(np.float32),
        "weight": floats(rows), "cotangent": floats(requests, 2),
    }  # fmt: skip


@pytest.mark.parametrize(("requests", "rows"), [(1, 1), (1, 5), (3, 8), (4, 2)])
def test_numbers(two: onnx.ModelProto, requests: int, rows: int) -> None:
    feeds = _feeds(requests, rows)
    names = ["weighted_gradient:a", "weighted_gradient:b", "score", "slope"]
    session = _session(_graph(two, ["a", "b"], batched=("shift",)))
    found = dict(zip(names, session.run(names, feeds), strict=True))
    wide = {name: array.astype(np.float64) for name, array in feeds.items() if name != "row"}
    row, alpha = feeds["row"], wide["alpha"][:, None]
    w = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32).astype(np.float64)
    path = {n: (wide[f"x:{n}"] - wide[f"baseline:{n}"])[row] for n in "ab"}
    z = {n: wide[f"baseline:{n}"][row] + alpha * path[n] for n in "ab"}
    y = np.tanh((z["a"] * z["b"] + wide["fixed:shift"][row] + wide["fixed:scale"]) @ w)
    inner = ((1 - y**2) * wide["cotangent"][row]) @ w.T
    gradients = {"a": inner * z["b"], "b": inner * z["a"]}
    np.testing.assert_allclose(
        found["score"], (y * wide["cotangent"][row]).sum(1), rtol=1e-4, atol=1e-6
    )
    slope = sum((gradients[n] * path[n]).sum(1) for n in "ab")
    np.testing.assert_allclose(found["slope"], slope, rtol=1e-4, atol=1e-5)
    for name, gradient in gradients.items():
        total = np.zeros((requests, 3))
        np.add.at(total, row, wide["weight"][:, None] * gradient)
        np.testing.assert_allclose(found[f"weighted_gradient:{name}"], total, rtol=1e-4, atol=1e-5)


def test_rows_of_a_request_that_is_not_named_add_nothing(two: onnx.ModelProto) -> None:
    feeds = _feeds(3, 4)
    feeds["row"] = np.array([0, 0, 2, 2])
    session = _session(_graph(two, ["a", "b"], batched=("shift",)))
    found = session.run(["weighted_gradient:a"], feeds)[0]
    assert (found[1] == 0).all()
    assert (np.abs(found[[0, 2]]).max(axis=1) > 0).all()


def test_inputs_that_are_not_needed_are_gone(two: onnx.ModelProto) -> None:
    for wrt, gone in ((["a"], "unused"), (["h"], "shift")):
        graph = _graph(two, wrt, batched=("shift", "b"))
        names = [value.name for value in graph.model.graph.inputs]
        assert f"fixed:{gone}" not in names
        assert gone not in names
    assert names == ["x:h", "baseline:h", "row", "alpha", "weight", "cotangent"]


def test_fixed_rows(two: onnx.ModelProto) -> None:
    graph = _graph(two, ["a"], batched=("b", "shift"), fixed_rows=4)
    assert graph.fixed_rows == 4
    shapes = {value.name: value.shape for value in _session(graph).get_inputs()}
    assert shapes["row"] == shapes["alpha"] == shapes["weight"] == [4]
    assert shapes["x:a"] == ["requests", 3]


@pytest.mark.parametrize("path", sorted(DATA.glob("*.onnx")), ids=lambda path: path.stem)
def test_exported_models_give_valid_graphs_of_standard_operators(path: Path) -> None:
    explainer = igonnx.Explainer(path)
    model = explainer.model
    fixed = [info.name for info in model.inputs]
    graph = build_explanation_graph(
        build_row_gradient(model, output=explainer.output, wrt=explainer.wrt, apply="softmax"),
        fixed,
    )
    proto = ir.to_proto(graph.model)
    onnx.checker.check_model(proto, full_check=True)
    own = {node.domain for node in Model.load(path).ir.graph.all_nodes()}
    assert {node.domain for node in proto.graph.node} <= own | {""}
    names = [value.name for value in (*proto.graph.input, *proto.graph.output)]
    assert len(set(names)) == len(names)


def test_building_twice_changes_nothing(two: onnx.ModelProto) -> None:
    model = Model.load(two)
    before = ir.to_proto(model.ir).SerializeToString(deterministic=True)
    first, second = (
        ir.to_proto(_graph(model, ["a"], batched=("b", "shift")).model).SerializeToString(
            deterministic=True
        )
        for _ in range(2)
    )
    assert first == second
    assert ir.to_proto(model.ir).SerializeToString(deterministic=True) == before


def test_batch_axis(model: Build) -> None:
    def axis(inputs: str, output: str) -> int | None:
        loaded = Model.load(
            model(
                f"(float[{inputs}] x) => (float[{output}] y) {{ y = Transpose<perm = [1, 0]>(x) }}"
            )
        )
        return batch_axis_of(loaded.find_output("y"), loaded.input_values)

    assert axis("N, T", "T, N") == 1
    assert axis("N, T", "N, T") == 0  # what is declared, is believed
    assert axis("N, T", "A, B") is None
    assert axis("2, T", "T, 2") is None


def test_apply_axes() -> None:
    assert normalised_apply(None, 2) is None
    assert normalised_apply("softmax", 2) == ("Softmax", 1)
    assert normalised_apply("softmax", 3) == ("Softmax", 2)
    assert normalised_apply("log_softmax", 4) == ("LogSoftmax", 1)
    assert normalised_apply(("softmax", -1), 4) == ("Softmax", 3)
    assert normalised_apply("sigmoid", 0) == ("Sigmoid", 0)
    with pytest.raises(
        igonnx.InputError, match=r"^apply axis -1 is outside the output, which has 0 axes$"
    ):
        normalised_apply("softmax", 0)


def test_refusals(two: onnx.ModelProto) -> None:
    message = r"^main: no gradient reaches 'a' from output 'y'; explain other tensors with wrt=$"
    with pytest.raises(igonnx.ModelError, match=message):
        _graph(two, ["a", "h"])  # h cuts a off
    with pytest.raises(igonnx.InputError, match=r"^wrt 'scale' is a scalar: it has no batch axis"):
        _graph(two, ["scale"])
