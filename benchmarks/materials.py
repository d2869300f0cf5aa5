"""What the entries of one model are fed with: the ONNX file, the network's weights, an input, and the right answer.

    python -m benchmarks.materials --model resnet-50 --size 224 --steps 50 --folder FOLDER

writes it all to FOLDER; this needs PyTorch. Everybody else reads it with `Material`, which needs only NumPy. The
answer is Integrated Gradients in float64 from PyTorch's automatic differentiation, with Gauss-Legendre nodes. Entries
compute in float32, and where an activation bends there (ReLU), rounding may choose the other side: `tolerance` says how
far they may be off.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FORMAT", "MODELS", "Material", "prepare"]

MODELS = ("efficientnet-lite0", "mobilenet-v2", "resnet-50", "vit-s16", "bert-base")
_SMOOTH = ("vit-s16", "bert-base")
FORMAT = 2  # of the files in the folder: raise it when the networks or the files change
_ROWS_IN_DOUBLE = 5


@dataclass(frozen=True)
class Material:
    """The files of one model in `folder`, for explanations with `steps` steps."""

    folder: Path
    model: str
    size: int
    steps: int

    @property
    def onnx_path(self) -> Path:
        """The model, float32, with a symbolic batch axis."""
        return self.folder / "model.onnx"

    @property
    def weights_path(self) -> Path:
        """The network's state_dict."""
        return self.folder / "weights.pt"

    @property
    def answer_path(self) -> Path:
        """Input and right answer, NumPy's npz."""
        return self.folder / f"answer-{self.steps}.npz"

    @property
    def about_path(self) -> Path:
        """Names of the model's input and output, and the format of the folder."""
        return self.folder / "about.json"

    @property
    def is_ready(self) -> bool:
        """Whether the folder holds all of it, in today's format."""
        files = (self.onnx_path, self.weights_path, self.answer_path, self.about_path)
        return all(path.exists() for path in files) and self._about["format"] == FORMAT

    @cached_property
    def _about(self) -> dict[str, Any]:
        return dict(json.loads(self.about_path.read_text()))

    @cached_property
    def _answer(self) -> dict[str, NDArray[Any]]:
        with np.load(self.answer_path) as file:
            return dict(file)

    @property
    def input_name(self) -> str:
        """Name of the model's only input."""
        return str(self._about["input"])

    @property
    def output_name(self) -> str:
        """Name of the model's only output, the logits."""
        return str(self._about["output"])

    @property
    def x(self) -> NDArray[np.float32]:
        """The explained example, [1, ...]; the baseline is zero."""
        return self._answer["x"]

    @property
    def target(self) -> int:
        """The class that is explained: the largest logit."""
        return int(self._answer["target"])

    @property
    def classes(self) -> int:
        """Number of logits."""
        return int(self._answer["classes"])

    @property
    def weights(self) -> NDArray[np.float64]:
        """Weights of the nodes, [steps], with sum 1."""
        return self._answer["weights"]

    @property
    def scores(self) -> NDArray[np.float64]:
        """The target's logit at each node, [steps], in float64."""
        return self._answer["scores"]

    @property
    def attribution(self) -> NDArray[np.float64]:
        """Integrated Gradients, [1, ...], in float64."""
        return self._answer["attribution"]

    @cached_property
    def points(self) -> NDArray[np.float32]:
        """The example on its path from the baseline, one row per node: [steps, ...]."""
        alpha = self._answer["alpha"].reshape(-1, *[1] * (self.x.ndim - 1))
        return np.ascontiguousarray(alpha * self.x, dtype=np.float32)

    def cotangent(self, rows: int) -> NDArray[np.float32]:
        """One-hot rows that select the target: [rows, classes]."""
        result = np.zeros((rows, self.classes), np.float32)
        result[:, self.target] = 1
        return result

    @property
    def tolerance(self) -> float:
        """Largest relative L2 error of an attribution in float32."""
        return 1e-3 if self.model in _SMOOTH else 3e-2

    @property
    def score_tolerance(self) -> float:
        """Largest error of a logit in float32, relative to the largest of `scores`."""
        return 1e-3


def nodes_and_weights(steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gauss-Legendre on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return (nodes + 1) / 2, weights / 2


def prepare(material: Material) -> None:
    """Write the files of `material`."""
    import torch

    from benchmarks.networks import build_network, input_shape

    material.folder.mkdir(parents=True, exist_ok=True)
    network = build_network(material.model, material.size)
    torch.save(network.state_dict(), material.weights_path)
    shape = input_shape(material.model, material.size)
    x = torch.tensor(np.random.default_rng(0).standard_normal((1, *shape)), dtype=torch.float32)
    about = _export(material, network, x)
    _write_answer(material, network.double(), x)
    material.about_path.write_text(json.dumps({"format": FORMAT, **about}))


def _export(material: Material, network: Any, x: Any) -> dict[str, str]:
    """Write the ONNX file; returns the names of its input and output."""
    if material.model == "efficientnet-lite0":
        import onnx

        from igonnx.models import efficientnet_lite0

        onnx.save(efficientnet_lite0.build(material.size), material.onnx_path)
        return {"input": "images", "output": "logits"}
    import torch

    # Two rows: the exporter takes an axis of length one for a constant.
    program = torch.onnx.export(
        network,
        (torch.cat([x, x]),),
        input_names=["x"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
        opset_version=18,
        dynamo=True,
        verbose=False,
    )
    program.save(material.onnx_path, external_data=False)
    return {"input": "x", "output": "logits"}


def _write_answer(material: Material, network: Any, x: Any) -> None:
    """Integrated Gradients of `network`, in double precision, at `x`."""
    import torch

    alpha, weights = nodes_and_weights(material.steps)
    x = x.double()
    with torch.no_grad():
        logits = network(x)
    target = int(logits.argmax())
    total, scores = torch.zeros_like(x), []
    for start in range(0, material.steps, _ROWS_IN_DOUBLE):
        rows = slice(start, start + _ROWS_IN_DOUBLE)
        ends = torch.tensor(alpha[rows]).reshape(-1, *[1] * (x.ndim - 1))
        # The points that the entries get are float32.
        points = (ends * x).float().double().requires_grad_()
        score = network(points)[:, target]
        (gradients,) = torch.autograd.grad(score.sum(), points)
        total += torch.tensordot(torch.tensor(weights[rows]), gradients, 1)[None]
        scores.append(score.detach().numpy())
    np.savez(
        material.answer_path,
        x=x.float().numpy(),
        target=target,
        classes=logits.shape[1],
        alpha=alpha,
        weights=weights,
        scores=np.concatenate(scores),
        attribution=(x * total).numpy(),
    )


def main() -> None:
    """Prepare one model, as the module's text shows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    prepare(Material(given.folder, given.model, given.size, given.steps))


if __name__ == "__main__":
    main()
