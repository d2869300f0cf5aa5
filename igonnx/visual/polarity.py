"""Which sign of an attribution is looked at."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from igonnx.checks import as_finite, require_choice

__all__ = ["Polarity", "apply_polarity"]

Polarity = Literal["positive", "negative", "both", "all", "absolute"]


def apply_polarity(values: NDArray[Any], polarity: Polarity) -> NDArray[np.float64]:
    """Keep one sign of an attribution of any shape, both, or its magnitude: float64, same shape.

    "positive" and "negative" give the values of that sign as numbers >= 0 and zero elsewhere;
    "both" and "all" mean the same, the values as they are; "absolute" gives their magnitudes.
    Nothing is cut off above: the result is in the attribution's own units. Raises `InputError` for
    NaN, infinity, and other polarities.
    """
    require_choice("polarity", polarity, Polarity)
    array = as_finite(values)
    if polarity == "positive":
        return np.maximum(array, 0.0)
    if polarity == "negative":
        return np.maximum(-array, 0.0)
    return np.abs(array) if polarity == "absolute" else array
