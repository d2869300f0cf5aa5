"""Random compositions of operators, as ONNX and as a function of PyTorch tensors.

A graph is drawn step by step from values made before, any of which may be used again. Each value knows a bound of its
magnitude, so that nothing explodes. Only `RandomGraph.in_torch` needs PyTorch, which it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18
LARGEST = 300.0  # no value may become larger
Array = np.ndarray


@dataclass(frozen=True)
class Value:
    """A tensor of the graph."""

    name: str
    shape: tuple[int, ...]
    bound: float


@dataclass(frozen=True)
class Step:
    """A node: names of its inputs (stored ones too), of its outputs, and attributes."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass
class RandomGraph:
    """Inputs `x0`, `x1`, ..., steps, and the sum of the values nobody used as output `y` (a number)."""

    seed: int
    length: int
    values: list[Value] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    stored: dict[str, Array] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        shape = tuple(int(size) for size in self.rng.integers(2, 5, self.rng.integers(2, 5)))
        self.values.append(Value("x0", shape, 2.0))
        for i in range(1, self.rng.integers(1, 4)):
            lead = self.rng.integers(0, len(shape))
            kept = [1 if self.rng.random() < 0.3 else size for size in shape[lead:]]
            self.values.append(Value(f"x{i}", tuple(kept), 2.0))
        self.inputs = {value.name: value.shape for value in self.values}
        while len(self.steps) < self.length:
            draw = _DRAWS[self.rng.integers(len(_DRAWS))]
            draw(self, self.pick())
        totals = [
            self.add("ReduceSum", [value.name], (), 1.0, keepdims=0).name
            for value in list(self.values)
            if value.name not in self.used
        ]
        self.steps.append(Step("Sum", tuple(totals), ("y",), {}))

    # -- drawing -----------------------------------------------------------------------------

    def pick(self, test: Callable[[Value], bool] = lambda value: True) -> Value:
        """A value, the later ones more often."""
        found = [value for value in self.values if test(value)] or self.values
        weights = np.arange(1, len(found) + 1.0)
        return found[self.rng.choice(len(found), p=weights / weights.sum())]

    def choose(self, *options: Any) -> Any:
        """One of `options`."""
        return options[self.rng.integers(len(options))]

    def axis(self, value: Value) -> int:
        """An axis, sometimes counted from the back."""
        return int(self.rng.integers(-len(value.shape), len(value.shape)))

    def store(self, array: Any) -> str:
        """An initializer."""
        name = f"c{len(self.stored)}"
        self.stored[name] = np.asarray(array)
        return name

    def weights(self, *shape: int) -> str:
        """An initializer of small random numbers."""
        return self.store(self.rng.uniform(-0.5, 0.5, shape))

    def add(
        self, operator: str, inputs: list[str], shape: Any, bound: float, **attributes: Any
    ) -> Value:
        """Append a node of one output."""
        value = Value(f"v{len(self.steps)}", tuple(int(size) for size in shape), bound)
        self.steps.append(Step(operator, tuple(inputs), (value.name,), attributes))
        self.used.update(inputs)
        self.values.append(value)
        return value

    def positive(self, value: Value) -> Value:
        """x^2 + 0.5."""
        square = self.add("Mul", [value.name, value.name], value.shape, value.bound**2)
        return self.add("Add", [square.name, self.store(0.5)], value.shape, value.bound**2 + 0.5)

    def feeds(self) -> dict[str, Array]:
        """Inputs, float64."""
        rng = np.random.default_rng([self.seed, 1])
        return {name: np.asarray(rng.uniform(-2, 2, shape)) for name, shape in self.inputs.items()}

    # -- as ONNX and in PyTorch --------------------------------------------------------------

    def model(self, *, symbolic: bool = False) -> onnx.ModelProto:
        """The graph in ONNX, in float64."""
        inputs = [
            helper.make_tensor_value_info(
                name,
                TensorProto.DOUBLE,
                [f"n{size}" for size in shape] if symbolic else list(shape),
            )
            for name, shape in self.inputs.items()
        ]
        output = helper.make_tensor_value_info("y", TensorProto.DOUBLE, [])
        nodes = [
            helper.make_node(step.operator, step.inputs, step.outputs, **step.attributes)
            for step in self.steps
        ]
        stored = [numpy_helper.from_array(array, name) for name, array in self.stored.items()]
        graph = helper.make_graph(nodes, f"seed_{self.seed}", inputs, [output], stored)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8
        )

    def in_torch(self, torch: Any, inputs: dict[str, Any]) -> Any:
        """The output, computed by PyTorch from tensors."""
        known = dict(inputs)
        known.update({name: torch.from_numpy(array.copy()) for name, array in self.stored.items()})
        for step in self.steps:
            function = _TORCH[step.operator]
            results = function(torch, *(known[name] for name in step.inputs), **step.attributes)
            if len(step.outputs) == 1:
                results = [results]
            known.update(zip(step.outputs, results, strict=True))
        return known["y"]


# -- how each operator is drawn ------------------------------------------------------------------

_DRAWS: list[Callable[[RandomGraph, Value], Any]] = []


def _drawn(function: Callable[[RandomGraph, Value], Any]) -> Callable[[RandomGraph, Value], Any]:
    _DRAWS.append(function)
    return function


_BOUNDED = {"Tanh": 1.0, "Sigmoid": 1.0, "Sin": 1.0, "Cos": 1.0, "Softsign": 1.0}
_KEEPING = ("Relu", "LeakyRelu", "Softplus", "Elu", "Abs", "Neg", "Mish", "HardSwish")


@_drawn
def _bounded(g: RandomGraph, x: Value) -> None:
    operator = g.choose(*_BOUNDED)
    g.add(operator, [x.name], x.shape, 1.0)


@_drawn
def _keeping(g: RandomGraph, x: Value) -> None:
    g.add(g.choose(*_KEEPING), [x.name], x.shape, x.bound + 1)


@_drawn
def _exponential(g: RandomGraph, x: Value) -> None:
    if x.bound > 3:
        x = g.add("Tanh", [x.name], x.shape, 1.0)
    g.add("Exp", [x.name], x.shape, math.exp(x.bound))


@_drawn
def _of_positive(g: RandomGraph, x: Value) -> None:
    if x.bound**2 < LARGEST:
        x = g.positive(x)
        g.add(g.choose("Log", "Sqrt", "Reciprocal"), [x.name], x.shape, max(2.0, x.bound**0.5))


@_drawn
def _softmax(g: RandomGraph, x: Value) -> None:
    if x.shape:
        operator = g.choose("Softmax", "LogSoftmax")
        g.add(operator, [x.name], x.shape, 2 * x.bound + 3, axis=g.axis(x))


@_drawn
def _clip(g: RandomGraph, x: Value) -> None:
    g.add("Clip", [x.name, g.store(-0.613), g.store(0.777)], x.shape, 0.777)


def _pair(g: RandomGraph, x: Value) -> tuple[Value, Value, tuple[int, ...]]:
    other = g.pick(lambda value: _fits(x.shape, value.shape))
    if not _fits(x.shape, other.shape):
        other = x
    shape = np.broadcast_shapes(x.shape, other.shape)
    return (x, other, shape) if g.rng.random() < 0.5 else (other, x, shape)


def _fits(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    try:
        return math.prod(np.broadcast_shapes(a, b)) <= 2000
    except ValueError:
        return False


@_drawn
def _sum_of_two(g: RandomGraph, x: Value) -> None:
    a, b, shape = _pair(g, x)
    operator = g.choose("Add", "Sub", "Max", "Min") if a is not b else "Add"
    g.add(operator, [a.name, b.name], shape, a.bound + b.bound)


@_drawn
def _product(g: RandomGraph, x: Value) -> None:
    a, b, shape = _pair(g, x)
    if a.bound * b.bound < LARGEST:
        g.add("Mul", [a.name, b.name], shape, a.bound * b.bound)


@_drawn
def _quotient(g: RandomGraph, x: Value) -> None:
    a, b, shape = _pair(g, x)
    if b.bound**2 < LARGEST:
        b = g.positive(b)
        g.add("Div", [a.name, b.name], shape, 2 * a.bound)


@_drawn
def _power(g: RandomGraph, x: Value) -> None:
    if x.bound**2 < LARGEST:
        x = g.positive(x)
        g.add("Pow", [x.name, g.store(g.choose(0.5, 1.5, -1.0))], x.shape, x.bound**1.5 + 2)


@_drawn
def _where(g: RandomGraph, x: Value) -> None:
    a, b, shape = _pair(g, x)
    condition = g.store(g.rng.random(shape) < 0.5)
    g.add("Where", [condition, a.name, b.name], shape, max(a.bound, b.bound))


@_drawn
def _slope(g: RandomGraph, x: Value) -> None:
    g.add("PRelu", [x.name, g.weights(*x.shape[-1:])], x.shape, x.bound)


@_drawn
def _transpose(g: RandomGraph, x: Value) -> None:
    order = [int(axis) for axis in g.rng.permutation(len(x.shape))]
    if order:
        g.add("Transpose", [x.name], [x.shape[axis] for axis in order], x.bound, perm=order)


@_drawn
def _reshape(g: RandomGraph, x: Value) -> None:
    if x.shape:
        shape = [int(size) for size in g.rng.permutation(x.shape)]
        written = [-1, *shape[1:]] if g.rng.random() < 0.5 else shape
        g.add("Reshape", [x.name, g.store(written)], shape, x.bound)


@_drawn
def _flatten(g: RandomGraph, x: Value) -> None:
    axis = int(g.rng.integers(0, len(x.shape) + 1))
    shape = [math.prod(x.shape[:axis]), math.prod(x.shape[axis:])]
    g.add("Flatten", [x.name], shape, x.bound, axis=axis)


@_drawn
def _unsqueeze(g: RandomGraph, x: Value) -> None:
    if len(x.shape) < 4:
        axis = int(g.rng.integers(0, len(x.shape) + 1))
        shape = [*x.shape[:axis], 1, *x.shape[axis:]]
        g.add("Unsqueeze", [x.name, g.store([axis])], shape, x.bound)


@_drawn
def _squeeze(g: RandomGraph, x: Value) -> None:
    axes = [axis for axis, size in enumerate(x.shape) if size == 1]
    if axes:
        shape = [size for size in x.shape if size != 1]
        g.add("Squeeze", [x.name, g.store(axes)], shape, x.bound)


@_drawn
def _slice(g: RandomGraph, x: Value) -> None:
    if not x.shape:
        return
    axis, step = g.axis(x), g.choose(1, 2, -1)
    start, end = (0, 1000) if step > 0 else (1000, -1000)
    start = 1 if step == 1 and x.shape[axis] > 1 else start
    shape = list(x.shape)
    shape[axis] = len(range(shape[axis])[start:end:step] if step > 0 else range(shape[axis]))
    parts = [g.store([number]) for number in (start, end, axis, step)]
    g.add("Slice", [x.name, *parts], shape, x.bound)


@_drawn
def _gather(g: RandomGraph, x: Value) -> None:
    if x.shape:
        axis = g.axis(x)
        indices = g.rng.integers(0, x.shape[axis], g.rng.integers(1, 5))
        shape = list(x.shape)
        shape[axis] = len(indices)
        g.add("Gather", [x.name, g.store(indices)], shape, x.bound, axis=axis)


@_drawn
def _concat(g: RandomGraph, x: Value) -> None:
    if x.shape and math.prod(x.shape) < 500:
        other = g.pick(lambda value: value.shape == x.shape)
        other = other if other.shape == x.shape else x
        axis = g.axis(x)
        shape = list(x.shape)
        shape[axis] *= 2
        g.add("Concat", [x.name, other.name], shape, max(x.bound, other.bound), axis=axis)


@_drawn
def _split(g: RandomGraph, x: Value) -> None:
    if x.shape and x.shape[axis := g.axis(x)] > 1:
        size = x.shape[axis]
        first = int(g.rng.integers(1, size))
        names = [f"v{len(g.steps)}a", f"v{len(g.steps)}b"]
        inputs = (x.name, g.store([first, size - first]))
        g.steps.append(Step("Split", inputs, tuple(names), {"axis": axis}))
        g.used.add(x.name)
        for name, length in zip(names, (first, size - first), strict=True):
            shape = list(x.shape)
            shape[axis] = length
            g.values.append(Value(name, tuple(shape), x.bound))


@_drawn
def _pad(g: RandomGraph, x: Value) -> None:
    if x.shape and math.prod(x.shape) < 500:
        pads = g.rng.integers(0, 2, 2 * len(x.shape))
        shape = np.add(x.shape, pads[: len(x.shape)] + pads[len(x.shape) :])
        g.add("Pad", [x.name, g.store(pads)], shape, x.bound)


@_drawn
def _expand(g: RandomGraph, x: Value) -> None:
    if math.prod(x.shape) < 500:
        g.add("Expand", [x.name, g.store([2, *x.shape])], [2, *x.shape], x.bound)


@_drawn
def _tile(g: RandomGraph, x: Value) -> None:
    if x.shape and math.prod(x.shape) < 200:
        repeats = g.rng.integers(1, 3, len(x.shape))
        g.add("Tile", [x.name, g.store(repeats)], np.multiply(x.shape, repeats), x.bound)


_REDUCTIONS = {
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceLogSumExp",
    "ReduceSumSquare",
    "ReduceL2",
}


@_drawn
def _reduce(g: RandomGraph, x: Value) -> None:
    if len(x.shape) < 2:
        return
    axis, keep = g.axis(x), g.choose(0, 1)
    operator = g.choose(*sorted(_REDUCTIONS))
    size = x.shape[axis]
    bound = {"ReduceSum": size * x.bound, "ReduceSumSquare": size * x.bound**2}.get(
        operator, size**0.5 * x.bound + math.log(size)
    )
    if bound > LARGEST:
        return
    if operator == "ReduceL2":
        x = g.positive(x) if x.bound**2 < LARGEST else g.add("Cos", [x.name], x.shape, 1.0)
        bound = size**0.5 * x.bound
    shape = list(x.shape)
    shape[axis : axis + 1 or None] = [1] if keep else []
    g.add(operator, [x.name, g.store([axis])], shape, bound, keepdims=keep)


@_drawn
def _cumulative(g: RandomGraph, x: Value) -> None:
    if x.shape and x.bound * max(x.shape) < LARGEST:
        axis = g.axis(x)
        g.add("CumSum", [x.name, g.store(axis)], x.shape, x.bound * x.shape[axis])


@_drawn
def _matmul(g: RandomGraph, x: Value) -> None:
    if len(x.shape) >= 2 and x.bound * x.shape[-1] < LARGEST:
        columns = int(g.rng.integers(1, 5))
        name = g.weights(x.shape[-1], columns)
        g.add("MatMul", [x.name, name], [*x.shape[:-1], columns], x.bound * x.shape[-1] / 2)


@_drawn
def _gram(g: RandomGraph, x: Value) -> None:
    """x times its own transpose."""
    if len(x.shape) >= 2 and x.bound**2 * x.shape[-1] < LARGEST:
        order = [*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2]
        turned = [x.shape[axis] for axis in order]
        other = g.add("Transpose", [x.name], turned, x.bound, perm=order)
        shape = [*x.shape[:-1], x.shape[-2]]
        g.add("MatMul", [x.name, other.name], shape, x.bound**2 * x.shape[-1])


@_drawn
def _gemm(g: RandomGraph, x: Value) -> None:
    if len(x.shape) == 2 and x.bound * x.shape[1] < LARGEST:
        stored = [g.weights(3, x.shape[1]), g.weights(3)]
        g.add("Gemm", [x.name, *stored], [x.shape[0], 3], x.bound * x.shape[1], transB=1, alpha=0.5)


# -- what each operator is in PyTorch ------------------------------------------------------------


def _torch_slice(torch: Any, x: Any, start: Any, end: Any, axis: Any, step: Any) -> Any:
    if int(step) < 0:
        return torch.flip(x, [int(axis)])
    places = torch.arange(x.shape[int(axis)])[int(start) : int(end) : int(step)]
    return torch.index_select(x, int(axis), places)


def _torch_pad(torch: Any, x: Any, pads: Any) -> Any:
    half = len(pads) // 2
    pairs = [(int(pads[axis]), int(pads[axis + half])) for axis in range(half)]
    return torch.nn.functional.pad(x, [number for pair in reversed(pairs) for number in pair])


_TORCH: dict[str, Callable[..., Any]] = {
    "Abs": lambda t, x: t.abs(x),
    "Add": lambda t, a, b: a + b,
    "Clip": lambda t, x, low, high: t.clamp(x, float(low), float(high)),
    "Concat": lambda t, *xs, axis: t.cat(xs, axis),
    "Cos": lambda t, x: t.cos(x),
    "CumSum": lambda t, x, axis: t.cumsum(x, int(axis)),
    "Div": lambda t, a, b: a / b,
    "Elu": lambda t, x: t.nn.functional.elu(x),
    "Exp": lambda t, x: t.exp(x),
    "Expand": lambda t, x, shape: x.expand([int(size) for size in shape]),
    "Flatten": lambda t, x, axis: x.reshape(math.prod(x.shape[:axis]), -1),
    "Gather": lambda t, x, indices, axis: t.index_select(x, axis, indices),
    "Gemm": lambda t, a, b, c, transB, alpha: alpha * (a @ b.T) + c,  # noqa: N803
    "HardSwish": lambda t, x: t.nn.functional.hardswish(x),
    "LeakyRelu": lambda t, x: t.nn.functional.leaky_relu(x),
    "Log": lambda t, x: t.log(x),
    "LogSoftmax": lambda t, x, axis: t.log_softmax(x, axis),
    "MatMul": lambda t, a, b: a @ b,
    "Max": lambda t, a, b: t.maximum(a, b),
    "Min": lambda t, a, b: t.minimum(a, b),
    "Mish": lambda t, x: t.nn.functional.mish(x),
    "Mul": lambda t, a, b: a * b,
    "Neg": lambda t, x: -x,
    "PRelu": lambda t, x, slope: t.where(x >= 0, x, slope * x),
    "Pad": _torch_pad,
    "Pow": lambda t, x, exponent: x ** float(exponent),
    "Reciprocal": lambda t, x: 1 / x,
    "ReduceL2": lambda t, x, a, keepdims: t.linalg.vector_norm(x, dim=int(a), keepdim=bool(keepdims)),
    "ReduceLogSumExp": lambda t, x, a, keepdims: t.logsumexp(x, int(a), keepdim=bool(keepdims)),
    "ReduceMax": lambda t, x, a, keepdims: t.amax(x, int(a), keepdim=bool(keepdims)),
    "ReduceMean": lambda t, x, a, keepdims: t.mean(x, int(a), keepdim=bool(keepdims)),
    "ReduceMin": lambda t, x, a, keepdims: t.amin(x, int(a), keepdim=bool(keepdims)),
    "ReduceSum": lambda t, x, a=None, keepdims=0: x.sum() if a is None else x.sum(int(a), bool(keepdims)),
    "ReduceSumSquare": lambda t, x, a, keepdims: (x * x).sum(int(a), bool(keepdims)),
    "Relu": lambda t, x: t.relu(x),
    "Reshape": lambda t, x, shape: x.reshape([int(size) for size in shape]),
    "Sigmoid": lambda t, x: t.sigmoid(x),
    "Sin": lambda t, x: t.sin(x),
    "Slice": _torch_slice,
    "Softmax": lambda t, x, axis: t.softmax(x, axis),
    "Softplus": lambda t, x: t.logaddexp(x, t.zeros_like(x)),
    "Softsign": lambda t, x: t.nn.functional.softsign(x),
    "Split": lambda t, x, sizes, axis: t.split(x, [int(size) for size in sizes], axis),
    "Sqrt": lambda t, x: t.sqrt(x),
    "Squeeze": lambda t, x, axes: x.reshape([n for i, n in enumerate(x.shape) if i not in axes.tolist()]),
    "Sub": lambda t, a, b: a - b,
    "Sum": lambda t, *xs: sum(xs),
    "Tanh": lambda t, x: t.tanh(x),
    "Tile": lambda t, x, repeats: x.repeat([int(number) for number in repeats]),
    "Transpose": lambda t, x, perm: x.permute(perm),
    "Unsqueeze": lambda t, x, axes: x.unsqueeze(int(axes)),
    "Where": lambda t, condition, a, b: t.where(condition, a, b),
}  # fmt: skip
