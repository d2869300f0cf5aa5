"""The operator ai.igonnx::MaskedRows in an ordinary session, against NumPy; what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from igonnx import _core

KINDS = {np.float32: TensorProto.FLOAT, np.float64: TensorProto.DOUBLE}
# Around the blocks of 16384 elements that are handed to threads.
SHAPES = [(), (1,), (5,), (3, 7), (16384,), (2, 8193), (3, 4, 33000)]


def _session(dtype: type) -> ort.InferenceSession:
    node = helper.make_node(
        "MaskedRows", ["x", "baseline", "feature", "row", "keep"], ["z"], domain="ai.igonnx"
    )
    kind = KINDS[dtype]
    kinds = [kind, kind, TensorProto.INT32, TensorProto.INT64, kind]
    inputs = [
        helper.make_tensor_value_info(name, kind, None)
        for name, kind in zip(node.input, kinds, strict=True)
    ]
    outputs = [helper.make_tensor_value_info("z", kind, None)]
    graph = helper.make_graph([node], "masked", inputs, outputs)
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("ai.igonnx", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=8)
    options = ort.SessionOptions()
    options.register_custom_ops_library(_core.__file__)
    options.log_severity_level = 4
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _feeds(shape: tuple[int, ...], dtype: type, *, own: bool, rows: int = 6) -> dict[str, Any]:
    """Three requests, four features; some elements of none of them."""
    random = np.random.default_rng(len(shape))
    return {
        "x": random.normal(size=(3, *shape)).astype(dtype),
        "baseline": random.normal(size=(3, *shape)).astype(dtype),
        "feature": random.integers(-2, 6, size=(3 if own else 1, *shape)).astype(np.int32),
        "row": random.integers(0, 3, size=rows),
        "keep": random.choice([0, 0.25, 1], size=(rows, 4)).astype(dtype),
    }


def _expected(x: Any, baseline: Any, feature: Any, row: Any, keep: Any) -> NDArray[Any]:
    found = np.empty((len(row), *x.shape[1:]), x.dtype)
    for b, request in enumerate(row):
        index = feature[request if len(feature) > 1 else 0]
        share = np.where((index < 0) | (index > 3), 1, keep[b][index.clip(0, 3)]).astype(x.dtype)
        mixed = baseline[request] + share * (x[request] - baseline[request])
        found[b] = np.where(share == 1, x[request], np.where(share == 0, baseline[request], mixed))
    return found


@pytest.mark.parametrize("dtype", list(KINDS))
@pytest.mark.parametrize("own", [False, True])
def test_every_shape_equals_numpy(dtype: type, own: bool) -> None:
    session = _session(dtype)
    for shape in SHAPES:
        feeds = _feeds(shape, dtype, own=own)
        (z,) = session.run(None, feeds)
        assert z.dtype == dtype
        tolerance = 4 * np.finfo(dtype).eps
        np.testing.assert_allclose(z, _expected(**feeds), rtol=tolerance, atol=tolerance)


def test_no_rows() -> None:
    (z,) = _session(np.float32).run(None, _feeds((3, 2), np.float32, own=True, rows=0))
    assert z.shape == (0, 3, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row": np.array([0, 1, 3, 0, 0, 0])}, "a row is of no request"),
        ({"row": np.array([0, -1, 0, 0, 0, 0])}, "a row is of no request"),
        ({"row": np.zeros(5, np.int64)}, r"expected rows \[B\] and keep \[B, F\]"),
        ({"keep": np.ones(6, np.float32)}, r"expected rows \[B\] and keep \[B, F\]"),
        ({"baseline": np.zeros((3, 3, 1), np.float32)}, "x and baseline differ in shape"),
        ({"feature": np.zeros((2, 3, 2), np.int32)}, "feature does not fit x"),
        ({"feature": np.zeros((1, 3), np.int32)}, "feature does not fit x"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    feeds = _feeds((3, 2), np.float32, own=False) | changes
    with pytest.raises(Exception, match=f"MaskedRows: .*{message}"):
        _session(np.float32).run(None, feeds)
