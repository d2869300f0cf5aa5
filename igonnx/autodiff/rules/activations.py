"""Activation functions. At a kink the derivative is the one PyTorch takes."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import onnx_ir as ir

from igonnx.autodiff.broadcasting import unbroadcast
from igonnx.autodiff.registry import Gradients, Vjp, elementwise, rule
from igonnx.graph.builder import GraphBuilder


def pass_between(
    op: GraphBuilder, g: ir.Value, y: ir.Value, lower: float, upper: float = math.inf
) -> ir.Value:
    """`g` where lower < y < upper, zero elsewhere: one pass by the plugin's operator where native lowering is on."""
    # Its bounds have single precision.
    exact = y.dtype == ir.DataType.FLOAT or (
        y.dtype == ir.DataType.DOUBLE and all(float(np.float32(b)) == b for b in (lower, upper))
    )
    if op.native and exact:
        return op.emit("ActivationMask", g, y, domain="ai.igonnx", lower=lower, upper=upper)  # type: ignore[no-any-return]
    inside = op.Greater(y, lower)
    if upper != math.inf:
        inside = op.And(inside, op.Less(y, upper))
    return op.Where(inside, g, op.scalar(0.0, y))  # type: ignore[no-any-return]


elementwise("Relu", lambda op, g, x, y: pass_between(op, g, y, 0.0))
elementwise("Sigmoid", lambda op, g, x, y: op.Mul(g, op.Mul(y, op.Sub(op.scalar(1, y), y))))
elementwise("Softplus", lambda op, g, x, y: op.Mul(g, op.Sigmoid(x)))


@rule("Clip")
def clip(v: Vjp) -> Gradients:
    """Clip: by x inside the bounds, by a bound where it holds; as torch.clamp, also for bounds in the wrong order.

    At a bound itself the slope by x is 1, but for Clip(0, 6) it is 0 as for torch.nn.ReLU6.
    """
    to_x = _clipped(v) if v.wanted[0] else None
    return [to_x, *(_by_bounds(v) if any(v.wanted[1:]) else [None, None])]


def _clipped(v: Vjp) -> ir.Value:
    op, x = v.op, v.x
    lower, upper = (_bound(v, 1), _bound(v, 2))
    if lower == 0.0 and upper == 6.0:
        return pass_between(op, v.g, v.y, 0.0, 6.0)
    conditions = [
        comparison(x, bound)
        for comparison, bound in (
            (op.GreaterOrEqual, v.optional_input(1)),
            (op.LessOrEqual, v.optional_input(2)),
        )
        if bound is not None
    ]
    if not conditions:
        return v.g
    inside = conditions[0] if len(conditions) == 1 else op.And(*conditions)
    return op.Where(inside, v.g, op.scalar(0.0, x))  # type: ignore[no-any-return]


def _by_bounds(v: Vjp) -> list[ir.Value | None]:
    """The lower bound gets g where x lies below it, unless the upper one is no greater and holds instead."""
    op, x, zero = v.op, v.x, v.op.scalar(0.0, v.x)
    lower, upper = v.optional_input(1), v.optional_input(2)
    wanted = [*v.wanted[1:], False]
    to_lower = to_upper = None
    if lower is not None and wanted[0]:
        below = op.Less(x, lower)
        if upper is not None:
            below = op.And(below, op.Less(lower, upper))
        to_lower = unbroadcast(op, op.Where(below, v.g, zero), v.y, lower)
    if upper is not None and wanted[1]:
        above = op.Greater(x, upper)
        if lower is not None:
            above = op.Or(above, op.Greater(lower, upper))
        to_upper = unbroadcast(op, op.Where(above, v.g, zero), v.y, upper)
    return [to_lower, to_upper]


def _bound(v: Vjp, index: int) -> float | None:
    value = v.constant(index)
    return None if value is None else float(value.reshape(()))


def _slope_where(v: Vjp, condition: ir.Value, otherwise: ir.Value) -> Gradients:
    """The incoming gradient where `condition` holds, `otherwise` elsewhere."""
    return [v.op.Where(condition, v.g, otherwise)]


@rule("LeakyRelu")
def leaky_relu(v: Vjp) -> Gradients:
    """LeakyRelu: slope 1 above zero, alpha at and below it."""
    alpha = v.attribute("alpha", 0.01)
    return _slope_where(v, v.op.Greater(v.x, 0.0), v.op.Mul(v.g, alpha))


@rule("ThresholdedRelu")
def thresholded_relu(v: Vjp) -> Gradients:
    """ThresholdedRelu: the identity above alpha, zero elsewhere."""
    return _slope_where(v, v.op.Greater(v.x, v.attribute("alpha", 1.0)), v.op.scalar(0.0, v.x))


@rule("PRelu")
def prelu(v: Vjp) -> Gradients:
    """PRelu: slope 1 above zero, the second input elsewhere."""
    op, x, slope = v.op, v.x, v.input(1)
    positive = op.Greater(x, 0.0)
    to_x = op.Where(positive, v.g, op.Mul(v.g, slope)) if v.wanted[0] else None
    if not v.wanted[1]:
        return [to_x, None]
    full = op.Where(positive, op.scalar(0.0, x), op.Mul(v.g, x))
    return [to_x, unbroadcast(op, full, v.y, slope)]


@rule("Elu")
def elu(v: Vjp) -> Gradients:
    """Elu, alpha (exp(x) - 1) below zero: its slope there is y + alpha."""
    alpha = v.attribute("alpha", 1.0)
    return _slope_where(v, v.op.Greater(v.x, 0.0), v.op.Mul(v.g, v.op.Add(v.y, alpha)))


@rule("Celu")
def celu(v: Vjp) -> Gradients:
    """Celu, alpha (exp(x / alpha) - 1) below zero: its slope there is y / alpha + 1."""
    alpha = v.attribute("alpha", 1.0)
    slope = v.op.Add(v.op.Div(v.y, alpha), 1.0)
    return _slope_where(v, v.op.Greater(v.x, 0.0), v.op.Mul(v.g, slope))


@rule("Selu")
def selu(v: Vjp) -> Gradients:
    """Selu, gamma times x or alpha (exp(x) - 1): slope gamma above zero, y + gamma alpha below."""
    alpha = v.attribute("alpha", 1.6732632423543772)
    gamma = v.attribute("gamma", 1.0507009873554805)
    slope = v.op.Where(
        v.op.Greater(v.x, 0.0), v.op.scalar(gamma, v.x), v.op.Add(v.y, gamma * alpha)
    )
    return [v.op.Mul(v.g, slope)]


@rule("HardSigmoid")
def hard_sigmoid(v: Vjp) -> Gradients:
    """HardSigmoid, max(0, min(1, alpha x + beta)): slope alpha strictly between the ends."""
    alpha = v.attribute("alpha", 0.2)
    return [pass_between(v.op, v.op.Mul(v.g, alpha), v.y, 0.0, 1.0)]


@rule("HardSwish")
def hard_swish(v: Vjp) -> Gradients:
    """HardSwish, x max(0, min(1, x / 6 + 1/2)): slope x / 3 + 1/2 between -3 and 3, then 0 or 1."""
    op, x = v.op, v.x
    middle = op.Add(op.Mul(x, 1 / 3), 0.5)
    above = op.Where(op.Less(x, 3.0), middle, op.scalar(1.0, x))
    slope = op.Where(op.Greater(x, -3.0), above, op.scalar(0.0, x))
    return [op.Mul(v.g, slope)]


@rule("Softsign")
def softsign(v: Vjp) -> Gradients:
    """Softsign, x / (1 + abs x): slope 1 / (1 + abs x)^2."""
    denominator = v.op.Add(v.op.Abs(v.x), 1.0)
    # One after the other: the square leaves the range of half precision early.
    return [v.op.Div(v.op.Div(v.g, denominator), denominator)]


@rule("Mish")
def mish(v: Vjp) -> Gradients:
    """Mish, x tanh(softplus x): with t the tanh, slope t + x (1 - t^2) sigmoid(x)."""
    op, x = v.op, v.x
    t = op.Tanh(op.Softplus(x))
    inner = op.Mul(op.Sub(op.scalar(1.0, x), op.Mul(t, t)), op.Mul(x, op.Sigmoid(x)))
    return [op.Mul(v.g, op.Add(t, inner))]


@rule("Gelu")
def gelu(v: Vjp) -> Gradients:
    """Gelu, x Phi(x) with the normal distribution function Phi or its tanh approximation."""
    op, x = v.op, v.x
    if v.attribute("approximate", "none") == "none":
        cdf = op.Mul(op.Add(op.Erf(op.Mul(x, math.sqrt(0.5))), 1.0), 0.5)
        pdf = op.Mul(op.Exp(op.Mul(op.Mul(x, x), -0.5)), 1 / math.sqrt(2 * math.pi))
        return [op.Mul(v.g, op.Add(cdf, op.Mul(x, pdf)))]
    # y = x (1 + t) / 2 with t = tanh(c (x + a x^3)); dt/dx = (1 - t^2) c (1 + 3 a x^2)
    c, a = math.sqrt(2 / math.pi), 0.044715
    # Beyond 10 the slope is 0 or 1 to the last digit; held there, no power of x leaves the range of the type.
    x = op.Clip(x, op.scalar(-10.0, x), op.scalar(10.0, x))
    square = op.Mul(x, x)
    t = op.Tanh(op.Mul(op.Mul(x, op.Add(op.Mul(square, a), 1.0)), c))
    inner = op.Mul(op.Add(op.Mul(square, 3 * a), 1.0), c)
    slope = op.Mul(op.Mul(x, op.Sub(op.scalar(1.0, x), op.Mul(t, t))), inner)
    return [op.Mul(v.g, op.Mul(op.Add(op.Add(t, 1.0), slope), 0.5))]


@rule("GeluWithSlope", domain="ai.igonnx")
def gelu_with_slope(v: Vjp) -> Gradients:
    """Gelu of the plugin, whose second output is the slope."""
    return [v.op.Mul(v.g, v.node.outputs[1]), None]


@rule("Softmax")
def softmax(v: Vjp) -> Gradients:
    """Softmax along an axis: y (g - sum of g y)."""
    op, axis, y = v.op, v.attribute("axis", -1), v.y
    masked = _is_replaced_in_places(y)
    if op.native and y.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE) and _is_last(axis, y):
        g = _before_replacement(v.g, y) if masked else v.g
        return [op.emit("SoftmaxGradient", g, y, domain="ai.igonnx", masked=int(masked))]
    if masked:
        # Rows of minus infinity alone give NaN; where the model puts something else, no gradient arrives.
        unused = op.And(op.IsNaN(y), op.Equal(v.g, op.scalar(0.0, y)))
        y = op.Where(unused, op.scalar(0.0, y), y)
    weighted = op.Mul(v.g, y)
    total = op.ReduceSum(weighted, [axis], keepdims=1)
    return [op.Sub(weighted, op.Mul(y, total))]


def _is_last(axis: int, value: ir.Value) -> bool:
    return axis == -1 or (value.shape is not None and axis == len(value.shape) - 1)


def _before_replacement(g: ir.Value, y: ir.Value) -> ir.Value:
    """`g` without what puts zeros where `y` is NaN: the plugin's operator takes what stands there for zero anyway."""
    node = g.producer()
    if node is None or node.op_type != "Where":
        return g
    condition, zero, kept = (cast("ir.Value", value) for value in node.inputs)
    test, constant = condition.producer(), zero.const_value
    if test is None or test.op_type != "IsNaN" or test.inputs[0] is not y or constant is None:
        return g
    return kept if constant.size == 1 and not constant.numpy().any() else g


def _is_replaced_in_places(value: ir.Value) -> bool:
    """Whether a Where chooses between `value` and something else, as behind a softmax over rows masked throughout."""
    for user in value.consumers():
        if user.op_type in ("Cast", "Identity") and _is_replaced_in_places(user.outputs[0]):
            return True
        if user.op_type == "Where":
            return True
    return False


@rule("LogSoftmax")
def log_softmax(v: Vjp) -> Gradients:
    """LogSoftmax along an axis: g - exp(y) times the sum of g."""
    total = v.op.ReduceSum(v.g, [v.attribute("axis", -1)], keepdims=1)
    return [v.op.Sub(v.g, v.op.Mul(v.op.Exp(v.y), total))]
