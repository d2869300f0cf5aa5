"""The options that several commands share, or that describe images, and how their texts are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from igonnx.cli.choices import Apply, EngineName, Rule
from igonnx.errors import InputError
from igonnx.images import PRESETS

if TYPE_CHECKING:
    from igonnx.cli.inputs import ImageOptions

__all__ = [
    "ApplyOption",
    "BatchSizeOption",
    "EngineOption",
    "GreyOption",
    "Images",
    "InputsArgument",
    "LabelsOption",
    "LayoutOption",
    "MeanOption",
    "MemoryLimitOption",
    "ModelArgument",
    "OutputOption",
    "PrecisionOption",
    "PresetOption",
    "ProviderOption",
    "RuleOption",
    "Runtime",
    "ScaleOption",
    "SizeOption",
    "StdOption",
    "StraightThroughOption",
    "TargetsOption",
    "ThreadsOption",
    "WrtOption",
    "image_options",
    "image_size",
    "numbers",
]

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
LabelsOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Names of the classes, one a line in order; 'imagenet' stands for ImageNet's.",
    ),
]
RuleOption = Annotated[
    Rule | None,
    typer.Option(
        metavar="RULE",
        help=f"Quadrature rule: {', '.join(Rule)}. [dim]Default: gauss_legendre[/dim]",
        rich_help_panel="Method",
    ),
]
ApplyOption = Annotated[
    Apply | None, typer.Option(help="Applied to the output before the class is picked.")
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
        min=1,
        metavar="N",
        help="Threads that one explanation keeps busy. Default: one per physical core.",
        rich_help_panel=Runtime,
    ),
]
StraightThroughOption = Annotated[
    bool,
    typer.Option(
        help="Quantised models: gradients go straight through rounding.",
        rich_help_panel="Method",
    ),
]
InputsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Images, .npy or .npz arrays; NAME=FILE for one input of several.",
    ),
]
TargetsOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CLASS",
        help="Class to explain: an index (3,5 for two axes) or a name of --labels; repeat it "
        "to give each input its own. Default: the class with the highest score.",
    ),
]
GreyOption = Annotated[
    bool,
    typer.Option("--grey", help="Turn colour images grey for one channel.", rich_help_panel=Images),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Gradients computed at once. Default: tried out.",
        rich_help_panel=Runtime,
    ),
]
MemoryLimitOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="BYTES",
        help="What gradients computed at once may take, and as much again for those kept with "
        "--tolerance. Default: 128 MiB a batch, and 512 MiB.",
        rich_help_panel=Runtime,
    ),
]
ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.")]


def numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Read numbers with commas between them."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        message = f"{option} is '{text}', expected numbers with commas between them"
        raise InputError(message) from None


def image_size(text: str | None) -> tuple[int, int] | None:
    """Read an image size: one number, or height x width."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdecimal() and int(part) for part in parts):
        raise InputError(f"--size is '{text}', expected a number such as 224, or height x width")
    height, width = parts if len(parts) == 2 else parts * 2
    return int(height), int(width)


def image_options(
    *,
    preset: str | None,
    mean: str | None,
    std: str | None,
    scale: float | None,
    size: str | None,
    layout: str | None,
    grey: bool = False,
) -> ImageOptions:
    """What the options of the panel of images say together."""
    from igonnx.cli.inputs import ImageOptions

    return ImageOptions(
        preset=preset,
        mean=numbers("--mean", mean),
        std=numbers("--std", std),
        scale=scale,
        size=image_size(size),
        layout=None if layout is None else layout.upper(),
        grey=grey,
    )
