"""The commands and their options; what they do is in the module of each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from igonnx.cli.batch_command import batch
from igonnx.cli.choices import EngineName, Method
from igonnx.cli.evaluate_command import evaluate
from igonnx.cli.explain_command import explain
from igonnx.cli.model_commands import augment, compile_model
from igonnx.cli.options import (
    EngineOption,
    ModelArgument,
    OutputOption,
    ProviderOption,
    SizeOption,
    StraightThroughOption,
    ThreadsOption,
    WrtOption,
    image_size,
)
from igonnx.cli.serve import serve
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


app.command()(explain)


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
app.command()(serve)
app.command()(evaluate)
app.command()(batch)


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
    tensors: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="List the tensors inside that can be layers and whose names match instead: '*' for all, '*conv*'.",
        ),
    ] = None,
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
            tensors=tensors,
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
