"""Slice, TopK and Scatter."""

from __future__ import annotations

from igonnx.upgrade.adapter import Adaptation, adapter


@adapter("Slice", version=10)
def slice_bounds(a: Adaptation) -> None:
    """Before 10, bounds and axes were attributes."""
    starts, ends, axes = a.take("starts", ()), a.take("ends", ()), a.take("axes")
    a.set_inputs(
        a.input(0),
        a.integers(list(starts)),
        a.integers(list(ends)),
        a.integers(list(axes)) if axes else None,
    )


@adapter("TopK", version=10)
def top_k(a: Adaptation) -> None:
    """Before 10, k was an attribute."""
    a.set_inputs(a.input(0), a.integers([a.take("k")]))


@adapter("Scatter", version=11)
def scatter(a: Adaptation) -> None:
    """Since 11, Scatter is called ScatterElements."""
    a.node.op_type = "ScatterElements"
