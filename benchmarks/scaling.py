"""Cost against one thing that varies: image size, number of steps, number of concurrent callers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.comparison import RUN_SECONDS, Setup, compare
from benchmarks.entries import CAPTUM, ENTRIES, FORWARD, IGONNX
from benchmarks.materials import Material
from benchmarks.process import WorkerError

__all__ = ["against_callers", "against_size", "against_steps"]


def against_size(
    setup: Setup, material_of: Callable[[int], Material], sizes: tuple[int, ...]
) -> dict[str, Any]:
    """`compare` of forward passes, igonnx and Captum for each image size; {size: what `compare` returns}."""
    chosen = [entry for entry in ENTRIES if entry.name in (FORWARD, IGONNX, CAPTUM)]
    return {str(size): compare(setup, material_of(size), chosen) for size in sizes}


def against_steps(setup: Setup, material: Material, most: int) -> dict[str, Any]:
    """Seconds of an explanation per number of steps up to `most`, {steps: [seconds of each round]}."""
    return _vary(setup, material, "igonnx_scaling:Steps", lambda steps: steps <= most)


def against_callers(setup: Setup, material: Material) -> dict[str, Any]:
    """Seconds of eight explanations per number of threads that ask for them, {callers: [seconds of each round]}."""
    return _vary(setup, material, "igonnx_scaling:Callers", lambda _: True)


def _vary(
    setup: Setup, material: Material, code: str, wanted: Callable[[int], bool]
) -> dict[str, Any]:
    setup.say(f"{material.model} {material.size}: {code.rpartition(':')[2].lower()}")
    worker = setup.worker(code, "main", material)
    try:
        settings = worker.ask({"do": "open"}, timeout=RUN_SECONDS)["settings"]
        chosen = [setting for setting in settings if wanted(setting)]
        for setting in chosen:
            request = {"do": "check", "setting": setting}
            error = worker.ask(request, timeout=RUN_SECONDS)["error_of_result"]
            if not error <= material.tolerance:
                return {"failure": f"wrong result: off by {error:.2g} (relative)"}
        seconds: dict[str, list[float]] = {str(setting): [] for setting in chosen}
        for _ in range(setup.rounds):
            for setting in chosen:
                request = {"do": "time", "setting": setting}
                answer = worker.ask(request, timeout=RUN_SECONDS)
                seconds[str(setting)].append(answer["seconds"])
    except WorkerError as error:
        return {"failure": str(error)}
    finally:
        worker.stop()
    return {"seconds": seconds}
