"""How good an attribution is, measured on the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution
from igonnx.autodiff.propagation import GRADIENT
from igonnx.baselines import OneBaseline
from igonnx.channels import channel_axis as find_channel_axis
from igonnx.checks import as_finite, is_whole, require_whole
from igonnx.engine.control import Cancel, call_control
from igonnx.errors import InputError
from igonnx.explainer import Explainer
from igonnx.inputs import Arrays, checked_inputs
from igonnx.methods.call import Array, Progress, Scores, require_progress
from igonnx.preparation import Prepared
from igonnx.requests import Examples
from igonnx.row_scores import Apply, normalised_apply
from igonnx.targets import Target, TargetIndex

__all__ = ["PROBABILITY", "InsertionDeletion", "completeness", "insertion_deletion"]

PROBABILITY = "probability"
TOGETHER = 16  # inputs of one forward pass


@dataclass(frozen=True)
class InsertionDeletion:
    """The curves of `insertion_deletion` for N examples at P points.

    fraction: float64 [P] from 0 to 1, the share of pixels (or patches) that is changed at each point.
    insertion: float64 [N, P], the score while the most important pixels come in: from the baseline's to the input's.
    deletion: float64 [N, P], the score while they go: from the input's to the baseline's.
    target: per example the index whose score it is, None for a mask.
    apply: what was applied to the output; None: nothing.
    """

    fraction: Array
    insertion: Array
    deletion: Array
    target: list[TargetIndex | None]
    apply: Apply

    @property
    def insertion_area(self) -> Array:
        """The area under the insertion curve, float64 [N]: the higher, the better; trapezoids between the points."""
        return _area(self.insertion, self.fraction)

    @property
    def deletion_area(self) -> Array:
        """The area under the deletion curve, float64 [N]: the lower, the better."""
        return _area(self.deletion, self.fraction)

    @property
    def score(self) -> Array:
        """Insertion area minus deletion area, float64 [N]: the higher, the better.

        A random order of the pixels has 0 in expectation, as it is as likely as the same backwards, which swaps the
        areas; an order and its reverse have opposite scores.
        """
        return self.insertion_area - self.deletion_area


def insertion_deletion(
    explainer: Explainer,
    inputs: Arrays,
    attribution: Attribution | NDArray[Any] | Mapping[str, NDArray[Any]],
    *,
    target: Target = None,
    baseline: OneBaseline = "blurred",
    seed: int = 0,
    steps: int = 50,
    patch: int = 1,
    apply: Apply = PROBABILITY,
    normalise: bool = False,
    channel_axis: int | None = None,
    progress: Progress = None,
    timeout: float | None = None,
    cancel: Cancel = None,
) -> InsertionDeletion:
    """Insertion and deletion (Petsiuk, Das and Saenko, 2018, arXiv:1806.07421): whether the order of the pixels holds.

    Pixels, or patches of them, are ordered by attribution, summed over channels, from the highest to the lowest; those
    that are equal keep their order in the array. Insertion brings them from the input into the baseline in that order,
    deletion the other way round. Where the first pixels decide, one curve rises soon and the other falls soon. Both
    curves use the same baseline here (the paper inserts into a blurred image and deletes to a constant one), so that a
    random order scores 0 on average whatever the model: see `InsertionDeletion.score`.

    The measure asks for an order only, not for values. Half-filled pictures are unlike any that the model was
    trained on; where the baseline itself has a score, the curves start from there.

    Args:
        explainer: the model, its output and what is explained; tensors inside the model cannot be masked.
        inputs: as for its methods.
        attribution: what one of its methods gave for them, or values by tensor: of the tensor's shape, or of its shape
            without the channels.
        target: as for its methods; default: that of the `Attribution`, else the largest element.
        baseline: what takes the place of pixels: as for its methods, but one only.
        seed: of a random baseline.
        steps: at how many points after the start the curves are measured: 2 * steps forward passes per example; no
            more than there are patches.
        patch: pixels are changed in squares (of series: pieces) of this length, ordered by their mean attribution, as
            in Samek et al. (2017, arXiv:1509.06321). 1 changes every pixel by itself: what is inserted first then is
            grain, of which the model often makes nothing, or something else, wherever it lies.
        apply: how the output becomes a score. "probability": by what the explainer applies (of log_softmax its
            softmax), or if that is nothing by softmax, unless the output holds probabilities already or has no
            classes (one number per example). Else what an explainer takes for `apply`: None measures the output as it
            is.
        normalise: measure from the baseline's score, 0, to the input's, 1, so that examples compare.
        channel_axis: of tensors of three or more axes, counted with the batch axis; default: of images the axis that
            `igonnx.visual` finds, else 1.
        progress: called with (passes done, passes in all) from time to time; an exception in it stops.
        timeout: as for the methods.
        cancel: as for the methods.

    Raises `InputError` for values of other shapes, NaN, settings that make no sense, tensors inside the model, a mask
    without `target`, and, with `normalise`, where the input's score is the baseline's; else as the methods do.

    """
    require_whole("steps", steps, 1)
    require_whole("patch", patch, 1)
    require_whole("seed", seed, 0)
    require_progress(progress)
    if isinstance(baseline, list):
        raise InputError("baseline is a list; insertion and deletion need one baseline")
    arrays = checked_inputs(explainer.model, inputs, explainer.wrt)
    inner = [name for name in explainer.wrt if name not in arrays]
    if inner:
        raise InputError(
            f"wrt {inner[0]!r} is inside the model; insertion and deletion change inputs of the model only"
        )
    values, target = _values_and_target(attribution, explainer.wrt, target)
    examples = _examples(explainer, arrays, apply)
    asked = examples.question(target, baseline, seed)
    ranks, patches = _ranks(values, asked.requests.x, channel_axis, patch)
    counts = np.round(np.linspace(0, patches, min(steps, patches) + 1)).astype(np.int64)
    scored = partial(examples.scores, asked.requests.cotangent, call_control(timeout, cancel))
    curves = _curves(scored, asked.requests.x, asked.baselines[0], ranks, counts, progress)
    if normalise:
        curves = _normalised(curves)
    return InsertionDeletion(counts / patches, curves[0], curves[1], asked.indices, examples.apply)


def completeness(attribution: Attribution) -> Array:
    """How far the values are from adding up: |delta| as a share of |score - baseline score|, float64 [N].

    0 is exact. Where contributions cancel almost to nothing, a ten-thousandth of their absolute sum is the measure
    instead (`Attribution.relative_delta`). Methods that do not promise to add up (saliency, guided backpropagation)
    have large numbers here, which is no error of theirs.
    """
    return attribution.relative_delta


# -- what is measured --------------------------------------------------------------------------


def _values_and_target(
    attribution: Attribution | NDArray[Any] | Mapping[str, NDArray[Any]],
    wrt: tuple[str, ...],
    target: Target,
) -> tuple[dict[str, Array], Target]:
    """Values by tensor, finite, and the target they are for."""
    values: Any = attribution
    if isinstance(attribution, Attribution):
        values = attribution.values
        if target is None:
            known = [index for index in attribution.target if index is not None]
            if len(known) < len(attribution.target):
                raise InputError("the attribution explains a mask: pass the same target=")
            target = known
    named = values if isinstance(values, Mapping) else dict.fromkeys(wrt[:1], values)
    if set(named) != set(wrt):
        raise InputError(
            f"the attribution is for {sorted(named)}; expected one for each of {list(wrt)}"
        )
    return {name: as_finite(named[name]) for name in wrt}, target


def _examples(explainer: Explainer, arrays: Mapping[str, NDArray[Any]], apply: Apply) -> Examples:
    """What scores the examples, with `apply` in place of the explainer's own."""
    prepared = explainer._prepare(arrays)
    with explainer._preparing:
        gradients = prepared.gradients(GRADIENT)
    if apply == PROBABILITY:
        apply = _probability(explainer, prepared, arrays)
    return Examples(explainer.model, prepared, gradients, arrays, explainer.wrt, apply)


def _probability(
    explainer: Explainer, prepared: Prepared, arrays: Mapping[str, NDArray[Any]]
) -> Apply:
    """What makes a probability of the explained output."""
    match explainer.apply:
        case None:
            pass
        case "log_softmax":
            return "softmax"
        case ("log_softmax", axis):
            return "softmax", axis
        case known:
            return known
    output = prepared.run(arrays)[explainer.output]
    batch = prepared.batch_axis or 0
    classes = _class_axis(output.ndim, stacked=prepared.batch_axis is None)
    if classes is None or classes == batch or output.shape[classes] == 1:
        return None
    sums = output.sum(axis=classes, dtype=np.float64)
    return None if output.min() >= 0 and np.allclose(sums, 1, atol=1e-3) else "softmax"


def _class_axis(rank: int, *, stacked: bool) -> int | None:
    """The axis that softmax would run over in an output of this rank, with one more in front where `stacked`."""
    found = normalised_apply("softmax", rank - stacked) if rank > stacked else None
    return None if found is None else found[1] + stacked


def _ranks(
    values: Mapping[str, Array], x: Mapping[str, NDArray[Any]], channel_axis: int | None, patch: int
) -> tuple[dict[str, NDArray[np.int64]], int]:
    """The place of each patch in the order of importance, 0 first, over all tensors, and the number of patches.

    Each pixel has its patch's place: [N, ...] with 1 for channels.
    """
    heats = {name: _heat(values[name], x[name], name, channel_axis) for name in x}
    means = [_patch_means(heat, patch) for heat in heats.values()]
    count = len(means[0])
    flat = np.concatenate([mean.reshape(count, -1) for mean in means], axis=1)
    order = np.argsort(-flat, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(flat.shape[1])[None], axis=1)
    parts = np.split(rank, np.cumsum([mean[0].size for mean in means])[:-1], axis=1)
    ranks = {}
    for (name, heat), mean, part in zip(heats.items(), means, parts, strict=True):
        whole = part.reshape(mean.shape)
        for axis in _patched_axes(heat):
            whole = whole.repeat(patch, axis=axis).take(range(heat.shape[axis]), axis=axis)
        ranks[name] = whole
    return ranks, flat.shape[1]


def _patched_axes(heat: Array) -> range:
    """Axes along which pixels are neighbours; columns of a table are not."""
    return range(1, heat.ndim if heat.ndim > 2 else 1)


def _patch_means(heat: Array, patch: int) -> Array:
    """The mean of each patch; those at the far borders may be smaller."""
    for axis in _patched_axes(heat):
        starts = np.arange(0, heat.shape[axis], patch)
        sizes = np.diff(np.append(starts, heat.shape[axis]))
        shape = [-1 if other == axis else 1 for other in range(heat.ndim)]
        heat = np.add.reduceat(heat, starts, axis=axis) / sizes.reshape(shape)
    return heat


def _heat(values: Array, x: NDArray[Any], name: str, channel_axis: int | None) -> Array:
    """Attribution per pixel, [N, ...] as `x` but 1 along the channels."""
    axis = channel_axis
    if x.ndim < 3:
        axis = None  # every column is a feature of its own
    elif axis is None:
        axis = 1 + find_channel_axis(x.shape[1:]) if x.ndim == 4 else 1
    elif not is_whole(axis) or not -x.ndim < axis < x.ndim or axis == 0:
        raise InputError(
            f"channel_axis is {axis!r}; expected an axis of {list(x.shape)} behind the first"
        )
    if values.shape == x.shape:
        return values if axis is None else values.sum(axis=axis, keepdims=True)
    wanted = str(list(x.shape))
    if axis is not None:
        without = list(x.shape)
        del without[axis]
        if list(values.shape) == without:
            return np.expand_dims(values, axis)
        wanted += f", or {without} without its channels"
    raise InputError(
        f"the attribution of {name!r} has shape {list(values.shape)}; expected {wanted}"
    )


def _curves(
    scored: Scores,
    x: Mapping[str, NDArray[Any]],
    baseline: Mapping[str, NDArray[Any]],
    ranks: Mapping[str, NDArray[np.int64]],
    counts: NDArray[np.int64],
    progress: Progress,
) -> Array:
    """Scores [2, N, points] of insertion and deletion when `counts` pixels are changed."""
    number, points = len(next(iter(ranks.values()))), len(counts)
    scores = np.empty((2, number, points))
    # The ends of one curve are those of the other: deletion is measured between them.
    measured = [(0, i, k) for i in range(number) for k in range(points)]
    measured += [(1, i, k) for i in range(number) for k in range(1, points - 1)]
    for start in range(0, len(measured), TOGETHER):
        rows = np.array(measured[start : start + TOGETHER])
        curve, example, point = rows.T
        inputs = {}
        for name, rank in ranks.items():
            shape = (-1, *[1] * (rank.ndim - 1))
            first = rank[example] < counts[point].reshape(shape)
            shown = first != curve.astype(bool).reshape(shape)
            inputs[name] = np.where(shown, x[name][example], baseline[name][example])
        scores[curve, example, point] = scored(example, inputs)
        if progress is not None:
            progress(start + len(rows), len(measured))
    scores[1, :, 0], scores[1, :, -1] = scores[0, :, -1], scores[0, :, 0]
    if not np.isfinite(scores).all():
        bad = int(np.argwhere(~np.isfinite(scores))[0, 1])
        raise InputError(f"a score of example {bad} is not finite: try another baseline")
    return scores


def _normalised(curves: Array) -> Array:
    """The curves [2, N, points] from 0 at the baseline to 1 at the input."""
    low, high = curves[0, :, :1], curves[0, :, -1:]
    if (low == high).any():
        example = int(np.argmax((low == high).ravel()))
        raise InputError(
            f"normalise: the score of example {example} is {float(high[example, 0]):.6g} at the input and at the "
            "baseline; there is no change to measure by"
        )
    return np.asarray((curves - low) / (high - low))


def _area(curves: Array, fraction: Array) -> Array:
    """The area under curves [N, points], by trapezoids."""
    return np.asarray((np.diff(fraction) * (curves[:, 1:] + curves[:, :-1]) / 2).sum(axis=1))
