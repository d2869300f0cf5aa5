"""Everything that is made once per model and kind of call: sessions, graphs, and where the batch axis is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from igonnx.autodiff.propagation import GRADIENT, PropagationSpec, specification
from igonnx.batching import require_first_axis
from igonnx.engine.calibration import USUAL_CHUNK, CalibratedEngine, first_guess, machine
from igonnx.engine.control import CallControl, ControlledEngine
from igonnx.engine.forward import Forward, axis_of_length
from igonnx.engine.plan import AnyPlan, Engine, MaskEngine, NoGradients, PlanEngine, Requests
from igonnx.engine.precision import BFLOAT16
from igonnx.engine.row_forward import RowForward
from igonnx.engine.runtime import (
    Providers,
    RuntimeSession,
    on_cpu,
    onnxruntime_module,
    requested_providers,
    serialized,
)
from igonnx.errors import EngineError, ModelError, warn_caller
from igonnx.explanation_graph import ExplanationGraph, build_explanation_graph
from igonnx.graph.builder import dtype_of
from igonnx.graph.native_target import NativeTarget
from igonnx.inputs import BatchedInputs
from igonnx.masked_rows import build_masked_rows
from igonnx.model import Model
from igonnx.native_lowering import lower
from igonnx.native_lowering.bfloat16 import multiply_in_bfloat16
from igonnx.rebatching import (
    fixed_batch,
    places_are_alike,
    rebatched,
    rows_are_independent,
    rows_share_a_branch,
)
from igonnx.row_gradient import RowGradient, build_row_gradient
from igonnx.row_layers import Inside, build_row_layers
from igonnx.row_scores import Apply, RowScores, batch_axis_of, build_row_scores, score_dtype
from igonnx.simplification import is_light, simplified
from igonnx.working_memory import fingerprint, working_memory

__all__ = ["ENGINES", "Gradients", "Passes", "Prepared", "Settings", "prepare"]

ENGINES = ("native", "reference")
PlanT = TypeVar("PlanT", bound=AnyPlan)
NativeT = TypeVar("NativeT")


@dataclass(frozen=True)
class Settings:
    """What an explainer was made with."""

    output: str
    wrt: tuple[str, ...]
    apply: Apply
    engine: str
    providers: Providers
    threads: int | None
    straight_through: bool = True
    precision: str | None = None  # of matrix products; None: the model's own
    batch_size: int | None = None  # rows at once; None: measured
    memory_limit: int | None = None  # bytes that rows run at once may take, where measured
    queue_limit: int | None = None  # calls served at a time; None: any number


@dataclass(frozen=True)
class Gradients:
    """An engine, and which of the model's other inputs it takes, as it calls them."""

    engine: Engine
    batched: tuple[str, ...]  # [R, ...]
    shared: tuple[str, ...]  # as the model takes them
    dtype: np.dtype[Any]  # of x, baseline and cotangent
    overridden: int  # nodes that a propagation's own rules serve; 0: it is the gradient

    def rows_at_once(self, requests: Requests) -> int:
        """Rows per chunk that suit requests like these."""
        if isinstance(self.engine, CalibratedEngine):
            return self.engine.rows_at_once(requests)
        return first_guess(requests)


@dataclass(frozen=True)
class Passes:
    """As `Gradients`, where forward passes are enough: its engine computes no gradients."""

    engine: NoGradients
    batched: tuple[str, ...]
    shared: tuple[str, ...]
    dtype: np.dtype[Any]

    def rows_at_once(self, requests: Requests) -> int:
        """Rows per chunk that suit requests like these."""
        return first_guess(requests)


@dataclass
class Prepared:
    """A model ready to run for inputs of one kind; what computes gradients is made when it is first asked for.

    One thread at a time may ask for gradients.
    """

    model: Model
    settings: Settings
    forward: Forward
    batched: tuple[str, ...]  # model inputs that have the batch axis
    batch_axis: int | None  # of the explained output; None: it has none, examples run one by one
    fixed_rows: int | None  # the only number of rows the model takes; None: any
    _gradients: dict[str | PropagationSpec, Gradients] = field(
        default_factory=dict, init=False, repr=False
    )
    _forwards: dict[tuple[str, ...] | Inside, RowForward] = field(
        default_factory=dict, init=False, repr=False
    )
    _masks: MaskEngine | None = field(default=None, init=False, repr=False)
    _making: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs and the explained tensors for `arrays`; an explained output without batch axis is stacked."""
        axes = {self.settings.output: self.batch_axis}
        alone = self.batch_axis is None or self.fixed_rows == 1
        run = self.forward.one_by_one if alone else self.forward.run
        return run(arrays, self.batched, axes)

    def gradients(self, propagation: str | PropagationSpec = GRADIENT) -> Gradients:
        """The engine for `propagation` (see `igonnx.autodiff.propagation`), made once.

        Raises as `igonnx.gradient` where the model cannot be differentiated, and `InputError` for an unknown
        propagation. Where that is no other than the gradient, its engine serves; for a propagation by another name, a
        warning (`UserWarning`) says so.
        """
        if propagation not in self._gradients:
            self._gradients[propagation] = self._made(propagation)
        made = self._gradients[propagation]
        if propagation != GRADIENT and not made.overridden:
            spec = specification(propagation)
            if spec.acts_on is not None:
                warn_caller(
                    f"{self.model.name}: no {spec.acts_on} lies on the way to output {self.settings.output!r}: "
                    f"{spec.name} is the plain gradient",
                )
        return made

    def passes(self) -> Passes:
        """What is fed beside the explained tensors where nothing but forward passes is wanted."""
        settings = self.settings
        others = [info.name for info in self.model.inputs if info.name not in settings.wrt]
        values = [self.model.find_output(settings.output)]
        values += [self.model.find_tensor(name) for name in settings.wrt]
        return Passes(
            NoGradients(self.model.name),
            tuple(f"fixed:{name}" for name in others if name in self.batched),
            tuple(f"fixed:{name}" for name in others if name not in self.batched),
            score_dtype(values),
        )

    def row_forward(self, asked: tuple[str, ...] | Inside = ()) -> RowForward:
        """What computes, from the explained tensors, scores of rows, or what is `asked` of inner ones; made once.

        A tuple of names asks for their values. Raises as `igonnx.row_scores.build_row_scores` and
        `igonnx.row_layers.build_row_layers`.
        """
        with self._making:
            if asked not in self._forwards:
                self._forwards[asked] = self._made_forward(asked)
            return self._forwards[asked]

    def _made_forward(self, asked: tuple[str, ...] | Inside) -> RowForward:
        settings = self.settings
        rows = self._opened_for(asked)
        session = RuntimeSession(
            serialized(rows.model, self.model.name),
            name=self.model.name,
            folder=self.model.folder,
            providers=settings.providers,
            threads=settings.threads,
        )
        inputs = rows.model.graph.inputs
        return RowForward(
            session,
            dtypes={value.name or "": dtype_of(value).numpy() for value in inputs},
            batched=[f"fixed:{name}" for name in rows.fixed if name in self.batched],
            fixed_rows=self.fixed_rows,
        )

    def _opened_for(self, asked: tuple[str, ...] | Inside) -> RowScores:
        """The graph of forward passes that `row_forward` runs."""
        settings = self.settings
        axis, fixed_rows = self.batch_axis, self.fixed_rows
        if isinstance(asked, Inside):
            return build_row_layers(
                simplified(self.model, keep=[*settings.wrt, *asked.layers]),
                asked,
                output=settings.output,
                wrt=settings.wrt,
                apply=settings.apply,
                batch_axis=axis,
                fixed_rows=fixed_rows,
                straight_through=settings.straight_through,
            )
        return build_row_scores(
            self.model,
            output=settings.output,
            wrt=settings.wrt,
            apply=settings.apply,
            batch_axis=axis,
            fixed_rows=fixed_rows,
            values=asked,
        )

    def masks(self, control: CallControl) -> MaskEngine:
        """The engine in C++ that computes scores of masked inputs, under `control`; made once."""
        with self._making:
            if self._masks is None:
                self._masks = self._made_for_masks()
        return ControlledEngine(self._masks, control)

    def _made_for_masks(self) -> MaskEngine:
        from igonnx.engine.native import NativeMaskEngine

        settings = self.settings
        rows = build_row_scores(
            simplified(self.model, keep=settings.wrt),
            output=settings.output,
            wrt=settings.wrt,
            apply=settings.apply,
            batch_axis=self.batch_axis,
            fixed_rows=self.fixed_rows,
        )
        calibrated = _calibration(settings, rows, self.batched)
        _round_products(self.model, settings, rows, "it has none")
        graph = build_masked_rows(rows, self.batched, plugin=on_cpu(settings.providers))
        engine: MaskEngine = _native(NativeMaskEngine, self.model, settings, graph)
        return calibrated(engine)

    def _made(self, propagation: str | PropagationSpec) -> Gradients:
        settings = self.settings
        target = _native_target(self.model, settings)
        rows = build_row_gradient(
            simplified(self.model, keep=settings.wrt),
            output=settings.output,
            wrt=settings.wrt,
            apply=settings.apply,
            batch_axis=self.batch_axis,
            fixed_rows=self.fixed_rows,
            native=target,
            straight_through=settings.straight_through,
            propagation=propagation,
        )
        is_gradient = not (rows.overridden or specification(propagation).gives_relevance)
        if propagation != GRADIENT and is_gradient:
            return self.gradients()
        # the engine's graph is made from the rows' in place
        calibrated = _calibration(settings, rows, self.batched)
        if settings.engine == "native":
            engine = _explaining(self.model, settings, rows, self.batched, target)
        else:
            engine = _reference(self.model, settings, rows)
        engine = calibrated(engine)
        return Gradients(
            engine,
            tuple(f"fixed:{name}" for name in rows.fixed if name in self.batched),
            tuple(f"fixed:{name}" for name in rows.fixed if name not in self.batched),
            rows.dtype,
            rows.overridden,
        )


def prepare(
    model: Model, settings: Settings, arrays: Mapping[str, NDArray[Any]], inputs: BatchedInputs
) -> Prepared:
    """Open the model for inputs like `arrays`; which of them have the batch axis is settled by trying.

    Warns (`UserWarning`) where rows of a batch influence each other: then each example is explained as a batch of one.
    """
    everything = (*inputs.certain, *inputs.possible)
    for batched in (everything, inputs.certain) if inputs.possible else (everything,):
        opened = _opened(model, settings, arrays, batched)
        independent = _independent(opened, settings, arrays, batched)
        if independent:
            break
    require_first_axis(opened.model, settings.output, batched)
    if opened.fixed_rows is not None and not independent:
        names = ", ".join(repr(name) for name in batched)
        raise ModelError(
            f"{model.name}: the first axis of its inputs ({names}) is fixed at {opened.fixed_rows}, but these are not "
            "examples that can be explained one by one: what the model gives for one depends on its place or on the "
            "others; re-export it with a batch axis in front, or use igonnx.gradient"
        )
    if independent is False:
        warn_caller(
            f"{model.name}: the examples of a batch influence each other: each is explained as a batch of one",
        )
    forward, fixed_rows = opened.forward, opened.fixed_rows
    if independent is None:
        forward = forward.in_batches_of(1)
    if not independent:
        fixed_rows = 1
    axis = _batch_axis(opened.model, settings, forward, arrays, batched, fixed_rows)
    if axis is None:
        if fixed_rows is not None and fixed_rows > 1:
            raise ModelError(
                f"output {settings.output!r} has no axis for the {fixed_rows} examples that the model takes at once"
            )
        fixed_rows = 1
    return Prepared(opened.model, settings, forward, batched, axis, fixed_rows)


@dataclass(frozen=True)
class _Opened:
    """The model, freed from a fixed batch size where that works, and its session."""

    model: Model
    forward: Forward
    fixed_rows: int | None


def _opened(
    model: Model, settings: Settings, arrays: Mapping[str, NDArray[Any]], batched: Sequence[str]
) -> _Opened:
    free = rebatched(model, arrays, batched)
    fixed_rows = fixed_batch(model, batched) if free is None else None
    model = model if free is None else free
    forward = Forward(
        model,
        also=settings.wrt,
        fixed_rows=fixed_rows,
        providers=settings.providers,
        threads=settings.threads,
    )
    return _Opened(model, forward, fixed_rows)


def _independent(
    opened: _Opened,
    settings: Settings,
    arrays: Mapping[str, NDArray[Any]],
    batched: Sequence[str],
) -> bool | None:
    """Whether rows of a batch are independent; None where the model refuses such rows, whatever it declares."""
    value = opened.model.find_output(settings.output)
    if opened.fixed_rows == 1 or not batched or (value.shape is not None and len(value.shape) == 0):
        return True  # never run with several rows, or one number for all of them
    if rows_share_a_branch(opened.model, batched):
        return False
    inputs = {info.name for info in opened.model.inputs}
    compared = [settings.output, *(name for name in settings.wrt if name not in inputs)]
    try:
        if opened.fixed_rows is not None:
            return places_are_alike(opened.forward, arrays, batched, compared, opened.fixed_rows)
        return rows_are_independent(opened.forward, arrays, batched, compared)
    except EngineError:
        return None


def _batch_axis(
    model: Model,
    settings: Settings,
    forward: Forward,
    arrays: Mapping[str, NDArray[Any]],
    batched: Sequence[str],
    fixed_rows: int | None,
) -> int | None:
    """The axis of the explained output that counts examples: by its symbol, else by running two and three of them.

    None: the output has no such axis, and examples have to be run one by one.
    """
    axis = batch_axis_of(
        model.find_output(settings.output),
        [value for value in model.input_values if value.name in batched],
    )
    if axis is not None:
        return axis

    def shape_for(count: int) -> tuple[int, ...]:
        rows = {n: a[np.arange(count) % len(a)] if n in batched else a for n, a in arrays.items()}
        return forward.run(rows, batched, {})[settings.output].shape

    if fixed_rows is not None:
        return axis_of_length(shape_for(fixed_rows), fixed_rows)
    two, three = shape_for(2), shape_for(3)
    if len(two) != len(three):
        raise ModelError(
            f"output {settings.output!r} changes its number of axes with the batch size"
        )
    return next(
        (i for i, sizes in enumerate(zip(two, three, strict=True)) if sizes == (2, 3)), None
    )


class _Calibrated(Protocol):
    """Gives an engine for plans of one kind another that calls it."""

    def __call__(self, engine: PlanEngine[PlanT], /) -> PlanEngine[PlanT]: ...


def _calibration(
    settings: Settings, rows: RowGradient | RowScores, batched: Sequence[str]
) -> _Calibrated:
    """What makes an engine for `rows` choose its chunks itself, unless their size is given or fixed."""
    if settings.batch_size is not None or rows.fixed_rows is not None:
        return lambda engine: engine
    graph = rows.model.graph
    inputs = {name: f"z:{name}" for name in rows.explained}  # as the graph calls them
    inputs |= {f"fixed:{name}": f"fixed:{name}" for name in rows.fixed if name in batched}
    memory = working_memory(graph, [*inputs.values(), "cotangent"])
    key = {
        "graph": fingerprint(graph),
        "igonnx": version("igonnx"),
        "onnxruntime": onnxruntime_module().__version__,
        "engine": settings.engine,
        "providers": repr(requested_providers(settings.providers)),
        "threads": settings.threads,
        "precision": settings.precision,
        "machine": machine(),
    }

    def calibrated(engine: PlanEngine[PlanT], /) -> PlanEngine[PlanT]:
        return CalibratedEngine(
            engine,
            bytes_per_row=lambda shapes: memory.bytes_per_row(
                {inputs[name]: shape for name, shape in shapes.items() if name in inputs}
            ),
            memory_limit=settings.memory_limit,
            usual_chunk=USUAL_CHUNK if on_cpu(settings.providers) else None,
            key=key,
        )

    return calibrated


def _native_target(model: Model, settings: Settings) -> NativeTarget | None:
    """What the engine's runtime offers beyond standard operators; None where only those may be used."""
    if settings.engine != "native" or not on_cpu(settings.providers):
        return None
    from igonnx.engine.native_target import native_target

    # The blocked layout stores rearranged weights in the graph.
    return native_target() if is_light(model) else NativeTarget()


def _explaining(
    model: Model,
    settings: Settings,
    rows: RowGradient,
    batched: Sequence[str],
    target: NativeTarget | None,
) -> Engine:
    from igonnx.engine.native import NativeEngine

    _round_products(model, settings, rows, "its gradient has none")
    graph: ExplanationGraph = build_explanation_graph(rows, batched)
    if target is not None:
        lower(graph.model, target)
    return _native(NativeEngine, model, settings, graph)


def _round_products(
    model: Model, settings: Settings, rows: RowGradient | RowScores, where_not: str
) -> None:
    """Let the graph multiply in the precision that is asked for, in place."""
    if settings.precision == BFLOAT16 and not multiply_in_bfloat16(rows.model):
        raise ModelError(
            f"{model.name}: precision {BFLOAT16!r} is for matrix products of float32 numbers, and {where_not}"
        )


def _native(
    kind: Callable[..., NativeT], model: Model, settings: Settings, graph: ExplanationGraph
) -> NativeT:
    return kind(
        serialized(graph.model, model.name),
        explained=graph.explained,
        batched=graph.batched,
        shared=graph.shared,
        dtype=graph.dtype,
        fixed_rows=graph.fixed_rows,
        external_data_folder=model.folder,
        providers=settings.providers,
        threads=settings.threads,
        name=model.name,
        queue_limit=settings.queue_limit,
    )


def _reference(model: Model, settings: Settings, rows: RowGradient) -> Engine:
    from igonnx.engine.reference import ReferenceEngine

    graph = rows.model.graph
    dtypes = {value.name: dtype_of(value) for value in graph.inputs}
    session = RuntimeSession(
        serialized(rows.model, model.name),
        name=model.name,
        folder=model.folder,
        providers=settings.providers,
        threads=settings.threads,
    )
    return ReferenceEngine(
        session,
        explained=rows.explained,
        dtypes=[dtypes[f"z:{name}"].numpy() for name in rows.explained],
        fixed_rows=rows.fixed_rows,
        referenced=rows.referenced,
    )
