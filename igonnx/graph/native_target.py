"""What the runtime at hand offers beyond standard operators."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NativeTarget"]


@dataclass(frozen=True)
class NativeTarget:
    """The CPU of this machine, in a runtime that has the plugin's operators (domain ai.igonnx).

    `block` is how many channels ONNX Runtime's blocked convolution layout keeps together (16 with AVX-512, 8 with
    AVX2); 1 where it has no such layout.
    """

    block: int = 1
