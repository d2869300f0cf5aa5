"""What the measured seconds mean: medians, units of forward passes, ratios, all formed within rounds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.entries import FORWARD

__all__ = ["in_forwards", "median_ratio", "median_seconds", "spread"]

Entries = Mapping[str, Mapping[str, Any]]


def median_seconds(entries: Entries, name: str) -> float | None:
    """Seconds of a repetition; None where the entry failed or was not run."""
    seconds = _seconds(entries, name)
    return statistics.median(seconds) if seconds else None


def median_ratio(entries: Entries, name: str, other: str) -> float | None:
    """How many times as long as `other` the entry `name` takes: the median over rounds of the ratio in each."""
    ratios = _ratios(entries, name, other)
    return statistics.median(ratios) if ratios else None


def in_forwards(entries: Entries, name: str) -> float | None:
    """`median_ratio` to the forward passes: an explanation in units of as many forward passes as it has steps."""
    return median_ratio(entries, name, FORWARD)


def spread(entries: Entries, name: str) -> tuple[float, float] | None:
    """The smallest and the largest of the ratios to the forward passes over the rounds."""
    ratios = _ratios(entries, name, FORWARD)
    return (min(ratios), max(ratios)) if ratios else None


def _seconds(entries: Entries, name: str) -> Sequence[float]:
    seconds: Sequence[float] = entries.get(name, {}).get("seconds", ())
    return seconds


def _ratios(entries: Entries, name: str, other: str) -> list[float]:
    return [
        own / others
        for own, others in zip(_seconds(entries, name), _seconds(entries, other), strict=False)
    ]
