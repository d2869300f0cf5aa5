"""The game that masked inputs of `TanhNet` play, and its Shapley values by the definition, in NumPy."""

from __future__ import annotations

import itertools
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tanh_net import Arrays, TanhNet

__all__ = ["PLAYERS", "flat", "shapley_by_definition", "worths"]

PLAYERS = 10  # of `TanhNet`: six numbers of a, four of b


def flat(values: Any) -> NDArray[np.float64]:
    """The values of both tensors side by side, [N, 10]."""
    return np.concatenate([np.reshape(values[n], (len(values[n]), -1)) for n in "ab"], axis=1)


def worths(
    net: TanhNet, x: Arrays, baseline: float, target: NDArray[np.int64], owner: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The scores of all coalitions, [2^F, N]: element i of the ten belongs to player `owner[i]`."""
    count, players = len(x["a"]), int(owner.max()) + 1
    found = []
    for number in range(2**players):
        member = np.array([number >> player & 1 for player in range(players)], bool)[owner]
        at = np.where(member, flat(x), baseline)
        found.append(net.score({"a": at[:, :6].reshape(count, 2, 3), "b": at[:, 6:]}, target))
    return np.stack(found)


def shapley_by_definition(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """[F, N] of worths [2^F, N]: sums over subsets, with factorials."""
    players = len(scores).bit_length() - 1
    values = np.zeros((players, scores.shape[1]))
    for player in range(players):
        others = [other for other in range(players) if other != player]
        for size in range(players):
            weight = factorial(size) * factorial(players - 1 - size) / factorial(players)
            for members in itertools.combinations(others, size):
                number = sum(1 << member for member in members)
                values[player] += weight * (scores[number | 1 << player] - scores[number])
    return values
