"""The noise tunnel: a method on noisy copies of an input, and what is made of the results.

"smoothgrad" is the mean of the attributions (Smilkov et al., 2017, arXiv:1706.03825), "smoothgrad_sq" the mean of
their squares (Hooker et al., 2019, arXiv:1806.10758), "vargrad" their variance (Adebayo et al., 2018,
arXiv:1810.03307), the population's, as Captum has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.checks import is_real, require_whole
from igonnx.errors import InputError
from igonnx.methods.call import Array

__all__ = ["KINDS", "Moments", "Noise", "noise_of", "noisy", "require_std", "width_like"]

KINDS = ("smoothgrad", "smoothgrad_sq", "vargrad")
USUAL = 0.15  # of the range of an example's values; the paper found 10 to 20 % to give sharp maps


@dataclass(frozen=True)
class Noise:
    """Gaussian noise on the explained tensors."""

    kind: str
    samples: int
    # In the units of the tensor; None: USUAL of each example's range. Tensors that are not named stay as they are.
    std: float | Mapping[str, float] | None

    def draws(self, x: Mapping[str, NDArray[Any]], seed: int) -> Iterator[dict[str, NDArray[Any]]]:
        """`samples` noisy copies of `x` {name: [N, ...]}.

        Every example gets the same draws, scaled by its own standard deviation: its attribution does not depend on
        what else is explained in the same call.
        """
        random = np.random.default_rng(seed)
        widths = {name: self._width(name, array) for name, array in x.items()}
        for _ in range(self.samples):
            yield noisy(x, widths, random)

    def _width(self, name: str, x: NDArray[Any]) -> NDArray[Any]:
        """The standard deviation, [N, 1, ...] or one number, of the dtype of `x`."""
        std = self.std.get(name, 0.0) if isinstance(self.std, Mapping) else self.std
        if std is not None:
            return width_like(std, x)
        axes = tuple(range(1, x.ndim))
        low, high = (end(axis=axes, keepdims=True).astype(np.float64) for end in (x.min, x.max))
        return width_like(USUAL * (high - low), x)


def width_like(std: Any, x: NDArray[Any]) -> NDArray[Any]:
    """A standard deviation of the dtype of `x`; what it cannot hold is infinite, and the scores then tell."""
    with np.errstate(over="ignore"):
        return np.asarray(std, dtype=x.dtype)


def noisy(
    x: Mapping[str, NDArray[Any]],
    widths: Mapping[str, NDArray[Any]],
    random: np.random.Generator,
) -> dict[str, NDArray[Any]]:
    """`x` {name: [R, ...]} plus Gaussian noise of standard deviations `widths`: the same draws for every request.

    All in the dtype of the tensor, float32 or float64.
    """
    copy = {}
    for name, array in x.items():
        draws = random.standard_normal(array.shape[1:], dtype=array.dtype)
        with np.errstate(over="ignore"):
            copy[name] = draws * widths[name] + array
    return copy


def noise_of(
    kind: str | None, samples: int, std: float | Mapping[str, float] | None, names: tuple[str, ...]
) -> Noise | None:
    """The noise that the options of a method describe, for explained tensors `names`; None for none.

    Raises `InputError` for an unknown kind, no samples, a standard deviation that is negative or no number.
    """
    if kind is not None and kind not in KINDS:
        known = ", ".join(map(repr, KINDS))
        raise InputError(f"noise is {kind!r}; expected None, {known}")
    require_whole("noise_samples", samples, 1)
    require_std("noise_std", std, names)
    return None if kind is None else Noise(kind, int(samples), std)


def require_std(what: str, std: Any, names: tuple[str, ...]) -> None:
    """Raise `InputError` unless `std` is None, a number of 0 or more, or such numbers by the names of tensors."""
    if isinstance(std, Mapping):
        unknown = [name for name in std if name not in names]
        if unknown:
            expected = ", ".join(map(repr, names))
            raise InputError(
                f"{what} for {unknown[0]!r}, which is not explained; expected {expected}"
            )
    for one in std.values() if isinstance(std, Mapping) else [std]:
        if one is not None and not (is_real(one) and 0 <= float(one) < float("inf")):
            raise InputError(f"{what} is {one!r}; expected a number of at least 0")


class Moments:
    """Mean, mean square or variance of attributions that come one after the other."""

    def __init__(self, kind: str) -> None:
        """`kind` is one of KINDS."""
        self._kind = kind
        self._count = 0
        self._mean: dict[str, Array] = {}
        self._square: dict[str, Array] = {}  # sum of squared deviations from the mean

    def add(self, attribution: Mapping[str, Array]) -> None:
        """Take one more [N, ...] per tensor (Welford's update: no cancellation where the variance is small)."""
        self._count += 1
        for name, array in attribution.items():
            if name not in self._mean:
                self._mean[name] = array.astype(np.float64)
                self._square[name] = np.zeros(array.shape)
                continue
            before = array - self._mean[name]
            self._mean[name] += before / self._count
            if self._kind != "smoothgrad":
                self._square[name] += before * (array - self._mean[name])

    def result(self) -> dict[str, Array]:
        """What the tunnel of this kind gives."""
        if self._kind == "smoothgrad":
            return self._mean
        variance = {name: array / self._count for name, array in self._square.items()}
        if self._kind == "vargrad":
            return variance
        return {name: array + self._mean[name] ** 2 for name, array in variance.items()}
