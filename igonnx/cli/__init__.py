"""The command `igonnx`; it needs typer and rich (`pip install igonnx[cli]`)."""

from __future__ import annotations

import sys
from typing import NoReturn

from igonnx.errors import Error

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line and exit: 0 if all went well, 2 on any error, 130 on Ctrl-C.

    An error of igonnx is one line on the standard error stream.
    """
    try:
        from igonnx.cli.app import app
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in ("typer", "rich", "click"):
            raise
        _fail(f"the command line needs {missing.name}: pip install igonnx[cli]")
    try:
        app(prog_name="igonnx")
    except Error as error:
        _fail(str(error))
    except MemoryError as error:
        _fail(f"not enough memory: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def _fail(message: str) -> NoReturn:
    """Write an error as one line and exit with 2."""
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    sys.exit(2)
