"""`igonnx methods`: which methods there are, what each answers, and what it can be told."""

from __future__ import annotations

import inspect
from inspect import Parameter
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from igonnx.cli.choices import Method
from igonnx.cli.console import results
from igonnx.cli.methods import NOT_SET, function_name

__all__ = ["show_all", "show_one"]


def show_all() -> None:
    """Print a table of all methods."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", style="bold", no_wrap=True)
    table.add_column("what it is")
    for method in Method:
        if method is not Method.ig:
            table.add_row(Text(method.value), Text(_first_sentence(_function(method))))
    console = results()
    console.print(table)
    console.print("igonnx methods NAME tells what a method is and what can be set.", style="dim")


def show_one(method: Method) -> None:
    """Print what a method is, and its settings with their defaults."""
    function = _function(method)
    console = results()
    console.print(Text(method.value, style="bold"))
    console.print(Text(inspect.getdoc(function) or ""))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("setting", style="bold")
    table.add_column("default")
    for name, parameter in inspect.signature(function).parameters.items():
        if name in NOT_SET or parameter.kind is Parameter.VAR_KEYWORD:
            continue
        given = parameter.default
        table.add_row(Text(name), Text("required" if given is Parameter.empty else repr(given)))
    if table.row_count:
        console.print(table)
        console.print(
            "Set with an option of igonnx explain where it has one of that name, else with --set NAME=VALUE.",
            style="dim",
        )


def _function(method: Method) -> Any:
    from igonnx import Explainer

    return getattr(Explainer, function_name(method))


def _first_sentence(function: Any) -> str:
    lines = (inspect.getdoc(function) or "").split("\n\n")[0]
    return " ".join(lines.split())
