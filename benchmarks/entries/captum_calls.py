"""Captum on the network that the ONNX file was exported from."""

from __future__ import annotations

import captum.attr
import torch

from benchmarks.entries.measured import Measured
from benchmarks.materials import Material
from benchmarks.networks import build_network

__all__ = ["CompiledIntegratedGradients", "IntegratedGradients"]


class IntegratedGradients(Measured):
    """Captum's Integrated Gradients, parameters without gradients; `setting` is its internal_batch_size."""

    settings: tuple[int, ...] = (2, 5, 10, 25, 50)

    def __init__(self, material: Material, threads: int) -> None:
        super().__init__(material, threads)
        torch.set_num_threads(threads)
        network = build_network(material.model, material.size)
        network.load_state_dict(torch.load(material.weights_path, weights_only=True))
        self._x = torch.from_numpy(material.x)
        self._method = captum.attr.IntegratedGradients(self._prepared(network))

    def _prepared(self, network: torch.nn.Module) -> torch.nn.Module:
        return network

    def attribute(self, batch_size: int, steps: int) -> torch.Tensor:
        """Attributions of the material's example, [1, ...]."""
        return self._method.attribute(
            self._x,
            target=self.material.target,
            n_steps=steps,
            method="gausslegendre",
            internal_batch_size=batch_size,
        )

    def run(self, setting: int) -> None:
        """One attribution."""
        self.attribute(setting, self.material.steps)

    def error(self, setting: int) -> float:
        """The attribution's error."""
        return self.attribution_error(self.attribute(setting, self.material.steps).detach().numpy())


class CompiledIntegratedGradients(IntegratedGradients):
    """The same on torch.compile'd forward and backward passes."""

    settings: tuple[int, ...] = (10,)  # each takes minutes to compile

    def _prepared(self, network: torch.nn.Module) -> torch.nn.Module:
        compiled: torch.nn.Module = torch.compile(network, dynamic=False)
        return compiled
