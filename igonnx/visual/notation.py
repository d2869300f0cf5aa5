"""Numbers and arrays as a person reads and gives them: signs that show, and checks of what is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import InputError

__all__ = ["finite_array", "number", "one_number", "shortened", "signed", "visible", "whole"]

MINUS = "\N{MINUS SIGN}"
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"

# What stands for characters that would not be seen, or would move the text about.
_STAND_INS = {
    "\n": "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}",
    "\t": "\N{RIGHTWARDS ARROW TO BAR}",
    "\N{NO-BREAK SPACE}": " ",
}


def signed(value: float, digits: int = 3) -> str:
    """Write a number with its sign, zero without one: "+0.81", "−2e−05", "0"."""
    return f"{value:+.{digits}g}".replace("-", MINUS) if value else "0"


def number(value: float, digits: int = 4) -> str:
    """Write a number with a true minus sign, if it has one."""
    return f"{value:.{digits}g}".replace("-", MINUS) if value else "0"


def visible(text: str) -> str:
    r"""Make every character of a text visible and harmless: control characters become "↵" or "\x1b"."""
    return "".join(
        character
        if character.isprintable()
        else _STAND_INS.get(character, character.encode("unicode_escape").decode("ascii"))
        for character in text.encode("utf-8", "backslashreplace").decode("utf-8")
    )


def shortened(text: str, length: int) -> str:
    """Cut a text to this many characters, of which the last says that it was cut."""
    return text if len(text) <= length else text[: length - 1].rstrip() + ELLIPSIS


def finite_array(values: Any, name: str, *, ranks: tuple[int, ...], expected: str) -> NDArray[Any]:
    """Give `values` as float64, of one of these ranks; raises `InputError`, naming them, where they are not."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name} has dtype {array.dtype}, expected numbers")
    if array.ndim not in ranks or array.size == 0:
        raise InputError(f"{name} has shape {list(array.shape)}, expected {expected}")
    finite = np.isfinite(array)
    if not finite.all():
        bad = array.size - int(finite.sum())
        raise InputError(f"{bad} of {array.size} values of {name} are NaN or infinite")
    return array.astype(np.float64)


def one_number(value: Any, name: str) -> float:
    """Give `value` as a finite float; raises `InputError` where it is none."""
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "fiub" or not np.isfinite(array).all():
        raise InputError(f"{name} is {value!r}, expected one finite number")
    return float(array.reshape(()))


def whole(value: Any, name: str, least: int) -> int:
    """Give `value` as an int of at least `least`; raises `InputError` where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} is {value!r}, expected a whole number of at least {least}")
    return int(value)
