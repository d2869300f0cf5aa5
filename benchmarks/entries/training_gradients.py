"""onnxruntime-training's own gradient builder, in its own runtime."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnxruntime

from benchmarks.entries.onnxruntime_files import PortableGradients

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


class TrainingGradients(PortableGradients):
    """Gradients alone: interpolation and summation are left out, in its favour."""

    settings: tuple[int, ...] = (2, 10, 25)

    def gradient_model(self) -> onnx.ModelProto:
        """The builder's gradient, with the names of `igonnx.gradient`."""
        from igonnx.autodiff import ort_training

        return ort_training.gradient(_without_batch_norms(self.material.onnx_path))
