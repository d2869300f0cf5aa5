"""The views of an attribution that Captum draws, as plain arrays: heat map, blended, masked, as transparency.

They follow Captum's `visualize_image_attr`: channels are summed first and the sign is taken of the sum, and strength
is scaled by a share of the total attribution rather than of the pixels (`share_scale`). What is done otherwise here:

- an all-zero map, or one without a pixel of the chosen sign, is a view of zero strength (Captum divides by zero);
- an `outlier_percentile` of 0 always means the maximum (Captum may find no pixel at all, for rounding);
- the grey image under a blended heat map keeps its own contrast (Captum's stretches to the darkest and lightest pixel);
- colours are rounded, not cut, to 0..255.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from igonnx.channels import Layout
from igonnx.checks import require_choice
from igonnx.errors import InputError
from igonnx.visual.arguments import require_outlier_percentile, require_part
from igonnx.visual.colouring import Colouring, Colours, colouring
from igonnx.visual.colours import luminance
from igonnx.visual.heatmap import Heat, Sign, contributions, in_scale, require_sign
from igonnx.visual.overlay import as_rgb, resize_heat, to_uint8
from igonnx.visual.polarity import apply_polarity

__all__ = ["Kind", "check_view", "paint", "share_scale", "strengths", "view"]

Kind = Literal["original_image", "heat_map", "blended_heat_map", "masked_image", "alpha_scaling"]


def view(
    values: NDArray[Any],
    image: NDArray[Any] | None = None,
    *,
    kind: Kind = "heat_map",
    sign: Sign = "absolute",
    outlier_percentile: float = 2.0,
    colours: Colours | None = None,
    opacity: float = 0.5,
    layout: Layout | None = None,
    smooth: float | None = 0.0,
) -> NDArray[np.uint8]:
    """Draw one view of an attribution: uint8 [H, W, 3], or RGBA [H, W, 4] for "alpha_scaling".

    values: [H, W], [C, H, W] or [H, W, C], with or without a leading axis of 1; where there is an image, the map is
    scaled to its size, as one of an inner layer has to be. image: uint8 0..255 or floats 0..1, grey or RGB; only
    "heat_map" can do without.
    kind: "original_image"; "heat_map" in colours; "blended_heat_map", the same with this `opacity` over the image in
    grey; "masked_image", the image times the strength; "alpha_scaling", the image with the strength as its opacity.
    sign: "positive", "negative" or "absolute" (strength is 0 to 1); "all" (-1 to 1), which only heat maps can show.
    outlier_percentile: the strongest pixels that together hold this percentage of the total are at full strength.
    colours: of heat maps, see `igonnx.visual.colouring`. layout, smooth: as for `igonnx.visual.heat_map`
    (Captum does not smooth).
    Raises `InputError` for NaN, infinity, shapes that do not fit, and choices that do not exist.
    """
    check_view(kind, sign, opacity, image)
    picture = None if image is None else as_rgb(image)
    heat, _ = strengths(
        values,
        size=None if picture is None else (picture.shape[0], picture.shape[1]),
        sign=sign,
        outlier_percentile=outlier_percentile,
        layout=layout,
        smooth=smooth,
    )
    return paint(kind, heat, picture, colouring(colours, sign), opacity)


def paint(
    kind: Kind,
    strength: Heat,
    picture: NDArray[np.float64] | None,
    colour: Colouring,
    opacity: float,
) -> NDArray[np.uint8]:
    """Draw a view of strengths [H, W] and a picture [H, W, 3] in [0, 1] of the same size; see `view`."""
    if picture is None or kind == "heat_map":
        return to_uint8(colour(strength))
    if kind == "original_image":
        return to_uint8(picture)
    if kind == "masked_image":
        return to_uint8(picture * strength[..., None])
    if kind == "alpha_scaling":
        return to_uint8(np.concatenate([picture, strength[..., None]], axis=2))
    grey = luminance(picture)[..., None]
    return to_uint8((1 - opacity) * grey + opacity * colour(strength))


def strengths(
    values: NDArray[Any],
    *,
    size: tuple[int, int] | None = None,
    sign: Sign = "absolute",
    outlier_percentile: float = 2.0,
    layout: Layout | None = None,
    smooth: float | None = 0.0,
) -> tuple[Heat, float]:
    """Scale an attribution to strengths, float64 [H, W], and give what full strength stands for.

    The arguments are those of `view`; size: the image's (H, W), to which the map is scaled. Strengths lie in [-1, 1]
    for sign "all" and in [0, 1] else, also for "negative". Full strength is in the attribution's own units, 0 where
    no pixel has the sign.
    """
    heat = contributions(values, layout=layout, size=size)
    if sign == "absolute":  # before smoothing: magnitudes must not cancel
        heat = np.abs(heat)
    heat = apply_polarity(contributions(heat, smooth=smooth), sign)
    scale = share_scale(heat, outlier_percentile)
    strength = in_scale(heat, scale)
    return (strength if size is None else resize_heat(strength, size)), scale


def share_scale(heat: Heat, outlier_percentile: float = 2.0) -> float:
    """Tell the magnitude of full strength by the share of the total: Captum's outlier percentile.

    With the magnitudes sorted, it is the first at which their running sum reaches (100 - outlier_percentile) per cent
    of the whole. So what lies above it holds no more than that percentage of the attribution, however few or many
    pixels these are. 0 for an all-zero map. `igonnx.visual.heatmap.full_scale` goes by the share of pixels instead.
    """
    require_outlier_percentile(outlier_percentile)
    magnitude = np.sort(np.abs(heat), axis=None)
    largest = float(magnitude[-1])
    if largest == 0:
        return 0.0
    # In parts of the largest, so that sums of huge numbers do not overflow, nor tiny ones vanish.
    running = np.cumsum(magnitude / largest)
    reached = int(np.searchsorted(running, running[-1] * (1 - outlier_percentile / 100)))
    return float(magnitude[min(reached, magnitude.size - 1)]) or largest


def check_view(kind: Kind, sign: Sign, opacity: float, image: NDArray[Any] | None) -> None:
    """Raise `InputError` for a view that does not exist or cannot be drawn from what is there."""
    require_choice("kind", kind, Kind)
    require_sign(sign)
    require_part("opacity", opacity)
    if image is None and kind != "heat_map":
        raise InputError(f"kind {kind!r} needs the image; only 'heat_map' can be drawn without")
    if sign == "all" and kind in ("masked_image", "alpha_scaling"):
        raise InputError(
            f"kind {kind!r} shows strengths without a sign and sign is 'all', "
            "expected 'positive', 'negative' or 'absolute'"
        )
