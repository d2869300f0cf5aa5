"""onnxruntime-training's own gradient builder, in its own runtime."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from benchmarks.entries.measured import RowGradients
from benchmarks.entries.onnxruntime_files import open_session
from benchmarks.materials import Material

__all__ = ["TrainingGradients"]


def _without_batch_norms(path: Path) -> onnx.ModelProto:
    """The model at `path`, its batch normalisations folded into convolutions by ONNX Runtime where it has any.

    The builder has no gradient for them.
    """
    model = onnx.load(path)
    if not any(node.op_type == "BatchNormalization" for node in model.graph.node):
        return model
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


class TrainingGradients(RowGradients):
    """Gradients alone: interpolation and summation are left out, in its favour."""

    settings: tuple[int, ...] = (2, 10, 25)

    def __init__(self, material: Material, threads: int) -> None:
        super().__init__(material, threads)
        from igonnx.autodiff import ort_training

        model = ort_training.gradient(_without_batch_norms(material.onnx_path))
        self._session = open_session(model.SerializeToString(), threads)

    def gradients(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Only the gradient is fetched."""
        name, output = self.material.input_name, self.material.output_name
        feeds = {name: points, f"cotangent_{output}": self.material.cotangent(len(points))}
        (gradients,) = self._session.run([f"grad_{name}"], feeds)
        return np.asarray(gradients)
