"""igonnx's methods of masked inputs, by its public calls."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import igonnx
from benchmarks.entries import masked
from benchmarks.materials import Material

__all__ = ["KernelShap", "Occlusion"]


class Occlusion(masked.Occlusion):
    """The whole call; how many rows to run at once is tried out in the first one."""

    def __init__(self, material: Material, threads: int) -> None:
        super().__init__(material, threads)
        self._explainer = igonnx.Explainer(material.onnx_path, threads=threads)

    def values(self, setting: int) -> NDArray[Any]:  # noqa: ARG002  # the explainer chooses
        """The attribution."""
        found = self._explainer.occlusion(
            self.material.x,
            target=self.material.target,
            window=masked.WINDOW,
            strides=masked.STRIDES,
        )
        return np.asarray(found.values)


class KernelShap(masked.KernelShap):
    """The whole call."""

    def __init__(self, material: Material, threads: int) -> None:
        super().__init__(material, threads)
        self._explainer = igonnx.Explainer(material.onnx_path, threads=threads)

    def values(self, setting: int) -> NDArray[Any]:  # noqa: ARG002
        """The attribution."""
        found = self._explainer.kernel_shap(
            self.material.x,
            target=self.material.target,
            feature_mask=masked.squares(self.material.x.shape[1:]),
            samples=masked.COALITIONS,
        )
        return np.asarray(found.values)
