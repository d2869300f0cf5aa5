"""Function bodies of the standard: expanded where a gradient has to cross them, as the node has its attributes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

import igonnx
from igonnx.autodiff import registry

STEP = 1e-5
RNG = np.random.default_rng(2)


def array(*shape):
    return RNG.uniform(0.2, 0.8, shape)


# Operator, opset, inputs (integers are labels), attributes.
CASES = {
    "negative log likelihood": ("NegativeLogLikelihoodLoss", 17, [array(2, 3, 4), RNG.integers(0, 3, (2, 4))], {}),
    "weights and no reduction": (
        "NegativeLogLikelihoodLoss",
        17,
        [array(2, 3), RNG.integers(0, 3, 2), array(3)],
        {"reduction": "none"},
    ),
    "cross entropy": ("SoftmaxCrossEntropyLoss", 17, [array(2, 3), RNG.integers(0, 3, 2)], {"reduction": "sum"}),
    "an index to ignore": (
        "SoftmaxCrossEntropyLoss",
        17,
        [array(3, 4), np.array([1, 0, 3])],
        {"ignore_index": 0},
    ),
    "mean and variance": ("MeanVarianceNormalization", 17, [array(2, 3, 2, 2)], {}),
    "axes of their own": ("MeanVarianceNormalization", 17, [array(2, 3, 4)], {"axes": [1]}),
    "defaults": ("Selu", 18, [array(2, 3)], {}),
    "own parameters": ("Selu", 18, [array(2, 3)], {"alpha": 1.2, "gamma": 0.9}),
    "an attribute that chooses the body": ("Gelu", 20, [array(2, 3)], {"approximate": "tanh"}),
    "a group norm": ("GroupNormalization", 21, [array(2, 4, 3), array(4), array(4)], {"num_groups": 2}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_body(case):
    operator, opset, arrays, attributes = CASES[case]
    step, tolerance = STEP, 1e-5
    if operator == "GroupNormalization":  # its body computes in float32
        step, tolerance = 1e-3, 5e-3
    if operator == "MeanVarianceNormalization":  # its body holds numbers in float32
        arrays, step, tolerance = [a.astype(np.float32) for a in arrays], 1e-3, 5e-3
    names = [f"x{i}" for i in range(len(arrays))]
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(a.dtype), [f"{name}_{i}" for i in range(a.ndim)]
        )
        for name, a in zip(names, arrays, strict=True)
    ]
    node = helper.make_node(operator, names, ["y"], **attributes)
    graph = helper.make_graph([node], "main", inputs, [helper.make_empty_tensor_value_info("y")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    (output,) = onnx.shape_inference.infer_shapes(proto).graph.output
    if output.type.WhichOneof("value") is None or not output.type.tensor_type.elem_type:
        output.type.CopyFrom(inputs[0].type)
    proto.graph.output[0].CopyFrom(output)
    feeds = dict(zip(names, arrays, strict=True))
    wrt = [name for name, a in feeds.items() if a.dtype.kind == "f"]
    evaluator = ReferenceEvaluator(proto)
    (y,) = evaluator.run(None, feeds)
    cotangent = np.asarray(RNG.standard_normal(np.shape(y))).astype(y.dtype)
    result = igonnx.gradient(proto, wrt=wrt)
    onnx.checker.check_model(result, full_check=True)
    assert not result.functions
    assert {node.domain for node in result.graph.node} == {""}
    found = _run(result, [f"grad_{name}" for name in wrt], {**feeds, "cotangent_y": cotangent})
    for name, gradient in zip(wrt, found, strict=True):
        direction = RNG.standard_normal(feeds[name].shape).astype(feeds[name].dtype)
        ends = [
            np.sum(
                evaluator.run(None, {**feeds, name: feeds[name] + s * step * direction})[0]
                * cotangent
            )
            for s in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / (2 * step)
        scale = max(1.0, float(np.linalg.norm(gradient)))
        assert abs(slope - np.sum(gradient * direction)) < tolerance * scale, name


def _run(proto, names, feeds):
    """By onnxruntime, or where it has no such kernel in float64, by onnx's reference implementation."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options)
    except NoKernel:
        return ReferenceEvaluator(proto).run(names, feeds)
    return session.run(names, feeds)


def test_bodies_are_not_called_by_names_the_model_has():
    """Two nodes of one operator, and tensors called like those inside its body."""
    schema = onnx.defs.get_schema("MeanVarianceNormalization", 17)
    inside = [name for node in schema.function_body.node for name in node.output if name]
    nodes = [
        helper.make_node("MeanVarianceNormalization", ["x"], [inside[0]]),
        helper.make_node("Sin", [inside[0]], [inside[1]]),
        helper.make_node("MeanVarianceNormalization", [inside[1]], ["y"]),
    ]
    kind = (onnx.TensorProto.FLOAT, [2, 3, 2, 2])
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("x", *kind)],
        [helper.make_tensor_value_info("y", *kind)],
        [numpy_helper.from_array(np.zeros(1), inside[2])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    result = igonnx.gradient(proto, wrt=["x", inside[1]])
    onnx.checker.check_model(result, full_check=True)
    session = ort.InferenceSession(result.SerializeToString())
    x = array(2, 3, 2, 2).astype(np.float32)
    given = {"x": x, "cotangent_y": np.ones_like(x)}
    before = ort.InferenceSession(proto.SerializeToString()).run(["y"], {"x": x})[0]
    np.testing.assert_allclose(session.run(["y"], given)[0], before, atol=1e-5)


def test_operators_with_a_rule_stay():
    """A rule is shorter than a body, and its operator has a kernel of its own."""
    for operator in ("LayerNormalization", "Clip", "Relu", "PRelu", "HardSwish", "Softmax"):
        node = helper.make_node(operator, ["x"], ["y"])
        assert registry.find(ir.from_proto(node)) is not None, operator
