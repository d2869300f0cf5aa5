"""The gradients that are kept because their weight may still change: as many as fit into the memory limit.

Beyond it those beside the calmest intervals are dropped; should such an interval be divided after all, they are
computed once more. So the limit costs time, never accuracy, and the mesh does not depend on it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

from numpy.typing import NDArray

from igonnx.checks import is_whole
from igonnx.engine.plan import Requests
from igonnx.errors import InputError

__all__ = ["DEFAULT_LIMIT", "KeptGradients", "Node", "gradients_that_fit"]

Node: TypeAlias = tuple[int, float]  # request, alpha

DEFAULT_LIMIT = 512 << 20


def gradients_that_fit(limit: int | None, requests: Requests, fewest: int) -> int:
    """How many gradients fit into `limit` bytes; None stands for 512 MiB, or what `fewest` of them need.

    Raises `InputError` if `limit` is no whole number, or less than `fewest` gradients need.
    """
    each = max(sum(array[:1].nbytes for array in requests.x.values()), 1)
    if limit is None:
        return max(DEFAULT_LIMIT // each, fewest)
    if not is_whole(limit) or limit < 1:
        raise InputError(
            f"memory_limit is {limit!r}; expected a whole number of bytes, such as {DEFAULT_LIMIT}"
        )
    if limit < fewest * each:
        raise InputError(
            f"memory_limit is {limit:,} bytes; expected at least {fewest * each:,}, "
            f"{fewest} gradients of {each:,}"
        )
    return int(limit // each)


class KeptGradients:
    """G by node, at most `capacity` of them."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._kept: dict[Node, NDArray[Any]] = {}

    def __contains__(self, node: Node) -> bool:
        return node in self._kept

    def __getitem__(self, node: Node) -> NDArray[Any]:
        return self._kept[node]

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, node: Node, contribution: NDArray[Any]) -> None:
        """Keep one more; room has been made."""
        self._kept[node] = contribution

    def is_short_of(self, needed: Collection[Node]) -> bool:
        """Whether room has to be made before all of `needed` can be here at once."""
        return len(self._kept.keys() | set(needed)) > self.capacity

    def make_room(self, needed: Collection[Node], worth: Mapping[Node, float]) -> None:
        """Drop the least worthy until all of `needed`, none of which is dropped, fit with what is kept."""
        excess = len(self._kept.keys() | set(needed)) - self.capacity
        spare = [node for node in self._kept if node not in needed]
        for node in sorted(spare, key=lambda node: worth.get(node, 0.0))[: max(excess, 0)]:
            del self._kept[node]

    def requests(self) -> set[int]:
        """The requests of which something is kept."""
        return {request for request, _ in self._kept}

    def forget(self, request: int) -> None:
        """Drop everything of one request."""
        for node in [node for node in self._kept if node[0] == request]:
            del self._kept[node]
