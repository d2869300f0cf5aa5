"""Scores of masked inputs: features that are kept come from the input, the others from the baseline.

    z = baseline + keep (x - baseline), exactly x where keep is 1 and exactly the baseline where it is 0

Only forward passes are made. The masks are handed over by feature, [B, F]; the masked inputs are made batch by batch,
so that they are never there all at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.engine.plan import MaskEngine, MaskPlan
from igonnx.errors import InputError, warn_caller
from igonnx.methods.call import Array, Call, finite_scores, scores_at
from igonnx.methods.features import FeatureMask, Features, features_of

__all__ = [
    "FeatureMask",
    "Features",
    "features_of",
    "masked_rows",
    "masked_scores",
    "rows_of_masks",
    "warn_of_many",
]

MANY_PASSES = 20_000  # for one example
TOGETHER = 64 << 20  # bytes of masks that are made at once


def warn_of_many(passes: int, requests: int, features: Features) -> None:
    """Warn where so many forward passes in all come from single elements taken for features."""
    each = passes // requests
    if each > MANY_PASSES:
        warn_caller(
            f"{each:,} forward passes for each example, as it has {features.count:,} features: take larger ones with "
            "segments= (of images) or feature_mask="
        )


def rows_of_masks(call: Call, features: Features) -> int:
    """How many masks to make at once where there are many: those of a batch, and beyond that TOGETHER bytes."""
    return max(call.rows_together, TOGETHER // (4 * features.count))


def masked_scores(
    call: Call,
    rows: NDArray[np.int64],
    keep: NDArray[Any],
    features: Features,
    *,
    tick: Callable[[int], None] | None = None,
) -> Array:
    """The scores of B masked inputs, float64 [B].

    Args:
        call: its requests have the inputs and their baselines.
        rows: the request of each mask, int64 [B].
        keep: how much of each feature is kept, [B, F]: booleans, or numbers from 0 to 1. Features that a request does
            not have (see `Features.counts`) are passed over.
        features: what is masked together.
        tick: is told of rows that are done, such as `call.ticking(total)`.

    Raises `EngineError` for a score that is not finite, `DeadlineError`, `CancelledError`.

    """
    if keep.shape != (len(rows), features.count):
        raise InputError(
            f"keep has shape {list(keep.shape)}; expected {[len(rows), features.count]}, a number for each feature"
        )
    if call.masks is not None and _numbers_only(call):
        return _by_engine(call, call.masks(), rows, keep, features, tick)
    scores = np.empty(len(rows))
    for start in range(0, len(rows), call.rows_together):
        some = slice(start, start + call.rows_together)
        points = masked_rows(call, rows[some], keep[some], features)
        scores[some] = scores_at(call, rows[some], points)
        if tick is not None:
            tick(len(rows[some]))
    return scores


def _numbers_only(call: Call) -> bool:
    """Whether the engine can be fed with all other inputs: strings, of which trees may be fond, it does not know."""
    others = (*call.requests.batched.values(), *call.requests.shared.values())
    return all(array.dtype.kind in "biuf" for array in others)


def _by_engine(
    call: Call,
    engine: MaskEngine,
    rows: NDArray[np.int64],
    keep: NDArray[Any],
    features: Features,
    tick: Callable[[int], None] | None,
) -> Array:
    """The scores by the engine, which makes the masked inputs itself."""
    order = np.argsort(rows, kind="stable")
    sorted_already = bool((order[1:] > order[:-1]).all())
    places = features.places(call.examples_of(np.arange(len(call))))
    feature = {
        name: (index if len(index) == 1 else index[places]).astype(np.int32)
        for name, index in features.index.items()
    }
    dtype = call.requests.cotangent.dtype
    plan = MaskPlan(
        rows if sorted_already else rows[order],
        (keep if sorted_already else keep[order]).astype(dtype, copy=False),
        feature,
    )
    told = 0

    def progress(done: int, _: int) -> None:
        nonlocal told
        if tick is not None:
            tick(done - told)
        told = done

    found = engine.run(call.requests, plan, batch_size=call.batch_size, progress=progress)
    scores = np.empty(len(rows))
    scores[order] = found.score
    return finite_scores(call, rows, scores)


def masked_rows(
    call: Call, rows: NDArray[np.int64], keep: NDArray[Any], features: Features
) -> dict[str, NDArray[Any]]:
    """The masked inputs themselves, {name: [B, ...]}."""
    requests = call.requests
    # -1, for elements that are never masked, is the last
    share = np.concatenate([keep, np.ones((len(keep), 1), keep.dtype)], axis=1)
    places = features.places(call.examples_of(rows))
    points = {}
    for name, x in requests.x.items():
        baseline, index = requests.baseline[name], features.index[name]
        found = np.empty((len(rows), *x.shape[1:]), x.dtype)
        for row, (request, place) in enumerate(zip(rows, places, strict=True)):
            part = share[row][index[place]].astype(x.dtype, copy=False)
            end, start = x[request], baseline[request]
            mixed = start + part * (end - start)
            found[row] = np.where(part == 1, end, np.where(part == 0, start, mixed))
        points[name] = found
    return points
