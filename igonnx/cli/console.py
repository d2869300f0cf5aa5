"""What the commands say: results on stdout; progress, notes and warnings on stderr."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

__all__ = ["note", "plain_warnings", "progress", "results", "warn"]

# Wide enough that a table in a pipe or a file is not wrapped.
WIDTH_OF_FILES = 160


def results() -> Console:
    """Make the console for results, on stdout as it is now."""
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return Console(highlight=False)
    return Console(highlight=False, width=WIDTH_OF_FILES)


def note(text: str) -> None:
    """Say something worth knowing, in one line on stderr."""
    _say("note", text, "dim")


def warn(text: str) -> None:
    """Say something the user should act on, in one line on stderr."""
    _say("warning", text, "yellow")


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show each warning of the work inside as one plain line, once."""
    said: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        text = " ".join(str(message).split())
        if text not in said:
            said.add(text)
            warn(text)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.simplefilter("always", RuntimeWarning)
        warnings.showwarning = show
        yield


@contextmanager
def progress(
    description: str, unit: str | None = "gradients"
) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr, if that is a terminal; gives a callback of (done, total).

    The two are shown with their `unit`; None: as a percentage.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=32),
        *([TaskProgressColumn()] if unit is None else [MofNCompleteColumn(), TextColumn(unit)]),
        TimeRemainingColumn(compact=True),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _say(kind: str, text: str, style: str) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"{kind}: {text}", style=style, markup=False)
