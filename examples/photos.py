"""What the examples share: photos, a classifier of photos, the command line, and a page of pictures."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import igonnx
from igonnx.images import PRESETS, Preprocessing, read_image
from igonnx.models import efficientnet_lite0, imagenet
from igonnx.visual import plot_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PHOTOS = ("chelsea", "coffee", "rocket", "astronaut")

_preset = PRESETS["efficientnet-lite"]
PREPROCESSING = Preprocessing((224, 224), mean=_preset.mean, std=_preset.std)
BLACK, WHITE = PREPROCESSING.constant(0.0), PREPROCESSING.constant(1.0)  # as the model sees them


@dataclass(frozen=True)
class Photo:
    """A photo, cropped to a square, and what the classifier takes it for.

    image: float32 [224, 224, 3] in [0, 1], as the model sees it; large: [672, 672, 3], for people. x: float32
    [1, 3, 224, 224], the model's input. target and probability: of the most probable class, called label.
    """

    name: str
    image: NDArray[np.float32]
    large: NDArray[np.float32]
    x: NDArray[np.float32]
    target: int
    label: str
    probability: float

    @property
    def title(self) -> str:
        """The label and its probability."""
        return f"{self.label}, {self.probability:.1%}"


@cache
def classifier() -> igonnx.Explainer:
    """EfficientNet-Lite0, whose class probabilities are explained."""
    return igonnx.Explainer(efficientnet_lite0.build(), apply="softmax")


def load(name: str) -> Photo:
    """Load a photo of scikit-image by its name, or any image file, and classify it."""
    import skimage.data

    pixels = (
        getattr(skimage.data, name)() / np.float32(255)
        if name in PHOTOS
        else read_image(Path(name))
    )
    x = PREPROCESSING.apply(pixels)
    ((target, label, probability), *_) = most_probable(x)
    image, large = PREPROCESSING.fit(pixels), Preprocessing((672, 672)).fit(pixels)
    return Photo(Path(name).stem, image, large, x, target, label, probability)


def most_probable(x: NDArray[np.float32], count: int = 3) -> list[tuple[int, str, float]]:
    """The most probable classes of one input: index, name and probability."""
    logits = classifier().predict(x)["logits"][0].astype(np.float64)
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    names = imagenet.class_names()
    return [(int(i), names[i], float(probabilities[i])) for i in np.argsort(-probabilities)[:count]]


def command_line(
    script: str, document: str | None, argv: Sequence[str] | None, *, photo: str | None, steps: int
) -> argparse.Namespace:
    """Read the options that all examples have; `output` is a folder, which is made."""
    parser = argparse.ArgumentParser(
        description=document, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    pictures = Path(__file__).parent / "pictures" / Path(script).stem
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=pictures,
        metavar="FOLDER",
        help="where pictures go (default: %(default)s)",
    )
    if photo is not None:
        parser.add_argument(
            "--photo",
            default=photo,
            help=f"{', '.join(PHOTOS)}, or an image file (default: %(default)s)",
        )
    parser.add_argument(
        "--steps",
        type=int,
        default=steps,
        help="gradients on each path (default: %(default)s); fewer are faster",
    )
    options = parser.parse_args(argv)
    options.output.mkdir(parents=True, exist_ok=True)
    return options


def save(picture: Figure | NDArray[np.uint8], path: Path) -> None:
    """Write a figure, or an image [H, W, 3], as PNG."""
    if isinstance(picture, np.ndarray):
        from skimage.io import imsave

        imsave(path, picture, check_contrast=False)
    else:
        picture.savefig(path)
    print(f"wrote {path}")


def page(pictures: Mapping[str, NDArray[Any]], *, columns: int, title: str) -> Figure:
    """Draw pictures [H, W, 3] of one size in rows and columns, each above its caption."""
    return plot_images(
        list(pictures.values()), captions=list(pictures), columns=columns, title=title
    )
