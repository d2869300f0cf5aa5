"""From a caller's arrays to the requests of a method, and from its result to an `Attribution`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution
from igonnx.baselines import Baselines, OneBaseline, baselines_of
from igonnx.engine.control import CallControl
from igonnx.engine.plan import Requests
from igonnx.engine.row_forward import rows_together
from igonnx.errors import InputError, ModelError
from igonnx.methods.call import Array, MethodResult, per_request
from igonnx.model import Model
from igonnx.preparation import Gradients, Passes, Prepared
from igonnx.row_layers import Inside
from igonnx.row_scores import Apply, normalised_apply
from igonnx.targets import Target, TargetIndex, resolve

__all__ = ["Examples", "Question", "applied", "attribution_of"]


@dataclass(frozen=True)
class Question:
    """What is explained by what."""

    requests: Requests  # with the first of the baselines
    baselines: list[dict[str, NDArray[Any]]]
    indices: list[TargetIndex | None]  # what is explained per example
    scores: Array  # [N], of the examples


@dataclass(frozen=True)
class Examples:
    """The N examples of one call: the model that is ready for them, their arrays, and what is explained by what."""

    model: Model
    prepared: Prepared
    rows: Gradients | Passes
    arrays: Mapping[str, NDArray[Any]]  # every input of the model
    wrt: tuple[str, ...]
    apply: Apply

    def question(self, target: Target, baseline: Baselines, seed: int) -> Question:
        """What is to be explained of these examples.

        Raises `InputError` for a target or baseline that does not fit, and for tensors that do not count the examples.
        """
        results = self.prepared.run(self.arrays)
        output = self._explained(results)
        x = self._tensors(self.arrays, results)
        self._require_examples(x, output)
        dtype = self.rows.dtype
        cotangent, indices = resolve(target, output, dtype)
        baselines = self.baselines(x, seed, baseline)
        fixed = {f"fixed:{name}": array for name, array in self.arrays.items()}
        requests = Requests(
            x=x,
            baseline=baselines[0],
            batched={name: fixed[name] for name in self.rows.batched},
            shared={name: fixed[name] for name in self.rows.shared},
            cotangent=cotangent,
        )
        return Question(requests, baselines, indices, _scores(output, cotangent))

    def baselines(
        self, x: Mapping[str, NDArray[Any]], seed: int, given: Baselines
    ) -> list[dict[str, NDArray[Any]]]:
        """The baselines that `given` stands for, one or several, by explained tensor: the shapes are those of `x`."""
        inner = (
            [self._inner(one, seed + i) for i, one in enumerate(given)]
            if isinstance(given, list)
            else self._inner(given, seed)
        )
        return baselines_of(inner, x, self.rows.dtype, seed)

    @property
    def can_be_fed(self) -> bool:
        """Whether every explained tensor is an input of the model, so that a forward pass gives a point's score."""
        return all(name in self.arrays for name in self.wrt)

    def scores(
        self,
        requests: Requests,
        control: CallControl,
        examples: NDArray[np.int64],
        points: Mapping[str, NDArray[Any]],
    ) -> Array:
        """Scores [B] at points {name: [B, ...]} of the examples [B], by forward passes.

        `control` may stop it between two passes. The model's own session serves where it can be fed with the points.
        """
        if not self.can_be_fed:
            return self._forward((), requests, control, examples, points)["score"].astype(
                np.float64
            )
        found = np.empty(len(examples))
        size = rows_together(points)
        for start in range(0, len(examples), size):
            part = slice(start, start + size)
            rows = examples[part]
            control.check(self.model.name, "between two forward passes")
            arrays = dict(self.arrays)
            arrays |= {name: arrays[name][rows] for name in self.prepared.batched}
            arrays |= {
                name: points[name][part].astype(arrays[name].dtype, copy=False) for name in self.wrt
            }
            output = self._explained(self.prepared.run(arrays))
            found[part] = _scores(output, requests.cotangent[rows])
        return found

    def values(
        self,
        requests: Requests,
        control: CallControl,
        names: Sequence[str],
        examples: NDArray[np.int64],
        points: Mapping[str, NDArray[Any]],
    ) -> dict[str, NDArray[Any]]:
        """Values {name: [B, ...]} of tensors between the explained ones and the output, at such points.

        Raises `InputError` for one that does not count the examples along its first axis.
        """
        found = self._forward(tuple(names), requests, control, examples, points)
        return {name: found[f"value:{name}"] for name in names}

    def inside(
        self,
        requests: Requests,
        control: CallControl,
        asked: Inside,
        examples: NDArray[np.int64],
        points: Mapping[str, NDArray[Any]],
        beside: Mapping[str, NDArray[Any]],
    ) -> dict[str, NDArray[Any]]:
        """What is asked of inner tensors at such points, by its names in `igonnx.row_layers`.

        `beside` holds what else each point has: directions, or neurons, by the names of the graph's inputs, [B, ...].
        Raises as `igonnx.row_layers.build_row_layers`, and `InputError` as `values`.
        """
        return self._forward(asked, requests, control, examples, points, beside)

    def _forward(
        self,
        asked: tuple[str, ...] | Inside,
        requests: Requests,
        control: CallControl,
        examples: NDArray[np.int64],
        points: Mapping[str, NDArray[Any]],
        beside: Mapping[str, NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        forward = self.prepared.row_forward(asked)
        others = {**requests.batched, **requests.shared, "cotangent": requests.cotangent}
        return forward.run(examples, points, others, control, beside)

    def _explained(self, results: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """The explained output with its batch axis in front, after `apply`."""
        output = results[self.prepared.settings.output]
        stacked = (
            self.prepared.batch_axis is None
        )  # one by one: an axis in front of the output's own
        chosen = normalised_apply(self.apply, output.ndim - stacked)
        if chosen is not None:
            output = applied(output, chosen[0], chosen[1] + stacked)
        return np.moveaxis(output, self.prepared.batch_axis or 0, 0)

    def _tensors(
        self, arrays: Mapping[str, NDArray[Any]], results: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """The explained tensors, inputs or computed, in the precision of the gradients."""
        found = {name: np.asarray(arrays.get(name, results.get(name))) for name in self.wrt}
        dtype = self.rows.dtype
        return {name: np.ascontiguousarray(array, dtype=dtype) for name, array in found.items()}

    def _inner(self, baseline: OneBaseline, seed: int) -> OneBaseline:
        """A baseline given for model inputs, where inner tensors are explained, is sent through the model."""
        if not isinstance(baseline, Mapping) or not baseline:
            return baseline
        if any(name in self.wrt or name not in self.arrays for name in baseline):
            return baseline
        arrays = dict(self.arrays)
        for name, one in baseline.items():
            given, like = {name: one}, {name: arrays[name]}
            arrays |= baselines_of(given, like, arrays[name].dtype, seed)[0]
        results = self.prepared.run(arrays)
        dtype = self.rows.dtype
        inner = [name for name in self.wrt if name not in arrays]
        return {name: np.ascontiguousarray(results[name], dtype=dtype) for name in inner}

    def _require_examples(self, x: Mapping[str, NDArray[Any]], output: NDArray[Any]) -> None:
        """Refuse tensors that do not count the examples along their first axis."""
        batched = self.prepared.batched
        count = len(self.arrays[batched[0]]) if batched else 1
        for name, array in x.items():
            if array.ndim == 0 or len(array) != count:
                raise InputError(
                    f"wrt {name!r} has shape {list(array.shape)}; expected the {count} examples along its first axis"
                )
        if len(output) != count:
            raise ModelError(
                f"output {self.prepared.settings.output!r} has {len(output)} entries for {count} examples along its "
                "batch axis"
            )


def _scores(output: NDArray[Any], cotangent: NDArray[Any]) -> Array:
    """What is explained of outputs [B, ...] with their cotangents, [B]."""
    asked = np.where(
        cotangent != 0, output, 0
    )  # the rest may be infinite: classes that a mask rules out
    return per_request([asked.astype(np.float64) * cotangent])


def attribution_of(
    result: MethodResult,
    scores: Array,
    baseline_scores: Array,
    indices: list[TargetIndex | None],
    method: str,
    dtype: np.dtype[Any],
) -> Attribution:
    """The result of a method as the caller gets it."""
    total = result.total
    if total is None:
        total = per_request(list(result.attribution.values()))
    # A half-precision input gets float32: a contribution may exceed what the input's own dtype holds.
    values = {name: array.astype(dtype) for name, array in result.attribution.items()}
    return Attribution(
        values=values if len(values) > 1 else next(iter(values.values())),
        delta=total - (scores - baseline_scores),
        scores=scores,
        baseline_scores=baseline_scores,
        target=indices,
        path=result.paths or [],
        steps_used=result.steps_used,
        error_estimate=result.error_estimate,
        method=method,
        correction=result.correction,
        r_squared=result.r_squared,
    )


def applied(output: NDArray[Any], operator: str, axis: int) -> NDArray[Any]:
    """`output` after one of the functions of `apply`, in float64, outside the runtime."""
    from scipy import special

    functions = {"Softmax": special.softmax, "LogSoftmax": special.log_softmax}
    if operator in functions:
        return np.asarray(functions[operator](output.astype(np.float64), axis=axis))
    return np.asarray(special.expit(output.astype(np.float64)))
