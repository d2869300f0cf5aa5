"""One model in onnxruntime, with bfloat16 as well, which its NumPy interface does not know."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto

__all__ = ["Runtime", "RuntimeRefusedError"]

# Types that NumPy does not have, by the integers of the same width that carry their bits.
_CARRIED = {
    "bfloat16": (TensorProto.BFLOAT16, np.int16),
    "float8_e4m3fn": (TensorProto.FLOAT8E4M3FN, np.uint8),
    "float8_e4m3fnuz": (TensorProto.FLOAT8E4M3FNUZ, np.uint8),
    "float8_e5m2": (TensorProto.FLOAT8E5M2, np.uint8),
    "float8_e5m2fnuz": (TensorProto.FLOAT8E5M2FNUZ, np.uint8),
}


class RuntimeRefusedError(Exception):
    """onnxruntime does not open or run this model; the message says in one line why."""


class Runtime:
    """A session on one thread that takes and gives arrays, lists of arrays and None."""

    def __init__(self, model: onnx.ModelProto) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise RuntimeRefusedError(_cause(error)) from error
        self.input_names = [value.name for value in self._session.get_inputs()]
        self.output_names = [value.name for value in self._session.get_outputs()]
        self._plain = not any(
            "bfloat16" in value.type or "float8" in value.type
            for value in [*self._session.get_inputs(), *self._session.get_outputs()]
        )

    def __call__(self, feeds: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        given = {name: feeds[name] for name in self.input_names}
        try:
            if self._plain:
                results = self._session.run(list(outputs), given)
            else:
                carried = {name: _to_runtime(value) for name, value in given.items()}
                values = self._session.run_with_ort_values(list(outputs), carried)
                results = [_from_runtime(value) for value in values]
        except Exception as error:
            raise RuntimeRefusedError(_cause(error)) from error
        return {name: _arrays(value) for name, value in zip(outputs, results, strict=True)}


def _to_runtime(value: Any) -> ort.OrtValue:
    if not isinstance(value, np.ndarray) or value.dtype.name not in _CARRIED:
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value))
    element, carrier = _CARRIED[value.dtype.name]
    bits = np.array(value, order="C").view(carrier)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, element)


def _from_runtime(value: ort.OrtValue) -> Any:
    kind = value.data_type().removeprefix("tensor(").removesuffix(")")
    if kind != "bfloat16":
        return value.numpy()
    bits = ctypes.string_at(value.data_ptr(), value._ortvalue.tensor_size_in_bytes())
    return np.frombuffer(bits, ml_dtypes.bfloat16).reshape(value.shape())


def _arrays(value: Any) -> Any:
    if isinstance(value, list):
        return [_arrays(item) for item in value]
    return value if value is None else np.asarray(value)


def _cause(error: Exception) -> str:
    """The message in one line, without the source position and the signature that the runtime puts before it."""
    message = " ".join(str(error).split())
    message = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", message)
    message = re.sub(r"/onnxruntime_src/\S+ .*?\) (\[with .*?\] )?", "", message)
    return message[:160]
