"""The configuration by which Triton Inference Server serves a model, through its ONNX Runtime backend.

What the backend checks when it loads a model (ValidateInputs, ValidateOutputs and CompareDimsSupported in
https://github.com/triton-inference-server/onnxruntime_backend/blob/main/src/onnxruntime.cc) decides what is written:

- An input that has a default must be `optional`, and that only in a model that Triton does not batch
  (`max_batch_size: 0`); requests then are run one by one, each with as many examples as it holds.
- In a model that Triton batches, every input and output has the examples along its first axis, which `dims` leave out.
  An input with a default cannot be named. So `target` loses its default there, and each request sends it.
- `dims` of outputs must be those that the runtime infers, which may know more than the file says. So they are asked of
  a session. Were they left out, the backend would fill in a `max_batch_size` of its own.
- Triton knows no tensors without axes. In a model that it batches, [N] is `dims: [ 1 ]` with an empty `reshape`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from igonnx.checks import require_whole
from igonnx.engine.runtime import Declared, RuntimeSession
from igonnx.errors import InputError

__all__ = ["MODEL_FILE", "VERSION", "triton_config", "with_required_target"]

MODEL_FILE = "model.onnx"
VERSION = "1"
TARGET, EXPLAIN = "target", "explain"

_TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "float": "TYPE_FP32",
    "double": "TYPE_FP64",
    "string": "TYPE_STRING",
}


@dataclass(frozen=True)
class _Batch:
    """How Triton puts the examples of several requests together; a size of 0: it does not."""

    size: int
    inner_symbols: frozenset[str]  # of axes that do not count examples


def with_required_target(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of an augmented model in which `target` has no default: it must be fed, one for each example."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [tensor for tensor in copy.graph.initializer if tensor.name != TARGET]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(kept)
    return copy


def triton_config(
    model: onnx.ModelProto, *, name: str, max_batch_size: int = 0, folder: Path | None = None
) -> str:
    """Write the text of `config.pbtxt` for `model`, which will lie beside it as `1/model.onnx`.

    A model with external data lies in a folder of that name, as `1/model.onnx/model.onnx`, with its files
    (https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_repository.md#onnx-models).

    Args:
        model: any model of tensors; of an augmented one, inputs with a default become optional.
        name: what Triton calls the model: the name of the folder that holds the configuration.
        max_batch_size: 0, each request is run by itself; else Triton puts up to so many examples of several requests
            together, and inputs with a default keep it. See `with_required_target`.
        folder: where the model's external data lies.

    Raises:
        InputError: Triton cannot batch this model, or not take it at all.
        EngineError: ONNX Runtime is missing, or cannot load the model.

    """
    require_whole("max_batch_size", max_batch_size, 0, 2**31 - 1)
    session = RuntimeSession(_serialized(model, name), name=name, folder=folder)
    inputs = session.declared("inputs")
    optional = session.declared("overridable_initializers")
    if max_batch_size and any(tensor.name == EXPLAIN for tensor in optional):
        raise InputError(
            "Triton cannot batch a model that explains only when asked: its outputs have fewer examples than its "
            "inputs where it is not asked; expected lazy=False, or a max_batch_size of 0"
        )
    later = {axis for tensor in inputs for axis in tensor.shape[1:] if isinstance(axis, str)}
    batch = _Batch(max_batch_size, frozenset(later))
    lines = [
        f"name: {_quoted(name)}",
        'backend: "onnxruntime"',
        f"default_model_filename: {_quoted(MODEL_FILE)}",
        f"max_batch_size: {max_batch_size}",
    ]
    taken = [_entry("input", tensor, batch) for tensor in inputs]
    may_be_taken = [_entry("input", tensor, batch, optional=True) for tensor in optional]
    lines += _list("input", taken if max_batch_size else taken + may_be_taken)
    given = [_entry("output", tensor, batch) for tensor in session.declared("outputs")]
    lines += _list("output", given)
    if max_batch_size > 1:
        lines.append("dynamic_batching { }")
    return "\n".join(lines) + "\n"


def _entry(kind: str, tensor: Declared, batch: _Batch, *, optional: bool = False) -> list[str]:
    """The fields of an input or output."""
    dims = [axis if isinstance(axis, int) else -1 for axis in tensor.shape]
    reshape = []
    if batch.size and not optional:
        first = tensor.shape[0] if tensor.shape else 1
        if isinstance(first, int) or first in batch.inner_symbols:
            axes = ", ".join("?" if axis is None else str(axis) for axis in tensor.shape)
            raise InputError(
                f"Triton cannot batch this model: {kind} {tensor.name!r} [{axes}] does not count examples along its "
                "first axis; expected a max_batch_size of 0"
            )
        dims = dims[1:]
        reshape = [] if dims else ["reshape: { shape: [ ] }"]
    if 0 in dims:
        raise InputError(
            f"{kind} {tensor.name!r} has an axis of size 0, which Triton does not know"
        )
    return [
        f"name: {_quoted(tensor.name)}",
        f"data_type: {_type(kind, tensor)}",
        f"dims: [ {', '.join(map(str, dims or [1]))} ]",
        *reshape,
        *(["optional: true"] if optional else []),
    ]


def _type(kind: str, tensor: Declared) -> str:
    element = tensor.type.removeprefix("tensor(").removesuffix(")")
    if not tensor.type.startswith("tensor(") or element not in _TYPES:
        raise InputError(
            f"{kind} {tensor.name!r} is {tensor.type}, which Triton does not serve; expected tensors of "
            + ", ".join(_TYPES)
        )
    return _TYPES[element]


def _list(field: str, entries: Sequence[Sequence[str]]) -> list[str]:
    """A repeated message in protobuf's text format."""
    if not entries:
        return []
    blocks = ["  {\n" + "".join(f"    {line}\n" for line in entry) + "  }" for entry in entries]
    return [f"{field} [", ",\n".join(blocks), "]"]


def _quoted(text: str) -> str:
    """A string in protobuf's text format: what is not printable ASCII is written as the octal codes of its bytes."""
    plain = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\' else f"\\{byte:03o}"
        for byte in text.encode()
    )
    return f'"{plain}"'


def _serialized(model: onnx.ModelProto, name: str) -> bytes:
    try:
        return model.SerializeToString()
    except ValueError as error:
        raise InputError(
            f"{name}: the model is over 2 GB with the weights inside: save it with external data first"
        ) from error
