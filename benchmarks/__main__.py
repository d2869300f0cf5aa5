"""Run the benchmarks: `python -m benchmarks --help`, or `make bench`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.comparison import Setup, compare
from benchmarks.entries import ENTRIES, MASKED, Entry
from benchmarks.machine import describe
from benchmarks.materials import MODELS, Material
from benchmarks.report import publish, quietness
from benchmarks.scaling import against_callers, against_size, against_steps
from benchmarks.single_runs import first_explanation, peak_memory
from benchmarks.tables import failures, not_run, tables

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("comparison", "masked", "memory", "first", "sizes", "steps", "callers")
SIZE = 224
SIZES = (112, 160, 224, 320)
SCALED = "efficientnet-lite0"  # whose cost is measured against steps, sizes and callers
PREPARE_SECONDS = 1800


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--entries", nargs="+", metavar="WORD", help="only those whose name has a WORD"
    )
    parser.add_argument("--skip", nargs="+", metavar="WORD", default=[], help="not those")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="1 round, 10 steps: does it all work?")
    parser.add_argument(
        "--output", type=Path, help="JSON file; default: benchmarks/results/DATE.json"
    )
    parser.add_argument("--cache", type=Path, default=ROOT / "benchmarks" / "cache")
    parser.add_argument(
        "--publish",
        action="store_true",
        help="write results/reference.json and docs/performance.md",
    )
    parser.add_argument(
        "--render",
        type=Path,
        metavar="JSON",
        help="measure nothing; show, and publish, old results",
    )
    parser.add_argument("--training-python", default=str(ROOT / ".venv-training/bin/python"))
    parser.add_argument("--openvino-python", default=str(ROOT / ".venv-openvino/bin/python"))
    given = parser.parse_args(arguments)
    if given.quick and given.publish:
        parser.error("--quick measures too little to --publish")
    if given.quick:
        given.rounds, given.steps = 1, 10
    if given.rounds < 1 or given.steps < 2 or given.threads < 1:
        parser.error("expected --rounds of at least 1, --steps of 2 and --threads of 1")
    return given


def chosen_entries(given: argparse.Namespace) -> list[Entry]:
    """The entries that the command line asks for."""
    return [
        entry
        for entry in ENTRIES
        if (not given.entries or any(word in entry.name for word in given.entries))
        and not any(word in entry.name for word in given.skip)
    ]


class Run:
    """One benchmark run: its results so far, saved after each part."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self._start = time.monotonic()
        results = ROOT / "benchmarks" / "results"
        results.mkdir(exist_ok=True)
        self.output = given.output or results / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
        self.setup = Setup(
            pythons={
                "main": sys.executable,
                "training": given.training_python,
                "openvino": given.openvino_python,
            },
            threads=given.threads,
            rounds=given.rounds,
            trials=1 if given.quick else 2,
            log=self.output.with_suffix(".log"),
            root=ROOT,
            say=self.say,
        )
        self.results: dict[str, Any] = {
            "format": 1,
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "settings": {name: getattr(given, name) for name in ("threads", "rounds", "steps")},
            "machine": describe(),
            "versions": {},
        }

    def say(self, text: str) -> None:
        """Show progress, with the minutes since the start."""
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        print(f"[{minutes:3d}:{seconds:02d}] {text}", flush=True)

    def save(self) -> None:
        """Write what there is."""
        self._collect_versions()
        self.output.write_text(json.dumps(self.results, indent=1) + "\n")

    def _collect_versions(self) -> None:
        for model in self.results.get("comparison", {}).values():
            for entry in model.get("entries", {}).values():
                for name, version in entry.get("versions", {}).items():
                    self.results["versions"].setdefault(name, version)

    def material(self, model: str, size: int = SIZE) -> Material:
        """The files of `model`, made where they are not there yet; `UnpreparedError` if that fails."""
        folder = self.given.cache / f"{model}-{size}"
        material = Material(folder, model, size, self.given.steps)
        if not material.is_ready:
            self.say(f"{model} {size}: building the network, its ONNX file and the right answer")
            command = [sys.executable, "-m", "benchmarks.materials", "--model", model]
            command += ["--size", str(size), "--steps", str(self.given.steps)]
            command += ["--folder", str(folder)]
            try:
                done = subprocess.run(
                    command,
                    cwd=ROOT,
                    capture_output=True,
                    text=True,
                    timeout=PREPARE_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise UnpreparedError(f"was not built in {PREPARE_SECONDS} s") from error
            if done.returncode != 0:
                lines = done.stderr.strip().splitlines() or [f"code {done.returncode}"]
                raise UnpreparedError(f"cannot be built: {lines[-1]}")
            material = Material(folder, model, size, self.given.steps)
        return material

    def per_model(self, part: str, measure: Callable[[Material], dict[str, Any]]) -> None:
        """Results of `part` for each model; one that cannot be built has a failure instead."""
        found = self.results[part] = {}
        for model in self.given.models:
            try:
                found[model] = measure(self.material(model))
            except UnpreparedError as error:
                self.say(f"{model}: {error}")
                if part == "comparison":
                    found[model] = {"failure": str(error)}
            self.save()

    def masked(self) -> None:
        """Methods that mask the input, one after the other."""
        try:
            material = self.material(SCALED)
            for pair in MASKED.values():
                found = compare(self.setup, material, pair)
                self.results.setdefault("masked", {}).setdefault("entries", {}).update(
                    found["entries"]
                )
                self.save()
        except UnpreparedError as error:
            self.say(f"{SCALED}: {error}")
            self.results["masked"] = {"failure": str(error)}

    def measure(self) -> None:
        """All parts that were asked for."""
        quick, parts = self.given.quick, self.given.parts
        if "comparison" in parts:
            entries = chosen_entries(self.given)
            self.per_model("comparison", lambda m: compare(self.setup, m, entries))
        if "masked" in parts:
            self.masked()
        if "memory" in parts:
            steps = (self.given.steps, 50 if quick else 1000)
            self.per_model("memory", lambda m: peak_memory(self.setup, m, steps))
        if "first" in parts:
            self.per_model("first", lambda m: first_explanation(self.setup, m))
        try:
            if "sizes" in parts:
                sizes = SIZES[:2] if quick else SIZES
                self.results["sizes"] = against_size(
                    self.setup, lambda size: self.material(SCALED, size), sizes
                )
            if "steps" in parts:
                most = 50 if quick else 1000
                material = self.material(SCALED)
                self.results["steps"] = against_steps(self.setup, material, most)
            if "callers" in parts:
                self.results["callers"] = against_callers(self.setup, self.material(SCALED))
        except UnpreparedError as error:
            self.say(f"{SCALED}: {error}")
        self.save()


class UnpreparedError(Exception):
    """The files of a model could not be made; one line."""


def show(results: dict[str, Any]) -> None:
    """Print the tables and the failures."""
    for table in tables(results):
        print(f"\n{table.plain()}")
    for line in failures(results):
        print(f"\nnot measured: {line}")
    for line in not_run(results):
        print(f"\n{line}")
    if quietness(results):
        print(f"\n{quietness(results)}")


def main() -> None:
    """Measure, show, and publish if that is asked for."""
    given = parsed(sys.argv[1:])
    if given.render:
        results = json.loads(given.render.read_text())
        show(results)
    else:
        run = Run(given)
        run.measure()
        results = run.results
        show(results)
        print(f"\n{run.output}")
    if given.publish:
        reference = ROOT / "benchmarks" / "results" / "reference.json"
        reference.write_text(json.dumps(results, indent=1) + "\n")
        publish(results, ROOT / "docs")


if __name__ == "__main__":
    main()
