"""An attribution in words: one line, or a page with a picture in characters; never more than a screen."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from igonnx.visual.bars_text import features_text
from igonnx.visual.notation import signed
from igonnx.visual.text_picture import text_picture

if TYPE_CHECKING:
    from igonnx.attribution import Attribution

__all__ = ["COLUMNS", "Kind", "caption", "kind_of", "page", "rows_of", "short", "tensors_of"]

Kind = Literal["image", "tokens", "features", "elements"]

# What a page shows of a long list.
EXAMPLES = 8
ELEMENTS = 8
WIDTH = 80

COLUMNS = ("example", "target", "score", "baseline", "delta", "of change", "gradients")

# For a stream that cannot write the characters of pictures and bars.
PLAIN = str.maketrans(
    "·░▒▓█▐▌▏▎▍▋▊▉│─┌┐└┘\N{MINUS SIGN}\N{HORIZONTAL ELLIPSIS}", ".:+%####|||##|-++++-~"
)


def short(attribution: Attribution) -> str:
    """One line of ASCII: method, dtype and shape, target, scores, and how far the values are from adding up."""
    shapes = ", ".join(
        f"{f'{name}: ' if name else ''}{array.dtype} {list(array.shape)}"
        for name, array in tensors_of(attribution)
    )
    parts = [attribution.method, shapes]
    scores, starts = attribution.scores, attribution.baseline_scores
    if len(scores) == 1:
        parts.append(f"target {_target(attribution.target[0])}")
        parts.append(f"score {scores[0]:.4g} from {starts[0]:.4g}")
    elif len(scores):
        parts.append(f"{len(scores)} examples, scores {scores.min():.4g} to {scores.max():.4g}")
    if len(scores):
        largest = np.abs(attribution.delta).max()
        parts.append(f"delta {largest:.2g} ({_share(attribution.relative_delta.max())})")
    line = "; ".join(parts).encode("ascii", "backslashreplace").decode("ascii")
    return f"<Attribution {line}>"


def page(attribution: Attribution) -> str:
    """What `print` shows: a table of the examples, and of each explained tensor a picture of the first example."""
    lines = [attribution.method, *_table(attribution)]
    for name, array in tensors_of(attribution):
        lines += ["", _caption(name, array), *_picture(array)]
    return _encodable("\n".join(lines))


def kind_of(shape: tuple[int, ...]) -> Kind:
    """What an example of this shape, without batch axis, most likely is.

    One axis or none: features. Two: tokens and their embedding. Three: an image or a map of an inner layer, channels
    first or last. More: elements of something else.
    """
    kinds: dict[int, Kind] = {0: "features", 1: "features", 2: "tokens", 3: "image"}
    return kinds.get(len(shape), "elements")


def tensors_of(attribution: Attribution) -> list[tuple[str, NDArray[Any]]]:
    """Name and values of each explained tensor; the name is empty where there is one tensor only."""
    if isinstance(attribution.values, Mapping):
        return list(attribution.values.items())
    return [("", attribution.values)]


def rows_of(attribution: Attribution, at_most: int = EXAMPLES) -> list[list[str]]:
    """The cells of the table for the first examples, in the order of `COLUMNS`."""
    relative = attribution.relative_delta
    return [
        [
            str(i),
            _target(attribution.target[i]),
            f"{attribution.scores[i]:.4g}",
            f"{attribution.baseline_scores[i]:.4g}",
            signed(float(attribution.delta[i]), 2),
            _share(relative[i]),
            str(attribution.steps_used[i]),
        ]
        for i in range(min(at_most, len(attribution.scores)))
    ]


def caption(name: str, array: NDArray[Any]) -> str:
    """Name, dtype and shape of an explained tensor."""
    return f"{name or 'values'}: {array.dtype} {list(array.shape)}"


def _caption(name: str, array: NDArray[Any]) -> str:
    shown = {
        "image": "magnitudes",
        "tokens": "the strongest positions",
        "features": "the strongest features",
        "elements": "the strongest elements",
    }
    which = f" of example 0 of {len(array)}" if len(array) > 1 else ""
    return f"{caption(name, array)}, {shown[kind_of(array.shape[1:])]}{which}"


def _picture(array: NDArray[Any]) -> list[str]:
    if array.ndim == 0 or array.size == 0:
        return ["nothing to show"]
    example = array[0].astype(np.float64)
    bad = int((~np.isfinite(example)).sum())
    if bad:
        return [f"{bad} of {example.size} values are NaN or infinite"]
    kind = kind_of(example.shape)
    if kind == "image":
        return text_picture(example).splitlines()
    if kind == "tokens":
        positions = [f"position {i}" for i in range(len(example))]
        text = features_text(example.sum(axis=1), names=positions, top=ELEMENTS, width=WIDTH)
    else:
        # With its leading axis of 1, else a first axis of 1 would be taken for it.
        text = features_text(example[None], top=ELEMENTS, width=WIDTH)
    return text.splitlines()


def _table(attribution: Attribution) -> list[str]:
    rows = [list(COLUMNS), *rows_of(attribution)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    hidden = len(attribution.scores) - (len(rows) - 1)
    return [*lines, f"and {hidden} more"] if hidden else lines


def _target(index: tuple[int, ...] | None) -> str:
    if index is None:
        return "weights"
    return ", ".join(map(str, index)) or "-"


def _share(relative: float) -> str:
    return f"{100 * relative:.2g} %" if np.isfinite(relative) else "-"


def _encodable(text: str) -> str:
    """A text that standard output can write, whatever its encoding."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        plain = text.translate(PLAIN)
        return plain.encode(encoding, "backslashreplace").decode(encoding)
    return text
