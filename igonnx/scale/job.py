"""What a run explains and how: sent to every worker, and remembered in the output folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from igonnx.errors import InputError, ModelError
from igonnx.explainer import Explainer
from igonnx.images import Layout, Preprocessing
from igonnx.model import Model

__all__ = ["MAX_PIXELS", "Job", "hash_of_model"]

MAX_PIXELS = (
    100_000_000  # of one image: a file of some kilobytes may claim to be larger than memory
)


@dataclass(frozen=True)
class Job:
    """A model, a method, and how inputs are read; files are named by absolute paths that all machines share.

    model_sha256: of the model's file and the files of its weights, as `hash_of_model` has it.
    settings: arguments of `Explainer` on which its numbers depend; running: its other ones.
    method, options, baseline, target, seed: the method of `Explainer` and what it is given; `target` is one for all
    rows, None the class of the highest score. adds_up: whether its values are meant to sum to the change of the score.
    preprocessing: of the model's one image input; None: arrays only. drawn: the explained tensor that makes a picture,
    and where its channels are. labels: names of the classes. root: the folder that names of inputs are relative to.
    arrays: whether attributions are kept, or only what is told of them. overlays: whether each row gets a picture.
    batch: rows explained together. columns: for inputs of Parquet files, {input: column}.
    """

    model: Path
    model_sha256: str
    method: str
    root: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    running: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    baseline: Any = None
    target: int | tuple[int, ...] | None = None
    seed: int = 0
    adds_up: bool = True
    preprocessing: Preprocessing | None = None
    drawn: tuple[str, Layout] | None = None
    labels: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    arrays: bool = True
    overlays: bool = False
    batch: int = 32
    max_pixels: int = MAX_PIXELS

    def explainer(self) -> Explainer:
        """Open the model; raises `ModelError` where its file is not the one that the run began with."""
        model = Model.load(self.model)
        if hash_of_model(self.model, model) != self.model_sha256:
            raise ModelError(f"{self.model}: the file has changed since this run began")
        return Explainer(model, **self.settings, **self.running)

    def record(self) -> dict[str, Any]:
        """All that the results depend on, for JSON: two runs of the same record may fill one folder.

        Neither where the model and the inputs are, nor how fast it runs.
        """
        described = {
            "igonnx": version("igonnx"),
            "model": self.model_sha256,
            "method": self.method,
            "baseline": self.baseline,
            "target": self.target,
            "seed": self.seed,
            "images": self.preprocessing and repr(self.preprocessing),
            "columns": self.columns,
            "labels": self.labels and _sha256("\n".join(self.labels).encode()),
            "arrays": self.arrays,
            "overlays": self.overlays,
            "max_pixels": self.max_pixels,
            **self.settings,
            **self.options,
        }
        return {name: _plain(value) for name, value in described.items() if value is not None}


def hash_of_model(path: Path, model: Model) -> str:
    """SHA-256 of the file a model was loaded from and, in the order of their names, of the files of its weights.

    Of a model in one file it is what `sha256sum` prints. Raises `ModelError` where a file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for part in [path, *_weight_files(model)]:
            with part.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def _weight_files(model: Model) -> list[Path]:
    """The files beside a model that hold its weights."""
    from onnx_ir import ExternalTensor

    found = {
        Path(value.const_value.path)
        for value in model.ir.graph.initializers.values()
        if isinstance(value.const_value, ExternalTensor)
    }
    return sorted(found)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _plain(value: Any) -> Any:
    """The value as JSON has it; an array as its shape and the hash of its bytes."""
    if isinstance(value, np.ndarray):
        data = _sha256(np.ascontiguousarray(value).tobytes())
        return f"{value.dtype}{list(value.shape)} {data}"
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise InputError(f"{value!r} cannot be written to the record of a run")
