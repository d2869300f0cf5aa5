"""A fresh process that explains once: its peak memory, or where the time until the first explanation goes.

    python -m benchmarks.probe KIND FOLDER MODEL SIZE STEPS THREADS EXPLAINED

prints one line of JSON. KIND is igonnx-memory, captum-memory, igonnx-first or captum-first; STEPS those of the prepared
answer, EXPLAINED those of the explanation.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.materials import Material

__all__ = ["PARTS", "STAGES"]

STAGES = ("import", "load", "open the model", "build the graph", "create its session", "run")
# The parts of an explainer's first call that are worth telling apart. What is none of these is counted as "run".
PARTS = {
    "open the model": (("igonnx.engine.forward", "Forward.__init__"),),
    "build the graph": (
        ("igonnx.preparation", "simplified"),
        ("igonnx.preparation", "build_row_gradient"),
        ("igonnx.preparation", "build_explanation_graph"),
    ),
    "create its session": (("igonnx.engine.native", "NativeEngine.__init__"),),
}


def _peak_bytes() -> int:
    """The most physical memory that this process has held at once.

    The kernel's own mark (VmHWM); getrusage would start with that of the process that started this one.
    """
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    if found is None:
        raise OSError("/proc/self/status has no VmHWM")
    return int(found[1]) * 1024


def _timed_parts() -> dict[str, float]:
    """Wrap the functions of `PARTS` so that they add their seconds to the dictionary that is returned."""
    seconds = dict.fromkeys(PARTS, 0.0)
    for part, places in PARTS.items():
        for module, path in places:
            owner: Any = importlib.import_module(module)
            *classes, name = path.split(".")
            for outer in classes:
                owner = getattr(owner, outer)
            setattr(owner, name, _adding_time(getattr(owner, name), seconds, part))
    return seconds


def _adding_time(
    function: Callable[..., Any], seconds: dict[str, float], part: str
) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            seconds[part] += time.perf_counter() - start

    return timed


def _igonnx(material: Material, threads: int, steps: int) -> dict[str, float]:
    x, target = material.x, material.target
    start = time.perf_counter()
    import igonnx

    parts = _timed_parts()  # imports what the first call would import
    imported = time.perf_counter()
    explainer = igonnx.Explainer(material.onnx_path, threads=threads)
    loaded = time.perf_counter()
    explainer.integrated_gradients(x, target=target, steps=steps)
    done = time.perf_counter()
    rest = done - loaded - sum(parts.values())
    return {"import": imported - start, "load": loaded - imported, **parts, "run": rest}


def _captum(material: Material, threads: int, steps: int) -> dict[str, float]:
    start = time.perf_counter()
    from benchmarks.entries.captum_calls import IntegratedGradients

    imported = time.perf_counter()
    method = IntegratedGradients(material, threads)
    loaded = time.perf_counter()
    method.attribute(10, steps)
    done = time.perf_counter()
    return {"import": imported - start, "load": loaded - imported, "run": done - loaded}


def main() -> None:
    """Run the probe that the arguments name."""
    kind, folder, model, size, steps, threads, explained = sys.argv[1:]
    warnings.simplefilter("ignore")
    program, _, what = kind.partition("-")
    probe = {"igonnx": _igonnx, "captum": _captum}[program]
    material = Material(Path(folder), model, int(size), int(steps))
    stages = probe(material, int(threads), int(explained))
    result: dict[str, Any] = {"peak_bytes": _peak_bytes()} if what == "memory" else stages
    print(json.dumps(result))


if __name__ == "__main__":
    main()
