"""Without onnxruntime-training, its gradient builder says what to install (with it: tests/training)."""

from __future__ import annotations

import importlib.util

import pytest

import igonnx
from igonnx.autodiff import ort_training
from igonnx.models import digits


@pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime.training") is not None,
    reason="onnxruntime-training is installed",
)
def test_it_says_what_to_install():
    with pytest.raises(igonnx.EngineError, match=r"igonnx\[training\]"):
        ort_training.gradient(digits.load())
