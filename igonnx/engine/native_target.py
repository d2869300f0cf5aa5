"""What the ONNX Runtime of this process offers on this machine's CPU, found out by trying."""

from __future__ import annotations

import functools

import numpy as np
import onnx
from onnx import helper

from igonnx.engine.runtime import RuntimeSession
from igonnx.errors import EngineError
from igonnx.graph.native_target import NativeTarget

__all__ = ["native_target"]


@functools.cache
def native_target() -> NativeTarget:
    """The target of native lowering: four channels, reordered, come back filled up to the runtime's block."""
    image = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4, 1, 1])
    blocked = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, "channels", 1, 1])
    node = helper.make_node("ReorderInput", ["x"], ["y"], domain="com.microsoft.nchwc")
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft.nchwc", 1)]
    graph = helper.make_graph([node], "probe", [image], [blocked])
    model = helper.make_model(graph, opset_imports=domains, ir_version=8)
    try:
        session = RuntimeSession(model.SerializeToString(), name="blocked layout", threads=1)
        block = session.run({"x": np.zeros([1, 4, 1, 1], np.float32)})["y"].shape[1]
    except EngineError:
        block = 1  # a build without that layout
    return NativeTarget(block if block in (8, 16) else 1)
