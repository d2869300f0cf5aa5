"""onnx's reference implementation in float64, with the kernels replaced that compute in float32."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from scipy.special import erf

from node_tests.values import Value

__all__ = ["Reference", "ReferenceRefusedError"]


class Erf(OpRun):
    """The error function."""

    op_domain = ""

    def _run(self, x: Any) -> Any:
        return (np.asarray(erf(x)),)


class Gelu(OpRun):
    """The Gaussian error linear unit, exact or by its usual approximation."""

    op_domain = ""

    def _run(self, x: Any, approximate: str | None = None) -> Any:
        if approximate == "tanh":
            inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
            return (0.5 * x * (1 + np.tanh(inner)),)
        return (0.5 * x * (1 + erf(x / np.sqrt(2))),)


class DynamicQuantizeLinear(OpRun):
    """Quantisation to uint8 over the range of the data and zero."""

    op_domain = ""

    def _run(self, x: Any) -> Any:
        least, most = min(0.0, x.min()), max(0.0, x.max())
        scale = (most - least) / 255 if most > least else 1.0
        zero = np.clip(np.rint(-least / scale), 0, 255)
        quantized = np.clip(np.rint(x / scale) + zero, 0, 255)
        return quantized.astype(np.uint8), np.asarray(scale, x.dtype), zero.astype(np.uint8)


class ReferenceRefusedError(Exception):
    """The reference implementation cannot run this model; the message says in one line why."""


class Reference:
    """A model whose types need not be those that its operators allow."""

    def __init__(self, model: onnx.ModelProto) -> None:
        try:
            self._evaluator = ReferenceEvaluator(model, new_ops=[DynamicQuantizeLinear, Erf, Gelu])
        except Exception as error:
            raise ReferenceRefusedError(_one_line(error)) from error

    def __call__(self, feeds: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Value]:
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                with contextlib.redirect_stdout(io.StringIO()):
                    results = self._evaluator.run(list(outputs), dict(feeds))
        except Exception as error:
            raise ReferenceRefusedError(_one_line(error)) from error
        return {name: _arrays(value) for name, value in zip(outputs, results, strict=True)}


def _arrays(value: Any) -> Value:
    if isinstance(value, list | tuple):
        return [_arrays(item) for item in value]
    return None if value is None else np.asarray(value)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
