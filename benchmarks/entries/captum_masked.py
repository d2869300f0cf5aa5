"""Captum's methods of masked inputs, on the network that the ONNX file was exported from."""

from __future__ import annotations

from typing import Any

import captum.attr
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.entries import masked
from benchmarks.materials import Material
from benchmarks.networks import build_network

__all__ = ["KernelShap", "Occlusion"]


def _network(material: Material, threads: int) -> torch.nn.Module:
    torch.set_num_threads(threads)
    network = build_network(material.model, material.size)
    network.load_state_dict(torch.load(material.weights_path, weights_only=True))
    return network


class Occlusion(masked.Occlusion):
    """Captum's Occlusion; `setting` is its perturbations_per_eval."""

    settings = (1, 4, 16)

    def __init__(self, material: Material, threads: int) -> None:
        super().__init__(material, threads)
        self._method = captum.attr.Occlusion(_network(material, threads))

    def values(self, setting: int) -> NDArray[Any]:
        """The attribution."""
        found = self._method.attribute(
            torch.from_numpy(self.material.x),
            sliding_window_shapes=masked.WINDOW,
            strides=masked.STRIDES,
            target=self.material.target,
            perturbations_per_eval=setting,
        )
        return np.asarray(found)


class KernelShap(masked.KernelShap):
    """Captum's KernelShap; `setting` is its perturbations_per_eval."""

    settings = (1, 4, 16)

    def __init__(self, material: Material, threads: int) -> None:
        super().__init__(material, threads)
        self._method = captum.attr.KernelShap(_network(material, threads))

    def values(self, setting: int) -> NDArray[Any]:
        """The attribution."""
        torch.manual_seed(0)
        found = self._method.attribute(
            torch.from_numpy(self.material.x),
            target=self.material.target,
            feature_mask=torch.from_numpy(masked.squares(self.material.x.shape[1:]))[None],
            n_samples=masked.COALITIONS,
            perturbations_per_eval=setting,
        )
        return np.asarray(found)
