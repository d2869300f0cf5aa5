"""`Explainer` on other dtypes, old opsets, colliding names, and values at the edge."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
from explaining import Build, assert_complete, each_engine, random

import igonnx

# -- dtypes, opsets, names ---------------------------------------------------------------------


@each_engine
@pytest.mark.parametrize(("onnx_type", "dtype"), [("float16", np.float16), ("double", np.float64)])
def test_other_floats(model: Build, engine: str, onnx_type: str, dtype: type) -> None:
    w = random(3, 2).astype(dtype)
    graph = model(
        f"({onnx_type}[N, 3] x) => ({onnx_type}[N, 2] y) {{ h = MatMul(x, w) \n y = Tanh(h) }}",
        {"w": w},
    )
    x = random(2, 3, seed=6).astype(dtype)
    found = igonnx.Explainer(graph, engine=engine).integrated_gradients(x, target=1, steps=30)
    # a contribution may exceed what float16 holds
    assert found.values.dtype == (np.float64 if dtype is np.float64 else np.float32)
    parts = x.astype(np.float64) * w[:, 1]
    total = parts.sum(axis=1, keepdims=True)
    bound = 1e-11 if dtype is np.float64 else 5e-3
    np.testing.assert_allclose(found.values, parts / total * np.tanh(total), atol=bound)
    assert found.scores.dtype == np.float64


@each_engine
def test_float_and_double_together(model: Build, engine: str) -> None:
    graph = model(
        "(float[N, 2] a, double[N, 2] b) => (double[N, 2] y) { c = Cast<to = 11>(a) \n p = Mul(c, b) \n y = Sin(p) }"
    )
    inputs = {"a": random(2, 2), "b": random(2, 2, seed=1).astype(np.float64)}
    found = igonnx.Explainer(graph, engine=engine).integrated_gradients(inputs, target=0, steps=30)
    assert {name: array.dtype for name, array in found.values.items()} == {
        "a": np.float64,
        "b": np.float64,
    }
    assert np.abs(found.delta).max() < 1e-7


def test_old_opset_and_initializers_listed_as_inputs(model: Build) -> None:
    w = random(4, 3)
    graph = model(
        """(float[1, 4] x, float[4, 3] w) => (float[1, 3] y) {
            d, unused = Dropout<ratio = 0.5>(x)
            u = Unsqueeze<axes = [0]>(d)
            q = Squeeze<axes = [0]>(u)
            h = MatMul(q, w)
            y = Softmax<axis = 1>(h)
        }""",
        {"w": w},
        opset=9,
        ir_version=3,
    )
    explainer = igonnx.Explainer(graph)
    assert [info.name for info in explainer.model.inputs] == ["x"]
    assert explainer.model.file_opset == 9
    found = explainer.integrated_gradients(random(2, 4, seed=1), target=2, steps=50)
    assert_complete(found)


def test_overridable_initializers_keep_their_values(model: Build) -> None:
    graph = model(
        "(float[N, 3] x, float[3] scale) => (float[N, 3] y) { y = Mul(x, scale) }",
        {"scale": np.float32([1, 2, 3])},
    )
    explainer = igonnx.Explainer(graph)
    assert explainer.wrt == ("x",)
    found = explainer.integrated_gradients(np.ones((1, 3), np.float32), steps=1)
    np.testing.assert_array_equal(found.values, [[0, 0, 3]])


NAMES = [
    "row", "alpha", "weight", "cotangent", "score", "slope", "x", "z:x", "x:x", "baseline:x", "fixed:x",
    "gradient:x", "weighted_gradient:x", "rows", "requests", "igonnx/Mul", "igonnx/constant", "plan/Gather", "batch",
]  # fmt: skip


def _with_names(role: str) -> onnx.ModelProto:
    """A model in which tensors of one role carry every name that igonnx uses itself."""
    node, inputs, weights = onnx.helper.make_node, ["IN"], []
    if role == "input":
        inputs = NAMES
        nodes = [node("Sum", NAMES, ["last"])]
    elif role == "fixed":
        inputs = ["IN", *NAMES]
        nodes = [node("Sum", NAMES, ["sum"]), node("Mul", ["IN", "sum"], ["last"])]
    elif role == "inner":
        chain = ["IN", *NAMES, "last"]
        nodes = [node("Sin", [a], [b]) for a, b in pairwise(chain)]
    elif role == "weight":
        weights = NAMES
        nodes = [node("Sum", NAMES, ["sum"]), node("Mul", ["IN", "sum"], ["last"])]
    else:
        chain = ["IN", *(f"t{i}" for i in range(len(NAMES) - 1)), "last"]
        nodes = [
            node("Sin", [a], [b], name=n) for (a, b), n in zip(pairwise(chain), NAMES, strict=False)
        ]
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [*nodes, node("Tanh", ["last"], ["OUT"])],
        "names",
        [info(name, onnx.TensorProto.FLOAT, ["rows", 3]) for name in inputs],
        [info("OUT", onnx.TensorProto.FLOAT, ["rows", 3])],
        [onnx.numpy_helper.from_array(random(3, seed=i), name) for i, name in enumerate(weights)],
    )
    return onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )


@each_engine
@pytest.mark.parametrize("role", ["input", "fixed", "inner", "weight", "node"])
def test_tensors_may_have_any_name(role: str, engine: str) -> None:
    proto = _with_names(role)
    before = proto.SerializeToString()
    explainer = igonnx.Explainer(proto, wrt=None if role == "input" else "IN", engine=engine)
    inputs = {info.name: random(2, 3, seed=i) / 4 for i, info in enumerate(explainer.model.inputs)}
    found = explainer.integrated_gradients(inputs, target=1, steps=20)
    assert_complete(found)
    if role == "input":
        assert list(explainer.wrt) == NAMES
    if role == "inner":
        for name in ("score", "gradient:x"):
            inner = igonnx.Explainer(proto, wrt=name, engine=engine).integrated_gradients(
                inputs, target=1, steps=20
            )
            assert_complete(inner)
    assert proto.SerializeToString() == before  # the caller's model stays as it was


@each_engine
@pytest.mark.parametrize("name", ["row", "score", "x", "x:x", "weighted_gradient:x", "igonnx/Mul"])
def test_outputs_may_have_any_name(name: str, engine: str) -> None:
    proto = _with_names("node")
    proto.graph.output[0].name = proto.graph.node[-1].output[0] = name
    explainer = igonnx.Explainer(proto, engine=engine)
    assert_complete(explainer.integrated_gradients(random(2, 3), target=1, steps=20))
    assert list(explainer.predict(random(2, 3))) == [name]


@each_engine
def test_model_with_a_branch_outside_the_gradient(model: Build, engine: str) -> None:
    graph = model(
        """(float[N, 2] x, bool flag) => (float[N, 2] y) {
            factor = If (flag) <
                then_branch = then () => (float[1] row) { row = Constant<value = float[1] {3.0}>() },
                else_branch = other () => (float[1] alpha) { alpha = Constant<value = float[1] {5.0}>() }
            >
            y = Mul(x, factor)
        }"""
    )
    explainer = igonnx.Explainer(graph, engine=engine)
    for flag, factor in ((True, 3), (False, 5)):
        found = explainer.integrated_gradients(
            {"x": np.float32([[1, 2]]), "flag": np.array(flag)}, target=1
        )
        np.testing.assert_allclose(found.values, [[0, 2 * factor]], rtol=1e-6)


# -- values at the edge ------------------------------------------------------------------------


@each_engine
def test_an_additive_mask_may_be_infinite(model: Build, engine: str) -> None:
    graph = model(
        "(float[N, 3] x, float[N, 3] mask) => (float[N, 3] y) { a = Add(x, mask) \n y = Softmax(a) }"
    )
    x = random(2, 3)
    mask = np.array([[0, 0, -np.inf]] * 2, np.float32)
    explainer = igonnx.Explainer(graph, wrt="x", engine=engine)
    found = explainer.integrated_gradients({"x": x, "mask": mask}, target=0)
    assert np.abs(found.values[:, 2]).max() == 0
    assert_complete(found)


@each_engine
@pytest.mark.parametrize("rule", ["gauss_legendre", "right", "middle"])
def test_a_singularity_at_the_baseline_alone_does_no_harm(
    model: Build, engine: str, rule: str
) -> None:
    graph = model("(float[N, 3] x) => (float[N, 3] y) { y = Sqrt(x) }")
    x = np.array([[1.0, 4.0, 9.0]], np.float32)
    explainer = igonnx.Explainer(graph, engine=engine)
    found = explainer.integrated_gradients(x, target=1, steps=400, rule=rule)
    np.testing.assert_allclose(found.values, [[0, 2, 0]], atol=0.08)
    assert found.baseline_scores[0] == 0


@each_engine
def test_half_precision_contributions_do_not_overflow(model: Build, engine: str) -> None:
    graph = model(
        "(float16[N, 2] x) => (float16[N, 1] y) { y = MatMul(x, w) }",
        {"w": np.array([[300], [-300]], np.float16)},
    )
    x = np.array([[250, 249]], np.float16)
    found = igonnx.Explainer(graph, engine=engine).integrated_gradients(x, target=0)
    np.testing.assert_allclose(found.values, [[75000, -74700]])
