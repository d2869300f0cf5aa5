"""Requests of one kind, computed by one call of the explainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx import Attribution, Explainer
from igonnx.errors import InputError
from igonnx.images import Preprocessing
from igonnx.serving.answer import part_of
from igonnx.serving.question import Question
from igonnx.serving.reading import Received
from igonnx.serving.sharing import Together

__all__ = ["Computing", "kind_of"]


class Computing:
    """Computes what jobs ask for; the work of each is its `Received` and, for an explanation, its `Question`."""

    def __init__(self, explainer: Explainer, preprocessing: Mapping[str, Preprocessing]) -> None:
        self._explainer = explainer
        self._preprocessing = preprocessing

    def explain(self, together: Together) -> list[Attribution]:
        """One attribution per job."""
        question: Question = together.jobs[0].work[1]
        arrays = _joined([job.work[0].arrays for job in together.jobs])
        targets = [job.work[1].targets for job in together.jobs]
        attribution: Attribution = getattr(self._explainer, question.method)(
            arrays,
            target=None if question.targets is None else [one for part in targets for one in part],
            baseline=self._baseline([job.work[1].baseline for job in together.jobs]),
            timeout=together.timeout,
            cancel=together.token,
            **dict(question.options),
        )
        return [part_of(attribution, *bounds) for bounds in _bounds(together)]

    def predict(self, together: Together) -> list[dict[str, NDArray[Any]]]:
        """The outputs by name, for each job."""
        arrays = _joined([job.work[0].arrays for job in together.jobs])
        outputs = self._explainer.predict(arrays)
        if len(together.jobs) == 1:
            return [outputs]
        total = sum(job.examples for job in together.jobs)
        if any(array.ndim == 0 or len(array) != total for array in outputs.values()):
            raise InputError(
                "an output does not count examples along its first axis"
            )  # one by one, then
        return [
            {name: array[start:stop] for name, array in outputs.items()}
            for start, stop in _bounds(together)
        ]

    def _baseline(self, given: list[Any]) -> Any:
        """The baseline of jobs of one kind: the same for all, or arrays laid one behind the other."""
        first = given[0]
        if isinstance(first, dict):
            return _joined(given)
        if isinstance(first, tuple) and first[:1] != ("constant",):
            return [self._one_baseline(one) for one in first]
        return self._one_baseline(first)

    def _one_baseline(self, given: Any) -> Any:
        if not isinstance(given, tuple):
            return given
        return {
            name: self._preprocessing[name].constant(given[1])
            if name in self._preprocessing
            else 0.0
            for name in self._explainer.wrt
        }


def kind_of(received: Received, question: Any) -> Any:
    """What must be equal for requests to be computed together; requests that cannot be are of no other's kind."""
    if not received.joinable:
        return object()
    shapes = tuple((name, array.shape[1:]) for name, array in received.arrays.items())
    return shapes, question


def _bounds(together: Together) -> list[tuple[int, int]]:
    """First and last example of each job."""
    ends = np.cumsum([job.examples for job in together.jobs]).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _joined(parts: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    if len(parts) == 1:
        return dict(parts[0])
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
