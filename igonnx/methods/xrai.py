"""XRAI: attributions of any method, gathered into regions of the image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igonnx.attribution import Attribution
from igonnx.baselines import Baselines
from igonnx.channels import channel_axis, reduce_channels
from igonnx.checks import as_finite
from igonnx.errors import InputError
from igonnx.inputs import Arrays
from igonnx.methods.call import Explaining
from igonnx.methods.region_ranking import Region, ranked_regions, require_variant
from igonnx.methods.segments import segments
from igonnx.targets import Target

__all__ = ["regions", "xrai"]

# Methods that compare the input with a baseline: each is blind to what is alike in both.
_FROM_A_BASELINE = (
    "expected_gradients",
    "gradient_shap",
    "guided_ig",
    "idgi",
    "integrated_gradients",
    "smoothgrad_ig",
)


def xrai(
    explainer: Explaining,
    inputs: Arrays,
    *,
    target: Target = None,
    baseline: Baselines = None,
    seed: int = 0,
    of: str | Attribution = "integrated_gradients",
    image: NDArray[Any] | None = None,
    variant: str = "full",
    **arguments: Any,
) -> Attribution:
    """XRAI (Kapishnikov et al., 2019, arXiv:1906.02825): attribution by regions of the image.

    The image is segmented at six scales, and segments are taken one after another, each time the one in whose new
    pixels the attribution is the densest. Each pixel then has the density of the region it came with, its mean
    attribution per pixel, spread evenly over the channels: the values add up to the same as those of the method.
    `regions` gives the regions themselves.

    Args:
        inputs, target, seed: as for `integrated_gradients`. One tensor must be explained: [N, C, H, W] or [N, H, W, C].
        baseline: as for `integrated_gradients`. Default, for the methods that start from one: the average over "black"
            and "white" (`igonnx.baselines`), as one baseline alone cannot see what looks like it. These are the
            lowest and highest value of each channel of the example, whatever the preprocessing was; where you know
            it, black and white given as two arrays or numbers in a list are better.
        of: the method whose attributions are gathered, by the name of its `Explainer` method; or an `Attribution` of
            these inputs, at no further gradients.
        image: what is segmented, [N, H, W], [N, C, H, W] or [N, H, W, C] of any size and range (N may be left out for a
            single example). Default: the explained input, or the model's only image where an inner tensor is explained.
        variant: "full", or "fast", which ranks segments by their density before any is taken.
        arguments: those of the method: steps, noise, progress, timeout and so on.

    The segmentation, and what is made of segments and attributions, are those of the PAIR library `saliency` 0.2.1, but
    for this: channels are added, where that takes the largest and so counts what another channel takes back; images
    that are not 224 by 224 keep their aspect ratio, and their margins are not mixed with grey; sizes in pixels go with
    the size of the image; a constant image is one segment, where that becomes NaN and falls apart; pixels that no
    segment claimed rank by their density, not last.

    Raises `InputError` for an unknown method or variant, for tensors that are no images, and for an image or an
    attribution that does not fit; else as the method.

    """
    require_variant(variant)
    if not isinstance(of, Attribution):
        _require_image(inputs, explainer.wrt, image)
    base = _base(explainer, inputs, of, target, baseline, seed, arguments)
    values = base.values
    if isinstance(values, Mapping):
        raise _several(len(values))
    if values.ndim != 4 or values.size == 0:
        raise _no_image(values.shape)
    axis = channel_axis(values.shape[1:])
    size = tuple(length for at, length in enumerate(values.shape[1:]) if at != axis)
    name = explainer.wrt[0] if len(explainer.wrt) == 1 else None
    pictures = _pictures(inputs, name, image, len(values), (size[0], size[1]))
    maps = np.empty_like(values)
    for index, picture in enumerate(pictures):
        shared = _region_map(values[index], picture, variant) / values.shape[1 + axis]
        maps[index] = np.expand_dims(shared, axis)
    return dataclasses.replace(
        base,
        values=maps,
        error_estimate=None,  # both are about the values of single pixels
        correction=None,
        method=f"xrai variant={variant} of {base.method}",
    )


def regions(values: NDArray[Any], image: NDArray[Any], *, variant: str = "full") -> list[Region]:
    """The regions of one example by XRAI, the densest first; together they cover the picture once.

    values: its attribution by any method, [C, H, W], [H, W, C] or [H, W]; image: what is segmented, likewise, of any
    size and range. Raises `InputError` for other shapes and NaN.
    """
    require_variant(variant)
    heat = reduce_channels(values)
    return ranked_regions(heat, segments(_channels_last(image, heat.shape), heat.shape), variant)


def _region_map(values: NDArray[Any], picture: NDArray[Any], variant: str) -> NDArray[np.float64]:
    """Each pixel's density, float64 [H, W]."""
    found = regions(values, picture, variant=variant)
    density = np.empty(found[0].mask.shape)
    for region in found:
        density[region.mask] = region.density
    return density


# -- what is refused ---------------------------------------------------------------------------


def _require_image(inputs: Arrays, wrt: tuple[str, ...], image: NDArray[Any] | None) -> None:
    """Raise `InputError` before anything is computed, as far as the inputs tell: not of tensors inside the model."""
    if len(wrt) > 1:
        raise _several(len(wrt))
    named = inputs if isinstance(inputs, Mapping) else {wrt[0]: inputs}
    # A single array may be an input before the explained tensor, but then it is what would be segmented.
    known = wrt[0] in named and (named is inputs or image is None)
    if known and np.ndim(named[wrt[0]]) not in (3, 4):  # 3: the model will say what lacks
        raise _no_image(np.shape(named[wrt[0]]), "input")


def _several(count: int) -> InputError:
    return InputError(
        f"xrai explains one image; {count} tensors are explained: choose one with wrt="
    )


def _no_image(shape: tuple[int, ...], what: str = "explained tensor") -> InputError:
    return InputError(
        f"xrai explains images, [N, C, H, W] or [N, H, W, C]; the {what} has shape {list(shape)}"
    )


# -- what is gathered --------------------------------------------------------------------------


def _base(
    explainer: Explaining,
    inputs: Arrays,
    of: str | Attribution,
    target: Target,
    baseline: Baselines,
    seed: int,
    arguments: dict[str, Any],
) -> Attribution:
    """The attributions by the method `of`, or `of` itself."""
    if isinstance(of, Attribution):
        if target is not None or baseline is not None or arguments:
            given = {"target": target, "baseline": baseline, **arguments}
            names = [name for name, value in given.items() if value is not None]
            raise InputError(
                f"of is an Attribution, which is made already: {', '.join(names)} cannot be changed any more"
            )
        return of
    method = getattr(type(explainer), of, None) if isinstance(of, str) else None
    module = getattr(method, "__module__", "")
    if method is None or not module.startswith("igonnx.methods.") or module == __name__:
        raise InputError(
            f"of is {of!r}; expected the name of another method, such as 'integrated_gradients', or an Attribution"
        )
    if baseline is None and of in _FROM_A_BASELINE:
        baseline = ["black", "white"]
    found = method(explainer, inputs, target=target, baseline=baseline, seed=seed, **arguments)
    if not isinstance(found, Attribution):
        raise InputError(f"of is {of!r}, which gives no Attribution")
    return found


# -- what is segmented -------------------------------------------------------------------------


def _pictures(
    inputs: Arrays, name: str | None, image: Any, count: int, size: tuple[int, int]
) -> list[NDArray[Any]]:
    """The picture to segment for each of `count` examples, [H, W] or with channels at either end."""
    if image is None:
        given = _own_picture(inputs, name)
    else:
        given = np.asarray(image)
        if count == 1 and given.ndim in (2, 3) and (given.ndim == 2 or len(given) != 1):
            given = given[None]
    if given.ndim not in (3, 4) or len(given) != count or given.size == 0:
        raise InputError(
            f"the image to segment has shape {list(given.shape)}; expected [{count}, H, W], [{count}, C, H, W] or "
            f"[{count}, H, W, C] for {count} attributions of {size[0]} by {size[1]} pixels"
        )
    return list(given)


def _own_picture(inputs: Arrays, name: str | None) -> NDArray[Any]:
    """The input that is explained, or else the only one that is an image."""
    if not isinstance(inputs, Mapping):
        return np.asarray(inputs)
    if name is not None and name in inputs:
        return np.asarray(inputs[name])
    images = [array for array in map(np.asarray, inputs.values()) if array.ndim == 4]
    if len(images) != 1:
        raise InputError(
            f"{len(images)} of the inputs may be images: pass the one to segment as image="
        )
    return images[0]


def _channels_last(image: NDArray[Any], size: tuple[int, ...]) -> NDArray[np.float64]:
    """A picture as [h, w, C]; `size` (H, W) of the attribution tells its channels where the shape alone does not."""
    picture = as_finite(image, "the image to segment")
    if picture.ndim == 2:
        return picture[..., None]
    if picture.ndim != 3 or picture.size == 0:
        raise InputError(
            f"the image to segment has shape {list(picture.shape)}; expected [H, W], [C, H, W] or [H, W, C]"
        )
    return np.moveaxis(picture, channel_axis(picture.shape, None, (size[0], size[1])), -1)
