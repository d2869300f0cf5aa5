"""Guided Integrated Gradients: the path takes the elements with the smallest gradients first.

Where the straight path crosses regions in which the score changes for reasons of its own, noise gathers. Guided IG goes
from baseline to input as well, but in each step moves those elements to which the score is least sensitive, as far as
they may leave the straight path; the elements that matter move last, together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution
from igonnx.baselines import Baselines
from igonnx.checks import require_number, require_whole
from igonnx.errors import InputError
from igonnx.inputs import Arrays
from igonnx.methods.call import Array, Call, Explaining, MethodResult, Options, gradients_at, picked
from igonnx.methods.line_integral import LineIntegral, request_groups, require_ends
from igonnx.methods.results import joined
from igonnx.targets import Target

__all__ = ["guided_ig"]

# A share of the distance that is rounding: no step is as short.
_NOTHING = 1e-12


def guided_ig(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    steps: int = 200,
    fraction: float = 0.25,
    max_distance: float = 0.02,
    anchors: int = 0,
    rule: str = "left",
    **options: Unpack[Options],
) -> Attribution:
    """Guided Integrated Gradients (Kapishnikov et al., 2021, arXiv:2106.09788).

    After step k of n the L1 distance to the input is 1 - k/n of that between baseline and input, as on the straight
    path. In between, the elements with the smallest magnitudes of gradient, `fraction` of all at a time, move as far
    as they may, until that distance is reached. The steps of an example follow upon each other: it is many examples
    (or noisy copies, or baselines) that share batches.

    Args:
        inputs, target, baseline: as for `integrated_gradients`. Of several explained tensors each is guided by itself,
            all at the same pace: their units need not be alike.
        seed: of noise and of random baselines.
        steps: steps of the path, one gradient each.
        fraction: share of the elements, from 0 (one) to 1, that are moved at a time; those with equal gradients are
            moved together.
        max_distance: how far an element may be from the straight path, as a share of its way: 0 is
            Integrated Gradients, 1 leaves it free.
        anchors: points of the straight path, evenly spaced between its ends, that the path has to go through (the
            paper's other way to keep it close, with max_distance=1); 0: none. At most steps - 1.
        rule: "left", the gradient at the start of each step, as in the paper; "right", that at its end; or
            "trapezoid", the mean of both, for one gradient more. Elements are moved because their gradient is small at
            the start, and it seldom stays so: on networks of ReLUs, "left" may miss the change in score by more than
            the change itself, and "trapezoid" by a tenth of that, with much the same map.
        options: noise, noise_samples, noise_std, progress, timeout, cancel, as for `integrated_gradients`.

    Which elements move is decided by the order of their gradients. In a network of ReLUs the smallest difference, such
    as the rounding of another engine or batch, may lead to another path, whose values differ far more than by rounding.

    With the defaults this is what the PAIR library `saliency` 0.2.1 computes, but for its errors: distances below 1e-9
    count as nothing there, so that paths of small numbers stop short of the input; where rounding leaves more than that
    at the end, or a gradient is NaN, it never returns; and it calls `numpy.quantile` by an argument that NumPy 2.4 no
    longer has.

    Raises as `integrated_gradients`.

    """
    require_whole("steps", steps, 1)
    require_number("fraction", fraction, 0, 1)
    require_number("max_distance", max_distance, 0, 1)
    require_whole("anchors", anchors, 0)
    if anchors >= steps:
        raise InputError(f"anchors is {anchors}; expected fewer than the {steps} steps")
    require_ends(rule)
    way = _Way(int(steps), float(fraction), float(max_distance), int(anchors))
    return explainer.explain_with(
        partial(_guided, way=way, rule=rule),
        inputs,
        method=f"guided_ig rule={rule} steps={steps} fraction={fraction} max_distance={max_distance} anchors={anchors}",
        target=target,
        baseline=baseline,
        seed=seed,
        **options,
    )


@dataclass(frozen=True)
class _Way:
    """The settings of the path, and the range of positions that each step allows."""

    steps: int
    fraction: float
    max_distance: float
    anchors: int

    def goal(self, step: int) -> float:
        """The mean position, weighted by distance, after `step`: 0 is the baseline, 1 the input."""
        return (step + 1) / self.steps

    def band(self, step: int) -> tuple[float, float]:
        """The lowest and the highest position that an element may have after `step`."""
        parts = self.anchors + 1
        ends = [part * self.steps // parts for part in range(parts + 1)]
        behind = max(end for end in ends if end <= step) / self.steps
        ahead = min(end for end in ends if end > step) / self.steps
        goal = self.goal(step)
        return max(goal - self.max_distance, behind), min(goal + self.max_distance, ahead)


def _guided(call: Call, *, way: _Way, rule: str) -> MethodResult:
    tick = call.ticking(len(call) * (way.steps + 1))
    parts = []
    for examples in request_groups(call):
        requests = picked(call.requests, examples)
        x = {name: array.astype(np.float64) for name, array in requests.x.items()}
        path = {name: array - requests.baseline[name] for name, array in x.items()}
        position = {name: np.zeros(array.shape) for name, array in path.items()}
        integral = LineIntegral(path, way.steps, rule)
        here = gradients_at(call, examples, requests.baseline)
        integral.begin(here)
        tick(len(examples))
        for step in range(way.steps):
            change, points = {}, {}
            for name, array in path.items():
                after = _moved(position[name], here.gradient[name], array, way, step)
                change[name] = (after - position[name]) * array
                position[name] = after
                point = requests.baseline[name] + after * array
                points[name] = np.where(after == 1, x[name], point)  # there to the last bit
            there = gradients_at(call, examples, points)
            integral.add(step, change, here, there)
            here = there
            tick(len(examples))
        parts.append(integral.result())
    return joined(parts)


def _moved(position: Array, gradient: NDArray[Any], path: Array, way: _Way, step: int) -> Array:
    """Where the elements of one tensor are after `step`, [R, ...] like all the others: each request by itself."""
    count = len(position)
    goal, (lowest, highest) = way.goal(step), way.band(step)
    after = np.maximum(position, lowest).reshape(count, -1)
    if goal >= highest:
        return np.full(position.shape, highest)
    sizes, ways = np.abs(gradient).reshape(count, -1), np.abs(path).reshape(count, -1)
    together = int(way.fraction * (after.shape[1] - 1)) + 1
    for row in range(count):
        _advance(after[row], sizes[row], ways[row], goal, highest, together)
    return after.reshape(position.shape)


def _advance(
    position: Array, size: Array, way: Array, goal: float, highest: float, together: int
) -> None:
    """Move elements up, those of the smallest gradient first, until the mean position is `goal`; all [D], in place.

    The mean is weighted by `way`, how far each element has to go. `together` elements at a time, and those whose
    gradient has the same `size` as the last one's, go up to `highest`; the last group as far as it takes.
    """
    length = way.sum()
    lack = goal * length - (position * way).sum()
    free = np.flatnonzero((position < highest) & (way > 0))
    order = free[np.argsort(size[free])]
    sizes = size[order]
    gain = np.cumsum(way[order] * (highest - position[order]))
    done, before = 0, 0.0  # elements that go all the way, and what they gain
    while done < len(order) and lack - before > _NOTHING * length:
        last = min(done + together, len(order)) - 1
        end = int(np.searchsorted(sizes, sizes[last], side="right"))
        if gain[end - 1] > lack:
            group = order[done:end]
            share = (lack - before) / (gain[end - 1] - before)
            position[group] += share * (highest - position[group])
            break
        done, before = end, gain[end - 1]
    position[order[:done]] = highest
