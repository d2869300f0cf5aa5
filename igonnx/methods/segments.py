"""Many overlapping segments of an image, from fine to coarse: what XRAI chooses from.

Felzenszwalb and Huttenlocher, "Efficient graph-based image segmentation", 2004, at six scales, each segment widened by
a few pixels so that the edge that bounds it is part of it. The numbers are those of Kapishnikov et al., 2019, for
images of 224 by 224 pixels with values from -1 to 1: images are brought to that area and range first, and the segments
back.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["AREA", "segments"]

AREA = 224 * 224  # pixels that the numbers below are meant for
SCALES = (50, 100, 150, 250, 500, 1200)  # the larger, the coarser
SMOOTHING = 0.8  # standard deviation, pixels
SMALLEST = 150  # pixels
MARGIN = 5  # pixels by which segments are widened

Pixels = NDArray[np.int64]


def segments(image: NDArray[Any], size: tuple[int, int]) -> list[Pixels]:
    """Segments of a picture of `size` (H, W): for each its pixels, sorted positions in the flattened [H * W] picture.

    image: finite numbers [h, w, C], of that size or any other, in any range. Segments of one scale overlap by their
    margins; those of different scales may be equal. A constant image is one segment.
    """
    picture = _in_range(np.asarray(image, dtype=np.float64))
    height, width = picture.shape[:2]
    factor = np.sqrt(AREA / (height * width))
    working = (max(1, round(height * factor)), max(1, round(width * factor)))
    if working != (height, width):
        from skimage.transform import resize  # slow to import

        # Beyond the frame the picture goes on as it ends there: a border of its own would be a segment.
        picture = resize(picture, working, order=3, mode="edge", anti_aliasing=True)
    rows, columns = (_nearest(*axis) for axis in zip(size, working, strict=True))
    found = []
    for mask in _masks(picture):
        pixels = np.flatnonzero(mask[rows][:, columns])
        if pixels.size:
            found.append(pixels)
    return found


def _in_range(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """The image with its values brought to -1 to 1; a constant one becomes 0."""
    low, high = image.min(), image.max()
    if low == high:
        return np.zeros_like(image)
    # Halves first: the difference of two large numbers may be infinite.
    return np.asarray(2 * (image / 2 - low / 2) / (high / 2 - low / 2) - 1)


def _nearest(wanted: int, given: int) -> Pixels:
    """For each of `wanted` pixels along an axis the one of `given` that covers its centre."""
    return np.asarray((2 * np.arange(wanted) + 1) * given // (2 * wanted))


def _masks(picture: NDArray[np.float64]) -> Iterator[NDArray[np.bool_]]:
    """The widened segments of all scales, each bool [h, w]."""
    from scipy import ndimage  # slow to import
    from skimage.morphology import disk
    from skimage.segmentation import felzenszwalb

    for scale in SCALES:
        with _any_channels(picture.shape[2]):
            labels = felzenszwalb(picture, scale=scale, sigma=SMOOTHING, min_size=SMALLEST)
        for label, box in enumerate(ndimage.find_objects(labels + 1)):
            near = tuple(
                slice(max(0, side.start - MARGIN), min(length, side.stop + MARGIN))
                for side, length in zip(box, labels.shape, strict=True)
            )
            mask = np.zeros(labels.shape, bool)
            mask[near] = ndimage.binary_dilation(labels[near] == label, structure=disk(MARGIN))
            yield mask


@contextmanager
def _any_channels(count: int) -> Iterator[None]:
    """Silence the warning about more than three channels: features have many."""
    if count <= 3:  # warnings are global: left alone where possible
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Got image with third dimension")
        yield
