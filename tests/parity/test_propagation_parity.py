"""Guided backpropagation and deconvolutional networks against Captum's GuidedBackprop and Deconvolution.

Captum hooks every module that is an `nn.ReLU`, and no other activation: an `nn.ReLU6` keeps its gradient there, while
igonnx takes it for a ReLU. So the networks with ReLU6 are compared with one that Captum recognises.

Both compute in float32, and what arrives at an input is a continuous function of what arrives at the output; but
rounding decides now and then on which side of a kink a unit lies on the way forward, as with gradients.
"""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest

from igonnx.engine.plan import Requests, RowPlan
from igonnx.inputs import batched_inputs
from igonnx.model import Model
from igonnx.preparation import Settings, prepare

torch = pytest.importorskip("torch")
captum_attr = pytest.importorskip("captum.attr")
nn = torch.nn

pytestmark = pytest.mark.parity

METHODS = {
    "gradient": captum_attr.Saliency,
    "guided_backprop": captum_attr.GuidedBackprop,
    "deconvnet": captum_attr.Deconvolution,
}
SMALL = 1e-5
KINKED = 1e-2


def captum(model, x, target, propagation):
    """What arrives at x [N, ...] from output `target` [N] of each example."""
    method = METHODS[propagation](model)
    options = {"abs": False} if propagation == "gradient" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it sets hooks
        found = method.attribute(torch.from_numpy(x).requires_grad_(), target=target, **options)
    return found.detach().numpy()


def ours(model, x, target, engine, propagations):
    """Likewise of an ONNX file, by propagation."""
    loaded = Model.load(model)
    (name,) = (info.name for info in loaded.inputs)
    output = loaded.find_output(None).name
    settings = Settings(output, (name,), None, engine, None, None)
    ready = prepare(loaded, settings, {name: x}, batched_inputs(loaded, {name: x}, (name,)))
    cotangent = np.zeros_like(ready.run({name: x})[output])
    cotangent[np.arange(len(x)), target] = 1
    requests = Requests({name: x}, {name: np.zeros_like(x)}, {}, {}, cotangent)
    ones = np.ones(len(x))
    plan = RowPlan(np.arange(len(x)), ones, ones)
    return {
        p: ready.gradients(p).engine.run(requests, plan, batch_size=2).weighted_gradient[name]
        for p in propagations
    }


class Block(nn.Module):
    """A block of ResNet, each ReLU a module of its own."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.main(x) + self.shortcut(x))


def plain():
    return nn.Sequential(
        nn.Conv2d(3, 12, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(12, 20, 3),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.LazyLinear(16),
        nn.ReLU(),
        nn.Linear(16, 7),
    )


def residual():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        Block(16, 16, 1),
        Block(16, 24, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 7),
    )


def mixed():
    """Other activations between ReLUs keep their gradients; depthwise and grouped convolutions."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.SiLU(),
        nn.Conv2d(16, 32, 3, 2, 1, groups=4),
        nn.LeakyReLU(0.1),
        nn.Conv2d(32, 16, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 7),
    )


@pytest.mark.parametrize("exporter", ["script", "dynamo"])
@pytest.mark.parametrize("build", [plain, residual, mixed])
def test_small_networks(build, exporter, tmp_path, measured):
    torch.manual_seed(3)
    model = build().eval()
    x = torch.randn(3, 3, 31, 25)
    model(x)  # settles the lazy layer
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.2, 0.2)
            layer.running_var.uniform_(0.2, 0.8)
    path = tmp_path / "model.onnx"
    kind = {"dynamo": False, "dynamic_axes": {"x": {0: "batch"}}}
    if exporter == "dynamo":
        kind = {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("batch")},)}
        kind |= {"verbose": False, "external_data": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters'
        torch.onnx.export(model, (x,), path, input_names=["x"], **kind)
    target = [0, 5, 2]
    for engine in ("reference", "native"):
        given = ours(path, x.numpy(), target, engine, METHODS)
        for propagation, found in given.items():
            expected = captum(model, x.numpy(), target, propagation)
            what = f"{propagation} {engine}"
            assert measured.relative_l2(found, expected, what) <= SMALL


def test_resnet50(subject, measured):
    pytest.importorskip("transformers")
    tested = subject("resnet50")
    path, _ = tested.export("script")
    x = tested.inputs["pixel_values"]
    target = [3, 700]
    given = ours(path, x, target, "native", METHODS)
    for propagation, found in given.items():
        expected = captum(tested.model, x, target, propagation)
        assert measured.relative_l2(found, expected, propagation) <= KINKED


class RecognisedRelu6(nn.ReLU):
    """A ReLU6 that Captum takes for a ReLU."""

    def forward(self, x):
        return nn.functional.relu6(x)


def recognised(module):
    """A copy of the network with such ReLU6."""
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU6):
                setattr(parent, name, RecognisedRelu6())
    return module


def test_efficientnet_on_photos(subject, measured):
    pytest.importorskip("efficientnet_lite_pytorch")
    tested = subject("efficientnet")
    path, _ = tested.export("igonnx")
    x = tested.inputs["pixel_values"]
    target = [285, 967, 657, 450]
    model = recognised(tested.model)
    assert sum(isinstance(module, RecognisedRelu6) for module in model.modules()) > 10
    for propagation, found in ours(path, x, target, "native", METHODS).items():
        expected = captum(model, x, target, propagation)
        assert measured.relative_l2(found, expected, propagation) <= KINKED
