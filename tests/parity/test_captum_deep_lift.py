"""DeepLIFT and DeepLIFT-SHAP against Captum's, and closed forms where Captum's do not add up.

Captum's rule belongs to modules. Where the sum of its values is not the change of the score (a softmax, a function
without a module, a max-pool behind a ReLU or with windows that overlap), the sum tells who is right.
"""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest

import igonnx

torch = pytest.importorskip("torch")
captum_attr = pytest.importorskip("captum.attr")
nn = torch.nn

pytestmark = pytest.mark.parity

CLOSE = 1e-4


def captum(method, model, x, baseline, target):
    """Captum's values in double precision: in single its quotients of small differences are all rounding."""
    x, baseline = (torch.from_numpy(array).double() for array in (x, baseline))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it sets hooks
        found = method(copy.deepcopy(model).double()).attribute(
            x, baselines=baseline, target=target
        )
    return found.detach().numpy()


def exported(model, x, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's
        axes = {"x": {0: "batch"}}
        given = (torch.from_numpy(x),)
        torch.onnx.export(model, given, path, input_names=["x"], dynamic_axes=axes, dynamo=False)
    return path


def change(model, x, baseline, target):
    """The score of each example less that of its baseline."""
    with torch.no_grad():
        ends = [model(torch.from_numpy(array)).numpy() for array in (x, baseline)]
    rows = np.arange(len(x))
    return ends[0][rows, target] - ends[1][rows, target]


def sums(values):
    return values.reshape(len(values), -1).sum(axis=1)


class Block(nn.Module):
    """A residual block, each ReLU a module of its own."""

    def __init__(self, channels: int):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 1)
        )
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.main(x) + x)


class Functional(nn.Module):
    """A function in the place of a module."""

    def forward(self, x):
        return nn.functional.relu(x)


def mlp():
    layers = [nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.ELU(), nn.LeakyReLU(0.1), nn.Softplus()]
    return nn.Sequential(
        *(part for layer in layers for part in (nn.Linear(12, 12), layer)), nn.Linear(12, 5)
    )


def cnn(pool=None):
    """Captum mixes up the multipliers of a max-pool and a ReLU right beside it: so they stand apart here."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        pool or nn.Conv2d(8, 8, 1),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 1),
        Block(8),
        nn.Conv2d(8, 12, 3),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.LazyLinear(5),
    )


def built(make, *shape):
    """A network with settled random weights, an input and a baseline of three examples."""
    torch.manual_seed(4)
    model = make().eval()
    x, baseline = (torch.randn(3, *shape).numpy() for _ in range(2))
    model(torch.from_numpy(x))
    return model, x, baseline


TARGET = [1, 4, 0]
NETWORKS = {"mlp": (mlp, 12), "cnn": (cnn, 3, 18, 18)}


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name, engine, tmp_path, measured):
    model, x, baseline = built(*NETWORKS[name])
    explainer = igonnx.Explainer(exported(model, x, tmp_path / "model.onnx"), engine=engine)
    found = explainer.deep_lift(x, baseline=baseline, target=TARGET)
    expected = captum(captum_attr.DeepLift, model, x, baseline, TARGET)
    assert measured.relative_l2(found.values, expected) <= CLOSE
    assert np.abs(found.delta).max() <= 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_distribution_of_baselines(name, tmp_path, measured):
    model, x, _ = built(*NETWORKS[name])
    baselines = np.random.default_rng(2).normal(size=(7, *x.shape[1:])).astype(np.float32)
    explainer = igonnx.Explainer(exported(model, x, tmp_path / "model.onnx"))
    found = explainer.deep_lift_shap(x, baseline=baselines, target=TARGET)
    expected = captum(captum_attr.DeepLiftShap, model, x, baselines, TARGET)
    assert measured.relative_l2(found.values, expected) <= CLOSE


def test_resnet50(subject, tmp_path, measured):
    """With an average in the place of its max-pool, which Captum does not get right (see below)."""
    pytest.importorskip("transformers")
    model = copy.deepcopy(subject("resnet50").model)
    embedder = next(
        m for m in model.modules() if isinstance(getattr(m, "pooler", None), nn.MaxPool2d)
    )
    embedder.pooler = nn.AvgPool2d(3, 2, 1)
    x = subject("resnet50").inputs["pixel_values"][:1]
    baseline = np.zeros_like(x)
    explainer = igonnx.Explainer(exported(model, x, tmp_path / "model.onnx"))
    found = explainer.deep_lift(x, baseline=baseline, target=[3])
    expected = captum(captum_attr.DeepLift, model, x, baseline, [3])
    assert measured.relative_l2(found.values, expected) <= CLOSE
    assert found.relative_delta.max() <= CLOSE


WRONG = {
    "softmax": lambda: nn.Sequential(nn.Linear(12, 5), nn.Softmax(dim=1)),
    "function": lambda: nn.Sequential(nn.Linear(12, 9), Functional(), nn.Linear(9, 5)),
    "pool behind relu": lambda: cnn(nn.MaxPool2d(2)),
    "overlap": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.MaxPool2d(3, 1), nn.Flatten(), nn.LazyLinear(5)
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_where_captum_does_not_add_up(name, tmp_path, measured):
    shape = (3, 18, 18) if "pool" in name or name == "overlap" else (12,)
    model, x, baseline = built(WRONG[name], *shape)
    explainer = igonnx.Explainer(exported(model, x, tmp_path / "model.onnx"))
    found = explainer.deep_lift(x, baseline=baseline, target=TARGET)
    theirs = captum(captum_attr.DeepLift, model, x, baseline, TARGET)
    wanted = change(model, x, baseline, TARGET)
    size = np.abs(wanted).max()
    assert measured("igonnx misses", np.abs(sums(found.values) - wanted).max() / size) <= CLOSE
    assert measured("Captum misses", np.abs(sums(theirs) - wanted).max() / size) >= 0.01
    # The same function, of modules that Captum has rules for: the values agree.
    if name == "function":
        modules = nn.Sequential(model[0], nn.ReLU(), model[2])
        right = captum(captum_attr.DeepLift, modules, x, baseline, TARGET)
        assert measured.relative_l2(found.values, right) <= CLOSE


def test_a_module_used_twice(tmp_path):
    """Captum refuses it; in a graph there are two operators."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(12, 12), nn.Linear(12, 5)
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.second(self.relu(self.first(self.relu(x))))

    model, x, baseline = built(Twice, 12)
    with pytest.raises(RuntimeError):
        captum(captum_attr.DeepLift, model, x, baseline, TARGET)
    found = igonnx.Explainer(exported(model, x, tmp_path / "model.onnx")).deep_lift(
        x, baseline=baseline, target=TARGET
    )
    twins = nn.Sequential(nn.ReLU(), model.first, nn.ReLU(), model.second)
    expected = captum(captum_attr.DeepLift, twins, x, baseline, TARGET)
    assert np.linalg.norm(found.values - expected) <= CLOSE * np.linalg.norm(expected)
