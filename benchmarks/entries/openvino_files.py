"""The file that `igonnx.gradient` writes, in OpenVINO without ONNX Runtime: how portable it is."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.entries.measured import RowGradients
from benchmarks.materials import Material

__all__ = ["OpenVinoGradients", "OpenVinoGradientsBfloat16"]


class OpenVinoGradients(RowGradients):
    """In float32."""

    settings: tuple[int, ...] = (1, 2, 10)
    precision: ClassVar[str] = "f32"

    def __init__(self, material: Material, threads: int) -> None:
        super().__init__(material, threads)
        import openvino

        import igonnx

        self._core = openvino.Core()
        self._model = self._core.read_model(igonnx.gradient(material.onnx_path).SerializeToString())
        self._compiled: dict[int, Any] = {}

    def _for_rows(self, rows: int) -> Any:
        """The model compiled for a batch of `rows`: fixed shapes are its faster case."""
        if rows not in self._compiled:
            name, output = self.material.input_name, self.material.output_name
            model = self._model.clone()
            model.reshape(
                {
                    name: [rows, *self.material.x.shape[1:]],
                    f"cotangent_{output}": [rows, self.material.classes],
                }
            )
            options = {
                "INFERENCE_NUM_THREADS": self.threads,
                "INFERENCE_PRECISION_HINT": self.precision,
                "NUM_STREAMS": 1,
            }
            self._compiled[rows] = self._core.compile_model(model, "CPU", options)
        return self._compiled[rows]

    def gradients(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """OpenVINO computes every output of the file, the logits too; they cost nothing more."""
        name, output = self.material.input_name, self.material.output_name
        feeds = {name: points, f"cotangent_{output}": self.material.cotangent(len(points))}
        results = self._for_rows(len(points))(feeds)
        return np.asarray(results[f"grad_{name}"])


class OpenVinoGradientsBfloat16(OpenVinoGradients):
    """Matrix products and convolutions in bfloat16."""

    precision = "bf16"
