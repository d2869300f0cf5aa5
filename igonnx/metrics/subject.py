"""What a measure looks at: examples, their scores at any point, and the values that are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution
from igonnx.baselines import OneBaseline
from igonnx.checks import as_finite, require_whole
from igonnx.engine.control import CallControl
from igonnx.errors import InputError
from igonnx.explainer import Explainer
from igonnx.inputs import Arrays, checked_inputs
from igonnx.methods.call import Array, Progress, Scores, Tensors, require_progress
from igonnx.preparation import Prepared
from igonnx.requests import Examples, Question
from igonnx.row_scores import Apply, normalised_apply
from igonnx.targets import Target, TargetIndex

__all__ = [
    "OWN",
    "PROBABILITY",
    "Given",
    "Subject",
    "asked_of",
    "require_run",
    "sampled_scores",
    "subject_of",
    "values_by_name",
]

PROBABILITY = "probability"
OWN = "own"  # the score is that of the explainer
TOGETHER = (
    64  # points whose scores are asked for at once, where one sample of all examples is fewer
)

Given = Attribution | NDArray[Any] | Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Subject:
    """N examples, and the attribution of their scores."""

    x: Tensors  # [N, ...] per explained tensor
    baseline: Tensors  # [N, ...]
    values: dict[
        str, Array
    ]  # per explained tensor, finite; the shapes are for each measure to check
    scores: Array  # [N], at x
    scored: Scores  # anywhere, by forward passes
    target: list[TargetIndex | None]
    apply: Apply  # what makes the score of the output

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.scores)


def require_run(baseline: object, seed: object, progress: object, what: str) -> None:
    """Check the arguments that all measures share; `what` names the measure. Raises `InputError`."""
    require_whole("seed", seed, 0)
    require_progress(progress)
    if isinstance(baseline, list):
        raise InputError(f"baseline is a list; expected one baseline for {what}")


def subject_of(
    explainer: Explainer,
    inputs: Arrays,
    attribution: Given,
    *,
    target: Target,
    baseline: OneBaseline,
    seed: int,
    control: CallControl,
    apply: Apply = OWN,
) -> Subject:
    """Bring together what a measure needs of `attribution`, which is for `inputs`.

    `apply`: how the output becomes a score: OWN, as the explainer has it; PROBABILITY (see `insertion_deletion`); else
    as an explainer takes it. Raises `InputError` as `Explainer.explain_with`, and for values that are not finite or
    for other tensors than the explainer's.
    """
    arrays = checked_inputs(explainer.model, inputs, explainer.wrt)
    values, target = values_by_name(attribution, explainer.wrt, target)
    examples, asked = asked_of(explainer, arrays, target, baseline, seed, apply)
    return Subject(
        x=asked.requests.x,
        baseline=asked.baselines[0],
        values=values,
        scores=asked.scores,
        scored=partial(examples.scores, asked.requests, control),
        target=asked.indices,
        apply=examples.apply,
    )


def asked_of(
    explainer: Explainer,
    arrays: Mapping[str, NDArray[Any]],
    target: Target,
    baseline: OneBaseline = None,
    seed: int = 0,
    apply: Apply = OWN,
) -> tuple[Examples, Question]:
    """The examples as `explainer` sees them, and what is asked of them; the arguments are those of `subject_of`."""
    prepared = explainer._prepare(arrays)
    if apply == OWN:
        apply = explainer.apply
    elif apply == PROBABILITY:
        apply = _probability(explainer, prepared, arrays)
    if apply != explainer.apply:
        prepared = replace(prepared, settings=replace(prepared.settings, apply=apply))
    examples = Examples(explainer.model, prepared, prepared.passes(), arrays, explainer.wrt, apply)
    return examples, examples.question(target, baseline, seed)


def values_by_name(
    attribution: Given, wrt: tuple[str, ...], target: Target
) -> tuple[dict[str, Array], Target]:
    """Values by tensor, finite, and the target they are for: `target`, or else that of the `Attribution`."""
    values: Any = attribution
    if isinstance(attribution, Attribution):
        values = attribution.values
        if target is None:
            known = [index for index in attribution.target if index is not None]
            if len(known) < len(attribution.target):
                raise InputError("the attribution explains a mask: pass the same target=")
            target = known
    named = values if isinstance(values, Mapping) else dict.fromkeys(wrt[:1], values)
    if set(named) != set(wrt):
        raise InputError(
            f"the attribution is for {sorted(named)}; expected one for each of {list(wrt)}"
        )
    return {name: as_finite(named[name]) for name in wrt}, target


def sampled_scores(
    subject: Subject, samples: int, made: Callable[[int], Tensors], progress: Progress
) -> Array:
    """The scores, float64 [N, samples], at the points {name: [N, ...]} that `made(k)` gives for each sample k.

    Raises `InputError` naming the first example with a score that is not finite.
    """
    count = len(subject)
    scores = np.empty((count, samples))
    together = max(1, TOGETHER // count)
    for start in range(0, samples, together):
        stop = min(start + together, samples)
        points = [made(k) for k in range(start, stop)]
        joined = {name: np.concatenate([one[name] for one in points]) for name in subject.x}
        examples = np.tile(np.arange(count), stop - start)
        scores[:, start:stop] = subject.scored(examples, joined).reshape(stop - start, count).T
        if progress is not None:
            progress(count * stop, count * samples)
    if not np.isfinite(scores).all():
        bad = int(np.argwhere(~np.isfinite(scores))[0, 0])
        raise InputError(f"a score of example {bad} is not finite: try another baseline")
    return scores


def _probability(
    explainer: Explainer, prepared: Prepared, arrays: Mapping[str, NDArray[Any]]
) -> Apply:
    """What makes a probability of the explained output."""
    match explainer.apply:
        case None:
            pass
        case "log_softmax":
            return "softmax"
        case ("log_softmax", axis):
            return "softmax", axis
        case known:
            return known
    output = prepared.run(arrays)[explainer.output]
    batch = prepared.batch_axis or 0
    classes = _class_axis(output.ndim, stacked=prepared.batch_axis is None)
    if classes is None or classes == batch or output.shape[classes] == 1:
        return None
    sums = output.sum(axis=classes, dtype=np.float64)
    return None if output.min() >= 0 and np.allclose(sums, 1, atol=1e-3) else "softmax"


def _class_axis(rank: int, *, stacked: bool) -> int | None:
    """The axis that softmax would run over in an output of this rank, with one more in front where `stacked`."""
    found = normalised_apply("softmax", rank - stacked) if rank > stacked else None
    return None if found is None else found[1] + stacked
