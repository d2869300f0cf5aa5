"""What is explained: a class, an element or any linear functional of the output, per example.

A target may be an array of the output's shape, whose product with the output is the explained score. `box_target` and
`mask_target` make such arrays for detectors and for segmentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from igonnx.checks import is_whole
from igonnx.errors import InputError

__all__ = ["Target", "TargetIndex", "box_target", "mask_target", "matching_box", "resolve"]

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
    if not all(is_whole(i) for i in index):
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


# -- detection and segmentation --------------------------------------------------------------------


def box_target(
    output: Any,
    box: int | Sequence[int] | NDArray[Any] | None = None,
    class_index: int | None = None,
    *,
    box_axis: int = 1,
    first_class: int = 0,
) -> NDArray[np.float64]:
    """The target for the score of one box of each example: float64, of the output's shape, 1 at the score, else 0.

    Explain what the network itself gives for each candidate box, before boxes are suppressed: behind that, the same
    position may be another box at every point of a path. (`output=` of the explainer may have to name that tensor.)

    output: [N, boxes, columns], or with `box_axis=2` [N, columns, boxes], as `Explainer.predict` gives it; [N, boxes]
        where each box has one score. From column `first_class` on there is a score per class: 0 for DETR or SSD, whose
        boxes are an output of their own, 4 for outputs that begin with four coordinates.
    box: position of the box, or one per example; default: where the score is the highest. `matching_box` finds the
        position of a box that is known by its corners.
    class_index: the class, counted from `first_class` on; default: the class of the highest score there. A column
        for "no object" counts as a class, too: where there is one, name the class.

    Raises `InputError` for indices outside the output, NaN, and outputs of other ranks.
    """
    array = _finite(output, "the output", (2, 3), "[N, boxes] or [N, boxes, columns]")
    if box_axis not in (1, 2) or box_axis >= array.ndim:
        raise InputError(f"box_axis is {box_axis!r}, expected 1, or 2 for [N, columns, boxes]")
    target = np.zeros_like(array)
    scores, chosen = (_boxes_first(whole, box_axis) for whole in (array, target))
    examples, boxes, columns = scores.shape
    first = _position("first_class", first_class, columns)
    classes = list(range(first, columns))
    if class_index is not None:
        classes = [classes[_position("class_index", class_index, len(classes))]]
    for example, given in enumerate(_box_per_example(box, examples)):
        rows = range(boxes) if given is None else [_position("box", given, boxes)]
        candidates = scores[example][np.ix_(rows, classes)]
        row, column = np.unravel_index(candidates.argmax(), candidates.shape)
        chosen[example, rows[int(row)], classes[int(column)]] = 1
    return target


def _boxes_first(array: NDArray[np.float64], box_axis: int) -> NDArray[np.float64]:
    """A view [N, boxes, columns]: what is written there is written into the array."""
    return array[..., None] if array.ndim == 2 else np.moveaxis(array, box_axis, 1)


def matching_box(boxes: Any, box: Sequence[float] | NDArray[Any]) -> NDArray[np.int64]:
    """The position of the box that overlaps most with `box`, per example: int64 [N], as `box_target` takes it.

    boxes: [N, K, 4], a detector's boxes as two corners (x, y, x, y); box: [4], or [N, 4] for one per example, likewise.
    What is compared is the area of the intersection over that of the union. Raises `InputError` for NaN, for other
    shapes, and where no box of an example overlaps with it.
    """
    candidates = _finite(boxes, "boxes", (3,), "[N, K, 4]")
    wanted = _finite(box, "box", (1, 2), "[4] or [N, 4]")
    if candidates.shape[-1] != 4 or wanted.shape not in ((4,), (len(candidates), 4)):
        raise InputError(
            f"boxes has shape {list(candidates.shape)} and box {list(wanted.shape)}; "
            "expected [N, K, 4], and [4] or [N, 4]"
        )
    wanted = np.broadcast_to(wanted, (len(candidates), 4))[:, None]
    sides = np.minimum(candidates[..., 2:], wanted[..., 2:]) - np.maximum(
        candidates[..., :2], wanted[..., :2]
    )
    common = np.maximum(sides, 0).prod(axis=-1)
    areas = [np.maximum(b[..., 2:] - b[..., :2], 0).prod(axis=-1) for b in (candidates, wanted)]
    union = areas[0] + areas[1] - common
    share = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    for example in np.flatnonzero(share.max(axis=1) == 0):
        raise InputError(f"no box of example {example} overlaps with {wanted[example, 0].tolist()}")
    return np.asarray(share.argmax(axis=1), dtype=np.int64)


def mask_target(
    logits: Any,
    class_index: int,
    mask: NDArray[Any] | None = None,
    *,
    class_axis: int = 1,
    mean: bool = False,
) -> NDArray[np.float64]:
    """The target for a class of a segmentation: its logits, summed over a mask; float64 of the output's shape.

    logits: [N, C, H, W], or with `class_axis=-1` [N, H, W, C], as `Explainer.predict` gives it; other numbers of axes
        (volumes, sequences) are taken likewise. With a single class (C = 1), logits above 0 are the class.
    mask: of the output's shape without the class axis, for all examples or with a batch axis: bool, or weights.
        Default: where the class wins. That mask stays as it is along the path: it is a question about the input.
    mean: the mean of the logits over the mask (their sum by its weights) instead of their sum, so that scores of masks
        of different sizes compare.

    Raises `InputError` for a class outside the output, a mask of another shape, NaN, and where nothing is left: a class
    that wins nowhere, or a mask of zeros.
    """
    scores = _finite(logits, "logits", tuple(range(2, 9)), "[N, C, ...]")
    if (
        not isinstance(class_axis, int)
        or class_axis % scores.ndim == 0
        or abs(class_axis) >= scores.ndim
    ):
        raise InputError(
            f"class_axis is {class_axis!r}, expected an axis of {list(scores.shape)} behind the first"
        )
    target = np.zeros_like(scores)
    by_class = np.moveaxis(scores, class_axis, 0)
    classes = len(by_class)
    position = _position("class_index", class_index, classes)
    shape = by_class.shape[1:]
    if mask is None:
        weights = (by_class.argmax(axis=0) == position) if classes > 1 else by_class[0] > 0
    else:
        weights = _finite(
            mask, "the mask", (len(shape) - 1, len(shape)), f"{list(shape[1:])} or {list(shape)}"
        )
        if weights.shape not in (shape, shape[1:]):
            raise InputError(
                f"the mask has shape {list(weights.shape)}, expected {list(shape[1:])} or {list(shape)}"
            )
    weights = np.broadcast_to(weights, shape).astype(np.float64)
    totals = weights.reshape(len(weights), -1).sum(axis=1)
    empty = ~weights.reshape(len(weights), -1).any(axis=1)
    if empty.any():
        what = (
            "the mask is zero everywhere"
            if mask is not None
            else f"class {class_index} wins nowhere; pass a mask"
        )
        raise InputError(f"example {int(empty.argmax())}: {what}")
    if mean:
        if not totals.all():
            raise InputError(
                f"example {int((totals == 0).argmax())}: the mask's weights add up to 0, so there is no mean"
            )
        weights = weights / totals.reshape(-1, *[1] * (weights.ndim - 1))
    np.moveaxis(target, class_axis, 0)[position] = weights
    return target


def _box_per_example(box: int | Sequence[int] | NDArray[Any] | None, examples: int) -> list[Any]:
    if box is None or isinstance(box, int | np.integer):
        return [box] * examples
    boxes = list(box)
    if len(boxes) != examples:
        raise InputError(f"{len(boxes)} boxes were given for {examples} examples")
    return boxes


def _position(name: str, given: Any, size: int) -> int:
    if not is_whole(given) or not -size <= given < size:
        raise InputError(f"{name} is {given!r}, expected 0 to {size - 1}")
    return int(given) % size


def _finite(values: Any, name: str, ranks: tuple[int, ...], expected: str) -> NDArray[np.float64]:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" or array.ndim not in ranks or array.size == 0:
        raise InputError(
            f"{name} has shape {list(array.shape)} and dtype {array.dtype}, expected numbers {expected}"
        )
    if not np.isfinite(array).all():
        raise InputError(f"{name} holds values that are not finite")
    return array.astype(np.float64)
