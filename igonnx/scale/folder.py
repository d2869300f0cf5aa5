"""The output folder: what lies where, how files get there whole, and what a run that was killed has left to do.

    manifest.json                   what the run explains and how
    parts/part-000000.parquet       the rows of part 0 that were explained
    errors/errors-000000.parquet    those that were not, and why
    overlays/                       pictures of rows
    summary.html                    the page of all
    state/                          the list of rows, and of each part what the page tells and that it is done

Every file is written under another name and then renamed. A part always has the same rows and names of files: to
write it twice leaves one. It is done when its state is there, which is written last.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from igonnx.errors import InputError
from igonnx.scale.job import Job
from igonnx.scale.listing import Listing, Row

__all__ = ["Attempts", "Folder", "write_whole"]

DEATHS = 2  # workers that may die on a part before its rows are taken one by one

_SUBFOLDERS = ("parts", "errors", "overlays", "state")


@dataclass(frozen=True)
class Folder:
    """The folder of one run; `path` is absolute, and the same on all machines."""

    path: Path

    def part(self, number: int) -> Path:
        """The table of a part."""
        return self.path / "parts" / f"part-{number:06}.parquet"

    def errors(self, number: int) -> Path:
        """The errors of a part."""
        return self.path / "errors" / f"errors-{number:06}.parquet"

    def state(self, number: int) -> Path:
        """What is told of a part; where it is, the part is done."""
        return self.path / "state" / f"done-{number:06}.npz"

    @property
    def overlays(self) -> Path:
        """Where pictures go."""
        return self.path / "overlays"

    @property
    def page(self) -> Path:
        """The summary."""
        return self.path / "summary.html"

    @property
    def _index(self) -> Path:
        return self.path / "state" / "rows.parquet"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and keep other runs from it; raises `InputError` where one is at work."""
        import fcntl

        try:
            for name in _SUBFOLDERS:
                (self.path / name).mkdir(parents=True, exist_ok=True)
            lock = (self.path / "state" / "lock").open("w", encoding="ascii")
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise InputError(f"cannot write to folder '{self.path}': {reason}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(f"'{self.path}' is being written by another run") from None
            yield

    def begin(self, job: Job, listing: Listing, rows_per_part: int) -> int:
        """Begin a run, or go on with one; gives its rows per part, which stay as they were.

        Raises `InputError` where the folder holds a run of other settings or rows, or files of something else.
        """
        manifest = self.path / "manifest.json"
        about = {"rows": len(listing.rows), "ids": listing.digest, "settings": job.record()}
        if manifest.exists():
            begun = _read_manifest(manifest)
            _require_same(self.path, begun, about)
            for stale in (self.path / "state").glob("attempts-*"):
                stale.unlink(missing_ok=True)
            return int(begun["rows_per_part"])
        strange = [one.name for one in self.path.iterdir() if one.name not in _SUBFOLDERS]
        if strange or any((self.path / "parts").iterdir()):
            raise InputError(
                f"'{self.path}' is not empty ({(strange or ['parts'])[0]}), and holds no run to go on with"
            )
        self._write_index(listing.rows, rows_per_part)
        text = json.dumps({"format": 1, "rows_per_part": rows_per_part, **about}, indent=2)
        write_whole(manifest, lambda file: file.write_text(text + "\n", encoding="utf-8"))
        return rows_per_part

    def unfinished(self, parts: int) -> list[int]:
        """The parts of a run of `parts` that are not done."""
        done = {one.name for one in (self.path / "state").glob("done-*.npz")}
        return [number for number in range(parts) if self.state(number).name not in done]

    def parts_with_errors(self) -> list[int]:
        """The parts of which a row was not explained."""
        from pyarrow import parquet

        return [
            int(one.stem.rpartition("-")[2])
            for one in sorted((self.path / "errors").glob("errors-*.parquet"))
            if parquet.read_metadata(one).num_rows
        ]

    def rows_of(self, part: int) -> list[Row]:
        """The rows of a part."""
        from pyarrow import parquet

        with parquet.ParquetFile(self._index) as file:
            table = file.read_row_group(part)
        return list(zip(table["file"].to_pylist(), table["row"].to_pylist(), strict=True))

    def _write_index(self, rows: list[Row], rows_per_part: int) -> None:
        """Write all rows, those of a part in a row group of their own."""
        import pyarrow
        from pyarrow import parquet

        files, numbers = zip(*rows, strict=True)
        try:
            columns = {
                "file": pyarrow.array(files, pyarrow.string()),
                "row": pyarrow.array(numbers),
            }
        except UnicodeEncodeError as error:
            raise InputError(f"the name {error.object!r} of a file is not UTF-8") from None
        table = pyarrow.table(columns)
        write_whole(
            self._index,
            lambda file: parquet.write_table(table, file, row_group_size=rows_per_part),
        )


class Attempts:
    """How often workers have begun a part: one that kills them is taken row by row, and the row that does is told.

    Use around the work: `with Attempts(folder, part, "read") as attempts`. Where the worker dies, what it wrote stays,
    and the next one reads it.
    """

    def __init__(self, folder: Folder, part: int, stage: str) -> None:
        self._path = folder.path / "state" / f"attempts-{part:06}-{stage}"

    def __enter__(self) -> Attempts:
        deaths = self._deaths()
        self.careful = len(deaths) >= DEATHS
        self._deadly = set(deaths)
        self._note("begun", f" {socket.gethostname()} {os.getpid()}")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._path.unlink(missing_ok=True)

    def survived(self, row: int) -> bool:
        """Whether no worker has died on this row of the part before; to be asked of each row in a careful pass."""
        if row in self._deadly:
            return False
        self._note("row", f" {row}")
        return True

    def _deaths(self) -> list[int | None]:
        """Of each earlier attempt, none of which came to its end, the row that it was at; None: not known."""
        deaths: list[int | None] = []
        with contextlib.suppress(FileNotFoundError):
            for line in self._path.read_text(encoding="utf-8").splitlines():
                what, *about = line.split(" ")
                if what == "begun":
                    deaths.append(None)
                elif deaths and about:
                    deaths[-1] = int(about[0])
        return deaths

    def _note(self, what: str, about: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{what}{about}\n")
            file.flush()
            os.fsync(file.fileno())


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write a file beside `path`, then give it that name: it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        begun: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' cannot be read: {error}") from error
    if begun.get("format") != 1:
        raise InputError(f"'{path}' is of format {begun.get('format')}, expected 1")
    return begun


def _require_same(path: Path, begun: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise `InputError` naming the first thing in which two manifests differ."""
    ours, theirs = json.loads(json.dumps(now["settings"])), begun["settings"]
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            raise InputError(
                f"'{path}' was begun with {name} = {_shown(theirs.get(name))}, now it is {_shown(ours.get(name))}: "
                "expected the same, or another folder"
            )
    if begun["rows"] != now["rows"]:
        raise InputError(
            f"'{path}' was begun with {begun['rows']} rows, now there are {now['rows']}: expected the same inputs, or "
            "another folder"
        )
    if begun["ids"] != now["ids"]:
        raise InputError(
            f"'{path}' was begun with other inputs: expected the same files in the same order, or another folder"
        )


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
