"""Towards Data Science: "Understanding Deep Learning Models with Integrated Gradients".

What the walk-through does with MobileNetV2: the three most probable classes; the way from a black baseline to the
photo; 283 steps of Integrated Gradients; attribution mask and overlay.
Beyond it: the other baselines that it names, white and random, and a blurred one; the axioms that it states, checked:
sensitivity (what changes the score gets its share, all else gets nothing) and implementation invariance (another
network that computes the same gets the same attributions); regions (XRAI) and outlines.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import photos
from onnx import numpy_helper

import igonnx
from igonnx.baselines import Baselines
from igonnx.models import efficientnet_lite0
from igonnx.visual import outline, render


def compare_baselines(photo: photos.Photo, steps: int, folder: Path) -> None:
    """What is black is invisible to a black baseline, and what is white to a white one; noise hides neither."""
    choices: dict[str, Baselines] = {
        "black": photos.BLACK,
        "white": photos.WHITE,
        "random, four times": ["uniform"] * 4,
        "blurred": "blurred",
    }
    explainer = photos.classifier()
    pictures = {
        f"baseline: {name}": render(
            explainer.integrated_gradients(photo.x, baseline=baseline, steps=steps).of()[0],
            photo.image,
        )
        for name, baseline in choices.items()
    }
    photos.save(photos.page(pictures, columns=4, title=photo.title), folder / "baselines.png")


def show_regions(photo: photos.Photo, steps: int, folder: Path) -> None:
    """The few regions that count: XRAI's segments, and lines around what SmoothGrad-IG finds."""
    explainer = photos.classifier()
    segments = explainer.xrai(photo.x, baseline=["uniform"] * 4, steps=steps)
    smooth = explainer.smoothgrad_ig(photo.x, baseline=photos.BLACK, steps=steps, noise_samples=12)
    photos.save(render(segments.of()[0], photo.large, smooth=0.0), folder / "regions.png")
    photos.save(outline(smooth.of()[0], photo.large, dim=0.5), folder / "outline.png")


def check_sensitivity(photo: photos.Photo, steps: int) -> None:
    """A baseline that differs in its middle only: all of the change in score belongs to the middle."""
    middle = slice(64, 160)
    baseline = photo.x.copy()
    baseline[..., middle, middle] = photo.x.mean()
    result = photos.classifier().integrated_gradients(photo.x, baseline=baseline, steps=steps)
    inside = result.of()[..., middle, middle].sum()
    outside = np.abs(result.of()).sum() - np.abs(result.of()[..., middle, middle]).sum()
    change = result.scores[0] - result.baseline_scores[0]
    print(
        f"sensitivity: the middle changes the score by {change:+.4f}, gets {inside:+.4f}; all else gets {outside:.4f}"
    )


def shuffled_network() -> onnx.ModelProto:
    """The same function by another network: the 1,280 channels of its last convolution in another order."""
    model: onnx.ModelProto = efficientnet_lite0.build()
    order = np.random.default_rng(0).permutation(1280)
    for tensor in model.graph.initializer:
        if tensor.name.startswith(("_conv_head.", "_bn1.", "_fc.weight")):
            axis = 1 if tensor.name == "_fc.weight" else 0
            shuffled = numpy_helper.to_array(tensor).take(order, axis)
            tensor.CopyFrom(numpy_helper.from_array(shuffled, tensor.name))
    return model


def check_invariance(photo: photos.Photo, steps: int) -> None:
    """Two networks that compute the same, and what they attribute."""
    one, other = (
        explainer.integrated_gradients(photo.x, baseline=photos.BLACK, steps=steps).of()
        for explainer in (
            photos.classifier(),
            igonnx.Explainer(shuffled_network(), apply="softmax"),
        )
    )
    difference = np.linalg.norm(one - other) / np.linalg.norm(one)
    print(
        f"implementation invariance: the shuffled network's attributions differ by {difference:.1e} of their size"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Explain a photo step by step, then ask what the explanation is worth."""
    options = photos.command_line(__file__, __doc__, argv, photo="rocket", steps=283)
    photo = photos.load(options.photo)
    for _, label, probability in photos.most_probable(photo.x):
        print(f"{label}: {probability:.1%}")

    explainer = photos.classifier()
    black = explainer.integrated_gradients(photo.x, baseline=photos.BLACK, steps=options.steps)
    photos.save(
        black.plot_interpolations(photo.image, title=photo.title), options.output / "path.png"
    )
    figure = black.plot_views(
        photo.image,
        kinds=["heat_map", "blended_heat_map"],
        signs="absolute",
        colours="inferno",
        smooth=1.0,
        titles=["attribution mask", "overlay on the input"],
        title=photo.title,
        subtitle=f"{options.steps} steps from black; completeness error {black.relative_delta[0]:.2%}",
    )
    photos.save(figure, options.output / "mask.png")
    fewer = max(1, options.steps // 8)
    compare_baselines(photo, 2 * fewer, options.output)
    show_regions(photo, fewer, options.output)
    check_sensitivity(photo, options.steps)
    check_invariance(photo, fewer)


if __name__ == "__main__":
    main()
