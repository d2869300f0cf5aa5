"""igonnx by its public calls."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import igonnx
from benchmarks.entries.measured import Measured
from benchmarks.materials import Material

__all__ = [
    "EngineGradients",
    "IntegratedGradients",
    "IntegratedGradientsBfloat16",
    "OpenVinoProvider",
    "OpenVinoProviderBfloat16",
]

_WARM_UP = 3  # calls, in which the explainer may still try how many rows at once are best


class IntegratedGradients(Measured):
    """The whole call: forward pass, gradients at the nodes, the scores at both ends, and the result's arithmetic."""

    arguments: Mapping[str, Any] = MappingProxyType({})  # further ones of the explainer

    def __init__(self, material: Material, threads: int) -> None:
        super().__init__(material, threads)
        self._explainer = igonnx.Explainer(material.onnx_path, threads=threads, **self.arguments)
        for _ in range(_WARM_UP):
            self._explain(material.steps)

    def _explain(self, steps: int) -> igonnx.Attribution:
        return self._explainer.integrated_gradients(
            self.material.x, target=self.material.target, steps=steps, rule="gauss_legendre"
        )

    def run(self, setting: int) -> None:  # noqa: ARG002  # the explainer chooses
        """One explanation."""
        self._explain(self.material.steps)

    def error(self, setting: int) -> float:  # noqa: ARG002
        """The attribution's error."""
        values = self._explain(self.material.steps).values
        if isinstance(values, Mapping):
            (values,) = values.values()
        return self.attribution_error(values)


class IntegratedGradientsBfloat16(IntegratedGradients):
    """The same with matrix products in bfloat16."""

    arguments = MappingProxyType({"precision": "bfloat16"})


class EngineGradients(IntegratedGradients):
    """Gradients alone: what an explanation costs beyond one with a single step, scaled to as many as the others'."""

    def seconds(self, setting: int) -> float:
        """The difference, times steps / (steps - 1)."""
        steps = self.material.steps
        start = time.perf_counter()
        self._explain(1)
        between = time.perf_counter()
        self.run(setting)
        end = time.perf_counter()
        return ((end - between) - (between - start)) * steps / (steps - 1)


class OpenVinoProvider(IntegratedGradients):
    """igonnx inside another execution provider, in float32."""

    precision: ClassVar[str] = "f32"

    def __init__(self, material: Material, threads: int) -> None:
        properties = {
            "INFERENCE_PRECISION_HINT": self.precision,
            "INFERENCE_NUM_THREADS": str(threads),
        }
        options = {"device_type": "CPU", "load_config": json.dumps({"CPU": properties})}
        self.arguments = {"providers": [("OpenVINOExecutionProvider", options)]}
        super().__init__(material, threads)


class OpenVinoProviderBfloat16(OpenVinoProvider):
    """Matrix products and convolutions in bfloat16."""

    precision = "bf16"
