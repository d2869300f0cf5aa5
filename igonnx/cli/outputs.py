"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from igonnx.errors import InputError

__all__ = ["Outputs", "picture_paths"]

PICTURE_FORMATS = (".png", ".jpg", ".jpeg", ".webp", ".pdf", ".svg", ".tif", ".tiff")


class Outputs:
    """A set of files to write: all of them are put in place at the end, or none is.

    Use as a context manager: `reserve` each path before the work (it raises `InputError` where one
    cannot be written), write to the temporary path it returns, which lies in the same folder.
    Leaving the block renames all files that were written, the first one reserved last, so that those it
    needs are there before it; leaving it by an exception removes them, and folders made here.
    `sources` are the files that are read, which must not be written.
    """

    def __init__(self, sources: Sequence[Path] = ()) -> None:
        self._sources = sources
        self._temporary: dict[Path, Path] = {}
        self._made: list[Path] = []
        self.written: list[Path] = []

    def __enter__(self) -> Outputs:
        return self

    def reserve(self, path: Path, *, suffix: str = "", make_folder: bool = False) -> Path:
        """Check that a file can be written there; its name must end in `suffix`.

        With `make_folder` its folder is made, if only that one is missing.
        """
        if suffix and path.suffix.lower() != suffix:
            raise InputError(f"cannot write '{path}': expected a name that ends in {suffix}")
        if path.is_dir():
            raise InputError(f"cannot write '{path}': it is a folder")
        if path.exists() and any(
            source.exists() and path.samefile(source) for source in self._sources
        ):
            raise InputError(f"cannot write '{path}': it is one of the files read")
        if path in self._temporary:
            raise InputError(f"'{path}' would be written twice")
        self._try_folder(path, make_folder)
        name = f".{path.stem}.{secrets.token_hex(4)}{path.suffix}"
        self._temporary[path] = path.parent / name
        return self._temporary[path]

    def make_folder(self, folder: Path) -> None:
        """Make a folder, and those above it that are missing."""
        missing = []
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for one in reversed(missing):
            try:
                one.mkdir()
            except OSError as error:
                reason = (error.strerror or type(error).__name__).lower()
                raise InputError(f"cannot make folder '{one}': {reason}") from error
            self._made.append(one)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            for path, temporary in reversed(self._temporary.items()):
                if temporary.exists():
                    os.replace(temporary, path)
                    self.written.insert(0, path)
            return
        for temporary in self._temporary.values():
            temporary.unlink(missing_ok=True)
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):  # somebody else may use it by now
                folder.rmdir()

    def _try_folder(self, path: Path, make: bool) -> None:
        """Make sure that files can be made in the folder of this path, by making one."""
        folder = path.parent
        try:
            if make and not folder.exists():
                folder.mkdir()
                self._made.append(folder)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise InputError(f"cannot write '{path}': folder '{folder}': {reason}") from error


def picture_paths(given: str, names: Sequence[str]) -> tuple[list[Path], bool]:
    """Find the path of each picture, and whether they go into a folder of their own.

    given is the text of `-o`: with a suffix it is one file, or, where it holds `{name}`, a file for
    each of the examples `names`; without one it is a folder of PNG files.
    """
    if not given:
        raise InputError("-o is empty, expected the path of a file or a folder")
    pattern = Path(given)
    suffix = pattern.suffix.lower()
    folder = pattern.is_dir() or given.endswith(("/", os.sep)) or not suffix
    if folder:
        pattern = pattern / "{name}.png"
    elif suffix not in PICTURE_FORMATS:
        known = ", ".join(PICTURE_FORMATS)
        raise InputError(f"cannot write pictures as '{suffix}' (-o '{given}'), expected {known}")
    if len(names) > 1 and "{name}" not in pattern.name:
        raise InputError(
            f"{len(names)} examples give {len(names)} pictures, but -o '{given}' is one file: "
            "give a folder, or a pattern such as 'out_{name}.png'"
        )
    files = [pattern.with_name(pattern.name.replace("{name}", name)) for name in names]
    return files, folder
