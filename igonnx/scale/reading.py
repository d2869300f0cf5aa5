"""From a row to what the model takes: images decoded and prepared, arrays and cells of tables cut out and checked.

What cannot be read says why, mostly as an `InputError`; a damaged file may have its decoder raise something else.
Nothing is unpickled, and what an image or archive would unfold to is looked at before it is.
"""

from __future__ import annotations

import math
import struct
import warnings
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.cli.arrays import load_arrays, shaped_for
from igonnx.errors import InputError
from igonnx.images import decode_image, format_shape, read_image
from igonnx.model import TensorInfo
from igonnx.scale.job import Job
from igonnx.scale.listing import ONLY, Row, is_array, is_image, row_id
from igonnx.scale.tables import is_table, read_cell

__all__ = ["MAX_ARCHIVE", "read_row"]

MAX_ARCHIVE = 4 << 30  # bytes that an .npz file may unfold to

Arrays = dict[str, NDArray[Any]]


def read_row(job: Job, infos: Sequence[TensorInfo], row: Row) -> Arrays:
    """Read one row as {input: array with a batch axis of 1}; `infos` are the model's inputs.

    Raises `InputError` for a file that is missing or damaged, a shape that does not fit, NaN and infinity, and an
    image of more than `job.max_pixels` pixels.
    """
    file, number = row
    path, name = job.root / file, row_id(row)
    found: dict[str, NDArray[Any] | bytes]
    try:
        if is_image(file):
            return _from_image(job, infos, path, file)
        if is_array(file):
            found = dict(_from_arrays(infos, path, number))
        elif is_table(file) and number != ONLY:
            found = read_cell(path, number, job.columns)
        else:
            raise InputError(f"'{file}' cannot be read as a table")
        return {
            info.name: _from_bytes(job, value, name)
            if isinstance(value, bytes)
            else _fitting(value, info, name)
            for info in infos
            for value in [found[info.name]]
        }
    except OSError as error:
        reason = (error.strerror or str(error).split("\n")[0] or type(error).__name__).lower()
        raise InputError(f"'{file}' cannot be read: {reason}") from error


def _from_image(job: Job, infos: Sequence[TensorInfo], path: Path, file: str) -> Arrays:
    if job.preprocessing is None:
        raise InputError(f"'{file}' is an image, but the model's input '{infos[0].name}' is none")
    if not file.lower().endswith((".tif", ".tiff")):
        return {infos[0].name: _from_bytes(job, path.read_bytes(), file)}
    _require_few_pixels(path, file, job.max_pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata; what matters is refused
        image = read_image(path)
    return {infos[0].name: job.preprocessing.apply(image, name=file)}


def _from_bytes(job: Job, data: bytes, name: str) -> NDArray[Any]:
    """Decode an image from the bytes of its file."""
    if job.preprocessing is None:
        raise InputError(f"'{name}' holds bytes, but the model takes no image")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = decode_image(data, most_pixels=job.max_pixels, name=f"'{name}'")
    return job.preprocessing.apply(image, name=name)


def _require_few_pixels(path: Path, name: str, most: int) -> None:
    """Raise `InputError` for a TIFF file whose first page has more than `most` pixels; it is not decoded."""
    from tifffile import TiffFile, TiffFileError

    try:
        with TiffFile(path) as tiff:
            first = tiff.pages.first
            width, height = first.imagewidth, first.imagelength
    except (TiffFileError, LookupError, ValueError, struct.error) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"'{name}' cannot be read as an image: {reason}") from error
    if width * height > most:
        raise InputError(f"'{name}' has {width} x {height} pixels; at most {most} are decoded")


def _from_arrays(infos: Sequence[TensorInfo], path: Path, number: int) -> Arrays:
    """One example of an array file, or all of it."""
    if path.suffix.lower() == ".npy":
        if len(infos) > 1:
            needed = ", ".join(f"'{info.name}'" for info in infos)
            raise InputError(f"'{path}' holds one array, the model takes {needed}: expected .npz")
        arrays = {infos[0].name: _mapped(path)}
    else:
        arrays = dict(_archive(path, path.stat().st_mtime_ns))
        if len(arrays) == len(infos) == 1:
            arrays = {infos[0].name: next(iter(arrays.values()))}
        missing = [info.name for info in infos if info.name not in arrays]
        if missing:
            raise InputError(f"'{path}' holds no array '{missing[0]}'")
    if number == ONLY:
        return arrays
    short = [name for name, array in arrays.items() if not array.ndim or number >= len(array)]
    if short:
        raise InputError(f"'{path}' has no row {number} of '{short[0]}'")
    return {name: np.asarray(array[number : number + 1]) for name, array in arrays.items()}


def _mapped(path: Path) -> NDArray[Any]:
    """An array of a file, read where it is looked at."""
    if not path.is_file():
        raise InputError(f"array file '{path}' does not exist")
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"'{path}' cannot be read as a NumPy file: {reason}") from error
    return array


@lru_cache(maxsize=1)  # its rows come one after the other
def _archive(path: Path, modified: int) -> Arrays:
    del modified  # for the cache: another file of that name is read anew
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile as error:
        raise InputError(f"'{path}' cannot be read as a NumPy file: {error}") from error
    if size > MAX_ARCHIVE:
        raise InputError(f"'{path}' unfolds to {size:,} bytes, expected at most {MAX_ARCHIVE:,}")
    return load_arrays(str(path))


def _fitting(array: NDArray[Any], info: TensorInfo, name: str) -> NDArray[Any]:
    """The array as the input takes it, with a batch axis of 1; flat lists get its shape where that is known."""
    if array.dtype.kind not in "biuf":
        raise InputError(f"'{name}' holds {array.dtype}, expected numbers")
    dtype = np.dtype(info.dtype) if info.dtype != "unknown" else array.dtype
    if array.dtype.kind == "f" and dtype.kind in "iu":
        raise InputError(f"'{name}' is {array.dtype}, but input '{info.name}' takes {info.dtype}")
    with np.errstate(all="ignore"):  # what is too large for the model is infinite then, and told
        array = array.astype(dtype)
    lengths = info.shape[1:]
    if array.ndim == 1 != len(lengths) and all(isinstance(length, int) for length in lengths):
        shape = tuple(int(length) for length in lengths if isinstance(length, int))
        if array.size == math.prod(shape):
            array = array.reshape(shape)
    shaped = shaped_for(array, info, name)
    if info.shape and len(shaped) != 1:
        given = format_shape(array.shape)
        raise InputError(f"'{name}' has shape {given}, expected one example of '{info.name}'")
    return np.ascontiguousarray(shaped)
