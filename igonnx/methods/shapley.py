"""Shapley values of features: exactly, or from random orders in which they join."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution
from igonnx.baselines import Baselines
from igonnx.checks import require_flag, require_whole
from igonnx.errors import InputError
from igonnx.inputs import Arrays
from igonnx.methods.call import Array, Call, Explaining, MethodResult, Options
from igonnx.methods.coalitions import (
    Keep,
    Players,
    as_bits,
    described,
    ends,
    relative_errors,
    scattered,
    teams,
    worth,
)
from igonnx.methods.features import FeatureMask, Features, features_of
from igonnx.methods.masking import warn_of_many
from igonnx.methods.superpixels import chosen_features
from igonnx.targets import Target

__all__ = ["MOST_EXACT", "drawn_orders", "shapley_value_sampling", "shapley_values"]

MOST_EXACT = 20  # features of which all coalitions are tried: a million forward passes


def shapley_value_sampling(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    feature_mask: FeatureMask = None,
    segments: int | None = None,
    samples: int = 25,
    antithetic: bool = True,
    exact: bool | None = None,
    **options: Unpack[Options],
) -> Attribution:
    """Shapley values, from random orders in which features join.

    Castro, Gomez and Tejada, "Polynomial calculation of the Shapley value based on sampling", 2009; Strumbelj and
    Kononenko, "An efficient explanation of individual classifications using game theory", 2010. From the baseline on,
    features take their values of the input one after another; each gets the change in score that it brings, averaged
    over the orders. Whatever the orders, the features' values add up to the change in score from the baseline to the
    input. Only forward passes are made: F - 1 per order of F features, and two.

    Args:
        inputs, target: as for `integrated_gradients`.
        baseline: as for `integrated_gradients`: what stands for a feature that has not joined.
        seed: of the orders; they are the same for every example with as many features.
        feature_mask: integers that say which elements are one feature, an array or {tensor name: array}, with the
            shape of the tensor, without the batch axis for all examples alike or with it; negative: never masked.
            Default: every element is a feature. Each element gets the value of its whole feature, and `delta` counts
            each feature once.
        segments: for pictures, in the place of `feature_mask`: about so many superpixels (see
            `igonnx.methods.superpixels`).
        samples: orders.
        antithetic: every second order is the one before it backwards (Mitchell et al., 2022, arXiv:2104.12199). It
            costs nothing and evens out most of what depends on coming early or late: interactions of two features
            become exact with the first pair. Hence the default; False: independent orders, as Captum has them.
        exact: True: try all 2^F coalitions, of up to 20 features; None: where that takes no more forward passes than
            the samples would.
        options: noise, noise_samples, noise_std, progress (in forward passes), timeout, cancel, as for
            `integrated_gradients`.

    A feature that is the same in input and baseline is left out, and has the value 0. `error_estimate` is the standard
    error over the orders, 0 where all coalitions were tried; `steps_used` counts forward passes.

    Raises as `integrated_gradients`, but for what concerns gradients: there are none.

    """
    require_whole("samples", samples, 1)
    require_flag("antithetic", antithetic)
    require_flag("exact", exact, optional=True)
    core = partial(
        _shapley,
        feature_mask=chosen_features(explainer.wrt, inputs, feature_mask, segments),
        samples=int(samples),
        antithetic=bool(antithetic),
        exact=exact,
    )
    return explainer.explain_with(
        core,
        inputs,
        method=f"shapley_value_sampling samples={samples} antithetic={bool(antithetic)} exact={exact}"
        + described(feature_mask, segments),
        target=target,
        baseline=baseline,
        seed=seed,
        propagation=None,
        **options,
    )


@dataclass(frozen=True)
class _Values:
    """The values of a team's players [P, G], the variance of each, and the coalitions that were tried."""

    values: Array
    variance: Array | None
    tried: int


def _shapley(
    call: Call,
    *,
    feature_mask: FeatureMask,
    samples: int,
    antithetic: bool,
    exact: bool | None,
) -> MethodResult:
    features = features_of(call, feature_mask)
    groups = teams(call, features)
    ways = [_exactly(players.count, samples, exact) for players in groups]
    passes = [
        2**players.count - 2 if all_of_them else samples * max(players.count - 1, 0)
        for players, all_of_them in zip(groups, ways, strict=True)
    ]
    rows = sum(len(p.requests) * max(n, 0) for p, n in zip(groups, passes, strict=True))
    warn_of_many(rows, len(call), features)
    tick = call.ticking(rows + 2 * len(call))
    both = ends(call, features, tick)
    steps = np.full(len(call), 2)
    found = []
    for players, all_of_them in zip(groups, ways, strict=True):
        nobody, everybody = both.masked[players.requests], both.kept[players.requests]
        value_of = partial(worth, call, features, players, tick=tick)
        if players.count < 2:
            part = _Values((everybody - nobody)[None][: players.count], None, 0)
        elif all_of_them:
            part = _all_coalitions(value_of, players.count, nobody, everybody)
        else:
            orders = drawn_orders(players.count, samples, antithetic, call.seed)
            part = _by_orders(value_of, orders, nobody, everybody, antithetic)
        steps[players.requests] += part.tried
        found.append((players, part))
    values = scattered(call, features, [(players, part.values) for players, part in found])
    return MethodResult(
        attribution=features.spread(call, values),
        steps_used=steps,
        scores=both.kept,
        baseline_scores=both.masked,
        error_estimate=_errors(call, features, values, found),
        total=values.sum(axis=1),
    )


def _exactly(count: int, samples: int, exact: bool | None) -> bool:
    """Whether all coalitions of `count` features are tried. Raises `InputError` where that is asked of too many."""
    if exact is None:
        return count <= MOST_EXACT and 2**count - 2 <= samples * (count - 1)
    if exact and count > MOST_EXACT:
        raise InputError(
            f"exact is True, and there are {count} features; expected at most {MOST_EXACT}, each of whose 2^F "
            "coalitions takes a forward pass: group them by feature_mask or segments"
        )
    return exact


def _all_coalitions(
    value_of: Callable[..., Array], count: int, nobody: Array, everybody: Array
) -> _Values:
    between = value_of(count=2**count - 2, keep_of=lambda a, b: as_bits(a + 1, b + 1, count))
    scores = np.concatenate([nobody[None], between, everybody[None]])
    return _Values(shapley_values(scores), np.zeros((count, len(nobody))), len(between))


def shapley_values(scores: Array) -> Array:
    """Shapley values [P, ...] of the game whose coalitions have the worth `scores` [2^P, ...].

    Bit i of a coalition's number tells whether player i takes part. By the definition: a player's mean contribution
    over the sizes of the coalitions it joins, and over all coalitions of a size.
    """
    count = len(scores).bit_length() - 1
    sizes = as_bits(0, 2**count, count).sum(axis=1)
    weights = np.array([1 / (count * math.comb(count - 1, size)) for size in range(count)])
    values = np.empty((count, *scores.shape[1:]))
    for player in range(count):
        # [those behind, without or with the player, those before, ...]
        split = (2 ** (count - 1 - player), 2, 2**player)
        game = scores.reshape(*split, *scores.shape[1:])
        others = sizes.reshape(split)[:, 0]
        values[player] = np.tensordot(weights[others], game[:, 1] - game[:, 0], axes=2)
    return values


def drawn_orders(count: int, samples: int, antithetic: bool, seed: int) -> NDArray[np.int64]:
    """When each player joins, int64 [samples, count], from 0 to count - 1."""
    random = np.random.default_rng(seed)
    drawn = -(-samples // 2) if antithetic else samples
    orders = np.stack([random.permutation(count) for _ in range(drawn)])
    if antithetic:
        orders = np.stack([orders, count - 1 - orders], axis=1).reshape(-1, count)[:samples]
    return orders


def _by_orders(
    value_of: Callable[..., Array],
    orders: NDArray[np.int64],
    nobody: Array,
    everybody: Array,
    antithetic: bool,
) -> _Values:
    samples, count = orders.shape
    steps = count - 1  # coalitions of an order, but for nobody and everybody

    def keep_of(start: int, stop: int) -> Keep:
        order, before = np.divmod(np.arange(start, stop), steps)
        return np.asarray(orders[order] <= before[:, None])

    between = value_of(count=samples * steps, keep_of=keep_of).reshape(samples, steps, -1)
    scores = np.empty((samples, count + 1, len(nobody)))
    scores[:, 0], scores[:, 1:-1], scores[:, -1] = nobody, between, everybody
    contributions = np.take_along_axis(np.diff(scores, axis=1), orders[:, :, None], axis=1)
    return _Values(
        contributions.mean(axis=0), _variance_of_mean(contributions, antithetic), samples * steps
    )


def _variance_of_mean(contributions: Array, antithetic: bool) -> Array | None:
    """The variance of the mean over samples [S, P, G], as they differ; None where there are too few to tell."""
    samples = len(contributions)
    if antithetic:  # both of a pair are one draw
        pairs = contributions[: samples // 2 * 2].reshape(-1, 2, *contributions.shape[1:])
        contributions = pairs.mean(axis=1)
    if len(contributions) < 2:
        return None
    draws = samples / 2 if antithetic else samples
    return np.asarray(contributions.var(axis=0, ddof=1) / draws)


def _errors(
    call: Call, features: Features, values: Array, found: list[tuple[Players, _Values]]
) -> Array | None:
    """The relative errors [R]; None where there were too few samples for them."""
    known = [
        (players, part.variance if players.count > 1 else np.zeros_like(part.values))
        for players, part in found
    ]
    variances = [(players, variance) for players, variance in known if variance is not None]
    if len(variances) < len(known):
        return None
    return relative_errors(features, call, values, scattered(call, features, variances))
