"""Layer-wise relevance propagation against Captum's, and a closed form where Captum has no rule.

Captum's rules belong to modules, and ask for inputs that are not negative: its gamma rule strengthens positive weights,
its alpha-1-beta-0 rule takes them alone, whatever the sign of what they multiply.
"""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest

import igonnx

torch = pytest.importorskip("torch")
captum_attr = pytest.importorskip("captum.attr")
rules = pytest.importorskip("captum.attr._utils.lrp_rules")
nn = torch.nn

pytestmark = pytest.mark.parity

CLOSE = 1e-4


class Net(nn.Module):
    """Convolutions, then dense layers. Captum has no rule for nn.Flatten, so this is a function."""

    def __init__(self, features, head):
        super().__init__()
        self.features, self.head = nn.Sequential(*features), nn.Sequential(*head)

    def forward(self, x):
        return self.head(self.features(x).flatten(1))


def mlp(bias=True):
    layers = [*dense(12, 20, bias), nn.Linear(20, 16, bias=bias), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(16, 5, bias=bias))


def rectified(bias=True):
    """What every layer reads is not negative."""
    return nn.Sequential(*dense(12, 20, bias), *dense(20, 16, bias), nn.Linear(16, 5, bias=bias))


def dense(given, out, bias):
    return nn.Linear(given, out, bias=bias), nn.ReLU()


def cnn(bias=True):
    features = [
        nn.Conv2d(3, 8, 3, padding=1, bias=bias),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, stride=2, bias=bias),
        nn.ReLU(),
        nn.AvgPool2d(2),
    ]
    return Net(features, [*dense(48, 20, bias), nn.Linear(20, 5, bias=bias)])


def normalised(bias=True):
    """Batch normalisations, which igonnx folds into the convolutions, with statistics of their own."""
    first, second = nn.BatchNorm2d(8), nn.BatchNorm2d(12)
    for part in (first, second):
        for parameter in (part.weight, part.running_var):
            nn.init.uniform_(parameter, 0.5, 2)
        for parameter in (part.bias, part.running_mean):
            nn.init.normal_(parameter)
    features = [
        nn.Conv2d(3, 8, 3, padding=1, bias=bias),
        first,
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, bias=bias),
        second,
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
    ]
    return Net(features, [nn.Linear(12, 5)])


SHAPES = {mlp: (12,), rectified: (12,), cnn: (3, 20, 20), normalised: (3, 20, 20)}


def built(make, bias, path, *, positive=False):
    """The network in PyTorch and as a file, inputs, and as targets the largest scores."""
    torch.manual_seed(3)
    model = make(bias).eval()
    x = torch.randn(4, *SHAPES[make])
    x = x.abs() if positive else x
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's
        axes = {"x": {0: "batch"}}
        torch.onnx.export(model, (x,), path, input_names=["x"], dynamic_axes=axes, dynamo=False)
        scores, target = model(x).max(dim=1)
    assert scores.min() > 0
    return model, x.numpy(), target


def captum(model, x, target, rule, epsilon=1e-9):
    """Captum's values in double precision; `rule` is that of layers with weights."""
    model = copy.deepcopy(model).double()
    for part in model.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            part.rule = rule()
        elif isinstance(part, nn.BatchNorm2d | nn.AvgPool2d | nn.AdaptiveAvgPool2d):
            part.rule = rules.EpsilonRule(epsilon)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it sets hooks
        found = captum_attr.LRP(model).attribute(torch.from_numpy(x).double(), target=target)
    return found.detach().numpy()


def relative(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


# With normalisations, Captum moves the denominators of the convolution and of the normalisation, each.
@pytest.mark.parametrize(
    ("make", "epsilon"), [(mlp, 1e-9), (mlp, 0.1), (cnn, 1e-9), (cnn, 0.1), (normalised, 1e-9)]
)
def test_epsilon(make, epsilon, tmp_path):
    model, x, target = built(make, True, tmp_path / "model.onnx")
    theirs = captum(model, x, target, lambda: rules.EpsilonRule(epsilon), epsilon)
    ours = igonnx.Explainer(tmp_path / "model.onnx").lrp(x, target=target.tolist(), epsilon=epsilon)
    assert relative(ours.values, theirs) < CLOSE


@pytest.mark.parametrize("make", [rectified, cnn])
def test_gamma(make, tmp_path):
    """Without biases, which Captum leaves as they are: by the definition they are contributions like all others."""
    model, x, target = built(make, False, tmp_path / "model.onnx", positive=True)
    theirs = captum(model, x, target, lambda: rules.GammaRule(gamma=0.4))
    explainer = igonnx.Explainer(tmp_path / "model.onnx")
    ours = explainer.lrp(x, target=target.tolist(), rule="gamma", gamma=0.4)
    assert relative(ours.values, theirs) < CLOSE


@pytest.mark.parametrize("make", [rectified, cnn])
def test_alpha_one_beta_zero(make, tmp_path):
    model, x, target = built(make, True, tmp_path / "model.onnx", positive=True)
    theirs = captum(model, x, target, lambda: rules.Alpha1_Beta0_Rule(set_bias_to_zero=True))
    explainer = igonnx.Explainer(tmp_path / "model.onnx")
    ours = explainer.lrp(x, target=target.tolist(), rule="z_plus", bias=False)
    assert relative(ours.values, theirs) < CLOSE


class Residual(nn.Module):
    """A sum that is no module."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 6, bias=False)
        self.relu = nn.ReLU()
        self.outer = nn.Linear(6, 3, bias=False)

    def forward(self, x):
        return self.outer(self.relu(x + self.inner(x)))


def test_a_residual_sum_without_a_module(tmp_path):
    """Captum hands the relevance of the sum to both terms, whole; its values add up to something else."""
    torch.manual_seed(0)
    model = Residual().eval()
    x = torch.randn(4, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"x": {0: "batch"}}
        path = tmp_path / "model.onnx"
        torch.onnx.export(model, (x,), path, input_names=["x"], dynamic_axes=axes, dynamo=False)
    inner, outer = (part.weight.detach().double().numpy().T for part in (model.inner, model.outer))
    wide = x.double().numpy()
    hidden = wide @ inner
    total = wide + hidden
    at_sum = np.maximum(total, 0) * outer[:, 1]
    wanted = wide * (at_sum / total + (at_sum / total) @ inner.T)
    scores = at_sum.sum(axis=1)
    ours = igonnx.Explainer(path).lrp(x.numpy(), target=1)
    assert relative(ours.values, wanted) < CLOSE
    np.testing.assert_allclose(wanted.sum(axis=1), scores, rtol=1e-9)
    theirs = captum(model, x.numpy(), 1, rules.EpsilonRule)
    assert np.abs(theirs.sum(axis=1) - scores).min() > 0.1 * np.abs(scores).min()
    assert relative(theirs, wanted) > 0.1
