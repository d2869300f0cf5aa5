"""The table of results: one row per explained example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table
from rich.text import Text

from igonnx.cli.labels import Labels

if TYPE_CHECKING:
    from igonnx import Attribution

__all__ = ["Row", "percent", "probabilities", "rows_of", "table_of"]


@dataclass(frozen=True)
class Row:
    """What is known of one explained example; relative_error is the attribution's relative delta."""

    example: str
    target: tuple[int, ...] | None
    label: str
    probability: float | None
    score: float
    baseline_score: float
    delta: float
    relative_error: float
    steps: int
    of: str = "class"  # what the target is an index of
    unit: str = "gradient"  # of steps

    @property
    def class_index(self) -> str:
        """The target as it is written: '285', '3,5', or 'mask'."""
        return "mask" if self.target is None else ",".join(map(str, self.target)) or "-"

    @property
    def title(self) -> str:
        """One line for a heading: index and name of the class."""
        return (
            f"{self.class_index}  {self.label}" if self.label else f"{self.of} {self.class_index}"
        )

    @property
    def summary(self) -> str:
        """One line of numbers for below the heading."""
        parts = [] if self.probability is None else [f"probability {percent(self.probability)}"]
        parts += [
            f"score {self.score:.3g}, baseline {self.baseline_score:.3g}",
        ]
        if not np.isnan(self.relative_error):
            parts.append(f"completeness error {percent(self.relative_error)}")
        plural = "es" if self.unit.endswith("s") else "s"
        parts.append(f"{self.steps} {self.unit}{plural if self.steps != 1 else ''}")
        return "   \N{MIDDLE DOT}   ".join(parts)


def rows_of(
    attribution: Attribution,
    names: Sequence[str],
    labels: Labels,
    probability: Sequence[float | None],
    *,
    adds_up: bool = True,
    of: str = "class",
    unit: str = "gradient",
) -> list[Row]:
    """Make the row of each example of an attribution; without a completeness error where nothing is meant to add up.

    `of` is what the target is an index of, "class" or "neuron", and `unit` what steps are, such as "forward pass".
    """
    rows = []
    unknown = np.full(len(names), np.nan)
    delta, relative = (
        (attribution.delta, attribution.relative_delta) if adds_up else (unknown, unknown)
    )
    for index, name in enumerate(names):
        target = attribution.target[index]
        chosen = None if target is None else tuple(int(axis) for axis in np.atleast_1d(target))
        known = chosen is not None and len(chosen) == 1 and 0 <= chosen[0] < len(labels)
        rows.append(
            Row(
                example=name,
                target=chosen,
                label=labels[chosen[0]] if known and chosen else "",
                probability=probability[index],
                score=float(attribution.scores[index]),
                baseline_score=float(attribution.baseline_scores[index]),
                delta=float(delta[index]),
                relative_error=float(relative[index]),
                steps=int(attribution.steps_used[index]),
                of=of,
                unit=unit,
            )
        )
    return rows


def probabilities(
    output: NDArray[Any],
    targets: Sequence[tuple[int, ...] | None],
    apply: str | None,
) -> tuple[list[float | None], str]:
    """Read each target's probability from the model's output [N, classes], and say how it was found.

    That is the sigmoid where `apply` is "sigmoid"; the output as it is where its rows are
    distributions; the softmax where `apply` says that these are logits, or they look like it: three
    classes or more, with values outside [0, 1]. Other outputs have no probabilities: all None.
    """
    none: list[float | None] = [None] * len(targets)
    values = np.asarray(output, dtype=np.float64)
    if values.ndim != 2 or len(values) != len(targets) or any(t is None for t in targets):
        return none, ""
    classes = values.shape[1]
    logits = apply in ("softmax", "log_softmax") or (
        classes >= 3 and not ((values >= 0) & (values <= 1)).all()
    )
    if apply == "sigmoid":
        values, how = (1 + np.tanh(values / 2)) / 2, "sigmoid of the output"
    elif classes < 2:
        return none, ""
    elif (values >= 0).all() and np.allclose(values.sum(axis=1), 1, rtol=0, atol=1e-3):
        how = "the output as it is, rows add up to 1"
    elif not logits:
        return none, ""
    else:
        exponents = np.exp(values - values.max(axis=1, keepdims=True))
        values, how = exponents / exponents.sum(axis=1, keepdims=True), "softmax of the output"
    found: list[float | None] = []
    for row, target in zip(values, targets, strict=True):
        inside = target is not None and len(target) == 1 and -len(row) <= target[0] < len(row)
        found.append(float(row[target[0]]) if inside and target else None)
    return found, how


def table_of(rows: Sequence[Row]) -> Table:
    """Lay the rows out as a table."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("input")
    table.add_column(rows[0].of if rows else "class", justify="right", style="bold")
    named = any(row.label for row in rows)
    if named:
        table.add_column("name", style="bold")
    for heading in ("probability", "score", "baseline score", "completeness error", "steps"):
        table.add_column(heading, justify="right")
    for row in rows:
        cells = [row.example, row.class_index, *([row.label] if named else [])]
        cells += [
            "-" if row.probability is None else percent(row.probability),
            f"{row.score:.5g}",
            f"{row.baseline_score:.5g}",
            "-" if np.isnan(row.delta) else f"{row.delta:+.2e} ({percent(row.relative_error)})",
            str(row.steps),
        ]
        table.add_row(*map(Text, cells))
    return table


def percent(part: float) -> str:
    """Write a part as a percentage with three digits or so: 40.5 %, 0.21 %."""
    if not np.isfinite(part):
        return "-"
    value = 100 * part
    digits = 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} %"
