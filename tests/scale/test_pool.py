"""How many actors there are, and how many rows a part has."""

from __future__ import annotations

import pytest

from igonnx.errors import InputError
from igonnx.model import TensorInfo
from igonnx.scale.cluster import EXPLAINING, READING, Cluster, pool_of
from igonnx.scale.run import default_rows

TWO = {"CPU": 2.0}
GPUS = {"CPU": 16.0, "GPU": 4.0}


@pytest.mark.parametrize(
    ("cluster", "nodes", "wants_gpus", "actors", "threads", "gpus"),
    [
        (Cluster(), [TWO], False, 1, 2, 0),
        (Cluster(actors=2), [TWO], False, 2, 1, 0),
        (Cluster(threads=1), [TWO], False, 2, 1, 0),
        (Cluster(), [{"CPU": 1.0}] * 2, False, 2, 1, 0),
        (Cluster(), [{"CPU": 64.0}] * 3, False, 48, 4, 0),
        (Cluster(), [{"CPU": 6.0}, {}], False, 1, 4, 0),
        (Cluster(), [GPUS] * 25, True, 100, 1, 100),
        (Cluster(actors=10), [GPUS] * 25, True, 10, 1, 100),
        (Cluster(), [GPUS], False, 4, 4, 0),
        (Cluster(), [TWO], True, 1, 2, 0),
    ],
)
def test_actors_are_as_many_as_keep_all_busy(cluster, nodes, wants_gpus, actors, threads, gpus):
    pool = pool_of(cluster, nodes, wants_gpus=wants_gpus)
    assert (pool.actors, pool.threads, pool.gpus, pool.elastic) == (actors, threads, gpus, False)
    if not gpus:  # what actors reserve leaves a reader room
        assert EXPLAINING * threads * actors + READING <= sum(node.get("CPU", 0) for node in nodes)


def test_actors_that_do_not_fit():
    with pytest.raises(InputError, match="8 actors of 1 thread do not fit: there are 2 CPUs"):
        pool_of(Cluster(actors=8), [TWO], wants_gpus=False)
    with pytest.raises(InputError, match="1 actors of 4 threads do not fit"):
        pool_of(Cluster(threads=4, address="auto"), [TWO], wants_gpus=False)
    assert pool_of(Cluster(actors=8, address="auto"), [TWO], wants_gpus=False).elastic


@pytest.mark.parametrize(
    ("rows", "shape", "expected"),
    [
        (3, ("n", 1, 8, 8), 8),
        (60, ("n", 1, 8, 8), 8),
        (2000, ("n", 1, 8, 8), 63),
        (10_000_000, ("n", 3, 224, 224), 64),
        (10_000_000, (1, 3, 1024, 1024), 5),
        (10_000_000, ("n", 3, 20_000, 20_000), 1),
        (10_000_000, ("n", 3, None, None), 64),
    ],
)
def test_parts_are_small_and_fit_into_memory(rows, shape, expected):
    assert default_rows(rows, [TensorInfo("x", "float32", shape)]) == expected
