"""What is told of a part, and of all of them: counts, the worst rows, sums by class, some pictures.

The page of a run is made of these alone: tables of a large data set are never read again.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.scale.folder import write_whole
from igonnx.scale.listing import row_id
from igonnx.scale.results import Explained, Failed

__all__ = [
    "DECADES",
    "ClassSum",
    "PartSummary",
    "Shown",
    "Summary",
    "read_summary",
    "write_summary",
]

WORST, SAMPLES, ERRORS = 24, 24, 50  # told on the page
DECADES = tuple(10.0**power for power in range(-7, 1))  # of relative completeness errors


@dataclass(frozen=True)
class Shown:
    """A row told on the page, with its picture and the overlay as PNG files where there are any."""

    id: str
    class_name: str
    score: float
    relative_error: float  # NaN: none
    steps: int
    pictures: tuple[bytes, ...] = ()


@dataclass
class ClassSum:
    """Rows of one class: how many, the sum of their scores, and of their attributions as a map [H, W] or None."""

    name: str
    count: int = 0
    score: float = 0.0
    heat: NDArray[np.float32] | None = None

    def add(self, count: int, score: float, heat: NDArray[np.float32] | None) -> None:
        """Add the sums of further rows; maps of another shape, where sizes are free, are left out."""
        self.count += count
        self.score += score
        if self.heat is None:
            self.heat = None if heat is None else heat.copy()
        elif heat is not None and heat.shape == self.heat.shape:
            self.heat += heat


@dataclass
class PartSummary:
    """What one part tells. seconds: of its stages; steps: gradients; errors: (id, stage, reason)."""

    rows: int = 0
    failed: int = 0
    steps: int = 0
    unconverged: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    histogram: list[int] = field(default_factory=lambda: [0] * (len(DECADES) + 1))
    reasons: dict[str, int] = field(default_factory=dict)
    errors: list[tuple[str, str, str]] = field(default_factory=list)
    worst: list[Shown] = field(default_factory=list)
    samples: list[Shown] = field(default_factory=list)
    classes: dict[str, ClassSum] = field(default_factory=dict)

    def add_failed(self, failed: Sequence[Failed]) -> None:
        """Count rows that were not explained."""
        self.failed += len(failed)
        self.errors += [(row_id(one.row), one.stage, one.reason) for one in failed[:ERRORS]]
        counts = Counter(one.stage for one in failed)
        self.reasons = dict(Counter(self.reasons) + counts)

    def add_explained(
        self,
        explained: Explained,
        heat: NDArray[np.float32] | None,
        *,
        tolerance: float | None,
    ) -> None:
        """Count one row that was."""
        self.rows += 1
        self.steps += explained.steps
        error, estimate = explained.relative_error, explained.error_estimate
        if not np.isnan(error):
            self.histogram[int(np.searchsorted(DECADES, error))] += 1
        if tolerance is not None:
            self.unconverged += bool(error > tolerance or estimate > tolerance)
        key = ",".join(map(str, explained.target)) or "-"
        self.classes.setdefault(key, ClassSum(explained.class_name)).add(1, explained.score, heat)


@dataclass
class Summary(PartSummary):
    """What all parts tell together."""

    parts: int = 0

    def merge(self, part: PartSummary) -> None:
        """Add a part; of rows it tells one by one, the worst, and samples of every part in turn, are kept."""
        self.parts += 1
        self.rows += part.rows
        self.failed += part.failed
        self.steps += part.steps
        self.unconverged += part.unconverged
        self.seconds = dict(Counter(self.seconds) + Counter(part.seconds))
        self.reasons = dict(Counter(self.reasons) + Counter(part.reasons))
        self.histogram = [a + b for a, b in zip(self.histogram, part.histogram, strict=True)]
        self.errors = (self.errors + part.errors)[:ERRORS]
        self.worst = worst_of(self.worst + part.worst)
        self.samples = _thinned(self.samples + part.samples)
        for key, one in part.classes.items():
            self.classes.setdefault(key, ClassSum(one.name)).add(one.count, one.score, one.heat)


def worst_of(shown: Iterable[Shown], most: int = WORST) -> list[Shown]:
    """Those of the largest completeness errors, the largest first; those without one left out."""
    known = [one for one in shown if not np.isnan(one.relative_error)]
    return sorted(known, key=lambda one: (-one.relative_error, one.id))[:most]


def _thinned(shown: list[Shown]) -> list[Shown]:
    """Every second one, until there are few."""
    while len(shown) > 2 * SAMPLES:
        shown = shown[::2]
    return shown


def write_summary(path: Path, part: PartSummary) -> None:
    """Write what a part tells: JSON and arrays in an .npz file."""
    arrays: dict[str, NDArray[Any]] = {}

    def shown(rows: Sequence[Shown], kind: str) -> list[Any]:
        told = []
        for number, one in enumerate(rows):
            names = [f"{kind}{number}-{index}" for index in range(len(one.pictures))]
            for name, picture in zip(names, one.pictures, strict=True):
                arrays[name] = np.frombuffer(picture, np.uint8)
            told.append([one.id, one.class_name, one.score, one.relative_error, one.steps, names])
        return told

    classes = []
    for number, (key, one) in enumerate(part.classes.items()):
        name = "" if one.heat is None else f"class{number}"
        if one.heat is not None:
            arrays[name] = one.heat
        classes.append([key, one.name, one.count, one.score, name])
    told = {
        "rows": part.rows,
        "failed": part.failed,
        "steps": part.steps,
        "unconverged": part.unconverged,
        "seconds": part.seconds,
        "histogram": part.histogram,
        "reasons": part.reasons,
        "errors": part.errors,
        "worst": shown(part.worst, "worst"),
        "samples": shown(part.samples, "sample"),
        "classes": classes,
    }
    file = io.BytesIO()
    text = np.frombuffer(json.dumps(told).encode(), np.uint8)
    np.savez(file, allow_pickle=False, **{"told": text, **arrays})
    write_whole(path, lambda temporary: temporary.write_bytes(file.getvalue()))


def read_summary(path: Path) -> PartSummary:
    """Read what `write_summary` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        told = json.loads(arrays["told"].tobytes())

        def shown(rows: Sequence[Any]) -> list[Shown]:
            return [
                Shown(
                    known, name, score, error, steps, tuple(arrays[one].tobytes() for one in ones)
                )
                for known, name, score, error, steps, ones in rows
            ]

        worst, samples = shown(told.pop("worst")), shown(told.pop("samples"))
        classes = {
            key: ClassSum(name, count, score, arrays[heat] if heat else None)
            for key, name, count, score, heat in told.pop("classes")
        }
        errors = [(known, stage, reason) for known, stage, reason in told.pop("errors")]
        return PartSummary(**told, errors=errors, worst=worst, samples=samples, classes=classes)
