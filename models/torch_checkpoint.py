"""Reads a PyTorch checkpoint of the legacy (non-zip) format without PyTorch.

The file is a series of pickles, then raw bytes: a magic number, the protocol version, facts about
the machine that wrote it, the state dict (its tensors refer to storages by key), the list of the
storage keys, and per key an int64 element count followed by the elements.

Unpickling can run any code, so the unpickler here admits three kinds of globals only, each replaced
by something inert: the ordered dictionary, the function that rebuilds a tensor, and storage types.
"""

from __future__ import annotations

import collections
import io
import math
import os
import pickle
from pathlib import Path
from typing import Any, Final, NamedTuple, Never

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import ModelError

__all__ = ["read_state_dict"]

_MAGIC_NUMBER: Final = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION: Final = 1001
_STORAGE_DTYPES: Final = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
# What unpickling raises on bytes that are no pickle or end early; the documentation of `pickle`
# leaves the list open.
_UNREADABLE: Final = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)


# Named tuples, and a callable without attributes below: a pickle can change the state of most other
# objects after they were checked, the fields of a frozen dataclass included.
class _Storage(NamedTuple):
    """The one-dimensional buffer behind tensors; its elements follow after the pickles."""

    key: str
    dtype: str
    size: int


class _Tensor(NamedTuple):
    """A strided view of a storage: offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _RebuildTensor:
    """Takes the place of `torch._utils._rebuild_tensor_v2`."""

    __slots__ = ()

    def __call__(
        self, storage: Any, offset: Any, shape: Any, strides: Any, *_gradient_facts: Any
    ) -> _Tensor:
        if not isinstance(storage, _Storage) or len(shape) != len(strides):
            raise ValueError("not a view of a storage")
        if any(not isinstance(n, int) or n < 0 for n in (offset, *shape, *strides)):
            raise ValueError("offset, sizes and strides are non-negative integers")
        return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _TensorUnpickler(pickle.Unpickler):
    """Unpickles containers, numbers, strings and tensors; refuses every other global."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the inert stand-in for a global; a ModelError names any other."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _RebuildTensor()
        if module == "torch" and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        raise ModelError(
            f"the checkpoint refers to '{module}.{name}'; only tensors and dictionaries are read"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the storage that a persistent id describes."""
        kind, dtype, key, _location, size, view = pid
        if kind != "storage" or dtype not in _STORAGE_DTYPES.values() or view is not None:
            raise ValueError("not a plain storage")
        if not isinstance(key, str) or not isinstance(size, int) or size < 0:
            raise ValueError("a storage has a string key and an element count")
        return _Storage(key, dtype, size)


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Return the tensors of a legacy-format state dict by name, in the order of the file.

    The arrays are copies, C-contiguous, in the dtypes of the file. Raises ModelError when the file
    is missing, truncated, of another format, or refers to anything but tensors.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read checkpoint '{path}': {error.strerror or error}") from error
    if data.startswith(b"PK"):
        raise ModelError(
            f"checkpoint '{path}' has PyTorch's zip format; only the legacy format is read "
            "(torch.save with _use_new_zipfile_serialization=False writes it)"
        )
    try:
        return _parse(data)
    except ModelError as error:
        raise ModelError(f"cannot read checkpoint '{path}': {error}") from None
    except _UNREADABLE as error:
        raise ModelError(
            f"cannot read checkpoint '{path}': truncated, damaged, or not a PyTorch state dict of "
            f"the legacy format ({type(error).__name__})"
        ) from error


def _parse(data: bytes) -> dict[str, NDArray[Any]]:
    """Read the pickles and the storages of a file; raises ModelError or one of _UNREADABLE."""
    stream = io.BytesIO(data)

    def load() -> Any:
        return _TensorUnpickler(stream).load()

    if load() != _MAGIC_NUMBER or load() != _PROTOCOL_VERSION:
        _refuse("not a PyTorch checkpoint of the legacy format, protocol version 1001")
    if not load()["little_endian"]:
        _refuse("it was written on a big-endian machine; only little-endian files are read")
    found = load()
    if not isinstance(found, dict):
        _refuse(f"it holds one {type(found).__name__}, expected a dictionary of tensors")
    tensors = dict(found)
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            _refuse(f"its entry {name!r} is a {type(tensor).__name__}, expected a tensor")
    storages = _read_storages(stream, load(), {t.storage.key: t.storage for t in tensors.values()})
    return {
        name: _view(name, tensor, storages[tensor.storage.key]) for name, tensor in tensors.items()
    }


def _read_storages(
    stream: io.BytesIO, keys: list[str], described: dict[str, _Storage]
) -> dict[str, NDArray[Any]]:
    """Return the storages that follow the pickles, one-dimensional, without copying."""
    buffer = stream.getbuffer()
    position = stream.tell()
    storages = {}
    for key in keys:
        storage = described[key]
        count = int.from_bytes(buffer[position : position + 8], "little")
        if count != storage.size:
            _refuse(f"truncated or damaged: storage {key} has {count} elements, not {storage.size}")
        # frombuffer raises ValueError where the file ends before the storage does.
        storages[key] = np.frombuffer(buffer, storage.dtype, count, position + 8)
        position += 8 + storages[key].nbytes
    return storages


def _view(name: str, tensor: _Tensor, storage: NDArray[Any]) -> NDArray[Any]:
    """Return the tensor as an array of its own; the view must lie inside its storage."""
    elements = math.prod(tensor.shape)
    last = tensor.offset + sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    if elements > storage.size or (elements and last >= storage.size):
        _refuse(f"tensor '{name}' of shape {list(tensor.shape)} reaches outside its storage")
    if not elements:
        return np.empty(tensor.shape, storage.dtype)
    byte_strides = [stride * storage.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(
        storage[tensor.offset :], tensor.shape, byte_strides, writeable=False
    ).copy(order="C")


def _refuse(reason: str) -> Never:
    raise ModelError(reason)
