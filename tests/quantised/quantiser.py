"""Networks of tests/data as onnxruntime's own tools quantise them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process

DATA = Path(__file__).parents[1] / "data"
STATIC: dict[str, dict[str, Any]] = {
    "QDQ": {"quant_format": QuantFormat.QDQ},
    "QDQ per channel": {"quant_format": QuantFormat.QDQ, "per_channel": True},
    "QDQ of 16 bits": {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt16},
    "QOperator": {"quant_format": QuantFormat.QOperator},
    "QOperator per channel": {
        "quant_format": QuantFormat.QOperator,
        "activation_type": QuantType.QUInt8,
        "per_channel": True,
        "reduce_range": True,
    },
}
Arrays = dict[str, NDArray[Any]]


def recorded(network: str) -> Arrays:
    """Inputs and cotangent of a network."""
    with np.load(DATA / f"{network}.npz") as arrays:
        return dict(arrays)


def inputs_of(network: str) -> Arrays:
    """Two examples."""
    arrays = recorded(network)
    names = ("pixel_values", "input_ids", "attention_mask", "token_type_ids")
    return {name: arrays[name] for name in names if name in arrays}


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """The examples, and shades of them."""

    def __init__(self, inputs: Arrays) -> None:
        self._rest: Iterator[Arrays] = iter(
            {name: _shaded(array, share) for name, array in inputs.items()}
            for share in (1.0, 0.8, 0.6, 1.1)
        )

    def get_next(self) -> Arrays | None:
        return next(self._rest, None)


def _shaded(array: NDArray[Any], share: float) -> NDArray[Any]:
    return (array * share).astype(array.dtype) if array.dtype == np.float32 else array


def quantised(network: str, how: str, folder: Path) -> onnx.ModelProto:
    """The network quantised `how`: a key of `STATIC`, "dynamic" or "4 bits"."""
    source, prepared, result = (
        DATA / f"{network}.onnx",
        folder / "prepared.onnx",
        folder / "quantised.onnx",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tools' own
        if how == "4 bits":
            quantiser = MatMulNBitsQuantizer(onnx.load(source), block_size=32, is_symmetric=False)
            quantiser.process()
            proto = quantiser.model.model
            assert isinstance(proto, onnx.ModelProto)
            return proto
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        if how == "dynamic":
            quantize_dynamic(prepared, result)
        else:
            reader = _Calibration(inputs_of(network))
            quantize_static(prepared, result, reader, **STATIC[how])
    return onnx.load(result)
