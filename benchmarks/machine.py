"""The machine that measures: what its processor is and can, and how busy it is. No names, no addresses."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

__all__ = ["busy_seconds", "describe", "one_line"]

# What decides how fast a matrix product can be.
_INSTRUCTION_SETS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_tile": "AMX",
    "amx_bf16": "AMX BF16",
    "asimd": "NEON",
    "sve": "SVE",
    "bf16": "BF16",
}


def describe() -> dict[str, Any]:
    """Processor, its instruction sets, cores, memory, system and Python."""
    cpu = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", cpu, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpu, re.MULTILINE)
    known = set(flags[1].split()) if flags else set()
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    return {
        "processor": model[1].strip() if model else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "instruction_sets": [name for flag, name in _INSTRUCTION_SETS.items() if flag in known],
        "memory_gib": round(int(memory[1]) / 2**20) if memory else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def one_line(machine: dict[str, Any]) -> str:
    """What `describe` found, as a sentence's beginning."""
    sets = ", ".join(machine["instruction_sets"]) or "no known vector instructions"
    memory = f", {machine['memory_gib']} GiB of memory" if machine["memory_gib"] else ""
    return f"{machine['processor']}, {machine['cores']} cores ({sets}){memory}, {machine['system']}"


def busy_seconds() -> tuple[float, float]:
    """Seconds that all processors together have worked, and have existed, since the start; zeros if unknown."""
    first = _read("/proc/stat").partition("\n")[0].split()
    if not first or first[0] != "cpu":
        return 0.0, 0.0
    # user nice system idle iowait irq softirq steal; what guests use is in user already.
    ticks = [int(number) for number in first[1:9]]
    clock = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / clock, sum(ticks) / clock


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
