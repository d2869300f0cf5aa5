"""From a tokenizer's pieces back to words: which pieces belong together, and how each is shown.

Four conventions are told apart by the markers among the tokens: "##" before a piece that goes on with a word
(WordPiece: BERT), "▁" before one that starts a word (SentencePiece: T5, Llama), "Ġ" likewise, its other characters
standing for bytes (byte-level BPE: GPT-2, RoBERTa), "</w>" behind one that ends a word (CLIP). Without any of them each
token is a word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import InputError
from igonnx.visual.arguments import finite_array
from igonnx.visual.notation import visible

__all__ = ["Piece", "pieces_of", "token_contributions", "whole_words"]

SPECIAL = re.compile(r"\[[A-Z]+\d*\]|<\|?[^<>\s]+\|?>")
CLOSING = frozenset(".,;:!?)]}%\N{HORIZONTAL ELLIPSIS}\N{RIGHT DOUBLE QUOTATION MARK}")
SPACE, EMPTY = "\N{OPEN BOX}", "\N{EMPTY SET}"
BYTE_LEVEL_STARTS = ("Ġ", "Ċ", "ĉ")  # space, newline and tab


@dataclass(frozen=True)
class Piece:
    """A token as it is shown, and whether a space stands before it."""

    text: str
    starts_word: bool


def pieces_of(tokens: Sequence[str]) -> list[Piece]:
    """What to show of each token, its marker taken away; see the module for the conventions.

    Special tokens ("[CLS]", "</s>", "<|end|>") stand alone. Where spaces are not marked (WordPiece, words), closing
    punctuation is set close to what it closes. Characters that cannot be seen are replaced by ones that can. Raises
    `InputError` for anything but a sequence of texts.
    """
    if isinstance(tokens, str | bytes):
        raise InputError(f"tokens is one text, {tokens[:20]!r}; expected a list of tokens")
    tokens = list(tokens)
    for position, token in enumerate(tokens):
        if not isinstance(token, str):
            raise InputError(f"token {position} is {token!r}; expected a text")
    raw = _split(tokens)
    pieces = []
    for position, ((text, starts), token) in enumerate(zip(raw, tokens, strict=True)):
        alone = _is_special(token) or (position > 0 and _is_special(tokens[position - 1]))
        pieces.append(Piece(_shown(text), position > 0 and (starts or alone)))
    return pieces


def token_contributions(tokens: Sequence[str], values: Any) -> NDArray[np.float64]:
    """One contribution per token, float64 [T], from `values` [T], or [T, E] that are summed over an embedding.

    A leading axis of 1 is taken away where it leaves as many rows as there are tokens. Raises `InputError`.
    """
    count = len(tokens)
    if count == 0:
        raise InputError("no tokens were given")
    expected = f"[{count}] or [{count}, E] for {count} tokens"
    array = finite_array(values, "the attribution", ranks=(1, 2, 3), expected=expected)
    if array.shape[:1] != (count,) and array.shape[:2] == (1, count):
        array = array[0]
    if len(array) != count or array.ndim > 2:
        raise InputError(f"the attribution has shape {list(np.shape(values))}, expected {expected}")
    return array if array.ndim == 1 else np.asarray(array.sum(axis=1))


def whole_words(
    pieces: Sequence[Piece], contributions: NDArray[np.float64]
) -> tuple[list[Piece], NDArray[np.float64]]:
    """Join pieces to words, each contributing what its pieces do in all: sums are kept."""
    words: list[Piece] = []
    sums: list[float] = []
    for piece, contribution in zip(pieces, contributions, strict=True):
        if words and not piece.starts_word:
            words[-1] = Piece(words[-1].text + piece.text, words[-1].starts_word)
            sums[-1] += float(contribution)
        else:
            words.append(piece)
            sums.append(float(contribution))
    return words, np.array(sums)


def _split(tokens: list[str]) -> list[tuple[str, bool]]:
    """The text of each token without its marker, and whether a word starts there."""
    if any(token.startswith(BYTE_LEVEL_STARTS) for token in tokens):
        return [_byte_level(token) for token in tokens]
    if any(token.startswith("▁") for token in tokens):
        return [
            (token.removeprefix("▁").replace("▁", " ") or SPACE, token.startswith("▁"))
            for token in tokens
        ]
    if any(token.endswith("</w>") and token != "</w>" for token in tokens):
        ended = [True, *(token.endswith("</w>") for token in tokens)]
        return [(token.removesuffix("</w>"), ended[i]) for i, token in enumerate(tokens)]
    return [
        (token[2:], False)
        if token.startswith("##") and len(token) > 2
        else (token, token not in CLOSING)
        for token in tokens
    ]


def _byte_level(token: str) -> tuple[str, bool]:
    known = _bytes_by_character()
    if not all(character in known for character in token):
        return token, True  # no piece of text: a special token with characters of its own
    text = bytes(known[character] for character in token).decode("utf-8", "replace")
    starts = text.startswith(" ")
    return (text[1:] or SPACE if starts else text), starts


@cache
def _bytes_by_character() -> dict[str, int]:
    """The characters by which byte-level BPE writes bytes (Radford et al., 2019).

    Printable bytes of Latin-1 stand for themselves; the other bytes, in order, are written as the characters from
    U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def _is_special(token: str) -> bool:
    return SPECIAL.fullmatch(token) is not None


def _shown(text: str) -> str:
    return visible(text) or EMPTY
