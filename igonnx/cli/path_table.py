"""The differentiable path of a model as `igonnx inspect` prints it."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from igonnx.autodiff.path_report import PathReport
from igonnx.autodiff.serving import How

__all__ = ["print_path"]

# Less is left of a description in a narrow terminal than is worth reading.
_SHORTEST_DESCRIPTION = 20
# What the table puts around its columns, and between them.
_EDGES, _GAP = 2, 3
_HEADINGS = ("operator", "nodes", "served by", "how")


def print_path(report: PathReport, console: Console) -> None:
    """Print what serves each operator on the path, what lies off it, and last what is refused and what to do."""
    if report.served or report.stops:
        console.print(_table(report, console.width))
    on, off = report.nodes_on_path, report.nodes_off_path
    if on:
        console.print(Text(f"{_count(on)} on the path, {off or 'none'} off it", style="dim"))
    for refusal in report.refusals:
        line = f"refused: {refusal.operator} '{refusal.node}': {refusal.reason}"
        console.print(Text(line, style="red"), soft_wrap=True)
    if report.refusals:
        console.print(Text("; ".join(_advice(report)), style="red bold"), soft_wrap=True)


def _table(report: PathReport, width: int) -> Table:
    rows = [
        (entry.operator, f"{entry.nodes:,}", str(entry.how), entry.description)
        for entry in (*report.served, *report.stops)
    ]
    columns = zip(_HEADINGS, *rows, strict=True)
    taken = _EDGES + sum(max(map(len, column)) + _GAP for column in list(columns)[:3])
    described = width - taken >= _SHORTEST_DESCRIPTION
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in _HEADINGS[: 4 if described else 3]:
        table.add_column(
            heading,
            justify="right" if heading == "nodes" else "left",
            overflow="fold",
            no_wrap=described,
        )
    for index, row in enumerate(rows):
        cells = [Text(cell) for cell in row[: 4 if described else 3]]
        if described:
            cells[3].truncate(width - taken, overflow="ellipsis")
        table.add_row(*cells, style="dim" if index >= len(report.served) else None)
    return table


def _advice(report: PathReport) -> Iterator[str]:
    """What can be done about what is refused."""
    yield f"{len(report.refusals):,} of {_count(report.nodes_on_path)} on the path cannot be crossed"
    them = "it" if len(report.refusals) == 1 else "them"
    if report.restart is not None:
        yield f"explain by a tensor behind {them} (--wrt '{report.restart}')"
    if all(refusal.how is How.refused for refusal in report.refusals):
        yield "what to do instead stands above"
    else:
        yield f"re-export the model without {them}"
    if any(refusal.how is How.missing for refusal in report.refusals):
        yield "or register a rule (CONTRIBUTING.md, 'Add an operator rule')"


def _count(nodes: int) -> str:
    return f"{nodes:,} node{'' if nodes == 1 else 's'}"
