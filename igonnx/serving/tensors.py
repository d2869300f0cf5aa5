"""Tensors as the V2 protocol has them, in and out: JSON lists, binary parts behind the JSON, gRPC's raw contents."""

from __future__ import annotations

import base64
import math
import struct
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import InputError

__all__ = ["datatype_of", "json_tensor", "raw_bytes", "read_tensor"]

_DATATYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}
_NAMES = {dtype: name for name, dtype in _DATATYPES.items()}
_MOST_AXES = 16


def read_tensor(name: Any, datatype: Any, shape: Any, data: Any, raw: bytes | None) -> NDArray[Any]:
    """One input as an array; BYTES are an array of `bytes` objects.

    `raw` are its elements, little-endian and in C order (of BYTES each behind its length, uint32); without it `data` is
    a list, flat or nested. Raises `InputError` where the parts do not fit each other.
    """
    what = f"input {name!r}"[:100]
    if not isinstance(name, str) or not name:
        raise InputError("an input has no name")
    if not isinstance(datatype, str) or datatype.upper() not in _DATATYPES:
        raise InputError(
            f"{what} has the datatype {str(datatype)[:20]!r}; expected {', '.join(_DATATYPES)}"
        )
    dtype = np.dtype(_DATATYPES[datatype.upper()])
    if (
        not isinstance(shape, Sequence)
        or len(shape) > _MOST_AXES
        or not all(map(_is_length, shape))
    ):
        raise InputError(f"{what} has no shape of at most {_MOST_AXES} whole numbers")
    size = math.prod(shape)
    flat = _from_raw(raw, dtype, what) if raw is not None else _from_list(data, dtype, what)
    if flat.size != size:
        raise InputError(f"{what} holds {flat.size} elements; its shape {list(shape)} has {size}")
    return flat.reshape(tuple(shape))


def datatype_of(array: NDArray[Any]) -> str:
    """V2's name of an array's dtype."""
    return _NAMES["object" if array.dtype.kind in "OSU" else array.dtype.name]


def raw_bytes(array: NDArray[Any]) -> bytes:
    """The elements as V2 has them in binary."""
    if array.dtype != object:
        return (array if sys.byteorder == "little" else array.byteswap()).tobytes()
    parts = [one if isinstance(one, bytes) else str(one).encode() for one in array.flat]
    return b"".join(piece for part in parts for piece in (struct.pack("<I", len(part)), part))


def json_tensor(name: str, array: NDArray[Any], *, binary: bool) -> dict[str, Any]:
    """An output's object in a V2 answer; `data` is a flat array, or missing where the elements follow in binary.

    Of BYTES in JSON each is base64, for there is no other text for it.
    """
    head: dict[str, Any] = {
        "name": name,
        "datatype": datatype_of(array),
        "shape": list(array.shape),
    }
    if binary:
        head["parameters"] = {"binary_data_size": len(raw_bytes(array))}
    elif array.dtype == object:
        head["parameters"] = {"content_encoding": "base64"}
        head["data"] = [base64.b64encode(one).decode() for one in array.flat]
    else:
        head["data"] = np.ascontiguousarray(array).reshape(-1)
    return head


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


def _from_raw(raw: bytes, dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    if dtype.kind != "O":
        if len(raw) % dtype.itemsize:
            raise InputError(
                f"{what} has {len(raw)} bytes; no multiple of {dtype.itemsize}, the size of {dtype}"
            )
        if sys.byteorder == "little":
            return np.frombuffer(raw, dtype)
        return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype)
    elements, place = [], 0
    while place < len(raw):
        if len(raw) - place < 4:
            raise InputError(f"{what} ends within the length of an element")
        (length,) = struct.unpack_from("<I", raw, place)
        place += 4
        if length > len(raw) - place:
            raise InputError(
                f"{what} has an element of {length} bytes, but only {len(raw) - place} follow"
            )
        elements.append(bytes(raw[place : place + length]))
        place += length
    return _as_objects(elements)


def _from_list(data: Any, dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    if not isinstance(data, Sequence) or isinstance(data, str | bytes):
        raise InputError(f"{what} has no list of data")
    if dtype.kind == "O":
        texts = [one.encode() if isinstance(one, str) else one for one in data]
        if not all(isinstance(one, bytes) for one in texts):
            raise InputError(f"{what} holds something other than texts")
        return _as_objects(texts)
    try:
        array = np.asarray(data)
        if array.size == 0:
            return np.empty(0, dtype)
        if array.dtype.kind not in "biuf" or (dtype.kind != "f" and array.dtype.kind == "f"):
            raise InputError(f"{what} holds something other than {dtype}")
        if dtype.kind in "iu" and not np.can_cast(array.dtype, dtype, "safe"):
            bounds = np.iinfo(dtype)
            if array.min() < bounds.min or array.max() > bounds.max:
                raise InputError(f"{what} holds values that {dtype} cannot")
        return array.astype(dtype).reshape(-1)
    except (ValueError, TypeError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what} is no list of {dtype}") from error


def _as_objects(elements: Sequence[Any]) -> NDArray[Any]:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array
