"""Finding what registers itself by being imported."""

from __future__ import annotations

import functools
import importlib
import pkgutil

__all__ = ["import_all"]


@functools.cache
def import_all(package: str) -> None:
    """Import every module of `package`, once."""
    folder = importlib.import_module(package)
    for module in pkgutil.iter_modules(folder.__path__):
        importlib.import_module(f"{package}.{module.name}")
