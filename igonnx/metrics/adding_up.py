"""Whether an attribution adds up."""

from __future__ import annotations

from igonnx.attribution import Attribution
from igonnx.methods.call import Array

__all__ = ["completeness"]


def completeness(attribution: Attribution) -> Array:
    """How far the values are from adding up: |delta| as a share of |score - baseline score|, float64 [N].

    0 is exact. Where contributions cancel almost to nothing, a ten-thousandth of their absolute sum is the measure
    instead (`Attribution.relative_delta`). Methods that do not promise to add up (saliency, guided backpropagation)
    have large numbers here, which is no error of theirs.
    """
    return attribution.relative_delta
