"""RISE: what the score is, in the mean, while a place can be seen through random masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, Unpack

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution
from igonnx.baselines import Baselines
from igonnx.channels import channel_axis
from igonnx.checks import is_whole, require_flag, require_number, require_whole
from igonnx.errors import InputError
from igonnx.inputs import Arrays
from igonnx.methods.call import Call, Explaining, MethodResult, Options
from igonnx.methods.features import Features
from igonnx.methods.masking import masked_scores, rows_of_masks
from igonnx.targets import Target

__all__ = ["Axes", "Masking", "Stencil", "rise"]

Axes: TypeAlias = "Sequence[int] | Mapping[str, Sequence[int]] | None"


def rise(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    masks: int = 4000,
    grid: int = 7,
    probability: float = 0.5,
    axes: Axes = None,
    centred: bool = False,
    **options: Unpack[Options],
) -> Attribution:
    """RISE (Petsiuk, Das and Saenko, 2018, arXiv:1806.07421): the mean score while a place is seen.

    A mask is a grid of cells, each open with a `probability`, made as large as the image by linear interpolation and
    shifted at random by up to a cell. A pixel's value is the mean of the masked images' scores, weighted by how much of
    the pixel their masks let through: sum(score mask) / sum(mask). Values are therefore scores, around that of a half
    masked image, and do not add up to anything: `delta` means nothing here. The paper explains probabilities: make the
    explainer with apply="softmax" where the model's output are logits.

    Args:
        inputs, target: as for `integrated_gradients`.
        baseline: what is seen where a mask is closed; else as for `integrated_gradients`.
        seed: of the masks; they are the same for every example.
        masks: how many, each a forward pass.
        grid: cells along each masked axis; on an axis that is shorter, each place is a cell.
        probability: that a cell is open, above 0 and below 1.
        axes: which axes of a tensor the masks have, without the batch axis, or {tensor name: axes}; along the others,
            channels, a mask is the same. Default: of three axes, an image's, or four, a volume's, all but that of the
            channels (`igonnx.channels.channel_axis`); of fewer, all. (1,) is right for a series [N, channels, time],
            (0,) for embeddings [N, words, width].
        centred: subtract from the scores their mean over the masks: a place that decides nothing is then near zero, and
            a negative value tells that the score is lower while the place is seen.
        options: noise, noise_samples, noise_std, progress (in forward passes), timeout, cancel, as for
            `integrated_gradients`.

    Several explained tensors have masks of their own. `steps_used` counts forward passes.

    Raises as `integrated_gradients`, but for what concerns gradients: there are none.

    """
    require_whole("masks", masks, 1)
    require_whole("grid", grid, 1)
    require_number("probability", probability, 0, 1, above=True)
    if probability == 1:
        raise InputError("probability is 1; expected less: the masks would hide nothing")
    require_flag("centred", centred)
    chosen = _chosen_axes(axes, explainer.wrt)
    masking = Masking(int(masks), int(grid), float(probability), chosen)
    return explainer.explain_with(
        partial(_rise, masking=masking, centred=bool(centred)),
        inputs,
        method=f"rise masks={masks} grid={grid} probability={probability} centred={bool(centred)}",
        target=target,
        baseline=baseline,
        seed=seed,
        propagation=None,
        **options,
    )


def _chosen_axes(axes: Axes, names: Sequence[str]) -> Mapping[str, tuple[int, ...]]:
    """The axes given for each tensor. Raises `InputError` for what are no axes, or of no explained tensor."""
    by_name = (
        axes
        if isinstance(axes, Mapping)
        else dict.fromkeys(names, axes)
        if axes is not None
        else {}
    )
    found = {}
    for name, given in by_name.items():
        if name not in names:
            expected = ", ".join(map(repr, names))
            raise InputError(f"axes for {name!r}, which is not explained; expected {expected}")
        sequence = isinstance(given, Sequence) and not isinstance(given, str)
        if not sequence or not given or not all(is_whole(axis) and axis >= 0 for axis in given):
            raise InputError(
                f"axes is {given!r}; expected whole numbers of at least 0, such as (1, 2)"
            )
        found[name] = tuple(dict.fromkeys(int(axis) for axis in given))
    return found


@dataclass(frozen=True)
class Masking:
    """How masks are drawn."""

    masks: int
    grid: int
    probability: float
    axes: Mapping[str, tuple[int, ...]]  # of tensors for which they were given

    def stencils(self, x: Mapping[str, NDArray[Any]], seed: int) -> dict[str, Stencil]:
        """What makes the masks of each tensor {name: [R, ...]}. Raises `InputError` for axes that it does not have."""
        random = np.random.default_rng(seed)
        return {
            name: self._stencil(name, array.shape[1:], random) for name, array in sorted(x.items())
        }

    def _stencil(self, name: str, shape: tuple[int, ...], random: np.random.Generator) -> Stencil:
        axes = self.axes.get(name)
        if axes is None:
            channels = channel_axis(shape) if len(shape) in (3, 4) else None
            axes = tuple(axis for axis in range(len(shape)) if axis != channels)
        if axes and max(axes) >= len(shape):
            raise InputError(
                f"axes is {axes}; expected axes of {name!r}, which has {len(shape)} beside that of the examples"
            )
        axes = tuple(sorted(axes))
        lengths = [shape[axis] for axis in axes]
        cells = [min(self.grid, length) for length in lengths]
        open_cells = random.random((self.masks, *cells)) < self.probability
        samplers = [
            _interpolation(length, count) for length, count in zip(lengths, cells, strict=True)
        ]
        shifts = [random.integers(len(sampler), size=self.masks) for sampler in samplers]
        return Stencil(shape, axes, open_cells, shifts, samplers)


def _interpolation(length: int, cells: int) -> NDArray[np.float32]:
    """Linear interpolation between the centres of `cells`, for each shift by less than a cell: [shifts, length, cells].

    Cells are stretched as if there was one more to be shifted out of sight: (cells + 1) / cells of `length`. Beyond the
    outer cells' centres they go on as they are there.
    """
    if cells == length:
        return np.eye(length, dtype=np.float32)[None]
    width = length / cells
    places = np.arange(np.ceil(width))[:, None] + np.arange(length)
    at = ((places + 0.5) * cells / ((cells + 1) * width) - 0.5).clip(0, cells - 1)
    share = np.maximum(0, 1 - np.abs(at[..., None] - np.arange(cells)))
    return np.asarray(share, dtype=np.float32)


@dataclass(frozen=True)
class Stencil:
    """The masks of one tensor, drawn but not yet made large."""

    shape: tuple[int, ...]  # of the tensor, without the batch axis
    axes: tuple[int, ...]
    cells: NDArray[np.bool_]  # [masks, cells along each axis]
    shifts: list[NDArray[np.int64]]  # [masks] along each axis
    samplers: list[NDArray[np.float32]]

    @property
    def places(self) -> int:
        """How many numbers a mask has."""
        return int(np.prod([self.shape[axis] for axis in self.axes], dtype=np.int64))

    def index(self, before: int) -> NDArray[np.int64]:
        """The place in the mask of each element, counted from `before` on: [1, *shape]."""
        lengths = [length if axis in self.axes else 1 for axis, length in enumerate(self.shape)]
        numbers = np.arange(before, before + self.places).reshape(lengths)
        return np.array(np.broadcast_to(numbers, self.shape))[None]

    def masks(self, start: int, stop: int) -> NDArray[np.float32]:
        """Masks of that range, from 0 to 1, [masks, places]."""
        found = self.cells[start:stop].astype(np.float32)
        for axis, (sampler, shift) in enumerate(zip(self.samplers, self.shifts, strict=True)):
            along = sampler[shift[start:stop]]  # [masks, length, cells]
            moved = np.moveaxis(found, axis + 1, 1)
            rest = moved.shape[2:]
            stretched = along @ moved.reshape(*moved.shape[:2], -1)
            found = np.moveaxis(stretched.reshape(*stretched.shape[:2], *rest), 1, axis + 1)
        return np.asarray(found.reshape(len(found), -1).clip(0, 1))


def _rise(call: Call, *, masking: Masking, centred: bool) -> MethodResult:
    count, total = len(call), masking.masks
    stencils = masking.stencils(call.requests.x, call.seed)
    features = _features(stencils)
    every = np.arange(count)
    scores = np.empty((count, total))
    weighted, seen, mean = np.zeros((count, features.count)), np.zeros(features.count), 0.0
    tick = call.ticking(count * total)
    together = max(1, rows_of_masks(call, features) // count)
    for start in range(0, total, together):
        stop = min(start + together, total)
        keep = np.concatenate([s.masks(start, stop) for s in stencils.values()], axis=1)
        found = masked_scores(
            call, np.repeat(every, len(keep)), np.tile(keep, (count, 1)), features, tick=tick
        )
        scores[:, start:stop] = found.reshape(count, -1)
        weighted += scores[:, start:stop] @ keep.astype(np.float64)
        seen += keep.sum(axis=0, dtype=np.float64)
    if centred:
        mean = scores.mean(axis=1, keepdims=True)
    values = np.divide(weighted, seen, out=np.zeros_like(weighted), where=seen > 0)
    return MethodResult(
        attribution=features.spread(call, np.where(seen > 0, values - mean, 0.0)),
        steps_used=np.full(count, total),
    )


def _features(stencils: Mapping[str, Stencil]) -> Features:
    index, before = {}, 0
    for name, stencil in stencils.items():
        index[name] = stencil.index(before)
        before += stencil.places
    return Features(index, np.array([before]))
