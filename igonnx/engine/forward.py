"""The model itself: predictions, and the values of tensors in between."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.engine.runtime import Providers, RuntimeSession, serialized
from igonnx.errors import ModelError
from igonnx.model import Model

__all__ = ["Forward", "axis_of_length"]


class Forward:
    """A session on the model whose outputs are its own and the tensors `also` (names)."""

    def __init__(
        self,
        model: Model,
        *,
        also: Sequence[str] = (),
        fixed_rows: int | None = None,
        providers: Providers = None,
        threads: int | None = None,
    ) -> None:
        opened = model.with_graph(model.clone())
        graph = opened.ir.graph
        self.names = [info.name for info in model.outputs]
        for name in also:
            if name not in self.names and name not in [info.name for info in model.inputs]:
                graph.outputs.append(opened.find_tensor(name))
        self._fixed_rows = fixed_rows
        self._session = RuntimeSession(
            serialized(opened.ir, model.name),
            name=model.name,
            folder=model.folder,
            providers=providers,
            threads=threads,
        )

    def run(
        self,
        inputs: Mapping[str, NDArray[Any]],
        batched: Sequence[str],
        batch_axes: Mapping[str, int | None],
    ) -> dict[str, NDArray[Any]]:
        """All outputs by name for `inputs`, whose entries named in `batched` have the batch axis in front.

        A model that only takes batches of one size is run as often as needed; its outputs are joined along
        `batch_axes` (where nothing is said, the first axis of the length of a batch; None: stacked).
        """
        total = len(inputs[batched[0]]) if batched else 1
        size = self._fixed_rows
        if size is None or total == size:
            return self._session.run(inputs)
        return self._in_parts(inputs, batched, batch_axes, total, size)

    def in_batches_of(self, rows: int) -> Forward:
        """The same session, run with `rows` examples at a time."""
        other = copy.copy(self)
        other._fixed_rows = rows
        return other

    def one_by_one(
        self,
        inputs: Mapping[str, NDArray[Any]],
        batched: Sequence[str],
        batch_axes: Mapping[str, int | None],
    ) -> dict[str, NDArray[Any]]:
        """As `run`, but each example by itself; outputs whose axis is None are stacked, also for a single example."""
        total = len(inputs[batched[0]]) if batched else 1
        return self._in_parts(inputs, batched, batch_axes, total, 1)

    def _in_parts(
        self,
        inputs: Mapping[str, NDArray[Any]],
        batched: Sequence[str],
        batch_axes: Mapping[str, int | None],
        total: int,
        size: int,
    ) -> dict[str, NDArray[Any]]:
        parts = []
        for start in range(0, total, size):
            rows = np.minimum(np.arange(start, start + size), total - 1)
            feeds = {
                name: array[rows] if name in batched else array for name, array in inputs.items()
            }
            parts.append((self._session.run(feeds), min(size, total - start)))
        return {name: self._joined(name, parts, batch_axes, size) for name in parts[0][0]}

    def _joined(
        self,
        name: str,
        parts: Sequence[tuple[dict[str, NDArray[Any]], int]],
        batch_axes: Mapping[str, int | None],
        size: int,
    ) -> NDArray[Any]:
        axis = (
            batch_axes[name]
            if name in batch_axes
            else axis_of_length(parts[0][0][name].shape, size)
        )
        if axis is None:
            self._require_one_shape(name, [results[name].shape for results, _ in parts])
            return np.stack([results[name] for results, _ in parts])
        arrays = [results[name].take(range(count), axis=axis) for results, count in parts]
        self._require_one_shape(
            name, [array.shape[:axis] + array.shape[axis + 1 :] for array in arrays]
        )
        return np.concatenate(arrays, axis=axis)

    @staticmethod
    def _require_one_shape(name: str, shapes: Sequence[tuple[int, ...]]) -> None:
        if len(set(shapes)) > 1:
            listed = ", ".join(str(list(shape)) for shape in sorted(set(shapes)))
            raise ModelError(
                f"output {name!r} has another shape for each example ({listed}): explain them one by one"
            )


def axis_of_length(shape: Sequence[int], length: int) -> int | None:
    """The first axis that is `length` long, or None."""
    return next((axis for axis, size in enumerate(shape) if size == length), None)
