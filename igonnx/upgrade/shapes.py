"""Operators on shapes whose axes and sizes were attributes once: Reshape, Squeeze, Split, Tile, Pad, ..."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from igonnx.upgrade.adapter import Adaptation, adapter


@adapter("Reshape", version=5)
def reshape(a: Adaptation) -> None:
    """Before 5, the shape was an attribute."""
    a.set_inputs(a.input(0), a.integers(list(a.take("shape", ()))))


@adapter("Concat", version=4)
def concat(a: Adaptation) -> None:
    """Before 4, the axis had a default: 1."""
    a.put("axis", a.take("axis", 1))


@adapter("Squeeze", "Unsqueeze", "ReduceSum", version=13)
def axes_input(a: Adaptation) -> None:
    """Before 13, the axes were an attribute; none at all means the same before and after."""
    axes = a.take("axes", ())
    a.set_inputs(a.input(0), a.integers(list(axes)) if axes else None)


@adapter("Split", version=2)
def split_sizes(a: Adaptation) -> None:
    """Before 2, the sizes could come as an input, of the dtype of the data, and the axis had no default."""
    axis = a.take("axis")
    if axis is None:
        a.refuse("the axis is not given, and this version of Split has no default")
    a.put("axis", axis)
    sizes = a.optional_input(1)
    if sizes is not None:
        a.take("split")
        # The adapter for 13 leaves an input alone.
        a.set_inputs(a.input(0), a.emit("Cast", sizes, to=int(ir.DataType.INT64)))


@adapter("Split", version=13)
def split(a: Adaptation) -> None:
    """Before 13, the sizes were an attribute."""
    sizes = a.take("split")
    if sizes:
        a.set_inputs(a.input(0), a.integers(list(sizes)))


@adapter("Tile", version=6)
def tile(a: Adaptation) -> None:
    """Before 6, Tile repeated one axis: both were inputs of one element, of the dtype of the data."""
    x, to = a.input(0), int(ir.DataType.INT64)
    one = a.integers([-1])
    count, axis = (
        a.emit("Reshape", a.emit("Cast", a.input(index), to=to), one) for index in (1, 2)
    )
    ones = a.emit("ConstantOfShape", a.rank_tensor(x), value=ir.tensor(np.ones(1, np.int64)))
    a.set_inputs(x, a.emit("ScatterElements", ones, axis, count))


@adapter("Pad", version=2)
def pad_name(a: Adaptation) -> None:
    """Before 2, the attribute was called paddings."""
    a.put("pads", a.take("paddings", ()))


@adapter("Pad", version=11)
def pad(a: Adaptation) -> None:
    """Before 11, pads and value were attributes."""
    x, value = a.input(0), a.take("value", 0.0)
    pads = a.integers(list(a.take("pads", ())))
    a.set_inputs(x, pads, a.like(value, x) if value else None)


@adapter("Upsample", version=7)
def upsample_scales(a: Adaptation) -> None:
    """Before 7, Upsample took [N, C, H, W] and two attributes; its linear mode was called bilinear."""
    height, width = a.take("height_scale"), a.take("width_scale")
    a.put("scales", [1.0, 1.0, float(height), float(width)])
