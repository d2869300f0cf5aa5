"""`igonnx inspect`: what a model takes and gives, whether it can be explained, and at what cost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table
from rich.text import Text

from igonnx.autodiff.node_view import operator_name
from igonnx.cli.console import plain_warnings, results
from igonnx.errors import Error, InputError
from igonnx.images import DEFAULT_SIZE, format_shape, image_shape
from igonnx.model import Model, TensorInfo

if TYPE_CHECKING:
    from igonnx import Explainer

__all__ = ["Request", "example_inputs", "run"]


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    model: Path
    output: str | None
    wrt: Sequence[str]
    size: tuple[int, int] | None
    length: int
    measure: bool
    threads: int | None
    engine: str
    providers: Sequence[str]


def run(request: Request) -> None:
    """Print what is known of the model; only a model that cannot be read is an error."""
    model = Model.load(request.model)
    console = results()
    with plain_warnings():
        facts = Table.grid(padding=(0, 3))
        facts.add_column(style="dim")
        facts.add_column(overflow="fold")
        for heading, text in [*_facts(model), *_coverage(model), *_explanation(model, request)]:
            facts.add_row(heading, Text(text))
        console.print(Text(request.model.name, style="bold"))
        console.print(_tensors(model))
        console.print(facts)


def example_inputs(
    model: Model, size: tuple[int, int] | None, length: int
) -> dict[str, NDArray[Any]]:
    """Make inputs of one example for measuring: random floats in [0, 1], ones for integers.

    Free axes get `size` (height, width) in images and `length` elsewhere, axes of one name the
    same.
    """
    random = np.random.default_rng(0)
    named: dict[str, int] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for info in model.inputs:
        wanted = _wanted_lengths(info, size or (DEFAULT_SIZE, DEFAULT_SIZE), length)
        shape = [
            axis if isinstance(axis, int) else named.setdefault(axis or f"{info.name}:{i}", want)
            for i, (axis, want) in enumerate(zip(info.shape, wanted, strict=True))
        ]
        if info.dtype.startswith("float"):
            arrays[info.name] = random.random(shape).astype(info.dtype)
        elif info.dtype.startswith(("int", "uint", "bool")):
            arrays[info.name] = np.ones(shape, dtype=info.dtype)
        else:
            raise InputError(f"input '{info.name}' is {info.dtype}: no example can be made")
    return arrays


def _wanted_lengths(info: TensorInfo, size: tuple[int, int], length: int) -> list[int]:
    """Length of each axis of an input if it is free: 1 for the batch, which comes first."""
    wanted = [1, *[length] * (len(info.shape) - 1)][: len(info.shape)]
    try:
        first = 2 if image_shape(info.shape, name=info.name).layout == "NCHW" else 1
    except InputError:
        return wanted
    wanted[first : first + 2] = size
    return wanted


def _tensors(model: Model) -> Table:
    """Lay out the inputs and outputs."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "name", "type", "shape"):
        table.add_column(heading, overflow="fold")
    for kind, infos in (("input", model.inputs), ("output", model.outputs)):
        for info in infos:
            table.add_row(*map(Text, (kind, info.name, info.dtype, format_shape(info.shape))))
    return table


def _facts(model: Model) -> Iterator[tuple[str, str]]:
    """Producer, opset, parameters, dynamic axes."""
    producer = f"{model.ir.producer_name or ''} {model.ir.producer_version or ''}".strip()
    yield "producer", producer or "not said"
    upgraded = "" if model.file_opset == model.opset else f", read as {model.opset}"
    yield "opset", f"{model.file_opset}{upgraded}"
    yield "parameters", f"{model.parameter_count:,}"
    where: dict[str, list[str]] = {}
    for info in [*model.inputs, *model.outputs]:
        for axis, name in enumerate(info.shape):
            if not isinstance(name, int):
                where.setdefault(name or "unnamed", []).append(f"{info.name}[{axis}]")
    axes = [f"{name} ({', '.join(places)})" for name, places in where.items()]
    yield "dynamic axes", "; ".join(axes) or "none"


def _coverage(model: Model) -> Iterator[tuple[str, str]]:
    """Operators by whether a gradient can cross them."""
    from igonnx.autodiff.registry import coverage

    counts = Counter(operator_name(node) for node in model.ir.graph.all_nodes())
    groups: dict[str, list[str]] = {}
    for operator, status in coverage(model.ir).items():
        groups.setdefault(status, []).append(f"{operator} x{counts[operator]}")
    for status, heading in (
        ("rule", "differentiable"),
        ("no gradient needed", "no gradient"),
        ("missing", "no rule"),
    ):
        if status in groups:
            yield heading, ", ".join(groups[status])


def _explanation(model: Model, request: Request) -> Iterator[tuple[str, str]]:
    """What would be explained, and what a gradient costs."""
    from igonnx import Explainer, gradient

    try:
        explainer = Explainer(
            model,
            output=request.output,
            wrt=list(request.wrt) or None,
            batch_size=1,
            threads=request.threads,
            engine=request.engine,
            providers=list(request.providers) or None,
        )
        gradient(model, wrt=explainer.wrt, output=explainer.output)
    except InputError:
        raise  # a name that was mistyped
    except Error as error:
        yield "explained", f"nothing: {error}"
        return
    names = ", ".join(repr(name) for name in explainer.wrt)
    yield "explained", f"output '{explainer.output}' by {names}"
    for info in model.inputs:
        if info.name in explainer.wrt:
            yield from _as_image(model, info)
    if request.measure:
        try:
            yield "cost", _cost(explainer, request)
        except Error as error:
            yield "cost", f"not measured: {error}"


def _as_image(model: Model, info: TensorInfo) -> Iterator[tuple[str, str]]:
    """How images become this input, if they do."""
    try:
        shape = image_shape(info.shape, name=info.name)
    except InputError:
        return
    channels = "3 channels" if shape.channels == 3 else "1 channel"
    preset = model.metadata.get("igonnx.preset")
    said = f"preset {preset}" if preset else "no preset in the model"
    yield "images", f"'{info.name}': {shape.layout}, {channels}, {said}"


def _cost(explainer: Explainer, request: Request) -> str:
    """Measure a forward pass and a gradient of one example."""
    arrays = example_inputs(explainer.model, request.size, request.length)

    def integrate(steps: int) -> Callable[[], object]:
        return lambda: explainer.integrated_gradients(arrays, rule="trapezoid", steps=steps)

    forward = _seconds(lambda: explainer.predict(arrays))
    # Whatever else an explanation does is in both times, and cancels.
    few, many = 2, 12
    gradient = (_seconds(integrate(many)) - _seconds(integrate(few))) / (many - few)
    shapes = ", ".join(f"{name} {format_shape(array.shape)}" for name, array in arrays.items())
    ratio = f" ({gradient / forward:.1f} forward passes)" if forward > 0 else ""
    return (
        f"a gradient takes {_duration(gradient)}{ratio}, a forward pass {_duration(forward)}; "
        f"measured with {shapes}"
    )


def _seconds(work: Callable[[], object]) -> float:
    """Time a piece of work: the best of three, after once for warming up."""
    work()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def _duration(seconds: float) -> str:
    seconds = max(seconds, 0.0)
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
