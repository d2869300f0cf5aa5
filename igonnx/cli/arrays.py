"""Arrays from files."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import InputError
from igonnx.images import format_shape
from igonnx.model import TensorInfo

__all__ = ["is_array_file", "load_arrays", "shaped_for"]


def is_array_file(path: str) -> bool:
    """Whether the name is that of a NumPy file."""
    return Path(path).suffix.lower() in (".npy", ".npz")


def load_arrays(path: str) -> dict[str, NDArray[Any]]:
    """Read a .npz file as its named arrays, or a .npy file as one array under the name ''."""
    if not Path(path).is_file():
        raise InputError(f"array file '{path}' does not exist")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except MemoryError as error:
        message = f"'{path}' cannot be read as a NumPy file: what it says it holds is too large"
        raise InputError(message) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise InputError(f"'{path}' cannot be read as a NumPy file: {reason}") from error
    if not arrays:
        raise InputError(f"'{path}' holds no arrays")
    return arrays


def shaped_for(array: NDArray[Any], info: TensorInfo, path: str) -> NDArray[Any]:
    """Give an array a batch axis of 1 where it lacks one; check its shape, naming the file.

    Raises `InputError` for another number of axes than the input's, another length of a fixed axis
    (the batch axis aside), or values that are not finite.
    """
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = ~np.isfinite(array)
        where = format_shape([int(axis) for axis in np.argwhere(bad)[0]])
        raise InputError(
            f"'{path}' for input '{info.name}' holds NaN or infinity in {int(bad.sum())} of "
            f"{array.size} places, first at {where}; expected finite numbers"
        )
    if not info.shape:  # a scalar, or a model that does not tell
        return array
    shaped = array[None] if array.ndim == len(info.shape) - 1 else array
    fits = shaped.ndim == len(info.shape) and all(
        not isinstance(length, int) or axis == 0 or length == shaped.shape[axis]
        for axis, length in enumerate(info.shape)
    )
    if not fits:
        raise InputError(
            f"'{path}' has shape {format_shape(array.shape)}, but input '{info.name}' takes "
            f"{format_shape(info.shape)}"
        )
    return shaped
