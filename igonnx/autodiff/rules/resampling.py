"""Resize: linear in its input and separable, so its gradient is one matrix product per resized axis."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import onnx_ir as ir

from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.graph.builder import dims, dtype_of, rank, static_shape

_FLOAT = ir.DataType.FLOAT
# Interpolations whose place in the input follows from the index and the scale alone, whatever the axes' lengths.
_LENGTH_FREE = ("half_pixel", "asymmetric")
# An axis is padded with this many copies of its last element, at most that is what an interpolation reads.
_BEYOND = 4


@rule("Resize")
def resize(v: Vjp) -> Gradients:
    """Resize: per resized axis, dX = W^T dY, where W [outputs, inputs] is the resized identity matrix.

    The runtime makes W with the node's own attributes and the very scale it used; it does so when it loads the
    graph, if the sizes are static. Scales, sizes and the region of interest get no gradient.
    """
    inputs = [None] * (len(v.node.inputs) - 1)
    if static_shape(v.x) is not None and static_shape(v.x) == static_shape(v.y):
        return [v.g, *inputs]  # the runtime copies then, whatever the scales
    given = v.attribute("axes") or range(rank(v.x))
    if _policy(v) != "stretch" and min(given) < 0:
        raise v.unsupported(
            "keep_aspect_ratio_policy with negative axes, which ONNX Runtime leaves out: count them from the first one"
        )
    axes = [axis % rank(v.x) for axis in given]
    resized = [(place, axis) for place, axis in enumerate(axes) if _may_resize(v, place, axis)]
    if not resized:
        return [v.g, *inputs]
    factors = [_repetitions(v, place, axis) for place, axis in resized]
    if all(factors):
        return [
            _sum_of_copies(v, dict(zip((a for _, a in resized), factors, strict=True))),
            *inputs,
        ]
    g, sizes = v.g, [v.op.dim(v.y, axis) for axis in range(rank(v.x))]
    for place, axis in sorted(resized, key=lambda pair: -pair[1]):
        g = _apply(v, g, axis, _matrix(v, place, axis), sizes)
    return [g, *inputs]


def _by_sizes(v: Vjp) -> bool:
    """Whether sizes are given, not scales; what is not given may be an empty constant."""
    sizes = v.constant(3)
    return v.optional_input(3) is not None and (sizes is None or sizes.size > 0)


def _given_scale(v: Vjp, place: int) -> float | None:
    """The constant scale of an axis, or None."""
    scales = None if _by_sizes(v) else v.constant(2)
    return None if scales is None else float(scales.reshape(-1)[place])


def _policy(v: Vjp) -> str:
    return str(v.attribute("keep_aspect_ratio_policy", "stretch")) if _by_sizes(v) else "stretch"


def _may_resize(v: Vjp, place: int, axis: int) -> bool:
    """Whether the axis is resized, as far as is known: an axis of scale one passes as it is."""
    if not _by_sizes(v):
        return _given_scale(v, place) != 1
    if _policy(v) != "stretch":
        return True
    if v.attribute("mode", "nearest") != "nearest" and rank(v.x) > 3 and axis == 0:
        return False  # no runtime interpolates along the batch axis
    before, after = dims(v.x)[axis], dims(v.y)[axis]
    return before is None or before != after


def _repetitions(v: Vjp, place: int, axis: int) -> int | None:
    """How often each element is repeated along the axis, where nearest neighbours come to just that."""
    if v.attribute("mode", "nearest") != "nearest" or _policy(v) != "stretch":
        return None
    where = v.attribute("coordinate_transformation_mode", "half_pixel")
    nearest = v.attribute("nearest_mode", "round_prefer_floor")
    if (where, nearest) not in (
        ("asymmetric", "floor"),
        ("half_pixel", "round_prefer_floor"),
        ("half_pixel", "round_prefer_ceil"),
    ):
        return None
    factor = _given_scale(v, place)
    before, after = dims(v.x)[axis], dims(v.y)[axis]
    if factor is None and _by_sizes(v) and isinstance(before, int) and isinstance(after, int):
        factor = after / before if before else None
    return int(factor) if factor is not None and factor >= 1 and factor == int(factor) else None


def _sum_of_copies(v: Vjp, factors: dict[int, int | None]) -> ir.Value:
    """The gradients of all copies of each element, added up."""
    op, parts, copies = v.op, [], []
    for axis in range(rank(v.x)):
        parts.append(op.dim(v.x, axis))
        if axis in factors:
            copies.append(len(parts))
            parts.append(op.ints([cast("int", factors[axis])]))
    split = op.Reshape(v.g, op.join(*parts), allowzero=1)
    return cast("ir.Value", op.ReduceSum(split, copies, keepdims=0))


def _apply(v: Vjp, g: ir.Value, axis: int, transposed: ir.Value, sizes: list[ir.Value]) -> ir.Value:
    """W^T [inputs, outputs] times `g` of these `sizes` along `axis`; the sizes are brought up to date."""
    op, last = v.op, rank(v.x) - 1
    matrix = op.Transpose(op.cast(transposed, dtype_of(v.g)), perm=[1, 0])
    sizes[axis] = op.dim(v.x, axis)
    if axis == last:
        return cast("ir.Value", op.MatMul(g, matrix))
    swap = list(range(last + 1))
    swap[axis], swap[last] = last, axis
    # As rows: the runtime multiplies an empty batch by a matrix only from the right, and does not transpose it as well.
    rows = op.Flatten(op.Transpose(g, perm=swap), axis=last)
    shape = op.join(*(sizes[i] for i in swap))
    product = op.Reshape(op.MatMul(rows, matrix), shape, allowzero=1)
    return cast("ir.Value", op.Transpose(product, perm=swap))


def _matrix(v: Vjp, place: int, axis: int) -> ir.Value:
    """W^T of one axis, float32 [inputs, outputs]: rows of the identity as images of height one."""
    op = v.op
    size = op.dim(v.x, axis)
    identity = op.EyeLike(op.zeros(op.join(size, size), _FLOAT))
    attributes = _attributes(v)
    roi = _region(v, place)
    if _by_sizes(v) and (_policy(v) == "stretch" or _depends_on_lengths_only(v)):
        images = op.Unsqueeze(identity, [1, 2])
        sizes = op.join(size, [1, 1], op.dim(v.y, axis))
        return cast(
            "ir.Value", op.Squeeze(op.Resize(images, roi, None, sizes, **attributes), [1, 2])
        )
    # A second row: where no size changes the runtime copies and lets the scales be.
    rows = _rows(v)
    if _by_sizes(v):
        images, scale = _with_common_scale(v, identity, rows)
    else:
        images = identity
        scale = op.Gather(op.cast(v.input(2), _FLOAT), [place], axis=0)
    ones = op.constant(np.ones(2, np.float32))
    scales = op.Concat(ones, rows, scale, axis=0)
    images = op.Resize(op.Unsqueeze(images, [1, 2]), roi, scales, **attributes)
    first = op.Slice(images, [0, 0], op.join([1], op.dim(v.y, axis)), [2, 3])
    return cast("ir.Value", op.Squeeze(first, [1, 2]))


def _attributes(v: Vjp) -> dict[str, Any]:
    """The node's attributes that say how to interpolate; without `extrapolation_value`, which is a constant term."""
    names = [
        "antialias", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside", "mode", "nearest_mode",
    ]  # fmt: skip
    return {name: v.attribute(name) for name in names if name in v.node.attributes}


def _region(v: Vjp, place: int) -> ir.Value | None:
    """The region of interest of an image of height one whose width is the axis."""
    op = v.op
    if v.attribute("coordinate_transformation_mode") != "tf_crop_and_resize":
        return None
    if v.optional_input(1) is None:
        raise v.unsupported("tf_crop_and_resize without a region of interest")
    count = len(v.attribute("axes") or range(rank(v.x)))
    roi = op.cast(v.input(1), _FLOAT)
    start, end = (op.Gather(roi, [at], axis=0) for at in (place, count + place))
    zeros, ones = op.constant(np.zeros(3, np.float32)), op.constant(np.ones(3, np.float32))
    return cast("ir.Value", op.Concat(zeros, start, ones, end, axis=0))


def _rows(v: Vjp) -> ir.Value:
    """Scale of the images' height, float32 [1]: two, or one where no axis of the node changes its size."""
    op = v.op
    pairs = zip(dims(v.x), dims(v.y), strict=True)
    if any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs):
        return op.constant(np.array([2], np.float32))
    differs = op.Not(op.Equal(op.shape(v.x), op.shape(v.y)))
    any_differs = op.reduce("ReduceMax", op.cast(differs, _FLOAT), [0])
    return cast("ir.Value", op.Add(any_differs, op.constant(np.array([1], np.float32))))


def _depends_on_lengths_only(v: Vjp) -> bool:
    return v.attribute("coordinate_transformation_mode", "half_pixel") in (
        "align_corners",
        "tf_crop_and_resize",
    ) and not v.attribute("antialias", 0)


def _with_common_scale(v: Vjp, identity: ir.Value, rows: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The identity and the scale of all axes where the aspect ratio is kept.

    The size is the scaled length rounded up or down, but Resize by scales rounds down: so the axis is made longer by
    copies of its last element, where interpolation ends up anyway, and what is too much gets cut off.
    """
    op, policy = v.op, _policy(v)
    mode = v.attribute("coordinate_transformation_mode", "half_pixel")
    if mode not in _LENGTH_FREE or v.attribute("antialias", 0) or v.attribute("exclude_outside", 0):
        raise v.unsupported(f"keep_aspect_ratio_policy {policy!r} with mode {mode!r} as it is used")
    axes = v.attribute("axes")
    before = op.shape(v.x)
    if axes:
        before = op.Gather(before, [axis % rank(v.x) for axis in axes], axis=0)
    ratios = op.Div(op.cast(v.input(3), _FLOAT), op.cast(before, _FLOAT))
    scale = op.reduce("ReduceMin" if policy == "not_larger" else "ReduceMax", ratios, [0])
    one = op.constant(np.ones(1, np.float32))
    scale = op.Where(op.Equal(rows, one), one, scale)
    more = op.Ceil(op.Div(one, scale))
    more = op.Add(op.cast(more, ir.DataType.INT64), [_BEYOND])
    padded = op.Pad(identity, op.join([0, 0, 0], more), mode="edge")
    return padded, scale
