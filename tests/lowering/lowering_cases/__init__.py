"""The case tables of the lowering tests: every module here that has a list `CASES`, found by itself."""

from __future__ import annotations

import importlib
import pkgutil

from lowering_cases.case import Case

__all__ = ["ALL", "Case"]

_NOT_TABLES = ("case", "check")

ALL: list[Case] = [
    case
    for module in pkgutil.iter_modules(__path__)
    if module.name not in _NOT_TABLES
    for case in importlib.import_module(f"{__name__}.{module.name}").CASES
]
