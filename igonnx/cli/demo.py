"""`igonnx demo`: four photos, a real classifier, a page of explanations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from igonnx.cli.console import plain_warnings, progress, results
from igonnx.cli.demo_page import page
from igonnx.cli.drawing import Drawable, draw
from igonnx.cli.outputs import Outputs
from igonnx.cli.report import probabilities, rows_of, table_of
from igonnx.images import PRESETS, Image, Preprocessing
from igonnx.visual.page import require_matplotlib

__all__ = ["run"]

PHOTOS = ("chelsea", "coffee", "rocket", "astronaut")
# Where a fixed number of steps may be far off without a word, a tolerance is kept: below 1 %.
TOLERANCE = 0.009


def run(folder: Path, *, threads: int | None, engine: str) -> None:
    """Explain the photos on EfficientNet-Lite0; write a PNG for each and `index.html`."""
    from igonnx import Explainer
    from igonnx.models import efficientnet_lite0, imagenet

    require_matplotlib()
    with Outputs() as outputs, plain_warnings():
        index = outputs.reserve(folder / "index.html", make_folder=True)
        pictures = [outputs.reserve(folder / f"{name}.png", make_folder=True) for name in PHOTOS]
        preset = PRESETS[efficientnet_lite0.PREPROCESSING.preset]
        side = efficientnet_lite0.PREPROCESSING.size
        preprocessing = Preprocessing((side, side), mean=preset.mean, std=preset.std)
        inputs = np.concatenate([preprocessing.apply(_photo(name)) for name in PHOTOS])
        explainer = Explainer(
            efficientnet_lite0.build(), apply="softmax", threads=threads, engine=engine
        )
        with progress("explaining four photos") as report:
            attribution = explainer.integrated_gradients(
                inputs,
                baseline=preprocessing.constant(0.0),
                tolerance=TOLERANCE,
                progress=report,
            )
        predicted = explainer.predict(inputs)[explainer.output]
        found, _ = probabilities(predicted, attribution.target, "softmax")
        rows = rows_of(attribution, PHOTOS, imagenet.class_names(), found)
        images = [preprocessing.inverse(one) for one in inputs]
        drawable = Drawable(explainer.wrt[0], preprocessing.layout, images)
        for number, path in enumerate(pictures):
            draw(path, drawable, attribution, number, rows[number])
        index.write_text(page(rows, attribution.path), encoding="utf-8")
    console = results()
    console.print(table_of(rows))
    console.print(f"wrote {folder / 'index.html'} and its {len(PHOTOS)} pictures", markup=False)


def _photo(name: str) -> Image:
    """Load a photo that ships with scikit-image, as RGB float32 [H, W, 3] in [0, 1]."""
    import skimage.data

    photo: NDArray[np.uint8] = getattr(skimage.data, name)()
    return np.asarray(photo / np.float32(255), dtype=np.float32)
