"""How the texts of a method's options are read."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from igonnx.errors import InputError

__all__ = ["feature_masks", "layers", "settings_of", "sizes", "whole_numbers"]

T = TypeVar("T")


def whole_numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    """Read whole numbers with commas between them."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"{option} is '{text}', expected whole numbers with commas between them"
        ) from None


def sizes(
    option: str, texts: Sequence[str] | None
) -> tuple[int, ...] | dict[str, tuple[int, ...]] | None:
    """Read the sizes for one tensor, or NAME=SIZES for each of several."""
    return _one_or_named(option, texts, lambda text: whole_numbers(option, text) or ())


def feature_masks(texts: Sequence[str] | None) -> NDArray[Any] | dict[str, NDArray[Any]] | None:
    """Read the feature mask of one tensor from an .npy file, or NAME=FILE for each of several."""
    return _one_or_named("--feature-mask", texts, _only_array)


def layers(texts: Sequence[str] | None) -> str | list[str] | None:
    """One layer as its name, several as a list."""
    if not texts:
        return None
    return texts[0] if len(texts) == 1 else list(texts)


def settings_of(texts: Sequence[str] | None) -> dict[str, Any]:
    """Read NAME=VALUE: numbers, True, False, None and tuples of them as Python writes them, anything else as text."""
    settings: dict[str, Any] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name.isidentifier():
            raise InputError(f"--set is '{text}', expected NAME=VALUE")
        if name in settings:
            raise InputError(f"--set {name} was given twice")
        settings[name] = _value(value)
    return settings


def _only_array(path: str) -> NDArray[Any]:
    from igonnx.cli.arrays import load_arrays

    arrays = load_arrays(path)
    if len(arrays) > 1:
        raise InputError(f"'{path}' holds {len(arrays)} arrays, expected one")
    return next(iter(arrays.values()))


def _value(text: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    return value


def _one_or_named(
    option: str, texts: Sequence[str] | None, read: Callable[[str], T]
) -> T | dict[str, T] | None:
    """What `read` makes of the only text, or of each by the name in front of its equals sign."""
    if not texts:
        return None
    if len(texts) == 1 and ("=" not in texts[0] or Path(texts[0]).exists()):
        return read(texts[0])
    found: dict[str, T] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or name in found:
            raise InputError(f"{option} is '{text}', expected NAME=VALUE, once for each tensor")
        found[name] = read(value)
    return found
