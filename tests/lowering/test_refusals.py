"""What no gradient crosses says why, and what to do instead."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import igonnx


def _model(node: onnx.NodeProto, domain: str, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph([node], "g", [x], [y], initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_trees():
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        name="forest",
        n_targets=1,
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_featureids=[0, 0, 0],
        nodes_values=[0.5, 0.0, 0.0],
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        target_ids=[0, 0],
        target_nodeids=[1, 2],
        target_treeids=[0, 0],
        target_weights=[1.0, 2.0],
    )
    with pytest.raises(igonnx.UnsupportedOperatorError) as error:
        igonnx.gradient(_model(node, "ai.onnx.ml", {}))
    for word in ("TreeEnsembleRegressor", "forest", "piecewise constant", "feature ablation"):
        assert word in str(error.value)


def test_blocked_layout():
    node = helper.make_node(
        "ReorderInput", ["x"], ["y"], domain="com.microsoft.nchwc", name="reorder"
    )
    with pytest.raises(igonnx.UnsupportedOperatorError, match="ORT_ENABLE_EXTENDED"):
        igonnx.gradient(_model(node, "com.microsoft.nchwc", {}))


def test_a_mask_of_training():
    node = helper.make_node(
        "BiasDropout", ["x", "b", "", "", "t"], ["y"], domain="com.microsoft", name="drop"
    )
    weights = {"b": np.zeros(3, np.float32), "t": np.array(True)}
    with pytest.raises(igonnx.UnsupportedOperatorError, match="training"):
        igonnx.gradient(_model(node, "com.microsoft", weights))
