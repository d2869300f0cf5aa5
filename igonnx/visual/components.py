"""Connected pieces of a mask, and which of them matter most.

Everything here takes maps of any number of axes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.checks import as_finite, is_whole
from igonnx.errors import InputError
from igonnx.visual.arguments import require_percentage
from igonnx.visual.morphology import as_mask

__all__ = ["component_sums", "connected_components", "top_components"]


def connected_components(mask: NDArray[Any], *, diagonal: bool = True) -> NDArray[np.int64]:
    """Number the connected pieces of a mask from 1, in the order of their first pixels.

    mask: bool, or numbers of which those that are not zero belong to it; int64 of the same shape
    comes back, 0 outside the mask. With `diagonal`, pixels that touch at a corner are connected.
    """
    from scipy import ndimage  # slow to import

    whole = as_mask(mask)
    structure = ndimage.generate_binary_structure(whole.ndim, whole.ndim if diagonal else 1)
    labels, _ = ndimage.label(whole, structure=structure)
    return np.asarray(labels, dtype=np.int64)


def component_sums(labels: NDArray[Any], heat: NDArray[Any]) -> NDArray[np.float64]:
    """Sum the magnitudes of a map over each component: float64 [largest label].

    labels as from `connected_components`; heat: numbers of the same shape. Number i of the result
    belongs to label i + 1. Raises `InputError` if the shapes differ.
    """
    magnitude = np.abs(as_finite(heat, "the heat map"))
    components = np.asarray(labels)
    if components.shape != magnitude.shape:
        raise InputError(
            f"the heat map has shape {magnitude.shape}, expected that of the components, "
            f"{components.shape}"
        )
    sums = np.bincount(components.ravel(), weights=magnitude.ravel(), minlength=1)[1:]
    return np.asarray(sums, dtype=np.float64)


def top_components(
    mask: NDArray[Any],
    heat: NDArray[Any],
    *,
    percentage: float = 90.0,
    at_most: int | None = 3,
    diagonal: bool = True,
) -> NDArray[np.bool_]:
    """Keep the components of a mask that hold the most attribution: bool, same shape.

    The components are ordered by the summed magnitude of `heat`, equal ones by their size. The
    fewest that together hold `percentage` per cent of what the whole mask holds are kept, but not
    more than `at_most` (None: as many as it takes). An empty mask stays empty. Raises `InputError`
    for other percentages, at_most < 1, and if the shapes differ.
    """
    require_percentage("percentage", percentage)
    if at_most is not None and not (is_whole(at_most) and at_most >= 1):
        raise InputError(f"at_most is {at_most!r}, expected a whole number >= 1, or None")
    labels = connected_components(mask, diagonal=diagonal)
    weights = as_finite(heat, "the heat map")
    # In parts of the largest, so that sums of huge numbers do not overflow.
    largest = np.abs(weights).max(initial=0.0)
    sums = component_sums(labels, weights / (largest or 1.0))
    if not sums.size:
        return np.zeros(labels.shape, dtype=np.bool_)
    sizes = np.bincount(labels.ravel())[1:]
    strongest_first = np.lexsort((-sizes, -sums))
    shares = np.cumsum(sums[strongest_first])
    # Of the last sum, so that rounding cannot keep the sums from reaching their total.
    count = int(np.searchsorted(shares, percentage / 100 * shares[-1])) + 1
    kept = strongest_first[: count if at_most is None else min(count, at_most)]
    return np.isin(labels, kept + 1)
