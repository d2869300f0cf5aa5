"""Small records that outlive the process, one JSON file each, under the user's cache directory.

The environment variable IGONNX_CACHE_DIR names another directory; empty or "off", nothing is kept. A record that cannot
be read counts as absent, one that cannot be written is not kept: nothing ever fails for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["cache_directory", "read_record", "write_record"]

DIRECTORY_VARIABLE = "IGONNX_CACHE_DIR"


def cache_directory() -> Path | None:
    """Where records are kept: as the platform has it, for instance ~/.cache/igonnx; None: nowhere."""
    chosen = os.environ.get(DIRECTORY_VARIABLE)
    if chosen is not None:
        return None if chosen.strip().lower() in ("", "off") else Path(chosen)
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home
        return None
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "igonnx"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "igonnx"
    # the XDG base directory specification: a relative path there is to be ignored
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else home / ".cache") / "igonnx"


def read_record(kind: str, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of this kind that was written last for `key`, a mapping of JSON values; None: there is none."""
    path = _path(kind, key)
    if path is None:
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or found.get("key") != key:
        return None
    record = found.get("record")
    return record if isinstance(record, dict) else None


def write_record(kind: str, key: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Keep `record`; a reader sees the old record or the new one, never a part."""
    path = _path(kind, key)
    if path is None:
        return
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"key": key, "record": record}, file, indent=1)
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _path(kind: str, key: Mapping[str, Any]) -> Path | None:
    directory = cache_directory()
    if directory is None:
        return None
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return directory / kind / f"{digest[:32]}.json"
