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
from igonnx.cli.drawing import Drawable, draw, find_drawable, require_view
from igonnx.cli.features import feature_table
from igonnx.cli.inputs import Given, ImageOptions, read_inputs
from igonnx.cli.labels import read_labels
from igonnx.cli.methods import ADDING_UP, FORWARD_ONLY, OF_LAYERS, chosen_options
from igonnx.cli.outputs import Outputs, picture_paths
from igonnx.cli.questions import baselines_of, targets_of
from igonnx.cli.report import Row, percent, probabilities, rows_of, table_of
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
    of_neuron = _explains_neuron(request.method)
    if of_neuron and (request.targets or labels):
        what = "--target" if request.targets else "--labels"
        raise InputError(
            f"{what} is not for --method {request.method.replace('_', '-')}: --neuron says what it explains"
        )
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
        if "cam" in request.method and "layer" not in options:
            _tell_layer(explainer)
        if request.method in OF_LAYERS and drawable is not None:
            drawable = _require_map(attribution, drawable, request) if pictures else None
        predicted = explainer.predict(given.arrays)[explainer.output]
        if labels and predicted.ndim == 2 and predicted.shape[1] != len(labels):
            warn(f"{len(labels)} labels, but '{explainer.output}' has {predicted.shape[1]} classes")
        unknown: tuple[list[float | None], str] = [None] * len(given.names), ""
        found, how = (
            unknown if of_neuron else probabilities(predicted, attribution.target, request.apply)
        )
        rows = rows_of(
            attribution,
            given.names,
            labels,
            found,
            adds_up=request.method in ADDING_UP and "noise" not in options,
            of="neuron" if of_neuron else "class",
            unit=_unit(request.method),
        )
        only = explained[0]
        if request.method in OF_LAYERS and isinstance(options["layer"], str):
            only = explainer.tensors(options["layer"])[0].name
        values = _values_by_name(attribution, only)
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
    for text in _trust(attribution, request.method):
        console.print(text, style="dim", markup=False)
    drawn = None
    if drawable is not None:
        drawn = only if request.method in OF_LAYERS else drawable.name
    _print_features(console, values, given, rows, drawn=drawn)
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
    usual = ("black", "white") if request.method == "xrai" else ("black",)
    baseline = None if own else baselines_of(request.baselines, explainer.wrt, given, usual=usual)
    if not _explains_neuron(request.method):
        targets = targets_of(request.targets, len(given.names), labels)
        options = {"target": targets, **options}
    plural = "forward passes" if _unit(request.method) == "forward pass" else "gradients"
    with progress("explaining", plural) as report:
        attribution: Attribution = method(
            given.arrays, baseline=baseline, seed=request.seed, progress=report, **options
        )
    return attribution


def _trust(attribution: Attribution, method: str) -> list[str]:
    """What the methods that fit or sample know of how well they did."""
    told = []
    if attribution.r_squared is not None:
        shares = ", ".join(f"{share:.2f}" for share in attribution.r_squared)
        told.append(f"r squared, what the linear model accounts for: {shares}")
    if method in FORWARD_ONLY and attribution.error_estimate is not None:
        errors = ", ".join(map(percent, attribution.error_estimate))
        told.append(f"standard error of the values: {errors}")
    return told


def _tell_layer(explainer: Explainer) -> None:
    """Say which layer GradCAM takes where none was asked for."""
    from igonnx.feature_maps import last_feature_map

    names = [tensor.name for tensor in explainer.tensors()]
    chosen = last_feature_map(explainer.model, names, explainer.output)
    note(f"the layer is '{chosen}'; --layer names another")


def _values_by_name(attribution: Attribution, only: str) -> dict[str, NDArray[Any]]:
    """The attribution's values by the name of the tensor that they are for, [N, ...] each; of one, it is `only`."""
    values = attribution.values
    return dict(values) if isinstance(values, dict) else {only: values}


def _explains_neuron(method: str) -> bool:
    """Whether it explains a neuron in the place of the output."""
    return method.startswith("neuron_") and method != "neuron_conductance"


def _unit(method: str) -> str:
    """What the method counts."""
    return "forward pass" if method in FORWARD_ONLY else "gradient"


def _require_map(attribution: Attribution, drawable: Drawable, request: Request) -> Drawable:
    """What is drawn of a layer; `InputError` where it is no map."""
    if isinstance(attribution.values, dict):
        raise InputError("-o draws one layer, but --layer names several")
    if attribution.values.ndim != 4:
        shape = list(attribution.values.shape)
        raise InputError(
            f"nothing to draw: layer '{request.options['layer']}' has shape {shape}, which is no map of an image; "
            "without -o, its strongest features are printed"
        )
    return drawable


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
