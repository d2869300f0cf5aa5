"""Peak memory, and the time to the first explanation: each from processes that do nothing else."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from typing import Any

from benchmarks.comparison import Setup
from benchmarks.materials import Material
from benchmarks.probe import STAGES
from benchmarks.process import NOTHING_REMEMBERED

__all__ = ["first_explanation", "peak_memory"]

_SECONDS = 1800


class _ProbeError(Exception):
    """The probe did not finish; one line."""


def peak_memory(setup: Setup, material: Material, steps: tuple[int, int]) -> dict[str, Any]:
    """Peak bytes of igonnx with few and many steps, and of Captum with few; {"igonnx": {steps: bytes}, "captum": ...}.

    A failure stands in the place of the number as text.
    """
    few, many = steps
    runs = (("igonnx", few), ("igonnx", many), ("captum", few))
    result: dict[str, Any] = {"igonnx": {}, "captum": {}}
    for program, count in runs:
        setup.say(f"{material.model}: peak memory of {program}, {count} steps")
        try:
            answer = _probe(setup, material, f"{program}-memory", count)
            result[program][str(count)] = answer["peak_bytes"]
        except _ProbeError as error:
            result[program][str(count)] = str(error)
    return result


def first_explanation(setup: Setup, material: Material) -> dict[str, Any]:
    """Median seconds of each stage until the first explanation of a fresh process, {"igonnx": {stage: ...}, ...}."""
    result: dict[str, Any] = {}
    for program in ("igonnx", "captum"):
        setup.say(f"{material.model}: first explanation of {program}")
        try:
            runs = [
                _probe(setup, material, f"{program}-first", material.steps)
                for _ in range(max(1, min(setup.rounds, 3)))
            ]
        except _ProbeError as error:
            result[program] = {"failure": str(error)}
            continue
        result[program] = {
            stage: statistics.median(run[stage] for run in runs)
            for stage in STAGES
            if stage in runs[0]
        }
    return result


def _probe(setup: Setup, material: Material, kind: str, steps: int) -> dict[str, Any]:
    place = [str(material.folder), material.model, str(material.size), str(material.steps)]
    command = [setup.pythons["main"], "-m", "benchmarks.probe", kind, *place]
    command += [str(setup.threads), str(steps)]
    try:
        done = subprocess.run(
            command,
            cwd=setup.root,
            env=os.environ | NOTHING_REMEMBERED,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _ProbeError(f"did not finish in {_SECONDS} s") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"]
        raise _ProbeError(lines[-1])
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
