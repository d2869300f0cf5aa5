"""What is explained: a class, an element or any linear functional of the output, per example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from igonnx.errors import InputError

__all__ = ["Target", "TargetIndex", "resolve"]

TargetIndex: TypeAlias = "tuple[int, ...]"
Target: TypeAlias = "int | TargetIndex | Sequence[int | TargetIndex] | NDArray[Any] | None"


def resolve(
    target: Target, output: NDArray[Any], dtype: np.dtype[Any]
) -> tuple[NDArray[Any], list[TargetIndex | None]]:
    """The cotangent [R, ...] of `dtype` for an output [R, ...] (batch axis in front), and the index per example.

    `target` is None (the largest element of each example), an index into the output without its batch axis (int or
    tuple), a list or integer array of one such index per example, or an array of the output's shape (a mask, or any
    weights; then the indices are None). Raises `InputError` for anything else and for an index outside the output.
    """
    examples, shape = len(output), output.shape[1:]
    if _is_functional(target, output.shape):
        if np.asarray(target).dtype.kind not in "biuf":
            raise InputError(f"the target array is {np.asarray(target).dtype}; expected numbers")
        cotangent = np.ascontiguousarray(np.asarray(target), dtype=dtype)
        if not np.isfinite(cotangent).all():
            raise InputError("the target array holds values that are not finite")
        return cotangent, [None] * examples
    if target is None:
        flat = output.reshape(examples, -1).argmax(axis=1)
        indices = [tuple(int(i) for i in np.unravel_index(position, shape)) for position in flat]
    else:
        indices = [_index(one, shape) for one in _per_example(target, examples, shape)]
    cotangent = np.zeros(output.shape, dtype)
    for example, index in enumerate(indices):
        cotangent[(example, *index)] = 1
    return cotangent, list(indices)


def _is_functional(target: Target, shape: tuple[int, ...]) -> bool:
    if not isinstance(target, np.ndarray) or target.shape != shape:
        return False
    # An integer vector for an output of one number per example would be ambiguous: there it means weights too.
    return target.ndim > 1 or len(shape) == 1


def _per_example(target: Target, examples: int, shape: tuple[int, ...]) -> list[Any]:
    if isinstance(target, np.ndarray):
        if target.dtype.kind not in "iu" or target.ndim > 2:
            raise InputError(
                f"target array has shape {list(target.shape)} and dtype {target.dtype}; expected weights of the "
                f"output's shape {[examples, *shape]}, or one integer class per example"
            )
        if target.ndim == 0:
            return [int(target)] * examples
        target = (
            [int(i) for i in target] if target.ndim == 1 else [tuple(map(int, i)) for i in target]
        )
    if isinstance(target, list):
        if len(target) != examples:
            raise InputError(f"{len(target)} targets were given for {examples} examples")
        return target
    return [target] * examples


def _index(given: Any, shape: tuple[int, ...]) -> TargetIndex:
    index = given if isinstance(given, tuple) else (given,)
    if any(isinstance(i, bool) or not isinstance(i, int | np.integer) for i in index):
        raise InputError(f"target {given!r} is not an index: expected integers")
    if len(index) != len(shape):
        wanted = {0: "None", 1: "one index"}.get(len(shape), f"a tuple of {len(shape)} indices")
        raise InputError(
            f"target {given!r} does not fit an output of shape {list(shape)} per example: expected {wanted}"
        )
    for i, size in zip(index, shape, strict=True):
        if not -size <= i < size:
            raise InputError(
                f"target {given!r} is outside the output of shape {list(shape)} per example: expected 0 to {size - 1}"
            )
    return tuple(int(i) % size for i, size in zip(index, shape, strict=True))
