"""The commands and their options; what they do is in the module of each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from igonnx.cli.choices import EngineName, Method, Noise, Rule, SignName, View
from igonnx.cli.method_options import (
    feature_masks,
    layers,
    settings_of,
    sizes,
    whole_numbers,
)
from igonnx.cli.methods import function_name
from igonnx.cli.model_commands import augment, compile_model
from igonnx.cli.options import (
    ApplyOption,
    EngineOption,
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
    ThreadsOption,
    WrtOption,
    image_size,
    numbers,
)
from igonnx.errors import InputError

__all__ = ["app"]

app = typer.Typer(
    name="igonnx",
    help="Explain ONNX models where they are deployed: Integrated Gradients inside ONNX Runtime.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"igonnx {version('igonnx')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


@app.command()
def explain(
    model: ModelArgument,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Images, .npy or .npz arrays; NAME=FILE for one input of several.",
        ),
    ],
    picture: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--picture",
            metavar="PATH",
            help="Write a picture: a file, a folder (a path without suffix), or a pattern such as "
            "'out_{name}.png'. Several inputs need one of the latter two.",
        ),
    ] = None,
    view: Annotated[
        View,
        typer.Option(
            metavar="VIEW",
            help=f"What the picture shows beside the input: {', '.join(View)}. "
            "[dim]Default: overview[/dim]",
        ),
    ] = View.overview,
    sign: Annotated[
        SignName | None,
        typer.Option(
            metavar="SIGN",
            help=f"Contributions shown: {', '.join(SignName)}. Default: as suits the view.",
        ),
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(metavar="FILE.npz", help="Save the attribution, of all inputs, as arrays."),
    ] = None,
    labels: LabelsOption = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS",
            help="Class to explain: an index (3,5 for two axes) or a name of --labels; repeat it "
            "to give each input its own. Default: the class with the highest score.",
        ),
    ] = None,
    output: OutputOption = None,
    wrt: WrtOption = None,
    apply: ApplyOption = None,
    method: Annotated[
        Method,
        typer.Option(
            metavar="NAME",
            help=f"Attribution method: {', '.join(Method)} (ig is short for integrated-gradients).",
            rich_help_panel="Method",
        ),
    ] = Method.integrated_gradients,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VALUE",
            help="Where the path starts: a number, 'black', 'white', 'mean', 'blurred', 'uniform', "
            "an image or array file, or NAME=VALUE. Several are averaged over. Default: black for "
            "images, 0 for others; xrai: black and white.",
            rich_help_panel="Method",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Points on the path. Default: 50; guided-ig 200, blur-ig 100.",
            rich_help_panel="Method",
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help=f"Quadrature rule ({', '.join(Rule)}; default gauss_legendre), or the rule of deep-lift or lrp.",
            rich_help_panel="Method",
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="PART",
            help="Refine until completeness error and estimated error of the map are at most this "
            "(0.01 is 1 %), instead of a fixed number of steps.",
            rich_help_panel="Method",
        ),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Most gradients with --tolerance. [dim]Default: 1000[/dim]",
            rich_help_panel="Method",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Draws of expected-gradients (200) and gradient-shap (50).",
            rich_help_panel="Method",
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Tensor that layer, neuron and GradCAM methods look at, or a pattern such as '*conv5*' "
            "(igonnx inspect --tensors lists them).",
            rich_help_panel="Method",
        ),
    ] = None,
    neuron: Annotated[
        str | None,
        typer.Option(
            metavar="I[,I,I]",
            help="Index in that layer, without the batch axis, for neuron methods.",
            rich_help_panel="Method",
        ),
    ] = None,
    window: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N[,N,N]",
            help="What occlusion covers at a time, without the batch axis: 3,15,15; or NAME=3,15,15.",
            rich_help_panel="Method",
        ),
    ] = None,
    strides: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N[,N,N]",
            help="How far occlusion moves its window, likewise. [dim]Default: 1[/dim]",
            rich_help_panel="Method",
        ),
    ] = None,
    feature_mask: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.npy",
            help="Which feature each element belongs to, integers, for methods that take features away; or NAME=FILE.",
            rich_help_panel="Method",
        ),
    ] = None,
    segments: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Take about so many segments of each image for its features.",
            rich_help_panel="Method",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other setting of the method (igonnx methods NAME lists them); may be repeated.",
            rich_help_panel="Method",
        ),
    ] = None,
    noise: Annotated[
        Noise | None,
        typer.Option(
            metavar="KIND",
            help=f"Explain noisy copies of the input: {', '.join(Noise)}.",
            rich_help_panel="Method",
        ),
    ] = None,
    noise_samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Noisy copies. [dim]Default: 10[/dim]",
            rich_help_panel="Method",
        ),
    ] = None,
    noise_std: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="X",
            help="Standard deviation of the noise, in the units of the model's input. Default: 15 % "
            "of the range of the input; gradient-shap 0.",
            rich_help_panel="Method",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Of noise and other draws.", rich_help_panel="Method"
        ),
    ] = 0,
    memory_limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="BYTES",
            help="What gradients computed at once may take, and as much again for those kept with "
            "--tolerance. Default: 128 MiB a batch, and 512 MiB.",
            rich_help_panel=Runtime,
        ),
    ] = None,
    exact_sum: Annotated[
        bool,
        typer.Option(
            "--exact-sum",
            help="Make the contributions add up exactly, by the smallest correction.",
            rich_help_panel="Method",
        ),
    ] = False,
    preset: PresetOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    scale: ScaleOption = None,
    size: SizeOption = None,
    layout: LayoutOption = None,
    grey: Annotated[
        bool,
        typer.Option(
            "--grey", help="Turn colour images grey for one channel.", rich_help_panel=Images
        ),
    ] = False,
    straight_through: StraightThroughOption = True,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Gradients computed at once. Default: tried out.",
            rich_help_panel=Runtime,
        ),
    ] = None,
    threads: ThreadsOption = None,
    engine: EngineOption = EngineName.native,
    provider: ProviderOption = None,
    precision: PrecisionOption = None,
) -> None:
    """Explain which parts of an input a prediction comes from.

    Prints, for each input, the class, its probability and score, and how far the
    explanation is from adding up exactly (the completeness error).

      igonnx explain model.onnx cat.jpg -o cat.png --preset imagenet --labels imagenet
      igonnx explain model.onnx photos/*.jpg -o pictures/
      igonnx explain model.onnx features.npy --target 3 --tolerance 0.01
      igonnx explain bert.onnx input_ids=ids.npy attention_mask=mask.npy --target 1
    """
    from igonnx.cli.explain import Request, run
    from igonnx.cli.inputs import ImageOptions

    run(
        Request(
            model=model,
            inputs=inputs,
            picture=picture,
            view=view,
            sign=None if sign is None else sign.value,
            save=save,
            labels=labels,
            images=ImageOptions(
                preset=preset,
                mean=numbers("--mean", mean),
                std=numbers("--std", std),
                scale=scale,
                size=image_size(size),
                layout=None if layout is None else layout.upper(),
                grey=grey,
            ),
            targets=target or [],
            output=output,
            wrt=wrt or [],
            apply=None if apply is None else apply.value,
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
                "neuron": whole_numbers("--neuron", neuron),
                "window": sizes("--window", window),
                "strides": sizes("--strides", strides),
                "feature_mask": feature_masks(feature_mask),
                "segments": segments,
                "noise": None if noise is None else noise.value,
                "noise_samples": noise_samples,
                "noise_std": noise_std,
            },
            settings=settings_of(settings),
            seed=seed,
            memory_limit=memory_limit,
            straight_through=straight_through,
            batch_size=batch_size,
            threads=threads,
            engine=engine.value,
            providers=provider or [],
            precision=precision,
        )
    )


@app.command()
def methods(
    name: Annotated[
        Method | None,
        typer.Argument(
            metavar="[NAME]", help="A method, to be told all of it.", show_default=False
        ),
    ] = None,
) -> None:
    """List the attribution methods, or tell what one of them is and what can be set."""
    from igonnx.cli.method_help import show_all, show_one

    if name is None:
        show_all()
    else:
        show_one(name)


app.command()(augment)
app.command("compile")(compile_model)


@app.command()
def inspect(
    model: ModelArgument,
    output: OutputOption = None,
    wrt: WrtOption = None,
    size: SizeOption = None,
    length: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Length of free axes that are no image's, for the measurement."
        ),
    ] = 16,
    measure: Annotated[
        bool, typer.Option(help="Measure what a forward pass and a gradient take.")
    ] = True,
    straight_through: StraightThroughOption = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print it as JSON, for other programs.")
    ] = False,
    threads: ThreadsOption = None,
    engine: EngineOption = EngineName.native,
    provider: ProviderOption = None,
) -> None:
    """Show what a model takes and gives, and whether and at what cost it can be explained.

    Of each operator on the way from the output to what it is explained by, it tells what
    serves the gradient there, and of each node that would be refused why.
    """
    from igonnx.cli.inspection import Request, run

    run(
        Request(
            model=model,
            output=output,
            wrt=wrt or [],
            size=image_size(size),
            length=length,
            measure=measure,
            as_json=as_json,
            straight_through=straight_through,
            threads=threads,
            engine=engine.value,
            providers=provider or [],
        )
    )


@app.command()
def demo(
    folder: Annotated[
        str, typer.Option("-o", "--folder", metavar="FOLDER", help="Where the page is written.")
    ] = "demo",
    threads: ThreadsOption = None,
    engine: EngineOption = EngineName.native,
) -> None:
    """Explain four photos on EfficientNet-Lite0: a picture for each and a page of all.

    The photos ship with scikit-image, the weights with igonnx's extra 'demo'.
    Nothing is downloaded.
    """
    from igonnx.cli.demo import run

    if not folder:
        raise InputError("-o is empty, expected a folder")
    run(Path(folder), threads=threads, engine=engine.value)
