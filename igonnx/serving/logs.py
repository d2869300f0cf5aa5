"""Logs as JSON, one object a line on the standard error stream."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import Any

from igonnx.serving.served import Served

__all__ = ["configure", "tell"]

_LOGGER = logging.getLogger("igonnx.serving")
_FOREIGN = (
    "kserve",
    "kserve.trace",
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "asyncio",
    "grpc",
)


class _Lines(logging.Formatter):
    """One JSON object per record: time (UTC), level, logger, message, and what was given as `extra={"fields": ...}`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(level: str = "info") -> None:
    """Let igonnx's lines and those of the libraries beneath go to the standard error stream.

    Of the libraries only warnings are kept: they tell of requests on several lines each, and igonnx does on one.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    _LOGGER.handlers = [handler]
    _LOGGER.propagate = False
    _LOGGER.setLevel(level.upper())
    for name in _FOREIGN:
        logger = logging.getLogger(name)
        # KServe puts its own handler in where there is none.
        logger.handlers = [handler] if "." not in name else []
        logger.propagate = "." in name
        logger.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").handlers = [handler]
    logging.getLogger("py.warnings").propagate = False
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("kserve.trace").disabled = True


def tell(served: Served) -> None:
    """One line for a request that has ended; a warning where the server is to blame."""
    fields: dict[str, Any] = {
        "model": served.model,
        "verb": served.verb,
        "status": served.status,
        "seconds": round(served.seconds, 6),
        "waited": round(served.waited, 6),
        "examples": served.examples,
        "together": served.together,
    }
    if served.method:
        fields |= {"method": served.method, "steps": list(served.steps)}
        fields["completeness_error"] = [
            float(f"{error:.3g}") for error in served.completeness_error
        ]
    level = logging.WARNING if served.status >= 500 else logging.INFO
    _LOGGER.log(level, served.message or "answered", extra={"fields": fields})
