"""Heat maps drawn inside the graph, as `igonnx.visual.heat_map` draws them outside.

The attribution of a picture is reduced over its channels, and scaled so that one per cent of the pixels may saturate:
by the 99th percentile of the magnitudes of each example, interpolated between two pixels, or by the largest where that
percentile is zero. Zero stays zero. A map of a tensor inside a network is then scaled up to the image, linearly between
the centres of its pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from igonnx.augmentation.interface import Result
from igonnx.channels import channel_axis
from igonnx.errors import InputError
from igonnx.graph.builder import Dim, GraphBuilder, dims
from igonnx.model import Model
from igonnx.visual.colours import GLOW, ramp

__all__ = ["HEATMAPS", "Picture", "draw", "pictures_of"]

HEATMAPS = ("sum", "absolute", "overlay")
OPACITY = 0.85  # of the strongest pixels of an overlay
_SATURATED = 1  # per cent of the pixels


@dataclass(frozen=True)
class Picture:
    """An explained tensor that is a picture [N, H, W] or, with channels, [N, C, H, W] or [N, H, W, C]."""

    name: str
    kind: str
    threshold: float  # pixels of an overlay that are weaker are transparent
    channels: int | None  # their axis
    image: tuple[
        str, tuple[int, int]
    ]  # the input that the map is as large as, and its axes of height and width

    @property
    def outputs(self) -> list[str]:
        """Names of what is drawn."""
        overlay = [f"overlay_{self.name}"] if self.kind == "overlay" else []
        return [f"heatmap_{self.name}", *overlay]


def pictures_of(
    model: Model, tensors: Sequence[ir.Value], kind: str | None, threshold: float
) -> tuple[Picture, ...]:
    """The pictures among the explained tensors: all with four axes, and inputs of the model with three.

    Raises `InputError` for an unknown kind, and where there is none.
    """
    if kind is None:
        return ()
    if kind not in HEATMAPS:
        raise InputError(f"heatmap is {kind!r}; expected None, {', '.join(map(repr, HEATMAPS))}")
    if not isinstance(threshold, Real) or not 0 <= float(threshold) <= 1:
        raise InputError(f"heatmap_threshold is {threshold!r}; expected a number from 0 to 1")
    inputs = {info.name: info.shape for info in model.inputs}
    images = [name for name, shape in inputs.items() if len(shape) == 4]
    found = []
    for value in tensors:
        name, shape = cast("str", value.name), dims(value)
        axis = _channels(shape)
        if name in inputs and len(shape) in (3, 4):
            found.append(Picture(name, kind, threshold, axis, (name, _sides(axis))))
        elif len(shape) == 4 and images:
            sides = _sides(_channels(inputs[images[0]]))
            axis = _channels(shape, [inputs[images[0]][side] for side in sides])
            found.append(Picture(name, kind, threshold, axis, (images[0], sides)))
    if not found:
        shapes = "; ".join(f"{v.name!r} has {len(dims(v))} axes" for v in tensors)
        raise InputError(
            f"heatmap={kind!r} is for pictures, [N, C, H, W] or [N, H, W, C], but {shapes}"
        )
    return tuple(found)


def draw(op: GraphBuilder, picture: Picture, attribution: ir.Value, model: Model) -> list[Result]:
    """Emit the heat map [N, H, W] of `attribution` [N, ...] and, if asked for, its colours [N, H, W, 4]."""
    value = attribution if picture.kind == "sum" else op.Abs(attribution)
    if picture.channels is not None:
        value = op.ReduceSum(value, [picture.channels], keepdims=0)
    heat = _scaled(op, value)
    name, sides = picture.image
    image = model.find_tensor(name)
    if name != picture.name:
        heat = _resized(op, heat, [op.dim(image, side) for side in sides])
    heat = op.cast(heat, ir.DataType.FLOAT)
    sizes = [(image, side) for side in sides]
    drawn = [Result(f"heatmap_{picture.name}", heat, sizes)]
    if picture.kind == "overlay":
        drawable = op.Where(
            op.IsNaN(heat), op.scalar(0.0, heat), heat
        )  # NaN is no place in a table
        strength = op.Cast(op.Round(op.Mul(drawable, 255.0)), to=int(ir.DataType.INT64))
        colours = op.Gather(_table(picture.threshold), strength, axis=0)
        colours.type = ir.TensorType(ir.DataType.UINT8)
        drawn.append(Result(f"overlay_{picture.name}", colours, [*sizes, 4]))
    return drawn


def _channels(shape: Sequence[Dim], size: Sequence[Dim] = ()) -> int | None:
    """The axis of the channels, 1 or the last, of a picture [N, ...] that belongs to an image of this size."""
    if len(shape) != 4:
        return None
    inner = shape[1:]
    known = tuple(axis for axis in inner if isinstance(axis, int))
    if len(known) == len(inner):
        sides = tuple(side for side in size if isinstance(side, int))
        return 1 + channel_axis(known, size=sides if len(sides) == 2 else None)
    # Of channels, other than of sides, the number is known.
    return len(shape) - 1 if not isinstance(inner[0], int) and isinstance(inner[-1], int) else 1


def _sides(channels: int | None) -> tuple[int, int]:
    return (2, 3) if channels == 1 else (1, 2)


def _scaled(op: GraphBuilder, heat: ir.Value) -> ir.Value:
    """A map [N, H, W] in [-1, 1], by the percentile of its magnitudes."""
    flat = op.Flatten(op.Abs(heat), axis=1)
    last = op.Sub(op.Slice(op.Shape(flat), [1], [2], [0]), [1])
    place = op.Mul(last, [100 - _SATURATED])
    strongest = op.Add(op.Sub(last, op.Div(place, [100])), [1])
    values, places = op.emit("TopK", flat, strongest, outputs=2, axis=1, largest=1, sorted=1)
    places.type = ir.TensorType(ir.DataType.INT64)
    weaker = op.Gather(values, op.Sub(strongest, [1]), axis=1)
    stronger = op.Gather(values, op.Max(op.Sub(strongest, [2]), [0]), axis=1)
    between = op.Div(op.Cast(op.Mod(place, [100]), to=int(cast("ir.DataType", flat.dtype))), 100.0)
    full = op.Add(weaker, op.Mul(op.Sub(stronger, weaker), between))
    full = op.Where(op.Equal(full, 0.0), op.Gather(values, [0], axis=1), full)
    full = op.Where(op.Equal(full, 0.0), op.scalar(1.0, flat), full)
    ratio = op.Div(heat, op.Unsqueeze(full, [2]))
    return cast("ir.Value", op.Clip(ratio, op.scalar(-1.0, flat), op.scalar(1.0, flat)))


def _resized(op: GraphBuilder, heat: ir.Value, sides: Sequence[ir.Value]) -> ir.Value:
    """A map [N, h, w] as [N, H, W]."""
    planes = op.Unsqueeze(heat, [1])
    sizes = op.join(op.Slice(op.Shape(planes), [0], [2], [0]), *sides)
    resized = op.Resize(
        planes, None, None, sizes, mode="linear", coordinate_transformation_mode="half_pixel"
    )
    return cast("ir.Value", op.Squeeze(resized, [1]))


def _table(threshold: float) -> NDArray[np.uint8]:
    """Red, green, blue and opacity of 256 strengths, uint8 [256, 4]."""
    strength = np.arange(256) / 255
    opacity = np.where(strength >= threshold, OPACITY * strength, 0.0)
    table = np.column_stack([ramp(strength, GLOW), opacity])
    return np.asarray(np.rint(255 * table), dtype=np.uint8)
