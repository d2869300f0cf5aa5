"""What `igonnx.augment` is told, checked and made ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from igonnx.augmentation.path import Noise, Points
from igonnx.augmentation.target import ARGMAX
from igonnx.batching import Batching
from igonnx.checks import is_real, is_whole, require_whole
from igonnx.errors import InputError
from igonnx.graph.builder import dims
from igonnx.quadrature import nodes_and_weights

__all__ = ["METHODS", "default_target", "noise_of", "points_of", "require_finite"]

METHODS = ("integrated_gradients", "saliency", "input_x_gradient", "smoothgrad_ig")


def require_finite(name: str, number: object, dtype: np.dtype[np.generic] | None = None) -> None:
    """Raise `InputError` unless the argument `name` is a finite number, also as a `dtype`."""
    largest = float(np.finfo(np.float64 if dtype is None else cast("Any", dtype)).max)
    plain = number.item() if isinstance(number, np.generic) else number
    if not is_real(plain) or not -largest <= plain <= largest:
        kind = "" if dtype is None else f" in {dtype}"
        raise InputError(f"{name} is {number!r}; expected a finite number{kind}")


def points_of(method: str, steps: int, rule: str, chunk: int, *, alone: bool) -> Points:
    """The points of `method`'s path; the first is the baseline, of no weight unless the rule has it.

    `alone`: one point at a time, whatever the chunk.
    """
    if method not in METHODS:
        raise InputError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    require_whole("chunk", chunk, 1)
    alpha, weight = nodes_and_weights(rule, steps)
    if method in ("saliency", "input_x_gradient"):
        alpha, weight = np.ones(1), np.ones(1)
    if alpha[0] != 0:
        alpha, weight = np.concatenate([[0.0], alpha]), np.concatenate([[0.0], weight])
    return Points(alpha, weight, 1 if alone else int(chunk), times_difference=method != "saliency")


def noise_of(method: str, samples: int, std: float | None, seed: int) -> Noise | None:
    """The noise of `method`; None: it has none."""
    if method != "smoothgrad_ig":
        return None
    require_whole("noise_samples", samples, 1)
    require_whole("seed", seed, 0)
    if std is not None and not (is_real(std) and 0 <= float(std) < float("inf")):
        raise InputError(f"noise_std is {std!r}; expected None or a number of at least 0")
    return Noise(int(samples), None if std is None else float(std), int(seed))


def default_target(target: int | Sequence[int] | str, output: ir.Value, batching: Batching) -> int:
    """The default of the input `target`: a place in an example's output, counted row by row."""
    if isinstance(target, str):
        if target != "argmax":
            raise InputError(f"target is {target!r}; expected 'argmax', an int or a tuple of ints")
        return ARGMAX
    sizes = list(dims(output))
    if batching.batch_axis is not None:
        del sizes[batching.batch_axis]
    index = (target,) if is_whole(target) else target
    if not isinstance(index, Sequence) or not all(is_whole(i) for i in index):
        raise InputError(f"target is {target!r}; expected 'argmax', an int or a tuple of ints")
    if len(index) != len(sizes) and not (is_whole(target) and target == 0):
        raise InputError(
            f"target is {target!r}; expected an index into an example's output, which has shape {_axes(sizes)}"
        )
    place = 0
    for i, size in zip(index, sizes, strict=False):
        if i < 0 or (isinstance(size, int) and i >= size):
            raise InputError(
                f"target is {target!r}; expected an index into an example's output, which has shape {_axes(sizes)}"
            )
        if place and not isinstance(size, int):
            raise InputError(
                f"target is {target!r}: the size of an axis of the output ({_axes(sizes)}) is not known, so the place "
                "is not either: feed it when you run the model"
            )
        place = place * (size if isinstance(size, int) else 1) + i
    return int(place)


def _axes(sizes: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in sizes) + "]"
