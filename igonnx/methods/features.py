"""Which elements of the explained tensors are masked together: the features that perturbation methods switch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from igonnx.errors import InputError
from igonnx.methods.call import Array, Call

__all__ = ["FeatureMask", "Features", "features_of"]

# None: every element is a feature of its own.
FeatureMask: TypeAlias = "ArrayLike | Mapping[str, ArrayLike] | None"


@dataclass(frozen=True)
class Features:
    """The features of N examples: numbered from 0 on, over all explained tensors of an example together.

    `index` has the number of each element's feature, int64 [1, ...] where all examples have the same features and
    [N, ...] where each has its own, with the other axes of the tensor; -1: the element is never masked. `counts` is
    how many features there are, int64 [1] or [N].
    """

    index: Mapping[str, NDArray[np.int64]]
    counts: NDArray[np.int64]

    @property
    def count(self) -> int:
        """The largest number of features that an example has."""
        return int(self.counts.max())

    def places(self, examples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where along the first axis of `index` the examples [B] of the caller are."""
        return np.zeros_like(examples) if len(self.counts) == 1 else examples

    def counts_of(self, call: Call) -> NDArray[np.int64]:
        """How many features each request of a call has, int64 [R]."""
        return self.counts[self.places(_examples(call))]

    def spread(self, call: Call, values: NDArray[Any]) -> dict[str, Array]:
        """`values` [R, F] of the features of the call's requests, given to all of their elements: {name: [R, ...]}.

        Elements that are never masked get zero.
        """
        padded = np.concatenate([values, np.zeros((len(values), 1))], axis=1)  # -1: the last
        places = self.places(_examples(call))
        found = {}
        for name, index in self.index.items():
            attribution = np.empty((len(values), *index.shape[1:]))
            for request, place in enumerate(places):
                attribution[request] = padded[request][index[place]]
            found[name] = attribution
        return found


def features_of(call: Call, feature_mask: FeatureMask = None) -> Features:
    """The features that a caller's `feature_mask` stands for.

    None: every element is a feature. An array of integers, or {name: array} of them: elements with the same number are
    one feature, across tensors, too; a negative number: never masked. An array has the tensor's shape without the
    batch axis, or one that broadcasts to it, and then holds for all examples; or with the batch axis in front, of 1 or
    of all examples. Numbers need not be consecutive: they are counted anew, in ascending order, per example.

    Raises `InputError` for names that are not explained, for numbers that are not whole, and for shapes that do not
    fit.
    """
    x = call.requests.x
    if feature_mask is None:
        return _every_element(x)
    count = int(_examples(call).max()) + 1
    masks = _by_name(feature_mask, x)
    shaped = {name: _fitted(name, masks[name], x[name].shape[1:], count) for name in x}
    most = max(len(mask) for mask in shaped.values())
    numbered = [
        _numbered({name: mask[place % len(mask)] for name, mask in shaped.items()})
        for place in range(most)
    ]
    counts = np.array([number for _, number in numbered])
    if not counts.any():
        raise InputError("feature_mask is negative everywhere: there is no feature to mask")
    index = {name: np.stack([one[name] for one, _ in numbered]) for name in x}
    return Features(index, counts)


def _examples(call: Call) -> NDArray[np.int64]:
    return call.examples_of(np.arange(len(call)))


def _every_element(x: Mapping[str, NDArray[Any]]) -> Features:
    index, before = {}, 0
    for name, array in x.items():
        size = array[0].size
        index[name] = np.arange(before, before + size).reshape(1, *array.shape[1:])
        before += size
    return Features(index, np.array([before]))


def _by_name(given: Any, x: Mapping[str, NDArray[Any]]) -> Mapping[str, Any]:
    names = ", ".join(map(repr, x))
    if not isinstance(given, Mapping):
        if len(x) > 1:
            raise InputError(f"feature_mask is one array; {len(x)} tensors are explained: {names}")
        return {next(iter(x)): given}
    if set(given) != set(x):
        raise InputError(
            f"feature_mask is for {', '.join(map(repr, given)) or 'nothing'}; expected one for {names}"
        )
    return given


def _fitted(name: str, given: Any, shape: tuple[int, ...], count: int) -> NDArray[np.int64]:
    """The mask of a tensor as int64 [1 or N, *shape]."""
    try:
        mask = np.asarray(given)
    except ValueError as error:  # lists of different lengths
        raise InputError(f"feature_mask of {name!r} is no array: {error}") from error
    if mask.dtype.kind not in "iub":
        raise InputError(f"feature_mask of {name!r} has dtype {mask.dtype}; expected integers")
    if mask.ndim <= len(shape):
        mask = mask.reshape(1, *[1] * (len(shape) - mask.ndim), *mask.shape)
    fits = (
        mask.ndim == len(shape) + 1
        and mask.shape[0] in (1, count)
        and all(size in (1, full) for size, full in zip(mask.shape[1:], shape, strict=True))
    )
    if not fits:
        raise InputError(
            f"feature_mask of {name!r} has shape {list(np.shape(given))}; expected {list(shape)}, "
            f"{[count, *shape]} or one that broadcasts to it"
        )
    return np.broadcast_to(mask, (mask.shape[0], *shape)).astype(np.int64)


def _numbered(masks: Mapping[str, NDArray[np.int64]]) -> tuple[dict[str, NDArray[np.int64]], int]:
    """The masks of one example with their numbers counted from 0 on, and how many there are."""
    flat = np.concatenate([mask.ravel() for mask in masks.values()])
    known = np.unique(flat[flat >= 0])
    places = np.where(flat < 0, -1, np.searchsorted(known, flat))
    ends = np.cumsum([mask.size for mask in masks.values()])[:-1]
    parts = np.split(places, ends)
    found = {
        name: part.reshape(mask.shape)
        for (name, mask), part in zip(masks.items(), parts, strict=True)
    }
    return found, len(known)
