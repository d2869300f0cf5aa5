"""XRAI against the PAIR library `saliency` 0.2.1, given the same attributions.

What the library does differently, and what is compared:

- It reduces channels to the largest one, so that what a pixel gets is more than its channels add up to: the
  attributions here are alike in all channels of the library's, a third each in ours.
- Pictures that are not 224 by 224 are stretched to that, and their margins mixed with grey; these are of that size.
- Sizes in pixels do not go with the size of the picture.
- A constant picture becomes NaN, and its segments arbitrary.
- Pixels that no segment adds are its last segment, whatever their density.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import skimage.data
import skimage.transform
from numpy.typing import NDArray
from scipy import ndimage

from igonnx.methods.region_ranking import ranked_regions
from igonnx.methods.xrai import regions

library = pytest.importorskip("saliency.core")

pytestmark = pytest.mark.parity

Array = NDArray[Any]
SIZE = (224, 224)


def photo(name: str) -> Array:
    """A photo of scikit-image, its middle, float64 [224, 224, 3] in [0, 1]."""
    pixels = getattr(skimage.data, name)()
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    square = pixels[top : top + side, left : left + side]
    return np.asarray(skimage.transform.resize(square, SIZE, anti_aliasing=True))


def theirs(
    image: Array, heat: Array, variant: str, segments: list[Array] | None = None
) -> tuple[Array, list[Array]]:
    """The library's map and segments, strongest first."""
    settings = library.XRAIParameters(
        algorithm=variant, return_xrai_segments=True, flatten_xrai_segments=False
    )
    found = library.XRAI().GetMaskWithDetails(
        image,
        None,
        base_attribution=np.repeat(heat[..., None], 3, axis=2),
        segments=segments,
        extra_parameters=settings,
    )
    return found.attribution_mask, found.segments


@pytest.mark.parametrize("variant", ["full", "fast"])
@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_regions_of_a_photo(name: str, variant: str, measured: Any) -> None:
    image = photo(name)
    noise = np.random.default_rng(0).normal(size=SIZE)
    heat = noise + 20 * ndimage.gaussian_filter(noise, 6)
    density, segments = theirs(image, heat, variant)
    found = regions(np.repeat(heat[None] / 3, 3, axis=0), image, variant=variant)
    ours = np.empty(SIZE)
    for region in found:
        ours[region.mask] = region.density
    assert measured.relative_l2(ours, density) < 1e-12
    # The library's last one are the pixels that no segment added, if there are any.
    claimed = sorted(segments, key=lambda mask: -float(heat[mask].mean()))
    assert len(found) == len(claimed) > 50
    for region, mask in zip(found, claimed, strict=True):
        np.testing.assert_array_equal(region.mask, mask)


@pytest.mark.parametrize("variant", ["full", "fast"])
def test_regions_of_given_segments(variant: str) -> None:
    rng = np.random.default_rng(1)
    heat = rng.normal(size=SIZE)
    smooth = [ndimage.gaussian_filter(rng.normal(size=SIZE), width) for width in (3, 5, 9, 15) * 5]
    masks = [array > rng.uniform(0, 2) * array.std() for array in smooth]
    density, _ = theirs(np.zeros((*SIZE, 3)), heat, variant, masks)
    ours = np.empty(SIZE)
    for region in ranked_regions(heat, [np.flatnonzero(mask) for mask in masks], variant):
        ours[region.mask] = region.density
    np.testing.assert_allclose(ours, density, rtol=1e-12)


def test_the_library_counts_more_than_there_is() -> None:
    """Known error: the largest channel of each pixel adds up to more than all channels do, or less."""
    values = np.random.default_rng(2).normal(size=(*SIZE, 3))
    found = library.XRAI().GetMask(
        photo("coffee"),
        None,
        base_attribution=values,
        extra_parameters=library.XRAIParameters(algorithm="fast"),
    )
    assert found.sum() == pytest.approx(values.max(axis=2).sum())
    assert abs(found.sum() / values.sum()) > 10
    ours = regions(values, photo("coffee"), variant="fast")
    total = sum(region.density * region.mask.sum() for region in ours)
    assert total == pytest.approx(values.sum())
