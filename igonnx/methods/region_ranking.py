"""The order of XRAI: overlapping segments, taken one after another by how dense the attribution is in what they add."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import InputError
from igonnx.methods.segments import AREA, Pixels

__all__ = ["VARIANTS", "Region", "ranked_regions", "require_variant"]

VARIANTS = ("full", "fast")
FEWEST = 50  # pixels of AREA that a segment must add

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Region:
    """A region of a picture: bool [H, W], and the mean attribution per pixel there, its density."""

    mask: NDArray[np.bool_]
    density: float


def require_variant(variant: str) -> None:
    """Refuse what is neither "full" nor "fast": `InputError`."""
    if variant not in VARIANTS:
        raise InputError(f"variant is {variant!r}; expected {' or '.join(map(repr, VARIANTS))}")


def ranked_regions(heat: Array, segments: Sequence[Pixels], variant: str = "full") -> list[Region]:
    """The picture divided into regions, the densest first.

    heat: attribution per pixel, finite, float64 [H, W]. segments: as `igonnx.methods.segments.segments` gives them. A
    region is what a segment adds to those taken before it, if it adds enough (50 pixels of 224 by 224, at least one).
    "full" takes in each round the segment whose addition is the densest; "fast" takes them in the order of the
    density of the whole segment. Pixels that no segment adds are one more region. Every pixel is in one region, and
    densities times sizes add up to the sum of the heat. Equally dense segments are taken in the order given.
    """
    flat = heat.ravel()
    fewest = max(1, round(FEWEST * heat.size / AREA))
    take = _densest_addition if variant == "full" else _densest_whole
    parts = list(take(flat, segments, fewest))
    covered = np.zeros(heat.size, bool)
    for part in parts:
        covered[part] = True
    if not covered.all():
        parts.append(np.flatnonzero(~covered))
    regions = [_region(part, heat) for part in parts]
    return sorted(regions, key=lambda region: -region.density)


def _region(pixels: Pixels, heat: Array) -> Region:
    mask = np.zeros(heat.shape, bool)
    mask.flat[pixels] = True
    return Region(mask, float(heat.ravel()[pixels].mean()))


def _densest_addition(heat: Array, segments: Sequence[Pixels], fewest: int) -> Iterator[Pixels]:
    """Round by round the segment whose free pixels are the densest: those pixels.

    The sum and number of the free pixels of every segment are kept up to date by what each round takes away, so that
    all rounds together look at each pixel of each segment once.
    """
    from scipy import sparse  # slow to import

    lengths = [len(pixels) for pixels in segments]
    which = np.repeat(np.arange(len(segments)), lengths)
    where = np.concatenate(segments) if segments else np.zeros(0, np.int64)
    members = sparse.csc_array(
        (np.ones(len(where)), (which, where)), shape=(len(segments), len(heat))
    )
    total: Array = np.asarray(members @ heat)
    count: Array = np.asarray(lengths, np.float64)
    free = np.ones(len(heat), bool)
    # A segment only ever loses pixels: one that has too few is done with.
    while (candidates := np.flatnonzero(count >= fewest)).size:
        best = candidates[np.argmax(total[candidates] / count[candidates])]
        pixels = segments[best]
        added = pixels[free[pixels]]
        yield added
        free[added] = False
        taken = members[:, added]
        total -= taken @ heat[added]
        count -= taken @ np.ones(len(added))


def _densest_whole(heat: Array, segments: Sequence[Pixels], fewest: int) -> Iterator[Pixels]:
    """In the order of the density of the whole segments: the pixels that each adds."""
    density = [heat[pixels].mean() for pixels in segments]
    free = np.ones(len(heat), bool)
    for index in np.argsort(-np.array(density), kind="stable"):
        added = segments[index][free[segments[index]]]
        if len(added) >= fewest:
            yield added
            free[added] = False
