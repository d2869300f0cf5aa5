"""`igonnx evaluate` and its options; what it does is in `igonnx.cli.evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from igonnx.cli.choices import EngineName, Measure
from igonnx.cli.method_options import settings_of
from igonnx.cli.options import (
    ApplyOption,
    BatchSizeOption,
    EngineOption,
    InputsArgument,
    LabelsOption,
    LayoutOption,
    MeanOption,
    ModelArgument,
    OutputOption,
    PresetOption,
    ProviderOption,
    ScaleOption,
    SizeOption,
    StdOption,
    TargetsOption,
    ThreadsOption,
    WrtOption,
    image_options,
)

__all__ = ["evaluate"]

What = "What is measured"


def evaluate(
    model: ModelArgument,
    inputs: InputsArgument,
    methods: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME...",
            help="Attribution methods to compare; igonnx methods lists them.",
            rich_help_panel=What,
        ),
    ] = "ig,saliency",
    measures: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME...",
            help=f"Measures: {', '.join(Measure)}. Default: all but faithfulness-correlation, which resembles "
            "sensitivity-n, and weight-randomisation, which takes long.",
            rich_help_panel=What,
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("-o", "--picture", metavar="PATH", help="Draw the scores: .png, .pdf, .svg."),
    ] = None,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE.json", help="Write the scores of every input."),
    ] = None,
    labels: LabelsOption = None,
    target: TargetsOption = None,
    output: OutputOption = None,
    wrt: WrtOption = None,
    apply: ApplyOption = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VALUE",
            help="Of the methods, and what takes the place of the input in the measures: a number, 'black', 'white', "
            "'mean', 'blurred', 'uniform', a file, or NAME=VALUE. Default: black for images, 0 for others.",
            rich_help_panel=What,
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting of those methods that have one of that name; may be repeated.",
            rich_help_panel=What,
        ),
    ] = None,
    patch: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Pixels are taken away in squares of this length. Default: a 28th of an image.",
            rich_help_panel=What,
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="N",
            help="Draws of sensitivity-n, faithfulness-correlation and infidelity. Default: 50, 100, 50.",
            rich_help_panel=What,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Of all draws.", rich_help_panel=What)
    ] = 0,
    preset: PresetOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    scale: ScaleOption = None,
    size: SizeOption = None,
    layout: LayoutOption = None,
    batch_size: BatchSizeOption = None,
    threads: ThreadsOption = None,
    engine: EngineOption = EngineName.native,
    provider: ProviderOption = None,
) -> None:
    """Measure how far explanations can be trusted: a table of methods by measures.

    Each cell is the mean over the inputs; the best of a column is bold. No
    measure alone says which method is right: docs/metrics.md tells what each asks.

      igonnx evaluate model.onnx photos/*.jpg --methods ig,xrai -o scores.png
      igonnx evaluate model.onnx table.npy --measures infidelity --json out.json
    """
    from igonnx.cli.evaluate import Request, run

    run(
        Request(
            model=model,
            inputs=inputs,
            methods=methods,
            measures=measures,
            picture=picture,
            json_path=json_path,
            labels=labels,
            targets=target or [],
            output=output,
            wrt=wrt or [],
            apply=None if apply is None else apply.value,
            baselines=baseline or [],
            settings=settings_of(setting),
            patch=patch,
            samples=samples,
            seed=seed,
            images=image_options(
                preset=preset, mean=mean, std=std, scale=scale, size=size, layout=layout
            ),
            batch_size=batch_size,
            threads=threads,
            engine=engine.value,
            providers=provider or [],
        )
    )
