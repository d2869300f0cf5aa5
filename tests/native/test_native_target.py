"""The blocked layout is used only where two convolutions in it come out right."""

from __future__ import annotations

import platform

import numpy as np
import pytest

from igonnx.engine import native_target as module
from igonnx.engine.native_target import native_target
from igonnx.errors import EngineError
from igonnx.graph.native_target import NativeTarget


def test_this_machine_has_a_block_or_none() -> None:
    """The runtime has blocked convolutions for every x86-64 processor: there it would be this package that fails."""
    blocks = [8, 16] if platform.machine() in ("x86_64", "AMD64") else [1, 8, 16]
    assert native_target() in [NativeTarget(block) for block in blocks]


@pytest.mark.parametrize("arrange", ["blocked_filter", "depthwise_filter"])
def test_another_arrangement_of_weights_is_noticed(
    monkeypatch: pytest.MonkeyPatch, arrange: str
) -> None:
    if native_target().block == 1:
        pytest.skip("this runtime has no blocked layout on this processor")
    known = getattr(module, arrange)
    monkeypatch.setattr(module, arrange, lambda *args: np.flip(known(*args)).copy())
    assert native_target.__wrapped__() == NativeTarget()


def test_a_runtime_without_the_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise EngineError("no such operator")

    monkeypatch.setattr(module, "RuntimeSession", refuse)
    assert native_target.__wrapped__() == NativeTarget()
