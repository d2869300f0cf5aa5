"""`igonnx evaluate`: measure the explanations of several methods."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table
from rich.text import Text

from igonnx.cli.choices import Measure, Method
from igonnx.cli.console import note, plain_warnings, progress, results, warn
from igonnx.cli.inputs import Given, ImageOptions, read_inputs
from igonnx.cli.labels import read_labels
from igonnx.cli.measures import MEASURES, Asked, Column, measured
from igonnx.cli.methods import NOT_SET, chosen_options, function_name, settings_taken
from igonnx.cli.outputs import PICTURE_FORMATS, Outputs
from igonnx.cli.questions import baselines_of, targets_of
from igonnx.errors import CancelledError, DeadlineError, Error, InputError
from igonnx.model import Model
from igonnx.visual.page import require_matplotlib

if TYPE_CHECKING:
    from igonnx import Attribution, Explainer

__all__ = ["Request", "run"]

# One takes long, and the other says much the same as sensitivity-n.
ON_REQUEST = (Measure.weight_randomisation, Measure.faithfulness_correlation)
PATCHES = 28  # across an image, where --patch is not given
PARTS = 1000  # of one step, as the progress bar counts


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    model: Path
    inputs: Sequence[str]
    methods: str
    measures: str | None
    picture: Path | None
    json_path: Path | None
    labels: str | None
    targets: Sequence[str]
    output: str | None
    wrt: Sequence[str]
    apply: str | None
    baselines: Sequence[str]
    settings: Mapping[str, Any]  # of those methods that have them
    patch: int | None
    samples: int | None
    seed: int
    images: ImageOptions
    batch_size: int | None
    threads: int | None
    engine: str
    providers: Sequence[str]


@dataclass
class Scores:
    """What was found: per column and method float64 [N], None where the measure does not apply."""

    columns: list[Column]
    methods: list[str]  # as the command line calls them
    values: dict[tuple[str, str], NDArray[np.float64] | None] = field(default_factory=dict)

    def of(self, column: Column) -> list[NDArray[np.float64] | None]:
        """The scores of a column, method by method."""
        return [self.values.get((column.heading, method)) for method in self.methods]


def run(request: Request) -> None:
    """Explain, measure, write the files that were asked for, and print the table."""
    from igonnx import Explainer

    methods = _chosen_methods(request.methods, request.settings)
    measures = _chosen_measures(request.measures)
    labels = read_labels(request.labels)
    model = Model.load(request.model)
    explainer = Explainer(
        model,
        output=request.output,
        wrt=list(request.wrt) or None,
        apply=request.apply,
        providers=list(request.providers) or None,
        engine=request.engine,
        batch_size=request.batch_size,
        threads=request.threads,
    )
    given = read_inputs(model, request.inputs, request.images)
    for text in given.notes:
        note(text)
    with plain_warnings(), Outputs(_files_read(request, given)) as outputs:
        picture, written = _reserve(outputs, request)
        target = targets_of(request.targets, len(given.names), labels)
        with progress("measuring", unit=None) as report:
            scores, targets = _scored(explainer, request, given, methods, measures, target, report)
        if picture is not None:
            _draw(picture, scores, request, given)
        if written is not None:
            written.write_text(_as_json(scores, request, given, targets) + "\n")
    results().print(_table(scores))
    inputs = f"{len(given.names)} inputs" if len(given.names) > 1 else "1 input"
    results().print(
        f"means over {inputs}; \N{UPWARDS ARROW} the higher, the better; "
        "\N{DOWNWARDS ARROW} the lower, the better",
        style="dim",
    )
    for path in outputs.written:
        results().print(f"wrote {path}", markup=False)


# -- what is asked for -------------------------------------------------------------------------


def _listed(option: str, text: str) -> list[str]:
    """Names with commas between them, each once."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError(f"{option} is '{text}', expected names with commas between them")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{option} names '{twice}' twice")
    return names


def _chosen_methods(text: str, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of each method, by the method's name on the command line."""
    chosen: dict[str, dict[str, Any]] = {}
    known = [method.value for method in Method]
    for name in _listed("--methods", text):
        if name not in known:
            raise InputError(f"--methods names '{name}', expected some of {', '.join(known)}")
        function = function_name(Method(name))
        taken = settings_taken(function).keys() - NOT_SET
        suitable = {key: value for key, value in settings.items() if key in taken}
        chosen[name] = chosen_options(function, {}, suitable)
    for key in settings:
        if not any(key in options for options in chosen.values()):
            raise InputError(f"--set {key} is for none of the methods {', '.join(chosen)}")
    return chosen


def _chosen_measures(text: str | None) -> list[Measure]:
    if text is None:
        return [measure for measure in Measure if measure not in ON_REQUEST]
    known = [measure.value for measure in Measure]
    names = _listed("--measures", text)
    for name in names:
        if name not in known:
            raise InputError(f"--measures names '{name}', expected some of {', '.join(known)}")
    return [Measure(name) for name in names]


def _reserve(outputs: Outputs, request: Request) -> tuple[Path | None, Path | None]:
    """Reserve the paths of picture and numbers, if they are wanted."""
    picture, written = request.picture, request.json_path
    if picture is not None:
        if picture.suffix.lower() not in PICTURE_FORMATS:
            known = ", ".join(PICTURE_FORMATS)
            raise InputError(
                f"cannot write pictures as '{picture.suffix}' (-o '{picture}'), expected {known}"
            )
        require_matplotlib()
        picture = outputs.reserve(picture)
    if written is not None:
        written = outputs.reserve(written, suffix=".json")
    return picture, written


def _files_read(request: Request, given: Given) -> list[Path]:
    texts = [*given.files, *request.baselines, request.labels or ""]
    return [request.model, *(Path(text) for text in texts if text and Path(text).is_file())]


# -- measuring ---------------------------------------------------------------------------------


def _scored(
    explainer: Explainer,
    request: Request,
    given: Given,
    methods: Mapping[str, Mapping[str, Any]],
    measures: Sequence[Measure],
    target: Any,
    report: Callable[[int, int], None],
) -> tuple[Scores, list[Any]]:
    """Run every method and every measure of it; what cannot be done is said, and left out.

    Raises the first error where no method could be run at all.
    """
    scores = Scores([column for name in measures for column in MEASURES[name][0]], list(methods))
    baseline = baselines_of(request.baselines, explainer.wrt, given)
    if isinstance(baseline, list):
        raise InputError("--baseline was given several times; measures need one baseline")
    steps = _Steps(report, len(methods) * (1 + len(measures)))
    first: Error | None = None
    targets: list[Any] = []
    for name, options in methods.items():
        function = function_name(Method(name))
        # Blur IG makes its own.
        used = {**options} if function == "blur_ig" else {"baseline": baseline, **options}
        try:
            attribution: Attribution = getattr(explainer, function)(
                given.arrays, target=target, seed=request.seed, progress=steps.next(), **used
            )
        except (CancelledError, DeadlineError):
            raise
        except Error as error:
            warn(f"{name}: {error}")
            first = first or error
            steps.skip(len(measures))
            continue
        targets = attribution.target
        asked = Asked(
            explainer,
            given.arrays,
            function,
            used,
            attribution,
            baseline,
            target,
            request.seed,
            request.patch or _usual_patch(given),
            request.samples,
        )
        for measure, found in _measured_of(name, asked, measures, steps):
            for column, values in zip(MEASURES[measure][0], found, strict=True):
                scores.values[column.heading, name] = values
    if not scores.values and first is not None:
        raise first
    return scores, targets


def _measured_of(
    name: str, asked: Asked, measures: Sequence[Measure], steps: _Steps
) -> Iterator[tuple[Measure, list[NDArray[np.float64] | None]]]:
    """Every measure of one method that can be taken."""
    for measure in measures:
        try:
            yield measure, measured(measure, replace(asked, progress=steps.next()))
        except (CancelledError, DeadlineError):
            raise
        except Error as error:
            warn(f"{measure} of {name}: {error}")


def _usual_patch(given: Given) -> int:
    """A 28th of the shorter side of the images; 1 where there are none."""
    sides = [min(one.size) for one in given.preprocessing.values()]
    return max(1, min(sides) // PATCHES) if sides else 1


class _Steps:
    """The progress of one step after the other, each of which knows its own only."""

    def __init__(self, report: Callable[[int, int], None], steps: int) -> None:
        self._report, self._steps, self._done = report, steps, -1

    def next(self) -> Callable[[int, int], None]:
        """What tells the progress of the next step."""
        self._done += 1
        before = self._done

        def tick(done: int, total: int) -> None:
            self._report(before * PARTS + PARTS * done // max(total, 1), self._steps * PARTS)

        return tick

    def skip(self, steps: int) -> None:
        """Count steps that are not taken."""
        self._done += steps


# -- what is told ------------------------------------------------------------------------------


def _mean(values: NDArray[np.float64] | None) -> float:
    """The mean over the examples that have a score; NaN where none has."""
    known = values[np.isfinite(values)] if values is not None else np.empty(0)
    return float(known.mean()) if len(known) else float("nan")


def _table(scores: Scores) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", style="bold")
    cells = []
    for column in scores.columns:
        arrow = "\N{UPWARDS ARROW}" if column.higher_is_better else "\N{DOWNWARDS ARROW}"
        table.add_column(f"{column.heading} {arrow}", justify="right")
        means = np.array([_mean(values) for values in scores.of(column)])
        cells.append(_column_cells(means, column))
    for index, method in enumerate(scores.methods):
        table.add_row(Text(method), *(column[index] for column in cells))
    return table


def _column_cells(means: NDArray[np.float64], column: Column) -> list[Text]:
    known = means[np.isfinite(means)]
    best = np.nan if len(known) < 2 else known.max() if column.higher_is_better else known.min()
    return [
        Text("-" if np.isnan(mean) else f"{mean:.3g}", style="bold" if mean == best else "")
        for mean in means
    ]


def _draw(path: Path, scores: Scores, request: Request, given: Given) -> None:
    from igonnx.visual import plot_scores

    figure = plot_scores(
        {
            column.heading: {
                method: np.empty(0) if values is None else values
                for method, values in zip(scores.methods, scores.of(column), strict=True)
            }
            for column in scores.columns
        },
        higher_is_better={column.heading: column.higher_is_better for column in scores.columns},
        title=f"Explanations of {request.model.name}",
        subtitle="the best of each measure in colour"
        if len(given.names) == 1
        else f"means over {len(given.names)} inputs, each of them a dot; the best of each measure in colour",
    )
    figure.savefig(path)


def _as_json(scores: Scores, request: Request, given: Given, targets: Sequence[Any]) -> str:
    def numbers(values: NDArray[np.float64] | None) -> list[float | None] | None:
        if values is None:
            return None
        return [float(value) if np.isfinite(value) else None for value in values]

    return json.dumps(
        {
            "model": request.model.name,
            "inputs": given.names,
            "targets": [None if index is None else list(index) for index in targets],
            "seed": request.seed,
            "measures": {
                column.heading: {
                    "better": "higher" if column.higher_is_better else "lower",
                    "scores": {
                        method: numbers(values)
                        for method, values in zip(scores.methods, scores.of(column), strict=True)
                    },
                }
                for column in scores.columns
            },
        },
        indent=1,
    )
