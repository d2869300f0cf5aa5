"""`igonnx serve`: a KServe model server that explains its models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from igonnx.cli.options import (
    ApplyOption,
    GreyOption,
    LabelsOption,
    LayoutOption,
    MeanOption,
    OutputOption,
    PresetOption,
    ProviderOption,
    Runtime,
    ScaleOption,
    SizeOption,
    StdOption,
    ThreadsOption,
    WrtOption,
    image_options,
)
from igonnx.errors import InputError

__all__ = ["serve"]

Bounds = "What clients may ask for"
Waiting = "How requests are served"


def serve(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="An ONNX file, or a folder of them: NAME.onnx or NAME/model.onnx."
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name it is served under. Default: the file's."),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 is all of them.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, metavar="N", help="Port of REST.")] = 8080,
    grpc_port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port of gRPC; 0: none.")
    ] = 8081,
    labels: LabelsOption = None,
    output: OutputOption = None,
    wrt: WrtOption = None,
    apply: ApplyOption = None,
    preset: PresetOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    scale: ScaleOption = None,
    size: SizeOption = None,
    layout: LayoutOption = None,
    grey: GreyOption = False,
    max_batch: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Examples of all requests that are explained in one go; 1: requests share nothing.",
            rich_help_panel=Waiting,
        ),
    ] = 64,
    max_queue: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Requests that may wait; further ones are refused with 429.",
            rich_help_panel=Waiting,
        ),
    ] = 256,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            max=64,
            metavar="N",
            help="Goes at a time, which share the engine's rows.",
            rich_help_panel=Waiting,
        ),
    ] = 2,
    grace: Annotated[
        float,
        typer.Option(
            min=0.1,
            metavar="SECONDS",
            help="Time to finish what was accepted, after SIGTERM.",
            rich_help_panel=Waiting,
        ),
    ] = 30.0,
    log_level: Annotated[
        str,
        typer.Option(metavar="LEVEL", help="info, warning or error.", rich_help_panel=Waiting),
    ] = "info",
    max_seconds: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="For one request, waiting included; its own timeout may be shorter.",
            rich_help_panel=Bounds,
        ),
    ] = 60.0,
    max_body: Annotated[
        int, typer.Option(min=1, metavar="BYTES", help="Of a request.", rich_help_panel=Bounds)
    ] = 16 << 20,
    max_pixels: Annotated[
        int, typer.Option(min=1, metavar="N", help="Of an image.", rich_help_panel=Bounds)
    ] = 16_000_000,
    max_examples: Annotated[
        int, typer.Option(min=1, metavar="N", help="In a request.", rich_help_panel=Bounds)
    ] = 64,
    max_steps: Annotated[
        int, typer.Option(min=1, metavar="N", help="Points on a path.", rich_help_panel=Bounds)
    ] = 1000,
    max_samples: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Draws, noisy copies, baselines.", rich_help_panel=Bounds
        ),
    ] = 1000,
    max_gradients: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Of a request: examples x steps x samples.",
            rich_help_panel=Bounds,
        ),
    ] = 200_000,
    memory_limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="BYTES",
            help="What gradients computed at once may take. Default: 128 MiB a batch.",
            rich_help_panel=Runtime,
        ),
    ] = None,
    threads: ThreadsOption = None,
    provider: ProviderOption = None,
) -> None:
    """Serve predictions and explanations, by KServe's V1 and V2 protocols, REST and gRPC.

    In V1 these are NAME:predict and NAME:explain, in V2 the models NAME and
    NAME-explain. On SIGTERM it ends when all that was accepted is answered.

      igonnx serve model.onnx --name cats --preset imagenet --labels imagenet
      igonnx serve models/ --host 0.0.0.0 --max-queue 64
    """
    from igonnx.serving.limits import Limits

    if log_level not in ("info", "warning", "error"):
        raise InputError(f"--log-level is '{log_level}'; expected info, warning or error")
    limits = Limits(
        body=max_body,
        held=max(16 * max_body, 256 << 20),
        pixels=max_pixels,
        examples=max_examples,
        steps=max_steps,
        samples=max_samples,
        gradients=max_gradients,
        seconds=max_seconds,
        waiting=max_queue,
    )
    images = image_options(
        preset=preset, mean=mean, std=std, scale=scale, size=size, layout=layout, grey=grey
    )
    _require_packages()
    from igonnx.serving.address import Address
    from igonnx.serving.handler import Serving
    from igonnx.serving.running import find_models
    from igonnx.serving.running import serve as run

    serving = Serving(
        labels=labels,
        images=images,
        limits=limits,
        max_batch=max_batch,
        workers=workers,
        output=output,
        wrt=wrt or [],
        apply=None if apply is None else apply.value,
        providers=provider or [],
        threads=threads,
        memory_limit=memory_limit,
    )
    address = Address(host=host, port=port, grpc_port=grpc_port or None, grace=grace)
    run(find_models(model, name), serving, address, log_level=log_level)


def _require_packages() -> None:
    """Raise `InputError` where the extra is not installed; KServe's import takes a second, so only here."""
    from importlib.util import find_spec

    missing = [name for name in ("kserve", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise InputError(f"igonnx serve needs {missing[0]}: pip install 'igonnx[serve]'")
