"""The two stages of a run: tasks that read parts, and actors with an explainer that explain and write them."""

from __future__ import annotations

import io
import json
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution
from igonnx.errors import Error, ToleranceWarning
from igonnx.model import TensorInfo
from igonnx.scale.folder import Attempts, Folder, write_whole
from igonnx.scale.job import Job
from igonnx.scale.listing import Row, row_id
from igonnx.scale.pictures import class_map, overlay_name, overlay_of, png, thumbnail
from igonnx.scale.reading import read_row
from igonnx.scale.results import Explained, Failed, write_errors, write_rows
from igonnx.scale.summary import PartSummary, Shown, worst_of, write_summary

__all__ = ["ExplainPart", "read_part"]

KILLED = "a worker died over it"  # and on the rows with it, and then over it alone
REASON = 1000  # characters of one
SHOWN, WORST = 4, 2  # rows of a part that the page may show: samples, and the worst
SAMPLED = 24  # parts of which it shows samples, about

Batch = Mapping[str, NDArray[Any]]  # of Ray Data: columns


@dataclass
class ReadRows:
    """The rows of a part that could be read, in groups of one shape, and those that could not.

    groups: [(rows, {input: [rows, ...]})].
    """

    groups: list[tuple[list[Row], dict[str, NDArray[Any]]]] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    seconds: float = 0.0

    def pack(self) -> bytes:
        """The same as bytes, which travel between workers whatever shapes and types there are."""
        arrays: dict[str, NDArray[Any]] = {}
        groups = []
        for number, (rows, inputs) in enumerate(self.groups):
            groups.append([rows, list(inputs)])
            arrays.update({f"{number}-{i}": x for i, x in enumerate(inputs.values())})
        told = {
            "groups": groups,
            "failed": [[one.row, one.stage, one.reason] for one in self.failed],
            "seconds": self.seconds,
        }
        file = io.BytesIO()
        text = np.frombuffer(json.dumps(told).encode(), np.uint8)
        np.savez(file, allow_pickle=False, **{"told": text, **arrays})
        return file.getvalue()

    @classmethod
    def unpack(cls, data: bytes) -> ReadRows:
        """What `pack` packed."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            told = json.loads(arrays["told"].tobytes())
            groups = [
                (
                    [(file, row) for file, row in rows],
                    {name: arrays[f"{number}-{i}"] for i, name in enumerate(names)},
                )
                for number, (rows, names) in enumerate(told["groups"])
            ]
        failed = [Failed((row[0], row[1]), stage, why) for row, stage, why in told["failed"]]
        return cls(groups, failed, told["seconds"])


def read_part(
    batch: Batch, *, job: Job, folder: Folder, infos: Sequence[TensorInfo]
) -> dict[str, Any]:
    """Read the rows of one part, for `map_batches`: {"part": [number]} to {"part": [number], "rows": [bytes]}."""
    part = int(batch["part"][0])
    started = time.perf_counter()
    read = ReadRows()
    alike: dict[tuple[Any, ...], list[tuple[Row, dict[str, NDArray[Any]]]]] = {}
    with Attempts(folder, part, "read") as attempts:
        for number, row in enumerate(folder.rows_of(part)):
            if attempts.careful and not attempts.survived(number):
                read.failed.append(Failed(row, "read", KILLED))
                continue
            try:
                arrays = read_row(job, infos, row)
            except Exception as error:  # decoders raise anything on damaged files; the others go on
                read.failed.append(Failed(row, "read", _reason(error)))
            else:
                shapes = tuple(array.shape for array in arrays.values())
                alike.setdefault(shapes, []).append((row, arrays))
    for members in alike.values():
        rows, several = zip(*members, strict=True)
        read.groups.append((list(rows), {name: _joined(several, name) for name in several[0]}))
    read.seconds = time.perf_counter() - started
    return {"part": [part], "rows": np.array([read.pack()], dtype=object)}


class ExplainPart:
    """An explainer that takes parts, for `map_batches`: explains their rows, and writes their files."""

    def __init__(self, job: Job, folder: Folder, parts: int = 1) -> None:
        """Open the model; raises `ModelError` where it is not the one that the run began with.

        `parts` of the run: of many, only some show samples of their rows, as the page has room for few.
        """
        self._job = job
        self._sampled = max(1, parts // SAMPLED)
        self._folder = folder
        self._explainer = job.explainer()

    def __call__(self, batch: Batch) -> dict[str, Any]:
        """{"part": [number], "rows": [bytes of `ReadRows`]} to {"part", "explained", "failed"}, once it is written."""
        part = int(batch["part"][0])
        read = ReadRows.unpack(batch["rows"][0])
        count = sum(len(rows) for rows, _ in read.groups) + len(read.failed)
        if not self._folder.state(part).exists():
            with Attempts(self._folder, part, "explain") as attempts:
                self._explain_and_write(part, read, attempts)
        return {"part": [part], "rows": [count]}

    def _explain_and_write(self, part: int, read: ReadRows, attempts: Attempts) -> None:
        job, folder = self._job, self._folder
        explained: list[Explained] = []
        failed = list(read.failed)
        told = PartSummary(seconds={"read": read.seconds, "explain": 0.0, "write": 0.0})
        inputs: dict[Row, dict[str, NDArray[Any]]] = {}
        started = time.perf_counter()
        size = 1 if attempts.careful else job.batch
        order = {row: index for index, row in enumerate(folder.rows_of(part))}
        for rows, arrays in read.groups:
            for start in range(0, len(rows), size):
                some = rows[start : start + size]
                if attempts.careful and not attempts.survived(order[some[0]]):
                    failed.append(Failed(some[0], "explain", KILLED))
                    continue
                x = _cut(arrays, start, start + size)
                for one in self._explained(some, x):
                    (explained if isinstance(one, Explained) else failed).append(one)  # type: ignore[arg-type]
            inputs |= {row: _one(arrays, index) for index, row in enumerate(rows)}
        told.seconds["explain"] = time.perf_counter() - started
        started = time.perf_counter()
        explained.sort(key=lambda one: order[one.row])
        failed.sort(key=lambda one: order[one.row])
        samples = SHOWN if part % self._sampled == 0 else 0
        self._tell(told, explained, failed, inputs, samples)
        write_rows(folder.part(part), job, explained, self._explainer.wrt)
        if failed or part == 0:  # there is always a table of errors to read
            write_errors(folder.errors(part), job, failed)
        else:
            folder.errors(part).unlink(missing_ok=True)  # of an earlier try
        told.seconds["write"] = time.perf_counter() - started
        write_summary(folder.state(part), told)

    def _explained(
        self, rows: Sequence[Row], arrays: Mapping[str, NDArray[Any]]
    ) -> list[Explained | Failed]:
        """Explain rows together; where that fails, by halves, until it is known which of them it was."""
        job = self._job
        method = getattr(self._explainer, job.method)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ToleranceWarning)  # the tables tell it
                attribution = method(
                    arrays, baseline=job.baseline, target=job.target, seed=job.seed, **job.options
                )
        except Exception as error:  # whatever it is about a row, the others go on
            if len(rows) == 1:
                return [Failed(rows[0], "explain", _reason(error))]
            middle = len(rows) // 2
            return [
                *self._explained(rows[:middle], _cut(arrays, 0, middle)),
                *self._explained(rows[middle:], _cut(arrays, middle, len(rows))),
            ]
        return [self._row(attribution, index, row) for index, row in enumerate(rows)]

    def _row(self, attribution: Attribution, index: int, row: Row) -> Explained:
        """One row of an attribution."""
        job = self._job
        target = tuple(int(axis) for axis in attribution.target[index] or ())
        labelled = len(target) == 1 and 0 <= target[0] < len(job.labels)
        estimate = attribution.error_estimate
        delta, relative = np.nan, np.nan
        if job.adds_up:
            delta = float(attribution.delta[index])
            relative = float(attribution.relative_delta[index])
        return Explained(
            row=row,
            target=target,
            label=job.labels[target[0]] if labelled else "",
            score=float(attribution.scores[index]),
            baseline_score=float(attribution.baseline_scores[index]),
            delta=delta,
            relative_error=relative,
            error_estimate=np.nan if estimate is None else float(estimate[index]),
            steps=int(attribution.steps_used[index]),
            method=attribution.method,
            values={name: array[index] for name, array in self._tensors(attribution).items()},
        )

    def _tensors(self, attribution: Attribution) -> dict[str, NDArray[Any]]:
        """The values by the name of the tensor that is explained, or of the layer."""
        values = attribution.values
        return values if isinstance(values, dict) else {self._explainer.wrt[0]: values}

    def _tell(
        self,
        told: PartSummary,
        explained: Sequence[Explained],
        failed: Sequence[Failed],
        inputs: Mapping[Row, Mapping[str, NDArray[Any]]],
        shown: int,
    ) -> None:
        """Put together what the page tells, with `shown` samples, and write the pictures of rows."""
        job = self._job
        told.add_failed(failed)
        tolerance = job.options.get("tolerance")
        rows = {}
        for one in explained:
            told.add_explained(one, class_map(job, one.values), tolerance=tolerance)
            rows[row_id(one.row)] = Shown(
                row_id(one.row), one.class_name, one.score, one.relative_error, one.steps
            )
        worst = {one.id for one in worst_of(rows.values(), WORST)}
        samples = set(list(rows)[:: max(1, -(-len(rows) // shown))]) if shown else set()
        for one in explained:
            known = row_id(one.row)
            if job.overlays or known in worst | samples:
                pictures = overlay_of(job, inputs[one.row], one.values)
                if pictures is None:
                    break
                if job.overlays:
                    self._write_overlay(one.row, png(pictures[1]))
                small = tuple(png(thumbnail(picture)) for picture in pictures)
                rows[known] = replace(rows[known], pictures=small)
        told.worst = worst_of(rows[known] for known in worst)
        told.samples = [one for known, one in rows.items() if known in samples]

    def _write_overlay(self, row: Row, data: bytes) -> None:
        path = self._folder.overlays / overlay_name(row)
        write_whole(path, lambda temporary: temporary.write_bytes(data))


def _reason(error: Exception) -> str:
    """Why a row failed, in one line; what is no error of igonnx's own with its kind."""
    text = str(error) if isinstance(error, Error) else f"{type(error).__name__}: {error}"
    line = " ".join(text.split())[:REASON]
    return "".join(one if one.isprintable() else "?" for one in line)


def _joined(several: Sequence[Mapping[str, NDArray[Any]]], name: str) -> NDArray[Any]:
    """The values of one input of all rows along the batch axis; a scalar is the same for all."""
    arrays = [one[name] for one in several]
    return np.concatenate(arrays) if arrays[0].ndim else arrays[0]


def _cut(arrays: Mapping[str, NDArray[Any]], start: int, end: int) -> dict[str, NDArray[Any]]:
    return {name: array[start:end] if array.ndim else array for name, array in arrays.items()}


def _one(arrays: Mapping[str, NDArray[Any]], index: int) -> dict[str, NDArray[Any]]:
    return {name: array[index] if array.ndim else array for name, array in arrays.items()}
