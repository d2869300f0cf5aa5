"""Checks of what is to be drawn, each with a message that names it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.checks import as_finite, is_number, require_numbers
from igonnx.errors import InputError

__all__ = [
    "finite_array",
    "one_number",
    "require_outlier_percentile",
    "require_part",
    "require_percentage",
]


def finite_array(
    values: Any, what: str, *, ranks: tuple[int, ...], expected: str
) -> NDArray[np.float64]:
    """Bring numbers as `as_finite` does, of one of these ranks and not empty; else an `InputError` says `expected`."""
    array = np.asarray(values)
    require_numbers(array, what)
    if array.ndim not in ranks or array.size == 0:
        raise InputError(f"{what} has shape {list(array.shape)}, expected {expected}")
    return as_finite(array, what)


def one_number(value: Any, name: str) -> float:
    """Give `value` as a finite float; raises `InputError` where it is none."""
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "fiub" or not np.isfinite(array).all():
        raise InputError(f"{name} is {value!r}, expected one finite number")
    return float(array.reshape(()))


def require_part(name: str, part: float) -> None:
    """Raise `InputError` for a number outside [0, 1], NaN included."""
    if not (is_number(part) and 0 <= part <= 1):
        raise InputError(f"{name} is {part!r}, expected 0 to 1")


def require_percentage(name: str, percentage: float) -> None:
    """Raise `InputError` for a percentage outside [0, 100], NaN included."""
    if not (is_number(percentage) and 0 <= percentage <= 100):
        raise InputError(f"{name} is {percentage!r}, expected 0 to 100")


def require_outlier_percentile(percentage: float) -> None:
    """Raise `InputError` for a percentage outside [0, 100), NaN included: not all can be outliers."""
    if not (is_number(percentage) and 0 <= percentage < 100):
        raise InputError(f"outlier_percentile is {percentage!r}, expected 0 to 100 (excluded)")
