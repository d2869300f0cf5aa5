"""The comparison of entries on one model: all open at once, checked, then timed in turn.

Nothing else computes while one entry is timed: the other processes sleep, which is watched. Rounds go through all
entries, each round starting with another one; ratios between entries are formed within a round, so that a machine that
slows down for a minute slows both sides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any

from benchmarks.entries import Entry
from benchmarks.machine import busy_seconds
from benchmarks.materials import Material
from benchmarks.process import WorkerError, WorkerProcess

__all__ = ["Setup", "compare"]

# Opening may compile a model, the first run too.
OPEN_SECONDS, RUN_SECONDS = 900.0, 900.0
# Threads of the entry before may go on spinning for some milliseconds, waiting for more to do.
PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class Setup:
    """What all parts of a benchmark run share."""

    pythons: Mapping[str, str]  # the interpreter of each environment
    threads: int
    rounds: int
    trials: int  # timings by which an entry's setting is chosen
    log: Path  # standard error of all workers
    root: Path  # the checkout, which workers run in
    say: Callable[[str], None]  # shows progress

    def worker(self, code: str, environment: str, material: Material) -> WorkerProcess:
        """Start the process of one entry."""
        place = [str(material.folder), material.model, str(material.size), str(material.steps)]
        return WorkerProcess(
            [
                self.pythons[environment],
                "-m",
                "benchmarks.worker",
                code,
                *place,
                str(self.threads),
            ],
            log=self.log,
            folder=self.root,
        )


@dataclass
class _Runner:
    """One entry under way, and what is known of it."""

    entry: Entry
    worker: WorkerProcess | None = None
    settings: tuple[int, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    errors: dict[int, float] = field(default_factory=dict)  # of the result, per setting
    trials: dict[int, float] = field(default_factory=dict)  # the shortest time per setting
    seconds: list[float] = field(default_factory=list)
    failure: str = ""

    def stop(self) -> None:
        """End the process."""
        if self.worker is not None:
            self.worker.stop()
            self.worker = None

    @property
    def best(self) -> int:
        """The setting with the shortest time."""
        return min(self.trials, key=lambda setting: self.trials[setting])

    def as_json(self) -> dict[str, Any]:
        """All of it, for the results' file."""
        if self.failure:
            return {"failure": self.failure, "versions": self.versions}
        return {
            "setting": self.best,
            "error": self.errors[self.best],
            "trials": self.trials,
            "seconds": self.seconds,
            "versions": self.versions,
        }


def compare(setup: Setup, material: Material, entries: Sequence[Entry]) -> dict[str, Any]:
    """Measure `entries` on one model.

    Returns {"entries": {name: {"setting", "error", "trials", "seconds" (one per round), "versions"} or {"failure"}},
    "idle_share", "foreign_share"}: the shares of the processors' time that waiting workers, and everything else on the
    machine, used while an entry was timed (None where the system does not tell).
    """
    runners = [_Runner(entry) for entry in entries]
    try:
        for runner in runners:
            _attempt(setup, runner, partial(_open, setup, runner, material))
        for runner in runners:
            _attempt(setup, runner, partial(_choose, setup, runner, material))
        watch = _Watch()
        for number in range(setup.rounds):
            setup.say(f"{material.model} {material.size}: round {number + 1} of {setup.rounds}")
            for index in range(len(runners)):
                runner = runners[(index + number) % len(runners)]
                waiting = [other for other in runners if other is not runner]
                _attempt(setup, runner, partial(_time, runner, waiting, watch))
    finally:
        for runner in runners:
            runner.stop()
    return {
        "entries": {runner.entry.name: runner.as_json() for runner in runners},
        **watch.shares(),
    }


def _attempt(setup: Setup, runner: _Runner, action: Callable[[], None]) -> None:
    """Run `action`; where it fails, the entry is out, and the others go on."""
    if runner.failure:
        return
    try:
        action()
    except WorkerError as error:
        runner.failure = shorten(str(error), 300, placeholder=" ...")
        runner.stop()
        setup.say(f"  {runner.entry.name} failed: {runner.failure}")


def _ask(runner: _Runner, request: dict[str, Any], timeout: float) -> dict[str, Any]:
    if runner.worker is None:
        raise WorkerError("the process has ended")
    return runner.worker.ask(request, timeout=timeout)


def _open(setup: Setup, runner: _Runner, material: Material) -> None:
    setup.say(f"{material.model} {material.size}: opening {runner.entry.name}")
    environment = runner.entry.environment
    if not Path(setup.pythons[environment]).exists():
        raise WorkerError(f"there is no {setup.pythons[environment]}: `make bench` creates it")
    runner.worker = setup.worker(runner.entry.code, environment, material)
    answer = _ask(runner, {"do": "open"}, OPEN_SECONDS)
    runner.settings, runner.versions = tuple(answer["settings"]), answer["versions"]


def _choose(setup: Setup, runner: _Runner, material: Material) -> None:
    """Check the result with every setting, which also warms up, and take the shortest of some times."""
    tolerance = runner.entry.tolerance or material.tolerance
    setup.say(f"{material.model} {material.size}: checking {runner.entry.name}")
    for setting in runner.settings:
        answer = _ask(runner, {"do": "check", "setting": setting}, RUN_SECONDS)
        error = answer["error_of_result"]
        if not error <= tolerance:  # not a number is not right either
            raise WorkerError(
                f"wrong result: off by {error:.2g} (relative); expected at most {tolerance:g}"
            )
        runner.errors[setting] = error
    for _ in range(setup.trials):
        for setting in runner.settings:
            seconds = _ask(runner, {"do": "time", "setting": setting}, RUN_SECONDS)["seconds"]
            runner.trials[setting] = min(seconds, runner.trials.get(setting, seconds))


def _time(runner: _Runner, waiting: Sequence[_Runner], watch: _Watch) -> None:
    time.sleep(PAUSE_SECONDS)
    watch.start(runner, waiting)
    seconds = float(_ask(runner, {"do": "time", "setting": runner.best}, RUN_SECONDS)["seconds"])
    watch.stop(runner, waiting)
    runner.seconds.append(seconds)


class _Watch:
    """Adds up who used the processors while entries were timed."""

    def __init__(self) -> None:
        self._available = self._idle = self._foreign = 0.0
        self._at_start = (0.0, 0.0, 0.0, 0.0)

    def start(self, runner: _Runner, waiting: Sequence[_Runner]) -> None:
        """Remember the clocks before an entry is timed."""
        self._at_start = self._clocks(runner, waiting)

    def stop(self, runner: _Runner, waiting: Sequence[_Runner]) -> None:
        """Add what has passed since."""
        available, own, idle, busy = (
            now - then
            for now, then in zip(self._clocks(runner, waiting), self._at_start, strict=True)
        )
        self._available += available
        self._idle += idle
        self._foreign += max(busy - own - idle, 0.0)

    @staticmethod
    def _clocks(runner: _Runner, waiting: Sequence[_Runner]) -> tuple[float, float, float, float]:
        busy, available = busy_seconds()
        own = runner.worker.processor_seconds() if runner.worker else 0.0
        idle = sum(other.worker.processor_seconds() for other in waiting if other.worker)
        return available, own, idle, busy

    def shares(self) -> dict[str, float | None]:
        """Both shares, of all processors' time."""
        if not self._available:
            return {"idle_share": None, "foreign_share": None}
        return {
            "idle_share": self._idle / self._available,
            "foreign_share": self._foreign / self._available,
        }
