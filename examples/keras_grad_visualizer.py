"""Keras: "Model interpretability with Integrated Gradients" (keras.io/examples/vision/integrated_gradients).

What the tutorial does with Xception: predict, take the gradient, average Integrated Gradients over random
baselines, and draw both with GradVisualizer, once as they are and once cleaned up and outlined.
Beyond it: the completeness error, so that you see whether 50 steps were enough, and outlines that hug the object.
"""

from __future__ import annotations

from collections.abc import Sequence

import photos

from igonnx.visual import GradVisualizer, outline


def main(argv: Sequence[str] | None = None) -> None:
    """Explain a photo, and draw gradient and Integrated Gradients side by side."""
    options = photos.command_line(__file__, __doc__, argv, photo="chelsea", steps=50)
    explainer, photo = photos.classifier(), photos.load(options.photo)
    print(f"predicted: {photo.title}")

    gradient = explainer.saliency(photo.x, absolute=False)
    # The tutorial's two random baselines still leave their grain in the picture: take eight.
    integrated = explainer.integrated_gradients(
        photo.x, baseline=["uniform"] * 8, steps=options.steps
    )
    print(f"completeness error with {options.steps} steps: {integrated.relative_delta[0]:.2%}")

    visualizer = GradVisualizer()
    maps = (photo.image, gradient.of()[0], integrated.of()[0])
    plain = visualizer.visualize(
        *maps, clip_above_percentile=99, clip_below_percentile=0, figsize=(15, 5.5)
    )
    photos.save(plain, options.output / "attributions.png")
    outlined = visualizer.visualize(
        *maps,
        clip_above_percentile=95,
        clip_below_percentile=28,
        morphological_cleanup=True,
        outlines=True,
        figsize=(15, 5.5),
    )
    photos.save(outlined, options.output / "grad_visualizer_outlines.png")
    photos.save(outline(integrated.of()[0], photo.large, dim=0.5), options.output / "outline.png")


if __name__ == "__main__":
    main()
