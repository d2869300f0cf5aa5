"""TensorFlow: "Integrated gradients" (tensorflow.org/tutorials/interpretability/integrated_gradients).

What the tutorial does with Inception V1: the most probable classes of two photos; why gradients alone do not do (they
saturate); the way from a black baseline to the photo; the target's probability and the gradient on that way; their
sum; and baseline, photo, attribution mask and overlay, two by two.
Beyond it: every step is an engine's, so 240 of them take seconds, the picture of saturation shows what was summed
where, and the completeness error tells how many steps are enough (the tutorial's own function stacks only its last
batch of gradients). Or leave the number to a tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import photos
from onnx import parser

import igonnx

# The tutorial's F(x) = min(x, 0.8): the score grows with the pixel until 0.8, then no more.
SATURATING = """
<ir_version: 9, opset_import: ["": 18]>
saturating (float[n, 1] x) => (float[n, 1] score) <float most = {0.8}> { score = Min (x, most) }"""


def show_saturation(folder: Path) -> None:
    """One pixel: its gradient is zero where it is brightest, and yet it made the score."""
    explainer = igonnx.Explainer(parser.parse_model(SATURATING))
    pixel = np.ones((1, 1), np.float32)
    gradient, integrated = (
        explainer.saliency(pixel),
        explainer.integrated_gradients(pixel, tolerance=0.001),
    )
    for name, result in (("gradient", gradient), ("Integrated Gradients", integrated)):
        print(f"F(x) = min(x, 0.8) at x = 1: {name} {result.of()[0, 0]:.3f}")
    figure = integrated.plot_path(
        score_label="F(x)", title="Gradients saturate; their integral does not"
    )
    photos.save(figure, folder / "one_pixel.png")


def show_accuracy(photo: photos.Photo, most: int) -> None:
    """How the completeness error falls with the number of steps, by the tutorial's rule and by the default one."""
    explainer = photos.classifier()
    print(f"{photo.label}: completeness error\n  steps   trapezoid   Gauss-Legendre")
    for steps in sorted({max(1, most // 16), max(1, most // 4), most}):
        errors = [
            explainer.integrated_gradients(
                photo.x, baseline=photos.BLACK, steps=steps, rule=rule
            ).relative_delta[0]
            for rule in ("trapezoid", "gauss_legendre")
        ]
        print(f"{steps:7}{errors[0]:12.2%}{errors[1]:17.2%}")


def explain(
    photo: photos.Photo, steps: int, colours: str, image_opacity: float, folder: Path
) -> None:
    """The way from black to the photo, what happens on it, and what comes of it."""
    for _, label, probability in photos.most_probable(photo.x):
        print(f"{photo.name}: {label} {probability:.1%}")
    explainer = photos.classifier()
    result = explainer.integrated_gradients(photo.x, baseline=photos.BLACK, steps=steps)
    photos.save(
        result.plot_interpolations(photo.image, title=photo.title),
        folder / f"{photo.name}_path.png",
    )
    photos.save(
        result.plot_path(score_label="probability", title=f"Where “{photo.label}” arises"),
        folder / f"{photo.name}_saturation.png",
    )
    photos.save(
        result.plot_baseline(
            photo.image, colours=colours, image_opacity=image_opacity, smooth=1.0, title=photo.title
        ),
        folder / f"{photo.name}_mask.png",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Explain two photos, step by step."""
    options = photos.command_line(__file__, __doc__, argv, photo="coffee", steps=240)
    first, second = photos.load(options.photo), photos.load("rocket")
    both = {photo.title: photo.image for photo in (first, second)}
    photos.save(
        photos.page(both, columns=2, title="What the model sees"), options.output / "photos.png"
    )
    show_saturation(options.output)
    explain(first, options.steps, "inferno", 0.4, options.output)
    explain(second, max(1, options.steps // 4), "viridis", 0.5, options.output)
    show_accuracy(first, options.steps)


if __name__ == "__main__":
    main()
