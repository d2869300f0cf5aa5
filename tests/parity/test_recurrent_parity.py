"""Recurrent layers as PyTorch exports them, both ways and two deep, against torch.autograd."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest

import igonnx

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.parity


def _model(layer: str, *, batch_first: bool):
    class Tagger(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = getattr(torch.nn, layer)(
                3, 5, num_layers=2, bidirectional=True, batch_first=batch_first
            )
            self.head = torch.nn.Linear(10, 4)

        def forward(self, x):
            y, state = self.layer(x)
            last = state[0] if isinstance(state, tuple) else state
            return self.head(y).sum(1 if batch_first else 0) + last[-1].mean(-1, keepdim=True)

    torch.manual_seed(0)
    return Tagger().eval()


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("layer", ["RNN", "GRU", "LSTM"])
def test_gradient_equals_that_of_autograd(layer, batch_first, symbolic, run):
    model = _model(layer, batch_first=batch_first)
    x = torch.randn((2, 7, 3) if batch_first else (7, 2, 3))
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of a batch size of its own
        torch.onnx.export(
            model,
            (x,),
            file,
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "first", 1: "second"}} if symbolic else None,
        )
    if symbolic:
        x = torch.randn((3, 9, 3) if batch_first else (9, 3, 3))
    exact = x.double().requires_grad_()
    y = model.double()(exact)
    cotangent = torch.randn_like(y)
    y.backward(cotangent)
    given = run(
        igonnx.gradient(file.getvalue(), wrt="x").SerializeToString(),
        {"x": x.numpy(), "cotangent_y": cotangent.float().numpy()},
        "grad_x",
    )
    np.testing.assert_allclose(given, exact.grad.numpy(), atol=1e-6)
