"""Make contributions add up exactly to the change in score, by the smallest correction.

Let contributions a_k miss the change by r, that is, sum a_k + r = F(x) - F(baseline). Each is moved by the same share
of its size: a_k + s |a_k| with s = r / sum |a_k|. No other correction q does with less, in that max |q_k| / |a_k| is
at least |r| / sum |a_k|, whatever q sums to r. What was nothing stays nothing, no contribution changes its sign, and
|s| is also the correction's L2 norm relative to that of the attribution.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from igonnx.errors import ToleranceWarning
from igonnx.methods.path_integral import Array, Integral

__all__ = ["made_exact"]


def made_exact(integral: Integral) -> Integral:
    """The integral with its contributions corrected, and `correction` [R], the share s of each request.

    An estimated error grows by the correction (root of the sum of squares). Where the contributions taken together are
    smaller than what is missing, no share makes sense: they stay as they are, s is 0, and a `ToleranceWarning` says so.
    """
    arrays = integral.attribution.values()
    change = integral.scores - integral.baseline_scores
    missing = change - np.sum([_sum_per_request(array) for array in arrays], axis=0)
    size = np.sum([_sum_per_request(np.abs(array)) for array in arrays], axis=0)
    possible = (np.abs(missing) < size) | (missing == 0)
    for index in np.flatnonzero(~possible):
        warnings.warn(
            f"example {index}: the contributions cannot be made to add up: {missing[index]:.3g} is missing, and their "
            f"sizes sum to {size[index]:.3g}; take more steps or another baseline",
            ToleranceWarning,
            stacklevel=3,
        )
    share = np.divide(missing, size, out=np.zeros(len(missing)), where=possible & (size > 0))
    corrected = {
        name: array + share.reshape(-1, *[1] * (array.ndim - 1)) * np.abs(array)
        for name, array in integral.attribution.items()
    }
    estimate = integral.error_estimate
    return replace(
        integral,
        attribution=corrected,
        correction=share,
        error_estimate=None if estimate is None else np.hypot(estimate, share),
    )


def _sum_per_request(array: Array) -> Array:
    return np.asarray(array.reshape(len(array), -1).sum(axis=1))
