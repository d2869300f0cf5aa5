"""AffineGrid: where an affine map looks in an image."""

from __future__ import annotations

import onnx_ir as ir

from igonnx.graph.builder import dims, dtype_of
from igonnx.graph.node_view import NodeView
from igonnx.lowering.registry import Lowered, lowering


@lowering("AffineGrid")
def affine_grid(n: NodeView) -> Lowered:
    """AffineGrid: theta times the homogeneous coordinates of the output's pixels, which span [-1, 1] per axis.

    theta [N, 2, 3] or [N, 3, 4], size [N, C, (D,) H, W]; the grid is [N, (D,) H, W, 2 or 3], x first. The standard's
    own body decides at run time how many axes there are, so that shapes are lost in it.
    """
    op, theta, size = n.op, n.x, n.input(1)
    axes = dims(theta)[1]
    if not isinstance(axes, int):
        raise n.unsupported("theta of an unknown number of axes")
    align = bool(n.attribute("align_corners", 0))
    # Coordinates [D H W, 1] of each axis, x first as in theta, and ones.
    columns = [_coordinates(n, size, axis, axes, align=align) for axis in range(axes)][::-1]
    ones = op.Add(op.Mul(columns[0], 0.0), 1.0)
    homogeneous = op.Concat(*columns, ones, axis=1)
    grid = op.MatMul(homogeneous, op.Transpose(theta, perm=[0, 2, 1]))
    batch = op.Gather(op.Shape(theta), [0], axis=0)
    spatial = op.Slice(size, [2], [2 + axes])
    shape = op.Concat(batch, op.cast(spatial, ir.DataType.INT64), [axes], axis=0)
    grid = op.Reshape(grid, shape)
    grid.shape = ir.Shape([dims(theta)[0], *[None] * axes, axes])
    return [grid]


def _coordinates(n: NodeView, size: ir.Value, axis: int, axes: int, *, align: bool) -> ir.Value:
    """Of every pixel, the coordinate along one spatial axis, [pixels, 1]."""
    op, dtype = n.op, dtype_of(n.x)
    length = op.Gather(size, op.ints(2 + axis), axis=0)
    steps = op.Range(op.ints(0), length, op.ints(1))
    index, count = op.cast(steps, dtype), op.cast(length, dtype)
    if align:
        # From end to end; a single pixel stands at -1.
        last = op.Max(op.Sub(count, 1.0), op.scalar(1.0, count))
        along = op.Sub(op.Div(op.Mul(index, 2.0), last), 1.0)
    else:
        along = op.Sub(op.Div(op.Add(op.Mul(index, 2.0), 1.0), count), 1.0)
    shape = [1] * axes
    shape[axis] = -1
    spatial = op.Slice(size, [2], [2 + axes])
    everywhere = op.Expand(op.Reshape(along, shape), spatial)
    return op.Reshape(everywhere, [-1, 1])  # type: ignore[no-any-return]
