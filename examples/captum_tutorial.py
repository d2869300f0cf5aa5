"""Captum: "Model Interpretability and Understanding for PyTorch using Captum" (DigitalOcean's tutorial).

What the tutorial does with ResNet-18 and a cat: predict; Integrated Gradients as a heat map in colours of one's own; a
noise tunnel (SmoothGrad-squared) around them; GradientSHAP; what a layer inside the network contributes, scaled up to
the image, blended and masked. It lists saliency, input x gradient, guided backpropagation and deconvolution: here they
are computed. Layer GradCAM, occlusion, infidelity and sensitivity are not in igonnx yet; the layer is explained by
layer Integrated Gradients, whose values add up to the score.
Beyond it: further members of the family, and the insertion-deletion score, which tells by the model which map to trust.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import photos

import igonnx
from igonnx.metrics import insertion_deletion
from igonnx.models import efficientnet_lite0
from igonnx.visual import render

WHITE_TO_BLACK = [(0, "white"), (0.25, "black"), (1, "black")]  # the tutorial's colours
LAYER = "block10.sum"  # [n, 112, 14, 14]


def main_methods(photo: photos.Photo, steps: int) -> dict[str, igonnx.Attribution]:
    """The three methods that the tutorial computes for the input, from its baseline, zeros: a medium grey.

    The tunnel's noise is as strong as the photo's contrast: in inputs normalised as there, that is the tutorial's 1.
    """
    explainer, x = photos.classifier(), photo.x
    return {
        "Integrated Gradients": explainer.integrated_gradients(x, steps=4 * steps),
        "noise tunnel, SmoothGrad-squared": explainer.integrated_gradients(
            x, steps=steps, noise="smoothgrad_sq", noise_samples=10, noise_std=float(x.std())
        ),
        "GradientSHAP": explainer.gradient_shap(
            x, baseline=np.concatenate([0 * x, x]), samples=4 * steps, noise_std=1e-4
        ),
    }


def other_methods(photo: photos.Photo, steps: int) -> dict[str, igonnx.Attribution]:
    """Those that the tutorial only describes, and some that came later."""
    explainer, x = photos.classifier(), photo.x
    return {
        "saliency": explainer.saliency(x),
        "SmoothGrad": explainer.saliency(x, noise="smoothgrad", noise_samples=2 * steps),
        "input × gradient": explainer.input_x_gradient(x),
        "guided backpropagation": explainer.guided_backprop(x),
        "deconvolution": explainer.deconvnet(x),
        "Guided IG": explainer.guided_ig(x, steps=4 * steps),
        "Blur IG": explainer.blur_ig(x, steps=2 * steps),
        "IDGI": explainer.idgi(x, steps=2 * steps),
        "XRAI": explainer.xrai(x, baseline=[photos.BLACK, photos.WHITE], steps=2 * steps),
    }


def show_layer(photo: photos.Photo, steps: int, folder: Path) -> None:
    """Layer Integrated Gradients: from what the layer holds for a grey image to what it holds for the photo."""
    explainer = igonnx.Explainer(efficientnet_lite0.build(), wrt=LAYER, apply="softmax")
    layer = explainer.integrated_gradients(photo.x, baseline={"images": 0 * photo.x}, steps=steps)
    values, error = layer.of()[0], layer.relative_delta[0]
    figure = layer.plot_views(
        photo.image,
        kinds=["original_image", "blended_heat_map", "masked_image"],
        signs=["all", "all", "positive"],
        outlier_percentile=20.0,
        title=f"What the layer {LAYER} contributes",
        subtitle=f"{photo.title}; {values.size:,} values that add up to the score but for {error:.1%}",
    )
    photos.save(figure, folder / "layer.png")


def compare(
    photo: photos.Photo, found: Mapping[str, igonnx.Attribution], steps: int, folder: Path
) -> None:
    """All methods side by side; a random order of the pixels would have the score 0 on average, 1 is the best."""
    pictures = {}
    for name, result in found.items():
        score = insertion_deletion(photos.classifier(), photo.x, result, steps=steps).score[0]
        caption = f"{name}\ninsertion-deletion {score:+.2f}".replace("-0", "\N{MINUS SIGN}0")
        smooth = 0.0 if name == "XRAI" else None  # its regions have edges
        pictures[caption] = render(result.of()[0], photo.image, smooth=smooth)
    photos.save(photos.page(pictures, columns=4, title=photo.title), folder / "all_methods.png")


def main(argv: Sequence[str] | None = None) -> None:
    """Explain a photo by everything that is there."""
    options = photos.command_line(__file__, __doc__, argv, photo="chelsea", steps=50)
    photo = photos.load(options.photo)
    print(f"predicted: {photo.title}")

    found = main_methods(photo, options.steps)
    for name, result in found.items():
        figure = result.plot_views(
            photo.image,
            kinds=["original_image", "heat_map", "heat_map", "blended_heat_map"],
            signs=["all", "positive", "absolute", "absolute"],
            colours={"positive": WHITE_TO_BLACK},
            title=name,
            subtitle=photo.title,
        )
        photos.save(
            figure, options.output / f"{name.partition(',')[0].replace(' ', '_').lower()}.png"
        )
    show_layer(photo, options.steps, options.output)
    compare(photo, found | other_methods(photo, options.steps), options.steps, options.output)


if __name__ == "__main__":
    main()
