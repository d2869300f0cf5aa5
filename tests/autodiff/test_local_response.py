"""LRN over even sizes and over any number of axes, which the standard allows and ONNX Runtime does not run.

The backward pass needs no kernel of it, so it is run alone.
"""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from rule_cases.case import newest_opset, wrap
from rule_cases.check import session
from rule_cases.normalization import response

import igonnx


@pytest.mark.parametrize("opset", [17, newest_opset()])
@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 3), (1, 4, 2, 3), (1, 3, 2, 1, 2), (0, 3, 2)])
def test_gradient(shape, size, symbolic, opset):
    given = {"size": size, "alpha": 0.5, "beta": 0.6, "bias": 1.3}
    declared = [None] * len(shape) if symbolic else shape
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, declared) for name in "xy")
    graph = helper.make_graph([helper.make_node("LRN", ["x"], ["y"], **given)], "g", [x], [y])
    proto = igonnx.gradient(wrap(graph, opset))
    del proto.graph.output[[value.name for value in proto.graph.output].index("y")]
    del proto.graph.node[[node.op_type for node in proto.graph.node].index("LRN")]
    rng = np.random.default_rng(size)
    point, cotangent = rng.uniform(-3, 3, (2, *shape))
    feeds = {"x": point.astype(np.float32), "cotangent_y": cotangent.astype(np.float32)}
    (gradient,) = session(proto).run(["grad_x"], feeds)
    expected = np.zeros(shape)
    for index in np.ndindex(shape):
        step = np.zeros(shape)
        step[index] = 1e-6
        rise = response(point + step, **given) - response(point - step, **given)
        expected[index] = np.sum(rise * cotangent) / 2e-6
    np.testing.assert_allclose(gradient, expected, atol=1e-5)
