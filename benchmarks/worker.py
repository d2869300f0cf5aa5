"""The process of one entry: opens it, checks it, and takes the time of one repetition each time it is asked.

    python -m benchmarks.worker MODULE:CLASS FOLDER MODEL SIZE STEPS THREADS

One request in JSON per line comes in, one answer per line goes out: {"do": "open"}, {"do": "check", "setting": 10},
{"do": "time", "setting": 10}. Between two requests the process sleeps in a read. What libraries print goes to the
standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from benchmarks.entries.measured import Measured
from benchmarks.materials import Material

__all__ = ["serve"]

_PACKAGES = (
    "captum",
    "igonnx",
    "numpy",
    "onnx",
    "onnx-ad",
    "onnxruntime",
    "onnxruntime-openvino",
    "onnxruntime-training-cpu",
    "openvino",
    "torch",
)


class Server:
    """Answers the requests for one entry."""

    def __init__(self, code: str, material: Material, threads: int) -> None:
        self._code = code
        self._material = material
        self._threads = threads
        self._entry: Measured | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What `request` asks for; a failure of the entry is an answer too."""
        try:
            return self._answer(request)
        # Whatever a measured program raises is its result: the line in the table.
        except Exception as error:
            return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "open":
            module, name = self._code.split(":")
            loaded = importlib.import_module(f"benchmarks.entries.{module}")
            self._entry = getattr(loaded, name)(self._material, self._threads)
            return {"settings": self._entry.settings, "versions": _versions()}
        if self._entry is None:
            raise RuntimeError("the entry was not opened")
        if request["do"] == "check":
            return {"error_of_result": self._entry.error(request["setting"])}
        return {"seconds": self._entry.seconds(request["setting"])}


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def serve(server: Server, requests: TextIO, answers: TextIO) -> None:
    """Answer line by line until the requests end."""
    for line in requests:
        print(json.dumps(server.answer(json.loads(line))), file=answers, flush=True)


def _take_over_output() -> TextIO:
    """The standard output for answers alone; from now on, what anybody prints goes to the standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def main() -> None:
    """Serve one entry, named by the arguments."""
    code, folder, model, size, steps, threads = sys.argv[1:]
    warnings.simplefilter("ignore")
    answers = _take_over_output()
    material = Material(Path(folder), model, int(size), int(steps))
    serve(Server(code, material, int(threads)), sys.stdin, answers)


if __name__ == "__main__":
    main()
