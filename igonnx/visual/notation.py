"""Numbers and texts as a person reads them: signs that show, characters that can be seen."""

from __future__ import annotations

__all__ = ["number", "shortened", "signed", "visible"]

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
