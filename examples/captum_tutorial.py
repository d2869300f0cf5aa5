"""Captum: "Model Interpretability and Understanding for PyTorch using Captum" (DigitalOcean's tutorial).

What the tutorial does with ResNet-18 and a cat, from the ONNX file alone: predict; Integrated Gradients as a heat map
in colours of one's own; a noise tunnel (SmoothGrad-squared) around them; GradientSHAP; GradCAM of a layer inside the
network, at its own size, then brought to the size of the photo, blended and masked; occlusion by a window of (3, 15,
15) in strides of (3, 8, 8). The methods that it only lists are computed as well, for a page of all, and so are its
measures, infidelity and sensitivity. Beyond it: further members of the family, and the insertion-deletion score,
which tells by the model which map to trust.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import photos

import igonnx
from igonnx.metrics import infidelity, insertion_deletion, max_sensitivity
from igonnx.visual import render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WHITE_TO_BLACK = [(0, "white"), (0.25, "black"), (1, "black")]  # the tutorial's colours
LAYER = "block10.sum"  # [n, 112, 14, 14]; the tutorial's is one of 256 maps of 14 by 14
WINDOW, STRIDES = (3, 15, 15), (3, 8, 8)

Found = dict[str, igonnx.Attribution]


def main_methods(photo: photos.Photo, steps: int) -> Found:
    """The methods that the tutorial computes for the input, from its baseline, zeros: a medium grey.

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


def listed_methods(photo: photos.Photo, steps: int) -> Found:
    """Those that the tutorial only describes, as far as they give a picture of the input."""
    explainer, x = photos.classifier(), photo.x
    ablated: dict[str, Callable[..., igonnx.Attribution]] = {
        "feature ablation": explainer.feature_ablation,
        "Shapley value sampling": explainer.shapley_value_sampling,
        "LIME": explainer.lime,
        "KernelSHAP": explainer.kernel_shap,
    }
    many: dict[str, dict[str, Any]] = {
        "Shapley value sampling": {"samples": max(steps // 10, 1)},
        "LIME": {"samples": 10 * steps},
        "KernelSHAP": {"samples": max(10 * steps, 200)},
    }
    return {
        "saliency": explainer.saliency(x),
        "input × gradient": explainer.input_x_gradient(x),
        "guided backpropagation": explainer.guided_backprop(x),
        "deconvolution": explainer.deconvnet(x),
        "guided GradCAM": explainer.guided_grad_cam(x, layer=LAYER),
        "DeepLIFT": explainer.deep_lift(x),
        "DeepLIFT-SHAP": explainer.deep_lift_shap(x, baseline=["black", "blurred", photos.BLACK]),
        **{name: method(x, segments=50, **many.get(name, {})) for name, method in ablated.items()},
    }


def other_methods(photo: photos.Photo, steps: int) -> Found:
    """Some that came later."""
    explainer, x = photos.classifier(), photo.x
    return {
        "SmoothGrad": explainer.saliency(x, noise="smoothgrad", noise_samples=2 * steps),
        "Guided IG": explainer.guided_ig(x, steps=4 * steps),
        "Blur IG": explainer.blur_ig(x, steps=2 * steps),
        "XRAI": explainer.xrai(x, baseline=[photos.BLACK, photos.WHITE], steps=2 * steps),
        "GradCAM++": explainer.grad_cam_pp(x, layer=LAYER),
        "LRP": explainer.lrp(x),
        "RISE": explainer.rise(x, masks=20 * steps),
    }


def show_grad_cam(photo: photos.Photo, folder: Path) -> igonnx.Attribution:
    """GradCAM of a layer, as large as the layer, and then as large as the photo."""
    explainer = photos.classifier()
    small = explainer.grad_cam(photo.x, layer=LAYER, upsample=False, relu=False).of()
    large = explainer.grad_cam(photo.x, layer=LAYER)
    print(f"GradCAM of {LAYER}: {list(small.shape)}, brought to {list(large.of().shape)}")
    places = "\N{MULTIPLICATION SIGN}".join(map(str, small.shape[-2:]))
    figure = large.plot_views(
        photo.image,
        kinds=["original_image", "heat_map", "blended_heat_map", "masked_image"],
        signs=["all", "positive", "positive", "positive"],
        titles=["photo", f"from {places} places", "blended", "masked"],
        title=f"GradCAM of the layer {LAYER}",
        subtitle=photo.title,
    )
    photos.save(figure, folder / "grad_cam.png")
    return large


def show_occlusion(photo: photos.Photo, folder: Path) -> igonnx.Attribution:
    """What the score loses where a window hides the photo behind a medium grey."""
    found = photos.classifier().occlusion(photo.x, window=WINDOW, strides=STRIDES)
    figure = found.plot_views(
        photo.image,
        kinds=["original_image", "heat_map", "heat_map", "masked_image"],
        signs=["all", "positive", "negative", "positive"],
        titles=["photo", "the score falls without it", "the score rises without it", "masked"],
        title=f"Occlusion by {WINDOW}, strides {STRIDES}",
        subtitle=f"{photo.title}; {found.steps_used[0]} forward passes",
    )
    photos.save(figure, folder / "occlusion.png")
    return found


def print_measures(photo: photos.Photo, found: Mapping[str, igonnx.Attribution]) -> None:
    """The tutorial's measures: how far the values are from the effect of noise, and how they change with a little."""
    explainer, x = photos.classifier(), photo.x
    print("infidelity as a share of what no explanation would have, when scaled to fit best:")
    for name, result in found.items():
        measured = infidelity(explainer, x, result, normalise=True)
        print(f"  {measured.score[0] / np.square(measured.change).mean():.2f}  {name}")
    sensitivity = max_sensitivity(explainer, x, "saliency", samples=5).score[0]
    print(f"max-sensitivity of saliency: {sensitivity:.2f} (0: the same for all neighbours)")


def compare(photo: photos.Photo, found: Mapping[str, igonnx.Attribution], steps: int) -> Figure:
    """All methods side by side; a random order of the pixels would have the score 0 on average, 1 is the best."""
    pictures = {}
    for name, result in found.items():
        score = insertion_deletion(photos.classifier(), photo.x, result, steps=steps).score[0]
        caption = f"{name}\ninsertion-deletion {score:+.2f}".replace("-0", "\N{MINUS SIGN}0")
        # Segments and regions have edges.
        smooth = 0.0 if name in ("XRAI", "LIME", "KernelSHAP") else None
        values = result.of()[0]
        if name == "RISE":  # probabilities under masks: what all places share says nothing
            values = values - values.min()
        pictures[caption] = render(values, photo.image, smooth=smooth)
    return photos.page(pictures, columns=4, title=photo.title)


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
    found["occlusion"] = show_occlusion(photo, options.output)
    print_measures(photo, found)
    found["GradCAM"] = show_grad_cam(photo, options.output)
    found |= listed_methods(photo, options.steps) | other_methods(photo, options.steps)
    photos.save(compare(photo, found, options.steps), options.output / "all_methods.png")


if __name__ == "__main__":
    main()
