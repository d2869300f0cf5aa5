"""The command `igonnx`; it needs typer and rich (`pip install igonnx[cli]`)."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import NoReturn, TextIO

from igonnx.errors import Error

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line and exit: 0 if all went well, 2 on any error, 130 on Ctrl-C, 143 on SIGTERM.

    An error of the user's, of igonnx or of the system is one line on the standard error stream. A
    reader of the output who goes away ends the command without a word, with 1.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        code = _run(sys.argv[1:] or ["--help"])
        sys.stdout.flush()
    except Error as error:
        _fail(str(error))
    except MemoryError as error:
        _fail(f"not enough memory: {error}")
    except BrokenPipeError:
        _discard(sys.stdout)
        sys.exit(1)
    except OSError as error:
        _discard(sys.stdout)
        _fail(_described(error))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    """Run a command; gives its exit code, and fails for wrong usage."""
    try:
        import typer

        from igonnx.cli.app import app
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in ("typer", "rich", "click"):
            raise
        _fail(f"the command line needs {missing.name}: pip install igonnx[cli]")
    # Older versions of typer stand on click, newer ones have a copy of it: the name is the same.
    click_error: type[Exception] = next(
        kind
        for kind in typer.BadParameter.__mro__
        if issubclass(kind, Exception) and kind.__name__ == "ClickException"
    )
    try:
        code = app(arguments, prog_name="igonnx", standalone_mode=False)
    except typer.Abort:
        return 130
    except click_error as error:
        context = getattr(error, "ctx", None)
        command = "igonnx" if context is None else context.command_path
        message = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
        message = message.replace(": Value error, ", ": ")  # typer's way of saying that it is one
        _fail(f"{message[:1].lower()}{message[1:]}; see {command} --help")
    return code if isinstance(code, int) else 0


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    """End as an exception does, so that files half written and new folders are removed."""
    sys.exit(128 + number)


def _described(error: OSError) -> str:
    """Say what the system refused, and where."""
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return where + reason


def _discard(stream: TextIO) -> None:
    """Let what is left in a stream go nowhere, or Python would complain of it at its exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _fail(message: str) -> NoReturn:
    """Write an error as one line and exit with 2."""
    try:
        sys.stderr.write(f"error: {' '.join(message.split())}\n")
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)
    sys.exit(2)
