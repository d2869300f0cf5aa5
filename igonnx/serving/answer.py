"""Explanations as they are sent: as JSON, as tensors, and as pictures."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx import Attribution
from igonnx.cli.methods import ADDING_UP
from igonnx.errors import InputError
from igonnx.images import Preprocessing
from igonnx.serving.question import Question

__all__ = ["Explanation", "part_of"]


@dataclass(frozen=True)
class Explanation:
    """The answer to one request.

    explained: names of the explained tensors. overlays: one PNG file per example, where asked for.
    """

    attribution: Attribution
    explained: tuple[str, ...]
    question: Question
    overlays: list[bytes] | None = None

    @cached_property
    def completeness_error(self) -> NDArray[np.float64] | None:
        """The relative completeness error per example; None where values are not meant to add up."""
        noisy = any(name == "noise" for name, _ in self.question.options)
        if self.question.method not in ADDING_UP or noisy:
            return None
        return self.attribution.relative_delta

    def to_json(self) -> dict[str, Any]:
        """A V1 answer: {"explanations": [one object per example], "method": text}.

        Attributions are arrays; whoever writes the JSON has to turn them into lists. What is not finite is left out.
        """
        attribution, wanted = self.attribution, self.question.form != "png"
        errors = self.completeness_error
        answers = []
        for i, target in enumerate(attribution.target):
            one: dict[str, Any] = {
                "target": target[0] if target is not None and len(target) == 1 else target,
                "score": float(attribution.scores[i]),
                "baseline_score": float(attribution.baseline_scores[i]),
                "steps": int(attribution.steps_used[i]),
            }
            if errors is not None:
                one["delta"] = float(attribution.delta[i])
                one["completeness_error"] = float(errors[i])
            if attribution.error_estimate is not None:
                one["error_estimate"] = float(attribution.error_estimate[i])
            if wanted:
                values = {name: attribution.of(name)[i] for name in self.explained}
                one["attribution"] = values if len(values) > 1 else values[self.explained[0]]
            if self.overlays is not None:
                one["overlay"] = {"b64": base64.b64encode(self.overlays[i]).decode()}
            answers.append({key: value for key, value in one.items() if not _is_nan(value)})
        return {"explanations": answers, "method": attribution.method}

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """A V2 answer: tensors by name, each with the examples along its first axis."""
        attribution = self.attribution
        tensors: dict[str, NDArray[Any]] = {}
        if self.question.form != "png":
            for name in self.explained:
                tensors[f"attribution_{name}"] = attribution.of(name)
        indices = [target for target in attribution.target if target is not None]
        if len(indices) == len(attribution.target):
            tensors["target"] = np.array(indices, dtype=np.int64).reshape(len(indices), -1)
        tensors["score"] = attribution.scores
        tensors["baseline_score"] = attribution.baseline_scores
        tensors["steps"] = attribution.steps_used
        errors = self.completeness_error
        if errors is not None:
            tensors["delta"] = attribution.delta
            tensors["completeness_error"] = errors
        if attribution.error_estimate is not None:
            tensors["error_estimate"] = attribution.error_estimate
        if self.overlays is not None:
            tensors["overlay"] = np.empty(len(self.overlays), dtype=object)
            tensors["overlay"][:] = self.overlays
        return tensors

    def with_overlays(
        self, arrays: Mapping[str, NDArray[Any]], preprocessing: Mapping[str, Preprocessing]
    ) -> Explanation:
        """The same with a picture per example: the attribution of the first input that takes images, laid over it."""
        name = next((name for name in self.explained if name in preprocessing), None)
        if name is None:
            raise InputError("there is no picture to draw on: no explained input takes images")
        how, values = preprocessing[name], self.attribution.of(name)
        overlays = [_png(values[i], how.inverse(arrays[name][i]), how) for i in range(len(values))]
        return dataclasses.replace(self, overlays=overlays)


def part_of(attribution: Attribution, start: int, stop: int) -> Attribution:
    """The examples from `start` to before `stop`."""
    rows = slice(start, stop)
    values = attribution.values
    estimate, correction = attribution.error_estimate, attribution.correction
    return dataclasses.replace(
        attribution,
        values={name: array[rows] for name, array in values.items()}
        if isinstance(values, dict)
        else values[rows],
        delta=attribution.delta[rows],
        scores=attribution.scores[rows],
        baseline_scores=attribution.baseline_scores[rows],
        target=attribution.target[rows],
        path=attribution.path[rows] if attribution.path else attribution.path,
        steps_used=attribution.steps_used[rows],
        error_estimate=None if estimate is None else estimate[rows],
        correction=None if correction is None else correction[rows],
    )


def _png(values: NDArray[Any], image: NDArray[Any], how: Preprocessing) -> bytes:
    """The attribution of one example over its image, as a PNG file."""
    import PIL.Image

    from igonnx.visual import render

    written = io.BytesIO()
    PIL.Image.fromarray(render(values, image, layout=how.layout)).save(written, "PNG")
    return written.getvalue()


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and not np.isfinite(value)
