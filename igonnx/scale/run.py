"""A run: parts that are not done go through Ray Data, from tasks that read to actors that explain; then the page.

Ray Data is what moves parts along: it starts readers and a pool of actors, holds readers back while actors are busy,
starts a worker anew that died, and gives it what it had. Its own readers are not used (one damaged file ends their job,
and they number no rows), nor its writers (what they write twice is there twice).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from igonnx.model import TensorInfo
from igonnx.scale.cluster import (
    EXPLAINING,
    READING,
    Cluster,
    connected,
    plain_errors,
    pool_of,
    require_ray,
    settled,
    wants_gpus,
)
from igonnx.scale.folder import Folder, write_whole
from igonnx.scale.job import Job
from igonnx.scale.listing import Listing
from igonnx.scale.page import page
from igonnx.scale.stages import ExplainPart, read_part
from igonnx.scale.summary import Summary, read_summary

__all__ = ["Outcome", "default_rows", "run_job"]

ROWS = 64  # of a part, at most
FEWEST, PARTS = 8, 32  # rows of a part, where there are then fewer parts than this
BYTES = 64 << 20  # of the explained inputs of a part

Progress = Callable[[int, int], None]  # rows done, rows in all


@dataclass(frozen=True)
class Outcome:
    """What a run did: `summary` of all parts in the folder; `parts` that were done now, of `of`."""

    summary: Summary
    parts: int
    of: int
    page: Path


def run_job(
    job: Job,
    listing: Listing,
    out: Path,
    infos: list[TensorInfo],
    *,
    cluster: Cluster | None = None,
    rows_per_part: int | None = None,
    retry_errors: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Explain the rows of `listing` into the folder `out`, or go on with that; returns when all parts are done.

    `infos` are the model's inputs; `retry_errors` does parts with errors again. Raises `InputError` for a folder that
    holds something else and a cluster that cannot be reached, `EngineError` where workers cannot start.
    """
    require_ray()
    folder = Folder(out.resolve())
    with folder.locked():
        most = rows_per_part or default_rows(len(listing.rows), infos)
        size = folder.begin(job, listing, most)
        parts = math.ceil(len(listing.rows) / size)
        if retry_errors:
            for number in folder.parts_with_errors():
                folder.state(number).unlink(missing_ok=True)
        todo = folder.unfinished(parts)
        if todo:
            done = len(listing.rows) - _rows_of(todo, size, len(listing.rows))
            _explain(
                job, folder, infos, todo, cluster or Cluster(), done, len(listing.rows), progress
            )
        summary = Summary()
        for number in range(parts):
            summary.merge(read_summary(folder.state(number)))
        text = page(summary, job)
        write_whole(folder.page, lambda file: file.write_text(text, encoding="utf-8"))
    return Outcome(summary, len(todo), parts, folder.page)


def default_rows(rows: int, infos: list[TensorInfo]) -> int:
    """Rows per part: few enough that a crash costs little and many workers find work, and a part fits into memory."""
    elements = sum(
        math.prod(length if isinstance(length, int) else 224 for length in info.shape[1:])
        for info in infos
    )
    fitting = max(1, BYTES // max(1, 4 * elements))
    return min(ROWS, fitting, max(FEWEST, math.ceil(rows / PARTS)))


def _rows_of(parts: list[int], size: int, rows: int) -> int:
    return sum(min(size, rows - number * size) for number in parts)


def _explain(
    job: Job,
    folder: Folder,
    infos: list[TensorInfo],
    todo: list[int],
    cluster: Cluster,
    done: int,
    rows: int,
    progress: Progress | None,
) -> None:
    """Send the parts `todo` through the two stages."""
    with connected(cluster):
        import ray
        import ray.data

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        pool = pool_of(cluster, nodes, wants_gpus=wants_gpus(job.running))
        actors = min(pool.actors, len(todo))
        job = replace(job, running=settled(job.running, pool))
        data = (
            ray.data.from_items(
                [{"part": number} for number in todo], override_num_blocks=len(todo)
            )
            .map_batches(
                read_part,
                fn_kwargs={"job": job, "folder": folder, "infos": infos},
                batch_size=1,
                num_cpus=1.0 if pool.gpus else READING,
                compute=ray.data.TaskPoolStrategy(size=min(pool.readers, len(todo))),
            )
            .map_batches(
                ExplainPart,
                fn_constructor_args=(job, folder, math.ceil(rows / len(folder.rows_of(0)))),
                batch_size=1,
                num_cpus=EXPLAINING * pool.threads,
                num_gpus=1 if pool.gpus else None,
                compute=ray.data.ActorPoolStrategy(
                    min_size=1 if pool.elastic else actors, max_size=actors
                ),
            )
        )
        if progress is not None:
            progress(done, rows)
        with plain_errors():
            for batch in data.iter_batches(batch_size=None):
                done += int(np.sum(batch["rows"]))
                if progress is not None:
                    progress(done, rows)
