"""Which pixels of a heat map are strong enough to be shown."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import InputError

__all__ = ["keep_share"]


def keep_share(heat: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Zero all but the strongest pixels that together hold `share` of the total magnitude.

    heat: [H, W], signed or not; share in (0, 1]. The fewest pixels that reach the share are kept,
    and with them every pixel exactly as strong as the weakest of them, so that the result does not
    depend on the order of equal pixels. A share of 1 keeps everything, and so does an all-zero
    map.
    """
    if not 0 < share <= 1:
        raise InputError(f"share is {share}, expected more than 0 and at most 1")
    magnitude = np.abs(heat)
    total = magnitude.sum()
    if share == 1 or total == 0:
        return heat
    strongest_first = np.sort(magnitude, axis=None)[::-1]
    # Rounding may leave the last cumulative sum below share * total: then the last pixel is meant.
    reached = int(np.searchsorted(np.cumsum(strongest_first), share * total))
    weakest_kept = strongest_first[min(reached, strongest_first.size - 1)]
    return np.where(magnitude >= weakest_kept, heat, 0.0)
