"""`igonnx inspect`: what a model takes and gives, whether it can be explained, and at what cost."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from igonnx.cli.console import plain_warnings, results
from igonnx.cli.measurement import Cost, measure
from igonnx.cli.path_table import print_path
from igonnx.errors import Error, InputError, ModelError
from igonnx.images import format_shape, image_shape
from igonnx.model import Model, TensorInfo

if TYPE_CHECKING:
    from igonnx import Explainer
    from igonnx.autodiff.path_report import PathReport

__all__ = ["Request", "run"]


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    model: Path
    output: str | None
    wrt: Sequence[str]
    size: tuple[int, int] | None
    length: int
    measure: bool
    tensors: str | None  # which to list; None: none, but what else is known
    as_json: bool
    straight_through: bool
    threads: int | None
    engine: str
    providers: Sequence[str]


@dataclass(frozen=True)
class _Findings:
    """What was found about a model beyond what its file says."""

    path: PathReport | None
    problem: (
        str | None
    )  # why nothing can be explained; None where only refused nodes are in the way, too
    cost: Cost | str | None  # a text says why it was not measured


def run(request: Request) -> None:
    """Print what is known of the model; only a model that cannot be read is an error."""
    model = Model.load(request.model)
    with plain_warnings():
        if request.tensors is not None:
            _list_tensors(model, request)
            return
        found = _findings(model, request)
        if request.as_json:
            sys.stdout.write(json.dumps(_as_json(model, request, found), indent=2) + "\n")
            return
        console = results()
        facts = Table.grid(padding=(0, 3))
        facts.add_column(style="dim")
        facts.add_column(overflow="fold")
        for heading, text in [*_facts(model), *_explanation(model, found)]:
            facts.add_row(heading, Text(text))
        console.print(Text(request.model.name, style="bold"))
        console.print(_tensors(model))
        console.print(facts)
        if found.path is not None:
            print_path(found.path, console)


def _list_tensors(model: Model, request: Request) -> None:
    """Print the tensors that can be layers, as a table or as JSON."""
    explainer, problem = _explainer(model, request)
    if explainer is None:
        raise ModelError(str(problem))
    found = explainer.tensors(request.tensors or "*")
    if request.as_json:
        sys.stdout.write(json.dumps([asdict(tensor) for tensor in found], indent=2) + "\n")
        return
    ends = f"between {', '.join(map(repr, explainer.wrt))} and output {explainer.output!r}"
    if not found:
        raise InputError(
            f"no floating tensor {ends} matches {request.tensors!r}; '*' lists them all"
        )
    console = results()
    console.print(Text(f"{len(found)} tensors {ends}", style="bold"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("name", "operator", "type", "shape"):
        table.add_column(heading, overflow="fold")
    for one in found:
        shape = "?" if one.shape is None else format_shape(one.shape)
        table.add_row(*map(Text, (one.name, one.operator, one.dtype, shape)))
    console.print(table)


def _findings(model: Model, request: Request) -> _Findings:
    from igonnx.autodiff.path_report import path_report

    explainer, problem = _explainer(model, request)
    output = request.output if explainer is None else explainer.output
    wrt = (list(request.wrt) or None) if explainer is None else explainer.wrt
    try:
        path = path_report(model, output, wrt, straight_through=request.straight_through)
    except InputError:
        raise
    except Error as error:
        return _Findings(None, problem or str(error), None)
    cost: Cost | str | None = None
    problem = problem or path.problem
    if explainer is not None and path.differentiable and request.measure:
        try:
            cost = measure(explainer, request.size, request.length)
        except Error as error:
            cost = f"not measured: {error}"
    return _Findings(path, problem, cost)


def _explainer(model: Model, request: Request) -> tuple[Explainer | None, str | None]:
    """The explainer that was asked for, or why there is none."""
    from igonnx import Explainer

    try:
        explainer = Explainer(
            model,
            output=request.output,
            wrt=list(request.wrt) or None,
            batch_size=1,
            threads=request.threads,
            engine=request.engine,
            providers=list(request.providers) or None,
            straight_through=request.straight_through,
        )
    except InputError:
        raise  # a name that was mistyped
    except Error as error:
        return None, str(error)
    return explainer, None


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
    yield "producer", _producer(model) or "not said"
    upgraded = "" if model.file_opset == model.opset else f", read as {model.opset}"
    yield "opset", f"{model.file_opset}{upgraded}"
    yield "parameters", f"{model.parameter_count:,}"
    axes = [f"{name} ({', '.join(places)})" for name, places in _dynamic_axes(model).items()]
    yield "dynamic axes", "; ".join(axes) or "none"


def _producer(model: Model) -> str:
    return f"{model.ir.producer_name or ''} {model.ir.producer_version or ''}".strip()


def _dynamic_axes(model: Model) -> dict[str, list[str]]:
    where: dict[str, list[str]] = {}
    for info in [*model.inputs, *model.outputs]:
        for axis, name in enumerate(info.shape):
            if not isinstance(name, int):
                where.setdefault(name or "unnamed", []).append(f"{info.name}[{axis}]")
    return where


def _explanation(model: Model, found: _Findings) -> Iterator[tuple[str, str]]:
    """What would be explained, and what a gradient costs."""
    path = found.path
    if path is None or found.problem is not None:
        yield "explained", f"nothing: {found.problem}"
        return
    names = ", ".join(repr(name) for name in path.wrt)
    refused = "" if path.differentiable else ", were it not for what is refused below"
    yield "explained", f"output '{path.output}' by {names}{refused}"
    for info in model.inputs:
        if info.name in path.wrt:
            yield from _as_image(model, info)
    if found.cost is not None:
        yield "cost", str(found.cost)


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


def _as_json(model: Model, request: Request, found: _Findings) -> dict[str, Any]:
    """The same for machines."""
    return {
        "model": str(request.model),
        "producer": _producer(model),
        "opset": model.file_opset,
        "read_as_opset": model.opset,
        "parameters": model.parameter_count,
        "inputs": [asdict(info) for info in model.inputs],
        "outputs": [asdict(info) for info in model.outputs],
        "differentiable": found.path is not None and found.path.differentiable,
        "problem": found.problem,
        "path": None if found.path is None else asdict(found.path),
        "cost": asdict(found.cost) if isinstance(found.cost, Cost) else None,
    }
