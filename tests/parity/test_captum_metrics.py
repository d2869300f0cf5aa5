"""Infidelity and max-sensitivity against Captum's `infidelity` and `sensitivity_max`, at the same perturbations.

Captum repeats the inputs example by example, [N * S, ...]: its perturbation functions are given those that igonnx drew,
which are one per sample for all examples.
"""

from __future__ import annotations

import numpy as np
import pytest

import igonnx
from igonnx.metrics import GaussianNoise, SquareRemoval, infidelity, max_sensitivity

torch = pytest.importorskip("torch")
captum_attr = pytest.importorskip("captum.attr")
captum_metrics = pytest.importorskip("captum.metrics")
nn = torch.nn

pytestmark = pytest.mark.parity

TARGET = [0, 3, 2]
SAMPLES = 12


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 6, 3),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(6 * 4 * 3, 5),
    ).eval()


@pytest.fixture(scope="module")
def explainer(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "network.onnx"
    example = torch.zeros(2, 3, 12, 10)
    torch.onnx.export(
        network,
        (example,),
        path,
        dynamo=False,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
    )
    return igonnx.Explainer(path)


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).normal(size=(3, 3, 12, 10)).astype(np.float32)


def _close(found, expected):
    expected = expected.detach().numpy().astype(np.float64)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def _repeated(draws):
    """[S] draws of [N, ...] as Captum has them: [N * S, ...], example by example."""
    joined = np.stack(draws, axis=1)
    return torch.from_numpy(joined.reshape(-1, *joined.shape[2:]).astype(np.float32))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("perturbation", [GaussianNoise(0.1), SquareRemoval(4)])
def test_infidelity(network, explainer, x, perturbation, normalise):
    baseline = {"x": np.zeros_like(x)}
    drawn = [
        perturbation({"x": x}, baseline, np.random.default_rng([0, k])) for k in range(SAMPLES)
    ]
    gradient = explainer.saliency(x, target=TARGET, absolute=False)
    found = infidelity(
        explainer,
        x,
        gradient,
        perturbation=perturbation,
        samples=SAMPLES,
        normalise=normalise,
    )

    def same_draws(inputs):
        assert len(inputs) == 3 * SAMPLES
        return tuple(_repeated([pair[part]["x"] for pair in drawn]) for part in (0, 1))

    expected = captum_metrics.infidelity(
        network,
        same_draws,
        torch.from_numpy(x),
        torch.from_numpy(gradient.of()),
        target=TARGET,
        n_perturb_samples=SAMPLES,
        normalize=normalise,
    )
    _close(found.score, expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_infidelity_of_contributions(network, explainer, x):
    """What Captum's decorator makes of `multiply_by_inputs`, where no input equals its baseline."""
    start = np.full_like(x, -5.0)
    perturbation = GaussianNoise(0.1)
    drawn = [
        perturbation({"x": x}, {"x": start}, np.random.default_rng([0, k])) for k in range(SAMPLES)
    ]
    contributions = explainer.integrated_gradients(x, target=TARGET, baseline=-5.0)
    found = infidelity(
        explainer, x, contributions, perturbation=perturbation, samples=SAMPLES, baseline=-5.0
    )

    @captum_metrics.infidelity_perturb_func_decorator(multiply_by_inputs=True)
    def same_draws(*_):
        return _repeated([pair[1]["x"] for pair in drawn])

    expected = captum_metrics.infidelity(
        network,
        same_draws,
        torch.from_numpy(x),
        torch.from_numpy(contributions.of()),
        baselines=torch.from_numpy(start),
        target=TARGET,
        n_perturb_samples=SAMPLES,
    )
    _close(found.score, expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Input Tensor 0 did not already")
@pytest.mark.parametrize("order", [1, 2, np.inf])
@pytest.mark.parametrize("method", ["saliency", "integrated_gradients"])
def test_max_sensitivity(network, explainer, x, method, order):
    radius = 0.1
    moved = []

    def kept(inputs, radius, random):
        moved.append(inputs["x"] + random.uniform(-radius, radius, x.shape[1:]).astype(np.float32))
        return {"x": moved[-1]}

    settings = {"steps": 20, "rule": "middle"} if method == "integrated_gradients" else {}
    found = max_sensitivity(
        explainer,
        x,
        method,
        target=TARGET,
        radius=radius,
        samples=SAMPLES,
        order=order,
        perturbation=kept,
        **settings,
    )
    if method == "saliency":
        explained = captum_attr.Saliency(network).attribute
        options = {}
    else:
        explained = captum_attr.IntegratedGradients(network).attribute
        options = {"n_steps": 20, "method": "riemann_middle"}
    expected = captum_metrics.sensitivity_max(
        explained,
        torch.from_numpy(x),
        perturb_func=lambda inputs: _repeated(moved),
        perturb_radius=radius,
        n_perturb_samples=SAMPLES,
        norm_ord=order,
        target=TARGET,
        **options,
    )
    _close(found.score, expected)
