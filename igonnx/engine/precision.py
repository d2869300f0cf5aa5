"""Less than float32 for the products of an explanation: what may be asked for, and oneDNN, which computes them."""

from __future__ import annotations

import importlib.metadata

from igonnx import _core
from igonnx.engine.runtime import CPU, Providers, on_cpu, requested_providers
from igonnx.errors import InputError

__all__ = ["BFLOAT16", "require_precision"]

BFLOAT16 = "bfloat16"

# Intel's build for CPUs, which needs no other package: the extra igonnx[bfloat16].
_PACKAGE = "onednn-cpu-gomp"
_LIBRARY = "libdnnl.so.3"


def require_precision(precision: str | None, engine: str, providers: Providers) -> None:
    """Make sure that `precision` (None: the model's own) can be had from `engine` on `providers`.

    Raises:
        InputError: not a precision, or not one for this engine or these providers.
        EngineError: oneDNN is missing, or the processor has no products in bfloat16.

    """
    if precision is None:
        return
    if precision != BFLOAT16:
        raise InputError(f"precision is {precision!r}; expected {BFLOAT16!r} or None")
    if engine != "native":
        raise InputError(f"precision {precision!r} needs the engine 'native'; engine is {engine!r}")
    if not on_cpu(providers):
        names = [name for name, _ in requested_providers(providers)]
        raise InputError(
            f"precision {precision!r} is for {CPU!r} alone; providers are {', '.join(map(repr, names))}"
        )
    _core.load_onednn(_packaged_library() or _LIBRARY)


def _packaged_library() -> str | None:
    """Where the package's library lies; None without the package: the system may have one."""
    try:
        files = importlib.metadata.files(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((str(file.locate()) for file in files if file.name == _LIBRARY), None)
