"""The tables of a part: a row for each example that was explained, and one for each that was not.

A contribution array is a list of numbers beside its shape, which every reader of Parquet knows; in Python,
`np.reshape(row["values"], row["shape"])`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.scale.folder import write_whole
from igonnx.scale.job import Job
from igonnx.scale.listing import ONLY, Row, row_id

__all__ = ["Explained", "Failed", "write_errors", "write_rows"]


@dataclass(frozen=True)
class Explained:
    """What is known of one row.

    target: the index that was explained, without the batch axis. values: {explained tensor: array without batch axis}.
    delta, relative_error: what the values' sum misses, and as a share of the change in score; NaN where they are not
    meant to add up. error_estimate: of the values, relative L2; NaN where the method makes none.
    """

    row: Row
    target: tuple[int, ...]
    label: str
    score: float
    baseline_score: float
    delta: float
    relative_error: float
    error_estimate: float
    steps: int
    method: str
    values: Mapping[str, NDArray[Any]]

    @property
    def class_name(self) -> str:
        """The target as people read it: index and, where it is known, name."""
        return f"{','.join(map(str, self.target)) or '-'} {self.label}".strip()

    @property
    def class_index(self) -> int | None:
        """The class, where the output has classes along one axis."""
        return self.target[0] if len(self.target) == 1 else None


@dataclass(frozen=True)
class Failed:
    """A row that was not explained: at which stage it failed ("read" or "explain"), and why."""

    row: Row
    stage: str
    reason: str


def write_rows(path: Path, job: Job, rows: Sequence[Explained], tensors: Sequence[str]) -> None:
    """Write the rows of a part; `tensors` are those explained, for the columns of a part without rows."""
    import pyarrow as pa
    from pyarrow import parquet

    columns: dict[str, Any] = {
        **_identity([one.row for one in rows]),
        "class": pa.array([one.class_index for one in rows], pa.int64()),
        "target": pa.array([list(one.target) for one in rows], pa.list_(pa.int64())),
        "label": pa.array([one.label or None for one in rows], pa.string()),
        "score": _floats([one.score for one in rows]),
        "baseline_score": _floats([one.baseline_score for one in rows]),
        "completeness_error": _floats([one.delta for one in rows]),
        "relative_error": _floats([one.relative_error for one in rows]),
        "error_estimate": _floats([one.error_estimate for one in rows]),
        "steps": pa.array([one.steps for one in rows], pa.int64()),
        "method": pa.array([one.method for one in rows], pa.string()),
        "model_sha256": pa.array([job.model_sha256] * len(rows), pa.string()),
        "igonnx_version": pa.array([version("igonnx")] * len(rows), pa.string()),
    }
    if job.arrays:
        names = list(rows[0].values) if rows else list(tensors)
        for name in names:
            ending = "" if len(names) == 1 else f":{name}"
            arrays = [one.values[name] for one in rows]
            columns[f"values{ending}"] = _lists(arrays)
            columns[f"shape{ending}"] = pa.array(
                [list(array.shape) for array in arrays], pa.list_(pa.int64())
            )
    table = pa.table(columns)
    # Attributions are noise to a compressor, and no two are alike.
    plain = [name for name in columns if not name.startswith("values")]
    compression = {name: "zstd" if name in plain else "none" for name in columns}
    write_whole(
        path,
        lambda file: parquet.write_table(
            table, file, compression=compression, use_dictionary=plain, write_statistics=plain
        ),
    )


def write_errors(path: Path, job: Job, rows: Sequence[Failed]) -> None:
    """Write the errors of a part."""
    import pyarrow as pa
    from pyarrow import parquet

    columns: dict[str, Any] = {
        **_identity([one.row for one in rows]),
        "stage": pa.array([one.stage for one in rows], pa.string()),
        "reason": pa.array([one.reason for one in rows], pa.string()),
        "model_sha256": pa.array([job.model_sha256] * len(rows), pa.string()),
        "igonnx_version": pa.array([version("igonnx")] * len(rows), pa.string()),
    }
    table = pa.table(columns)
    write_whole(path, lambda file: parquet.write_table(table, file, compression="zstd"))


def _identity(rows: Sequence[Row]) -> dict[str, Any]:
    import pyarrow as pa

    numbers = [None if number == ONLY else number for _, number in rows]
    return {
        "id": pa.array([row_id(row) for row in rows], pa.string()),
        "file": pa.array([file for file, _ in rows], pa.string()),
        "row": pa.array(numbers, pa.int64()),
    }


def _floats(numbers: Sequence[float]) -> Any:
    """A column in which NaN, for what there is none of, is null."""
    import pyarrow as pa

    return pa.array(np.asarray(numbers, np.float64), pa.float64(), from_pandas=True)


def _lists(arrays: Sequence[NDArray[Any]]) -> Any:
    """Arrays as lists of numbers, without a Python object for each; float64 where they are, else float32."""
    import pyarrow as pa

    double = bool(arrays) and arrays[0].dtype == np.float64
    dtype: type[np.floating[Any]] = np.float64 if double else np.float32
    flat = [np.asarray(array, dtype).ravel() for array in arrays]
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in flat])]).astype(np.int32)
    values = np.concatenate(flat) if flat else np.zeros(0, dtype)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
