"""docs/methods.md describes every method there is; its scores come from one program."""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import igonnx

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # behind site-packages: the installed igonnx is the one to test

from benchmarks.method_scores import METHODS, main, replaced, tables  # noqa: E402

PAGE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")


def methods() -> list[str]:
    """Names of the methods of `Explainer` that come from `igonnx.methods`."""
    return [
        name
        for name, member in vars(igonnx.Explainer).items()
        if callable(member) and member.__module__.startswith("igonnx.methods.")
    ]


# What stands for a paper: an arXiv number, a DOI, or authors with a year.
NUMBERED = re.compile(r"arXiv:\d{4}\.\d{4,5}|doi 10\.\d{4,}/[^\s\])]+[^\s\]).,;]")
BY_YEAR = re.compile(r"[A-Z][a-z]+(?: et al\.)?,? (?:19|20)\d\d")


@pytest.mark.parametrize("name", methods())
def test_every_method_has_a_row_a_section_and_a_paper(name: str) -> None:
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| [`{name}`]("))
    anchor = row.split("](#")[1].split(")")[0]
    (section,) = (part for part in PAGE.split("\n## ")[1:] if _anchor(part) == anchor)
    heading, _, text = section.partition("\n")
    assert name in re.split(r"\W+", heading) or f"`{name}`" in text
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == 6
    assert all(cells[:5])
    described = " ".join((inspect.getdoc(getattr(igonnx.Explainer, name)) or "").split())
    papers = set(NUMBERED.findall(described))
    text = " ".join(text.split())
    assert papers <= set(NUMBERED.findall(text))
    assert NUMBERED.search(text)
    for cited in BY_YEAR.findall(described):
        assert cited in text


def test_every_row_is_of_a_method() -> None:
    assert sorted(re.findall(r"^\| \[`(\w+)`\]\(#", PAGE, re.MULTILINE)) == sorted(methods())


def test_links_within_the_page() -> None:
    headings = {_anchor(part) for part in re.split(r"\n##+ ", PAGE)[1:]}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= headings
    for other in re.findall(r"\]\((\w+\.md)", PAGE):
        assert (ROOT / "docs" / other).exists()


def _anchor(section: str) -> str:
    """What links to a section are made of: its heading without punctuation, with hyphens between the words."""
    heading = section.partition("\n")[0].lower()
    return re.sub(r"[^\w\- ]", "", heading).replace(" ", "-")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_that_is_scored_stands_in_the_page(name: str) -> None:
    assert len(re.findall(rf"^\| {re.escape(name)} \|", PAGE, re.MULTILINE)) == 2


def results() -> dict[str, Any]:
    rng = np.random.default_rng(0)

    def scored() -> dict[str, dict[str, list[float]]]:
        return {
            patch: {name: rng.random(3).tolist() for name in ("score", "insertion", "deletion")}
            for patch in ("8", "1")
        }

    return {
        "photos": ["a", "b", "c"],
        "classes": ["cat", "cup", "car"],
        "steps": 7,
        "methods": {
            "saliency": {"gradients": 1, **scored()},
            "xrai": {"gradients": 100, **scored()},
        },
        "random": {"random pixels": [scored(), scored()]},
    }


def test_tables() -> None:
    given = results()
    text = tables(given)
    assert "a (cat), b (cup), c (car)" in text
    assert "curves of 7 steps" in text
    large, small = (given["methods"]["xrai"][patch] for patch in ("8", "1"))
    numbers = [large["score"], large["insertion"], large["deletion"], small["score"]]
    cells = [f"{np.median(values):.2f}" for values in numbers]
    assert f"| xrai | 100 | {' | '.join(cells)} |" in text
    assert f"| xrai | {' | '.join(f'{score:.2f}' for score in large['score'])} |" in text
    medians = [np.median(run["8"]["score"]) for run in given["random"]["random pixels"]]
    assert f"| random pixels, 2 draws | 0 | {min(medians):.2f} to {max(medians):.2f} |" in text
    best = max(given["methods"], key=lambda name: np.median(given["methods"][name]["8"]["score"]))
    assert re.findall(r"^\| (saliency|xrai) \|", text, re.MULTILINE)[0] == best


def test_old_results_are_shown_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "scores.json"
    saved.write_text(json.dumps(results()))
    assert main(["--render", str(saved)]) == 0
    assert capsys.readouterr().out == tables(results()) + "\n"


def test_a_section_is_replaced() -> None:
    once = replaced(PAGE, "the scores")
    assert replaced(replaced(PAGE, "others"), "the scores") == once
    assert once.count("the scores") == 1 + PAGE.count("the scores") - _section().count("the scores")
    with pytest.raises(ValueError, match="the page lacks the lines"):
        replaced("nothing here", "the scores")


def _section() -> str:
    return PAGE.split("begin -->")[1].split("<!--")[0]
