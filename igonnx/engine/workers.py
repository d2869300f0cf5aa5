"""How the threads of a CPU are shared out: among rows first, and within the operators of a row only then.

Rows of a path are independent. On one thread each they wait for nobody, while threads within an operator meet at its
end, hundreds of times in a gradient, and each activation stays in the cache of one core.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Workers", "physical_cores", "shared_out"]

MOST_LANES = 8


@dataclass(frozen=True)
class Workers:
    """`runs_at_once` runs of the runtime, `lanes` of them for one call, on `threads` threads each (0: its choice)."""

    threads: int = 0
    lanes: int = 1
    runs_at_once: int = 1


def shared_out(threads: int | None) -> Workers:
    """Workers that keep `threads` threads busy for one call, and all processors for several; None: one per core."""
    cores = physical_cores()
    wanted = threads or cores
    # More lanes would leave some of them idle at the end of a usual call of 50 rows, and take more memory.
    lanes = min(wanted, MOST_LANES)
    each = wanted // lanes
    # Threads that the caller counts are for one call: others may use the rest of the machine.
    at_once = max(lanes, cores // each) if threads else lanes
    return Workers(each, lanes, at_once)


@cache
def physical_cores() -> int:
    """Physical cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    if affinity is None:
        return os.cpu_count() or 1
    processors = affinity(0)
    siblings = set()
    for processor in processors:
        path = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
        try:
            siblings.add(path.read_text(encoding="ascii"))
        except OSError:
            return len(processors)
    return len(siblings)
