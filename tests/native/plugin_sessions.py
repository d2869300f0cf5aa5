"""Graphs with the plugin's operators in an ordinary session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from igonnx import _core

ONNX_TYPE = {np.float32: TensorProto.FLOAT, np.float64: TensorProto.DOUBLE}
DTYPES = [np.float32, np.float64]
PLUGIN = "ai.igonnx"


def open_session(model: onnx.ModelProto, threads: int = 0) -> ort.InferenceSession:
    """A session on the CPU that knows the plugin, with `threads` threads (0: as many as the runtime likes)."""
    options = ort.SessionOptions()
    options.register_custom_ops_library(_core.__file__)
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    return helper.make_node(operator, inputs, outputs, domain=PLUGIN, **attributes)


def run(
    nodes: Sequence[Any],
    dtype: type,
    feeds: dict[str, NDArray[Any]],
    outputs: Sequence[str],
    *,
    threads: int = 2,
) -> list[NDArray[Any]]:
    """The outputs of a graph of `nodes` for `feeds`; shapes are declared by their rank only."""
    graph = helper.make_graph(
        list(nodes),
        "plugin",
        [
            helper.make_tensor_value_info(name, ONNX_TYPE[dtype], [None] * array.ndim)
            for name, array in feeds.items()
        ],
        [helper.make_tensor_value_info(name, ONNX_TYPE[dtype], None) for name in outputs],
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid(PLUGIN, 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=8)
    return list(open_session(model, threads).run(None, feeds))
