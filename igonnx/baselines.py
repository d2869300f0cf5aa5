"""Baselines by name: what an input without information is taken to be.

No baseline is neutral for every model (Sturmfels, Lundberg and Lee, "Visualizing the impact of feature attribution
baselines", Distill 2020); a list of several, over which the attributions are averaged, is blind to none of them.
Wherever a method takes `baseline`, it takes one of

    None                zeros
    a number            an input filled with it
    an array            of the input's shape, or one that broadcasts to it
    {name: any of these} per explained tensor
    "black", "white"    the lowest and the highest value of each channel of that example
    "mean"              the mean of each channel of that example
    "blurred"           the image without its details: a Gaussian of an eighth of its shorter side
    "uniform"           uniform noise between "black" and "white", by the method's seed
    a list              several of these: the attribution is the average over them

Names are for images and series, [N, C, H, W], [N, H, W, C], [N, C, T] and the like; the columns of a table have no
values in common. Where the preprocessing is known, black is better given as a number or array (in `igonnx.images`,
`Preprocessing.constant(0.0)`): not every photo has a black pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from igonnx.channels import channel_axis
from igonnx.errors import InputError
from igonnx.inputs import Baseline, checked_baseline

__all__ = [
    "NAMED",
    "Baselines",
    "OneBaseline",
    "baselines_of",
    "black",
    "blurred",
    "mean",
    "uniform",
    "white",
    "within_channel",
]

OneBaseline: TypeAlias = "Baseline | str"
Baselines: TypeAlias = "OneBaseline | list[OneBaseline]"

BLUR = 1 / 8  # of the shorter side: what is left is light and dark


def black(x: NDArray[Any], seed: int = 0) -> NDArray[Any]:
    """The lowest value of each channel, everywhere: an array of the shape of `x` [N, ...]."""
    del seed
    return np.broadcast_to(x.min(axis=within_channel(x), keepdims=True), x.shape)


def white(x: NDArray[Any], seed: int = 0) -> NDArray[Any]:
    """The highest value of each channel, everywhere."""
    del seed
    return np.broadcast_to(x.max(axis=within_channel(x), keepdims=True), x.shape)


def mean(x: NDArray[Any], seed: int = 0) -> NDArray[Any]:
    """The mean of each channel, everywhere."""
    del seed
    average = x.mean(axis=within_channel(x), keepdims=True, dtype=np.float64)
    return np.broadcast_to(average.astype(x.dtype), x.shape)


def blurred(x: NDArray[Any], seed: int = 0) -> NDArray[Any]:
    """The input, smoothed along its spatial axes by a Gaussian of an eighth of the shortest of them."""
    del seed
    from scipy import ndimage  # slow to import

    axes = within_channel(x)
    width = BLUR * min(x.shape[axis] for axis in axes)
    smooth = ndimage.gaussian_filter(x.astype(np.float64), width, axes=axes, mode="nearest")
    return np.asarray(smooth, dtype=x.dtype)


def uniform(x: NDArray[Any], seed: int = 0) -> NDArray[Any]:
    """Uniform noise between the lowest and the highest value of each channel; the same draws for every example."""
    low, high = black(x).astype(np.float64), white(x).astype(np.float64)
    draws = np.random.default_rng(seed).random(x.shape[1:])
    return np.asarray(low + draws * (high - low), dtype=x.dtype)


NAMED: dict[str, Callable[[NDArray[Any], int], NDArray[Any]]] = {
    function.__name__: function for function in (black, white, mean, blurred, uniform)
}


def baselines_of(
    given: Baselines, x: Mapping[str, NDArray[Any]], dtype: DTypeLike, seed: int
) -> list[dict[str, NDArray[Any]]]:
    """The baselines that `given` stands for, one or several: each by tensor name, of the shapes of `x` [R, ...].

    Raises `InputError` for an unknown name, an empty list, and what `checked_baseline` refuses.
    """
    several = given if isinstance(given, list) else [given]
    numbers = [one for one in several if isinstance(one, Real)]
    if 1 < len(numbers) == len(several) and any(
        array.ndim > 1 and array.shape[-1] == len(several) for array in x.values()
    ):
        raise InputError(
            f"baseline is a list of {len(several)} numbers: one array of them, or {len(several)} baselines? Pass "
            "numpy.array([...]) for the one, a list of arrays for the other"
        )
    if len(several) > 1 and any(isinstance(one, list) for one in several):
        raise InputError(
            f"baseline is a list of {len(several)} lists: one array of them, or {len(several)} baselines? Pass "
            "numpy.array([...]) for the one, a list of arrays for the other"
        )
    if not several:
        raise InputError("baseline is an empty list; expected at least one baseline")
    seeds = np.random.SeedSequence(seed).generate_state(len(several))
    return [
        checked_baseline(_named(one, x, int(number)), x, dtype)
        for one, number in zip(several, seeds, strict=True)
    ]


def _named(given: OneBaseline, x: Mapping[str, NDArray[Any]], seed: int) -> Baseline:
    """`given` with names of baselines replaced by their arrays."""
    if isinstance(given, str):
        return {name: _array(given, x[name], seed + i) for i, name in enumerate(x)}
    if isinstance(given, Mapping):
        return {
            name: _array(one, x[name], seed + i) if isinstance(one, str) and name in x else one
            for i, (name, one) in enumerate(given.items())
        }
    return given


def _array(name: str, x: NDArray[Any], seed: int) -> NDArray[Any]:
    if name not in NAMED:
        known = ", ".join(map(repr, NAMED))
        raise InputError(f"baseline is {name!r}; expected {known}, a number or an array")
    if x.ndim < 3:
        raise InputError(
            f"baseline {name!r} is for images and series; for an input of shape {list(x.shape)} pass an array, such as "
            "the means of your data"
        )
    return NAMED[name](x, seed)


def within_channel(x: NDArray[Any]) -> tuple[int, ...]:
    """Axes of `x` [N, ...], three or more, that lie within one channel of an example."""
    if x.ndim == 4:
        channels = 1 + channel_axis(x.shape[1:])
        return tuple(axis for axis in (1, 2, 3) if axis != channels)
    return tuple(range(2, x.ndim))  # [N, C, T], [N, C, D, H, W]
