"""IDGI: the change in score along the straight path, shared out by the squares of the gradient.

Of each piece of the path, only the part along the gradient changes the score; what Integrated Gradients attributes to
the rest is noise of the sum. IDGI hands every piece's change in score to the elements in the direction of the gradient.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution, Path
from igonnx.baselines import Baselines
from igonnx.checks import require_whole
from igonnx.engine.plan import RowPlan
from igonnx.inputs import Arrays
from igonnx.methods.call import Array, Call, Explaining, MethodResult, Options, call_for, run_rows
from igonnx.methods.line_integral import ENDS, point_weights, require_ends
from igonnx.targets import Target

__all__ = ["idgi"]


def idgi(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    steps: int = 50,
    rule: str = "left",
    **options: Unpack[Options],
) -> Attribution:
    """Important Direction Gradient Integration (Yang, Wang and Bilgic, 2023, arXiv:2303.14242), on the path of IG.

    The straight path from baseline to input is cut into `steps` pieces. The change in score over each is shared out in
    proportion to the squares of the gradient's elements, over all explained tensors together: f(z_{k+1}) - f(z_k) times
    g_k^2 / (g_k . g_k). The values add up to the change in score, by however many steps. Within a piece all values have
    the sign of its change, so the sign of a value is less than it is in IG: where an element pulls against the
    others, it does not show. An element that is alike in input and baseline may have a value.

    Args:
        inputs, target, baseline: as for `integrated_gradients`.
        seed: of noise and of random baselines.
        steps: pieces of the path.
        rule: whose gradient shares out a piece: "left", that at its start, as in the paper; "right", that at its
            end; "trapezoid", half of the change each.
        options: noise, noise_samples, noise_std, progress, timeout, cancel, as for `integrated_gradients`.

    Where the gradient is zero, the next one that is not on the way to the input shares out the change, or else the last
    one before. Where it is zero all along the path, so are the values, and `delta` tells what is missing.

    Raises as `integrated_gradients`.

    """
    require_whole("steps", steps, 1)
    require_ends(rule)
    return explainer.explain_with(
        partial(_important_directions, steps=int(steps), rule=rule),
        inputs,
        method=f"idgi rule={rule} steps={steps}",
        target=target,
        baseline=baseline,
        seed=seed,
        **options,
    )


def _important_directions(call: Call, *, steps: int, rule: str) -> MethodResult:
    count, points = len(call), steps + 1
    alpha = np.arange(points) / steps
    # With "right", the gradient at the baseline is not needed, and may well be singular.
    needed = np.ones(points) if ENDS[rule][0] else np.append(0.0, np.ones(steps))
    score, slope = np.empty((2, count * points))
    attribution = {name: np.zeros(array.shape) for name, array in call.requests.x.items()}
    tick, shares = call.ticking(count * points), _Shares(attribution, rule)
    for start in range(0, count * points, call.rows_together):
        rows = np.arange(start, min(start + call.rows_together, count * points))
        examples, at = rows // points, rows % points
        plan = RowPlan(np.arange(len(rows)), alpha[at], needed[at])
        result = run_rows(call_for(call, examples), plan)
        score[rows], slope[rows] = result.score, result.slope
        for row, example in enumerate(examples):
            gradient = {name: array[row] for name, array in result.weighted_gradient.items()}
            shares.add(int(example), result.score[row], gradient)
        tick(len(rows))
    shares.finish()
    score, slope = score.reshape(count, points), slope.reshape(count, points)
    weight = point_weights(rule, steps)
    return MethodResult(
        attribution=attribution,
        steps_used=np.full(count, int((weight > 0).sum())),
        scores=score[:, -1],
        baseline_scores=score[:, 0],
        paths=[Path(alpha, weight, score[r], slope[r]) for r in range(count)],
    )


class _Shares:
    """Shares out changes in score, point by point along the paths of one request after the other."""

    def __init__(self, attribution: dict[str, Array], rule: str) -> None:
        self._attribution = attribution  # {name: [R, ...]}, added to
        self._start, self._end = ENDS[rule]
        self._example = -1
        self._score = self._due = 0.0
        self._before: dict[str, Array] | None = None  # shares at the last point
        self._known: dict[str, Array] | None = None  # at the last one that had any

    def add(self, example: int, score: float, gradient: dict[str, NDArray[Any]]) -> None:
        """The next point of `example`, or the first one."""
        here = _squares(gradient)
        if example != self._example:
            self.finish()
            self._example, self._before, self._known = example, None, None
        else:
            change = score - self._score
            self._give(self._start * change, self._before)
            self._give(self._end * change, here)
        if here is not None:
            self._known = here
            due, self._due = self._due, 0.0
            self._give(due, here)
        self._score, self._before = score, here

    def finish(self) -> None:
        """What could not yet be shared out at the end of a path goes by the last gradient that was not zero."""
        if self._known is not None:
            self._give(self._due, self._known)
        self._due = 0.0

    def _give(self, change: float, shares: dict[str, Array] | None) -> None:
        if shares is None:
            self._due += change
        elif change:
            for name, share in shares.items():
                self._attribution[name][self._example] += change * share


def _squares(gradient: dict[str, NDArray[Any]]) -> dict[str, Array] | None:
    """The squares of all elements as shares of their sum; None where all are zero."""
    largest = max(float(np.abs(array).max(initial=0)) for array in gradient.values())
    if not 0 < largest < np.inf:  # infinite: a gradient that nobody needs
        return None
    squares = {name: np.square(array / largest) for name, array in gradient.items()}
    total = sum(float(square.sum()) for square in squares.values())
    return {name: square / total for name, square in squares.items()}
