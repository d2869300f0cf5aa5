"""Gradients expected over a distribution of baselines: expected gradients and GradientSHAP.

Both are the mean, over random baselines b and random alpha in [0, 1], of (x - b) times the gradient at
b + alpha (x - b): Integrated Gradients with baseline and integral estimated together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, Unpack

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution
from igonnx.baselines import Baselines
from igonnx.checks import require_whole
from igonnx.engine.plan import RowPlan, part_of_progress
from igonnx.errors import InputError
from igonnx.inputs import Arrays, checked_baseline
from igonnx.methods.call import (
    Array,
    Call,
    Explaining,
    MethodResult,
    Running,
    Tensors,
    copied,
    copies_together,
    run_rows,
    scores_at,
    times_path,
)
from igonnx.methods.noise import noisy, require_std, width_like
from igonnx.targets import Target

__all__ = ["expected", "expected_gradients", "gradient_shap"]


def expected_gradients(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    samples: int = 200,
    **running: Unpack[Running],
) -> Attribution:
    """Expected gradients (Erion et al., 2021, arXiv:1906.10670).

    Args:
        inputs, target: as for `integrated_gradients`.
        baseline: the distribution: an array [K, ...] of K examples (or {name: such an array} with one K for all), drawn
            from alike for every input; or a list of baselines as `integrated_gradients` takes them. A single baseline,
            such as the default zeros, gives IG by Monte Carlo. Where an inner tensor is explained, examples of a model
            input are a list, such as [{"ids": row} for row in rows]; {"ids": array} is what it is for IG.
        seed: of the draws, which are the same for every input.
        samples: gradients per input. Each alpha is drawn from a stratum of its own, which leaves less variance than
            independent draws; a baseline is drawn as often as any other, give or take one.
        running: progress, timeout, cancel, as for `integrated_gradients`.

    `baseline_scores` is the mean score of the baselines drawn, so `delta` tells how much the estimate lacks.
    Raises as `integrated_gradients`; `InputError` for an empty set of baselines or no samples.

    """
    require_whole("samples", samples, 1)
    return explainer.explain_with(
        partial(expected, draw=partial(_stratified, samples), given=baseline, std=None),
        inputs,
        method=f"expected_gradients samples={samples}",
        target=target,
        seed=seed,
        **running,
    )


def gradient_shap(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    samples: int = 50,
    noise_std: float | Mapping[str, float] = 0.0,
    **running: Unpack[Running],
) -> Attribution:
    """GradientSHAP (Lundberg and Lee, 2017, arXiv:1705.07874, as shap and Captum have it).

    Args:
        inputs, target, baseline, seed: as for `expected_gradients`.
        samples: per input. Each has a baseline and an alpha drawn independently, and noise of its own.
        noise_std: standard deviation of Gaussian noise added to the input, in its own units: one number or
            {name: number}. The noisy input is also what the baseline is subtracted from.
        running: progress, timeout, cancel, as for `integrated_gradients`.

    The values approximate SHAP values where features are independent and the model is linear between baseline and
    input. Raises as `expected_gradients`.

    """
    require_whole("samples", samples, 1)
    named = noise_std if isinstance(noise_std, Mapping) else dict.fromkeys(explainer.wrt, noise_std)
    if None in named.values():
        raise InputError("noise_std is None; expected a number of at least 0")
    require_std("noise_std", noise_std, explainer.wrt)
    return explainer.explain_with(
        partial(
            expected,
            draw=partial(_independent, samples),
            given=baseline,
            std=named if any(named.values()) else None,
        ),
        inputs,
        method=f"gradient_shap samples={samples} noise_std={noise_std}",
        target=target,
        seed=seed,
        **running,
    )


# Numbers of baselines and alphas, from how many baselines there are.
_Draw: TypeAlias = "Callable[[int, np.random.Generator], tuple[NDArray[np.int64], Array]]"


# -- what is drawn -----------------------------------------------------------------------------


def _stratified(
    samples: int, baselines: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], Array]:
    """A baseline and an alpha for each sample: one alpha in each of `samples` strata, in order.

    The strata, in order, go to all baselines in turn, in a new random order each turn: all are drawn alike often, and
    the alphas of each are spread over the path.
    """
    rounds = -(-samples // baselines)
    number = np.concatenate([random.permutation(baselines) for _ in range(rounds)])[:samples]
    return number, (np.arange(samples) + random.random(samples)) / samples


def _independent(
    samples: int, baselines: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], Array]:
    return random.integers(baselines, size=samples), random.random(samples)


class _Distribution:
    """The baselines that may be drawn: examples common to all requests, or several per request."""

    def __init__(self, given: Baselines, call: Call) -> None:
        self._x = call.requests.x
        self._common: dict[str, NDArray[Any]] | None = None
        arrays = _common_examples(given, self._x)
        if arrays is None:
            self._several = call.baselines(given)
            self.size = len(self._several)
        else:
            self._common, self.size = arrays, len(next(iter(arrays.values())))

    def __getitem__(self, index: int) -> Tensors:
        """Baseline `index` for every request, {name: [R, ...]}."""
        if self._common is None:
            return self._several[index]
        return {
            name: np.broadcast_to(array[index], self._x[name].shape)
            for name, array in self._common.items()
        }


def _common_examples(given: Baselines, x: Tensors) -> dict[str, NDArray[Any]] | None:
    """The examples [K, ...] by tensor, where `given` is such a set; None where it is something else.

    Beside a set, a number (or None, for 0) fills as many examples of another tensor.
    """
    named = given if isinstance(given, Mapping) else {}
    if not isinstance(given, Mapping | list | str):
        if given is None or np.ndim(given) == 0:
            return None
        if len(x) > 1:
            raise InputError(
                f"one set of baselines was given for {len(x)} explained tensors: pass a dict of {list(x)}"
            )
        named = dict.fromkeys(x, given)
    sets = {
        name: _checked_set(one, x[name], name)
        for name, one in named.items()
        if name in x and not isinstance(one, str) and one is not None and np.ndim(one) > 0
    }
    if not sets or any(name not in x for name in named):
        return None
    sizes = {name: len(array) for name, array in sets.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"baselines hold different numbers of examples: {sizes}")
    size = next(iter(sizes.values()))
    return {
        name: sets[name] if name in sets else _filled_set(named.get(name), array, name, size)
        for name, array in x.items()
    }


def _checked_set(given: Any, x: NDArray[Any], name: str) -> NDArray[Any]:
    """`given` as [K, ...] of the dtype of `x` [R, ...]; a single example will do."""
    array, wanted = np.asarray(given), x.shape[1:]
    if array.shape == wanted:
        array = array[None]
    if array.shape[1:] != wanted or array.ndim != x.ndim:
        raise InputError(
            f"baselines of {name!r} have shape {list(array.shape)}; expected [K, ...] with K examples of shape "
            f"{list(wanted)}"
        )
    if len(array) == 0:
        raise InputError(f"baselines of {name!r} are an empty set; expected at least one example")
    if array.dtype.kind not in "fiub":
        raise InputError(f"baselines of {name!r} are {array.dtype}; expected numbers")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=x.dtype)
    if not np.isfinite(array).all():
        raise InputError(f"baselines of {name!r} hold values that are not finite")
    return array


def _filled_set(given: Any, x: NDArray[Any], name: str, size: int) -> NDArray[Any]:
    if isinstance(given, str):
        raise InputError(
            f"baseline of {name!r} is {given!r} beside a set of examples; expected a set or a number"
        )
    like = np.broadcast_to(x[:1], (size, *x.shape[1:]))
    return checked_baseline({name: given}, {name: like}, x.dtype)[name]


# -- the mean ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Path:
    """The samples that share a path: a baseline and, if any, a noisy copy of the inputs."""

    baseline: int
    alpha: Array


def expected(
    call: Call,
    *,
    draw: _Draw,
    given: Baselines,
    std: Mapping[str, float] | None,
) -> MethodResult:
    """The mean over the samples that `draw` gives; `std` is that of the noise on each sample, by tensor."""
    random = np.random.default_rng(call.seed)
    baselines = _Distribution(given, call)
    number, alpha = draw(baselines.size, random)
    given_x, widths = call.requests.x, None
    if std is None:  # samples with one baseline lie on one path: the engine sums their gradients
        paths = [_Path(int(k), np.sort(alpha[number == k])) for k in np.unique(number)]
    else:
        paths = [_Path(int(k), alpha[i : i + 1]) for i, k in enumerate(number)]
        widths = {name: width_like(std.get(name, 0), array) for name, array in given_x.items()}
    count, samples = len(call), len(alpha)
    total = {name: np.zeros(array.shape) for name, array in given_x.items()}
    done, size = 0, copies_together(call)
    for start in range(0, len(paths), size):
        group = paths[start : start + size]
        ends = [
            (
                given_x if widths is None else noisy(given_x, widths, random),
                baselines[path.baseline],
            )
            for path in group
        ]
        progress = part_of_progress(call.progress, done, count * samples)
        copies = replace(copied(call, ends), progress=progress)
        plan = _plan([path.alpha for path in group], count)
        result = run_rows(copies, plan)
        for name, gradient in result.weighted_gradient.items():
            part = times_path(gradient, copies.requests, name)
            total[name] += part.reshape(len(group), *total[name].shape).sum(axis=0) / samples
        done += len(plan.row)
    return MethodResult(
        attribution=total,
        steps_used=np.full(count, samples),
        baseline_scores=_mean_score(call, baselines, number),
    )


def _mean_score(call: Call, baselines: _Distribution, number: NDArray[np.int64]) -> Array:
    """The mean score of the baselines drawn, for each request, [R]."""
    drawn, times = np.unique(number, return_counts=True)
    count, size = len(call), copies_together(call)
    mean = np.zeros(count)
    for start in range(0, len(drawn), size):
        some = [baselines[int(k)] for k in drawn[start : start + size]]
        points = {name: np.concatenate([one[name] for one in some]) for name in call.requests.x}
        scores = scores_at(call, np.tile(np.arange(count), len(some)), points)
        mean += times[start : start + size] @ scores.reshape(len(some), count) / len(number)
    return mean


def _plan(alphas: list[Array], count: int) -> RowPlan:
    """The rows of every path: path by path, its `count` requests, their samples."""
    row = np.concatenate(
        [
            np.repeat(np.arange(i * count, (i + 1) * count), len(alpha))
            for i, alpha in enumerate(alphas)
        ]
    )
    alpha = np.concatenate([np.tile(one, count) for one in alphas])
    return RowPlan(row, alpha, np.ones(len(row)))
