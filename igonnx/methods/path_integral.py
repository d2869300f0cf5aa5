"""The integral of the gradient along the straight path, by a fixed rule.

Integrated Gradients (Sundararajan, Taly and Yan, 2017, arXiv:1703.01365) is (x - baseline) times that integral.
"""

from __future__ import annotations

import numpy as np

from igonnx.attribution import Path
from igonnx.engine.plan import RowPlan
from igonnx.methods.call import Call, MethodResult, run_rows, times_path
from igonnx.quadrature import nodes_and_weights

__all__ = ["fixed_rule"]


def fixed_rule(call: Call, *, rule: str, steps: int) -> MethodResult:
    """Integrate by `rule` with `steps` steps; ends that are wanted and are no nodes get rows of no weight."""
    alpha, weight = nodes_and_weights(rule, steps)
    ends = [end for end in (0.0, 1.0) if end not in alpha] if call.ends_wanted else []
    nodes = np.concatenate([alpha, ends])
    weights = np.concatenate([weight, np.zeros(len(ends))])
    order = np.argsort(nodes)
    nodes, weights = nodes[order], weights[order]
    count = len(call)
    plan = RowPlan(
        np.repeat(np.arange(count), len(nodes)), np.tile(nodes, count), np.tile(weights, count)
    )
    result = run_rows(call, plan)
    score, slope = (array.reshape(count, -1) for array in (result.score, result.slope))
    ends_known = nodes[0] == 0 and nodes[-1] == 1
    return MethodResult(
        attribution={
            name: times_path(total, call.requests, name)
            for name, total in result.weighted_gradient.items()
        },
        steps_used=np.full(count, len(alpha)),
        scores=score[:, -1] if ends_known else None,
        baseline_scores=score[:, 0] if ends_known else None,
        paths=[Path(nodes, weights, score[r], slope[r]) for r in range(count)],
    )
