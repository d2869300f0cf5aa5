"""What the ONNX Runtime of this process offers on this machine's CPU, found out by trying."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from igonnx.engine.runtime import RuntimeSession
from igonnx.errors import EngineError
from igonnx.graph.native_target import NativeTarget
from igonnx.native_lowering.filters import blocked_filter, depthwise_filter

__all__ = ["native_target"]


@functools.cache
def native_target() -> NativeTarget:
    """The target of native lowering: four channels, reordered, come back filled up to the runtime's block.

    Two convolutions of known weights are tried in that layout as well; where they are wrong it is not used.
    """
    try:
        image = np.zeros([1, 4, 1, 1], np.float32)
        block = _run([_blocked("ReorderInput", ["x"], ["y"])], {}, image).shape[1]
        if block in (8, 16) and all(_is_right(block, group) for group in (1, 2 * block)):
            return NativeTarget(block)
    except EngineError:
        pass  # a build without that layout
    return NativeTarget()


def _is_right(block: int, group: int) -> bool:
    """Whether a blocked convolution, of all channels or depthwise, equals the one that NumPy computes at one pixel."""
    rng = np.random.default_rng(0)
    channels = 2 * block
    weight = rng.standard_normal((channels, channels // group, 3, 3)).astype(np.float32)
    image = rng.standard_normal((1, channels, 3, 3)).astype(np.float32)
    filters = (
        blocked_filter(weight, block)
        if group == 1
        else depthwise_filter(weight, block).reshape(weight.shape)
    )
    nodes = [
        _blocked("ReorderInput", ["x"], ["blocked"]),
        _blocked("Conv", ["blocked", "w"], ["convolved"], group=group, kernel_shape=[3, 3]),
        _blocked("ReorderOutput", ["convolved"], ["y"], channels=channels),
    ]
    found = _run(nodes, {"w": filters}, image).reshape(channels)
    seen = image if group == 1 else image.reshape(channels, 1, 3, 3)
    return np.allclose(found, (weight * seen).sum(axis=(1, 2, 3)), atol=1e-3)


def _blocked(
    op_type: str, inputs: list[str], outputs: list[str], **attributes: Any
) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, outputs, domain="com.microsoft.nchwc", **attributes)


def _run(
    nodes: list[onnx.NodeProto], weights: dict[str, NDArray[np.float32]], image: NDArray[np.float32]
) -> NDArray[Any]:
    """The output y of a graph on the image x, on one thread."""
    sizes: list[str | int | None] = [1, "channels", "height", "width"]
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes) for name in "xy"]
    stored = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "probe", ports[:1], ports[1:], stored)
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft.nchwc", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=8)
    session = RuntimeSession(model.SerializeToString(), name="blocked layout", threads=1)
    return session.run({"x": image})["y"]
