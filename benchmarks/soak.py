"""Ten thousand requests of all kinds through one explainer: memory must not grow, and nobody may be forgotten.

    python -m benchmarks.soak [--requests 10000] [--callers 4]

Threads explain handwritten digits with targets, baselines and numbers of steps drawn at random; some calls are
cancelled, some have a deadline that they miss. Resident memory is read after each tenth of the requests. Ends with
status 1 if it grew by more than 16 MB after the first tenth, or if a result differs from that of a lone caller.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import igonnx
from igonnx.models import digits

GROWTH = 16 << 20  # bytes


def resident() -> int:
    """Bytes of memory that this process holds (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Caller:
    """One thread's requests, and how they ended."""

    def __init__(self, explainer: igonnx.Explainer, seed: int) -> None:
        self.explainer = explainer
        self.alone = igonnx.Explainer(digits.load(), batch_size=8, threads=1)
        self.images = digits.test_set()[0]
        self.random = random.Random(seed)
        self.ends: Counter[str] = Counter()

    def explain(self, count: int) -> None:
        """Make `count` requests."""
        for _ in range(count):
            kind = self.random.choice(["plain"] * 8 + ["cancelled", "late"])
            try:
                getattr(self, kind)()
                self.ends["done"] += 1
            except igonnx.CancelledError:
                self.ends["cancelled"] += 1
            except igonnx.DeadlineError:
                self.ends["late"] += 1

    def plain(self) -> None:
        """A request that ends by itself; one in fifty is checked against a lone caller."""
        first = self.random.randrange(len(self.images) - 3)
        images = self.images[first : first + self.random.randint(1, 3)]
        options: dict[str, Any] = {
            "target": self.random.randrange(10),
            "steps": self.random.choice([2, 5, 10, 20]),
            "baseline": self.random.choice([None, 0.5]),
        }
        found = self.explainer.integrated_gradients(images, **options)
        if self.random.random() < 0.02:
            wanted = self.alone.integrated_gradients(images, **options).of()
            error = np.abs(found.of() - wanted).max() / np.abs(wanted).max()
            if error > 1e-4:
                raise SystemExit(f"a result differs by {error:.1e} from that of a lone caller")

    def cancelled(self) -> None:
        """A request that another thread stops, if it is not done before."""
        token = igonnx.CancelToken()
        timer = threading.Timer(self.random.random() * 0.02, token.cancel)
        timer.start()
        try:
            self.explainer.integrated_gradients(
                self.images[:1], target=1, steps=2000, rule="middle", cancel=token
            )
        finally:
            timer.join()

    def late(self) -> None:
        """A request with little time."""
        self.explainer.integrated_gradients(
            self.images[:1],
            target=1,
            steps=2000,
            rule="middle",
            timeout=0.001 + self.random.random() * 0.02,
        )


def soak(requests: int, callers: int) -> int:
    """Run it all; return the exit status."""
    explainer = igonnx.Explainer(digits.load(), batch_size=8, threads=1, queue_limit=8)
    everybody = [Caller(explainer, seed) for seed in range(callers)]
    start, levels = time.perf_counter(), []
    for part in range(1, 11):
        with ThreadPoolExecutor(callers) as pool:
            for call in [
                pool.submit(each.explain, requests // 10 // callers) for each in everybody
            ]:
                call.result()
        levels.append(resident())
        ends = sum((each.ends for each in everybody), Counter())
        print(
            f"{part * 10:3}%  {time.perf_counter() - start:6.1f} s  {levels[-1] / 2**20:7.1f} MB  {dict(ends)}",
            flush=True,
        )
    growth = levels[-1] - levels[0]
    print(f"resident memory grew by {growth / 2**20:.1f} MB after the first tenth")
    return int(growth > GROWTH)


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--callers", type=int, default=4)
    arguments = parser.parse_args()
    return soak(arguments.requests, arguments.callers)


if __name__ == "__main__":
    sys.exit(main())
