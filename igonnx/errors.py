"""What can go wrong, by whose hand it can be mended.

Every error igonnx raises on purpose is a subclass of `Error`; its message is one line that names what
was given and what was expected. The command line prints that line and exits with 2.
"""

from __future__ import annotations

__all__ = [
    "CancelledError",
    "DeadlineError",
    "EngineError",
    "Error",
    "InputError",
    "ModelError",
    "ToleranceWarning",
    "UnsupportedOperatorError",
]


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
