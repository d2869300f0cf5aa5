"""What `igonnx serve` does: load the models, serve them, end in good order."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from igonnx.errors import InputError
from igonnx.serving.handler import Handler, Serving
from igonnx.serving.served import Served
from igonnx.serving.sharing import Together

if TYPE_CHECKING:
    from igonnx.serving.address import Address

__all__ = ["find_models", "serve"]

_LOG = logging.getLogger("igonnx.serving")
_TURNS = 0.0005  # seconds for which a thread may keep Python to itself while others wait


def find_models(path: Path, name: str | None) -> dict[str, Path]:
    """The model files by the names that they are served under: one file, or those of a folder.

    In a folder, `digits.onnx` and `digits/model.onnx` are both "digits". Raises `InputError` where there are none, two
    of a name, or `name` is given for several.
    """
    if path.is_file():
        return {_checked_name(name or path.stem): path}
    if not path.is_dir():
        raise InputError(f"'{path}' does not exist; expected an ONNX file or a folder of them")
    found: dict[str, Path] = {}
    for file in sorted([*path.glob("*.onnx"), *path.glob("*/model.onnx")]):
        key = _checked_name(file.stem if file.parent == path else file.parent.name)
        if key in found:
            raise InputError(f"two models have the name '{key}': {found[key]} and {file}")
        found[key] = file
    if not found:
        raise InputError(f"'{path}' holds no ONNX files")
    if name is not None:
        if len(found) > 1:
            raise InputError(f"--name is for one model; '{path}' holds {len(found)}")
        found = {_checked_name(name): next(iter(found.values()))}
    return found


def serve(models: dict[str, Path], serving: Serving, address: Address, *, log_level: str) -> None:
    """Load and serve until told to stop, by SIGTERM or SIGINT."""
    from igonnx.serving import logs
    from igonnx.serving.metrics import Metrics

    with _no_arguments():
        from igonnx.serving.server import Server

    address.require_free()
    logs.configure(log_level)
    sys.setswitchinterval(_TURNS)
    metrics = Metrics()

    def told(served: Served) -> None:
        metrics.served(served)
        logs.tell(served)

    handlers: list[Handler] = []
    for name, path in models.items():

        def computed(verb: str, together: Together, seconds: float, name: str = name) -> None:
            metrics.computed(name, verb, together, seconds)

        handler = Handler.load(path, serving, name=name, told=told, computed=computed)
        metrics.add_model(name, handler.sha256, handler.count_waiting)
        fields = {"model": name, "file": str(path), "sha256": handler.sha256}
        _LOG.info("loaded", extra={"fields": fields})
        handlers.append(handler)
    # Of requests: the answer tells whether a tolerance was reached, and Python keeps every text that it has warned of.
    warnings.simplefilter("ignore")
    server = Server(handlers, address, serving.limits)
    _LOG.info("serving", extra={"fields": {"host": address.host, "port": address.port}})
    try:
        server.run()
    finally:
        for handler in handlers:
            handler.close(timeout=5.0)
    _LOG.info("ended")


@contextlib.contextmanager
def _no_arguments() -> Iterator[None]:
    """KServe reads the command line where it is imported, and takes what looks like its own options for them."""
    arguments, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = arguments


def _checked_name(name: str) -> str:
    """A name fit for a path of a URL, that is not another one's with `-explain`."""
    allowed = all(letter.isalnum() or letter in "._-" for letter in name)
    if not name or len(name) > 100 or not allowed or name.endswith("-explain"):
        raise InputError(
            f"a model cannot be served as '{name[:60]}': expected letters, digits, '.', '_' and '-', not ending in "
            "'-explain'; --name gives another one"
        )
    return name
