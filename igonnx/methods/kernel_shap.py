"""KernelSHAP: Shapley values as the weights of a linear model, fitted to the scores of some of the coalitions.

The fit is a weighted least-squares problem under one constraint, that the values add up to the change in score. With
the values written as an equal share of the change plus deviations that add up to zero, the constraint is met exactly
and what is left is an ordinary problem for the deviations, in which a coalition counts by how it differs from the mean
of its features.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution
from igonnx.baselines import Baselines
from igonnx.checks import require_whole
from igonnx.errors import InputError
from igonnx.inputs import Arrays
from igonnx.methods.call import Array, Call, Explaining, MethodResult, Options
from igonnx.methods.coalitions import (
    Keep,
    as_bits,
    described,
    ends,
    listed,
    relative_errors,
    scattered,
    teams,
    worth,
)
from igonnx.methods.features import FeatureMask, features_of
from igonnx.methods.superpixels import chosen_features
from igonnx.targets import Target

__all__ = ["Coalitions", "drawn_coalitions", "kernel_shap"]

MOST_FEATURES = 5000  # of which the equations, of as many rows and columns, are solved
_SINGULAR = (
    1e-9  # the smallest eigenvalue of equations that can be solved, as a share of the largest
)


def kernel_shap(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    feature_mask: FeatureMask = None,
    segments: int | None = None,
    samples: int | None = None,
    **options: Unpack[Options],
) -> Attribution:
    """KernelSHAP (Lundberg and Lee, 2017, arXiv:1705.07874): Shapley values by a fit to the scores of coalitions.

    A coalition of features has the values of the input, the others those of the baseline. Values are sought whose sums
    over coalitions come nearest to their scores, the squares weighted by the Shapley kernel,
    (F - 1) / (C(F, s) s (F - s)) for s of F features, and that add up to the change in score exactly. Over all
    coalitions that gives the Shapley values. Else the smallest and largest ones are all taken as far as `samples`
    reach, and of the sizes in between as many as remain are drawn by the kernel, each with its complement (Covert and
    Lee, 2021, arXiv:2012.01536), which makes interactions of two features cancel.

    Args:
        inputs, target, baseline: as for `shapley_value_sampling`.
        seed: of the coalitions that are drawn; they are the same for every example with as many features.
        feature_mask, segments: what is a feature, as for `shapley_value_sampling`.
        samples: coalitions, each a forward pass, beside the empty one and the whole. Default: 2 F + 2048, as in the
            library `shap`. All are tried where there are no more than that; what is drawn twice is computed once.
        options: noise, noise_samples, noise_std, progress (in forward passes), timeout, cancel, as for
            `integrated_gradients`.

    A feature that is the same in input and baseline is left out, and has the value 0. `error_estimate` is the standard
    error of what was drawn, by how far the scores are from the fit; 0 where all coalitions were tried. `steps_used`
    counts forward passes.

    Raises `InputError` for more than 5000 features and for fewer samples than determine their values; else as
    `integrated_gradients`, but for what concerns gradients: there are none.

    """
    require_whole("samples", samples, 2, optional=True)
    mask = chosen_features(explainer.wrt, inputs, feature_mask, segments)
    return explainer.explain_with(
        partial(_kernel_shap, feature_mask=mask, samples=samples),
        inputs,
        method=f"kernel_shap samples={'2F+2048' if samples is None else samples}"
        + described(feature_mask, segments),
        target=target,
        baseline=baseline,
        seed=seed,
        propagation=None,
        **options,
    )


def _kernel_shap(call: Call, *, feature_mask: FeatureMask, samples: int | None) -> MethodResult:
    features = features_of(call, feature_mask)
    groups = teams(call, features)
    fits = [
        _Fit.of(drawn_coalitions(team.count, samples, call.seed), samples)
        if team.count > 1
        else None
        for team in groups
    ]
    passes = [0 if fit is None else len(fit.coalitions.keep) for fit in fits]
    rows = sum(len(team.requests) * n for team, n in zip(groups, passes, strict=True))
    tick = call.ticking(rows + 2 * len(call))
    both = ends(call, features, tick)
    steps = np.full(len(call), 2)
    values, variances = [], []
    for team, fit, tried in zip(groups, fits, passes, strict=True):
        change = both.change[team.requests]
        if fit is None:
            found = change[None][: team.count]
            variance = np.zeros_like(found)
        else:
            keep = fit.coalitions.keep
            scores = worth(call, features, team, tried, listed(keep), tick)
            found, variance = fit.values(scores - both.masked[team.requests], change)
        steps[team.requests] += tried
        values.append((team, found))
        variances.append((team, variance))
    by_feature = scattered(call, features, values)
    return MethodResult(
        attribution=features.spread(call, by_feature),
        steps_used=steps,
        scores=both.kept,
        baseline_scores=both.masked,
        error_estimate=relative_errors(
            features, call, by_feature, scattered(call, features, variances)
        ),
        total=by_feature.sum(axis=1),
    )


@dataclass(frozen=True)
class Coalitions:
    """Distinct coalitions of P features, and what each counts in the fit.

    The last `2 * len(drawn)` of `keep` bool [S, P] were drawn: first of each pair, in order, then their complements.
    `drawn` int64 tells how often a pair was, `weight` [S] what each row counts for.
    """

    keep: Keep
    weight: Array
    drawn: NDArray[np.int64]


def drawn_coalitions(count: int, samples: int | None, seed: int) -> Coalitions:
    """The coalitions of `count` features, from two on, to try with `samples` forward passes."""
    if count > MOST_FEATURES:
        raise InputError(
            f"kernel_shap of {count} features; expected at most {MOST_FEATURES}: group them by feature_mask or segments"
        )
    passes = 2 * count + 2048 if samples is None else samples
    if 2**count - 2 <= passes:
        keep = as_bits(1, 2**count - 1, count)
        return Coalitions(keep, (_mass(count) / _numbers(count))[keep.sum(axis=1)], _NONE)
    mass = _mass(count)
    parts, weights = [], []
    smallest = 1  # of the sizes that are not all taken
    for size in range(1, count // 2 + 1):
        sizes = {size, count - size}
        remaining = mass[size : count - size + 1].sum()
        taken = sum(math.comb(count, one) for one in sizes)
        share = sum(mass[one] for one in sizes)
        if passes * share < taken * remaining:
            break
        for one in sorted(sizes):
            part = np.stack(list(_all_of_size(count, one)))
            parts.append(part)
            weights.append(np.full(len(part), mass[one] / len(part)))
        passes -= taken
        smallest = size + 1
    if passes >= 2 and smallest <= count // 2:
        half, drawn = _draw(mass, smallest, passes // 2, np.random.default_rng(seed))
        each = mass[smallest : count - smallest + 1].sum() / (2 * drawn.sum())
        parts += [half, ~half]
        weights += 2 * [each * drawn]
    else:
        drawn = _NONE
    return Coalitions(np.concatenate(parts), np.concatenate(weights), drawn)


_NONE = np.zeros(0, np.int64)


def _mass(count: int) -> Array:
    """The weight of all coalitions of each size together, [count + 1]; none for the ends, whose scores are met."""
    size = np.arange(1, count)
    return np.pad((count - 1) / (size * (count - size)), 1)


def _numbers(count: int) -> Array:
    """How many coalitions of each size there are, [count + 1]."""
    return np.array([float(math.comb(count, size)) for size in range(count + 1)])


def _all_of_size(count: int, size: int) -> Iterator[Keep]:
    for members in itertools.combinations(range(count), size):
        keep = np.zeros(count, bool)
        keep[list(members)] = True
        yield keep


def _draw(
    mass: Array, smallest: int, pairs: int, random: np.random.Generator
) -> tuple[Keep, NDArray[np.int64]]:
    """One half each of `pairs` pairs of complements, sizes from `smallest` by `mass`; those that are alike once.

    Sizes are drawn at even distances along their distribution, so that each comes as often as it should.
    """
    count = len(mass) - 1
    sizes = np.arange(smallest, count - smallest + 1)
    ends_at = np.cumsum(mass[sizes])
    places = (np.arange(pairs) + random.random()) / pairs * ends_at[-1]
    size = sizes[np.searchsorted(ends_at, places, side="right").clip(max=len(sizes) - 1)]
    ranks = random.random((pairs, count)).argsort(axis=1).argsort(axis=1)
    half = ranks < size[:, None]
    half ^= ~half[:, :1]  # of the two halves the one with the first feature
    distinct, drawn = np.unique(half, axis=0, return_counts=True)
    return distinct, drawn.astype(np.int64)


@dataclass(frozen=True)
class _Fit:
    """The equations of coalitions, solved but for their right-hand side."""

    coalitions: Coalitions
    share: Array  # [S, 1] of the features, how many a coalition keeps
    solution: Array  # [P, S] from weighted deviations to values

    @classmethod
    def of(cls, coalitions: Coalitions, samples: int | None) -> _Fit:
        """Raises `InputError` where the coalitions, of so many `samples`, do not determine the values."""
        keep = coalitions.keep
        share = keep.mean(axis=1, keepdims=True)
        centred = keep - share
        eigenvalues, vectors = np.linalg.eigh(centred.T @ (coalitions.weight[:, None] * centred))
        # The first is that of equal deviations: there are none.
        if eigenvalues[1] < _SINGULAR * eigenvalues[-1]:
            count = keep.shape[1]
            raise InputError(
                f"samples is {samples}: too few coalitions for the values of {count} features; expected at least "
                f"{4 * count}, or fewer features, by feature_mask or segments"
            )
        vectors = vectors[:, 1:]
        return cls(coalitions, share, (vectors / eigenvalues[1:]) @ (vectors.T @ centred.T))

    def values(self, scores: Array, change: Array) -> tuple[Array, Array]:
        """Values [P, G] and the variance of each, by `scores` [S, G] above the empty coalition's and `change` [G]."""
        weight = self.coalitions.weight[:, None]
        equal = change / len(self.solution)
        beyond = scores - self.share * change
        deviations = self.solution @ (weight * beyond)
        # To the last bit: rounding must not cost the sum.
        deviations -= deviations.mean(axis=0)
        keep = self.coalitions.keep
        residual = beyond - (keep @ deviations - self.share * deviations.sum(axis=0))
        return equal + deviations, self._variance(residual)

    def _variance(self, residual: Array) -> Array:
        """Of a sum over pairs that were drawn each for itself (White's estimator), [P, G]."""
        drawn = self.coalitions.drawn
        pairs = len(drawn)
        if not pairs:
            return np.zeros((len(self.solution), residual.shape[1]))
        first = slice(len(residual) - 2 * pairs, len(residual) - pairs)
        second = slice(len(residual) - pairs, len(residual))
        # Complements have opposite rows in the equations.
        apart = residual[first] - residual[second]
        each = self.coalitions.weight[first] / drawn
        influence = np.square(self.solution[:, first] * each)
        spread = influence @ (drawn[:, None] * np.square(apart))
        total, fitted = int(drawn.sum()), len(self.solution) - 1
        return np.asarray(spread * (total / max(total - fitted, 1)))
