"""Upsample, Resize and RoiAlign: sampling whose coordinates were implied before they could be chosen."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from igonnx.upgrade.adapter import Adaptation, adapter


@adapter("Upsample", version=9)
def upsample_input(a: Adaptation) -> None:
    """Before 9, the scales were an attribute."""
    scales = np.asarray(a.take("scales", ()), np.float32)
    a.set_inputs(a.input(0), a.scope.constant(scales))


@adapter("Upsample", version=10)
def upsample(a: Adaptation) -> None:
    """Since 10, Upsample is called Resize."""
    a.node.op_type = "Resize"


@adapter("Resize", version=11)
def resize(a: Adaptation) -> None:
    """Before 11, output index i lay at i / scale; the nearest mode rounded down to enlarge and up to reduce.

    The rounding is what ONNX Runtime does, the standard left it open. An axis that keeps its size comes out the same
    either way. As the nearest mode treats each axis by itself, a Resize that may do both is one of each.
    """
    x, scales = a.input(0), a.input(1)
    mode = a.take("mode", "nearest")
    if mode != "nearest":
        _to_resize(a, x, scales, mode="linear")
        return
    known = a.constant_of(scales)
    one = a.scope.constant(np.ones(1, np.float32))
    if known is not None and (known >= 1).all():
        _to_resize(a, x, scales, mode=mode, nearest_mode="floor")
    elif known is not None and (known <= 1).all():
        _to_resize(a, x, scales, mode=mode, nearest_mode="ceil")
    else:
        smaller, larger = a.emit("Min", scales, one), a.emit("Max", scales, one)
        options = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
        reduced = a.emit("Resize", x, None, smaller, nearest_mode="ceil", **options)
        _to_resize(a, reduced, larger, mode=mode, nearest_mode="floor")


def _to_resize(a: Adaptation, x: ir.Value, scales: ir.Value, **attributes: str) -> None:
    a.become("Resize", x, None, scales, coordinate_transformation_mode="asymmetric", **attributes)


@adapter("Resize", version=13)
def resize_inputs(a: Adaptation) -> None:
    """Before 13, what was not given had to be an empty tensor, and tf_half_pixel_for_nn was a mode of its own."""
    x, roi, scales, sizes = (a.optional_input(index) for index in range(4))
    attributes = a.node.attributes
    mode = attributes.get_string("coordinate_transformation_mode", "half_pixel")
    if mode != "tf_crop_and_resize":
        roi = None
    if sizes is not None:
        sizes, scales = (None, scales) if _is_empty(a, sizes) else (sizes, None)
    a.set_inputs(x, roi, scales, sizes)
    nearest = attributes.get_string("nearest_mode", "round_prefer_floor")
    if mode == "tf_half_pixel_for_nn" and nearest == "floor":
        # floor(u + 1/2) is rounding u with ties upwards.
        a.put("coordinate_transformation_mode", "half_pixel")
        a.put("nearest_mode", "round_prefer_ceil")


def _is_empty(a: Adaptation, value: ir.Value | None) -> bool:
    known = a.constant_of(value)
    if known is not None:
        return known.size == 0
    return value is not None and value.shape is not None and 0 in value.shape


@adapter("RoiAlign", version=16)
def roi_align(a: Adaptation) -> None:
    """Before 16, regions were not shifted by half a pixel."""
    a.put("coordinate_transformation_mode", "output_half_pixel")
