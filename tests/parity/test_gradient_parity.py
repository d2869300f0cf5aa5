"""`igonnx.gradient` through ONNX Runtime against torch.autograd, on models at full size.

PyTorch computes in float64 and is taken as exact; ONNX Runtime computes in float32 (its CPU
provider has no float64 convolution or Erf). PyTorch's own float32 gradient is measured beside it,
which tells rounding from mistakes: a wrong rule is off by far more than PyTorch's rounding.

- Smooth models (GELU, softmax, layer normalisation): rounding alone, about 1e-6.
- ReLU and ReLU6: where rounding carries an activation across a kink, its derivative changes by
  all of itself, and every pixel that it sees changes with it.
"""

from __future__ import annotations

import onnx
import pytest

import igonnx

pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = pytest.mark.parity

SMOOTH = 1e-5
KINKED = 1e-2
TOLERANCES = {
    "efficientnet": KINKED,
    "resnet50": KINKED,
    "vit": SMOOTH,
    "bert": SMOOTH,
    "convnext": SMOOTH,
}
CASES = [(name, exporter) for name in TOLERANCES for exporter in ("script", "dynamo")]


@pytest.mark.parametrize(("name", "exporter"), [*CASES, ("efficientnet", "igonnx")])
def test_gradient_equals_that_of_autograd(name, exporter, subject, run, measured):
    tested = subject(name)
    path, wrt = tested.export(exporter)
    model = igonnx.gradient(path, wrt=wrt)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}  # standard operators only

    names = [value.name for value in onnx.load(path).graph.input]
    feeds = dict(zip(names, tested.inputs.values(), strict=True))
    feeds["cotangent_logits"] = tested.cotangent
    given = run(model.SerializeToString(), feeds, f"grad_{wrt}")

    expected = tested.gradient("float64")
    rounding = measured.relative_l2(tested.gradient("float32"), expected, "PyTorch in float32")
    # On another processor other kinks flip: what PyTorch itself may be off by is allowed as well.
    allowed = max(KINKED, 2 * rounding) if TOLERANCES[name] == KINKED else SMOOTH
    assert measured.relative_l2(given, expected) <= allowed
    assert measured.cosine(given, expected) >= 1 - allowed**2
