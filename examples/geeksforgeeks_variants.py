"""GeeksforGeeks: "IG (Integrated Gradients)", and the variants that the article lists.

What the article does with VGG16: another photo as the baseline, 50 steps, the attribution scaled to the image, and the
image multiplied by it. (Its gradient is of the mean of all outputs, and so of no class; here it is of the target.)
Beyond it: the variants that it names but does not compute, side by side: basic IG, SmoothGrad-IG, its square,
expected gradients over a distribution of baselines, deconvolutional IG, and Guided IG with its curved path.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import photos

import igonnx
from igonnx.visual import outline, render


def variants(photo: photos.Photo, steps: int) -> dict[str, igonnx.Attribution]:
    """The article's list, each by about as many gradients as it needs to calm down."""
    explainer, x, black = photos.classifier(), photo.x, photos.BLACK
    others = np.concatenate([photos.load(name).x for name in photos.PHOTOS if name != photo.name])
    return {
        "Integrated Gradients": explainer.integrated_gradients(x, baseline=black, steps=steps),
        "SmoothGrad-IG": explainer.smoothgrad_ig(x, baseline=black, steps=steps, noise_samples=8),
        "SmoothGrad-squared IG": explainer.smoothgrad_ig(
            x, baseline=black, steps=steps, noise_samples=8, noise="smoothgrad_sq"
        ),
        "expected gradients": explainer.expected_gradients(x, baseline=others, samples=6 * steps),
        "deconvolutional IG": explainer.integrated_gradients(
            x, baseline=black, steps=steps, propagation="deconvnet"
        ),
        "Guided IG": explainer.guided_ig(x, baseline=black, steps=4 * steps),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Explain a photo by another one, then by each variant."""
    options = photos.command_line(__file__, __doc__, argv, photo="coffee", steps=50)
    photo = photos.load(options.photo)
    other = photos.load("rocket" if photo.name != "rocket" else "coffee")
    print(f"predicted: {photo.title}; the baseline is {other.name}")

    result = photos.classifier().integrated_gradients(
        photo.x, baseline=other.x, steps=options.steps
    )
    print(
        f"from {result.baseline_scores[0]:.1%} at the baseline to {result.scores[0]:.1%}, off by {result.delta[0]:+.2%}"
    )
    figure = result.plot_views(
        photo.image,
        kinds=["original_image", "heat_map", "masked_image"],
        signs=["all", "all", "absolute"],
        smooth=2.0,
        outlier_percentile=10.0,
        title=photo.title,
        subtitle=f"against another photo, {other.name}, as the baseline",
    )
    photos.save(figure, options.output / "another_photo_as_baseline.png")

    found = variants(photo, options.steps)
    pictures = {name: render(one.of()[0], photo.image) for name, one in found.items()}
    photos.save(
        photos.page(pictures, columns=3, title=photo.title), options.output / "variants.png"
    )
    calmest = found["SmoothGrad-IG"]
    photos.save(outline(calmest.of()[0], photo.large, dim=0.5), options.output / "outline.png")


if __name__ == "__main__":
    main()
