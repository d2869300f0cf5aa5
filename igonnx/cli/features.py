"""Explanations that are no pictures, as a table of what mattered most."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table
from rich.text import Text

__all__ = ["feature_table"]

SHOWN = 10


def feature_table(
    values: NDArray[Any],
    features: NDArray[Any] | None = None,
    *,
    sum_last_axis: bool = False,
) -> Table:
    """List the elements of one example's attribution with the largest magnitudes.

    values: [...]; with `sum_last_axis` (embeddings [L, D]: a vector for each position) its sums
    over the last axis are listed. features: the values that were explained, or the ids of the
    positions, in the shape of what is listed.
    """
    contributions = np.asarray(values, dtype=np.float64)
    if sum_last_axis:
        contributions = contributions.sum(axis=-1)
    total = float(np.abs(contributions).sum())
    strongest = np.argsort(-np.abs(contributions), axis=None, kind="stable")[:SHOWN]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("position" if sum_last_axis else "feature", justify="right", style="bold")
    shown = features is not None and np.shape(features) == contributions.shape
    if shown:
        table.add_column("id" if sum_last_axis else "value", justify="right")
    table.add_column("contribution", justify="right")
    table.add_column("share", justify="right")
    for flat in strongest:
        index = np.unravel_index(flat, contributions.shape)
        contribution = float(contributions[index])
        cells = [",".join(str(int(axis)) for axis in index) or "-"]
        if shown and features is not None:
            cells.append(f"{features[index]:.6g}")
        share = abs(contribution) / total if total else 0.0
        table.add_row(*map(Text, [*cells, f"{contribution:+.4g}", f"{100 * share:.1f} %"]))
    return table
