"""A method around several baselines and noisy copies of the input: one result from many.

Copies are requests like any other, so that many of them share batches. For each noisy copy the results over the
baselines are averaged; what the noise tunnel makes of these averages is the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from igonnx.attribution import Path
from igonnx.methods.call import (
    Array,
    Call,
    Core,
    MethodResult,
    Progress,
    Tensors,
    copied,
    copies_together,
    finite_scores,
    per_request,
    scores_at,
)
from igonnx.methods.noise import Moments, Noise
from igonnx.methods.results import split

__all__ = ["run_ensemble"]


def run_ensemble(
    call: Call, core: Core, baselines: Sequence[Tensors], noise: Noise | None
) -> tuple[MethodResult, Array, Array]:
    """The result of `core` for `call`, averaged over `baselines` and taken through `noise`, and the scores at the ends.

    Scores [N] are those of the inputs themselves, without noise, and the mean over the baselines.
    """
    if noise is None and len(baselines) == 1:
        return _with_scores(core(_with_baseline(call, baselines[0])), call, baselines)
    count, samples = len(call), 1 if noise is None else noise.samples
    total = samples * len(baselines)
    kind = "smoothgrad" if noise is None else noise.kind
    together, done = copies_together(call), 0
    copies = _copies(call, baselines, noise)
    moments, parts = Moments(kind), list[MethodResult]()
    seen, sizes = list[MethodResult](), list[Array]()
    while group := list(islice(copies, together)):
        progress = _share(call.progress, done, len(group), total)
        many = replace(copied(call, group), progress=progress, ends_wanted=noise is None)
        result = core(many)
        for part in split(result, len(group), count):
            parts.append(part)
            sizes.append(_norms(part.attribution))
            seen.append(replace(part, attribution={}))
            if len(parts) == len(baselines):
                moments.add(_mean(parts))
                parts.clear()
        done += len(group)
    attribution = moments.result()
    combined = MethodResult(
        attribution=attribution,
        steps_used=np.sum([part.steps_used for part in seen], axis=0),
        # Those of noisy copies are not what is asked for.
        scores=_mean_of([part.scores for part in seen]) if noise is None else None,
        baseline_scores=_mean_of([part.baseline_scores for part in seen]),
        paths=_mean_paths([part.paths for part in seen if part.paths is not None], count),
        # Of squares and variances there is no estimate.
        error_estimate=_error_of_mean(
            [part.error_estimate for part in seen], sizes, _norms(attribution), len(baselines)
        )
        if kind == "smoothgrad"
        else None,
        total=_mean_of([part.total for part in seen]) if kind == "smoothgrad" else None,
        r_squared=_mean_of([part.r_squared for part in seen]),
    )
    return _with_scores(combined, call, baselines)


def _with_scores(
    result: MethodResult, call: Call, baselines: Sequence[Tensors]
) -> tuple[MethodResult, Array, Array]:
    """The result, and the scores at x and, in the mean over the baselines, there: its own, or evaluated here."""
    scores, baseline_scores = result.scores, result.baseline_scores
    if scores is None or baseline_scores is None:
        every = np.arange(len(call))
        if scores is None and call.scores is not None:
            scores = finite_scores(call, every, call.scores)
        if scores is None:
            scores = scores_at(call, every, call.requests.x)
        if baseline_scores is None:
            found = [scores_at(call, every, baseline) for baseline in baselines]
            baseline_scores = np.asarray(np.mean(found, axis=0))
    return result, scores, baseline_scores


def _with_baseline(call: Call, baseline: Tensors) -> Call:
    return replace(call, requests=replace(call.requests, baseline=baseline))


def _copies(
    call: Call, baselines: Sequence[Tensors], noise: Noise | None
) -> Iterator[tuple[Tensors, Tensors]]:
    """Each pair of x and baseline, [N, ...]: all baselines of one noisy copy, then those of the next."""
    x = call.requests.x
    for copy in [x] if noise is None else noise.draws(x, call.seed):
        for baseline in baselines:
            yield copy, baseline


def _mean(parts: Sequence[MethodResult]) -> dict[str, Array]:
    if len(parts) == 1:
        return parts[0].attribution
    return {
        name: np.mean([part.attribution[name] for part in parts], axis=0)
        for name in parts[0].attribution
    }


def _mean_of(arrays: Sequence[Array | None]) -> Array | None:
    """The mean of arrays [N]; None where one of them is missing."""
    known = [array for array in arrays if array is not None]
    return np.asarray(np.mean(known, axis=0)) if len(known) == len(arrays) else None


def _error_of_mean(
    errors: Sequence[Array | None], sizes: Sequence[Array], size: Array, baselines: int
) -> Array | None:
    """The relative L2 error [N] of the mean of attributions, of norms `sizes`, that have relative errors of their own.

    Paths from different baselines have their errors at different places: they are taken for independent, as those of a
    mesh's intervals are. Noisy copies are so alike that theirs are taken to add up. `size` is the norm of the mean.
    """
    known = [error for error in errors if error is not None]
    if len(known) < len(errors):
        return None
    squares = np.square(known) * np.square(sizes)  # [copies * baselines, N]
    of_copies = np.sqrt(squares.reshape(-1, baselines, len(size)).sum(axis=1)) / baselines
    absolute = of_copies.mean(axis=0)
    relative = (absolute > 0).astype(np.float64)
    np.divide(absolute, size, out=relative, where=size > 0)
    return np.asarray(relative)


def _norms(attribution: Mapping[str, Array]) -> Array:
    """The L2 norm of each example's attribution, all tensors together, [N]."""
    return np.asarray(np.sqrt(per_request([np.square(a) for a in attribution.values()])))


def _mean_paths(paths: Sequence[list[Path]], count: int) -> list[Path] | None:
    if not paths:
        return None
    return [_mean_path([one[example] for one in paths]) for example in range(count)]


def _mean_path(paths: Sequence[Path]) -> Path:
    """The mean of scores and slopes over paths: at their common points, or interpolated at all points of any."""
    alpha = np.unique(np.concatenate([path.alpha for path in paths]))
    weight = np.zeros(len(alpha))
    score, slope = np.zeros((2, len(alpha)))
    for path in paths:
        weight[np.searchsorted(alpha, path.alpha)] += path.weight / len(paths)
        score += np.interp(alpha, path.alpha, path.score) / len(paths)
        slope += np.interp(alpha, path.alpha, path.slope) / len(paths)
    return Path(alpha, weight, score, slope)


def _share(progress: Progress, done: int, here: int, total: int) -> Progress:
    """Progress of a group of copies, told as that of all of them."""
    if progress is None:
        return None

    def tick(part: int, whole: int) -> None:
        per_copy = whole / here
        progress(round(per_copy * done + part), round(per_copy * total))

    return tick
