"""The features that matter most, and all others summed into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.checks import require_whole
from igonnx.errors import InputError
from igonnx.visual.arguments import finite_array, one_number
from igonnx.visual.notation import number, visible

__all__ = ["Ranking", "rank_features", "waterfall_levels"]


@dataclass(frozen=True)
class Ranking:
    """Contributions [K]: `features` rows by falling magnitude; rows behind them stand for something else."""

    labels: list[str]
    contributions: NDArray[np.float64]
    features: int

    @property
    def total(self) -> float:
        """What all features contribute, the others included."""
        return float(self.contributions.sum())

    @property
    def reach(self) -> tuple[float, float]:
        """The magnitudes of the largest contribution against the target and of the largest for it; 0 for none."""
        return max(0.0, float(-self.contributions.min())), max(0.0, float(self.contributions.max()))


def rank_features(
    values: Any,
    names: Sequence[str] | None = None,
    data: Any = None,
    top: int = 10,
) -> Ranking:
    """The `top` features with the largest magnitudes, equal ones in their own order, and a row for all others.

    values: contributions of one example, of any shape, [F] usually; a leading axis of 1 is taken away. names: one per
    feature, by default "feature 3", or "[2, 3]" where there are several axes. data: the values of the features, numbers
    or texts in the same shape, shown as "name = value". A single feature is never hidden behind "1 other". Raises
    `InputError` for counts that differ, NaN and infinity.
    """
    require_whole("top", top, 1)
    array = finite_array(
        values, "the attribution", ranks=tuple(range(9)), expected="one number or more"
    )
    if array.ndim > 1 and len(array) == 1:
        array = array[0]
    contributions = array.reshape(-1)
    names = _names(names, array.shape)
    shown = _shown(data, contributions.size)
    order = np.argsort(-np.abs(contributions), kind="stable")
    if contributions.size > top + 1:
        order, others = order[:top], order[top:]
    else:
        others = order[:0]
    labels = [visible(names[i]) + (f" = {shown[i]}" if shown else "") for i in order]
    strongest = contributions[order]
    if others.size:
        labels.append(f"{others.size} others")
        strongest = np.append(strongest, contributions[others].sum())
    return Ranking(labels, strongest, features=int(order.size))


def waterfall_levels(
    values: Any,
    baseline_score: Any,
    score: Any,
    names: Sequence[str] | None,
    data: Any,
    top: int,
) -> tuple[Ranking, NDArray[np.float64]]:
    """The rows of a waterfall, and the K + 1 levels between which they run, from the baseline's score to the score.

    Where the contributions miss the change in score by more than half a per cent of the range, a row of its own says
    so: "not accounted for". Smaller gaps are left to the last level, which is the score.
    """
    ranking = rank_features(values, names, data, top)
    start, end = one_number(baseline_score, "baseline_score"), one_number(score, "score")
    levels = start + np.concatenate([[0.0], np.cumsum(ranking.contributions)])
    gap = end - float(levels[-1])
    extent = max(float(np.ptp(levels)), abs(end - start))
    if abs(gap) <= 0.005 * extent:
        levels[-1] = end
        return ranking, levels
    longer = Ranking(
        [*ranking.labels, "not accounted for"],
        np.append(ranking.contributions, gap),
        ranking.features,
    )
    return longer, np.append(levels, end)


def _names(names: Sequence[str] | None, shape: tuple[int, ...]) -> Sequence[str]:
    count = int(np.prod(shape))
    if names is None:
        return _Numbered(shape)
    if isinstance(names, str) or len(names) != count:
        raise InputError(
            f"{1 if isinstance(names, str) else len(names)} names were given for {count} features"
        )
    return [str(name) for name in names]


class _Numbered(Sequence[str]):
    """Names of features that have none: made when asked for, as there may be millions."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape

    def __len__(self) -> int:
        return int(np.prod(self._shape))

    def __getitem__(self, position: Any) -> Any:
        if len(self._shape) < 2:
            return f"feature {int(position)}"
        return str([int(axis) for axis in np.unravel_index(position, self._shape)])


def _shown(data: Any, count: int) -> list[str]:
    if data is None:
        return []
    flat = np.asarray(data).reshape(-1)
    if flat.size != count:
        raise InputError(f"{flat.size} values of features were given for {count} features")
    return [
        number(float(value)) if flat.dtype.kind in "fiu" else visible(str(value)) for value in flat
    ]
