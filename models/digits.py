"""A small trained CNN on handwritten digits, for tests on something that has learned.

Input `image` float32 [batch, 1, 8, 8], values 0 (paper) to 1 (ink); output `logits` [batch, 10].
`train_digits.py` made both files.
"""

from __future__ import annotations

import io
from importlib import resources

import numpy as np
import onnx
from numpy.typing import NDArray

__all__ = ["load", "test_set"]


def load() -> onnx.ModelProto:
    """Return the trained model: convolutions, batch normalisation, max pooling, a linear layer."""
    return onnx.load_model_from_string(_file("digits.onnx"))


def test_set() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return 200 digits the model was not trained on: images [200, 1, 8, 8], labels [200]."""
    with np.load(io.BytesIO(_file("digits_test.npz"))) as arrays:
        return arrays["images"].astype(np.float32) / np.float32(16), arrays["labels"]


def _file(name: str) -> bytes:
    return resources.files("igonnx.models").joinpath(name).read_bytes()
