"""Prints how igonnx's gradient does on each of the ONNX project's node tests.

    python tests/backend_nodes/report.py [--all] [--width N] [SUBSTRING...]

SUBSTRING picks tests by name. Without --all, tests that are right, that have nothing to compare or that onnxruntime
does not run are only counted.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from node_tests.suite import load
from node_tests.verdict import Outcome, judge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("substrings", nargs="*")
    parser.add_argument(
        "--all", action="store_true", help="also tests that are right or ineligible"
    )
    parser.add_argument("--width", type=int, default=200, help="characters of detail")
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    start = time.perf_counter()
    for name, test in load().items():
        if arguments.substrings and not any(part in name for part in arguments.substrings):
            continue
        verdict = judge(test)
        counts[verdict.outcome] += 1
        shown = verdict.outcome not in (Outcome.RIGHT, Outcome.INELIGIBLE, Outcome.NOT_RUN)
        if arguments.all or shown:
            print(  # noqa: T201
                f"{verdict.outcome:<10} {name:<60} {verdict.source:<9} {verdict.detail[: arguments.width]}",
                flush=True,
            )
    seconds = time.perf_counter() - start
    eligible = sum(counts.values()) - counts[Outcome.INELIGIBLE] - counts[Outcome.NOT_RUN]
    totals = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome)
    print(f"{eligible} eligible: {totals} ({seconds:.0f} s)")  # noqa: T201


if __name__ == "__main__":
    main()
