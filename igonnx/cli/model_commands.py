"""The commands that write models, and their options; what they do is in the module of each."""

from __future__ import annotations

from typing import Annotated

import typer

from igonnx.cli.choices import AugmentMethod, HeatMap
from igonnx.cli.options import (
    ApplyOption,
    LabelsOption,
    ModelArgument,
    OutputOption,
    RuleOption,
    StraightThroughOption,
    WrtOption,
)

__all__ = ["augment", "compile_model"]

Drawing = "Heat maps"
Triton = "Triton Inference Server"


def augment(
    model: ModelArgument,
    written: Annotated[
        str | None, typer.Option("-o", "--out", metavar="OUT.onnx", help="Where it is written.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            help="Class explained unless another one is fed: an index (3,5 for two axes) or a name of --labels. "
            "Default: the class with the highest score.",
        ),
    ] = None,
    labels: LabelsOption = None,
    output: OutputOption = None,
    wrt: WrtOption = None,
    apply: ApplyOption = None,
    lazy: Annotated[
        bool,
        typer.Option(
            "--lazy",
            help="Explain only when the input 'explain' is fed with true: other predictions cost what they did.",
        ),
    ] = False,
    method: Annotated[
        AugmentMethod,
        typer.Option(
            metavar="NAME",
            help=f"Attribution method: {', '.join(AugmentMethod)} (ig is short for integrated-gradients).",
            rich_help_panel="Method",
        ),
    ] = AugmentMethod.integrated_gradients,
    baseline: Annotated[
        float,
        typer.Option(
            metavar="X",
            help="Number that fills the baseline unless another one is fed, in the units of the model's input.",
            rich_help_panel="Method",
        ),
    ] = 0.0,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Points on the path. [dim]Default: 50[/dim]",
            rich_help_panel="Method",
        ),
    ] = None,
    rule: RuleOption = None,
    chunk: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Points run at once, for each example: more take more memory. [dim]Default: 10[/dim]",
            rich_help_panel="Method",
        ),
    ] = None,
    noise_samples: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Noisy copies, for smoothgrad-ig. [dim]Default: 10[/dim]",
            rich_help_panel="Method",
        ),
    ] = None,
    noise_std: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="X",
            help="Standard deviation of the noise, in the units of what is explained. Default: 15 % of the range "
            "of each example.",
            rich_help_panel="Method",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Of the noise.", rich_help_panel="Method"),
    ] = None,
    straight_through: StraightThroughOption = True,
    heatmap: Annotated[
        HeatMap | None,
        typer.Option(
            metavar="KIND",
            help="Draw it inside the model, too: the sum of the channels in \\[-1, 1]; absolute, the sum of their "
            "magnitudes in \\[0, 1]; overlay, that and its colours as uint8 RGBA.",
            rich_help_panel=Drawing,
        ),
    ] = None,
    heatmap_threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="X",
            help="Pixels of an overlay weaker than this are transparent. [dim]Default: 0.1[/dim]",
            rich_help_panel=Drawing,
        ),
    ] = None,
    triton: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Write it into this model repository: NAME/1/model.onnx and NAME/config.pbtxt.",
            rich_help_panel=Triton,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What Triton calls it. Default: the name of MODEL without suffix.",
            rich_help_panel=Triton,
        ),
    ] = None,
    max_batch_size: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2**31 - 1,
            metavar="N",
            help="Most examples that Triton puts together from several requests, which then must send 'target' (-1: "
            "the highest score) and cannot send a baseline. Default: 0, requests are run one by one, and may send "
            "either.",
            rich_help_panel=Triton,
        ),
    ] = None,
) -> None:
    """Write one plain ONNX model that predicts and explains.

    It runs wherever the model ran, with nothing of igonnx installed: the model's own inputs and
    outputs stay, and the attribution of each input and its completeness error join the outputs.

      igonnx augment model.onnx -o explained.onnx
      igonnx augment model.onnx -o explained.onnx --lazy --heatmap overlay --apply softmax
      igonnx augment model.onnx --triton repository --lazy
    """
    from igonnx.cli.augment import Request, run

    kind = AugmentMethod.integrated_gradients if method is AugmentMethod.ig else method
    run(
        Request(
            model=model,
            written=written,
            triton=triton,
            name=name,
            max_batch_size=max_batch_size,
            labels=labels,
            target=target,
            output=output,
            wrt=wrt or [],
            apply=None if apply is None else apply.value,
            method=kind.value.replace("-", "_"),
            options={
                "steps": steps,
                "rule": None if rule is None else rule.value,
                "chunk": chunk,
                "noise_samples": noise_samples,
                "noise_std": noise_std,
                "seed": seed,
            },
            baseline=baseline,
            lazy=lazy,
            heatmap=None if heatmap is None else heatmap.value,
            heatmap_threshold=heatmap_threshold,
            straight_through=straight_through,
        )
    )


def compile_model(
    model: ModelArgument,
    written: Annotated[
        str, typer.Option("-o", "--out", metavar="OUT.onnx", help="Where it is written.")
    ],
    output: OutputOption = None,
    wrt: WrtOption = None,
    apply: ApplyOption = None,
    straight_through: StraightThroughOption = True,
) -> None:
    """Write the explanation graph, which programs without Python load through igonnx.h.

    It computes the gradients of any path method, at points that its caller chooses; the file says
    in its metadata what is in it.

      igonnx compile model.onnx -o compiled.onnx --apply softmax
    """
    from igonnx.cli.compile import run

    run(
        model,
        written,
        output=output,
        wrt=wrt or [],
        apply=None if apply is None else apply.value,
        straight_through=straight_through,
    )
