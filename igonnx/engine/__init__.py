"""Runs a row plan over an explanation graph.

`native` is the engine in C++ (`igonnx._core`); `reference` is NumPy and one session, and the oracle
that the native engine is tested against. Both take and give what `plan` describes.
"""

from __future__ import annotations

from igonnx.engine.plan import Engine, Requests, RowPlan, RowResult

__all__ = ["Engine", "Requests", "RowPlan", "RowResult"]
