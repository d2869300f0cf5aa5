"""Sizes as products of a number and symbols, carried through the arithmetic that exporters write them with.

ONNX's shape inference gives up at sizes that depend on a symbolic axis: of a Reshape to [batch, 197, -1, 64] it knows
little, and invents a symbol for each axis behind it. Here the arithmetic is done with symbols. Invented symbols turn
out to be numbers or other symbols, and targets of Reshape become constants: nothing is computed on sizes at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder, dims

__all__ = ["settle_sizes"]

_LIMIT = 16  # elements of a value that is taken for sizes
_INVENTED = "unk__"  # how ONNX's inference names an axis of which it knows nothing


@dataclass(frozen=True)
class Size:
    """The product of `number` and `symbols`, which stand for sizes: whole numbers, none negative."""

    number: int
    symbols: tuple[str, ...] = ()

    def times(self, other: Size) -> Size:
        return Size(self.number * other.number, tuple(sorted([*self.symbols, *other.symbols])))

    def over(self, other: Size) -> Size | None:
        """The quotient, where it is a size; symbols that cancel are taken not to be zero."""
        symbols = list(self.symbols)
        for symbol in other.symbols:
            if symbol not in symbols:
                return None
            symbols.remove(symbol)
        if other.number == 0 or self.number % other.number:
            return None
        return Size(self.number // other.number, tuple(symbols))


Sizes: TypeAlias = "list[Size | None]"


def settle_sizes(op: GraphBuilder) -> None:
    """Make shapes of values in the main graph of `op` more precise and targets of Reshape constant, in place."""
    walk = _Walk(op)
    for node in op.graph:
        if node.domain in ("", "ai.onnx"):
            walk.visit(node)
    walk.finish()


class _Walk:
    """One pass in the order of the graph."""

    def __init__(self, op: GraphBuilder) -> None:
        self.op = op
        self._known: dict[str, Size] = {}  # what invented symbols have turned out to be
        self._contents: dict[ir.Value, Sizes] = {}

    def visit(self, node: ir.Node) -> None:
        if len(node.outputs) != 1 or any(value is None for value in node.inputs):
            return
        contents = _CONTENTS.get(node.op_type)
        output = node.outputs[0]
        if contents is not None and output.dtype in _WHOLE:
            found = contents(self, node)
            if found is not None and len(found) <= _LIMIT:
                self._contents[output] = found
        shape = _SHAPES.get(node.op_type)
        if shape is not None and output.shape is not None:
            derived = shape(self, node)
            if derived is not None:
                self._learn(output, derived)

    def finish(self) -> None:
        """Write what was found: shapes of all values, then targets of Reshape."""
        for node in self.op.graph:
            for value in node.outputs:
                if value.shape is not None:
                    value.shape = ir.Shape(
                        [
                            _dimension(size, dim)
                            for size, dim in zip(self.shape(value), value.shape, strict=True)
                        ]
                    )
        for node in self.op.graph:
            if node.op_type == "Reshape" and node.domain in ("", "ai.onnx"):
                self._fix_target(node)

    def shape(self, value: ir.Value | None) -> Sizes:
        """The axes of `value`, whose rank is known."""
        return [
            None
            if dim is None
            else self._resolved(Size(dim) if isinstance(dim, int) else Size(1, (dim,)))
            for dim in dims(cast("ir.Value", value))
        ]

    def contents(self, value: ir.Value | None) -> Sizes | None:
        """The elements of `value`, a vector or one number, as sizes; booleans are 0 and 1."""
        if value is None:
            return None
        if value in self._contents:
            return [
                None if size is None else self._resolved(size) for size in self._contents[value]
            ]
        constant = value.const_value
        if constant is None or value.is_graph_input() or constant.size > _LIMIT:
            return None
        if value.dtype not in _WHOLE or len(constant.shape) > 1:
            return None
        return [Size(int(number)) for number in constant.numpy().reshape(-1)]

    def equate(self, first: Size | None, second: Size | None) -> None:
        """Note that two sizes are equal, if one of them is a symbol that was invented."""
        if first is None or second is None:
            return
        first, second = self._resolved(first), self._resolved(second)
        if first == second:
            return
        for size, other in ((first, second), (second, first)):
            if (
                size.number == 1
                and len(size.symbols) == 1
                and size.symbols[0].startswith(_INVENTED)
            ):
                if size.symbols[0] not in other.symbols:
                    self._known[size.symbols[0]] = other
                return

    def _learn(self, value: ir.Value, derived: Sizes) -> None:
        """Equate the axes of `value` with what they were derived to be."""
        if len(derived) != len(dims(value)):
            return
        sizes = list(cast("ir.Shape", value.shape))
        for axis, (annotated, size) in enumerate(zip(self.shape(value), derived, strict=True)):
            if annotated is None and size is not None:
                sizes[axis] = _dimension(size, sizes[axis])
            self.equate(annotated, size)
        value.shape = ir.Shape(sizes)

    def _resolved(self, size: Size) -> Size:
        result = Size(size.number)
        for symbol in size.symbols:
            known = self._known.get(symbol)
            result = result.times(Size(1, (symbol,)) if known is None else self._resolved(known))
        return result

    def _fix_target(self, node: ir.Node) -> None:
        source, target = node.inputs[0], node.inputs[1]
        wanted = self.contents(target)
        if (
            wanted is None
            or target is None
            or target.const_value is not None
            or source is None
            or source.shape is None
            or _takes_zeros_literally(node)
        ):
            return
        given = self.shape(source)
        result = self.shape(node.outputs[0]) if node.outputs[0].shape is not None else wanted
        numbers: list[int] = []
        for axis, size in enumerate(wanted):
            if size is not None and size.number == -1 and axis < len(result):
                # What is left over: the number, if it is known by now.
                left = result[axis]
                size = left if left is not None and not left.symbols else size
            if size is None:
                return
            if not size.symbols and size.number != 0:
                numbers.append(size.number)
            elif size.symbols and axis < len(given) and given[axis] == size:
                numbers.append(0)
            else:
                return
        if numbers.count(-1) <= 1:
            node.replace_input_with(1, self.op.ints(numbers))


def _dimension(size: Size | None, otherwise: int | ir.SymbolicDim) -> int | ir.SymbolicDim:
    """A size as an axis of a shape; `otherwise` where that cannot be said."""
    if size is None:
        return otherwise
    if not size.symbols:
        return size.number if size.number >= 0 else otherwise
    if size.number == 1 and len(size.symbols) == 1:
        return ir.SymbolicDim(size.symbols[0])
    return otherwise


# -- contents of small whole numbers: None where a node is not followed ----------------

_WHOLE = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)
Rule: TypeAlias = "Callable[[_Walk, ir.Node], Sizes | None]"


def _shape_of(walk: _Walk, node: ir.Node) -> Sizes | None:
    source = cast("ir.Value", node.inputs[0])
    if source.shape is None:
        return None
    sizes = walk.shape(source)
    end = node.attributes.get("end")
    return sizes[node.attributes.get_int("start", 0) : None if end is None else end.as_int()]


def _same(walk: _Walk, node: ir.Node) -> Sizes | None:
    """The same numbers in a vector or by themselves; as truth values they would be others."""
    source, output = cast("ir.Value", node.inputs[0]), node.outputs[0]
    if output.shape is None or len(output.shape) > 1:
        return None
    turned = ir.DataType.BOOL in (source.dtype, output.dtype) and source.dtype != output.dtype
    return None if turned else walk.contents(source)


def _gathered(walk: _Walk, node: ir.Node) -> Sizes | None:
    source, indices = walk.contents(node.inputs[0]), walk.contents(node.inputs[1])
    if source is None or indices is None or node.outputs[0].shape is None:
        return None
    places = [size.number for size in indices if size is not None and not size.symbols]
    if len(places) != len(indices) or any(not -len(source) <= at < len(source) for at in places):
        return None
    return [source[at] for at in places]


def _joined(walk: _Walk, node: ir.Node) -> Sizes | None:
    parts = [walk.contents(value) for value in node.inputs]
    return (
        None
        if any(part is None for part in parts)
        else [size for part in parts for size in part or []]
    )


def _sliced(walk: _Walk, node: ir.Node) -> Sizes | None:
    """Slice of a vector, in steps of one."""
    source, *rest = (walk.contents(value) for value in node.inputs)
    numbers = [_number(sizes) for sizes in rest]
    if source is None or None in numbers or (len(numbers) == 4 and numbers[3] != 1):
        return None
    return source[numbers[0] : numbers[1]]


def _multiplied(walk: _Walk, node: ir.Node) -> Sizes | None:
    return _pairwise(walk, node, lambda a, b: a.times(b))


def _divided(walk: _Walk, node: ir.Node) -> Sizes | None:
    return _pairwise(walk, node, lambda a, b: a.over(b))


def _added(walk: _Walk, node: ir.Node) -> Sizes | None:
    return _pairwise(
        walk, node, lambda a, b: None if a.symbols or b.symbols else Size(a.number + b.number)
    )


def _compared(walk: _Walk, node: ir.Node) -> Sizes | None:
    """Equal: a size is never a negative number."""

    def equal(a: Size, b: Size) -> Size | None:
        if a == b or not (a.symbols or b.symbols):
            return Size(int(a == b))
        number, size = (a, b) if b.symbols else (b, a)
        never = not number.symbols and number.number < 0 and size.number > 0
        return Size(0) if never else None

    return _pairwise(walk, node, equal)


def _chosen(walk: _Walk, node: ir.Node) -> Sizes | None:
    condition, first, second = (walk.contents(value) for value in node.inputs)
    if condition is None or first is None or second is None:
        return None
    count = max(len(condition), len(first), len(second))
    triples = zip(*(_stretched(part, count) for part in (condition, first, second)), strict=True)
    return [
        None if test is None or test.symbols else (b if test.number == 0 else a)
        for test, a, b in triples
    ]


def _pairwise(
    walk: _Walk, node: ir.Node, combine: Callable[[Size, Size], Size | None]
) -> Sizes | None:
    first, second = (walk.contents(value) for value in node.inputs)
    if first is None or second is None:
        return None
    count = max(len(first), len(second))
    pairs = zip(_stretched(first, count), _stretched(second, count), strict=True)
    return [None if a is None or b is None else combine(a, b) for a, b in pairs]


def _stretched(sizes: Sizes, count: int) -> Sizes:
    return sizes * count if len(sizes) == 1 else sizes


def _number(sizes: Sizes | None) -> int | None:
    if sizes is None or len(sizes) != 1 or sizes[0] is None or sizes[0].symbols:
        return None
    return sizes[0].number


def _repeated(walk: _Walk, node: ir.Node) -> Sizes | None:
    """ConstantOfShape."""
    count = _number(walk.contents(node.inputs[0]))
    value = node.attributes.get("value")
    number = 0 if value is None else int(np.asarray(value.as_tensor().numpy()).reshape(()))
    return None if count is None or count > _LIMIT else [Size(number)] * count


_CONTENTS: dict[str, Rule] = {
    "Shape": _shape_of,
    "Gather": _gathered,
    "Concat": _joined,
    "Slice": _sliced,
    "Mul": _multiplied,
    "Div": _divided,
    "Add": _added,
    "Equal": _compared,
    "Where": _chosen,
    "ConstantOfShape": _repeated,
    **dict.fromkeys(["Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape"], _same),
}


# -- shapes that follow from shapes and contents ---------------------------------------


def _reshaped(walk: _Walk, node: ir.Node) -> Sizes | None:
    source, target = cast("ir.Value", node.inputs[0]), walk.contents(node.inputs[1])
    if source.shape is None or target is None or _takes_zeros_literally(node):
        return None
    given = walk.shape(source)
    result: Sizes = []
    for axis, size in enumerate(target):
        copied = size is not None and not size.symbols and size.number == 0
        result.append((given[axis] if axis < len(given) else None) if copied else size)
    left = [axis for axis, size in enumerate(result) if size is not None and size.number < 0]
    if len(left) == 1:
        others = _total([size for axis, size in enumerate(result) if axis != left[0]])
        total = _total(given)
        result[left[0]] = None if total is None or others is None else total.over(others)
    return result


def _takes_zeros_literally(node: ir.Node) -> bool:
    literal = node.attributes.get("allowzero")
    return literal is not None and bool(literal.as_int())


def _total(sizes: Sequence[Size | None]) -> Size | None:
    result = Size(1)
    for size in sizes:
        if size is None:
            return None
        result = result.times(size)
    return result


def _expanded(walk: _Walk, node: ir.Node) -> Sizes | None:
    source, target = cast("ir.Value", node.inputs[0]), walk.contents(node.inputs[1])
    return (
        None if source.shape is None or target is None else _broadcast([walk.shape(source), target])
    )


def _elementwise(walk: _Walk, node: ir.Node) -> Sizes | None:
    if any(cast("ir.Value", value).shape is None for value in node.inputs):
        return None
    return _broadcast([walk.shape(value) for value in node.inputs])


def _broadcast(shapes: Sequence[Sizes]) -> Sizes:
    count = max(map(len, shapes))
    ones: Sizes = [Size(1)] * count
    padded = [ones[len(shape) :] + shape for shape in shapes]
    return [_together(list(sizes)) for sizes in zip(*padded, strict=True)]


def _together(sizes: Sequence[Size | None]) -> Size | None:
    """What axes of these sizes broadcast to: a number larger than one settles it, whatever the others are."""
    for size in sizes:
        if size is not None and not size.symbols and size.number > 1:
            return size
    larger = [size for size in sizes if size != Size(1)]
    if not larger:
        return Size(1)
    return larger[0] if all(size == larger[0] for size in larger) else None


def _product(walk: _Walk, node: ir.Node) -> Sizes | None:
    """MatMul of matrices: leading axes broadcast, and the inner sizes are equal."""
    if any(cast("ir.Value", value).shape is None for value in node.inputs):
        return None
    first, second = (walk.shape(value) for value in node.inputs)
    if len(first) < 2 or len(second) < 2:
        return None
    walk.equate(first[-1], second[-2])
    return [*_broadcast([first[:-2], second[:-2]]), first[-2], second[-1]]


def _concatenated(walk: _Walk, node: ir.Node) -> Sizes | None:
    if any(cast("ir.Value", value).shape is None for value in node.inputs):
        return None
    shapes = [walk.shape(value) for value in node.inputs]
    result = list(shapes[0])
    axis = node.attributes.get_int("axis", 0) % max(1, len(result))
    for at in range(len(result)):
        along = [shape[at] for shape in shapes]
        if at != axis:
            result[at] = next((size for size in along if size is not None), None)
        elif all(size is not None and not size.symbols for size in along):
            result[at] = Size(sum(cast("Size", size).number for size in along))
        else:
            result[at] = along[0] if len(along) == 1 else None
    return result


def _counted(walk: _Walk, node: ir.Node) -> Sizes | None:
    """Range from zero in steps of one."""
    start, limit, step = (walk.contents(value) for value in node.inputs)
    if _number(start) != 0 or _number(step) != 1 or limit is None or len(limit) != 1:
        return None
    return limit if limit[0] is not None and limit[0].number >= 0 else None


def _transposed(walk: _Walk, node: ir.Node) -> Sizes | None:
    source = cast("ir.Value", node.inputs[0])
    if source.shape is None:
        return None
    sizes, perm = walk.shape(source), node.attributes.get("perm")
    return sizes[::-1] if perm is None else [sizes[axis] for axis in perm.as_ints()]


_ELEMENTWISE = ["Add", "Sub", "Mul", "Div", "Pow", "Where", "And", "Or", "Equal", "Max", "Min"]
_UNCHANGED = ["Softmax", "Cast", "Identity", "Erf", "Tanh", "Sigmoid", "Relu", "IsNaN", "Not"]
_SHAPES: dict[str, Rule] = {
    "Reshape": _reshaped,
    "Expand": _expanded,
    "MatMul": _product,
    "Concat": _concatenated,
    "Range": _counted,
    "Transpose": _transposed,
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_UNCHANGED, _elementwise),
}
