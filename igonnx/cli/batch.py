"""`igonnx batch`: explain a data set on a Ray cluster."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from igonnx.channels import Layout
from igonnx.cli.console import note, plain_warnings, progress, results, warn
from igonnx.cli.inputs import Given, ImageOptions, preprocessing_for
from igonnx.cli.labels import parse_target, read_labels
from igonnx.cli.methods import ADDING_UP, chosen_options
from igonnx.cli.questions import baselines_of
from igonnx.errors import EngineError, InputError
from igonnx.images import Preprocessing, image_shape
from igonnx.model import Model
from igonnx.scale.cluster import Cluster, require_ray
from igonnx.scale.job import Job, hash_of_model
from igonnx.scale.listing import Listing, is_image, list_inputs
from igonnx.scale.run import Outcome, run_job
from igonnx.scale.tables import choose_columns, is_table

if TYPE_CHECKING:
    from igonnx import Explainer

__all__ = ["Request", "run"]

SAYING = 60  # seconds between two lines of progress


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    model: Path
    inputs: Sequence[str]
    out: Path
    labels: str | None
    images: ImageOptions
    max_pixels: int
    column: str | None
    target: str | None
    baselines: Sequence[str]
    method: str  # of Explainer
    options: Mapping[str, Any]  # of the method, by their names there; None where not given
    settings: Mapping[str, Any]  # of the method, by --set
    seed: int
    explainer: Mapping[str, Any]  # arguments of Explainer on which its numbers depend
    running: Mapping[str, Any]  # its other ones
    arrays: bool
    overlays: bool
    limit: int | None
    batch: int
    rows_per_part: int | None
    retry_errors: bool
    cluster: Cluster


def run(request: Request) -> None:
    """Explain all rows into the folder, or go on with it, and print what came of it."""
    from igonnx import Explainer

    require_ray()
    options = chosen_options(request.method, request.options, request.settings)
    labels = read_labels(request.labels)
    model = Model.load(request.model)
    explainer = Explainer(model, **request.explainer, **request.running)
    root = Path.cwd()
    listing = list_inputs(request.inputs, root, model.inputs, limit=request.limit)
    if listing.passed_over:
        note(f"{listing.passed_over} files of other kinds are passed over")
    preprocessing = _preprocessing(model, listing, request)
    job = Job(
        model=request.model.resolve(),
        model_sha256=hash_of_model(request.model, model),
        method=request.method,
        root=root,
        settings={name: value for name, value in request.explainer.items() if value is not None},
        running={name: value for name, value in request.running.items() if value is not None},
        options=options,
        baseline=_baseline(request, explainer, preprocessing),
        target=None if request.target is None else parse_target(request.target, labels),
        seed=request.seed,
        adds_up=request.method in ADDING_UP and "noise" not in options,
        preprocessing=preprocessing,
        drawn=_drawn(model, explainer, preprocessing, request.images.layout),
        labels=tuple(labels),
        columns=_columns(listing, root, model, request.column),
        arrays=request.arrays,
        overlays=request.overlays,
        batch=request.batch,
        max_pixels=request.max_pixels,
    )
    said = _Sayer()
    with plain_warnings(), progress("explaining", unit="rows") as report:
        outcome = run_job(
            job,
            listing,
            request.out,
            model.inputs,
            cluster=request.cluster,
            rows_per_part=request.rows_per_part,
            retry_errors=request.retry_errors,
            progress=report if sys.stderr.isatty() else said.tell,
        )
    _print(results(), outcome, request.out)


class _Sayer:
    """Says once a minute how far a run has come: a log has no bar."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def tell(self, done: int, rows: int) -> None:
        """Be told of rows done, of all."""
        if time.monotonic() - self._last > SAYING:
            self._last = time.monotonic()
            note(f"{done:,} of {rows:,} rows")


def _preprocessing(model: Model, listing: Listing, request: Request) -> Preprocessing | None:
    """How images become the model's input, if it is one; `InputError` where images are given and it is not."""
    first = model.inputs[0]
    images = any(is_image(file) for file, _ in listing.rows)
    if len(model.inputs) > 1:
        if images:
            names = ", ".join(f"'{info.name}'" for info in model.inputs)
            raise InputError(
                f"the model has the inputs {names}: expected .npz files or tables with all of them, not images"
            )
        return None
    notes: list[str] = []
    try:
        preprocessing = preprocessing_for(model, first, request.images, notes)
    except InputError:
        if images or request.images.chosen:
            raise
        return None
    if images or any(is_table(file) for file, _ in listing.rows):
        for text in notes:
            note(text)
        return preprocessing
    # Arrays are taken as they are; it tells how they are shown, where that is known.
    return preprocessing if request.images.chosen or "igonnx.preset" in model.metadata else None


def _baseline(request: Request, explainer: Explainer, preprocessing: Preprocessing | None) -> Any:
    """The baseline of every row, as `igonnx explain` has it."""
    if request.method == "blur_ig" and not request.baselines:
        return None  # it makes its own
    first = explainer.model.inputs[0].name
    given = Given({}, [], {} if preprocessing is None else {first: preprocessing})
    usual = ("black", "white") if request.method == "xrai" else ("black",)
    return baselines_of(request.baselines, explainer.wrt, given, usual=usual)


def _drawn(
    model: Model, explainer: Explainer, preprocessing: Preprocessing | None, layout: str | None
) -> tuple[str, Layout] | None:
    """The explained tensor that makes a picture: an input that takes images, or one inside with four axes."""
    first = model.inputs[0]
    for name in explainer.wrt:
        if name == first.name:
            try:
                shape = image_shape(first.shape, name=name, layout=layout)
            except InputError:
                continue
            return name, shape.layout
        if preprocessing is not None and len(model.find_tensor(name).shape or ()) == 4:
            return name, preprocessing.layout
    return None


def _columns(listing: Listing, root: Path, model: Model, column: str | None) -> dict[str, str]:
    """The columns of tables, the same for all."""
    tables = dict.fromkeys(file for file, _ in listing.rows if is_table(file))
    if column is not None and not tables:
        raise InputError("--column changes nothing: no table is among the inputs")
    chosen: dict[str, str] = {}
    for file in tables:
        found = choose_columns(root / file, model.inputs, column)
        if chosen and found and found != chosen:
            raise InputError(f"'{file}' has other columns than the tables before: give --column")
        chosen = found or chosen
    return chosen


def _print(console: Console, outcome: Outcome, out: Path) -> None:
    summary = outcome.summary
    if summary.failed:
        warn(f"{summary.failed:,} rows could not be explained; {out / 'errors'} says why")
    if not summary.rows:
        known, _, reason = summary.errors[0]
        raise EngineError(
            f"none of {summary.failed:,} rows could be explained: '{known}': {reason}"
        )
    again = outcome.of - outcome.parts
    before = f", {again:,} of {outcome.of:,} parts before" if again else ""
    console.print(
        f"explained {summary.rows:,} rows, {summary.failed:,} errors{before}", markup=False
    )
    if summary.worst:
        worst = summary.worst[0]
        console.print(
            f"largest completeness error {worst.relative_error:.2e}, of {worst.id}", markup=False
        )
    for name in ("parts", "errors", "summary.html"):
        console.print(f"wrote {out / name}", markup=False)
