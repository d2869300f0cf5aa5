"""`igonnx compile`: write the explanation graph, which engines without Python load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from igonnx.cli.console import plain_warnings, results
from igonnx.cli.model_files import print_interface, print_written, write_model
from igonnx.cli.outputs import Outputs
from igonnx.errors import InputError

__all__ = ["run"]


def run(
    source: Path,
    written: str,
    *,
    output: str | None,
    wrt: Sequence[str],
    apply: str | None,
    straight_through: bool,
) -> None:
    """Write the graph, and print what it takes and gives."""
    import igonnx

    if not written:
        raise InputError("-o is empty, expected the path of an .onnx file")
    path = Path(written)
    with plain_warnings(), Outputs([source]) as outputs:
        temporary = outputs.reserve(path, suffix=".onnx")
        model = igonnx.compile(
            source,
            output=output,
            wrt=list(wrt) or None,
            apply=apply,
            straight_through=straight_through,
        )
        write_model(outputs, model, path, temporary, source)
    console = results()
    print_interface(console, model)
    print_written(console, path, source)
