"""ONNX files in stock ONNX Runtime: the model, its gradient by igonnx, its gradient by onnx-ad."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.entries.measured import Measured, RowGradients
from benchmarks.materials import Material

__all__ = ["ForwardPasses", "OnnxAdGradients", "PortableGradients", "open_session"]


def open_session(model: str | bytes, threads: int):  # type: ignore[no-untyped-def]  # onnxruntime has no types
    """A session on the CPU with `threads` threads, everything else as it comes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class ForwardPasses(Measured):
    """The model's logits at every point of the path: the unit that everything is measured in."""

    settings: tuple[int, ...] = (1, 2, 4, 10, 25)

    def __init__(self, material: Material, threads: int) -> None:
        super().__init__(material, threads)
        self._session = open_session(str(material.onnx_path), threads)

    def _logits(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        (logits,) = self._session.run(None, {self.material.input_name: points})
        return np.asarray(logits)

    def run(self, setting: int) -> None:
        """All forward passes of the path."""
        for rows in self.batches(setting):
            self._logits(self.material.points[rows])

    def error(self, setting: int) -> float:
        """The largest error of the target's logit, relative to the largest such logit."""
        parts = [
            self._logits(self.material.points[rows])[:, self.material.target]
            for rows in self.batches(setting)
        ]
        right = self.material.scores
        return float(np.abs(np.concatenate(parts) - right).max() / np.abs(right).max())


class PortableGradients(RowGradients):
    """`igonnx.gradient`: a file of standard operators."""

    def __init__(self, material: Material, threads: int) -> None:
        super().__init__(material, threads)
        self._session = open_session(self.gradient_model().SerializeToString(), threads)

    def gradient_model(self) -> onnx.ModelProto:
        """The model's gradient as a model."""
        import igonnx

        return igonnx.gradient(self.material.onnx_path)

    def gradients(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Only the gradient is fetched."""
        name, output = self.material.input_name, self.material.output_name
        feeds = {name: points, f"cotangent_{output}": self.material.cotangent(len(points))}
        (gradients,) = self._session.run([f"grad_{name}"], feeds)
        return np.asarray(gradients)


class OnnxAdGradients(RowGradients):
    """onnx-ad's reverse mode; it takes few models with a symbolic batch, so the batch is fixed at one row."""

    settings: tuple[int, ...] = (1,)

    def __init__(self, material: Material, threads: int) -> None:
        super().__init__(material, threads)
        import onnx_ad
        from onnx.tools.update_model_dims import update_inputs_outputs_dims

        model = onnx.load(material.onnx_path)
        names = (material.input_name, material.output_name)
        inputs = {names[0]: [1, *material.x.shape[1:]]}
        fixed = update_inputs_outputs_dims(model, inputs, {names[1]: [1, material.classes]})
        del fixed.graph.value_info[:]
        fixed = onnx.shape_inference.infer_shapes(fixed)
        model = onnx_ad.reverse(fixed, layout="onnx")
        self._session = open_session(model.SerializeToString(), threads)

    def gradients(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """One direction: seeds and results have an axis of length one at the end."""
        name, output = self.material.input_name, self.material.output_name
        feeds = {name: points, f"adj_{output}": self.material.cotangent(len(points))[..., None]}
        (gradients,) = self._session.run([f"adj_{name}"], feeds)
        return np.asarray(gradients)[..., 0]
