"""Weights in files beside a model: only files in the model's own folder, and only what they really hold.

What a model file says of such places is the word of a stranger. ONNX's checker looks at them too, but not in models
that it sees only in part, nor in those over 2 GB, and of bytes it takes the working directory for their folder.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from igonnx.errors import ModelError

__all__ = ["require_own_files"]


def require_own_files(proto: onnx.ModelProto, folder: Path | None, name: str) -> None:
    """Refuse tensors whose data are not within regular files in `folder`, its own folders included.

    `folder` is None where a model comes without one, as bytes do. Nothing is read. Raises `ModelError`, naming the
    model by `name` and the tensor.
    """
    for tensor in _tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            told = f"{name}: not a valid ONNX model: tensor {tensor.name[:200]!r}"
            _require_held(tensor, folder, told)


def _require_held(tensor: onnx.TensorProto, folder: Path | None, told: str) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    shown = f"{told} has its data in the file {location[:200]!r}"
    # Protobuf hands out as bytes what is not UTF-8.
    if not isinstance(location, str) or not location or "\0" in location:
        raise ModelError(f"{told} has its data in a file that is not named")
    if folder is None:
        raise ModelError(
            f"{shown}, but bytes and protobufs have no folder: pass the path of the model, or load its external data"
        )
    if "\\" in location or Path(location).is_absolute() or ".." in Path(location).parts:
        raise ModelError(f"{shown}; expected a path below the folder of the model")
    try:
        file = (folder / location).resolve(strict=True)
        status = file.stat()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, up to Python 3.12
        raise ModelError(f"{shown}, which cannot be found") from error
    if not file.is_relative_to(folder.resolve()):
        raise ModelError(f"{shown}, a link that leads out of the folder of the model")
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{shown}, which is no regular file")
    offset, length = _whole(entries, "offset", shown), _whole(entries, "length", shown)
    needed = _needed_bytes(tensor)
    if "length" not in entries:
        length = needed
    if offset + max(length, needed) > status.st_size or ("length" in entries and length < needed):
        raise ModelError(
            f"{shown}, {needed:,} bytes from {offset:,} on, of which there are not as many"
        )


def _whole(entries: dict[str, str], key: str, shown: str) -> int:
    text = entries.get(key, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ModelError(f"{shown} with the {key} {text[:40]!r}; expected a number of bytes")
    return int(text)


def _needed_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes of the data; 0 where dtype or shape make no sense, which the checker says better."""
    if any(length < 0 for length in tensor.dims):
        return 0
    try:
        bits = ir.DataType(tensor.data_type).bitwidth
    except (ValueError, TypeError):
        return 0
    return (math.prod(tensor.dims) * bits + 7) // 8


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of the model, wherever it hides."""
    holders: list[onnx.GraphProto | onnx.FunctionProto] = [proto.graph, *proto.functions]
    for training in proto.training_info:
        holders += [training.initialization, training.algorithm]
    while holders:
        holder = holders.pop()
        if isinstance(holder, onnx.GraphProto):
            yield from holder.initializer
            for sparse in holder.sparse_initializer:
                yield from (sparse.values, sparse.indices)
        attributes = [attribute for node in holder.node for attribute in node.attribute]
        if isinstance(holder, onnx.FunctionProto):
            attributes += holder.attribute_proto
        for attribute in attributes:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in [attribute.sparse_tensor, *attribute.sparse_tensors]:
                yield from (sparse.values, sparse.indices)
            if attribute.HasField("g"):
                holders.append(attribute.g)
            holders += attribute.graphs
