"""Tokens coloured by attribution: joined to words, escaped, legible on light and dark ground."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from igonnx.errors import InputError
from igonnx.visual import text_html, text_terminal
from igonnx.visual.text import STRONGEST, TINT_AGAINST, TINT_FOR
from igonnx.visual.tokens import pieces_of, token_contributions, whole_words

BERT = ["[CLS]", "un", "##believ", "##ably", "dull", ",", "over", "##long", "[SEP]"]


def _read(tokens: list[str]) -> str:
    return "".join(" " * piece.starts_word + piece.text for piece in pieces_of(tokens))


class _Page(HTMLParser):
    """Tags, attributes and text of a page; refuses tags that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


class TestWords:
    @pytest.mark.parametrize(
        ("tokens", "expected"),
        [
            (BERT, "[CLS] unbelievably dull, overlong [SEP]"),
            (["a", "b", "c"], "a b c"),
            (["The", "Ġmovie", "Ġspl", "endid", "<|endoftext|>", "x"], "The movie splendid <|endoftext|> x"),
            (["ca", "fÃ©", "Ġå¤§", "Ċ"], "café 大↵"),
            (["Ġa", "Ã"], "a\ufffd"),  # half of a character
            (["▁Hel", "lo", "▁", "wor", "ld", "</s>"], "Hello ␣world </s>"),
            (["<s>", "▁a▁b"], "<s> a b"),
            (["hel", "lo</w>", "you</w>", "!</w>"], "hello you !"),
            (["##", "#"], "## #"),
            (["a\tb", "\x1b[31m", ""], "a⇥b \\x1b[31m ∅"),
            (["\ud800"], "\\ud800"),
        ],
    )  # fmt: skip
    def test_joined(self, tokens: list[str], expected: str) -> None:
        assert _read(tokens) == expected

    def test_sums_are_kept(self) -> None:
        values = np.arange(9.0)
        words, sums = whole_words(pieces_of(BERT), values)
        assert [word.text for word in words] == [
            "[CLS]",
            "unbelievably",
            "dull,",
            "overlong",
            "[SEP]",
        ]
        assert sums.tolist() == [0, 6, 9, 13, 8]

    def test_embeddings_are_summed(self) -> None:
        values = np.random.default_rng(0).normal(size=(1, 3, 5)).astype(np.float32)
        found = token_contributions(["a", "b", "c"], values)
        np.testing.assert_allclose(found, values[0].sum(axis=1), rtol=1e-6)
        assert found.dtype == np.float64
        # As many tokens as examples: the first axis counts the tokens.
        assert token_contributions(["a"], np.ones((1, 4))).tolist() == [4]

    @pytest.mark.parametrize(
        ("tokens", "values", "message"),
        [
            (["a", "b"], np.zeros(3), r"attribution has shape \[3\], expected \[2\] or \[2, E\] for 2 tokens"),
            (["a"], np.array([np.nan]), "1 of 1 values of the attribution are NaN or infinite"),
            (["a"], np.array(["x"]), "dtype <U1, expected numbers"),
            (["a", "b"], np.zeros((2, 2, 2)), r"shape \[2, 2, 2\]"),
            (["a"], np.zeros(()), r"shape \[\]"),
            ([], np.zeros(0), "no tokens were given"),
            ("text", np.zeros(4), "tokens is one text, 'text'; expected a list of tokens"),
            (["a", 7], np.zeros(2), "token 1 is 7; expected a text"),
        ],
    )  # fmt: skip
    def test_bad_input(self, tokens: Any, values: Any, message: str) -> None:
        for draw in (text_html, text_terminal):
            with pytest.raises(InputError, match=message):
                draw(tokens, values)


class TestHtml:
    def test_escapes(self) -> None:
        hostile = ["<script>alert(1)</script>", '"onmouseover="x', "&amp;", "'"]
        page = _Page(text_html(hostile, [1, -1, 0, 2]))
        assert {tag for tag, _ in page.tags} == {"div", "span"}
        assert all(set(attributes) <= {"style", "title", "dir"} for _, attributes in page.tags)
        assert page.text.startswith(" ".join(hostile))

    def test_is_self_contained(self) -> None:
        text = text_html(BERT, np.linspace(-1, 1, 9))
        assert not re.search(r"https?:|url\(|src=|href=|class=|<style|<script", text)

    def test_tints(self) -> None:
        page = _Page(text_html(["for", "against", "none"], [2.0, -1.0, 0.001]))
        spans = {a["title"]: a["style"] for _, a in page.tags if a.get("title")}
        warm, cool = (",".join(map(str, colour)) for colour in (TINT_FOR, TINT_AGAINST))
        assert f"rgba({warm},{STRONGEST:.3f})" in str(spans["for  +2"])
        assert f"rgba({cool},{STRONGEST * 0.5**0.75:.3f})" in str(spans["against  −1"])
        assert "background" not in str(spans["none  +0.001"])
        assert page.text == "for against none−2+2sum +1"

    def test_join_scale_and_legend(self) -> None:
        joined = text_html(BERT, np.arange(9), join=True, legend=False)
        assert joined.count("<span") == 5
        assert "sum" not in joined
        assert f"{STRONGEST:.3f}" not in text_html(["a"], [1], scale=2.0)
        assert f"{STRONGEST:.3f}" in text_html(["a"], [3], scale=2.0)
        for bad in (0, -1, np.nan, "x"):
            with pytest.raises(InputError, match="scale is"):
                text_html(["a"], [1], scale=bad)  # type: ignore[arg-type]

    def test_all_zero_and_rounding(self) -> None:
        page = _Page(text_html(["a", "b"], [0, 0]))
        assert page.text == "a ball zerosum 0"
        assert "sum 0" in text_html(["a", "b", "c"], [0.1, 0.2, -0.1 - 0.2])

    @pytest.mark.parametrize("tint", [TINT_FOR, TINT_AGAINST])
    @pytest.mark.parametrize(
        ("ground", "ink"), [(255, 0), (255, 51), (17, 221), (30, 212), (0, 255)]
    )
    def test_legible_on_light_and_dark(self, tint: tuple[int, ...], ground: int, ink: int) -> None:
        """Contrast as WCAG 2 defines it: 4.5 for text, at the strongest tint."""
        tinted = STRONGEST * np.array(tint) + (1 - STRONGEST) * ground
        lights = sorted([_luminance(tinted), _luminance(np.full(3, ink))])
        assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5


def _luminance(colour: Any) -> float:
    channels = np.asarray(colour) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


ANSI = re.compile(r"\x1b\[[0-9;]*m")


class TestTerminal:
    def test_plain(self) -> None:
        text = text_terminal(
            ["so", "very", "bad", "film"], [0, 0.5, -1, 0.1], colour=False, width=80
        )
        assert text.splitlines() == [
            "so very bad film",
            "   ++   --- +",
            "sum −0.4, strongest −1",
        ]

    def test_signs_stand_under_their_piece(self) -> None:
        lines = text_terminal(["a", "##b", "##c", "d"], [1, -1, 1, -1], colour=False).splitlines()
        assert lines[:2] == ["abc   d", "+-+++ ---"]
        wide = text_terminal(["大", "x"], [0, 1], colour=False).splitlines()
        assert wide[1] == "   +++"

    @pytest.mark.parametrize("colour", [False, True])
    def test_wraps_between_words(self, colour: bool) -> None:
        tokens = ["word", "##s"] * 30
        lines = text_terminal(tokens, np.zeros(60), colour=colour, width=24).splitlines()
        assert all(len(line) <= 24 for line in lines)
        assert " ".join(lines[:-1]).split() == ["words"] * 30

    def test_coloured(self) -> None:
        text = text_terminal(BERT, np.linspace(-1, 1, 9), colour=True, width=80)
        assert ANSI.sub("", text).splitlines()[0] == "[CLS] unbelievably dull, overlong [SEP]"
        assert "\x1b[38;2;255;255;255;48;2;214;56;30m[SEP]\x1b[0m" in text
        assert "\x1b[38;2;0;0;0;48;2;88;158;224mly\x1b[0m" in text_terminal(
            ["ly", "x"], [-0.25, 1], colour=True
        )
        assert "\x1b[38;2;205;92;34mweak\x1b[0m" in text_terminal(
            ["weak", "x"], [0.2, 1], colour=True
        )
        assert text.count("\x1b[0m") == 8
        assert "\x1b" not in text_terminal(["\x1b[2J"], [0.0], colour=True)

    @pytest.mark.parametrize(
        ("terminal", "variables", "expected"),
        [
            (True, {}, True),
            (False, {}, False),
            (True, {"NO_COLOR": "1"}, False),
            (True, {"NO_COLOR": ""}, True),
            (True, {"TERM": "dumb"}, False),
        ],
    )
    def test_when_it_is_coloured(
        self,
        monkeypatch: pytest.MonkeyPatch,
        terminal: bool,
        variables: dict[str, str],
        expected: bool,
    ) -> None:
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("TERM", "xterm-256color")
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
        assert ("\x1b" in text_terminal(["a"], [1.0])) == expected

    def test_bad_width(self) -> None:
        with pytest.raises(InputError, match="width is 0; expected a whole number of at least 1"):
            text_terminal(["a"], [1.0], width=0)
