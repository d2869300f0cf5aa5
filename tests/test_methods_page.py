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


@pytest.mark.parametrize("name", methods())
def test_every_method_has_a_section_a_row_and_a_paper(name: str) -> None:
    sections = [
        part for part in PAGE.split("\n## ") if name in re.split(r"\W+", part.split("\n")[0])
    ]
    assert len(sections) == 1
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| [`{name}`]("))
    anchor = row.split("](#")[1].split(")")[0]
    assert anchor == sections[0].split("\n")[0].replace(" ", "-")
    papers = set(
        re.findall(r"arXiv:\d{4}\.\d{4,5}", inspect.getdoc(getattr(igonnx.Explainer, name)) or "")
    )
    assert papers
    assert papers <= set(re.findall(r"arXiv:\d{4}\.\d{4,5}", sections[0]))


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
