"""The one place that makes nodes: unique names, deduplicated constants, emission.

Rules read like formulas: ``op.Mul(g, op.Cos(x))``. Arguments may be graph values, NumPy arrays (constants as they
are), lists of integers (int64 constants: shapes, axes) and Python numbers (scalars of the dtype of the first value).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import onnx_ir as ir

from igonnx.errors import ModelError
from igonnx.graph.native_target import NativeTarget
from igonnx.graph.tensors import own_tensor

__all__ = ["Dim", "GraphBuilder", "Operand", "rank", "static_shape"]

Operand: TypeAlias = "ir.Value | np.ndarray | Sequence[int] | int | float | None"
Dim: TypeAlias = "int | str | None"

_BOOLEAN = frozenset(
    [
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Not",
        "And",
        "Or",
        "Xor",
        "IsNaN",
        "IsInf",
    ]
)
_INT64 = frozenset(["Shape", "Size", "NonZero", "ArgMax", "ArgMin", "SequenceLength"])
_TYPED_BY_SECOND = frozenset(["Where"])


def rank(value: ir.Value) -> int:
    """Number of axes of `value`; a `ModelError` when shape inference could not tell."""
    if value.shape is None:
        raise ModelError(
            f"the rank of tensor {value.name!r} is unknown: shape inference found no shape for it; "
            "re-export the model with shapes, or run it through a simplifier first"
        )
    return len(value.shape)


def static_shape(value: ir.Value) -> tuple[int, ...] | None:
    """The shape of `value` when every dimension is a known integer, else None."""
    if value.shape is None or not all(isinstance(dim, int) for dim in value.shape):
        return None
    return tuple(cast("int", dim) for dim in value.shape)


def dims(value: ir.Value) -> tuple[Dim, ...]:
    """The dimensions of `value`: an integer, a symbol's name, or None where nothing is known."""
    rank(value)
    return tuple(
        dim if isinstance(dim, int) else (None if dim.value is None else str(dim.value))
        for dim in cast("ir.Shape", value.shape)
    )


class GraphBuilder:
    """Appends nodes to the main graph of `model`, or to a graph `nested` in it.

    Operators are methods: ``op.Add(a, b)``, ``op.Transpose(x, perm=[1, 0])``. One output gives a value,
    ``outputs=n`` gives a list. `native` is what may be used beyond standard operators. Names never collide with
    the model's, and equal constants are stored once.
    """

    def __init__(
        self, model: ir.Model, *, scope: str = "igonnx", native: NativeTarget | None = None
    ) -> None:
        self.model = model
        self.graph = model.graph
        self.opset = model.opset_imports.get("", 0)
        self.native = native
        self._scope = scope
        self._anchor: ir.Node | None = None
        self._behind = False
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._shapes: dict[ir.Value, ir.Value] = {}
        self._taken = set(_names(model.graph))
        self._counts: dict[str, int] = {}

    # -- where nodes go ----------------------------------------------------------------------

    def nested(self, name: str) -> GraphBuilder:
        """A builder of a new graph inside this one, the body of an If, Loop or Scan: it sees all values outside.

        Names and constants are shared; constants are initializers of the main graph.
        """
        inner = GraphBuilder.__new__(GraphBuilder)
        inner.__dict__.update(self.__dict__)
        inner.graph = ir.Graph([], [], nodes=[], name=self.unique(name))
        inner._anchor, inner._behind = None, False
        inner._shapes = dict(self._shapes)  # what is computed inside cannot be used outside
        return inner

    def within(self, graph: ir.Graph) -> GraphBuilder:
        """A builder that appends to `graph`, which lies inside this one's graph."""
        inner = self.nested(graph.name or "body")
        inner.graph = graph
        return inner

    def lift_constants(self, body: ir.Graph) -> None:
        """Move the initializers of `body` to the main graph, where every other graph sees them; in place."""
        for name in list(body.initializers):
            value = body.initializers[name]
            if not value.is_graph_input() and not value.is_graph_output():
                body.initializers.pop(name)
                value.const_value = own_tensor(cast("ir.TensorProtocol", value.const_value))
                value.name = self.unique("constant")
                self.model.graph.register_initializer(value)

    def put_out(
        self, value: ir.Value, kind: ir.TypeProtocol | None = None, shape: ir.Shape | None = None
    ) -> None:
        """Append `value` to the outputs of this graph; it may lie outside, or be an output already.

        A copy is made only where that is needed: ONNX Runtime 1.31 loses a value which is copied to an output of a
        body and multiplied by a matrix there ("Missing Input", from its fusion into Gemm).
        """
        producer = value.producer()
        if producer is None or producer.graph is not self.graph or value in self.graph.outputs:
            copy = self.Identity(value)
            copy.type, copy.shape = value.type, value.shape
            value = copy
        value.type = value.type if kind is None else kind
        value.shape = value.shape if shape is None else shape
        self.graph.outputs.append(value)

    @contextlib.contextmanager
    def before(self, node: ir.Node) -> Iterator[None]:
        """Put nodes in front of `node`, in whatever graph that is, as long as this lasts."""
        with self._at(node, behind=False):
            yield

    @contextlib.contextmanager
    def after(self, node: ir.Node) -> Iterator[None]:
        """Put nodes behind `node`, one after the other, as long as this lasts."""
        with self._at(node, behind=True):
            yield

    @contextlib.contextmanager
    def _at(self, node: ir.Node, *, behind: bool) -> Iterator[None]:
        outer = self.graph, self._anchor, self._behind, self._shapes
        self.graph, self._anchor, self._behind = cast("ir.Graph", node.graph), node, behind
        # A shape computed further down is not there yet.
        self._shapes = {}
        try:
            yield
        finally:
            self.graph, self._anchor, self._behind, self._shapes = outer

    def _place(self, node: ir.Node) -> None:
        if self._anchor is None:
            self.graph.append(node)
        elif self._behind:
            self.graph.insert_after(self._anchor, node)
            self._anchor = node
        else:
            self.graph.insert_before(self._anchor, node)

    # -- emission ----------------------------------------------------------------------------

    def __getattr__(self, op_type: str) -> Callable[..., Any]:
        if not op_type[:1].isupper():
            raise AttributeError(op_type)
        return functools.partial(self.emit, op_type)

    def emit(
        self,
        op_type: str,
        *operands: Operand,
        outputs: int = 1,
        domain: str = "",
        **attributes: Any,
    ) -> Any:
        """Append one node and return its output value (a list of them when `outputs` > 1)."""
        values = self.emit_all(op_type, *operands, outputs=outputs, domain=domain, **attributes)
        return values[0] if outputs == 1 else values

    def emit_all(
        self,
        op_type: str,
        *operands: Operand,
        outputs: int,
        domain: str = "",
        **attributes: Any,
    ) -> list[ir.Value]:
        """Append one node and return its output values, however many there are."""
        inputs = self._as_values(operands)
        while inputs and inputs[-1] is None:
            inputs.pop()
        node = ir.Node(
            domain,
            op_type,
            inputs,
            ir.convenience.convert_attributes(attributes),
            num_outputs=outputs,
            name=self.unique(op_type),
        )
        dtype = _result_dtype(op_type, inputs, attributes)
        for index, value in enumerate(node.outputs):
            value.name = self.unique(f"{op_type}_{index}" if outputs > 1 else op_type)
            if dtype is not None:
                value.type = ir.TensorType(dtype)
        self._place(node)
        return list(node.outputs)

    def unique(self, stem: str) -> str:
        """A name not yet used in the graph, `<scope>/<stem>` and a number when that is taken."""
        while True:
            count = self._counts.get(stem, 0)
            self._counts[stem] = count + 1
            name = f"{self._scope}/{stem}" + (f"_{count}" if count else "")
            if name not in self._taken:
                self._taken.add(name)
                return name

    # -- constants ---------------------------------------------------------------------------

    def constant(self, array: np.ndarray) -> ir.Value:
        """An initializer holding `array`; the same array asked for twice is stored once."""
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        # A digest, so that large weights are not held a second time.
        digest = hashlib.blake2b(array.tobytes(), digest_size=16).digest()
        key = (array.dtype.str + array.dtype.name, array.shape, digest)
        if key not in self._constants:
            tensor = ir.tensor(array, name=self.unique("constant"))
            value = ir.Value(
                name=tensor.name,
                shape=ir.Shape(array.shape),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
            self.model.graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def ints(self, values: Sequence[int] | int) -> ir.Value:
        """An int64 constant: a vector for a sequence, a scalar for a number."""
        return self.constant(np.array(values, dtype=np.int64))

    def scalar(self, number: float, like: ir.Value) -> ir.Value:
        """A scalar constant of the dtype of `like`."""
        return self.constant(np.array(number, dtype=dtype_of(like).numpy()))

    def _as_values(self, operands: Sequence[Operand]) -> list[ir.Value | None]:
        like = next((operand for operand in operands if isinstance(operand, ir.Value)), None)
        values: list[ir.Value | None] = []
        for operand in operands:
            if operand is None or isinstance(operand, ir.Value):
                values.append(operand)
            elif isinstance(operand, np.ndarray):
                values.append(self.constant(operand))
            elif isinstance(operand, int | float):
                if like is None:
                    raise TypeError(
                        "a Python number needs a graph value beside it to take its dtype from"
                    )
                values.append(self.scalar(operand, like))
            else:
                values.append(self.ints(operand))
        return values

    # -- shapes ------------------------------------------------------------------------------

    def shape(self, value: ir.Value) -> ir.Value:
        """The shape of `value`, int64 [rank]: a constant where it is static."""
        known = static_shape(value)
        if known is not None:
            return self.ints(known)
        if value not in self._shapes:
            self._shapes[value] = self.Shape(value)
            self._shapes[value].shape = ir.Shape(
                [rank(value)] if value.shape is not None else [None]
            )
        return self._shapes[value]

    def dim(self, value: ir.Value, axis: int) -> ir.Value:
        """One dimension of `value`, int64 [1]."""
        axis %= rank(value)
        known = dims(value)[axis]
        if isinstance(known, int):
            return self.ints([known])
        return cast("ir.Value", self.Gather(self.shape(value), [axis], axis=0))

    def count(self, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        """Number of elements along `axes`, int64 [1]."""
        known = [dims(value)[axis] for axis in axes]
        if all(isinstance(dim, int) for dim in known):
            return self.ints([math.prod(cast("list[int]", known))])
        return cast(
            "ir.Value",
            self.ReduceProd(self.Gather(self.shape(value), list(axes), axis=0), keepdims=1),
        )

    def join(self, *parts: ir.Value | Sequence[int]) -> ir.Value:
        """Concatenate int64 vectors, folding what is constant."""
        values = cast("list[ir.Value]", self._as_values(parts))
        if all(value.const_value is not None for value in values):
            return self.ints(
                [int(i) for v in values for i in cast("Any", v.const_value).numpy().reshape(-1)]
            )
        return values[0] if len(values) == 1 else cast("ir.Value", self.Concat(*values, axis=0))

    def zeros(self, shape: ir.Value, dtype: ir.DataType) -> ir.Value:
        """A tensor of zeros of a shape known at run time."""
        zero = ir.tensor(np.zeros(1, dtype=dtype.numpy()))
        value = cast("ir.Value", self.ConstantOfShape(shape, value=zero))
        value.type = ir.TensorType(dtype)
        return value

    def scatter_add(
        self, shape: ir.Value, indices: ir.Value, updates: ir.Value, axis: int = 0
    ) -> ir.Value:
        """Zeros of `shape` with `updates` added at `indices` along `axis`, in the dtype of `updates`.

        By ScatterElements, since ONNX Runtime's ScatterND loses terms when its threads meet in one place. Half
        precision adds up in float32: that is more accurate, and the CPU has no kernel for less.
        """
        dtype = dtype_of(updates)
        half = dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
        wide = ir.DataType.FLOAT if half else dtype
        updates = self.cast(updates, wide)
        zeros = self.zeros(shape, wide)
        total = self.ScatterElements(zeros, indices, updates, axis=axis, reduction="add")
        return self.cast(total, dtype)

    def reshape_like(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """`value` with the shape of `like` (the same number of elements)."""
        known = None if like.shape is None else dims(like)
        if (
            known is not None
            and sum(not isinstance(dim, int) for dim in known) == 1
            and 0 not in known
        ):
            result = self.Reshape(value, [dim if isinstance(dim, int) else -1 for dim in known])
        else:
            # A size of zero, and any size known only at run time may be zero, is meant as it is.
            literal = (
                {}
                if static_shape(like) is not None and 0 not in (known or ())
                else {"allowzero": 1}
            )
            result = self.Reshape(value, self.shape(like), **literal)
        result.shape = like.shape
        return cast("ir.Value", result)

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """`value` as `dtype`; nothing is emitted when it already is."""
        if value.dtype == dtype:
            return value
        result = cast("ir.Value", self.Cast(value, to=int(dtype)))
        result.shape = value.shape
        return result

    def reduce(
        self, op_type: str, value: ir.Value, axes: Sequence[int], *, keepdims: bool = True
    ) -> ir.Value:
        """ReduceMax, ReduceMean, ... over `axes`: an attribute before opset 18, an input from then on."""
        if op_type != "ReduceSum" and self.opset < 18:
            return cast(
                "ir.Value", self.emit(op_type, value, axes=list(axes), keepdims=int(keepdims))
            )
        return cast("ir.Value", self.emit(op_type, value, list(axes), keepdims=int(keepdims)))


def dtype_of(value: ir.Value) -> ir.DataType:
    """The dtype of `value`; a `ModelError` when shape inference could not tell."""
    if value.dtype is None:
        raise ModelError(
            f"the dtype of tensor {value.name!r} is unknown: shape inference found none for it; "
            "re-export the model with types"
        )
    return value.dtype


def _result_dtype(
    op_type: str, inputs: Sequence[ir.Value | None], attributes: dict[str, Any]
) -> ir.DataType | None:
    if op_type in _BOOLEAN:
        return ir.DataType.BOOL
    if op_type in _INT64:
        return ir.DataType.INT64
    if op_type == "Cast":
        return ir.DataType(attributes["to"])
    source = inputs[1:] if op_type in _TYPED_BY_SECOND else inputs
    return next((value.dtype for value in source if value is not None), None)


def _names(graph: ir.Graph) -> Iterator[str]:
    """Every name of a value or node in `graph` and the subgraphs within it."""
    for value in [*graph.inputs, *graph.initializers.values()]:
        yield cast("str", value.name)
    for node in graph.all_nodes():
        if node.name:
            yield node.name
        for value in node.outputs:
            if value.name:
                yield value.name
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                inner = attribute.as_graph()
                yield from (v.name for v in [*inner.inputs, *inner.initializers.values()] if v.name)
