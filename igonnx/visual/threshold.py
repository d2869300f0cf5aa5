"""Which pixels of a heat map are strong enough to be shown, and how strongly.

Everything here takes maps of any shape: pictures, volumes, rows of features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from igonnx.checks import as_finite, is_number
from igonnx.errors import InputError
from igonnx.visual.arguments import require_percentage

__all__ = ["binarise", "keep_share", "linear_transform", "share_threshold"]


def keep_share(heat: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Zero all but the strongest pixels that together hold `share` of the total magnitude.

    heat: [H, W], signed or not; share in (0, 1]. The fewest pixels that reach the share are kept,
    and with them every pixel exactly as strong as the weakest of them, so that the result does not
    depend on the order of equal pixels. A share of 1 keeps everything, and so does an all-zero
    map. Raises `InputError` for other shares, NaN and infinity.
    """
    if not (is_number(share) and 0 < share <= 1):
        raise InputError(f"share is {share!r}, expected more than 0 and at most 1")
    heat = as_finite(heat, "the heat map")
    magnitude = np.abs(heat)
    return np.where(magnitude >= _weakest_of_share(magnitude, share), heat, 0.0)


def share_threshold(heat: NDArray[np.float64], percentage: float) -> float:
    """Tell the magnitude at which the strongest values together hold a share of the total magnitude.

    heat: any shape, signed or not; percentage in [0, 100] is the share. The values with at least
    the returned magnitude are the fewest that hold it: 0 gives the largest magnitude, 100 the
    smallest. 0 for an all-zero or empty map. Raises `InputError` for a percentage out of range.
    """
    require_percentage("percentage", percentage)
    return _weakest_of_share(np.abs(as_finite(heat, "the heat map")), percentage / 100)


def _weakest_of_share(magnitude: NDArray[np.float64], share: float) -> float:
    """The magnitude from which on the strongest values hold `share`, 0 to 1, of them all: of 1, the smallest."""
    if not magnitude.any():
        return 0.0
    if share == 1:
        return float(magnitude.min())
    strongest_first = np.sort(magnitude, axis=None)[::-1]
    # In parts of the largest, so that sums of huge numbers do not overflow.
    held = np.cumsum(strongest_first / strongest_first[0])
    # Of the last sum, so that rounding cannot keep the sums from reaching their total.
    return float(strongest_first[np.searchsorted(held, share * held[-1])])


def linear_transform(
    heat: NDArray[np.float64],
    clip_above_percentile: float = 99.9,
    clip_below_percentile: float = 70.0,
    lower_end: float = 0.2,
) -> NDArray[np.float64]:
    """Stretch the magnitudes between two thresholds to [lower_end, 1]; weaker ones become zero.

    heat: any shape, signed or not. With m the magnitude above which the strongest values hold
    100 - clip_above_percentile per cent of the total magnitude, and e that of
    100 - clip_below_percentile per cent (`share_threshold`), a magnitude h becomes
    (1 - lower_end) (h - e) / (m - e) + lower_end, at most 1, and zero where h < e; the sign stays.
    clip_below_percentile=0 puts e at the smallest magnitude of the map. Where m = e, as in a
    constant map, whatever reaches them becomes 1. Zero stays zero. Raises `InputError` for
    percentiles outside [0, 100] or in the wrong order, and a lower end outside [0, 1).
    """
    require_percentage("clip_above_percentile", clip_above_percentile)
    require_percentage("clip_below_percentile", clip_below_percentile)
    if clip_below_percentile > clip_above_percentile:
        raise InputError(
            f"clip_below_percentile is {clip_below_percentile} and clip_above_percentile "
            f"{clip_above_percentile}, expected the first to be at most the second"
        )
    if not (is_number(lower_end) and 0 <= lower_end < 1):
        raise InputError(f"lower_end is {lower_end!r}, expected 0 to 1 (excluded)")
    heat = as_finite(heat, "the heat map")
    magnitude = np.abs(heat)
    full = share_threshold(heat, 100 - clip_above_percentile)
    weakest = share_threshold(heat, 100 - clip_below_percentile)
    if full > weakest:
        stretched = (1 - lower_end) * (magnitude - weakest) / (full - weakest) + lower_end
    else:
        stretched = np.ones_like(magnitude)
    return np.where(magnitude >= weakest, np.sign(heat) * np.minimum(stretched, 1.0), 0.0)


def binarise(heat: NDArray[np.float64], threshold: float = 0.001) -> NDArray[np.bool_]:
    """Tell which values have a magnitude above the threshold: bool, same shape."""
    if not (is_number(threshold) and threshold >= 0):
        raise InputError(f"threshold is {threshold!r}, expected a number >= 0")
    return np.abs(as_finite(heat, "the heat map")) > threshold
