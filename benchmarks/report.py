"""The page that is written from results: the marked section of docs/performance.md, and its chart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.chart import draw
from benchmarks.machine import one_line
from benchmarks.tables import failures, not_run, tables

__all__ = ["BEGIN", "END", "markdown", "publish", "quietness", "replaced"]

BEGIN = "<!-- written by `make bench`: begin -->"
END = "<!-- written by `make bench`: end -->"
CHART = "performance.svg"


def markdown(results: Mapping[str, Any]) -> str:
    """The section: the machine, the chart, the tables, what could not be measured and why, and what was not run."""
    settings = results["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    paragraphs = [
        "## Side by side",
        f"Measured by `make bench` on {one_line(results['machine'])}; {versions}. {settings['threads']} threads each, "
        f"{settings['rounds']} rounds in which the entries take turns, each in a process of its own. Each result was "
        "checked against float64 before it was timed. Weights are random except EfficientNet-Lite0's.",
    ]
    if results.get("comparison"):
        paragraphs.append(f"![Time of an explanation in units of forward passes]({CHART})")
        paragraphs.append(
            "Dashed: two forward passes, about the least that an input gradient takes."
        )
    paragraphs += [table.markdown() for table in tables(results)]
    failed = failures(results)
    if failed:
        listed = "\n".join(f"- {line.replace('|', '/')}" for line in failed)
        paragraphs.append(f"### What could not be measured\n\n{listed}")
    return "\n\n".join([*paragraphs, *not_run(results), quietness(results)])


def quietness(results: Mapping[str, Any]) -> str:
    """How undisturbed the comparison was; empty if there was none."""
    found = [part for part in results.get("comparison", {}).values() if "idle_share" in part]
    shares = [
        max((part[key] for part in found if part[key] is not None), default=None)
        for key in ("foreign_share", "idle_share")
    ]
    if not found:
        return ""
    if any(share is None for share in shares):
        return "The system does not tell whether anything else ran meanwhile."
    foreign, idle = (f"{100 * share:.1f}%" for share in shares if share is not None)
    return (
        f"While an entry was timed, other programs used at most {foreign} of the processors (mean over the rounds of "
        f"a model), and the waiting entries {idle}."
    )


def replaced(page: str, section: str) -> str:
    """`page` with `section` between the marks, which are put behind its first paragraph where there are none."""
    marked = f"{BEGIN}\n\n{section}\n\n{END}"
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and end:
        return before + marked + after
    title, _, rest = page.partition("\n\n")
    return f"{title}\n\n{marked}\n\n{rest}"


def publish(results: Mapping[str, Any], docs: Path) -> None:
    """Write the chart to `docs` and the section into `docs`/performance.md."""
    if results.get("comparison"):
        draw(results, docs / CHART)
    page = docs / "performance.md"
    page.write_text(replaced(page.read_text(), markdown(results)))
