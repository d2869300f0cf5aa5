"""Shapley values, KernelSHAP and LIME against Captum: at the same draws where Captum can be handed them.

Shapley value sampling: Captum's permutations are replaced by igonnx's, and its exact `ShapleyValues`, which goes
through all orders, is compared with all coalitions. LIME: igonnx's masks, similarities in the space of masks (Captum's
default compares inputs) and the same regression of scikit-learn. KernelSHAP: Captum draws sizes by the kernel, each for
itself, and fits all coalitions alike, the empty and the whole one a million times as heavy; given igonnx's coalitions
and weights it solves the same problem, but for that weight, in float32. By its own draws it agrees within their error.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import pytest

import igonnx
from igonnx.methods.kernel_shap import drawn_coalitions
from igonnx.methods.lime import drawn_masks
from igonnx.methods.shapley import drawn_orders

torch = pytest.importorskip("torch")
captum_attr = pytest.importorskip("captum.attr")
linear_models = pytest.importorskip("captum._utils.models.linear_model")
pytest.importorskip("sklearn")
nn = torch.nn

pytestmark = pytest.mark.parity

SMALL = 1e-4
SEED = 5
BASELINE = 0.2


class Network(NamedTuple):
    """A model in PyTorch with its file, what is explained, the features, and what else is fed."""

    forward: Any
    explainer: igonnx.Explainer
    x: Any  # the explained tensor, [2, ...]
    inputs: dict[str, np.ndarray]
    others: tuple[Any, ...]
    mask: np.ndarray  # without the batch axis
    target: list[int]

    @property
    def features(self):
        return int(self.mask.max()) + 1

    def ours(self, method, example=None, **settings):
        """igonnx's values, of one example or both."""
        rows = slice(None) if example is None else slice(example, example + 1)
        inputs = {name: array[rows] for name, array in self.inputs.items()}
        return getattr(self.explainer, method)(
            inputs,
            target=self.target[rows],
            baseline=BASELINE,
            feature_mask=self.mask,
            seed=SEED,
            **settings,
        )

    def theirs(self, method, example=None, **settings):
        """Captum's values, by an instance of its method."""
        rows = slice(None) if example is None else slice(example, example + 1)
        with torch.no_grad():
            found = method.attribute(
                self.x[rows],
                baselines=BASELINE,
                target=torch.tensor(self.target[rows]),
                additional_forward_args=tuple(other[rows] for other in self.others) or None,
                feature_mask=torch.from_numpy(self.mask)[None],
                **settings,
            )
        return found.numpy()


def exported(model, x, mask, path):
    model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's
        torch.onnx.export(
            model, (x,), path, input_names=["x"], dynamo=False, dynamic_axes={"x": {0: "batch"}}
        )
    explainer = igonnx.Explainer(path)
    return Network(model, explainer, x, {"x": x.numpy()}, (), mask, [0, 3])


def subject_network(tested, mask):
    """A model at full size; of a text model the words' embeddings are explained."""
    path, wrt = tested.export("script")
    inputs = {name: array[:2] for name, array in tested.inputs.items()}
    tensors = [torch.from_numpy(array) for array in inputs.values()]
    x, forward = tensors[0], tested.model
    if tested.words is not None:
        x = tested.words.weight.detach()[tensors[0]]

        def forward(words, *others):
            handle = tested.words.register_forward_hook(lambda *_: words)
            try:
                return tested.model(torch.zeros(words.shape[:2], dtype=torch.int64), *others)
            finally:
                handle.remove()

    explainer = igonnx.Explainer(path, wrt=wrt)
    return Network(forward, explainer, x, inputs, tuple(tensors[1:]), mask, [0, 1])


def patches(size, count):
    """`count` by `count` patches of a picture, [1, size, size]."""
    rows = np.arange(size) * count // size
    return (rows[:, None] * count + rows)[None]


EACH = pytest.mark.parametrize("network", ["mlp", "cnn", "resnet50", "bert"], indirect=True)


@pytest.fixture(scope="module")
def network(request, tmp_path_factory, subject):
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("sampling") / "model.onnx"
    if request.param == "mlp":
        model = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 16), nn.Tanh())
        return exported(model, torch.randn(2, 8), np.arange(8), path)
    if request.param == "cnn":
        model = nn.Sequential(
            nn.Conv2d(3, 8, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(12 * 10 * 10, 7),
        )
        return exported(model, torch.randn(2, 3, 24, 24), patches(24, 3), path)
    tested = subject(request.param)
    mask = patches(224, 3) if request.param == "resnet50" else (np.arange(64) // 8)[:, None]
    return subject_network(tested, mask)


@EACH
@pytest.mark.parametrize("antithetic", [True, False])
def test_orders_of_shapley_values(network, antithetic, measured):
    orders = drawn_orders(network.features, 4, antithetic, SEED)
    method = captum_attr.ShapleyValueSampling(network.forward)
    method.permutation_generator = lambda *_: iter(orders.argsort(axis=1).tolist())
    expected = network.theirs(method, n_samples=4)
    given = network.ours("shapley_value_sampling", samples=4, antithetic=antithetic, exact=False)
    assert measured.relative_l2(given.values, expected) <= SMALL


@pytest.mark.parametrize("network", ["mlp", "cnn", "bert"], indirect=True)
def test_all_orders(network, measured):
    """Four features: 24 orders there, 16 coalitions here."""
    few = network._replace(mask=np.minimum(network.mask, 3))
    expected = few.theirs(captum_attr.ShapleyValues(few.forward))
    given = few.ours("shapley_value_sampling", exact=True)
    assert measured.relative_l2(given.values, expected) <= SMALL
    kernel = few.ours("kernel_shap")
    assert measured.relative_l2(kernel.values, expected, "KernelSHAP") <= SMALL


@EACH
@pytest.mark.parametrize("surrogate", ["ridge", "lasso"])
def test_lime(network, surrogate, measured):
    """By a penalty small enough for the lasso to leave features."""
    samples = 24
    keep = drawn_masks(network.features, samples, SEED)
    kind = {"ridge": linear_models.SkLearnRidge, "lasso": linear_models.SkLearnLasso}[surrogate]
    for example in range(2):
        rows = iter(torch.from_numpy(keep).long()[:, None])

        def perturb(*_, rows=rows, **__):
            yield from rows

        def similarity(_, __, row, **___):
            away = 1 - (row.float().mean() ** 0.5).item()
            return float(np.exp(-(away**2) / (2 * 0.25**2)))

        method = captum_attr.Lime(
            network.forward,
            interpretable_model=kind(alpha=0.001),
            similarity_func=similarity,
            perturb_func=perturb,
        )
        expected = network.theirs(method, example, n_samples=samples)
        given = network.ours("lime", example, samples=samples, surrogate=surrogate, alpha=0.001)
        assert measured.relative_l2(given.values, expected) <= SMALL


@pytest.mark.parametrize(
    ("network", "samples"),
    [("mlp", 40), ("cnn", 40), ("resnet50", 40), ("bert", 40), ("mlp", 600), ("cnn", 600)],
    indirect=["network"],
)
def test_coalitions_of_kernel_shap(network, samples, measured):
    """Eight or nine features, so that 600 are all coalitions."""
    coalitions = drawn_coalitions(network.features, samples, SEED)
    weight = np.concatenate([[0, 0], coalitions.weight / coalitions.weight.max()])
    weight[:2] = 1e6
    ends = np.array([[True], [False]]).repeat(network.features, axis=1)
    keep = np.concatenate([ends, coalitions.keep])
    for example in range(2):
        rows, weights = iter(torch.from_numpy(keep).long()[:, None]), iter(weight.tolist())

        def perturb(*_, rows=rows, **__):
            yield from rows

        method = captum_attr.KernelShap(network.forward)
        method.perturb_func = perturb
        method.similarity_func = lambda *_, weights=weights, **__: torch.tensor([next(weights)])
        expected = network.theirs(method, example, n_samples=len(keep))
        given = network.ours("kernel_shap", example, samples=samples)
        assert measured.relative_l2(given.values, expected) <= SMALL


@pytest.mark.parametrize("network", ["mlp"], indirect=True)
def test_kernel_shap_by_its_own_draws(network, measured):
    """Captum's estimate from 2000 coalitions is within its own error of igonnx's, which is exact."""
    torch.manual_seed(2)
    expected = network.theirs(captum_attr.KernelShap(network.forward), 0, n_samples=2000)
    given = network.ours("kernel_shap", 0)
    assert 1e-4 < measured.relative_l2(expected, given.values, "by its own draws") <= 0.1
