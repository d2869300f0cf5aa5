"""DeepLIFT's rules for functions of several numbers: of two tensors, maxima, choices and softmax."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import onnx_ir as ir

from igonnx.autodiff import registry
from igonnx.autodiff.broadcasting import unbroadcast
from igonnx.autodiff.propagation.chords import chord_of, near
from igonnx.autodiff.propagation.linear_operators import vjp_of
from igonnx.autodiff.propagation.references import References
from igonnx.autodiff.registry import Gradients, Vjp
from igonnx.graph.builder import GraphBuilder, dtype_of, rank
from igonnx.graph.node_view import attributes_of

__all__ = ["SEVERAL"]

Rule: TypeAlias = "Callable[[Vjp, References], Gradients]"


# -- two tensors, element by element -----------------------------------------------------------


def _quotient(v: Vjp, references: References) -> Gradients:
    """Div, a times r = 1/b: (a - a0) (r + r0) / 2 and, as r - r0 = (b0 - b) r r0, (b0 - b) r r0 (a + a0) / 2."""
    op, a, b = v.op, v.x, v.input(1)
    r, r0 = op.Reciprocal(b), op.Reciprocal(references.of(b))
    to_a = to_b = None
    if v.wanted[0]:
        to_a = unbroadcast(op, op.Mul(v.g, _mean(op, r, r0)), v.y, a)
    if v.wanted[1]:
        slope = op.Mul(_mean(op, a, references.of(a)), op.Mul(r, r0))
        to_b = unbroadcast(op, op.Neg(op.Mul(v.g, slope)), v.y, b)
    return [to_a, to_b]


def _pair(v: Vjp, references: References) -> Gradients:
    """Pow, Max, Min, PRelu: what each of the two changes, in the mean of the two orders of changing them."""
    op, a, b = v.op, v.x, v.input(1)
    y, y0 = v.y, references.of(v.y)
    whole = op.Sub(y, y0)
    changes: list[ir.Value] = [whole, whole]
    if references.is_live(a) and references.is_live(b):
        first = _applied(v, a, references.of(b))  # a has changed, b has not
        second = _applied(v, references.of(a), b)
        changes = [
            _mean(op, op.Sub(first, y0), op.Sub(y, second)),
            _mean(op, op.Sub(second, y0), op.Sub(y, first)),
        ]
    results: list[ir.Value | None] = []
    for index, (value, change) in enumerate(zip((a, b), changes, strict=True)):
        if not v.wanted[index] or not references.is_live(value):
            results.append(None)
            continue
        slope = _slope(v, references, index, change)
        results.append(unbroadcast(op, op.Mul(v.g, slope), v.y, value))
    return results


def _slope(v: Vjp, references: References, index: int, change: ir.Value) -> ir.Value:
    """`change`, per unit of input `index`, in the shape of the output; the derivative where that hardly changes."""
    op, value = v.op, v.input(index)
    other = references.of(value)
    delta = references.difference(op, value)
    if v.node.op_type != "Pow":
        flat: ir.Value = op.Where(op.Equal(value, other), _kinked(v, index), op.Div(change, delta))
        return flat
    exact = _power_slope(v, references) if index == 0 else None
    if exact is not None:
        return exact
    scale = op.Min(op.Abs(value), op.Abs(other)) if index == 0 else None
    apart = op.Greater(op.Abs(delta), near(op, value, scale))
    return op.Where(apart, op.Div(change, delta), _of_power(v, references, index))  # type: ignore[no-any-return]


def _kinked(v: Vjp, index: int) -> ir.Value:
    """The partial derivative of Max, Min or PRelu by input `index`, in the shape of the output."""
    op, a, b, y = v.op, v.x, v.input(1), v.y
    if v.node.op_type in ("Max", "Min"):
        return op.cast(op.Equal(v.input(index), y), dtype_of(y))
    zero, one = op.scalar(0.0, y), op.scalar(1.0, y)
    positive = op.Greater(a, zero)
    slope = op.Where(positive, one, b) if index == 0 else op.Where(positive, zero, a)
    return cast("ir.Value", slope)


def _of_power(v: Vjp, references: References, index: int) -> ir.Value:
    """The partial derivative of Pow by input `index`: its mean over both ends of both inputs."""
    op = v.op
    ends = [
        [value, references.of(value)] if references.is_live(value) else [value]
        for value in (v.x, v.input(1))
    ]
    terms: list[ir.Value] = []
    for a, b in itertools.product(*ends):
        p, zero, one = op.cast(b, dtype_of(v.y)), op.scalar(0.0, v.y), op.scalar(1.0, v.y)
        if index == 0:
            terms.append(op.Mul(p, op.Pow(a, op.Sub(p, one))))
            continue
        positive = op.Greater(a, zero)
        logarithm = op.Log(op.Where(positive, a, one))
        terms.append(op.Where(positive, op.Mul(op.Pow(a, b), logarithm), zero))
    return op.Mul(op.Sum(*terms), op.scalar(1 / len(terms), v.y))  # type: ignore[no-any-return]


def _power_slope(v: Vjp, references: References) -> ir.Value | None:
    """The chord's slope for the powers that networks are made of, without a quotient that could be all rounding."""
    exponent = v.constant(1)
    if exponent is None or exponent.size != 1:
        return None
    op, x, x0, y, y0 = v.op, v.x, references.of(v.x), v.y, references.of(v.y)
    number = float(exponent.reshape(()))
    if number == 2.0:
        return op.Add(x, x0)  # type: ignore[no-any-return]
    if number == 3.0:
        return op.Add(op.Mul(x, op.Add(x, x0)), op.Mul(x0, x0))  # type: ignore[no-any-return]
    if number == 0.5:
        return op.Reciprocal(op.Add(y, y0))  # type: ignore[no-any-return]
    if number == -1.0:
        return op.Neg(op.Mul(y, y0))  # type: ignore[no-any-return]
    if number == -0.5:
        return op.Neg(op.Div(op.Mul(op.Mul(y, y0), op.Mul(y, y0)), op.Add(y, y0)))  # type: ignore[no-any-return]
    return None


def _applied(v: Vjp, *inputs: ir.Value) -> ir.Value:
    """The operator of the node with its attributes, of other inputs."""
    return cast("ir.Value", v.op.emit(v.node.op_type, *inputs, **attributes_of(v.node)))


def _mean(op: GraphBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return op.Mul(op.Add(a, b), op.scalar(0.5, a))  # type: ignore[no-any-return]


# -- choices -----------------------------------------------------------------------------------


def _where(v: Vjp, references: References) -> Gradients:
    """Where, by a condition that depends on the input: both changes, each by half where the choice changed."""
    op, condition, branches = v.op, v.x, [v.input(1), v.input(2)]
    dtype = dtype_of(v.y)
    changed = op.Xor(condition, references.of(condition))
    first = _mean(op, op.cast(condition, dtype), op.cast(references.of(condition), dtype))
    weights = [first, op.Sub(op.scalar(1.0, first), first)]
    parts: list[Any] = [
        op.Mul(weight, references.difference(op, value))
        for weight, value in zip(weights, branches, strict=True)
        if references.is_live(value)
    ]
    if not parts:
        return [None, None, None]
    expected = parts[0] if len(parts) == 1 else op.Add(*parts)
    whole = references.difference(op, v.y)
    usable = op.Greater(op.Abs(expected), near(op, v.y, op.Abs(whole)))
    scale = op.Where(op.And(changed, usable), op.Div(whole, expected), op.scalar(1.0, v.y))
    g = op.Mul(v.g, scale)
    return [
        None,
        *(
            unbroadcast(op, op.Mul(g, weight), v.y, value) if references.is_live(value) else None
            for weight, value in zip(weights, branches, strict=True)
        ),
    ]


# -- maxima ------------------------------------------------------------------------------------


def _extremum(v: Vjp, references: References) -> Gradients:
    """MaxPool, GlobalMaxPool, ReduceMax, ReduceMin: all of the change to where the greater extremum is.

    If the maximum grew, it is now at an element that has grown by as much at least; if it fell, it was at one that has
    fallen by as much at least. So no multiplier exceeds 1, and where an element has not changed, nothing arrives.
    """
    op, y, y0 = v.op, v.y, references.of(v.y)
    to_now = op.Less(y, y0) if v.node.op_type == "ReduceMin" else op.Greater(y, y0)
    change = op.Mul(v.g, references.difference(op, y))
    zero = op.scalar(0.0, y)
    total: Any = None
    for node, share in (
        (v.node, op.Where(to_now, change, zero)),
        (references.copy_of(v.node), op.Where(to_now, zero, change)),
    ):
        share.shape = y.shape
        rule = registry.find(node)
        others = tuple(None for _ in v.gradients[1:])
        found = None if rule is None else rule(vjp_of(v, node, (share, *others)))[0]
        if found is None:
            raise v.unsupported("its maximum")
        total = found if total is None else op.Add(total, found)
    unchanged = op.Equal(v.x, references.of(v.x))
    slope = op.Where(unchanged, zero, op.Div(total, references.difference(op, v.x)))
    return [slope, *[None] * (len(v.node.inputs) - 1)]


# -- softmax and its kind ----------------------------------------------------------------------


def _softmax(v: Vjp, references: References) -> Gradients:
    """Softmax, exp(z) of the log-softmax z: its chord, then that of LogSoftmax."""
    op, axis = v.op, v.attribute("axis", -1)
    z, z0 = (op.LogSoftmax(x, axis=axis) for x in (v.x, references.of(v.x)))
    y, y0 = v.y, references.of(v.y)
    arriving = op.Mul(v.g, chord_of(op, y, y0, z, z0, _mean(op, y, y0)))
    # Nothing goes to what has no weight: minus infinity, behind a mask.
    arriving = op.Where(op.Equal(op.Add(y, y0), op.scalar(0.0, y)), op.scalar(0.0, y), arriving)
    return [_through_log_softmax(v, references, arriving, axis)]


def _log_softmax(v: Vjp, references: References) -> Gradients:
    """LogSoftmax, x - log sum exp x."""
    return [_through_log_softmax(v, references, v.g, v.attribute("axis", -1))]


def _through_log_softmax(v: Vjp, references: References, g: ir.Value, axis: int) -> ir.Value:
    total = v.op.ReduceSum(g, [axis], keepdims=1)
    slope = _log_sum_exp_slope(v.op, v.x, references.of(v.x), [axis])
    return v.op.Sub(g, v.op.Mul(slope, total))  # type: ignore[no-any-return]


def _log_sum_exp(v: Vjp, references: References) -> Gradients:
    """ReduceLogSumExp over axes that stay as ones (the others are taken apart before)."""
    axes = v.axes()
    if axes is None and v.optional_input(1) is not None:
        raise v.unsupported("axes known only at run time, by DeepLIFT")
    axes = axes or list(range(rank(v.x)))
    slope = _log_sum_exp_slope(v.op, v.x, references.of(v.x), axes)
    return [v.op.Mul(v.g, slope), *[None] * (len(v.node.inputs) - 1)]


def _log_sum_exp_slope(op: GraphBuilder, x: ir.Value, x0: ir.Value, axes: list[int]) -> ir.Value:
    """The multipliers of log sum exp by each of its inputs: those of each exp times that of the log.

    With the largest of both ends taken from both, no exp overflows and one sum at least is 1 or more: the log of the
    other, which may be zero, is the difference of the two log sums, each computed in its own range.
    """
    largest = op.Max(op.reduce("ReduceMax", x, axes), op.reduce("ReduceMax", x0, axes))
    u, u0 = (op.Exp(op.Sub(value, largest)) for value in (x, x0))
    total, total0 = (op.ReduceSum(value, axes, keepdims=1) for value in (u, u0))
    logs = [op.reduce("ReduceLogSumExp", value, axes) for value in (x, x0)]
    delta = op.Sub(total, total0)
    apart = op.Greater(op.Abs(delta), near(op, total, op.Max(total, total0)))
    of_log = op.Where(
        apart,
        op.Div(op.Sub(*logs), delta),
        _mean(op, op.Reciprocal(total), op.Reciprocal(total0)),
    )
    return op.Mul(chord_of(op, u, u0, x, x0, _mean(op, u, u0)), of_log)  # type: ignore[no-any-return]


SEVERAL: dict[tuple[str, str], Rule] = {
    ("", "Div"): _quotient,
    ("", "LogSoftmax"): _log_softmax,
    ("", "ReduceLogSumExp"): _log_sum_exp,
    ("", "Softmax"): _softmax,
    ("", "Where"): _where,
    **{("", name): _pair for name in ("Max", "Min", "PRelu", "Pow")},
    **{("", name): _extremum for name in ("GlobalMaxPool", "MaxPool", "ReduceMax", "ReduceMin")},
}
