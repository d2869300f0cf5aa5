"""Which rows a run explains: one for each image, and one for each example of an array or a table."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from igonnx.errors import InputError
from igonnx.model import TensorInfo
from igonnx.scale.tables import count_rows, is_table

__all__ = ["ONLY", "Listing", "Row", "is_array", "is_image", "list_inputs", "row_id"]

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
ARRAYS = (".npy", ".npz")

ONLY = -1  # the number of a row that is all of its file

Row = tuple[str, int]  # the file's name as it was given, and the row in it, or ONLY


@dataclass(frozen=True)
class Listing:
    """The rows in order, and how many files of other kinds were passed over in folders."""

    rows: list[Row]
    passed_over: int = 0

    @property
    def digest(self) -> str:
        """SHA-256 of the ids of all rows."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(f"{row_id(row)}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def row_id(row: Row) -> str:
    """What the tables know a row by: its file, with `#` and its number in there if there are several."""
    file, number = row
    return file if number == ONLY else f"{file}#{number}"


def is_image(file: str) -> bool:
    """Whether the name is that of an image."""
    return file.lower().endswith(IMAGES)


def is_array(file: str) -> bool:
    """Whether the name is that of a NumPy file."""
    return file.lower().endswith(ARRAYS)


def list_inputs(
    names: Sequence[str], root: Path, infos: Sequence[TensorInfo], *, limit: int | None = None
) -> Listing:
    """List the rows of files, of folders (all files in them and below, by name) and of `.txt` lists of files.

    Names are relative to `root`. A file that cannot be opened is a row: it is told of where it is read. `infos` are
    the model's inputs; `limit` keeps that many rows from the front. Raises `InputError` for a name that is not there,
    a file of an unknown kind, and where nothing is left.
    """
    passed_over = 0
    files: dict[str, None] = {}
    for name in names:
        path = root / name
        if path.is_dir():
            inside = sorted(_files_below(path))
            known = [file for file in inside if _is_known(file)]
            passed_over += len(inside) - len(known)
            files.update(dict.fromkeys(os.path.join(name, file) for file in known))
        elif name.lower().endswith(".txt") and path.is_file():
            files.update(dict.fromkeys(_lines(path)))
        elif not path.exists():
            raise InputError(f"input '{name}' does not exist")
        else:
            files[name] = None
    unknown = next((file for file in files if not _is_known(file)), None)
    if unknown is not None:
        kinds = ", ".join((*IMAGES, *ARRAYS, ".parquet"))
        raise InputError(f"'{unknown}' is of an unknown kind: expected a folder, .txt, or {kinds}")
    rows = list(islice(_rows_of(files, root, infos), limit))
    if not rows:
        raise InputError(f"no images, arrays or tables in {', '.join(map(repr, names))}")
    return Listing(rows, passed_over)


def _is_known(file: str) -> bool:
    return is_image(file) or is_array(file) or is_table(file)


def _files_below(folder: Path) -> Iterable[str]:
    """The files below a folder, relative to it; hidden ones left out."""
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(where, folder)
        for name in files:
            if not name.startswith("."):
                yield name if below == "." else os.path.join(below, name)


def _lines(path: Path) -> list[str]:
    """The names in a list of files, one a line; those that are not there become rows that tell of it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file in UTF-8"
        raise InputError(f"cannot read the list of files '{path}': {reason.lower()}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _rows_of(files: Iterable[str], root: Path, infos: Sequence[TensorInfo]) -> Iterable[Row]:
    for file in files:
        count: int | None = None
        if is_array(file):
            count = _examples(root / file, infos)
        elif is_table(file):
            count = count_rows(root / file)
        if count is None:
            yield file, ONLY
        else:
            yield from ((file, number) for number in range(count))


def _examples(path: Path, infos: Sequence[TensorInfo]) -> int | None:
    """How many examples an array file holds along a batch axis; None where it is one, or cannot be told."""
    axes = {info.name: len(info.shape) for info in infos}
    first = infos[0].name
    try:
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                name, shape = first, _shape(file)
        else:
            with zipfile.ZipFile(path) as archive:
                members = [one.removesuffix(".npy") for one in archive.namelist()]
                name = first if first in members else members[0]
                with archive.open(f"{name}.npy") as file:
                    shape = _shape(file)
    except Exception:  # whatever is wrong with a damaged file, reading it will tell
        return None
    return shape[0] if len(shape) == axes.get(name, axes[first]) else None


def _shape(file: IO[bytes]) -> tuple[int, ...]:
    """The shape that the header of an array states, the array unread."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0}
    shape, _, _ = read.get(version, np.lib.format.read_array_header_2_0)(file)
    return tuple(int(length) for length in shape)
