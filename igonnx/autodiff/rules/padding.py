"""Pad: by a constant, by its edge, by its mirror image, or by starting over."""

from __future__ import annotations

from typing import cast

import onnx_ir as ir

from igonnx.autodiff.registry import Gradients, Vjp, rule
from igonnx.autodiff.rules.gathering import scatter_back
from igonnx.graph.builder import dims, rank

_LARGEST = 2**63 - 1


@rule("Pad")
def pad(v: Vjp) -> Gradients:
    """Pad with a constant: cut the padding off (negative padding: put zeros back); the constant gets what was cut.

    The other modes repeat elements of x: what arrives at the copies is added to the element.
    """
    op, mode = v.op, v.attribute("mode", "constant")
    if mode != "constant":
        return [_folded(v, mode), None, None, None]
    pads = v.constant(1)
    negated = op.ints((-pads.reshape(-1)).tolist()) if pads is not None else op.Neg(v.input(1))
    to_x = to_value = None
    if v.wanted[0] or (v.optional_input(2) is not None and v.wanted[2]):
        to_x = op.Pad(v.g, negated, None, v.optional_input(3))
    if v.optional_input(2) is not None and v.wanted[2]:
        to_value = op.Sub(op.ReduceSum(v.g, keepdims=0), op.ReduceSum(to_x, keepdims=0))
        to_value = op.reshape_like(to_value, v.input(2))
    return [to_x, None, to_value, None]


def _folded(v: Vjp, mode: str) -> ir.Value:
    """Gradient of a Pad that copies: strips are laid back where sizes are known, else positions tell."""
    pads, axes, n = v.constant(1), v.constant(3), rank(v.x)
    known = pads is not None and (axes is not None or v.optional_input(3) is None)
    if pads is not None and known:
        along = range(n) if axes is None else [int(axis) % n for axis in axes.reshape(-1)]
        amounts = pads.reshape(2, -1).T.tolist()
        strips = [(axis, *both) for axis, both in zip(along, amounts, strict=True) if any(both)]
        if all(_fits(v, mode, *strip) for strip in strips):
            g = v.g
            for axis, before, after in strips:
                g = _laid_back(v, g, mode, axis, before, after)
            return g
    rest = v.node.inputs[3:]
    return scatter_back(v, lambda p: v.op.Pad(p, v.input(1), None, *rest, mode=mode))


def _fits(v: Vjp, mode: str, axis: int, before: int, after: int) -> bool:
    """Whether both strips along `axis` are copies of as many different elements."""
    size = dims(v.x)[axis]
    if not isinstance(size, int) or size == 0 or min(before, after) < 0:
        return False
    longest = {"reflect": size - 1, "wrap": size, "edge": max(before, after)}.get(mode, -1)
    return max(before, after) <= longest


def _laid_back(v: Vjp, g: ir.Value, mode: str, axis: int, before: int, after: int) -> ir.Value:
    """The middle of `g` along `axis`, with the strips before and after it added where they were copied from."""
    op, size = v.op, cast("int", dims(v.x)[axis])

    def placed(strip: ir.Value, first: int, length: int) -> ir.Value:
        pads = [0] * (2 * rank(v.x))
        pads[axis], pads[rank(v.x) + axis] = first, size - first - length
        return cast("ir.Value", op.Pad(strip, pads))

    def strip(start: int, end: int, step: int = 1) -> ir.Value:
        return cast("ir.Value", op.Slice(g, [start], [end], [axis], [step]))

    end = before + size
    parts = [strip(before, end)]
    if mode == "reflect":
        # Mirrored at the first and the last element, which are not copied.
        turned = [(before - 1, -_LARGEST, 1, before), (-1, end - 1, size - 1 - after, after)]
        parts += [
            placed(strip(a, b, -1), first, length) for a, b, first, length in turned if length
        ]
    elif mode == "wrap":
        straight = [(0, before, size - before, before), (end, _LARGEST, 0, after)]
        parts += [placed(strip(a, b), first, length) for a, b, first, length in straight if length]
    else:
        summed = [(0, before, 0, before), (end, _LARGEST, size - 1, after)]
        parts += [
            placed(op.ReduceSum(strip(a, b), [axis], keepdims=1), first, 1)
            for a, b, first, length in summed
            if length
        ]
    return cast("ir.Value", op.Sum(*parts))
