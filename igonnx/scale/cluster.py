"""The Ray cluster of a run: being connected to it, how many workers there are on it, and what it says of failures."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from igonnx import errors
from igonnx.engine.runtime import onnxruntime_module
from igonnx.errors import EngineError, Error, InputError

__all__ = [
    "EXPLAINING",
    "READING",
    "Cluster",
    "Pool",
    "connected",
    "plain_errors",
    "pool_of",
    "require_ray",
    "settled",
    "wants_gpus",
]

# Shares of a CPU that workers reserve: together less than all of it, so that readers always find room. Ray counts by
# them where a worker fits; how busy a CPU is it does not measure.
EXPLAINING, READING = 0.75, 0.25
# Bytes of shared memory of a cluster of this machine alone: some parts are on their way at a time.
OBJECT_STORE = 1 << 29
# Of an actor, where nobody says how many: more share a model's memory, fewer wait for each other.
THREADS = 4


@dataclass(frozen=True)
class Cluster:
    """Where a run takes place: on this machine, or on the cluster at `address`: "auto" or host:port.

    actors: explainers that work at the same time, `threads` threads each; None: one for each GPU if ONNX Runtime can
    use it, else so many that all CPUs are busy, up to four threads each.
    """

    address: str | None = None
    actors: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Pool:
    """Actors, and the threads of each; GPUs, of which each has one; readers; whether actors come as room is made."""

    actors: int
    threads: int
    gpus: int
    readers: int
    elastic: bool


def require_ray() -> None:
    """Raise `Error` where Ray Data is not installed."""
    try:
        import pyarrow  # noqa: F401
        import ray.data  # noqa: F401
    except ModuleNotFoundError as error:
        raise Error(f"explaining a data set needs {error.name}: pip install igonnx[ray]") from error


@contextmanager
def connected(cluster: Cluster) -> Iterator[None]:
    """Be connected to a cluster: the one that this process has, that at the address, or one made for this run."""
    import ray

    if ray.is_initialized():
        _quiet()
        yield
        return
    # A library does not tell others of its use.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # A row on which workers die is found out by those that come after.
    os.environ.setdefault("RAY_TASK_MAX_RETRIES", "-1")
    local = {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    if cluster.address is not None:
        _require_listening(cluster.address)
    try:
        with _silent_start(), _own_end():
            ray.init(
                address=cluster.address or "local",
                logging_level=logging.ERROR,
                log_to_driver=False,
                **({} if cluster.address else local),
            )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        where = f"the Ray cluster at '{cluster.address}'" if cluster.address else "Ray"
        reason = " ".join(str(error).split())
        raise InputError(f"cannot connect to {where}: {reason[:300]}") from error
    try:
        _quiet()
        yield
    finally:
        ray.shutdown()


def _require_listening(address: str) -> None:
    """Raise `InputError` for an address at which nothing listens: Ray would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdecimal():
        raise InputError(f"--address is '{address}', expected 'auto' or host:port of a Ray cluster")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).lower()
        raise InputError(f"cannot connect to the Ray cluster at '{address}': {reason}") from error


@contextmanager
def _silent_start() -> Iterator[None]:
    """Let go what Ray's core writes to the standard error stream: that it is going to write less."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _own_end() -> Iterator[None]:
    """Keep what this process does on SIGTERM: Ray's core would have it abort."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _quiet() -> None:
    """Keep Ray Data from writing where the command writes."""
    import ray.data

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    ray.data.DataContext.get_current().enable_progress_bars = False


def pool_of(cluster: Cluster, nodes: Sequence[Mapping[str, float]], *, wants_gpus: bool) -> Pool:
    """Settle how many actors there are, by the resources of each machine; `InputError` where they would not fit."""
    cpus = [float(node.get("CPU", 0)) for node in nodes]
    gpus = int(sum(node.get("GPU", 0) for node in nodes)) if wants_gpus else 0
    if gpus:
        actors, threads = cluster.actors or gpus, cluster.threads or 1
        room, what = gpus, f"{gpus} GPUs"
    else:
        most = max(1, int(max(cpus, default=0)))
        if cluster.threads is not None:
            threads = cluster.threads
        elif cluster.actors is not None:
            threads = max(1, min(THREADS, most, int(sum(cpus)) // cluster.actors))
        else:
            threads = min(THREADS, most)
        room = sum(int(count // threads) for count in cpus)
        actors, what = cluster.actors or max(1, room), f"{sum(cpus):g} CPUs"
    elastic = actors > room
    if elastic and (cluster.address is None or room < 1):
        threaded = f"{threads} thread{'s' * (threads > 1)}"
        raise InputError(
            f"{actors} actors of {threaded} do not fit: there are {what} in {len(nodes)} machine(s)"
        )
    return Pool(actors, threads, gpus, max(2, 4 * actors if gpus else actors), elastic)


def wants_gpus(running: Mapping[str, Any]) -> bool:
    """Whether actors should have a GPU each: as the providers say, else where ONNX Runtime can use one."""
    providers = running.get("providers")
    if providers:
        return any("CUDA" in name or "Tensorrt" in name for name in providers)
    return "CUDAExecutionProvider" in onnxruntime_module().get_available_providers()


def settled(running: Mapping[str, Any], pool: Pool) -> dict[str, Any]:
    """The arguments of each actor's explainer."""
    chosen = {**running, "threads": pool.threads}
    if pool.gpus and not chosen.get("providers"):
        chosen["providers"] = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    return chosen


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what Ray raises into one line: an error of igonnx's own in a worker as it is, others with their kind."""
    from ray.data.exceptions import UserCodeException
    from ray.exceptions import RayError

    try:
        yield
    except (RayError, UserCodeException) as error:
        text = str(error)  # with the traceback of the worker, which ends with what was raised there
        own = re.findall(r"igonnx\.errors\.(\w+): (.+)", text)
        kind = getattr(errors, own[-1][0], None) if own else None
        if isinstance(kind, type) and issubclass(kind, Error):
            raise kind(own[-1][1].strip().strip("'\"")) from error
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        raise EngineError(f"the run on Ray failed: {lines[-1] if lines else error!r}") from error
