"""The options by which a method is chosen and set, on every command that explains."""

from __future__ import annotations

from typing import Annotated

import typer

from igonnx.cli.choices import Method, Noise, Rule

__all__ = [
    "AnyRuleOption",
    "BaselineOption",
    "ExactSumOption",
    "FeatureMaskOption",
    "LayerOption",
    "MaxStepsOption",
    "MethodOption",
    "NeuronOption",
    "NoiseOption",
    "NoiseSamplesOption",
    "NoiseStdOption",
    "SamplesOption",
    "SeedOption",
    "SegmentsOption",
    "SettingsOption",
    "StepsOption",
    "StridesOption",
    "ToleranceOption",
    "WindowOption",
]

Panel = "Method"

MethodOption = Annotated[
    Method,
    typer.Option(
        metavar="NAME",
        help=f"Attribution method: {', '.join(Method)} (ig is short for integrated-gradients).",
        rich_help_panel=Panel,
    ),
]
BaselineOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="VALUE",
        help="Where the path starts: a number, 'black', 'white', 'mean', 'blurred', 'uniform', "
        "an image or array file, or NAME=VALUE. Several are averaged over. Default: black for "
        "images, 0 for others; xrai: black and white.",
        rich_help_panel=Panel,
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Points on the path. Default: 50; guided-ig 200, blur-ig 100.",
        rich_help_panel=Panel,
    ),
]
AnyRuleOption = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help=f"Quadrature rule ({', '.join(Rule)}; default gauss_legendre), or the rule of deep-lift or lrp.",
        rich_help_panel=Panel,
    ),
]
ToleranceOption = Annotated[
    float | None,
    typer.Option(
        metavar="PART",
        help="Refine until completeness error and estimated error of the map are at most this "
        "(0.01 is 1 %), instead of a fixed number of steps.",
        rich_help_panel=Panel,
    ),
]
MaxStepsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Most gradients with --tolerance. [dim]Default: 1000[/dim]",
        rich_help_panel=Panel,
    ),
]
SamplesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Draws of expected-gradients (200), gradient-shap (50), lime (1000), kernel-shap (twice the "
        "features and 2048); orders of shapley-value-sampling (25).",
        rich_help_panel=Panel,
    ),
]
LayerOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Tensor that layer, neuron and GradCAM methods look at, or a pattern such as '*conv5*' "
        "(igonnx inspect --tensors lists them). Default of GradCAM: the last one with places.",
        rich_help_panel=Panel,
    ),
]
NeuronOption = Annotated[
    str | None,
    typer.Option(
        metavar="I[,I,I]",
        help="Index in that layer, without the batch axis, for neuron methods.",
        rich_help_panel=Panel,
    ),
]
WindowOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="N[,N,N]",
        help="What occlusion covers at a time, without the batch axis: 3,15,15; or NAME=3,15,15.",
        rich_help_panel=Panel,
    ),
]
StridesOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="N[,N,N]",
        help="How far occlusion moves its window, likewise. Default: 1 with --window, else half of the usual one.",
        rich_help_panel=Panel,
    ),
]
FeatureMaskOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE.npy",
        help="Which feature each element belongs to, integers, for methods that take features away; or NAME=FILE.",
        rich_help_panel=Panel,
    ),
]
SegmentsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Take about so many segments of each image for its features.",
        rich_help_panel=Panel,
    ),
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any other setting of the method (igonnx methods NAME lists them); may be repeated.",
        rich_help_panel=Panel,
    ),
]
NoiseOption = Annotated[
    Noise | None,
    typer.Option(
        metavar="KIND",
        help=f"Explain noisy copies of the input: {', '.join(Noise)}.",
        rich_help_panel=Panel,
    ),
]
NoiseSamplesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Noisy copies. [dim]Default: 10[/dim]",
        rich_help_panel=Panel,
    ),
]
NoiseStdOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="X",
        help="Standard deviation of the noise, in the units of the model's input. Default: 15 % "
        "of the range of the input; gradient-shap 0.",
        rich_help_panel=Panel,
    ),
]
SeedOption = Annotated[
    int,
    typer.Option(min=0, metavar="N", help="Of noise and other draws.", rich_help_panel=Panel),
]
ExactSumOption = Annotated[
    bool,
    typer.Option(
        "--exact-sum",
        help="Make the contributions add up exactly, by the smallest correction.",
        rich_help_panel=Panel,
    ),
]
