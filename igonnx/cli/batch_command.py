"""`igonnx batch` and its options; what it does is in `igonnx.cli.batch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from igonnx.cli.choices import EngineName, Method
from igonnx.cli.method_choice import (
    AnyRuleOption,
    BaselineOption,
    ExactSumOption,
    LayerOption,
    MaxStepsOption,
    MethodOption,
    NoiseOption,
    NoiseSamplesOption,
    NoiseStdOption,
    SamplesOption,
    SeedOption,
    SettingsOption,
    StepsOption,
    ToleranceOption,
)
from igonnx.cli.method_options import layers, settings_of
from igonnx.cli.options import (
    ApplyOption,
    BatchSizeOption,
    EngineOption,
    GreyOption,
    Images,
    LabelsOption,
    LayoutOption,
    MeanOption,
    ModelArgument,
    OutputOption,
    PrecisionOption,
    PresetOption,
    ProviderOption,
    Runtime,
    ScaleOption,
    SizeOption,
    StdOption,
    StraightThroughOption,
    WrtOption,
    image_options,
)

__all__ = ["batch"]

Scale = "Ray"
HowExplained = "Method"
Written = "What is written"


def batch(
    model: ModelArgument,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Images, .npy, .npz and .parquet files, folders of these, .txt lists of files.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="Where tables and the summary go. A run that was stopped goes on if it is begun again.",
        ),
    ],
    labels: LabelsOption = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            help="Class to explain: an index (3,5 for two axes) or a name of --labels. Default: the class with the "
            "highest score.",
        ),
    ] = None,
    output: OutputOption = None,
    wrt: WrtOption = None,
    apply: ApplyOption = None,
    column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Column of tables that the model's one input is read from. Default: that of the input's name, or "
            "the only one.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Explain the first N rows only.")
    ] = None,
    method: MethodOption = Method.integrated_gradients,
    baseline: BaselineOption = None,
    steps: StepsOption = None,
    rule: AnyRuleOption = None,
    tolerance: ToleranceOption = None,
    max_steps: MaxStepsOption = None,
    samples: SamplesOption = None,
    layer: LayerOption = None,
    settings: SettingsOption = None,
    noise: NoiseOption = None,
    noise_samples: NoiseSamplesOption = None,
    noise_std: NoiseStdOption = None,
    seed: SeedOption = 0,
    exact_sum: ExactSumOption = False,
    straight_through: StraightThroughOption = True,
    arrays: Annotated[
        bool,
        typer.Option(
            help="Write the attributions, or only what is told of them.", rich_help_panel=Written
        ),
    ] = True,
    overlays: Annotated[
        bool,
        typer.Option("--overlays", help="Draw a picture of each row.", rich_help_panel=Written),
    ] = False,
    rows_per_part: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Rows of a file, which is written at once. Default: at most 64.",
            rich_help_panel=Written,
        ),
    ] = None,
    retry_errors: Annotated[
        bool,
        typer.Option(
            "--retry-errors",
            help="Do files again of which rows could not be explained before.",
            rich_help_panel=Written,
        ),
    ] = False,
    preset: PresetOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    scale: ScaleOption = None,
    size: SizeOption = None,
    layout: LayoutOption = None,
    grey: GreyOption = False,
    max_pixels: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Images of more are not decoded, but told as errors.",
            rich_help_panel=Images,
        ),
    ] = 100_000_000,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Ray cluster to run on: 'auto' for that which this machine is part of, or host:port. Default: one of "
            "this machine alone, made for the run.",
            rich_help_panel=Scale,
        ),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Explainers that work at the same time. Default: one for each GPU, or as many as keep all CPUs busy.",
            rich_help_panel=Scale,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Threads of each. Default: as many as there are CPUs for it, up to 4.",
            rich_help_panel=Scale,
        ),
    ] = None,
    together: Annotated[
        int,
        typer.Option(
            "--batch",
            min=1,
            metavar="N",
            help="Rows that each explains at once.",
            rich_help_panel=Scale,
        ),
    ] = 32,
    batch_size: BatchSizeOption = None,
    memory_limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="BYTES",
            help="What gradients computed at once may take. Default: 128 MiB a batch.",
            rich_help_panel=Runtime,
        ),
    ] = None,
    engine: EngineOption = EngineName.native,
    provider: ProviderOption = None,
    precision: PrecisionOption = None,
) -> None:
    """Explain a data set: a table of attributions, a table of errors, and a page that sums them up.

    Runs on all cores of this machine, or on a Ray cluster whose machines see the same files.
    A run that was stopped, or killed, goes on where it was when the same command is given again.

      igonnx batch model.onnx photos/ -o explained/ --preset imagenet --labels imagenet
      igonnx batch model.onnx rows.parquet -o explained/ --tolerance 0.01 --address auto
    """
    from igonnx.cli.batch import Request, run
    from igonnx.cli.methods import function_name
    from igonnx.scale.cluster import Cluster

    run(
        Request(
            model=model,
            inputs=inputs,
            out=out,
            labels=labels,
            images=image_options(
                preset=preset, mean=mean, std=std, scale=scale, size=size, layout=layout, grey=grey
            ),
            max_pixels=max_pixels,
            column=column,
            target=target,
            baselines=baseline or [],
            method=function_name(method),
            options={
                "steps": steps,
                "rule": rule,
                "tolerance": tolerance,
                "max_steps": max_steps,
                "exact_sum": exact_sum or None,
                "samples": samples,
                "layer": layers(layer),
                "noise": None if noise is None else noise.value,
                "noise_samples": noise_samples,
                "noise_std": noise_std,
            },
            settings=settings_of(settings),
            seed=seed,
            explainer={
                "output": output,
                "wrt": wrt or None,
                "apply": None if apply is None else apply.value,
                "engine": engine.value,
                "straight_through": straight_through,
                "precision": precision,
            },
            running={
                "providers": provider or None,
                "batch_size": batch_size,
                "memory_limit": memory_limit,
            },
            arrays=arrays,
            overlays=overlays,
            limit=limit,
            batch=together,
            rows_per_part=rows_per_part,
            retry_errors=retry_errors,
            cluster=Cluster(address, actors, threads),
        )
    )
