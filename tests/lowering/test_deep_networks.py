"""Networks of many fused layers: what is known of the last one costs no more than of the first."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from igonnx.graph import shape_inference
from igonnx.lowering import shapes
from igonnx.model import Model

LAYERS, WIDTH = 80, 4


def _encoder() -> onnx.ModelProto:
    """Layers as ONNX Runtime's optimiser leaves them: attention, a linear layer, and a norm with the skip added."""
    rng = np.random.default_rng(0)
    nodes, weights, state = [], [], "x"

    def weight(name: str, *shape: int) -> str:
        array = rng.normal(size=shape).astype(np.float32)
        weights.append(numpy_helper.from_array(array, name))
        return name

    for i in range(LAYERS):
        joint = [weight(f"joint_{i}", WIDTH, 3 * WIDTH), weight(f"bias_{i}", 3 * WIDTH)]
        linear, gain = weight(f"linear_{i}", WIDTH, WIDTH), weight(f"gain_{i}", WIDTH)
        ours = {"domain": "com.microsoft"}
        nodes += [
            helper.make_node("Attention", [state, *joint], [f"a_{i}"], num_heads=2, **ours),
            helper.make_node("MatMul", [f"a_{i}", linear], [f"m_{i}"]),
            helper.make_node("SkipLayerNormalization", [f"m_{i}", state, gain], [f"h_{i}"], **ours),
        ]
        state = f"h_{i}"
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("x", floats, ["N", "S", WIDTH])],
        [helper.make_tensor_value_info(state, floats, None)],
        weights,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_shapes_are_known_behind_many_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer's lowering has to know what the one in front of it gives: one inference per layer takes too long."""
    calls = []

    def counted(model: object) -> None:
        calls.append(model)
        shape_inference.infer_shapes(model)  # type: ignore[arg-type]

    monkeypatch.setattr(shapes, "infer_shapes", counted)
    loaded = Model.load(_encoder())
    assert len(calls) < 10
    for node in loaded.ir.graph:
        value = node.outputs[0]
        assert value.dtype is not None
        assert value.shape is not None
        assert value.shape[-1] == WIDTH
