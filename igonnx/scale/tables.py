"""Parquet files as inputs: a column for each input of the model, of lists, tensors or encoded images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import InputError
from igonnx.model import TensorInfo

__all__ = ["choose_columns", "count_rows", "is_table", "read_cell"]


def is_table(file: str) -> bool:
    """Whether the name is that of a Parquet file."""
    return file.lower().endswith((".parquet", ".pq"))


def count_rows(path: Path) -> int | None:
    """How many rows the file holds; None where it is no Parquet file."""
    from pyarrow import parquet

    try:
        return int(parquet.read_metadata(path).num_rows)
    except Exception:  # whatever is wrong with a damaged file, reading it will tell
        return None


def choose_columns(
    path: Path, infos: Sequence[TensorInfo], column: str | None = None
) -> dict[str, str]:
    """Which column each input of the model is read from: `column` for a model of one input, else that of its name.

    A file of one column needs no name. {} where it is no Parquet file; raises `InputError` where a column is missing.
    """
    from pyarrow import parquet

    try:
        names = list(parquet.read_schema(path).names)
    except Exception:  # as above
        return {}
    if column is not None and len(infos) > 1:
        raise InputError(f"--column is for models of one input, this one has {len(infos)}")
    if column is None and len(infos) == 1 and len(names) == 1:
        column = names[0]
    chosen = {info.name: column or info.name for info in infos}
    missing = [one for one in chosen.values() if one not in names]
    if missing:
        raise InputError(
            f"'{path}' has no column '{missing[0]}', only {', '.join(map(repr, names))}; expected one for each input "
            "of the model by its name, or --column"
        )
    return chosen


def read_cell(path: Path, row: int, columns: Mapping[str, str]) -> dict[str, NDArray[Any] | bytes]:
    """The values of one row by the names of the inputs: an array of any shape, or the bytes of an image.

    Raises `InputError` where the file or the value cannot be read.
    """
    import pyarrow

    modified = path.stat().st_mtime_ns
    try:
        starts = _row_groups(path, modified)
        group = int(np.searchsorted(starts, row, side="right")) - 1
        table = _row_group(path, modified, group, tuple(sorted(set(columns.values()))))
        cells = {name: table[column] for name, column in columns.items()}
        return {name: _value(cell, row - int(starts[group])) for name, cell in cells.items()}
    except (pyarrow.ArrowException, KeyError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"'{path}' cannot be read as a table: {reason}") from error


@lru_cache(maxsize=4)
def _row_groups(path: Path, modified: int) -> NDArray[np.int64]:
    """The number of the first row of each row group."""
    from pyarrow import parquet

    del modified  # for the cache: another file of that name is read anew
    metadata = parquet.read_metadata(path)
    counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)


@lru_cache(maxsize=1)  # neighbours come one after the other
def _row_group(path: Path, modified: int, group: int, columns: tuple[str, ...]) -> Any:
    from pyarrow import parquet

    del modified
    with parquet.ParquetFile(path) as file:
        return file.read_row_group(group, columns=list(columns))


def _value(column: Any, index: int) -> NDArray[Any] | bytes:
    """One cell: bytes, also where they stand beside a path as data sets of images have them, or an array."""
    import pyarrow

    kind = column.type
    if isinstance(kind, pyarrow.FixedShapeTensorType):
        tensor: NDArray[Any] = column.slice(index, 1).combine_chunks().to_numpy_ndarray()[0]
        return tensor
    value = column[index].as_py()
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if value is None:
        raise InputError("the value is missing (null)")
    if isinstance(value, bytes):
        return value
    try:
        array = np.array(value)
    except ValueError as error:  # lists of different lengths
        raise InputError(f"the value is no array: {error}") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"the value is {array.dtype}; expected numbers, or the bytes of an image")
    return array
