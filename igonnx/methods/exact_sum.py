"""Make contributions add up exactly to the change in score, by the smallest correction.

Let contributions a_k miss the change by r, that is, sum a_k + r = F(x) - F(baseline). Each is moved by the same share
of its size: a_k + s |a_k| with s = r / sum |a_k|. No other correction q does with less, in that max |q_k| / |a_k| is
at least |r| / sum |a_k|, whatever q sums to r. What was nothing stays nothing, no contribution changes its sign, and
|s| is also the correction's L2 norm relative to that of the attribution.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from igonnx.errors import ToleranceWarning, warn_caller
from igonnx.methods.call import Array, MethodResult, per_request, tensor_shape

__all__ = ["made_exact"]


def made_exact(result: MethodResult, change: Array) -> MethodResult:
    """The result with its contributions corrected to the `change` in score [R], and `correction` [R], the share s.

    An estimated error grows by the correction (root of the sum of squares). Where the contributions taken together are
    smaller than what is missing, no share makes sense: they stay as they are, s is 0, and a `ToleranceWarning` says so.
    """
    arrays = list(result.attribution.values())
    missing = change - per_request(arrays)
    size = per_request([np.abs(array) for array in arrays])
    possible = (np.abs(missing) < size) | (missing == 0)
    for index in np.flatnonzero(~possible):
        warn_caller(
            f"example {index}: the contributions cannot be made to add up: {missing[index]:.3g} is missing, and their "
            f"sizes sum to {size[index]:.3g}; take more steps or another baseline",
            ToleranceWarning,
        )
    share = np.divide(missing, size, out=np.zeros(len(missing)), where=possible & (size > 0))
    corrected = {
        name: array + tensor_shape(share, array) * np.abs(array)
        for name, array in result.attribution.items()
    }
    estimate = result.error_estimate
    return replace(
        result,
        attribution=corrected,
        correction=share,
        error_estimate=None if estimate is None else np.hypot(estimate, share),
    )
