"""`igonnx explain`: explain a model's predictions on images and arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from rich.console import Console

from igonnx.cli.choices import View
from igonnx.cli.console import note, plain_warnings, progress, results, warn
from igonnx.cli.drawing import draw, find_drawable, require_view
from igonnx.cli.features import feature_table
from igonnx.cli.inputs import Given, ImageOptions, read_baseline, read_inputs
from igonnx.cli.labels import parse_target, read_labels
from igonnx.cli.methods import ADDING_UP, chosen_options
from igonnx.cli.outputs import Outputs, picture_paths
from igonnx.cli.report import Row, probabilities, rows_of, table_of
from igonnx.errors import InputError
from igonnx.model import Model
from igonnx.visual.heatmap import Sign
from igonnx.visual.page import require_matplotlib

if TYPE_CHECKING:
    from igonnx import Attribution, Explainer

__all__ = ["Request", "run"]


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    model: Path
    inputs: Sequence[str]
    picture: str | None
    view: View
    sign: Sign | None
    save: str | None
    labels: str | None
    images: ImageOptions
    targets: Sequence[str]
    output: str | None
    wrt: Sequence[str]
    apply: str | None
    baselines: Sequence[str]
    method: str  # of Explainer
    options: Mapping[str, Any]  # of the method, by their names there; None where not given
    settings: Mapping[str, Any]  # further ones
    seed: int
    memory_limit: int | None
    straight_through: bool
    batch_size: int | None
    threads: int | None
    engine: str
    providers: Sequence[str]
    precision: str | None


def run(request: Request) -> None:
    """Explain, write the files that were asked for, and print the table."""
    from igonnx import Explainer

    options = chosen_options(request.method, request.options, request.settings)
    require_view(request.view, request.sign)
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
        memory_limit=request.memory_limit,
        threads=request.threads,
        straight_through=request.straight_through,
        precision=request.precision,
    )
    explained = explainer.wrt
    given = read_inputs(model, request.inputs, request.images)
    for text in given.notes:
        note(text)
    with plain_warnings(), Outputs(_files_read(request, given)) as outputs:
        pictures = _reserve(outputs, request.picture, given)
        saved = _reserve_archive(outputs, request.save)
        drawable = find_drawable(model, explained, given, request.images)
        if pictures and drawable is None:
            raise InputError(
                f"nothing to draw: '{explained[0]}' is no picture; without -o, its strongest "
                "features are printed"
            )
        attribution = _explain(explainer, request, options, given, labels)
        predicted = explainer.predict(given.arrays)[explainer.output]
        if labels and predicted.ndim == 2 and predicted.shape[1] != len(labels):
            warn(f"{len(labels)} labels, but '{explainer.output}' has {predicted.shape[1]} classes")
        found, how = probabilities(predicted, attribution.target, request.apply)
        adds_up = request.method in ADDING_UP and "noise" not in options
        rows = rows_of(attribution, given.names, labels, found, adds_up=adds_up)
        values = _values_by_name(attribution, explained)
        if drawable is not None:
            for index, path in enumerate(pictures):
                draw(
                    path,
                    drawable,
                    attribution,
                    index,
                    rows[index],
                    view=request.view,
                    sign=request.sign,
                )
        if saved is not None:
            attribution.save(saved)
    console = results()
    console.print(table_of(rows))
    if how:
        console.print(f"probability: {how} '{explainer.output}'", style="dim", markup=False)
    _print_features(console, values, given, rows, drawn=drawable.name if drawable else None)
    for path in outputs.written:
        console.print(f"wrote {path}", markup=False)
    if drawable is not None and not pictures:
        note("-o out.png writes a picture")


def _reserve(outputs: Outputs, picture: str | None, given: Given) -> list[Path]:
    """Reserve the path of each example's picture, if pictures are wanted."""
    if picture is None:
        return []
    require_matplotlib()
    paths, folder = picture_paths(picture, given.names)
    return [outputs.reserve(path, make_folder=folder) for path in paths]


def _reserve_archive(outputs: Outputs, save: str | None) -> Path | None:
    """Reserve the path of the saved arrays, if they are wanted."""
    if save is None:
        return None
    if not save:
        raise InputError("--save is empty, expected the path of an .npz file")
    return outputs.reserve(Path(save), suffix=".npz")


def _files_read(request: Request, given: Given) -> list[Path]:
    """List every file this run reads."""
    # A baseline may be written as NAME=FILE; what is no file in either reading was not read.
    baselines = [part for text in request.baselines for part in (text, text.partition("=")[2])]
    texts = [*given.files, *baselines, request.labels or ""]
    return [request.model, *(Path(text) for text in texts if text and Path(text).is_file())]


def _explain(
    explainer: Explainer,
    request: Request,
    options: Mapping[str, Any],
    given: Given,
    labels: Sequence[str],
) -> Attribution:
    """Compute the attribution of all examples, with a progress bar."""
    method = getattr(explainer, request.method)
    # Blur IG makes its own; what is asked for all the same, it refuses or remarks on.
    own = request.method == "blur_ig" and not request.baselines
    baseline = None if own else _baselines(request, explainer.wrt, given)
    with progress("explaining") as report:
        attribution: Attribution = method(
            given.arrays,
            baseline=baseline,
            target=_targets(request.targets, len(given.names), labels),
            seed=request.seed,
            progress=report,
            **options,
        )
    return attribution


def _targets(texts: Sequence[str], count: int, labels: Sequence[str]) -> Any:
    """Read the targets: none means the argmax, one is for all examples, else one per example."""
    targets = [parse_target(text, labels) for text in texts]
    if len(targets) < 2:
        return targets[0] if targets else None
    if len(targets) != count:
        raise InputError(
            f"{len(targets)} targets for {count} examples: give one for all, or one for each"
        )
    return targets


def _baselines(request: Request, explained: Sequence[str], given: Given) -> Any:
    """Read the baselines: as asked, else black for images and 0 for others (black and white for XRAI).

    A text is a value for all explained tensors, or NAME=VALUE for one of them. Several for one tensor are several
    baselines; a tensor that has fewer keeps its last.
    """
    asked: dict[str, list[str]] = {name: [] for name in explained}
    common: list[str] = []
    for text in request.baselines:
        name, equals, value = text.partition("=")
        if not text or (equals and not value):
            raise InputError(
                f"--baseline is '{text}', expected a number, a name such as 'black', or a file"
            )
        if equals and name in explained:
            asked[name].append(value)
        elif equals and not Path(text).exists():
            known = ", ".join(f"'{one}'" for one in explained)
            raise InputError(f"baseline '{text}': '{name}' is not explained, only {known}")
        else:
            common.append(text)
    usual = ["black", "white"] if request.method == "xrai" else ["black"]
    for name, texts in asked.items():
        texts += [] if texts else common or (usual if name in given.preprocessing else ["0"])
    count = max(map(len, asked.values()))
    several = [
        {
            name: read_baseline(
                texts[min(index, len(texts) - 1)], name, given.preprocessing.get(name)
            )
            for name, texts in asked.items()
        }
        for index in range(count)
    ]
    return several[0] if count == 1 else several


def _values_by_name(attribution: Attribution, explained: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The attribution's values by the name of the explained tensor, [N, ...] each."""
    values = attribution.values
    return dict(values) if isinstance(values, dict) else {explained[0]: values}


def _print_features(
    console: Console,
    values: dict[str, NDArray[Any]],
    given: Given,
    rows: Sequence[Row],
    *,
    drawn: str | None,
) -> None:
    """Print the strongest features of each example and explained tensor, but of the one drawn."""
    for name, attributed in values.items():
        if name == drawn:
            continue
        inner = name not in given.arrays
        features = given.arrays.get(name)
        if inner and attributed.ndim == 3:
            # An embedding: its positions are known to people by the integers it was looked up from.
            ids = (a for a in given.arrays.values() if a.dtype.kind in "iu")
            features = next((a for a in ids if a.shape == attributed.shape[:2]), None)
        for index, row in enumerate(rows):
            console.print(f"\n{row.example}: strongest of '{name}'", markup=False)
            console.print(
                feature_table(
                    attributed[index],
                    None if features is None else features[index],
                    sum_last_axis=inner and attributed.ndim == 3,
                )
            )
