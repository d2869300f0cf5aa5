"""Whether the attributions of random sets of features go with what the model loses without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from igonnx.baselines import OneBaseline
from igonnx.checks import is_whole, require_whole
from igonnx.engine.control import Cancel, call_control
from igonnx.errors import InputError
from igonnx.explainer import Explainer
from igonnx.inputs import Arrays
from igonnx.methods.call import Array, Progress, Tensors
from igonnx.metrics.features import Features, features_of, heats_of
from igonnx.metrics.subject import Given, Subject, require_run, sampled_scores, subject_of
from igonnx.targets import Target, TargetIndex

__all__ = ["FaithfulnessCorrelation", "SensitivityN", "faithfulness_correlation", "sensitivity_n"]

MOST, SIZES = 0.8, 8  # of the features; how many sizes are tried where none are given
SHARE = 0.2  # of the features in one set, where no size is given
# What varies by less than this share of its size varies by rounding: it has no correlation with anything.
ROUNDING = 1e-6


@dataclass(frozen=True)
class SensitivityN:
    """The curve of `sensitivity_n` for N examples and K sizes of sets.

    n: int64 [K], features in a set.
    correlation: float64 [N, K], from -1 to 1; NaN where nothing varies (every set has all features, or the score does
    not depend on them).
    target: per example the index whose score it is, None for a mask.
    """

    n: NDArray[np.int64]
    correlation: Array
    target: list[TargetIndex | None]

    @property
    def score(self) -> Array:
        """The mean over the sizes that have a correlation, float64 [N]: the higher, the better; NaN if none has."""
        known = np.isfinite(self.correlation)
        total, count = np.where(known, self.correlation, 0.0).sum(axis=1), known.sum(axis=1)
        return np.asarray(np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0))


@dataclass(frozen=True)
class FaithfulnessCorrelation:
    """What `faithfulness_correlation` found for N examples and S sets.

    size: features in a set.
    expected: float64 [N, S], the sum of each set's attributions.
    change: float64 [N, S], score(x) - score(x with the set at the baseline).
    scores: float64 [N], score(x).
    target: per example the index whose score it is, None for a mask.
    """

    size: int
    expected: Array
    change: Array
    scores: Array
    target: list[TargetIndex | None]

    @property
    def score(self) -> Array:
        """Pearson's correlation of `expected` and `change`, float64 [N]: the higher, the better; NaN as above."""
        return _correlation(self.expected, self.change, self.scores)


class _Shared(TypedDict, total=False):
    """What both measures take, but for the size of the sets."""

    target: Target
    baseline: OneBaseline
    seed: int
    samples: int
    patch: int
    channel_axis: int | None
    progress: Progress
    timeout: float | None
    cancel: Cancel


def sensitivity_n(
    explainer: Explainer,
    inputs: Arrays,
    attribution: Given,
    *,
    sizes: Sequence[int] | None = None,
    target: Target = None,
    baseline: OneBaseline = None,
    seed: int = 0,
    samples: int = 50,
    patch: int = 1,
    channel_axis: int | None = None,
    progress: Progress = None,
    timeout: float | None = None,
    cancel: Cancel = None,
) -> SensitivityN:
    """Sensitivity-n (Ancona et al., 2018, arXiv:1711.06104): sums of attributions against losses in score.

    For each n, `samples` random sets of n features are brought to the baseline, and the sums of their attributions
    correlated (Pearson) with score(x) - score(without them), per example. The paper calls an attribution that satisfies
    it for all n exact; of a linear model, IG's is.

    Args:
        explainer: the model, its output and what is explained.
        inputs: as for its methods.
        attribution: what one of its methods gave for them, or values by tensor: of the tensor's shape, or of its shape
            without the channels. For slopes (saliency) the measure says little: the paper takes them times the input.
        sizes: the n, each from 1 to the number of features; default: 8 of them from 1 to 80 % of the features, evenly
            on a logarithmic scale.
        target: as for its methods; default: that of the `Attribution`, else the largest element.
        baseline: what features that are taken away become: as for the methods, but one only.
        seed: of the sets, which are the same for every example; those of one n do not depend on the others.
        samples: sets for each n, a forward pass each.
        patch: features are squares of this length (of series: pieces) with all their channels; of tables: columns.
        channel_axis: as for `insertion_deletion`.
        progress: called with (passes done, passes in all) from time to time; an exception in it stops.
        timeout: as for the methods.
        cancel: as for the methods.

    Raises `InputError` for values of other shapes, NaN, settings that make no sense, a mask without `target`, and
    scores that are not finite; else as the methods do.

    """
    subject, features = _asked(
        explainer,
        inputs,
        attribution,
        what="sensitivity-n",
        target=target,
        baseline=baseline,
        seed=seed,
        samples=samples,
        patch=patch,
        channel_axis=channel_axis,
        progress=progress,
        timeout=timeout,
        cancel=cancel,
    )
    wanted = _sizes(sizes, len(features))
    plan = [(n, k) for n in wanted for k in range(samples)]
    expected, change = _losses(subject, features, plan, seed, progress)
    parts = [slice(i * samples, (i + 1) * samples) for i in range(len(wanted))]
    found = [_correlation(expected[:, part], change[:, part], subject.scores) for part in parts]
    return SensitivityN(np.array(wanted), np.stack(found, axis=1), subject.target)


def faithfulness_correlation(
    explainer: Explainer,
    inputs: Arrays,
    attribution: Given,
    *,
    size: int | None = None,
    target: Target = None,
    baseline: OneBaseline = None,
    seed: int = 0,
    samples: int = 100,
    patch: int = 1,
    channel_axis: int | None = None,
    progress: Progress = None,
    timeout: float | None = None,
    cancel: Cancel = None,
) -> FaithfulnessCorrelation:
    """Faithfulness correlation (Bhatt, Weller and Moura, 2020, arXiv:2005.00631): `sensitivity_n` at one size.

    size: features in a set; default: a fifth of them. The other arguments are those of `sensitivity_n`.
    """
    subject, features = _asked(
        explainer,
        inputs,
        attribution,
        what="faithfulness correlation",
        target=target,
        baseline=baseline,
        seed=seed,
        samples=samples,
        patch=patch,
        channel_axis=channel_axis,
        progress=progress,
        timeout=timeout,
        cancel=cancel,
    )
    require_whole("size", size, 1, len(features), optional=True)
    chosen = size or max(1, round(SHARE * len(features)))
    plan = [(chosen, k) for k in range(samples)]
    expected, change = _losses(subject, features, plan, seed, progress)
    return FaithfulnessCorrelation(chosen, expected, change, subject.scores, subject.target)


def _asked(
    explainer: Explainer,
    inputs: Arrays,
    attribution: Given,
    *,
    what: str,
    **shared: Unpack[_Shared],
) -> tuple[Subject, Features]:
    """Check what both measures take, and find the features."""
    require_whole("samples", shared["samples"], 2)
    require_whole("patch", shared["patch"], 1)
    require_run(shared["baseline"], shared["seed"], shared["progress"], what)
    subject = subject_of(
        explainer,
        inputs,
        attribution,
        target=shared["target"],
        baseline=shared["baseline"],
        seed=shared["seed"],
        control=call_control(shared["timeout"], shared["cancel"]),
    )
    heats = heats_of(subject.values, subject.x, shared["channel_axis"])
    return subject, features_of(heats, shared["patch"])


def _sizes(given: Sequence[int] | None, features: int) -> list[int]:
    """The sizes of sets, checked, or the usual ones."""
    if given is None:
        usual = np.geomspace(1, max(1.0, MOST * features), SIZES)
        return [int(n) for n in np.unique(np.round(usual))]
    sizes = list(given) if isinstance(given, Sequence | np.ndarray) else [given]
    if not sizes or not all(is_whole(n) and 1 <= n <= features for n in sizes):
        raise InputError(
            f"sizes is {given!r}; expected whole numbers from 1 to {features}, the features there are"
        )
    return [int(n) for n in sizes]


def _losses(
    subject: Subject,
    features: Features,
    plan: Sequence[tuple[int, int]],
    seed: int,
    progress: Progress,
) -> tuple[Array, Array]:
    """Sums of attributions and losses in score, [N, sets] both, of the sets (size, number) of `plan`."""
    expected = np.empty((len(subject), len(plan)))

    def made(k: int) -> Tensors:
        size, number = plan[k]
        random = np.random.default_rng([seed, size, number])
        chosen = np.zeros(len(features), bool)
        chosen[random.choice(len(features), size, replace=False, shuffle=False)] = True
        expected[:, k] = features.values[:, chosen].sum(axis=1)
        return {
            name: np.where(chosen[features.index[name]], subject.baseline[name], x)
            for name, x in subject.x.items()
        }

    scores = sampled_scores(subject, len(plan), made, progress)
    return expected, subject.scores[:, None] - scores


def _correlation(expected: Array, change: Array, scores: Array) -> Array:
    """Pearson's correlation along the last axis, [N]; NaN where one of the two does not vary.

    `scores` [N]: what changes are differences of, and are rounded by.
    """
    size = np.maximum(np.abs(change).max(axis=1), np.abs(scores))
    varies = (change.std(axis=1) > ROUNDING * size) & (
        expected.std(axis=1) > ROUNDING**2 * np.abs(expected).max(axis=1)
    )
    centred = [rows - rows.mean(axis=1, keepdims=True) for rows in (expected, change)]
    norms = [np.linalg.norm(rows, axis=1) for rows in centred]
    together = (centred[0] * centred[1]).sum(axis=1)
    found = np.divide(together, norms[0] * norms[1], out=np.full(len(size), np.nan), where=varies)
    return np.asarray(np.clip(found, -1.0, 1.0))
