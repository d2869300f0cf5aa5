"""Writing models: the file, the files of its weights beside it, and what is said of them."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import Message
from onnx.external_data_helper import ExternalDataInfo, uses_external_data
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from igonnx.cli.outputs import Outputs
from igonnx.errors import InputError, ModelError
from igonnx.images import format_shape

__all__ = ["print_interface", "print_written", "weight_files", "write_model"]


def weight_files(model: onnx.ModelProto) -> list[str]:
    """Where the model's external data lies, relative to the model: each file once, in order."""
    found = {
        ExternalDataInfo(tensor).location: None
        for tensor in _tensors(model.graph)
        if uses_external_data(tensor)
    }
    return list(found)


def write_model(
    outputs: Outputs,
    model: onnx.ModelProto,
    path: Path,
    temporary: Path,
    source: Path,
    *,
    replace: bool = False,
) -> None:
    """Write `model`, made from the file `source`, to `temporary`, and copy its weight files beside `path`.

    `path` is where the model will be; weight files that are there already stay. Raises `InputError` where others of
    the same names are, unless `replace`, and `ModelError` for a model over 2 GB.
    """
    try:
        temporary.write_bytes(model.SerializeToString())
    except ValueError as error:
        raise ModelError(
            f"'{path}' would be over 2 GB: save {source.name} with external data first"
        ) from error
    for location in weight_files(model):
        there, here = source.parent / location, path.parent / location
        if here.exists():
            if here.samefile(there) or filecmp.cmp(there, here, shallow=False):
                continue
            if not replace:
                raise InputError(
                    f"cannot write '{path}': its weights '{location}' belong beside it, where another file of that "
                    "name is: expected another folder"
                )
        outputs.make_folder(here.parent)
        shutil.copyfile(there, outputs.reserve(here))


def print_written(console: Console, path: Path, source: Path) -> None:
    """Print the path of a model, its size, and by how much it is larger than the file it was made from.

    Weight files, which both have, count for both.
    """
    sizes = []
    for file in (path, source):
        weights = weight_files(onnx.load(file, load_external_data=False))
        files = [file, *(file.parent / location for location in weights)]
        sizes.append(sum(one.stat().st_size for one in files))
    more = sizes[0] / sizes[1] - 1
    grown = f"{abs(more):.1%} {'larger' if more >= 0 else 'smaller'} than {source.name}"
    text = f"wrote {path}: {sizes[0] / 1e6:,.2f} MB, {grown}"
    console.print(text, markup=False, soft_wrap=True)


def print_interface(console: Console, model: onnx.ModelProto) -> None:
    """Print the inputs and outputs; of an input with a default, that it may be left out."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "name", "type", "shape", ""):
        table.add_column(heading, overflow="fold")
    filled = {tensor.name for tensor in model.graph.initializer}
    for kind, values in (("input", model.graph.input), ("output", model.graph.output)):
        for value in values:
            tensor = value.type.tensor_type
            dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
            dtype = _PLAIN_NAMES.get(dtype, dtype)
            axes = [
                axis.dim_value if axis.HasField("dim_value") else axis.dim_param or None
                for axis in tensor.shape.dim
            ]
            left_out = "optional" if kind == "input" and value.name in filled else ""
            table.add_row(*map(Text, (kind, value.name, dtype, format_shape(axes), left_out)))
    console.print(table)


_HOLDERS = frozenset(
    ["GraphProto", "NodeProto", "AttributeProto", "TensorProto", "SparseTensorProto"]
)
_PLAIN_NAMES = {"float": "float32", "double": "float64"}


def _tensors(message: Message) -> Iterator[onnx.TensorProto]:
    """Every tensor in a graph: its initializers, its nodes' attributes, and those of graphs in it."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.name not in _HOLDERS:
            continue
        for inner in value if isinstance(value, Sequence) else [value]:
            yield from _tensors(inner)
