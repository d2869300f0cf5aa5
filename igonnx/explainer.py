"""`Explainer`: a model and what to explain of it; methods give attributions."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution, relative_distance
from igonnx.autodiff.selection import tensors_per_example, tensors_to_explain
from igonnx.engine.control import Cancel, ControlledEngine, call_control
from igonnx.engine.plan import Requests
from igonnx.engine.precision import require_precision
from igonnx.engine.runtime import Providers
from igonnx.errors import InputError, ModelError
from igonnx.graph.builder import rank
from igonnx.inputs import (
    Arrays,
    Baseline,
    BatchedInputs,
    batched_inputs,
    checked_baseline,
    checked_inputs,
)
from igonnx.methods.adaptive import adaptive_mesh
from igonnx.methods.exact_sum import made_exact
from igonnx.methods.path_integral import Integral, Progress, fixed_rule
from igonnx.model import Model, ModelSource
from igonnx.preparation import ENGINES, Gradients, Prepared, Settings, prepare
from igonnx.row_gradient import Apply, normalised_apply
from igonnx.targets import Target, TargetIndex, resolve

__all__ = ["Explainer"]


class Explainer:
    """Explains one output of an ONNX model by some of its tensors.

    Args:
        model: path, bytes or `onnx.ModelProto`.
        output: name of the explained output; default: the first floating one.
        wrt: names of graph inputs or floating intermediate tensors to attribute to; default: every floating input, or
            for a model fed with integers its embedding.
        apply: None, "softmax", "log_softmax" or "sigmoid", applied to the output before the target is picked; softmax
            runs over axis 1 of outputs with four or more axes, else over the last; ("softmax", axis) says otherwise.
        providers: ONNX Runtime execution providers, as onnxruntime takes them; default: the CPU.
        engine: "native" (C++) or "reference" (NumPy around one session; slower, for checking).
        batch_size: rows (gradients) computed at once; default: tried out in the first long call, whose own rows are the
            measurement, and remembered in the user's cache (IGONNX_CACHE_DIR; "off": not). Results depend on it by
            rounding only; give a number where even that must not change from call to call.
        memory_limit: bytes that rows computed at once may take, estimated from the graph, where `batch_size` is not
            given (default: 128 MiB a batch, a quarter of the machine's memory in all; one row is run in any case),
            and as many again for the gradients that `tolerance` keeps (default: 512 MiB).
        threads: threads that one call keeps busy; default: one per physical core. On the CPU the native engine runs as
            many rows at the same time, or batches of `batch_size` rows; beyond eight, threads work within operators.
        straight_through: gradients go straight through the rounding of quantised operators, with slope one inside the
            range of the codes and zero outside, as through torch.fake_quantize; False: rounding has its own slope,
            zero, and nothing passes.
        precision: "bfloat16": matrix products (MatMul, Gemm) round their factors to bfloat16 and sum in float32, the
            rest stays as it is; for CPUs with AMX or AVX512_BF16, with the package igonnx[bfloat16]. Scores on the path
            are computed so too; `precision_error` tells what it costs. Default: the model's own precision.
        queue_limit: calls that are served at a time; when more threads call, the rest wait in line (or until their
            `timeout`). Those that are served take turns and share batches. None: no limit.

    Raises:
        ModelError: the model cannot be read, or no differentiable path leads to the output.
        InputError: an unknown name or value among the arguments.
        EngineError: what `precision` needs is not there.

    """

    def __init__(
        self,
        model: ModelSource,
        *,
        output: str | None = None,
        wrt: Sequence[str] | str | None = None,
        apply: Apply = None,
        providers: Providers = None,
        engine: str = "native",
        batch_size: int | None = None,
        memory_limit: int | None = None,
        threads: int | None = None,
        straight_through: bool = True,
        precision: str | None = None,
        queue_limit: int | None = None,
    ) -> None:
        if engine not in ENGINES:
            raise InputError(f"engine is {engine!r}; expected {' or '.join(map(repr, ENGINES))}")
        for name, number, most in (
            ("batch_size", batch_size, 1 << 20),
            ("memory_limit", memory_limit, 1 << 50),
            ("threads", threads, 1024),
            ("queue_limit", queue_limit, 1 << 20),
        ):
            whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
            if number is not None and not (whole and 1 <= number <= most):
                raise InputError(
                    f"{name} is {number!r}; expected a whole number from 1 to {most}, or None"
                )
        require_precision(precision, engine, providers)
        self.model = Model.load(model)
        target = self.model.find_output(output)
        tensors = tensors_to_explain(self.model, wrt, target, straight_through=straight_through)
        if wrt is None:
            tensors = tensors_per_example(self.model, tensors)
        normalised_apply(apply, rank(target))
        self._settings = Settings(
            target.name or "",
            tuple(value.name or "" for value in tensors),
            apply,
            engine,
            providers,
            threads,
            straight_through,
            precision,
            batch_size,
            memory_limit,
            queue_limit,
        )
        self._batch_size = batch_size
        self._prepared: dict[BatchedInputs, Prepared] = {}
        self._preparing = threading.Lock()

    @property
    def output(self) -> str:
        """Name of the explained output."""
        return self._settings.output

    @property
    def wrt(self) -> tuple[str, ...]:
        """Names of the tensors that attributions are given for."""
        return self._settings.wrt

    def predict(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """The model's outputs by name, for `inputs` (one array, or {name: array}) with the batch axis."""
        arrays = checked_inputs(self.model, inputs, self.wrt)
        prepared = self._prepare(arrays)
        results = prepared.forward.run(arrays, prepared.batched, {self.output: prepared.batch_axis})
        return {info.name: results[info.name] for info in self.model.outputs}

    def integrated_gradients(
        self,
        inputs: Arrays,
        *,
        baseline: Baseline = None,
        target: Target = None,
        steps: int = 50,
        rule: str = "gauss_legendre",
        tolerance: float | None = None,
        max_steps: int = 1000,
        memory_limit: int | None = None,
        exact_sum: bool = False,
        progress: Progress = None,
        timeout: float | None = None,
        cancel: Cancel = None,
    ) -> Attribution:
        """Integrated Gradients (Sundararajan, Taly and Yan, 2017, arXiv:1703.01365).

        Args:
            inputs: array [N, ...] (a model with one input) or {name: array}.
            baseline: where the path starts, per explained tensor: None for zeros, a number that fills it, an array that
                broadcasts to its shape, or {name: one of these}.
            target: what is explained. None: the largest element of each example's output (after `apply`); an int or
                tuple: an index into the output without its batch axis; a list: one of these per example; an array of
                the output's shape: a mask or any weights.
            steps: number of steps of the rule. 50 is the custom, and often too few: see `Attribution.delta`.
            rule: "gauss_legendre", "trapezoid", "middle", "left" or "right".
            tolerance: refine adaptively instead, until the relative completeness error and the estimated relative L2
                error of the attribution are both at most this; `steps` and `rule` are then not used.
            max_steps: points per example at which `tolerance` may evaluate the gradient; what it then did not reach is
                said in a `ToleranceWarning`.
            memory_limit: bytes that the gradients kept for `tolerance` may take; None: as many as the explainer's limit
                has, else 512 MiB, or what 13 gradients need. Beyond it some are computed again: it costs time, not
                accuracy.
            exact_sum: make the values add up to the change in score by the smallest correction: each is moved by the
                same share of its size, which `Attribution.correction` records. A tolerance then is for the
                estimated error, the correction included, and takes fewer gradients.
            progress: called with (gradients done, gradients in all) from time to time; an exception in it stops.
            timeout: seconds this call may take, waiting included; then it stops, also in the midst of a run that is
                not shared with another call. Making the sessions, on the first call, is not interrupted.
            cancel: an `igonnx.CancelToken` or a `threading.Event` with which another thread stops this call likewise.

        Raises:
            InputError: inputs, baseline, target or settings that do not fit; the message says what was expected.
            EngineError: the runtime failed, or a gradient on the path is not finite.
            DeadlineError, CancelledError: kinds of it: `timeout` or `cancel` has stopped the call. The explainer, and
                other calls, go on.

        """
        control = call_control(timeout, cancel)
        arrays = checked_inputs(self.model, inputs, self.wrt)
        prepared = self._prepare(arrays)
        with self._preparing:
            gradients = prepared.gradients
        engine = ControlledEngine(gradients.engine, control)
        control.check(self.model.name, "before the first run")
        requests, indices = self._requests(prepared, gradients, arrays, baseline, target)
        batch_size = self._batch_size or gradients.rows_at_once(requests)
        if tolerance is None:
            integral = fixed_rule(
                engine,
                requests,
                rule=rule,
                steps=steps,
                batch_size=batch_size,
                progress=progress,
            )
            method = f"integrated_gradients rule={rule} steps={steps}"
        else:
            integral = adaptive_mesh(
                engine,
                requests,
                tolerance=tolerance,
                max_steps=max_steps,
                batch_size=batch_size,
                memory_limit=self._settings.memory_limit if memory_limit is None else memory_limit,
                exact_sum=exact_sum,
                progress=progress,
            )
            method = f"integrated_gradients tolerance={tolerance} max_steps={max_steps}"
        if exact_sum:
            integral = made_exact(integral)
            method += " exact_sum"
        if self._settings.precision is not None:
            method += f" precision={self._settings.precision}"
        return self._attribution(integral, indices, method, gradients.dtype)

    def precision_error(self, inputs: Arrays, **options: Any) -> NDArray[np.float64]:
        """What `precision` costs: how far the attributions are from those in the model's own precision.

        Both are computed, by `integrated_gradients(inputs, **options)`. Relative L2 distance per example, float64 [N]:
        zero without a `precision`, infinite where the exact attribution alone is zero.
        """
        rounded = self.integrated_gradients(inputs, **options)
        return relative_distance(
            rounded, self._in_own_precision.integrated_gradients(inputs, **options)
        )

    @cached_property
    def _in_own_precision(self) -> Explainer:
        """This explainer without its `precision`; its sessions are its own."""
        other = copy.copy(self)
        other._settings = dataclasses.replace(self._settings, precision=None)
        other._prepared, other._preparing = {}, threading.Lock()
        return other

    # -- from arrays to requests and back ----------------------------------------------------

    def _prepare(self, arrays: Mapping[str, NDArray[Any]]) -> Prepared:
        """Sessions for inputs like these; made on the first call."""
        key = batched_inputs(self.model, arrays, self.wrt)
        with self._preparing:
            if key not in self._prepared:
                self._prepared[key] = prepare(self.model, self._settings, arrays, key)
        return self._prepared[key]

    def _requests(
        self,
        prepared: Prepared,
        gradients: Gradients,
        arrays: Mapping[str, NDArray[Any]],
        baseline: Baseline,
        target: Target,
    ) -> tuple[Requests, list[TargetIndex | None]]:
        results = prepared.run(arrays)
        output = self._explained_output(prepared, results)
        count = len(arrays[prepared.batched[0]]) if prepared.batched else 1
        found = {name: np.asarray(arrays.get(name, results.get(name))) for name in self.wrt}
        self._require_examples(count, found, output)
        dtype = gradients.dtype
        x = {name: np.ascontiguousarray(array, dtype=dtype) for name, array in found.items()}
        cotangent, indices = resolve(target, output, dtype)
        fixed = {f"fixed:{name}": array for name, array in arrays.items()}
        requests = Requests(
            x=x,
            baseline=checked_baseline(baseline, x, dtype),
            batched={name: fixed[name] for name in gradients.batched},
            shared={name: fixed[name] for name in gradients.shared},
            cotangent=cotangent,
        )
        return requests, indices

    def _explained_output(
        self, prepared: Prepared, results: Mapping[str, NDArray[Any]]
    ) -> NDArray[Any]:
        """The explained output with its batch axis in front, after `apply`."""
        output = results[self.output]
        stacked = prepared.batch_axis is None  # one by one: an axis in front of the output's own
        chosen = normalised_apply(self._settings.apply, output.ndim - stacked)
        if chosen is not None:
            output = _applied(output, chosen[0], chosen[1] + stacked)
        return np.moveaxis(output, prepared.batch_axis or 0, 0)

    def _require_examples(
        self, count: int, x: Mapping[str, NDArray[Any]], output: NDArray[Any]
    ) -> None:
        """Refuse tensors that do not count the examples along their first axis."""
        for name, array in x.items():
            if array.ndim == 0 or len(array) != count:
                raise InputError(
                    f"wrt {name!r} has shape {list(array.shape)}; expected the {count} examples along its first axis"
                )
        if len(output) != count:
            raise ModelError(
                f"output {self.output!r} has {len(output)} entries for {count} examples along its batch axis"
            )

    def _attribution(
        self,
        integral: Integral,
        indices: list[TargetIndex | None],
        method: str,
        dtype: np.dtype[Any],
    ) -> Attribution:
        total = sum(a.reshape(len(a), -1).sum(axis=1) for a in integral.attribution.values())
        # A half-precision input gets float32: a contribution may exceed what the input's own dtype holds.
        values = {name: array.astype(dtype) for name, array in integral.attribution.items()}
        return Attribution(
            values=values if len(values) > 1 else values[self.wrt[0]],
            delta=np.asarray(total - (integral.scores - integral.baseline_scores)),
            scores=integral.scores,
            baseline_scores=integral.baseline_scores,
            target=indices,
            path=integral.paths,
            steps_used=integral.steps_used,
            error_estimate=integral.error_estimate,
            method=method,
            correction=integral.correction,
        )


def _applied(output: NDArray[Any], operator: str, axis: int) -> NDArray[Any]:
    """`output` after one of the functions of `apply`, in float64: only to find the largest element."""
    from scipy import special

    functions = {"Softmax": special.softmax, "LogSoftmax": special.log_softmax}
    if operator in functions:
        return np.asarray(functions[operator](output.astype(np.float64), axis=axis))
    return np.asarray(special.expit(output.astype(np.float64)))
