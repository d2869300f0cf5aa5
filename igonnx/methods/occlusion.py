"""Occlusion: a window slides over the input, and what the score loses under it is laid where it was."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, Unpack

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution
from igonnx.baselines import Baselines
from igonnx.channels import channel_axis
from igonnx.checks import is_whole
from igonnx.errors import InputError
from igonnx.inputs import Arrays
from igonnx.methods.call import Array, Call, Explaining, MethodResult, Options
from igonnx.methods.features import Features
from igonnx.methods.masking import masked_scores, rows_of_masks
from igonnx.targets import Target

__all__ = ["Sizes", "occlusion"]

WINDOWS_PER_SIDE = 14  # of the default for pictures, were they laid side by side

# One number for every axis, or one for each; {name: these} for several tensors.
Sizes: TypeAlias = "int | Sequence[int] | Mapping[str, int | Sequence[int]] | None"


def occlusion(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    window: Sizes = None,
    strides: Sizes = None,
    **options: Unpack[Options],
) -> Attribution:
    """Occlusion (Zeiler and Fergus, 2013, arXiv:1311.2901): what the score loses where a window covers the input.

    The window slides over the input in steps of `strides`; under it is the baseline. An element has the mean loss over
    the windows that cover it. Along an axis of n elements there are ceil((n - window) / stride) + 1 windows, of which
    the last may reach beyond the end: these are Captum's. Only forward passes are made, so the model need not be
    differentiable.

    Args:
        inputs, target, baseline: as for `integrated_gradients`.
        seed: of noise and of random baselines.
        window: size of the window along each axis but that of the batch, such as (3, 15, 15) for [N, 3, H, W]; one
            number for every axis; {name: size} where several tensors are explained, which are covered one after the
            other. Default for pictures ([N, C, H, W] or [N, H, W, C]): all channels, and a fourteenth of each side,
            in steps of half of that; for anything else: single elements.
        strides: steps, likewise; each at most the window's size there, so that all is covered. Default: 1 where a
            `window` is given.
        options: noise, noise_samples, noise_std, progress (in forward passes), timeout, cancel, as for
            `integrated_gradients`.

    One forward pass per window, and one of the input itself. Raises as `integrated_gradients`, and `InputError` for a
    window or strides that do not fit.

    """
    return explainer.explain_with(
        partial(_occluded, window=window, strides=strides),
        inputs,
        method=f"occlusion window={window} strides={strides}",
        target=target,
        baseline=baseline,
        seed=seed,
        propagation=None,
        **options,
    )


def _occluded(call: Call, *, window: Sizes, strides: Sizes) -> MethodResult:
    slides = _slides(call.requests.x, window, strides)
    features, count = _cells(slides), sum(slide.count for slide in slides.values())
    scores = np.empty((len(call), count + 1))
    flat, tick = scores.reshape(-1), call.ticking(scores.size)
    size = rows_of_masks(call, features)
    for start in range(0, flat.size, size):
        number = np.arange(start, min(start + size, flat.size))
        keep = _masks(slides, number % (count + 1), features.count)
        rows = number // (count + 1)
        flat[number] = masked_scores(call, rows, keep, features, tick=tick)
    losses = scores[:, -1:] - scores[:, :-1]
    attribution, before = {}, 0
    for name, slide in slides.items():
        attribution[name] = slide.laid_out(losses[:, before : before + slide.count])
        before += slide.count
    return MethodResult(
        attribution=attribution,
        steps_used=np.full(len(call), count + 1),
        scores=scores[:, -1].copy(),
    )


@dataclass(frozen=True)
class _Axis:
    """Windows along one axis: which of its elements each covers, and the elements as cells that no window cuts."""

    covered: NDArray[np.bool_]  # [windows, elements]
    cell: NDArray[np.int64]  # [elements], the cell that each is in
    covered_cells: NDArray[np.bool_]  # [windows, cells]


@dataclass(frozen=True)
class _Slide:
    """The windows over one tensor, in the order of their places: the last axis moves first."""

    axes: tuple[_Axis, ...]

    @property
    def count(self) -> int:
        """How many windows there are."""
        return math.prod(len(axis.covered) for axis in self.axes)

    @property
    def cells(self) -> tuple[int, ...]:
        """How many cells there are along each axis."""
        return tuple(axis.covered_cells.shape[1] for axis in self.axes)

    def cell_of_elements(self) -> NDArray[np.int64]:
        """The number of each element's cell, in the shape of an example."""
        grids = np.meshgrid(*(axis.cell for axis in self.axes), indexing="ij")
        return np.asarray(np.ravel_multi_index(tuple(grids), self.cells)) if grids else np.array(0)

    def covered_by(self, windows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each of `windows` [B] covers each cell, [B, cells]."""
        lengths = tuple(len(axis.covered) for axis in self.axes)
        # An example that is a single number has no axes, which NumPy does not count over.
        places = np.unravel_index(windows, lengths) if lengths else ()
        found = np.ones((len(windows), 1), bool)
        for axis, place in zip(self.axes, places, strict=True):
            found = (found[:, :, None] & axis.covered_cells[place][:, None, :]).reshape(
                len(windows), -1
            )
        return found

    def laid_out(self, losses: Array) -> Array:
        """The mean of the windows' losses [R, windows] over those that cover each element, [R, ...]."""
        total = losses.reshape(len(losses), *(len(axis.covered) for axis in self.axes))
        times = np.ones(1)
        for axis in self.axes:  # each goes to the end, and so they come in order
            covered = axis.covered.astype(np.float64)
            total = np.tensordot(total, covered, axes=(1, 0))
            times = times[..., None] * covered.sum(axis=0)
        return np.asarray(total / times)


def _masks(
    slides: Mapping[str, _Slide], windows: NDArray[np.int64], count: int
) -> NDArray[np.float32]:
    """What is kept under each of `windows` [B], numbered over all tensors: [B, cells]; the last one covers nothing."""
    keep = np.ones((len(windows), count), np.float32)
    first = cell = 0
    for slide in slides.values():
        cells = math.prod(slide.cells)
        here = np.flatnonzero((windows >= first) & (windows < first + slide.count))
        keep[here, cell : cell + cells] = ~slide.covered_by(windows[here] - first)
        first, cell = first + slide.count, cell + cells
    return keep


def _cells(slides: Mapping[str, _Slide]) -> Features:
    """Features that no window cuts: the same for all examples."""
    index, before = {}, 0
    for name, slide in slides.items():
        index[name] = before + slide.cell_of_elements()[None]
        before += math.prod(slide.cells)
    return Features(index, np.array([before]))


# -- windows, as the caller gives them -------------------------------------------------------------


def _slides(x: Mapping[str, NDArray[Any]], window: Sizes, strides: Sizes) -> dict[str, _Slide]:
    windows, steps = _by_name("window", window, x), _by_name("strides", strides, x)
    found = {}
    for name, array in x.items():
        shape = array.shape[1:]
        usual = _usual_window(shape)
        if windows[name] is None:
            lengths = usual
            stride = _sizes("strides", steps[name], name, shape, tuple(-(-n // 2) for n in usual))
        else:
            lengths = _sizes("window", windows[name], name, shape, usual)
            stride = _sizes("strides", steps[name], name, shape, (1,) * len(shape))
        for axis, (n, length, step) in enumerate(zip(shape, lengths, stride, strict=True)):
            if length > n:
                raise InputError(
                    f"window of {name!r} is {length} along axis {axis} of {n}; expected at most that"
                )
            if step > length:
                raise InputError(
                    f"strides of {name!r} is {step} along axis {axis}, where the window is {length}: what lies between "
                    "two windows would have no value"
                )
        found[name] = _Slide(tuple(map(_axis, shape, lengths, stride)))
    return found


def _usual_window(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 3:
        return (1,) * len(shape)
    channels = channel_axis(shape)
    return tuple(
        n if axis == channels else -(-n // WINDOWS_PER_SIDE) for axis, n in enumerate(shape)
    )


def _by_name(what: str, given: Sizes, x: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    names = ", ".join(map(repr, x))
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in x]
        if unknown:
            raise InputError(f"{what} is for {unknown[0]!r}; explained are {names}")
        return {name: given.get(name) for name in x}
    if len(x) > 1 and given is not None and not is_whole(given):
        raise InputError(f"{what} is one size; {len(x)} tensors are explained: {names}")
    return dict.fromkeys(x, given)


def _sizes(
    what: str, given: Any, name: str, shape: tuple[int, ...], otherwise: tuple[int, ...]
) -> tuple[int, ...]:
    if given is None:
        return otherwise
    sizes = (given,) * len(shape) if is_whole(given) else given
    if (
        not isinstance(sizes, Sequence | np.ndarray)
        or len(sizes) != len(shape)
        or not all(is_whole(size) and size >= 1 for size in sizes)
    ):
        raise InputError(
            f"{what} of {name!r} is {given!r}; expected a whole number of at least 1 for each axis of {list(shape)}"
        )
    return tuple(int(size) for size in sizes)


def _axis(length: int, window: int, stride: int) -> _Axis:
    starts = np.arange(-(-(length - window) // stride) + 1) * stride
    ends = np.minimum(starts + window, length)
    cuts = np.unique(np.concatenate([starts, ends]))  # 0 and length are among them
    element = np.arange(length)
    covered = (element >= starts[:, None]) & (element < ends[:, None])
    cell = np.searchsorted(cuts, element, side="right") - 1
    return _Axis(covered, cell, covered[:, cuts[:-1]])
