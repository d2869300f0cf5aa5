"""Tokens coloured by what they contribute: for a notebook or a page, and for a terminal."""

from __future__ import annotations

import html
import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.checks import require_whole
from igonnx.errors import InputError
from igonnx.visual.arguments import one_number
from igonnx.visual.colours import AGAINST, FOR, luminance, ramp
from igonnx.visual.heatmap import in_scale
from igonnx.visual.notation import signed
from igonnx.visual.tokens import Piece, pieces_of, token_contributions, whole_words

__all__ = ["text_html", "text_terminal"]

# Colours that tint a page. The page's own ink stays on them, black or white: at STRONGEST both are legible (a contrast
# of 4.5 and more), so that no theme has to be known.
TINT_FOR, TINT_AGAINST = (226, 92, 36), (56, 132, 220)
STRONGEST = 0.6
# Contributions have long tails: this power lifts the weak ones. What is weaker than FAINTEST is left alone.
LIFT = 0.75
FAINTEST = 0.02

# In a terminal, whose ground is not known either and cannot be tinted: from PAINTED on a token stands on a colour,
# weaker ones are written in one that is legible on black and on white.
PAINTED = 0.25
INKS = {True: (205, 92, 34), False: (62, 126, 210)}
DARK = 120  # luminance, 0 to 255, up to which the ink on a colour is white

PLAIN_MARKS = (
    0.1,
    0.4,
    0.7,
)  # shares of the strongest from which on one, two and three signs are set
LEAST_WIDTH = 20


def text_html(
    tokens: Sequence[str],
    values: Any,
    *,
    join: bool = False,
    scale: float | None = None,
    legend: bool = True,
) -> str:
    """A piece of HTML with each token tinted by its contribution: warm for the target, cool against it.

    tokens: T texts, as the tokenizer names them; markers of subwords are taken away and the pieces of a word set close
    together (see `igonnx.visual.tokens`). values: [T], or [T, E] for embeddings, which are summed over E. join: one
    colour per word, which contributes the sum of its pieces. scale: the contribution drawn at full strength; default:
    the largest magnitude, so give one number to compare several texts. legend: a line with the scale and the sum.

    The HTML needs nothing else (no script, style sheet or file), is escaped, and tints whatever background it is put
    on, light or dark. Pointing at a token shows its contribution. Raises `InputError` for counts that differ, NaN and
    infinity.
    """
    shown = _Tinted.of(tokens, values, join=join, scale=scale)
    spans = "".join(
        (" " if piece.starts_word else "") + _span(piece, contribution, strength)
        for piece, contribution, strength in shown
    )
    text = f'<div dir="auto" style="line-height:1.9;overflow-wrap:anywhere">{spans}</div>'
    return f"<div>{text}{shown.legend_html() if legend else ''}</div>"


def text_terminal(
    tokens: Sequence[str],
    values: Any,
    *,
    join: bool = False,
    scale: float | None = None,
    colour: bool | None = None,
    width: int | None = None,
) -> str:
    """The same for a terminal, by 24-bit ANSI colours; or in plain text, with signs beneath the tokens.

    colour: whether to use colours; default: only where standard output is a terminal that is not "dumb", and the
    environment variable NO_COLOR is not set. Plain text has up to three signs beneath each token: one from a tenth
    of `scale` on, two from two fifths, three from seven tenths. width: columns, by default the terminal's; longer texts
    are wrapped between words. The other arguments are those of `text_html`.
    """
    shown = _Tinted.of(tokens, values, join=join, scale=scale)
    require_whole("width", width, 1, optional=True)
    columns = max(width or shutil.get_terminal_size().columns, LEAST_WIDTH)
    coloured = _terminal_has_colours() if colour is None else colour
    lines = _coloured_lines(shown, columns) if coloured else _plain_lines(shown, columns)
    return "\n".join([*lines, shown.summary()])


@dataclass(frozen=True)
class _Tinted:
    """Pieces of text, what each contributes, and that as a share of the scale, in [-1, 1]."""

    pieces: list[Piece]
    contributions: NDArray[np.float64]
    scale: float

    @classmethod
    def of(cls, tokens: Sequence[str], values: Any, *, join: bool, scale: float | None) -> _Tinted:
        pieces = pieces_of(tokens)
        contributions = token_contributions(tokens, values)
        if join:
            pieces, contributions = whole_words(pieces, contributions)
        if scale is None:
            scale = float(np.abs(contributions).max())
        elif one_number(scale, "scale") <= 0:
            raise InputError(f"scale is {scale}, expected more than 0")
        return cls(pieces, contributions, float(scale))

    def __iter__(self) -> Any:
        strengths = in_scale(self.contributions, self.scale)
        return iter(zip(self.pieces, self.contributions, strengths, strict=True))

    @property
    def total(self) -> float:
        """The sum, zero where it is no more than rounding."""
        total, size = float(self.contributions.sum()), float(np.abs(self.contributions).sum())
        return total if abs(total) > 1e-12 * size else 0.0

    def summary(self) -> str:
        strongest = self.contributions[np.abs(self.contributions).argmax()]
        return f"sum {signed(self.total)}, strongest {signed(strongest)}"

    def legend_html(self) -> str:
        """One line: the colours from the one end of the scale to the other, and the sum."""
        ends = (
            f"rgba({_rgb(TINT_AGAINST)},{STRONGEST}),transparent,rgba({_rgb(TINT_FOR)},{STRONGEST})"
        )
        bar = (
            '<span style="display:inline-block;width:7em;height:.7em;margin:0 .5em;border-radius:.2em;'
            f'background:linear-gradient(to right,{ends})"></span>'
        )
        scale = f"{signed(-self.scale)}{bar}{signed(self.scale)}" if self.scale else "all zero"
        style = "font-size:.8em;opacity:.75;margin-top:.3em"
        return f'<div style="{style}">{scale}<span style="margin-left:1.5em">sum {signed(self.total)}</span></div>'


def _span(piece: Piece, contribution: float, strength: float) -> str:
    tint = ""
    if abs(strength) >= FAINTEST:
        colour = TINT_FOR if strength > 0 else TINT_AGAINST
        opacity = STRONGEST * abs(strength) ** LIFT
        tint = f";background:rgba({_rgb(colour)},{opacity:.3f})"
    text = html.escape(piece.text)
    return (
        f'<span title="{text}  {signed(contribution)}" '
        f'style="padding:.15em .08em;border-radius:.2em{tint}">{text}</span>'
    )


def _rgb(colour: tuple[int, int, int]) -> str:
    return ",".join(map(str, colour))


def _terminal_has_colours() -> bool:
    stream = sys.stdout
    allowed = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return allowed and stream is not None and stream.isatty()


def _coloured_lines(shown: _Tinted, columns: int) -> list[str]:
    lines, used = [""], 0
    for word in _words(shown):
        length = sum(_columns(piece.text) for piece, _ in word)
        if used and used + 1 + length > columns:
            lines.append("")
            used = 0
        elif used and word[0][0].starts_word:
            lines[-1] += " "
            used += 1
        lines[-1] += "".join(_painted(piece.text, strength) for piece, strength in word)
        used += length
    return lines


def _painted(text: str, strength: float) -> str:
    """A text in a colour, if weak, or on one; the ink on it is black or white, whichever can be read there."""
    if abs(strength) < FAINTEST:
        return text
    anchors = FOR[1:3] if strength > 0 else AGAINST[1:3]
    if abs(strength) < PAINTED:
        return f"\x1b[38;2;{_terminal_colour(INKS[strength > 0])}m{text}\x1b[0m"
    position = np.array((abs(strength) - PAINTED) / (1 - PAINTED))
    colour = np.rint(255 * ramp(position, anchors)).astype(int)
    bright = float(luminance(colour)) > DARK
    ink = (0, 0, 0) if bright else (255, 255, 255)
    return f"\x1b[38;2;{_terminal_colour(ink)};48;2;{_terminal_colour(colour)}m{text}\x1b[0m"


def _terminal_colour(colour: Any) -> str:
    return ";".join(str(int(channel)) for channel in colour)


def _plain_lines(shown: _Tinted, columns: int) -> list[str]:
    """Lines of tokens, each with a line of signs beneath where there are any."""
    lines: list[tuple[str, str]] = [("", "")]
    for word in _words(shown):
        text, marks = _marked(word)
        above, below = lines[-1]
        gap = " " if above and word[0][0].starts_word else ""
        if above and _columns(above + gap + text) > columns:
            lines.append(("", ""))
            above = below = gap = ""
        lines[-1] = (above + gap + text, below.ljust(_columns(above + gap)) + marks)
    return [line.rstrip() for pair in lines for line in pair if line.strip()]


def _marked(word: list[tuple[Piece, float]]) -> tuple[str, str]:
    """A word and its signs, the word padded to their length; within it no piece has more signs than columns."""
    text = marks = ""
    for piece, strength in word:
        marks = marks[: _columns(text)].ljust(_columns(text)) + _mark(strength)
        text += piece.text
    return text + " " * (len(marks) - _columns(text)), marks


def _mark(strength: float) -> str:
    sign = "+" if strength > 0 else "-"
    return sign * sum(abs(strength) >= least for least in PLAIN_MARKS)


def _words(shown: _Tinted) -> list[list[tuple[Piece, float]]]:
    """Pieces and their strengths, word by word."""
    words: list[list[tuple[Piece, float]]] = []
    for piece, _, strength in shown:
        if not words or piece.starts_word:
            words.append([])
        words[-1].append((piece, float(strength)))
    return words


def _columns(text: str) -> int:
    """Columns that a terminal gives a text: two for wide characters, none for marks that combine."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )
