"""Checks of arguments that many functions take, each with a message that names it."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, TypeGuard, get_args

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import InputError

__all__ = [
    "as_finite",
    "is_number",
    "is_real",
    "is_whole",
    "require_choice",
    "require_flag",
    "require_number",
    "require_numbers",
    "require_whole",
]


def is_whole(number: object) -> TypeGuard[int]:
    """Whether `number` is a whole number, NumPy's included: no bool, and no float whatever its value."""
    return isinstance(number, Integral) and not isinstance(number, bool)


def is_number(value: object) -> bool:
    """Whether `value` is a real number, NumPy's included, so that it may be compared; NaN is one."""
    return isinstance(value, Real)


def is_real(number: object) -> TypeGuard[float]:
    """Whether `number` is a real number, NumPy's included: no bool; NaN and infinity are such numbers."""
    return isinstance(number, Real) and not isinstance(number, bool)


def require_whole(
    name: str, number: object, least: int, most: int | None = None, *, optional: bool = False
) -> None:
    """Raise `InputError` unless the argument `name` is a whole number from `least` to `most` (None: any more).

    None passes where it is `optional`. The message reads "steps is 0; expected a whole number of at least 1".
    """
    if number is None and optional:
        return
    if not is_whole(number) or number < least or (most is not None and number > most):
        wanted = f"of at least {least}" if most is None else f"from {least} to {most}"
        or_none = ", or None" if optional else ""
        raise InputError(f"{name} is {number!r}; expected a whole number {wanted}{or_none}")


def require_number(
    name: str, number: object, least: float, most: float = float("inf"), *, above: bool = False
) -> None:
    """Raise `InputError` unless the argument `name` is a finite number from `least` to `most`; `above`: not `least`.

    The message reads "fraction is 2; expected a number from 0 to 1".
    """
    size = float(number) if is_real(number) else float("nan")
    if not (least <= size <= most and size < float("inf")) or (above and size == least):
        start = f"above {least:g}" if above else f"of at least {least:g}"
        if most < float("inf"):
            start = (
                f"above {least:g} and at most {most:g}" if above else f"from {least:g} to {most:g}"
            )
        raise InputError(f"{name} is {number!r}; expected a number {start}")


def require_choice(name: str, given: object, choices: Any) -> None:
    """Raise `InputError` unless the argument `name` is one of `choices`, a `Literal` of strings.

    The message reads "layout is 'CHW'; expected 'NCHW' or 'NHWC'".
    """
    known = get_args(choices)
    if given not in known:
        several = len(known) > 2
        expected = "one of " * several + (", " if several else " or ").join(map(repr, known))
        raise InputError(f"{name} is {given!r}; expected {expected}")


def require_flag(name: str, given: object, *, optional: bool = False) -> None:
    """Raise `InputError` unless the argument `name` is True or False, NumPy's included, or None where `optional`.

    The message reads "exact is 'yes'; expected True, False or None".
    """
    if given is None and optional:
        return
    if not isinstance(given, bool | np.bool_):
        expected = "True, False or None" if optional else "True or False"
        raise InputError(f"{name} is {given!r}; expected {expected}")


def require_numbers(array: NDArray[Any], what: str) -> None:
    """Raise `InputError` unless an array is of booleans, integers or floats; `what` names it."""
    if array.dtype.kind not in "fiub":
        raise InputError(f"{what} has dtype {array.dtype}, expected numbers")


def as_finite(values: Any, what: str = "the attribution") -> NDArray[np.float64]:
    """Bring numbers of any real dtype to float64, same shape; `what` names them in errors.

    Raises `InputError` for anything but booleans, integers and floats, and for NaN and infinity.
    """
    array = np.asarray(values)
    require_numbers(array, what)
    array = array.astype(np.float64)
    finite = np.isfinite(array)
    if not finite.all():
        bad = array.size - int(finite.sum())
        raise InputError(f"{bad} of {array.size} values of {what} are NaN or infinite")
    return array
