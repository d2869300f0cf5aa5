"""What the score loses where a feature is taken away: by a baseline, or by the values of another example."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution
from igonnx.baselines import Baselines
from igonnx.errors import InputError
from igonnx.inputs import Arrays
from igonnx.methods.call import Array, Call, Explaining, MethodResult, Options, call_for
from igonnx.methods.features import FeatureMask, Features, features_of
from igonnx.methods.masking import masked_scores, rows_of_masks, warn_of_many
from igonnx.methods.superpixels import chosen_features
from igonnx.targets import Target

__all__ = ["feature_ablation", "feature_permutation"]

TOGETHER = 64 << 20  # bytes of x and of what is lent, held at once


def feature_ablation(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    feature_mask: FeatureMask = None,
    segments: int | None = None,
    **options: Unpack[Options],
) -> Attribution:
    """Feature ablation: what the score loses where one feature is replaced by the baseline and the others stay.

    Each element has the whole loss of its feature, as in Captum; for `delta`, a feature counts once. Only forward
    passes are made, so the model need not be differentiable.

    Args:
        inputs, target, baseline: as for `integrated_gradients`.
        seed: of noise and of random baselines.
        feature_mask: which elements make up a feature: integers, those with the same number belong together, in
            different tensors, too; a negative number: never ablated. An array of the input's shape without the batch
            axis or one that broadcasts to it, or with the batch axis for features of each example; {name: array} for
            several tensors. Default: every element is a feature.
        segments: for pictures, in the place of `feature_mask`: about so many superpixels (see
            `igonnx.methods.superpixels`).
        options: noise, noise_samples, noise_std, progress (in forward passes), timeout, cancel, as for
            `integrated_gradients`.

    One forward pass per feature, and one of the input itself. Raises as `integrated_gradients`.

    """
    mask = chosen_features(explainer.wrt, inputs, feature_mask, segments)
    return explainer.explain_with(
        partial(_ablated, feature_mask=mask),
        inputs,
        method=_record("feature_ablation", feature_mask, segments),
        target=target,
        baseline=baseline,
        seed=seed,
        propagation=None,
        **options,
    )


def feature_permutation(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    feature_mask: FeatureMask = None,
    segments: int | None = None,
    **options: Unpack[Options],
) -> Attribution:
    """Feature permutation (Breiman, 2001): what the score loses where a feature has another example's values.

    The examples of the batch lend each other the feature by a random permutation, drawn anew for each feature and never
    the identity; an example that it leaves in place loses nothing. The mean of a feature over many examples is its
    permutation importance. What an example gets depends on the rest of the batch.

    Args:
        inputs, target: as for `integrated_gradients`; at least two examples.
        baseline: changes nothing in the values; `baseline_scores` and `delta` are counted from it.
        seed: of the permutations.
        feature_mask, segments, options: as for `feature_ablation`. With features of its own, each example borrows
            what lies under them.

    One forward pass per feature and example, and one of each example itself. Raises as `integrated_gradients`, and
    `InputError` for a single example.

    """
    mask = chosen_features(explainer.wrt, inputs, feature_mask, segments)
    return explainer.explain_with(
        partial(_permuted, feature_mask=mask),
        inputs,
        method=_record("feature_permutation", feature_mask, segments),
        target=target,
        baseline=baseline,
        seed=seed,
        propagation=None,
        **options,
    )


def _record(method: str, feature_mask: FeatureMask, segments: int | None) -> str:
    if segments is not None:
        return f"{method} segments={segments}"
    return method if feature_mask is None else f"{method} feature_mask=given"


def _ablated(call: Call, *, feature_mask: FeatureMask) -> MethodResult:
    features = features_of(call, feature_mask)
    rows, left_out = _one_by_one(features.counts_of(call))
    warn_of_many(len(rows), len(call), features)
    scores, tick = np.empty(len(rows)), call.ticking(len(rows))
    size = rows_of_masks(call, features)
    for start in range(0, len(rows), size):
        some = slice(start, start + size)
        keep = _all_but(left_out[some], features.count)
        scores[some] = masked_scores(call, rows[some], keep, features, tick=tick)
    return _losses(call, features, rows, left_out, scores)


def _permuted(call: Call, *, feature_mask: FeatureMask) -> MethodResult:
    examples = call.examples_of(np.arange(len(call)))
    count = int(examples.max()) + 1
    if count < 2:
        raise InputError(
            "feature_permutation was given one example; expected at least two, which lend each other their features"
        )
    features = features_of(call, feature_mask)
    lenders = _permutations(features.count, count, call.seed)
    rows, left_out = _one_by_one(features.counts_of(call))
    # Copies of the requests, [copies * count], lend within each copy. The last permutation leaves all in place.
    lender = rows - examples[rows] + lenders[left_out, examples[rows]]
    scores, tick = np.empty(len(rows)), call.ticking(len(rows))
    size = _requests_together(call)
    for start in range(0, len(rows), size):
        some = slice(start, start + size)
        part = call_for(call, rows[some])
        borrowed = {name: x[lender[some]] for name, x in call.requests.x.items()}
        part = replace(part, requests=replace(part.requests, baseline=borrowed))
        keep = _all_but(left_out[some], features.count)
        scores[some] = masked_scores(part, np.arange(len(keep)), keep, features, tick=tick)
    return _losses(call, features, rows, left_out, scores)


def _one_by_one(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For requests with so many features each: the request of each row, and the feature that it is without.

    The last row of a request is without feature -1: it keeps all.
    """
    rows = np.repeat(np.arange(len(counts)), counts + 1)
    left_out = np.concatenate([np.append(np.arange(count), -1) for count in counts])
    return rows, left_out


def _all_but(left_out: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """Masks [B, count] that keep all but one feature each; with -1, they keep all."""
    keep = np.ones((len(left_out), count), np.float32)
    some = np.flatnonzero(left_out >= 0)
    keep[some, left_out[some]] = 0
    return keep


def _losses(
    call: Call,
    features: Features,
    rows: NDArray[np.int64],
    left_out: NDArray[np.int64],
    scores: Array,
) -> MethodResult:
    """What the score of each request loses without each of its features, for all elements of the feature."""
    whole = scores[left_out < 0]
    losses = np.zeros((len(call), features.count))
    some = left_out >= 0
    losses[rows[some], left_out[some]] = whole[rows[some]] - scores[some]
    return MethodResult(
        attribution=features.spread(call, losses),
        steps_used=features.counts_of(call) + 1,
        scores=whole,
        total=losses.sum(axis=1),
    )


def _permutations(features: int, examples: int, seed: int) -> NDArray[np.int64]:
    """For each feature who lends it to whom, [features + 1, examples]: random, never all in place but for the last."""
    random = np.random.default_rng(seed)
    in_place = np.arange(examples)
    found = np.tile(in_place, (features + 1, 1))
    for row in found[:-1]:
        while (row == in_place).all():
            row[:] = random.permutation(examples)
    return found


def _requests_together(call: Call) -> int:
    """How many copies of single requests to make at once: those of a batch, and beyond that TOGETHER bytes."""
    each = sum(2 * array[0].nbytes for array in call.requests.x.values())
    return int(max(call.rows_together, TOGETHER // max(1, each)))
