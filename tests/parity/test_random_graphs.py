"""Random compositions of operators: gradients in float64 against torch.autograd of the same composition."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import igonnx

sys.path.insert(0, str(Path(__file__).parents[1] / "autodiff"))

torch = pytest.importorskip("torch")
RandomGraph = pytest.importorskip("random_graphs").RandomGraph

pytestmark = pytest.mark.parity

# Other graphs in every run; a failure prints the seed that repeats it.
FIRST = int(os.environ.get("IGONNX_TEST_SEED", secrets.randbelow(2**31)))


@pytest.mark.parametrize("number", range(60))
def test_gradients_equal_those_of_autograd(number):
    seed = FIRST + number
    graph = RandomGraph(seed, length=5 + seed % 21)
    feeds = graph.feeds()
    tensors = {name: torch.from_numpy(array).requires_grad_() for name, array in feeds.items()}
    y = graph.in_torch(torch, tensors)
    y.backward()
    expected = {name: tensor.grad for name, tensor in tensors.items() if tensor.grad is not None}
    if not expected:
        return
    for symbolic in (False, True):
        model = igonnx.gradient(graph.model(symbolic=symbolic), wrt=list(expected))
        session = ort.InferenceSession(model.SerializeToString())
        names = ["y", *(f"grad_{name}" for name in expected)]
        found = session.run(names, {**feeds, "cotangent_y": np.ones(())})
        where = f"repeat with IGONNX_TEST_SEED={seed}: symbolic {symbolic}"
        np.testing.assert_allclose(found[0], y.item(), rtol=1e-7, atol=1e-7, err_msg=where)
        for (name, gradient), given in zip(expected.items(), found[1:], strict=True):
            scale = max(1.0, float(gradient.abs().max()))
            np.testing.assert_allclose(
                given / scale,
                gradient.numpy() / scale,
                atol=1e-7,
                rtol=0,
                err_msg=f"{where}, {name}",
            )
