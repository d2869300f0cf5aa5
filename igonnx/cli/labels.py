"""Names of classes, and targets given by index or by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from igonnx.errors import InputError

__all__ = ["Labels", "Target", "parse_target", "read_labels"]

Labels = Sequence[str]
Target = int | tuple[int, ...]


def read_labels(source: str | None) -> Labels:
    """Read class names from a text file, one a line in the order of the classes; none without source.

    The word `imagenet` stands for the 1000 names of ImageNet, unless there is such a file.
    """
    if source is None:
        return []
    path = Path(source)
    if source == "imagenet" and not path.exists():
        from igonnx.models.imagenet import class_names

        names: list[str] = class_names()
        return names
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file in UTF-8"
        raise InputError(f"cannot read labels from '{source}': {reason.lower()}") from error
    return [line.strip() for line in lines]


def parse_target(text: str, labels: Labels = ()) -> Target:
    """Read a target: a class index, an index with commas ('3,5'), or the name of a class."""
    try:
        index = tuple(int(part) for part in text.split(","))
    except ValueError:
        exact = [index for index, label in enumerate(labels) if label == text]
        found = exact or [
            index for index, label in enumerate(labels) if label.casefold() == text.casefold()
        ]
        if len(found) > 1:
            several = ", ".join(map(str, found))
            raise InputError(
                f"target '{text}' is the name of {len(found)} classes, {several}: give the index"
            ) from None
        if found:
            return found[0]
        known = "and no class has that name" if labels else "and names of classes need --labels"
        raise InputError(f"target '{text}' is no index such as 285 or 3,5, {known}") from None
    return index[0] if len(index) == 1 else index
