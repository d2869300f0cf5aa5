"""What can go wrong, by whose hand it can be mended.

Every error igonnx raises on purpose is a subclass of `Error`; its message is one line that names what
was given and what was expected. The command line prints that line and exits with 2.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

__all__ = [
    "CancelledError",
    "DeadlineError",
    "EngineError",
    "Error",
    "InputError",
    "ModelError",
    "ToleranceWarning",
    "UnsupportedOperatorError",
    "warn_caller",
]


_PACKAGE = __name__.partition(".")[0]

NO_RUNTIME = "no ONNX Runtime is installed: pip install 'igonnx[cpu]' or 'igonnx[gpu]'"


class Error(Exception):
    """Base class of all igonnx errors."""


class ModelError(Error):
    """The model cannot be read, checked, differentiated as asked, or run."""


class UnsupportedOperatorError(ModelError):
    """A gradient would have to cross an operator that has no rule."""


class InputError(Error, ValueError):
    """An argument is wrong: its shape, dtype or value, a name, or a target outside the output."""


class EngineError(Error, RuntimeError):
    """The runtime failed, or a gradient it computed is not finite."""


class DeadlineError(EngineError, TimeoutError):
    """A call did not end within its `timeout`; the message says how far it came."""


class CancelledError(EngineError):
    """A call was stopped through its `cancel`; the message says how far it came."""


class ToleranceWarning(UserWarning):
    """A result did not reach the tolerance that was asked for; the message says what it reached."""


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line outside igonnx that has led here, however many of igonnx's own calls lie between."""
    frame, level = sys._getframe(1), 2  # 2: who has called this function
    while frame.f_back is not None and _is_own(frame.f_globals):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _is_own(module: dict[str, Any]) -> bool:
    return str(module.get("__name__")).partition(".")[0] == _PACKAGE
