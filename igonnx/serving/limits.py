"""What one request may cost, and how many may wait: a client that asks for more is told so, and nothing is computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from igonnx.checks import is_real, require_whole
from igonnx.errors import InputError
from igonnx.serving.refusals import RequestError

__all__ = ["Limits"]

_MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds of one request, and of what the server holds at a time.

    body: bytes of a request's body, before and after decoding. held: bytes of all bodies at a time. pixels: of one
    image, as its header tells, before it is decoded. examples: in one request. values: numbers of one example, where
    the model leaves its size free. steps: points on a path, or the most with a tolerance. samples: draws, noisy copies
    and baselines, each. gradients: of one request in all, examples times steps times samples. seconds: that one request
    may take, waiting included. waiting: requests that wait for their turn.
    """

    body: int = 16 * _MIB
    held: int = 256 * _MIB
    pixels: int = 16_000_000
    examples: int = 64
    values: int = 4 * _MIB
    steps: int = 1000
    samples: int = 1000
    gradients: int = 200_000
    seconds: float = 60.0
    waiting: int = 256

    def __post_init__(self) -> None:
        """Raise `InputError` for a bound that is none."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "seconds":
                require_whole(field.name, value, 1, 1 << 40)
            elif not is_real(value) or not 0 < value <= 86_400:
                raise InputError(f"seconds is {value!r}; expected a number above 0, at most 86400")

    def require_examples(self, count: int) -> None:
        """Raise `RequestError` (413) for more examples than one request may hold."""
        if count > self.examples:
            raise RequestError(
                413, f"{count} examples in one request; at most {self.examples} are taken"
            )

    def require_values(self, name: str, shape: Sequence[int]) -> None:
        """Raise `RequestError` (413) for an input of this shape, batch axis first, with too large examples."""
        size = 1
        for length in shape[1:]:
            size *= length
        if size > self.values:
            raise RequestError(
                413,
                f"input {name!r} has {size} values per example; at most {self.values} are taken",
            )

    def require_gradients(self, count: int) -> None:
        """Raise `RequestError` (413) where one request asks for more gradients than this."""
        if count > self.gradients:
            raise RequestError(
                413,
                f"the request asks for {count} gradients (examples x steps x samples); at most {self.gradients} "
                "are computed",
            )
