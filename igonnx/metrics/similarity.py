"""How alike two attributions of the same examples are: one number per example, 1 for the same."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import InputError
from igonnx.methods.call import Array

__all__ = ["cosine_similarity", "rank_correlation", "structural_similarity"]

WINDOW = 7  # pixels a side, scikit-image's own


def rank_correlation(a: NDArray[Any], b: NDArray[Any]) -> Array:
    """Spearman's rank correlation of the magnitudes of [N, ...] and [N, ...], float64 [N].

    Ties share their mean rank. NaN where all magnitudes of one are the same: they have no order.
    """
    from scipy.stats import rankdata

    rows = [rankdata(np.abs(one), axis=1) for one in _rows(a, b)]
    return _cosine(*(ranks - ranks.mean(axis=1, keepdims=True) for ranks in rows))


def cosine_similarity(a: NDArray[Any], b: NDArray[Any]) -> Array:
    """The cosine of the angle between the values of [N, ...] and [N, ...], float64 [N]; NaN where one is zero."""
    return _cosine(*_rows(a, b))


def structural_similarity(a: NDArray[Any], b: NDArray[Any]) -> Array:
    """SSIM (Wang et al., 2004) of two maps of magnitudes [N, H, W], float64 [N].

    Each map is scaled to a largest value of 1; the window is uniform, 7 pixels a side, or the largest odd number that
    fits. NaN where a map is zero everywhere, or narrower than 3 pixels.
    """
    from skimage.metrics import structural_similarity as ssim

    _rows(a, b)
    found = np.full(len(a), np.nan)
    smallest = min(a.shape[1:], default=0)
    window = min(WINDOW, smallest - 1 + smallest % 2)
    if a.ndim != 3 or window < 3:
        return found
    for example, maps in enumerate(zip(np.abs(a), np.abs(b), strict=True)):
        peaks = [float(one.max()) for one in maps]
        if min(peaks) > 0:
            scaled = [one / peak for one, peak in zip(maps, peaks, strict=True)]
            found[example] = ssim(*scaled, win_size=window, data_range=1.0)
    return found


def _rows(a: NDArray[Any], b: NDArray[Any]) -> list[Array]:
    """Both as float64 [N, elements]. Raises `InputError` where their shapes differ."""
    if a.shape != b.shape or a.ndim < 2:
        raise InputError(
            f"the attributions have shapes {list(a.shape)} and {list(b.shape)}; expected one shape [N, ...]"
        )
    return [one.reshape(len(one), -1).astype(np.float64) for one in (a, b)]


def _cosine(a: Array, b: Array) -> Array:
    """Of the angle between rows [N, elements]."""
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(
        np.divide((a * b).sum(axis=1), norms, out=np.full(len(a), np.nan), where=norms > 0)
    )
