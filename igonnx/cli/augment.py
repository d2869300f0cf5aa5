"""`igonnx augment`: write a model that predicts and explains, as a file, for Triton, or both."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from rich.console import Console

from igonnx.augmentation.triton import MODEL_FILE, VERSION, triton_config, with_required_target
from igonnx.cli.console import note, plain_warnings, results
from igonnx.cli.labels import parse_target, read_labels
from igonnx.cli.model_files import print_interface, print_written, weight_files, write_model
from igonnx.cli.outputs import Outputs
from igonnx.errors import InputError

__all__ = ["Request", "run"]

_OF_PATHS = ("steps", "rule", "chunk")
_OF_NOISE = ("noise_samples", "noise_std", "seed")
_TAKEN = {
    "integrated_gradients": _OF_PATHS,
    "smoothgrad_ig": (*_OF_PATHS, *_OF_NOISE),
    "saliency": (),
    "input_x_gradient": (),
}


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    model: Path
    written: str | None  # the path of the file
    triton: str | None  # the folder of the model repository
    name: str | None  # of the model there
    max_batch_size: int | None
    labels: str | None
    target: str | None
    output: str | None
    wrt: Sequence[str]
    apply: str | None
    method: str  # as igonnx.augment has it
    options: Mapping[str, Any]  # of the method, by their names there; None where not given
    baseline: float
    lazy: bool
    heatmap: str | None
    heatmap_threshold: float | None
    straight_through: bool


def run(request: Request) -> None:
    """Write the files, and print what they take and give and how to run them."""
    from igonnx import augment

    _check(request)
    options = _options(request)
    with plain_warnings(), Outputs([request.model]) as outputs:
        file = None if request.written is None else Path(request.written)
        temporary = None if file is None else outputs.reserve(file, suffix=".onnx")
        repository = None if request.triton is None else _Repository(request, outputs)
        model = augment(request.model, **options)
        if file is not None and temporary is not None:
            write_model(outputs, model, file, temporary, request.model)
        if repository is not None:
            repository.write(model)
    console = results()
    served = model if repository is None or file is not None else repository.served(model)
    print_interface(console, served)
    if file is not None:
        print_written(console, file, request.model)
        for line in _python(model, file):
            console.print(f"  {line}", markup=False, soft_wrap=True)
    if repository is not None:
        repository.tell(console)


class _Repository:
    """A model in a model repository of Triton: NAME/config.pbtxt and NAME/1/model.onnx.

    A model of several files is a folder of that name, with model.onnx in it.
    """

    def __init__(self, request: Request, outputs: Outputs) -> None:
        """Make its folder, and see whether files can be written there."""
        name = request.model.stem if request.name is None else request.name
        if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
            raise InputError(
                f"'{name}' cannot be the name of a model in Triton: expected --name of letters, digits, '_', '-', '.'"
            )
        self._source = request.model
        self._outputs = outputs
        self._name = name
        self._max_batch_size = request.max_batch_size or 0
        self._root = Path(request.triton or "")
        home = self._root / name
        self._path, self._config = home / VERSION / MODEL_FILE, home / "config.pbtxt"
        outputs.make_folder(self._path.parent)
        self._temporary_config = outputs.reserve(self._config)

    def served(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The model as Triton takes it: batched, it has no default target."""
        return with_required_target(model) if self._max_batch_size else model

    def write(self, model: onnx.ModelProto) -> None:
        """Write the files."""
        served = self.served(model)
        config = triton_config(
            served,
            name=self._name,
            max_batch_size=self._max_batch_size,
            folder=self._source.resolve().parent,
        )
        self._temporary_config.write_text(config, encoding="ascii")
        if weight_files(served):
            self._outputs.make_folder(self._path)
            self._path /= MODEL_FILE
        temporary = self._outputs.reserve(self._path)
        write_model(self._outputs, served, self._path, temporary, self._source, replace=True)

    def tell(self, console: Console) -> None:
        """Say what was written, and how it is served."""
        print_written(console, self._path, self._source)
        console.print(f"wrote {self._config}", markup=False, soft_wrap=True)
        served = f"  tritonserver --model-repository={self._root.resolve()}"
        console.print(served, markup=False, soft_wrap=True)
        if self._max_batch_size:
            note("each request sends 'target', one for each example; -1 is the highest score")


def _check(request: Request) -> None:
    if request.written is None and request.triton is None:
        raise InputError("nothing to write: expected -o OUT.onnx, --triton DIR, or both")
    for option, given in (("-o", request.written), ("--triton", request.triton)):
        if given == "":
            raise InputError(f"{option} is empty, expected a path")
    if request.written is not None and request.triton is not None:
        file, root = Path(request.written).resolve(), Path(request.triton).resolve()
        if file in (root, *root.parents):
            raise InputError(
                f"-o '{request.written}' would be a file where --triton '{request.triton}' needs a folder"
            )
    if request.triton is None:
        for option, unused in (
            ("--name", request.name),
            ("--max-batch-size", request.max_batch_size),
        ):
            if unused is not None:
                raise InputError(f"{option} is for --triton, which is not given")
    if request.max_batch_size and request.lazy:
        raise InputError(
            "--max-batch-size does not go with --lazy: Triton cannot batch a model whose outputs have fewer examples "
            "than its inputs"
        )
    if request.max_batch_size and request.target is not None:
        raise InputError(
            "--max-batch-size does not go with --target: an input with a default cannot be batched in Triton, so each "
            "request sends its target"
        )
    if request.heatmap_threshold is not None and request.heatmap != "overlay":
        raise InputError("--heatmap-threshold is for --heatmap overlay")


def _options(request: Request) -> dict[str, Any]:
    """The arguments of igonnx.augment."""
    chosen = {name: value for name, value in request.options.items() if value is not None}
    taken = _TAKEN[request.method]
    for name in chosen:
        if name not in taken:
            fits = ", ".join(f"--{one}" for one in taken) or "no such option"
            message = f"--{name} is not for --method {request.method}, which takes {fits}"
            raise InputError(message.replace("_", "-"))
    if request.target is not None:
        target = parse_target(request.target, read_labels(request.labels))
        chosen["target"] = target
    if request.heatmap_threshold is not None:
        chosen["heatmap_threshold"] = request.heatmap_threshold
    return {
        **chosen,
        "method": request.method,
        "baseline": request.baseline,
        "output": request.output,
        "wrt": list(request.wrt) or None,
        "apply": request.apply,
        "lazy": request.lazy,
        "heatmap": request.heatmap,
        "straight_through": request.straight_through,
    }


def _python(model: onnx.ModelProto, path: Path) -> list[str]:
    """Three lines that run the model; the arrays are called like the inputs."""
    filled = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input]
    feeds = [f"{name!r}: {_variable(name)}" for name in names if name not in filled]
    feeds += (
        ["'explain': numpy.array([True])"] if "explain" in filled and "explain" in names else []
    )
    results_ = ", ".join(_variable(value.name) for value in model.graph.output)
    return [
        "import numpy, onnxruntime",
        f"session = onnxruntime.InferenceSession({str(path)!r})",
        f"{results_} = session.run(None, {{{', '.join(feeds)}}})",
    ]


def _variable(name: str) -> str:
    """A Python variable that reads like `name`."""
    word = re.sub(r"\W", "_", name)
    return f"_{word}" if keyword.iskeyword(word) or not word.isidentifier() else word
