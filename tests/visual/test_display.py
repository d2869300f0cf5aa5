"""How an attribution shows itself: one line, a page of text, HTML and PNG; never megabytes."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from igonnx.attribution import Attribution
from igonnx.errors import InputError
from igonnx.visual import text_picture
from igonnx.visual.summary import kind_of

RNG = np.random.default_rng(0)
VALUES: dict[str, Any] = {
    "image": RNG.normal(size=(1, 3, 40, 50)).astype(np.float32),
    "images": RNG.normal(size=(9, 12, 12, 1)),
    "inner": RNG.normal(size=(2, 16, 7, 7)),
    "tokens": RNG.normal(size=(2, 5, 8)),
    "table": RNG.normal(size=(3, 12)),
    "numbers": RNG.normal(size=4),
    "volume": RNG.normal(size=(1, 2, 4, 4, 4)),
    "several": {"image": RNG.normal(size=(2, 1, 4, 4)), "<b>age</b>": RNG.normal(size=(2, 3))},
    "zero": np.zeros((2, 3, 8, 8)),
    "half": np.full((1, 1, 1, 1), -1, np.float16),
    "not finite": np.full((1, 4), np.nan),
    "empty": np.zeros((0, 3)),
    "no features": np.zeros((2, 0)),
    "many tokens": RNG.normal(size=(1, 600, 4)),
}
PICTURED = {"image", "images", "inner", "table", "numbers", "several", "zero", "half"}


def _made(values: Any, **changes: Any) -> Attribution:
    count = len(next(iter(values.values())) if isinstance(values, dict) else values)
    fields: dict[str, Any] = {
        "values": values,
        "delta": np.linspace(-0.01, 0.02, count),
        "scores": np.linspace(0.5, 0.9, count),
        "baseline_scores": np.zeros(count),
        "target": [(i,) for i in range(count)],
        "path": [],
        "steps_used": np.full(count, 50),
        "method": "integrated_gradients steps=50",
    }
    return Attribution(**(fields | changes))


class _Page(HTMLParser):
    """Refuses tags that are not closed, scripts, and anything that is to be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[bytes] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert tag in {"b", "div", "img", "pre", "span", "table", "td", "th", "tr"}, tag
        if tag == "img":
            source = dict(attrs)["src"]
            assert source.startswith("data:image/png;base64,")
            self.images.append(base64.b64decode(source.split(",")[1], validate=True))
        else:
            assert {name for name, _ in attrs} <= {"dir", "style", "title"}
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("kind", VALUES)
def test_text_is_short(kind: str) -> None:
    attribution = _made(VALUES[kind])
    line = repr(attribution)
    assert line.isascii()
    assert "\n" not in line
    assert len(line) < 300
    lines = str(attribution).splitlines()
    assert len(lines) < 60
    assert max(map(len, lines)) < 120


@pytest.mark.parametrize("kind", VALUES)
def test_html_and_png(kind: str) -> None:
    attribution = _made(VALUES[kind])
    html, png = attribution._repr_html_(), attribution._repr_png_()
    assert len(html) < 1_000_000
    assert not re.search(r"https?:|url\(", html)
    page = _Page(html)
    assert attribution.method in page.text
    assert (png is not None) == (kind in PICTURED)
    for image in [*page.images, *([png] if png else [])]:
        assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert bool(page.images) == (kind in {"image", "images", "inner", "several", "zero", "half"})


def test_repr() -> None:
    assert repr(_made(VALUES["image"], delta=np.array([-0.005]))) == (
        "<Attribution integrated_gradients steps=50; float32 [1, 3, 40, 50]; target 0; score 0.5 from 0; "
        "delta 0.005 (1 %)>"
    )
    assert repr(_made(VALUES["several"], target=[None, None])) == (
        "<Attribution integrated_gradients steps=50; image: float64 [2, 1, 4, 4], <b>age</b>: float64 [2, 3]; "
        "2 examples, scores 0.5 to 0.9; delta 0.02 (2.2 %)>"
    )
    assert repr(_made(VALUES["empty"])).endswith("float64 [0, 3]>")


def test_page() -> None:
    values = np.array([[1.0, -2.0], [0.0, 0.0]])
    attribution = _made(values, target=[(1, 2), None], delta=np.array([0.005, 0.0]))
    assert str(attribution).splitlines() == [
        "integrated_gradients steps=50",
        "example   target  score  baseline   delta  of change  gradients",
        "      0     1, 2    0.5         0  +0.005        1 %         50",
        "      1  weights    0.9         0       0        0 %         50",
        "",
        "values: float64 [2, 2], the strongest features of example 0 of 2",
        "feature 1  −2  ████████████████████████████████████████│",
        "feature 0  +1                                          │████████████████████",
    ]
    many = str(_made(np.zeros((30, 2)))).splitlines()
    assert many[10] == "and 22 more"


def test_scores_that_are_not_known() -> None:
    unknown = np.full(1, np.nan)
    found = _made(VALUES["image"], delta=unknown, scores=unknown, baseline_scores=unknown)
    assert repr(found).endswith("score nan from nan; delta nan (-)>")
    assert "nan" in str(found)
    assert "nan" in _Page(found._repr_html_()).text


def test_names_are_escaped() -> None:
    html = _made(VALUES["several"], method="<script>alert(1)</script>")._repr_html_()
    assert "<script" not in html
    assert "<b>age" not in html
    assert "&lt;b&gt;age&lt;/b&gt;" in html


def test_positions_are_limited() -> None:
    page = _Page(_made(VALUES["many tokens"])._repr_html_())
    assert "255" in page.text
    assert "and 344 more positions" in page.text


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_prints_in_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    for values in (VALUES["image"], {"größe 大": VALUES["table"]}):
        print(_made(values))  # noqa: T201
    stream.flush()
    monkeypatch.undo()
    stream.close()


def test_kinds() -> None:
    shapes = [(), (5,), (4, 8), (3, 8, 8), (8, 8, 1), (2, 4, 8, 8)]
    assert [kind_of(shape) for shape in shapes] == [
        "features", "features", "tokens", "image", "image", "elements",
    ]  # fmt: skip


def test_without_matplotlib() -> None:
    code = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
import numpy as np
from igonnx.attribution import Attribution
one = np.ones(1)
for values in (np.ones((1, 3, 8, 8)), np.ones((1, 5))):
    found = Attribution(values, one, one, one, [None], [], np.ones(1, int))
    print(found._repr_png_(), "<img" in found._repr_html_(), len(str(found)) > 200)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["None", "False", "True"] * 2


class TestTextPicture:
    def test_shades(self) -> None:
        picture = text_picture(np.array([[[0.0, 1.0], [-1.0, 0.0]]])).splitlines()
        assert picture == ["┌────┐", "│  ██│", "│██  │", "└────┘"]

    @pytest.mark.parametrize(
        "shape", [(1, 1, 1), (3, 500, 20), (3, 20, 500), (1, 1, 9999), (17, 65)]
    )
    def test_fits(self, shape: tuple[int, ...]) -> None:
        lines = text_picture(np.random.default_rng(0).normal(size=shape)).splitlines()
        assert len(lines) <= 18
        assert {len(line) for line in lines} == {len(lines[0])}
        assert len(lines[0]) <= 66

    def test_bad_input(self) -> None:
        with pytest.raises(InputError, match="rows is 0"):
            text_picture(np.ones((4, 4)), rows=0)
        with pytest.raises(InputError, match="NaN"):
            text_picture(np.full((4, 4), np.nan))


class TestMethods:
    """What an attribution hands on to the pictures beyond images."""

    found = _made(RNG.normal(size=(2, 4)))

    def test_text(self) -> None:
        tokens = ["a", "b", "c", "d"]
        assert "<span" in self.found.text_html(tokens, index=1)
        assert self.found.text_terminal(tokens, index=1, colour=False).startswith("a")
        with pytest.raises(InputError, match="index is 2; expected 0 to 1"):
            self.found.text_html(tokens, index=2)

    def test_figures(self) -> None:
        bars = self.found.plot_features(index=1, names=["a", "b", "c", "d"])
        widths = sorted(bar.get_width() for bar in bars.axes[0].patches)
        np.testing.assert_allclose(widths, sorted(self.found.of()[1]))
        waterfall = self.found.plot_waterfall(index=1).axes[0]
        assert waterfall.texts[-1].get_text() == "0.9"
        assert len(self.found.plot_time_series(np.arange(4), index=1).axes) == 2
