"""The integral of the gradient along the straight path, by a fixed rule or by an adaptive mesh.

Integrated Gradients (Sundararajan, Taly and Yan, 2017, arXiv:1703.01365) is (x - baseline) times that integral.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Path
from igonnx.engine.plan import Engine, Requests, RowPlan, RowResult
from igonnx.errors import EngineError
from igonnx.quadrature import nodes_and_weights

__all__ = ["Integral", "Progress", "fixed_rule", "run_rows"]

Progress: TypeAlias = "Callable[[int, int], None] | None"
Array: TypeAlias = "NDArray[np.float64]"


@dataclass(frozen=True)
class Integral:
    """What integration gives, for R requests."""

    attribution: dict[
        str, Array
    ]  # [R, ...] per explained tensor: (x - baseline) times the mean gradient
    paths: list[Path]
    scores: Array  # [R], at x
    baseline_scores: Array  # [R]
    steps_used: NDArray[np.int64]  # [R], gradient evaluations that count in the sum
    error_estimate: Array | None = None  # [R], estimated relative L2 error of the attribution
    correction: Array | None = None  # [R], what exact_sum added, as a share of each contribution


def fixed_rule(
    engine: Engine,
    requests: Requests,
    *,
    rule: str,
    steps: int,
    batch_size: int,
    progress: Progress = None,
) -> Integral:
    """Integrate by `rule` with `steps` steps; two further rows of no weight give the scores at the path's ends."""
    alpha, weight = nodes_and_weights(rule, steps)
    nodes = np.concatenate([alpha, [end for end in (0.0, 1.0) if end not in alpha]])
    weights = np.concatenate([weight, np.zeros(len(nodes) - len(alpha))])
    order = np.argsort(nodes)
    nodes, weights = nodes[order], weights[order]
    count = len(requests.cotangent)
    plan = RowPlan(
        np.repeat(np.arange(count), len(nodes)), np.tile(nodes, count), np.tile(weights, count)
    )
    result = run_rows(engine, requests, plan, batch_size=batch_size, progress=progress)
    score, slope = (array.reshape(count, -1) for array in (result.score, result.slope))
    return Integral(
        attribution={
            name: times_path(total, requests, name)
            for name, total in result.weighted_gradient.items()
        },
        paths=[Path(nodes, weights, score[r], slope[r]) for r in range(count)],
        scores=score[:, -1],
        baseline_scores=score[:, 0],
        steps_used=np.full(count, len(alpha)),
    )


def run_rows(
    engine: Engine,
    requests: Requests,
    plan: RowPlan,
    *,
    batch_size: int,
    progress: Progress = None,
    examples: NDArray[np.int64] | None = None,
) -> RowResult:
    """Run a plan and refuse gradients that are not finite: `EngineError` names the first such request and alpha.

    `examples` are the numbers by which the requests are known to the caller, where those are not 0, 1, 2.

    A row of no weight is there for its score; where only its gradient is not finite (a norm at zero, at the baseline),
    the sums are formed again without it.
    """
    result = engine.run(requests, plan, batch_size=batch_size, progress=progress)
    usable = np.isfinite(result.slope) & np.isfinite(result.score)
    if usable.all():
        return result
    needed = (plan.weight != 0) | ~np.isfinite(result.score)
    bad = np.flatnonzero(~usable & needed)
    if bad.size:
        first = int(bad[0])
        example = plan.row[first] if examples is None else examples[plan.row[first]]
        what = "the gradient" if np.isfinite(result.score[first]) else "the score"
        raise EngineError(
            f"{what} is not finite at alpha = {plan.alpha[first]:.6g} on the path of example {example} "
            f"({bad.size} of {len(plan.row)} points): try another baseline, or wrt= a tensor behind the singularity"
        )
    kept = RowPlan(plan.row[usable], plan.alpha[usable], plan.weight[usable])
    again = engine.run(requests, kept, batch_size=batch_size)
    return replace(result, weighted_gradient=again.weighted_gradient)


def times_path(gradient: NDArray[Any], requests: Requests, name: str) -> Array:
    """`gradient` [R, ...] times x - baseline, in float64."""
    path = requests.x[name].astype(np.float64) - requests.baseline[name]
    return np.asarray(gradient * path)


def request_per_row(requests: Requests, rows: NDArray[np.int64]) -> Requests:
    """A request of its own for each row, so that each row's gradient comes out on its own; `rows` name the requests."""

    def picked(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {name: array[rows] for name, array in arrays.items()}

    return replace(
        requests,
        x=picked(requests.x),
        baseline=picked(requests.baseline),
        batched=picked(requests.batched),
        cotangent=requests.cotangent[rows],
    )
