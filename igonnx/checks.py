"""Checks of arguments that many functions take."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TypeGuard

from igonnx.errors import InputError

__all__ = ["is_whole", "require_number", "require_whole"]


def is_whole(number: object) -> TypeGuard[int]:
    """Whether `number` is a whole number, NumPy's included: no bool, and no float whatever its value."""
    return isinstance(number, Integral) and not isinstance(number, bool)


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
    real = isinstance(number, Real) and not isinstance(number, bool)
    size = float(number) if isinstance(number, Real) and real else float("nan")
    if not (least <= size <= most and size < float("inf")) or (above and size == least):
        start = f"above {least:g}" if above else f"of at least {least:g}"
        if most < float("inf"):
            start = (
                f"above {least:g} and at most {most:g}" if above else f"from {least:g} to {most:g}"
            )
        raise InputError(f"{name} is {number!r}; expected a number {start}")
