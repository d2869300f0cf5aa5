"""igonnx explains ONNX models where they are deployed.

Given any ONNX file, `gradient` emits its gradient as plain ONNX, `augment` one file that predicts and explains, and
`Explainer` computes Integrated Gradients inside ONNX Runtime, with no training framework present.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from typing import TYPE_CHECKING, Any

from igonnx.errors import (
    NO_RUNTIME,
    CancelledError,
    DeadlineError,
    EngineError,
    Error,
    InputError,
    ModelError,
    ToleranceWarning,
    UnsupportedOperatorError,
)

if TYPE_CHECKING:
    from igonnx.attribution import Attribution
    from igonnx.augmentation.augment import augment
    from igonnx.autodiff.gradient import gradient
    from igonnx.compilation import compile  # noqa: A004 (the name that the field has for it)
    from igonnx.engine.control import CancelToken
    from igonnx.explainer import Explainer

__version__ = "0.1.0"

__all__ = [
    "Attribution",
    "CancelToken",
    "CancelledError",
    "DeadlineError",
    "EngineError",
    "Error",
    "Explainer",
    "InputError",
    "ModelError",
    "ToleranceWarning",
    "UnsupportedOperatorError",
    "__version__",
    "augment",
    "compile",
    "gradient",
]

_HOMES = {
    "Attribution": "igonnx.attribution",
    "CancelToken": "igonnx.engine.control",
    "Explainer": "igonnx.explainer",
    "augment": "igonnx.augmentation.augment",
    "compile": "igonnx.compilation",
    "gradient": "igonnx.autodiff.gradient",
}

if importlib.util.find_spec("onnxruntime") is None:
    warnings.warn(NO_RUNTIME, stacklevel=2)


_MODULES = frozenset(
    ["baselines", "images", "metrics", "visual"]
)  # igonnx.metrics needs no import of its own


def __getattr__(name: str) -> Any:
    """Import a public name on first use: importing igonnx alone stays light."""
    if name in _MODULES:
        return importlib.import_module(f"igonnx.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'igonnx' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
