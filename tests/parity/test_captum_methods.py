"""Saliency, input x gradient, the noise tunnel, GradientSHAP and Layer IG against Captum, by the same draws.

Captum draws from the global generators of PyTorch and NumPy, another number for every example: here they are made to
hand out igonnx's draws, which are the same for every example. Its rows go example by example, each with its samples
one behind the other. Captum's `smoothgrad_sq` and `vargrad` in float32 subtract squares that are close to each other;
igonnx's variance does without. The networks are smooth, so that nothing but rounding is left.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import onnx
import pytest

import igonnx

torch = pytest.importorskip("torch")
captum_attr = pytest.importorskip("captum.attr")
nn = torch.nn

pytestmark = pytest.mark.parity

SMALL = 2e-5
SAMPLES = 6
SEED = 5
TARGET = [0, 5, 2]
KINDS = ["smoothgrad", "smoothgrad_sq", "vargrad"]


def convolutions():
    return nn.Sequential(
        nn.Conv2d(3, 12, 5, padding=2),
        nn.SiLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(12, 20, 3, groups=4),
        nn.GELU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(20 * 6 * 4, 16),
        nn.Tanh(),
        nn.Linear(16, 7),
    )


class Attention(nn.Module):
    """A block of a transformer, two heads, its matrices written out."""

    def __init__(self, width):
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.both, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x):
        heads = self.both(self.first(x)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = heads[0], heads[1], heads[2]
        weights = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, dim=-1)
        x = x + self.out((weights @ v).transpose(1, 2).flatten(2))
        return x + self.wide(self.second(x))


class Transformer(nn.Module):
    """Token ids [N, 9], or with `words=None` their embeddings [N, 9, 12], -> seven classes."""

    def __init__(self, words=31, width=12):
        super().__init__()
        self.words = nn.Embedding(words, width) if words else nn.Identity()
        self.places = nn.Parameter(torch.randn(9, width) / 2)
        self.blocks = nn.Sequential(Attention(width), Attention(width))
        self.last, self.classes = nn.LayerNorm(width), nn.Linear(width, 7)

    def forward(self, x):
        return self.classes(
            torch.tanh(self.last(self.blocks(self.words(x) + self.places))).mean(dim=1)
        )


class Network(NamedTuple):
    """A model in PyTorch, three examples, and its file."""

    model: object
    x: object
    path: object


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """By name: "convolutions" and "transformer" (of floats), "words" (of token ids)."""
    torch.manual_seed(1)
    found = {}
    for name, model, x in (
        ("convolutions", convolutions(), torch.randn(3, 3, 29, 21)),
        ("transformer", Transformer(words=None), torch.randn(3, 9, 12)),
        ("words", Transformer(), torch.randint(0, 31, (3, 9))),
    ):
        model.eval()
        path = tmp_path_factory.mktemp("methods") / f"{name}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's
            torch.onnx.export(
                model, (x,), path, input_names=["x"], dynamo=False, dynamic_axes={"x": {0: "batch"}}
            )
        found[name] = Network(model, x, path)
    return found


EACH = pytest.mark.parametrize("name", ["convolutions", "transformer"])
CAPTUM = {
    "saliency": captum_attr.Saliency,
    "input_x_gradient": captum_attr.InputXGradient,
    "integrated_gradients": captum_attr.IntegratedGradients,
}
STEPS = {"integrated_gradients": 7}


def array(tensor):
    return tensor.detach().numpy()


def close(given, expected, measured, what):
    assert measured.relative_l2(given, expected, what) <= SMALL


# -- the gradient at the input -----------------------------------------------------------------


@EACH
@pytest.mark.parametrize("engine", ["native", "reference"])
def test_gradients(name, engine, networks, measured):
    model, x, path = networks[name]
    leaf = x.clone().requires_grad_()
    explainer = igonnx.Explainer(path, engine=engine)
    for absolute in (True, False):
        given = explainer.saliency(x.numpy(), target=TARGET, absolute=absolute)
        expected = captum_attr.Saliency(model).attribute(leaf, target=TARGET, abs=absolute)
        close(given.values, array(expected), measured, f"saliency {absolute}")
    given = explainer.input_x_gradient(x.numpy(), target=TARGET)
    expected = captum_attr.InputXGradient(model).attribute(leaf, target=TARGET)
    close(given.values, array(expected), measured, "input x gradient")


# -- noise -------------------------------------------------------------------------------------


def copies_of(draws, examples):
    """Draws [samples, ...], once for every example, as Captum's rows go: [examples * samples, ...]."""
    return np.tile(draws, (examples, *[1] * (draws.ndim - 1))).astype(np.float32)


@EACH
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", CAPTUM)
def test_noise_tunnel(name, kind, method, networks, measured, monkeypatch):
    model, x, path = networks[name]
    draws = np.random.default_rng(SEED).standard_normal((SAMPLES, *x.shape[1:]), dtype=np.float32)
    noise = torch.from_numpy(copies_of(draws, len(x)))

    def normal(mean, std):
        assert mean == 0
        assert std.shape == noise.shape
        return noise * std

    monkeypatch.setattr(torch, "normal", normal)
    steps = {"n_steps": STEPS[method]} if method in STEPS else {}
    tunnel = captum_attr.NoiseTunnel(CAPTUM[method](model))
    expected = tunnel.attribute(
        x, nt_type=kind, nt_samples=SAMPLES, stdevs=0.25, target=TARGET, **steps
    )
    steps = {"steps": STEPS[method]} if method in STEPS else {}
    options = {"noise": kind, "noise_samples": SAMPLES, "noise_std": 0.25, "seed": SEED, **steps}
    explainer = igonnx.Explainer(path)
    given = getattr(explainer, method)(x.numpy(), target=TARGET, **options)
    close(given.values, array(expected), measured, kind)
    if method == "integrated_gradients":
        same = explainer.smoothgrad_ig(x.numpy(), target=TARGET, **options)
        close(same.values, array(expected), measured, "smoothgrad_ig")


# -- GradientSHAP ------------------------------------------------------------------------------


@EACH
@pytest.mark.parametrize("size", [1, 8])
@pytest.mark.parametrize("std", [0.0, 0.3])
@pytest.mark.parametrize("engine", ["native", "reference"])
def test_gradient_shap(name, size, std, engine, networks, measured, monkeypatch):
    model, x, path = networks[name]
    baselines = np.random.default_rng(2).normal(size=(size, *x.shape[1:])).astype(np.float32)
    rng = np.random.default_rng(SEED)
    number, alpha = rng.integers(size, size=SAMPLES), rng.random(SAMPLES)
    draws = (
        rng.standard_normal((SAMPLES, *x.shape[1:]), dtype=np.float32)
        if std
        else np.zeros((SAMPLES, *x.shape[1:]))
    )
    noise = torch.from_numpy(copies_of(draws, len(x)))

    def choice(most, count):
        assert (most, count) == (size, SAMPLES * len(x))
        return copies_of(number, len(x)).astype(int)

    def uniform(low, high, count):
        assert (low, high, count) == (0, 1, SAMPLES * len(x))
        return copies_of(alpha, len(x)).astype(np.float64)

    monkeypatch.setattr(torch, "normal", lambda _, deviation: noise * deviation)
    monkeypatch.setattr(np.random, "choice", choice)
    monkeypatch.setattr(np.random, "uniform", uniform)
    expected = captum_attr.GradientShap(model).attribute(
        x, torch.from_numpy(baselines), n_samples=SAMPLES, stdevs=std, target=TARGET
    )
    given = igonnx.Explainer(path, engine=engine).gradient_shap(
        x.numpy(), baseline=baselines, samples=SAMPLES, noise_std=std, seed=SEED, target=TARGET
    )
    close(given.values, array(expected), measured, f"noise {std}")


# -- layers ------------------------------------------------------------------------------------


def output_of(path, operator, position=0):
    """The name of what the node of this operator at this position gives."""
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == operator]
    return nodes[position].output[0]


def layer_integrated_gradients(model, layer, x, baseline):
    explain = captum_attr.LayerIntegratedGradients(model, layer)
    values, delta = explain.attribute(
        x, baseline, target=TARGET, n_steps=20, return_convergence_delta=True
    )
    return array(values), array(delta)


def compare_layer(path, wrt, x, baseline, expected, measured, *, everything=True):
    """`everything`: nothing goes past the layer.

    Else there is more to the change in score from input to input, which Captum's delta counts from, than what the layer
    can add up to; igonnx's baseline score is that of the layer's own baseline, with all else as it was.
    """
    for engine in ("native", "reference"):
        explainer = igonnx.Explainer(path, wrt=wrt, engine=engine)
        given = explainer.integrated_gradients(
            x.numpy(), baseline={"x": baseline}, target=TARGET, steps=20
        )
        values, delta = expected
        close(given.values, values, measured, f"{wrt} {engine}")
        terms = np.abs(given.values).reshape(len(x), -1).sum(axis=1)
        assert measured("largest delta", np.max(np.abs(given.delta) / terms)) < SMALL
        if everything:
            assert measured("deltas differ", np.max(np.abs(given.delta - delta) / terms)) < SMALL


@pytest.mark.parametrize(
    ("layer", "operator", "position"), [(0, "Conv", 0), (2, "AveragePool", 0), (3, "Conv", 1)]
)
def test_layers_of_convolutions(layer, operator, position, networks, measured):
    model, x, path = networks["convolutions"]
    baseline = torch.rand(1, *x.shape[1:]) - 0.5
    expected = layer_integrated_gradients(model, model[layer], x, baseline.expand_as(x))
    compare_layer(
        path, output_of(path, operator, position), x, baseline.numpy(), expected, measured
    )


@pytest.mark.parametrize(("part", "operator", "position"), [
    ("words", "Gather", 0), ("first", "LayerNormalization", 0), ("second", "LayerNormalization", 3),
    ("last", "LayerNormalization", 4),
])  # fmt: skip
def test_layers_of_a_transformer(part, operator, position, networks, measured):
    """Of token ids: the baseline is a text of other words."""
    model, x, path = networks["words"]
    layers = {
        "words": model.words,
        "first": model.blocks[0].first,
        "second": model.blocks[1].second,
        "last": model.last,
    }
    baseline = torch.full_like(x, 4)
    expected = layer_integrated_gradients(model, layers[part], x, baseline)
    wrt, whole = output_of(path, operator, position), part in ("words", "last")
    compare_layer(path, wrt, x, 4, expected, measured, everything=whole)


def test_layer_gradient_shap(networks, measured, monkeypatch):
    """Of an inner tensor by baselines of the input: Captum's LayerGradientShap, all draws the same."""
    model, x, path = networks["convolutions"]
    baselines = np.random.default_rng(2).normal(size=(4, *x.shape[1:])).astype(np.float32)
    rng = np.random.default_rng(SEED)
    number, alpha = rng.integers(4, size=SAMPLES), rng.random(SAMPLES)
    monkeypatch.setattr(np.random, "choice", lambda *_: copies_of(number, 3).astype(int))
    monkeypatch.setattr(np.random, "uniform", lambda *_: copies_of(alpha, 3).astype(np.float64))
    with (
        torch.no_grad()
    ):  # Captum moves between inputs and keeps to the layer; here both are the layer
        inner, starts = model[:3](x), model[:3](torch.from_numpy(baselines))
    expected = captum_attr.GradientShap(model[3:]).attribute(
        inner, starts, n_samples=SAMPLES, target=TARGET
    )
    explainer = igonnx.Explainer(path, wrt=output_of(path, "AveragePool"))
    given = explainer.gradient_shap(
        x.numpy(),
        baseline=[{"x": one} for one in baselines],
        samples=SAMPLES,
        seed=SEED,
        target=TARGET,
    )
    close(given.values, array(expected), measured, "layer")
