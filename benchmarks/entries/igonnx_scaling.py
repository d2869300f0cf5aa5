"""How igonnx's time grows with the number of steps, and with the number of threads that call it at once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.entries import EXPLANATIONS
from benchmarks.entries.igonnx_calls import IntegratedGradients

__all__ = ["Callers", "Steps"]


class Steps(IntegratedGradients):
    """An explanation with as many steps as the setting says. What is checked has the material's number."""

    settings: tuple[int, ...] = (10, 25, 50, 100, 250, 500, 1000)

    def run(self, setting: int) -> None:
        """One explanation."""
        self._explain(setting)


class Callers(IntegratedGradients):
    """Eight explanations, by as many threads at once as the setting says, through one explainer."""

    settings: tuple[int, ...] = (1, 2, 4, 8)

    def error(self, setting: int) -> float:
        """The largest error that any of the callers sees."""
        with ThreadPoolExecutor(setting) as threads:
            return max(threads.map(super().error, range(setting)))

    def seconds(self, setting: int) -> float:
        """Until the last of the explanations is there."""
        with ThreadPoolExecutor(setting) as threads:
            list(threads.map(lambda _: None, range(setting)))  # the threads are started
            start = time.perf_counter()
            list(threads.map(self.run, range(EXPLANATIONS)))
            return time.perf_counter() - start
