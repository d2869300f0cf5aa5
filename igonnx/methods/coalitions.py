"""Features as players of a game: a coalition's worth is the score where its features are kept and the others masked.

A feature that is the same in the input and the baseline is no player: masking it changes nothing. Leaving it out
changes no other's Shapley value, costs no forward pass, and its own value is zero, not nearly so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from igonnx.methods.call import Array, Call
from igonnx.methods.features import FeatureMask, Features
from igonnx.methods.masking import masked_scores, rows_of_masks

__all__ = [
    "Ends",
    "Keep",
    "Players",
    "as_bits",
    "described",
    "ends",
    "relative_errors",
    "scattered",
    "teams",
    "worth",
]

Keep: TypeAlias = "NDArray[np.bool_]"  # [coalitions, players]: who takes part
KeepOf: TypeAlias = "Callable[[int, int], Keep]"  # the coalitions from one number up to another
Tick: TypeAlias = "Callable[[int], None] | None"


@dataclass(frozen=True)
class Players:
    """G requests that have the same number P of players each, and so share their coalitions.

    `requests` int64 [G]; `features` int64 [G, P], which features of each its players are, in ascending order.
    """

    requests: NDArray[np.int64]
    features: NDArray[np.int64]

    @property
    def count(self) -> int:
        """P, the number of players."""
        return int(self.features.shape[1])


def teams(call: Call, features: Features) -> list[Players]:
    """The requests of a call by how many players they have: which others there are changes nothing for a request."""
    requests = call.requests
    places = features.places(call.examples_of(np.arange(len(call))))
    found: dict[int, list[tuple[int, NDArray[np.int64]]]] = {}
    for request, place in enumerate(places):
        alive = np.zeros(features.count + 1, bool)  # the last: elements that are never masked, -1
        for name, index in features.index.items():
            x, baseline = requests.x[name][request], requests.baseline[name][request]
            alive[index[place][x != baseline]] = True
        players = np.flatnonzero(alive[:-1])
        found.setdefault(len(players), []).append((request, players))
    return [
        Players(
            np.array([request for request, _ in team]), np.stack([players for _, players in team])
        )
        for _, team in sorted(found.items())
    ]


def worth(
    call: Call,
    features: Features,
    players: Players,
    count: int,
    keep_of: KeepOf,
    tick: Tick,
) -> Array:
    """The scores of `count` coalitions for each request of a team, float64 [count, G].

    `keep_of(start, stop)` makes the coalitions of that range: they need not be there all at once.
    """
    team = len(players.requests)
    scores = np.empty((count, team))
    together = max(1, rows_of_masks(call, features) // team)
    for start in range(0, count, together):
        keep = keep_of(start, min(start + together, count))
        rows = np.zeros((team, len(keep), features.count), bool)
        for row, columns in zip(rows, players.features, strict=True):
            row[:, columns] = keep
        found = masked_scores(
            call,
            np.repeat(players.requests, len(keep)),
            rows.reshape(-1, features.count),
            features,
            tick=tick,
        )
        scores[start : start + len(keep)] = found.reshape(team, -1).T
    return scores


def listed(keep: Keep) -> KeepOf:
    """Coalitions that are there all at once, for `worth`."""
    return lambda start, stop: keep[start:stop]


@dataclass(frozen=True)
class Ends:
    """What everybody together is worth, and nobody: scores [R] with all features kept, and with all masked."""

    kept: Array
    masked: Array

    @property
    def change(self) -> Array:
        """What there is to share out, [R]."""
        return np.asarray(self.kept - self.masked)


def ends(call: Call, features: Features, tick: Tick) -> Ends:
    """The scores at both ends, by two forward passes for each request."""
    count = len(call)
    keep = np.zeros((count, 2, features.count), bool)
    keep[:, 0] = True
    rows = np.repeat(np.arange(count), 2)
    scores = masked_scores(call, rows, keep.reshape(-1, features.count), features, tick=tick)
    return Ends(scores[0::2], scores[1::2])


def as_bits(start: int, stop: int, count: int) -> Keep:
    """The numbers from `start` to `stop` - 1 as coalitions of `count` players: player i takes part where bit i is 1."""
    numbers = np.arange(start, stop, dtype=np.int64)
    return np.asarray((numbers[:, None] >> np.arange(count)) & 1, dtype=bool)


def relative_errors(
    features: Features, call: Call, values: Array, variance: Array
) -> NDArray[np.float64]:
    """The relative L2 error [R] of the elements' values, by the variance of each feature's: both [R, F].

    A feature counts as often as it has elements. Where all values are zero: 0 without an error, else 1.
    """
    sizes = np.zeros(values.shape)
    places = features.places(call.examples_of(np.arange(len(call))))
    for index in features.index.values():
        for request, place in enumerate(places):
            flat = index[place].ravel()
            sizes[request] += np.bincount(flat[flat >= 0], minlength=values.shape[1])
    error = np.sqrt((variance * sizes).sum(axis=1))
    size = np.sqrt((np.square(values) * sizes).sum(axis=1))
    relative = (error > 0).astype(np.float64)
    return np.asarray(np.divide(error, size, out=relative, where=size > 0))


def scattered(
    call: Call, features: Features, parts: Sequence[tuple[Players, NDArray[Any]]]
) -> Array:
    """Numbers of players, [P, G] for each team, as those of features, [R, F]; zero for those that do not play."""
    values = np.zeros((len(call), features.count))
    for players, numbers in parts:
        values[players.requests[:, None], players.features] = numbers.T
    return values


def described(feature_mask: FeatureMask, segments: int | None) -> str:
    """What the features are, to stand behind a method's settings, for the record."""
    if segments is not None:
        return f" segments={segments}"
    return "" if feature_mask is None else " feature_mask=given"
