"""What an explanation is: attributions, scores, how well they add up, and where the path was sampled."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.drawing import Drawn
from igonnx.errors import InputError

__all__ = ["Attribution", "Path", "relative_distance", "relative_error"]


@dataclass(frozen=True)
class Path:
    """The points of one example's path, in order of `alpha`; every field is float64 [points].

    `alpha` runs from 0 (baseline) to 1 (input), `weight` is the quadrature weight (0 where only the score was wanted),
    `score` what is explained, `slope` its derivative by alpha: the saturation curve and its change.
    """

    alpha: NDArray[np.float64]
    weight: NDArray[np.float64]
    score: NDArray[np.float64]
    slope: NDArray[np.float64]


@dataclass(frozen=True)
class Attribution(Drawn):
    """Attributions of N examples.

    values: array, or {name: array} when several tensors are explained; shape and layout of the explained tensor;
        float64 for a float64 model, else float32 (a contribution may exceed what float16 holds).
    delta: float64 [N], the sum of an example's values minus (score - baseline score): Captum's convergence delta. Where
        methods give all elements of a feature the feature's value, it is counted once.
    scores, baseline_scores: float64 [N], the explained output at the input and at the baseline.
    target: per example the index explained (a tuple, without the batch axis), or None for a mask.
    path: per example the points at which the gradient was evaluated.
    steps_used: int64 [N], gradient evaluations that count in the sum (Gauss-Legendre and middle evaluate two more,
        without weight, for the scores at the ends; a tolerance counts those that a memory limit made it repeat); of
        methods that need none, forward passes.
    error_estimate: float64 [N], estimated relative L2 error of the values, where the method estimates it; else None.
    method: the method's name and settings, for the record.
    correction: float64 [N], what `exact_sum` added to the values to make them add up, as a share of each one's size
        (so a value v was v / (1 + share) if positive, v / (1 - share) if negative) and, the same number, as a share of
        all of them (relative L2); None where it was not asked for.
    r_squared: float64 [N], how much of the variation of the scores the model accounts for that a method fitted to them
        (LIME's, weighted as it was fitted; 1: all of it); else None.
    """

    values: NDArray[Any] | dict[str, NDArray[Any]]
    delta: NDArray[np.float64]
    scores: NDArray[np.float64]
    baseline_scores: NDArray[np.float64]
    target: list[tuple[int, ...] | None]
    path: list[Path]
    steps_used: NDArray[np.int64]
    error_estimate: NDArray[np.float64] | None = None
    method: str = "integrated_gradients"
    correction: NDArray[np.float64] | None = None
    r_squared: NDArray[np.float64] | None = None

    @property
    def relative_delta(self) -> NDArray[np.float64]:
        """The completeness error as a share of the change in score, float64 [N]; see `relative_error`."""
        arrays = self.values.values() if isinstance(self.values, Mapping) else [self.values]
        totals = np.zeros(len(self.delta))
        for array in arrays:
            axes = tuple(range(1, array.ndim))
            totals += np.abs(array).sum(axis=axes, dtype=np.float64)
        return relative_error(self.delta, self.scores - self.baseline_scores, totals)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to a NumPy .npz archive; the file appears complete or not at all.

        Arrays: `values` (or `values:<name>` per tensor), `delta`, `scores`, `baseline_scores`, `steps_used`, `method`,
        `target` (int64 [N, axes], absent for masks), `error_estimate`, `correction` and `r_squared` where there are
        any, and per example i `path_<i>` float64 [4, points]: alpha, weight, score, slope. Raises `InputError` if it
        cannot be written.
        """
        arrays: dict[str, Any] = {
            "delta": self.delta,
            "scores": self.scores,
            "baseline_scores": self.baseline_scores,
            "steps_used": self.steps_used,
            "method": np.array(self.method),
        }
        if isinstance(self.values, Mapping):
            arrays.update({f"values:{name}": array for name, array in self.values.items()})
        else:
            arrays["values"] = self.values
        if all(index is not None for index in self.target):
            arrays["target"] = np.array(self.target, dtype=np.int64)
        if self.error_estimate is not None:
            arrays["error_estimate"] = self.error_estimate
        if self.correction is not None:
            arrays["correction"] = self.correction
        if self.r_squared is not None:
            arrays["r_squared"] = self.r_squared
        for i, points in enumerate(self.path):
            arrays[f"path_{i}"] = np.stack(
                [points.alpha, points.weight, points.score, points.slope]
            )
        _write_archive(FilePath(path), arrays)

    def of(self, name: str | None = None) -> NDArray[Any]:
        """The values of one explained tensor; the name may be left out when there is one. Raises `InputError`."""
        if not isinstance(self.values, Mapping):
            return self.values
        if name is None or name not in self.values:
            raise InputError(
                f"name is {name!r}; expected one of {', '.join(map(repr, self.values))}"
            )
        return self.values[name]

    def __repr__(self) -> str:
        """One line, of any number of values."""
        from igonnx.visual.summary import short

        return short(self)

    def __str__(self) -> str:
        """A table of the first examples, and the first one's picture in characters; less than a screen per tensor."""
        from igonnx.visual.summary import page

        return page(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from igonnx.visual.notebook import attribution_html

        return attribution_html(self)

    def _repr_png_(self) -> bytes | None:
        """The same as a picture, where there is one and Matplotlib is installed."""
        from igonnx.visual.notebook import attribution_png

        return attribution_png(self)


def relative_error(
    delta: NDArray[np.float64], change: NDArray[np.float64], total: NDArray[np.float64]
) -> NDArray[np.float64]:
    """|delta| as a share of |change|, the change in score; all float64 [N].

    `total` is the sum of the absolute contributions. Where they cancel almost to nothing, so that the change is less
    than a ten-thousandth of it, that ten-thousandth is the measure: a share of next to nothing says nothing.
    """
    error, measure = np.abs(delta), np.maximum(np.abs(change), 1e-4 * total)
    return np.divide(error, measure, out=np.where(error > 0, np.inf, error), where=measure > 0)


def relative_distance(a: Attribution, b: Attribution) -> NDArray[np.float64]:
    """L2 distance of the values of `a` and `b` per example, over all explained tensors, as a share of the size of `b`.

    Float64 [N]; zero where both are zero, infinite where only `b` is.
    """
    difference, size = np.zeros((2, len(b.scores)))
    for ours, theirs in zip(_tensors(a), _tensors(b), strict=True):
        rows = theirs.reshape(len(theirs), -1).astype(np.float64)
        size += np.square(rows).sum(axis=1)
        difference += np.square(ours.reshape(rows.shape) - rows).sum(axis=1)
    ratio = np.divide(difference, size, out=np.where(difference > 0, np.inf, 0.0), where=size > 0)
    return np.asarray(np.sqrt(ratio))


def _tensors(attribution: Attribution) -> list[NDArray[Any]]:
    values = attribution.values
    return list(values.values()) if isinstance(values, Mapping) else [values]


def _write_archive(path: FilePath, arrays: Mapping[str, Any]) -> None:
    try:
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"
        )
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, **arrays)
        FilePath(temporary).chmod(0o666 & ~_umask())
        FilePath(temporary).replace(path)
    except BaseException as error:
        FilePath(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
