"""The results as tables, for the terminal and for docs/performance.md."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.entries import CAPTUM, ENTRIES, EXPLANATIONS, FORWARD, IGONNX, MASKED, TRAINING
from benchmarks.probe import STAGES
from benchmarks.summary import in_forwards, median_ratio, median_seconds, spread

__all__ = ["Table", "failures", "not_run", "tables"]

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A table with a heading and a paragraph in front of it."""

    heading: str
    text: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """As Markdown, under a heading of the third level."""
        lines = ["| " + " | ".join(row) + " |" for row in (self.header, *self.rows)]
        lines.insert(1, "|" + "---|" * len(self.header))
        return "\n".join([f"### {self.heading}", "", self.text, "", *lines])

    def plain(self) -> str:
        """In columns."""
        everything = [self.header, *self.rows]
        widths = [max(len(row[column]) for row in everything) for column in range(len(self.header))]
        lines = []
        for row in everything:
            cells = [
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join([self.heading, *lines])


def tables(results: Results) -> list[Table]:
    """Every table that the results have numbers for."""
    builders = {
        "comparison": (_in_forwards, _seconds, _ratios),
        "masked": (_masked,),
        "sizes": (_sizes,),
        "steps": (_steps,),
        "callers": (_callers,),
        "memory": (_memory,),
        "first": (_first,),
    }
    made = [
        build(results)
        for part, functions in builders.items()
        if results.get(part)
        for build in functions
    ]
    return [table for table in made if table.rows]


def failures(results: Results) -> list[str]:
    """One line for each entry that could not be measured."""
    lines = []
    for part in ("comparison", "sizes"):
        for key, found in results.get(part, {}).items():
            if "failure" in found:
                lines.append(f"{key}: {found['failure']}")
            for name, entry in found.get("entries", {}).items():
                if "failure" in entry:
                    lines.append(f"{key}, {name}: {entry['failure']}")
    for name, entry in results.get("masked", {}).get("entries", {}).items():
        if "failure" in entry:
            lines.append(f"{name}: {entry['failure']}")
    for part in ("masked", "steps", "callers"):
        if "failure" in results.get(part, {}):
            lines.append(f"{part}: {results[part]['failure']}")
    return lines


def not_run(results: Results) -> list[str]:
    """One line for each thing that a whole run has and this one was not asked for."""
    names = {
        "comparison": "comparison of entries",
        "masked": "masked inputs",
        "sizes": "image sizes",
        "steps": "numbers of steps",
        "callers": "concurrent callers",
        "memory": "memory",
        "first": "time to the first explanation",
    }
    absent = [name for part, name in names.items() if part not in results]
    lines = [f"Not run: {', '.join(absent)}."] if absent else []
    compared = {
        model: found["entries"]
        for model, found in results.get("comparison", {}).items()
        if "entries" in found
    }
    nowhere = [
        entry.name
        for entry in ENTRIES
        if compared and not any(entry.name in entries for entries in compared.values())
    ]
    if nowhere:
        lines.append(f"Not run on any model: {'; '.join(nowhere)}.")
    for model, entries in compared.items():
        missing = [e.name for e in ENTRIES if e.name not in entries and e.name not in nowhere]
        if missing:
            lines.append(f"Not run on {model}: {'; '.join(missing)}.")
    return lines


def _number(value: float | None, digits: int = 3) -> str:
    """`value` with three significant digits, a dash for None."""
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if abs(value) < 100 else f"{value:.0f}"


def _by_entry(
    results: Results, cell: Callable[[Mapping[str, Any], str], str]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table with one column per model, one row per entry that was run on any."""
    models = results["comparison"]
    rows = []
    for entry in ENTRIES:
        found = [model.get("entries", {}) for model in models.values()]
        if any(entry.name in entries for entries in found):
            cells = [
                "failed" if "failure" in entries.get(entry.name, {}) else cell(entries, entry.name)
                for entries in found
            ]
            rows.append([entry.name, *cells])
    return ["", *models], rows


def _in_forwards(results: Results) -> Table:
    def cell(entries: Mapping[str, Any], name: str) -> str:
        between = spread(entries, name)
        if between is None or name == FORWARD:
            return _number(in_forwards(entries, name))
        low, high = between
        return f"{_number(in_forwards(entries, name))} ({_number(low)} to {_number(high)})"

    header, rows = _by_entry(results, cell)
    steps = results["settings"]["steps"]
    text = (
        f"An explanation of {steps} steps, or its {steps} gradients, in units of {steps} forward passes of ONNX "
        "Runtime at their best batch: median over rounds, and in brackets the smallest and the largest."
    )
    return Table(f"In units of {steps} forward passes", text, header, rows)


def _seconds(results: Results) -> Table:
    def cell(entries: Mapping[str, Any], name: str) -> str:
        entry = entries.get(name, {})
        rows = f", {entry['setting']}" if entry.get("setting") else ""
        error = f", {entry['error']:.0e}" if "error" in entry else ""
        return f"{_number(median_seconds(entries, name))}{rows}{error}"

    header, rows = _by_entry(results, cell)
    text = (
        "Seconds (median), rows at once where they were chosen by trying, and the relative error of the result "
        "against float64 (of the logits for the forward passes, of the attribution for all others)."
    )
    return Table("In seconds", text, header, rows)


def _ratios(results: Results) -> Table:
    models = results["comparison"]
    rows = []
    for other in (CAPTUM, "Captum, torch.compile", TRAINING):
        ratios = [median_ratio(m.get("entries", {}), other, IGONNX) for m in models.values()]
        if any(ratio is not None for ratio in ratios):
            rows.append([other, *map(_number, ratios)])
    text = "How many times as long as igonnx's whole call the others take, in the same rounds."
    return Table("Times as long as igonnx", text, ["", *models], rows)


def _masked(results: Results) -> Table:
    entries, rows = results["masked"].get("entries", {}), []
    for method, (own, other) in MASKED.items():
        cells = [_number(median_seconds(entries, entry.name)) for entry in (own, other)]
        at_once = entries.get(other.name, {}).get("setting")
        if at_once is not None:
            cells[1] += f", {at_once}"
        rows.append([method, *cells, _number(median_ratio(entries, other.name, own.name))])
    text = (
        "EfficientNet-Lite0, forward passes only; seconds (median), Captum's with its best perturbations_per_eval, and "
        "how many times as long as igonnx it takes, in the same rounds."
    )
    return Table("Masked inputs", text, ["", "igonnx", "Captum", "Captum / igonnx"], rows)


def _sizes(results: Results) -> Table:
    rows = []
    for size, found in results["sizes"].items():
        entries = found.get("entries", {})
        rows.append(
            [
                f"{size} x {size}",
                _number(median_seconds(entries, FORWARD)),
                _number(median_seconds(entries, IGONNX)),
                _number(median_seconds(entries, CAPTUM)),
                _number(in_forwards(entries, IGONNX)),
                _number(median_ratio(entries, CAPTUM, IGONNX)),
            ]
        )
    text = "EfficientNet-Lite0; seconds, then igonnx in forward passes and Captum in igonnx's."
    header = ["image", "forward passes", "igonnx", "Captum", "igonnx / forward", "Captum / igonnx"]
    return Table("Image size", text, header, rows)


def _steps(results: Results) -> Table:
    rows = []
    for steps, times in results["steps"].get("seconds", {}).items():
        seconds = statistics.median(times)
        rows.append([steps, _number(seconds), _number(1000 * seconds / int(steps))])
    header = ["steps", "seconds", "milliseconds per step"]
    return Table("Number of steps", "EfficientNet-Lite0, the whole call.", header, rows)


def _callers(results: Results) -> Table:
    rows = []
    for callers, times in results["callers"].get("seconds", {}).items():
        rows.append([callers, _number(EXPLANATIONS / statistics.median(times))])
    text = f"EfficientNet-Lite0, {results['settings']['steps']} steps, threads that call one explainer."
    return Table("Concurrent callers", text, ["callers", "explanations per second"], rows)


def _memory(results: Results) -> Table:
    def megabytes(value: Any) -> str:
        return f"{value / 1e6:,.0f}" if isinstance(value, int) else "failed"

    rows, header = [], ["", "steps", "more steps", "ratio", "Captum"]
    for model, found in results["memory"].items():
        (few, least), (many, most) = found["igonnx"].items()
        (captum,) = found["captum"].values()
        sizes = [value for value in (least, most) if isinstance(value, int)]
        ratio = _number(sizes[1] / sizes[0]) if len(sizes) == 2 else "-"
        header = ["", f"igonnx, {few} steps", f"igonnx, {many} steps", "ratio", f"Captum, {few}"]
        rows.append([model, megabytes(least), megabytes(most), ratio, megabytes(captum)])
    text = (
        "Peak resident memory of a process that explains once, in MB; Captum with 10 rows at once."
    )
    return Table("Memory", text, header, rows)


def _first(results: Results) -> Table:
    rows = []
    for model, found in results["first"].items():
        igonnx, captum = found["igonnx"], found["captum"]
        cells = [_number(igonnx.get(stage)) for stage in STAGES]
        rows.append([model, *cells, *(_total(times) for times in (igonnx, captum))])
    text = (
        "Seconds from the start of the program (Python itself runs) to the first explanation. Captum's is the "
        "time to import PyTorch, load the weights and explain."
    )
    return Table("Time to the first explanation", text, ["", *STAGES, "igonnx", "Captum"], rows)


def _total(stages: Mapping[str, Any]) -> str:
    return "failed" if "failure" in stages else _number(sum(stages.values()))
