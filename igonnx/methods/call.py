"""What a method is given, and what it gives back.

A method is a function of one `Call`: N requests and an engine that computes gradients. Everything around it, from the
caller's arrays to the requests, noise, several baselines, and from the result to an `Attribution`, is made by
`Explainer.explain_with`, the same for every method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution, Path
from igonnx.autodiff.propagation import PropagationSpec
from igonnx.baselines import Baselines, baselines_of
from igonnx.engine.control import Cancel
from igonnx.engine.plan import Engine, MaskEngine, Requests, RowPlan, RowResult
from igonnx.errors import EngineError, InputError
from igonnx.inputs import Arrays
from igonnx.layers import InnerTensor
from igonnx.model import Model
from igonnx.row_layers import Inside
from igonnx.targets import Target

__all__ = [
    "Array",
    "Call",
    "Core",
    "Explaining",
    "MethodResult",
    "Options",
    "PointGradients",
    "Progress",
    "Running",
    "Tensors",
    "call_for",
    "copied",
    "copies_together",
    "finite_scores",
    "gradients_at",
    "per_request",
    "picked",
    "require_progress",
    "run_rows",
    "scores_at",
    "tensor_shape",
    "times_path",
]

TOGETHER = 8 << 20  # bytes of the arrays of copies of requests that are run at once

Progress: TypeAlias = "Callable[[int, int], None] | None"
Array: TypeAlias = "NDArray[np.float64]"
Tensors: TypeAlias = "Mapping[str, NDArray[Any]]"  # by name
# Scores [B] at points {name: [B, ...]} of the requests [B].
Scores: TypeAlias = "Callable[[NDArray[np.int64], Tensors], Array]"
# Values {name: [B, ...]} of the tensors of these names there.
Values: TypeAlias = "Callable[[Sequence[str], NDArray[np.int64], Tensors], dict[str, NDArray[Any]]]"
# What is asked of such tensors there, with what each point has beside it: see `igonnx.row_layers`.
InsideAt: TypeAlias = (
    "Callable[[Inside, NDArray[np.int64], Tensors, Tensors], dict[str, NDArray[Any]]]"
)


class Running(TypedDict, total=False):
    """How a call runs; every method takes these.

    progress: called with (gradients done, gradients in all) from time to time; an exception in it stops.
    timeout: seconds this call may take, waiting included; then it raises `DeadlineError`.
    cancel: an `igonnx.CancelToken` or a `threading.Event` with which another thread stops it (`CancelledError`).
    """

    progress: Progress
    timeout: float | None
    cancel: Cancel


def require_progress(progress: object) -> None:
    """Raise `InputError` for a `progress` that cannot be called."""
    if progress is not None and not callable(progress):
        raise InputError(f"progress is {progress!r}; expected a function of two numbers, or None")


class Options(Running, total=False):
    """`Running`, and the noise tunnel around a method (see `igonnx.methods.noise`).

    noise: None, "smoothgrad", "smoothgrad_sq" or "vargrad".
    noise_samples: noisy copies of each input.
    noise_std: standard deviation of the noise in the units of the explained tensor, one number or {name: number}; None:
        15 % of the range of each example's values.
    """

    noise: str | None
    noise_samples: int
    noise_std: float | Mapping[str, float] | None


@dataclass(frozen=True)
class MethodResult:
    """What a method gives, for R requests."""

    attribution: dict[str, Array]  # [R, ...] per explained tensor
    steps_used: NDArray[np.int64]  # [R], gradient evaluations that count in the result
    scores: Array | None = None  # [R], at x; None: not evaluated
    baseline_scores: Array | None = None  # [R]
    paths: list[Path] | None = None  # of methods that follow a path of scores
    error_estimate: Array | None = None  # [R], estimated relative L2 error of the attribution
    correction: Array | None = None  # [R], what exact_sum added, as a share of each contribution
    total: Array | None = None  # [R], what `delta` compares; None: the sum of the attribution
    r_squared: Array | None = None  # [R], of the model that a method fitted to the scores


@dataclass(frozen=True)
class Call:
    """One call of a method: `requests` [R, ...] and what computes their gradients."""

    engine: Engine
    requests: Requests
    batch_size: int  # rows (gradients) computed at once in one lane
    seed: int = 0  # of draws: the same for every request, so that none depends on the others
    ends_wanted: bool = True  # whether the scores at x and baseline are worth two further rows
    forward: Scores | None = None  # scores by forward passes, where no gradient is needed for them
    values: Values | None = None  # of tensors between the explained ones and the output
    # What scores masked inputs batch by batch; None: `forward` does, by hand. See `igonnx.methods.masking`.
    masks: Callable[[], MaskEngine] | None = None
    inside: InsideAt | None = None  # what else there is to know of them
    scores: Array | None = None  # [R], at x, where they are known already
    progress: Progress = field(default=None, compare=False)
    # What baselines as a caller gives them stand for: {name: [R, ...]} for each; see `baselines`.
    known_baselines: Callable[[Baselines], list[dict[str, NDArray[Any]]]] | None = None
    # [R], by which numbers the caller knows the requests, which may be copies; None: by their own
    examples: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """The number of requests."""
        return len(self.requests.cotangent)

    @property
    def rows_together(self) -> int:
        """Rows that fill every lane once: what a method's own chunks should be a multiple of."""
        return self.batch_size * self.engine.lanes

    def baselines(self, given: Baselines) -> list[dict[str, NDArray[Any]]]:
        """The baselines, one or several, that a caller's argument stands for: each {name: [R, ...]}.

        Raises `InputError` as `igonnx.baselines.baselines_of`.
        """
        if self.known_baselines is not None:
            return self.known_baselines(given)
        return baselines_of(given, self.requests.x, self.requests.cotangent.dtype, self.seed)

    def examples_of(self, requests: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers by which the caller knows `requests` [B]: what a message should name."""
        return requests if self.examples is None else self.examples[requests]

    def ticking(self, total: int) -> Callable[[int], None]:
        """A function to be told of gradients that are done, out of `total`; it tells the caller's `progress`."""
        done = 0

        def tick(count: int) -> None:
            nonlocal done
            done += count
            if self.progress is not None:
                self.progress(done, total)

        return tick


Core: TypeAlias = Callable[[Call], MethodResult]


class Explaining(Protocol):
    """What the functions that become methods of `Explainer` use of it."""

    @property
    def wrt(self) -> tuple[str, ...]:
        """Names of the tensors that attributions are given for."""
        ...  # pragma: no cover

    @property
    def model(self) -> Model:
        """The model, normalised."""
        ...  # pragma: no cover

    @property
    def output(self) -> str:
        """Name of the explained output."""
        ...  # pragma: no cover

    @property
    def memory_limit(self) -> int | None:
        """Bytes that rows computed at once may take; None: not given."""
        ...  # pragma: no cover

    def tensors(self, pattern: str = "*", *, anywhere: bool = False) -> list[InnerTensor]:
        """The tensors that can be layers; see `Explainer.tensors`."""
        ...  # pragma: no cover

    def sibling(
        self, *, output: str | None = None, wrt: Sequence[str] | str | None = None
    ) -> Explaining:
        """An explainer of the same model for another output or other tensors; see `Explainer.sibling`."""
        ...  # pragma: no cover

    def explain_with(
        self,
        core: Core,
        inputs: Arrays,
        *,
        method: str,
        target: Target = None,
        baseline: Baselines = None,
        seed: int = 0,
        propagation: str | PropagationSpec | None = "gradient",
        exact_sum: bool = False,
        noise: str | None = None,
        noise_samples: int = 10,
        noise_std: float | Mapping[str, float] | None = None,
        progress: Progress = None,
        timeout: float | None = None,
        cancel: Cancel = None,
    ) -> Attribution:
        """Run a method's core; see `Explainer.explain_with`."""
        ...  # pragma: no cover


def run_rows(call: Call, plan: RowPlan) -> RowResult:
    """Run a plan and refuse gradients that are not finite: `EngineError` names the first such example and alpha.

    A row of no weight is there for its score; where only its gradient is not finite (a norm at zero, at the baseline),
    the sums are formed again without it.
    """
    run, requests, size = call.engine.run, call.requests, call.batch_size
    result = run(requests, plan, batch_size=size, progress=call.progress)
    usable = np.isfinite(result.slope) & np.isfinite(result.score)
    if usable.all():
        return result
    needed = (plan.weight != 0) | ~np.isfinite(result.score)
    bad = np.flatnonzero(~usable & needed)
    if bad.size:
        first = int(bad[0])
        example = call.examples_of(plan.row[first : first + 1])[0]
        what = "the gradient" if np.isfinite(result.score[first]) else "the score"
        raise EngineError(
            f"{what} is not finite at alpha = {plan.alpha[first]:.6g} on the path of example {example} "
            f"({bad.size} of {len(plan.row)} points): try another baseline, or wrt= a tensor behind the singularity"
        )
    kept = RowPlan(plan.row[usable], plan.alpha[usable], plan.weight[usable])
    again = run(requests, kept, batch_size=size)
    return replace(result, weighted_gradient=again.weighted_gradient)


def scores_at(call: Call, examples: NDArray[np.int64], points: Mapping[str, NDArray[Any]]) -> Array:
    """The scores at B points anywhere, of requests `examples` [B]; cheaper than `gradients_at`."""
    if call.forward is None:
        parts = []
        for start in range(0, len(examples), call.rows_together):  # gradients come with them
            rows = slice(start, start + call.rows_together)
            some = {name: array[rows] for name, array in points.items()}
            parts.append(gradients_at(call, examples[rows], some).score)
        return np.concatenate(parts)
    return finite_scores(call, examples, call.forward(examples, points))


def finite_scores(call: Call, examples: NDArray[np.int64], scores: Array) -> Array:
    """The scores [B] of points of requests `examples`; an `EngineError` where one is not finite."""
    bad = np.flatnonzero(~np.isfinite(scores))
    if bad.size:
        known = call.examples_of(examples[bad[:1]])[0]
        raise EngineError(
            f"the score is {scores[bad[0]]} at a point of example {known}: try another baseline"
        )
    return scores


@dataclass(frozen=True)
class PointGradients:
    """Gradients at B points, and the scores there."""

    gradient: dict[str, Array]  # [B, ...] per explained tensor
    score: Array  # [B]


def gradients_at(
    call: Call, examples: NDArray[np.int64], points: Mapping[str, NDArray[Any]]
) -> PointGradients:
    """The gradient at B points anywhere, one by one: `points` {name: [B, ...]}, of requests `examples` [B].

    The points are handed to the model exactly as they are, in the precision of the requests. All B gradients are held
    at once: callers with many points take them `call.rows_together` (or a few times that) at a time. Raises
    `EngineError` for a gradient or score that is not finite.
    """
    some = picked(call.requests, examples)
    at = {
        name: np.ascontiguousarray(points[name], dtype=array.dtype)
        for name, array in some.x.items()
    }
    # Row by row: from nothing to the point, all of the way. 0 + 1 (p - 0) is p to the last bit.
    origin = {name: np.zeros_like(array) for name, array in at.items()}
    requests = replace(some, x=at, baseline=origin)
    count = len(examples)
    plan = RowPlan(np.arange(count), np.ones(count), np.ones(count))
    spread = -(-count // call.engine.lanes)  # a few rows are no batch: every lane gets some of them
    result = call.engine.run(requests, plan, batch_size=min(call.batch_size, spread))
    finite = np.isfinite(result.score) & np.isfinite(result.slope)
    for gradient in result.weighted_gradient.values():
        finite &= np.isfinite(gradient.reshape(count, -1)).all(axis=1)
    if not finite.all():
        first = int(np.flatnonzero(~finite)[0])
        known = call.examples_of(examples[first : first + 1])[0]
        raise EngineError(
            f"the gradient is not finite at a point of example {known} ({int((~finite).sum())} of {count} points): "
            "try another baseline, or wrt= a tensor behind the singularity"
        )
    return PointGradients(result.weighted_gradient, result.score)


def picked(requests: Requests, examples: NDArray[np.int64]) -> Requests:
    """The requests `examples` [B], in that order and as often: a request of its own for each."""
    return replace(
        requests,
        x=_rows(requests.x, examples),
        baseline=_rows(requests.baseline, examples),
        batched=_rows(requests.batched, examples),
        cotangent=requests.cotangent[examples],
    )


def call_for(call: Call, examples: NDArray[np.int64]) -> Call:
    """The call for its requests `examples` [B] alone, without progress: the caller knows the whole."""
    return _renumbered(call, examples, picked(call.requests, examples))


def copied(call: Call, ends: Sequence[tuple[Tensors, Tensors]]) -> Call:
    """The call for copies of all requests, one behind the other: [copies * R, ...], without progress.

    `ends` are the x and the baseline, {name: [R, ...]}, of each copy.
    """
    given = call.requests
    every = np.tile(np.arange(len(call)), len(ends))

    def joined(parts: Iterable[Tensors], name: str) -> NDArray[Any]:
        # Broadcast arrays leave their odd strides behind.
        return np.ascontiguousarray(np.concatenate([part[name] for part in parts]))

    requests = replace(
        given,
        x={name: joined((x for x, _ in ends), name) for name in given.x},
        baseline={name: joined((baseline for _, baseline in ends), name) for name in given.x},
        batched=_rows(given.batched, every),
        cotangent=given.cotangent[every],
    )
    return _renumbered(call, every, requests)


def _renumbered(call: Call, numbers: NDArray[np.int64], requests: Requests) -> Call:
    """The call for `requests` [B], each made of that request of the call which `numbers` [B] tells."""
    forward, values, inside = call.forward, call.values, call.inside
    return replace(
        call,
        requests=requests,
        forward=None
        if forward is None
        else lambda examples, points: forward(numbers[examples], points),
        values=None
        if values is None
        else lambda names, examples, points: values(names, numbers[examples], points),
        inside=None
        if inside is None
        else lambda asked, examples, *rest: inside(asked, numbers[examples], *rest),
        scores=None,
        progress=None,
        known_baselines=None,
        examples=call.examples_of(numbers),
    )


def _rows(arrays: Tensors, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    return {name: array[rows] for name, array in arrays.items()}


def copies_together(call: Call) -> int:
    """How many copies of all requests to run at once: enough to fill every lane, and beyond that TOGETHER bytes."""
    requests = call.requests
    arrays = [*requests.x.values(), *requests.batched.values(), requests.cotangent]
    filling = -(-call.rows_together // len(call))
    each = sum(array.nbytes for array in arrays)
    return filling * max(1, TOGETHER // max(1, filling * each))


def times_path(gradient: NDArray[Any], requests: Requests, name: str) -> Array:
    """`gradient` [R, ...] times x - baseline, in float64."""
    path = requests.x[name].astype(np.float64)
    path -= requests.baseline[name]
    path *= gradient
    return path


def tensor_shape(values: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    """`values` [R], one per request, shaped to broadcast over `like` [R, ...]."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def per_request(arrays: Sequence[NDArray[Any]]) -> Array:
    """The sum of all elements of each request over arrays [R, ...], float64 [R]."""
    return np.asarray(
        sum(array.reshape(len(array), -1).sum(axis=1, dtype=np.float64) for array in arrays)
    )
