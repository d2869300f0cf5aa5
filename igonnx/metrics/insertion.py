"""Insertion and deletion: what the score does while pixels come in, or go, in the order of their attribution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from igonnx.baselines import OneBaseline
from igonnx.checks import require_flag, require_whole
from igonnx.engine.control import Cancel, call_control
from igonnx.errors import InputError
from igonnx.explainer import Explainer
from igonnx.inputs import Arrays
from igonnx.methods.call import Array, Progress
from igonnx.metrics.features import Features, features_of, heats_of
from igonnx.metrics.subject import PROBABILITY, Given, Subject, require_run, subject_of
from igonnx.row_scores import Apply
from igonnx.targets import Target, TargetIndex

__all__ = ["InsertionDeletion", "insertion_deletion"]

TOGETHER = 32  # points whose scores are asked for at once


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
    attribution: Given,
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
        explainer: the model, its output and what is explained.
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

    Raises `InputError` for values of other shapes, NaN, settings that make no sense, a mask without
    `target`, and, with `normalise`, where the input's score is the baseline's; else as the methods do.

    """
    require_whole("steps", steps, 1)
    require_whole("patch", patch, 1)
    require_flag("normalise", normalise)
    require_run(baseline, seed, progress, "insertion and deletion")
    subject = subject_of(
        explainer,
        inputs,
        attribution,
        target=target,
        baseline=baseline,
        seed=seed,
        control=call_control(timeout, cancel),
        apply=apply,
    )
    features = features_of(heats_of(subject.values, subject.x, channel_axis), patch)
    patches = len(features)
    counts = np.round(np.linspace(0, patches, min(steps, patches) + 1)).astype(np.int64)
    places = _places(features)
    curves = _curves(
        subject, {name: places[:, of[0]] for name, of in features.index.items()}, counts, progress
    )
    if normalise:
        curves = _normalised(curves)
    return InsertionDeletion(counts / patches, curves[0], curves[1], subject.target, subject.apply)


def _places(features: Features) -> NDArray[np.int64]:
    """The place of each feature in the order of importance (its mean attribution), 0 first: int64 [N, F]."""
    order = np.argsort(-features.values / features.sizes, axis=1, kind="stable")
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(len(features))[None], axis=1)
    return place


def _curves(
    subject: Subject,
    places: Mapping[str, NDArray[np.int64]],
    counts: NDArray[np.int64],
    progress: Progress,
) -> Array:
    """Scores [2, N, points] of insertion and deletion when `counts` patches are changed.

    `places` are each pixel's place in the order of each example: int64 [N, ...] with 1 for channels.
    """
    x, baseline = subject.x, subject.baseline
    number, points = len(subject), len(counts)
    scores = np.empty((2, number, points))
    # The ends of one curve are those of the other: deletion is measured between them.
    measured = [(0, i, k) for i in range(number) for k in range(points)]
    measured += [(1, i, k) for i in range(number) for k in range(1, points - 1)]
    for start in range(0, len(measured), TOGETHER):
        rows = np.array(measured[start : start + TOGETHER])
        curve, example, point = rows.T
        inputs = {}
        for name, place in places.items():
            shape = (-1, *[1] * (place.ndim - 1))
            first = place[example] < counts[point].reshape(shape)
            shown = first != curve.astype(bool).reshape(shape)
            inputs[name] = np.where(shown, x[name][example], baseline[name][example])
        scores[curve, example, point] = subject.scored(example, inputs)
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
