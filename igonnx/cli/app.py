"""The commands and their options; what they do is in the module of each."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from igonnx.errors import InputError
from igonnx.images import PRESETS

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


class Rule(StrEnum):
    """Quadrature rules."""

    gauss_legendre = "gauss_legendre"
    trapezoid = "trapezoid"
    middle = "middle"
    left = "left"
    right = "right"


class Apply(StrEnum):
    """Functions applied to the output."""

    softmax = "softmax"
    log_softmax = "log_softmax"
    sigmoid = "sigmoid"


class Method(StrEnum):
    """Attribution methods."""

    ig = "ig"


class EngineName(StrEnum):
    """Engines."""

    native = "native"
    reference = "reference"


Images = "Images"
Runtime = "How it runs"

PresetOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"Normalisation: {', '.join(PRESETS)}. Default: what the model's metadata names, else "
        "zero-one.",
        rich_help_panel=Images,
    ),
]
MeanOption = Annotated[
    str | None,
    typer.Option(
        metavar="M[,M,M]",
        help="Subtracted from the scaled image: (image * scale - mean) / std.",
        rich_help_panel=Images,
    ),
]
StdOption = Annotated[
    str | None,
    typer.Option(metavar="S[,S,S]", help="Divided by, after the mean.", rich_help_panel=Images),
]
ScaleOption = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="What 0..1 is multiplied by; 255 for models that take 0..255.",
        rich_help_panel=Images,
    ),
]
SizeOption = Annotated[
    str | None,
    typer.Option(
        metavar="N or HxW",
        help="Image size, where the model leaves it free. [dim]Default: 224[/dim]",
        rich_help_panel=Images,
    ),
]
LayoutOption = Annotated[
    str | None,
    typer.Option(
        metavar="NCHW|NHWC",
        help="Where the channels are, if the input's shape does not tell.",
        rich_help_panel=Images,
    ),
]
OutputOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Output to explain. Default: the first.")
]
WrtOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Tensor to explain it by, an input or an inner one; may be repeated. "
        "Default: every floating input, or the embedding of integer inputs.",
    ),
]
EngineOption = Annotated[
    EngineName, typer.Option(help="What runs the gradients.", rich_help_panel=Runtime)
]
ProviderOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Execution provider of ONNX Runtime, best first; may be repeated.",
        rich_help_panel=Runtime,
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="bfloat16: matrix products round their factors, on CPUs with AMX or AVX512_BF16 "
        "(needs the extra bfloat16). Default: the model's own.",
        rich_help_panel=Runtime,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Threads. Default: ONNX Runtime's.", rich_help_panel=Runtime
    ),
]
StraightThroughOption = Annotated[
    bool,
    typer.Option(
        help="Quantised models: gradients go straight through rounding.",
        rich_help_panel="Method",
    ),
]
ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.")]


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
    save: Annotated[
        str | None,
        typer.Option(metavar="FILE.npz", help="Save the attribution, of all inputs, as arrays."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Names of the classes, one a line in order; 'imagenet' stands for ImageNet's.",
        ),
    ] = None,
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
    apply: Annotated[
        Apply | None, typer.Option(help="Applied to the output before the class is picked.")
    ] = None,
    method: Annotated[
        Method, typer.Option(help="ig: Integrated Gradients.", rich_help_panel="Method")
    ] = Method.ig,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VALUE",
            help="Where the path starts: a number, 'black', 'white', an image or array file, or "
            "NAME=VALUE. Default: black for images, 0 for others.",
            rich_help_panel="Method",
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, metavar="N", help="Gradients per input.", rich_help_panel="Method")
    ] = 50,
    rule: Annotated[
        Rule,
        typer.Option(
            metavar="RULE", help=f"Quadrature rule: {', '.join(Rule)}.", rich_help_panel="Method"
        ),
    ] = Rule.gauss_legendre,
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
        int,
        typer.Option(
            min=1, metavar="N", help="Most gradients with --tolerance.", rich_help_panel="Method"
        ),
    ] = 1000,
    memory_limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="BYTES",
            help="For the gradients kept with --tolerance; beyond it some are computed again. "
            "Default: 512 MiB.",
            rich_help_panel="Method",
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
            min=1, metavar="N", help="Gradients computed at once.", rich_help_panel=Runtime
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

    del method  # one so far
    run(
        Request(
            model=model,
            inputs=inputs,
            picture=picture,
            save=save,
            labels=labels,
            images=ImageOptions(
                preset=preset,
                mean=_numbers("--mean", mean),
                std=_numbers("--std", std),
                scale=scale,
                size=_size(size),
                layout=None if layout is None else layout.upper(),
                grey=grey,
            ),
            targets=target or [],
            output=output,
            wrt=wrt or [],
            apply=None if apply is None else apply.value,
            baselines=baseline or [],
            steps=steps,
            rule=rule.value,
            tolerance=tolerance,
            max_steps=max_steps,
            memory_limit=memory_limit,
            exact_sum=exact_sum,
            straight_through=straight_through,
            batch_size=batch_size,
            threads=threads,
            engine=engine.value,
            providers=provider or [],
            precision=precision,
        )
    )


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
            size=_size(size),
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


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Read numbers with commas between them."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        message = f"{option} is '{text}', expected numbers with commas between them"
        raise InputError(message) from None


def _size(text: str | None) -> tuple[int, int] | None:
    """Read an image size: one number, or height x width."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdecimal() and int(part) for part in parts):
        raise InputError(f"--size is '{text}', expected a number such as 224, or height x width")
    height, width = parts if len(parts) == 2 else parts * 2
    return int(height), int(width)
