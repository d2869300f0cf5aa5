"""Which intervals of a mesh to divide next.

While the estimated error misses the tolerance, the mesh grows towards the best one with that error. Let v_i be the
squared error of interval i. In p equal parts it comes to v_i / p^2, and a sum of these is made small with the fewest
parts if each part has the same share lambda: p_i = (v_i / lambda)^(1/3). That says how many nodes are still missing,
so that the last round stops at the tolerance, and where three parts serve better than halves of halves. A round adds
no more than a quarter of the nodes: what it learns of the gradient decides the next one.

Once the estimate is within the tolerance and the sum alone misses it, the intervals are halved that push it to its
side most; their residuals are known.
"""

from __future__ import annotations

import numpy as np

from igonnx.methods.mesh import Array, Errors, Mesh

__all__ = ["divisions"]

# Nodes added in one round: at most eight, or a quarter of those there are. Few enough to learn from, enough to fill
# batches; they must not depend on the batch size, or the result would.
_USUAL, _SHARE = 8, 4

# Narrower intervals are not divided: alpha is a float32 number to a float32 graph.
_NARROWEST = 1e-6

# Nor are intervals that matter less than this share of what the worst one does: there rounding would choose.
_NEGLIGIBLE = 1e-3


def divisions(mesh: Mesh, errors: Errors, tolerance: float, budget: int) -> list[Array]:
    """Intervals to divide in this round, each as its nodes with both ends, in order; at most `budget` new nodes.

    Empty if both errors are within the tolerance, or nothing is left to divide or to spend.
    """
    budget = min(budget, max(_USUAL, len(mesh.alpha) // _SHARE))
    if errors.estimate > tolerance:
        chosen = _by_variance(mesh, tolerance, budget)
    elif errors.completeness > tolerance:
        chosen = _by_residual(mesh, 1 - tolerance / errors.completeness, budget)
    else:
        return []
    return [
        np.linspace(mesh.alpha[i], mesh.alpha[i + 1], parts + 1)
        for i, parts in sorted(chosen.items())
    ]


def _by_variance(mesh: Mesh, tolerance: float, budget: int) -> dict[int, int]:
    """Parts by interval, the largest error first."""
    variances = np.where(np.diff(mesh.alpha) > _NARROWEST, mesh.variances(), 0.0)
    goal = max((tolerance * mesh.size) ** 2, np.finfo(float).tiny)
    parts = _best_parts(variances, goal)
    wanted = max(int(np.ceil((parts - 1).sum())), 1)
    chosen: dict[int, int] = {}
    for i in np.argsort(-variances, kind="stable"):
        left = min(budget, wanted) - sum(count - 1 for count in chosen.values())
        if left <= 0 or variances[i] <= _NEGLIGIBLE * variances.max():
            break
        three = np.sqrt(2 * 3) <= parts[i] < np.sqrt(3 * 4) and left >= 2
        chosen[int(i)] = 3 if three else 2
    return chosen


def _best_parts(variances: Array, goal: float) -> Array:
    """In how many parts (not whole numbers, at least 1) to divide each interval for a sum of squared errors `goal`."""
    level = 0.0
    undivided = np.zeros(len(variances), bool)
    while variances[~undivided].sum() > 0:
        left = max(goal - variances[undivided].sum(), goal * 1e-3)
        level = (left / np.cbrt(variances[~undivided]).sum()) ** 1.5
        more = variances <= level
        if (more == undivided).all():
            break
        undivided = more | undivided
    return np.maximum(np.cbrt(variances / max(level, np.finfo(float).tiny)), 1.0)


def _by_residual(mesh: Mesh, share: float, budget: int) -> dict[int, int]:
    """Halve intervals whose residual has the sign of the whole, until they hold `share` of it."""
    residuals = mesh.residuals()
    whole = residuals.sum()
    pushing = np.where(np.diff(mesh.alpha) > _NARROWEST, residuals * np.sign(whole), 0.0)
    order = np.argsort(-pushing, kind="stable")
    enough = int(np.searchsorted(np.cumsum(pushing[order]), share * abs(whole))) + 1
    count = min(enough, budget)
    return {int(i): 2 for i in order[:count] if pushing[i] > _NEGLIGIBLE * pushing.max()}
