"""Occlusion, feature ablation and feature permutation against Captum.

Captum occludes several tensors one after the other, and counts windows of the second and third of three from the
product of the others' numbers where it should be the sum; two tensors are right.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import onnx
import pytest

import igonnx

torch = pytest.importorskip("torch")
captum_attr = pytest.importorskip("captum.attr")
nn = torch.nn

pytestmark = pytest.mark.parity

SMALL = 2e-5  # relative L2
TARGET = [0, 5, 2]


def convolutions() -> Any:
    return nn.Sequential(
        nn.Conv2d(3, 12, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(12, 20, 3, groups=4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(20 * 5 * 6, 7),
    )


class TwoInputs(nn.Module):
    """A picture and a row of numbers meet in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(24, 9), nn.Linear(5, 9)
        self.out = nn.Linear(9, 7)

    def forward(self, a: Any, b: Any) -> Any:
        return self.out(torch.tanh(self.left(a.flatten(1)) + self.right(b)))


def both(
    network: Any, *shapes: tuple[int, ...]
) -> tuple[Any, igonnx.Explainer, list[Any], list[Any]]:
    """The network, an explainer of its ONNX file, inputs and baselines of three examples."""
    torch.manual_seed(3)
    network = network.eval()
    inputs = [torch.randn(3, *shape) for shape in shapes]
    baselines = [0.3 * torch.randn(3, *shape) for shape in shapes]
    names = [f"x{i}" for i in range(len(shapes))]
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            tuple(inputs),
            file,
            dynamo=False,
            input_names=names,
            output_names=["y"],
            dynamic_axes={name: {0: "N"} for name in [*names, "y"]},
        )
    explainer = igonnx.Explainer(onnx.load_from_string(file.getvalue()))
    return network, explainer, inputs, baselines


def named(tensors: list[Any]) -> Any:
    arrays = {f"x{i}": tensor.numpy() for i, tensor in enumerate(tensors)}
    return arrays if len(arrays) > 1 else arrays["x0"]


def assert_near(found: Any, expected: Any) -> None:
    mine = list(found.values()) if isinstance(found, dict) else [found]
    theirs = expected if isinstance(expected, tuple) else (expected,)
    for one, other in zip(mine, theirs, strict=True):
        other = other.detach().numpy()
        assert one.shape == other.shape
        assert np.linalg.norm(one - other) <= SMALL * np.linalg.norm(other)


@pytest.mark.parametrize(
    ("window", "strides"),
    [((3, 4, 4), (3, 2, 2)), ((3, 5, 3), (3, 3, 2)), ((1, 4, 6), (1, 4, 5)), ((2, 14, 16), (1, 1, 1))],
)  # fmt: skip
def test_occlusion(window: tuple[int, ...], strides: tuple[int, ...]) -> None:
    network, explainer, (x,), (baseline,) = both(convolutions(), (3, 14, 16))
    found = explainer.occlusion(
        named([x]), target=TARGET, baseline=named([baseline]), window=window, strides=strides
    )
    expected = captum_attr.Occlusion(network).attribute(
        x,
        sliding_window_shapes=window,
        strides=strides,
        baselines=baseline,
        target=TARGET,
        perturbations_per_eval=3,
    )
    assert_near(found.values, expected)


def test_occlusion_of_two_tensors() -> None:
    network, explainer, inputs, baselines = both(TwoInputs(), (4, 6), (5,))
    found = explainer.occlusion(
        named(inputs),
        target=TARGET,
        baseline=named(baselines),
        window={"x0": (2, 3), "x1": 2},
        strides={"x0": (2, 2), "x1": 1},
    )
    expected = captum_attr.Occlusion(network).attribute(
        tuple(inputs),
        sliding_window_shapes=((2, 3), (2,)),
        strides=((2, 2), 1),
        baselines=tuple(baselines),
        target=TARGET,
    )
    assert_near(found.values, expected)


@pytest.mark.parametrize("masked", [False, True])
def test_feature_ablation(masked: bool) -> None:
    network, explainer, inputs, baselines = both(TwoInputs(), (4, 6), (5,))
    masks = [torch.arange(24).reshape(1, 4, 6) // 5, torch.tensor([[5, 6, 6, 7, 5]])]
    found = explainer.feature_ablation(
        named(inputs),
        target=TARGET,
        baseline=named(baselines),
        feature_mask=named(masks) if masked else None,
    )
    expected = captum_attr.FeatureAblation(network).attribute(
        tuple(inputs),
        baselines=tuple(baselines),
        target=TARGET,
        feature_mask=tuple(masks) if masked else None,
    )
    assert_near(found.values, expected)


def test_feature_ablation_of_superpixels_of_each_picture() -> None:
    network, explainer, (x,), _ = both(convolutions(), (3, 14, 16))
    from igonnx.methods.superpixels import superpixels

    mask = superpixels(x.numpy(), 9)
    found = explainer.feature_ablation(x.numpy(), target=TARGET, segments=9)
    for example in range(3):
        expected = captum_attr.FeatureAblation(network).attribute(
            x[example : example + 1],
            target=TARGET[example],
            feature_mask=torch.from_numpy(mask[example : example + 1]),
        )
        assert_near(found.values[example : example + 1], expected)


def test_feature_permutation() -> None:
    """By the same permutations: Captum is handed igonnx's, one feature after the other."""
    network, explainer, (x,), _ = both(convolutions(), (3, 14, 16))
    mask = torch.arange(14 * 16).reshape(1, 1, 14, 16) // 20
    random = np.random.default_rng(8)

    def permuted(x: Any, feature: Any) -> Any:
        order = np.arange(3)
        while (order == np.arange(3)).all():
            order = random.permutation(3)
        return torch.where(feature, x[torch.from_numpy(order)], x)

    found = explainer.feature_permutation(
        x.numpy(), target=TARGET, feature_mask=mask.numpy(), seed=8
    )
    expected = captum_attr.FeaturePermutation(network, perm_func=permuted).attribute(
        x, target=TARGET, feature_mask=mask
    )
    assert_near(found.values, expected)
