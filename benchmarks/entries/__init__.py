"""The entries: what is measured, by which program, with which Python.

A file of this folder is imported only by the process of its entry, in the virtual environment that has what it needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "CAPTUM",
    "ENTRIES",
    "EXPLANATIONS",
    "FORWARD",
    "IGONNX",
    "MASKED",
    "TRAINING",
    "Entry",
]

Environment = Literal["main", "training", "openvino"]


@dataclass(frozen=True)
class Entry:
    """One program to measure; `name` is its row in the tables."""

    name: str
    code: str  # module of this folder : class in it
    environment: Environment = "main"
    # Relative L2 error that is let pass where rounding is coarser than float32; None: the model's own.
    tolerance: float | None = None


FORWARD = "forward passes, onnxruntime"
IGONNX = "igonnx: Integrated Gradients"
CAPTUM = "Captum: Integrated Gradients"
TRAINING = "onnxruntime-training: gradients"
# Errors of bfloat16 are there to be reported; past this one, nothing is left of the result.
COARSE = 0.5
EXPLANATIONS = 8  # that concurrent callers share

ENTRIES = (
    Entry(FORWARD, "onnxruntime_files:ForwardPasses"),
    Entry("igonnx: gradients, native engine", "igonnx_calls:EngineGradients"),
    Entry("igonnx.gradient in onnxruntime", "onnxruntime_files:PortableGradients"),
    Entry(IGONNX, "igonnx_calls:IntegratedGradients"),
    Entry(
        "igonnx: Integrated Gradients, bfloat16",
        "igonnx_calls:IntegratedGradientsBfloat16",
        tolerance=COARSE,
    ),
    Entry(CAPTUM, "captum_calls:IntegratedGradients"),
    Entry("Captum, torch.compile", "captum_calls:CompiledIntegratedGradients"),
    Entry(TRAINING, "training_gradients:TrainingGradients", environment="training"),
    Entry("onnx-ad: gradients", "onnxruntime_files:OnnxAdGradients"),
    Entry("igonnx on OpenVINO's provider", "igonnx_calls:OpenVinoProvider", environment="openvino"),
    Entry(
        "igonnx on OpenVINO's provider, bfloat16",
        "igonnx_calls:OpenVinoProviderBfloat16",
        environment="openvino",
        tolerance=COARSE,
    ),
    Entry(
        "igonnx.gradient in OpenVINO", "openvino_files:OpenVinoGradients", environment="openvino"
    ),
    Entry(
        "igonnx.gradient in OpenVINO, bfloat16",
        "openvino_files:OpenVinoGradientsBfloat16",
        environment="openvino",
        tolerance=COARSE,
    ),
)

# Pairs of entries of masked inputs by the name of the method: igonnx's, Captum's.
MASKED = {
    "occlusion, 784 windows": (
        Entry("igonnx: occlusion", "igonnx_masked:Occlusion"),
        Entry("Captum: occlusion", "captum_masked:Occlusion"),
    ),
    # Captum's fit is bound to the change in score by a weight, not exactly.
    "KernelSHAP, 49 squares, 500 coalitions": (
        Entry("igonnx: KernelSHAP", "igonnx_masked:KernelShap", tolerance=1e-2),
        Entry("Captum: KernelSHAP", "captum_masked:KernelShap", tolerance=1e-2),
    ),
}
