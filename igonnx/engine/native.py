"""The engine in C++, running inside the ONNX Runtime that is installed."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import DTypeLike

from igonnx import _core
from igonnx.engine.control import CallControl
from igonnx.engine.plan import MaskPlan, Requests, RowPlan, RowResult
from igonnx.engine.runtime import (
    Providers,
    on_cpu,
    one_line,
    onnxruntime_module,
    requested_providers,
)
from igonnx.engine.workers import Workers, shared_out
from igonnx.errors import EngineError, InputError

__all__ = ["NativeEngine", "NativeMaskEngine", "attach"]

Progress: TypeAlias = "Callable[[int, int], None] | None"

# Before 1.23 a loaded library could not create an environment of its own.
OLDEST_RUNTIME = (1, 23)

_attaching = threading.Lock()


def attach() -> None:
    """Hand the engine the ONNX Runtime of this process, once.

    Raises EngineError if none is installed, it is older than 1.23, or it refuses the library.
    """
    with _attaching:
        if not _core.is_attached():
            _register_library()


def _register_library() -> None:
    """Register the compiled module as a custom-operator library: that shows it the C API."""
    onnxruntime = onnxruntime_module()
    version = str(onnxruntime.__version__)
    if _release(version) < OLDEST_RUNTIME:
        raise EngineError(
            f"onnxruntime {version} was found; the native engine needs 1.23 or later: "
            'upgrade it, or pass engine="reference"'
        )
    try:
        onnxruntime.SessionOptions().register_custom_ops_library(_core.__file__)
    except _fail_error() as error:
        raise EngineError(
            f"onnxruntime {version} refused the native engine: {one_line(error)}"
        ) from error


def _fail_error() -> type[Exception]:
    """Return what onnxruntime raises if registering a library fails; it has no public name."""
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    return cast("type[Exception]", Fail)


def _release(version: str) -> tuple[int, ...]:
    """Return (1, 23) for "1.23.2" or "1.23.0.dev20250901"."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


class _NativeSession:
    """A graph that is loaded in `igonnx._core`, and the names of its inputs.

    Several threads may run plans on it at once; their rows share chunks where the inputs allow. Memory that runs out in
    a chunk halves it, and all later ones.
    """

    def __init__(
        self,
        model: bytes,
        *,
        explained: Sequence[str],
        batched: Sequence[str] = (),
        shared: Sequence[str] = (),
        dtype: DTypeLike = np.float32,
        fixed_rows: int | None = None,
        external_data_folder: str | Path | None = None,
        providers: Providers = None,
        threads: int | None = None,
        name: str = "model",
        queue_limit: int | None = None,
        workers: Workers | None = None,
    ) -> None:
        """Load a graph.

        `model` is the graph, serialised; `explained`, `batched`, `shared`, `dtype` and `fixed_rows`
        describe it as `igonnx.explanation_graph.ExplanationGraph` does. `external_data_folder` is
        where its external initializers lie. `providers` are execution providers by their full
        names, with options where given, in order of preference; None is the CPU alone. One that
        the runtime does not have is an error. `threads` is how many one call keeps busy; None: one per physical core.
        `name` stands for the model in error messages. `queue_limit` is the number of calls that are served at a time;
        further ones wait in line. `workers` says how the threads are shared out; None: as `shared_out` has it. Raises
        EngineError.
        """
        attach()
        folder = None if external_data_folder is None else str(external_data_folder)
        self._explained = tuple(explained)
        self._batched = tuple(batched)
        self._shared = tuple(shared)
        self._dtype = np.dtype(dtype)
        self._fixed_rows = fixed_rows
        chosen = requested_providers(providers)
        _require_no_cuda_graph(chosen)
        alone = on_cpu(providers)
        workers = workers or (shared_out(threads) if alone else Workers(threads=threads or 0))
        self.lanes = workers.lanes
        self._session = _core.Session(
            model=model,
            external_data_folder=folder,
            threads=workers.threads,
            providers=chosen,
            log_name=name,
            queue_limit=queue_limit or 0,
            runs_at_once=workers.runs_at_once,
            lanes=workers.lanes,
        )

    @property
    def row_limit(self) -> int | None:
        """Rows that a run may have since memory ran out with twice as many; None: it never did."""
        return self._session.row_limit or None

    def _run(
        self,
        function: Callable[..., Any],
        requests: Requests,
        further: Mapping[str, tuple[Any, bool]],
        *,
        batch_size: int,
        progress: Progress,
        control: CallControl | None,
        **by_row: Any,
    ) -> Any:
        """What a function of the session gives; `further` are fixed inputs, and whether they count the requests."""
        control = control or CallControl()
        fixed = {name: (_pick(requests.batched, name, "batched"), True) for name in self._batched}
        fixed |= {name: (_pick(requests.shared, name, "shared"), False) for name in self._shared}
        fixed |= further
        return function(
            explained=self._explained,
            x=[_pick(requests.x, name, "x") for name in self._explained],
            baseline=[_pick(requests.baseline, name, "baseline") for name in self._explained],
            fixed_names=list(fixed),
            fixed=[array for array, _ in fixed.values()],
            batched=[counts for _, counts in fixed.values()],
            cotangent=requests.cotangent,
            batch_size=self._fixed_rows or batch_size,
            pad=self._fixed_rows is not None,
            progress=progress,
            timeout=control.remaining(),
            cancel=control.token,
            lanes=control.lanes or self.lanes,
            **by_row,
        )


class NativeEngine(_NativeSession):
    """Runs row plans on one explanation graph (`igonnx.explanation_graph`)."""

    def run(
        self,
        requests: Requests,
        plan: RowPlan,
        *,
        batch_size: int,
        progress: Progress = None,
        control: CallControl | None = None,
    ) -> RowResult:
        """Run a plan as `igonnx.engine.plan.PlanEngine` says."""
        gradients, score, slope = self._run(
            self._session.run_plan,
            requests,
            {},
            batch_size=batch_size,
            progress=progress,
            control=control,
            row=np.ascontiguousarray(plan.row),
            alpha=np.ascontiguousarray(plan.alpha, dtype=self._dtype),
            weight=np.ascontiguousarray(plan.weight, dtype=self._dtype),
        )
        return RowResult(dict(zip(self._explained, gradients, strict=True)), score, slope)


class NativeMaskEngine(_NativeSession):
    """Runs plans of masks on one graph of `igonnx.masked_rows`: the masks are applied in it, row by row."""

    def run(
        self,
        requests: Requests,
        plan: MaskPlan,
        *,
        batch_size: int,
        progress: Progress = None,
        control: CallControl | None = None,
    ) -> RowResult:
        """Run a plan as `igonnx.engine.plan.PlanEngine` says; there are no gradients."""
        feature: dict[str, tuple[Any, bool]] = {
            f"feature:{name}": (np.ascontiguousarray(index), len(index) > 1)
            for name, index in plan.feature.items()
        }
        score = self._run(
            self._session.run_scores,
            requests,
            feature,
            batch_size=batch_size,
            progress=progress,
            control=control,
            row=np.ascontiguousarray(plan.row),
            by_row_names=["keep"],
            by_row=[np.ascontiguousarray(plan.keep, dtype=self._dtype)],
        )
        return RowResult({}, score, np.zeros(len(score)))


def _require_no_cuda_graph(providers: Sequence[tuple[str, Mapping[str, str]]]) -> None:
    """Refuse what would replay a chunk on the addresses of an earlier one: each chunk binds memory of its own."""
    for name, options in providers:
        if options.get("enable_cuda_graph", "0").lower() in ("1", "true"):
            raise InputError(f"enable_cuda_graph of {name} is not supported; leave it out")


def _pick(arrays: Mapping[str, Any], name: str, what: str) -> Any:
    """Return the array of a tensor, or raise InputError."""
    try:
        return arrays[name]
    except KeyError:
        given = ", ".join(map(repr, arrays)) or "none"
        raise InputError(f"{what} lacks {name!r}; given: {given}") from None
