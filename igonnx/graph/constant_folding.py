"""Compute ahead what is fixed in the arithmetic on shapes, so that shape inference can follow it.

Exporters build the targets of Reshape from chains of tiny integer nodes (Mod, Slice, Concat, ...). ONNX's shape
inference follows only some of these operators; behind the others every shape is lost, and with it the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["fold_constants"]

# Elements of an input or of a result: shapes are small, and large tables stay as they are.
LIMIT = 1024

# Exact on integers, one output, no state, no randomness, no subgraph: all that arithmetic on shapes is made of.
_FOLDABLE = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "Cast",
        "CastLike",
        "Concat",
        "ConstantOfShape",
        "CumSum",
        "Div",
        "Equal",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "NonZero",
        "Not",
        "Or",
        "Range",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "Reshape",
        "ScatterElements",
        "ScatterND",
        "Shape",
        "Sign",
        "Size",
        "Slice",
        "Squeeze",
        "Sub",
        "Transpose",
        "Unsqueeze",
        "Where",
        "Xor",
    ]
)

_BROADCASTING = frozenset(
    [
        "Add",
        "And",
        "Div",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Or",
        "Sub",
        "Where",
        "Xor",
    ]
)


def fold_constants(graph: ir.Graph, *, batch_is_settled: bool = False) -> bool:
    """Replace nodes by their results where those are small integers or booleans that nothing can change; in place.

    Besides nodes of constants only, these are the numbers of axes of tensors and, as long as the model takes any
    number of examples, the sizes of tensors of static shape: a batch axis fixed by the export may still be freed, and
    must not get baked in. Outputs of the graph stay as they are. Returns whether anything was folded.

    `batch_is_settled`: nobody is going to free it any more, so that every static shape is a constant.
    """
    folded = False
    opset = graph.opset_imports.get("", 1)
    batch_is_free = batch_is_settled or not any(
        value.shape is not None and len(value.shape) and isinstance(value.shape[0], int)
        for value in graph.inputs
        if value.name not in graph.initializers
    )
    for node in list(graph):
        if not _may_fold(node):
            continue
        result = _static_shape(node) if batch_is_free or _counts_axes(node) else None
        if result is None:
            arrays = _constants(node.inputs)
            result = None if arrays is None else _computed(node, arrays, opset)
        if result is not None:
            _replace(graph, node, result)
            folded = True
    return folded


def _may_fold(node: ir.Node) -> bool:
    return (
        node.domain in ("", "ai.onnx")
        and node.op_type in _FOLDABLE
        and len(node.outputs) == 1
        and not node.outputs[0].is_graph_output()
        and not any(_is_external(attribute) for attribute in node.attributes.values())
    )


def _is_external(attribute: ir.Attr) -> bool:
    """Whether this is a tensor in a file, which ONNX's reference implementation would look for in the wrong folder."""
    return attribute.type == ir.AttributeType.TENSOR and isinstance(
        attribute.value, ir.ExternalTensor
    )


def _counts_axes(node: ir.Node) -> bool:
    """Whether `node` asks for the size of a shape: the number of axes, whatever their lengths."""
    source = node.inputs[0] if node.inputs else None
    producer = None if source is None else source.producer()
    return (
        producer is not None and producer.op_type == "Shape" and producer.domain in ("", "ai.onnx")
    )


def _static_shape(node: ir.Node) -> NDArray[np.int64] | None:
    """What a Shape or Size gives, or None where a dimension it reports is known at run time only."""
    source = node.inputs[0] if node.inputs else None
    if node.op_type not in ("Shape", "Size") or source is None or source.shape is None:
        return None
    if node.op_type == "Size":
        sizes = list(source.shape)
        known = all(isinstance(dim, int) for dim in sizes)
        return np.array(math.prod(cast("list[int]", sizes)), np.int64) if known else None
    start, end = node.attributes.get("start"), node.attributes.get("end")
    first = 0 if start is None else start.as_int()
    last = len(source.shape) if end is None else end.as_int()
    dims = list(source.shape)[first:last]
    if not all(isinstance(dim, int) for dim in dims):
        return None
    return np.array(dims, np.int64)


def _constants(values: Sequence[ir.Value | None]) -> list[NDArray[Any] | None] | None:
    """The arrays of `values` (None where an input is left out), or None unless all are small integers for good."""
    if len(values) > LIMIT:
        return None
    arrays: list[NDArray[Any] | None] = []
    for value in values:
        if value is None:
            arrays.append(None)
            continue
        tensor = value.const_value
        # An initializer that is an input too can be overridden; one in an external file is read by the runtime only.
        if tensor is None or value.is_graph_input() or isinstance(tensor, ir.ExternalTensor):
            return None
        if tensor.size > LIMIT:
            return None
        array = tensor.numpy()
        if not _is_integral(array):
            return None
        arrays.append(array)
    return arrays


def _computed(
    node: ir.Node, arrays: Sequence[NDArray[Any] | None], opset: int
) -> NDArray[Any] | None:
    """The result of a node of constants by ONNX's reference implementation, or None where it is not to be folded."""
    try:
        if _expected_size(node, arrays) > LIMIT:
            return None
    except (IndexError, ValueError):  # an input is missing or empty, or shapes do not fit
        return None
    if node.op_type == "Div" and any(array is not None and (array < 0).any() for array in arrays):
        # Towards zero, says the standard; older reference implementations round down.
        return None
    # Loaded here: most models have nothing to fold.
    from onnx.reference import ReferenceEvaluator

    names = ["" if array is None else f"x{index}" for index, array in enumerate(arrays)]
    one = onnx.helper.make_node(node.op_type, names, ["y"])
    one.attribute.extend(ir.to_proto(attribute) for attribute in node.attributes.values())
    output = onnx.helper.make_empty_tensor_value_info("y")
    inputs = [onnx.helper.make_empty_tensor_value_info(name) for name in names if name]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([one], "constant", inputs, [output]),
        opset_imports=[onnx.helper.make_opsetid("", opset)],
    )
    feeds = {name: array for name, array in zip(names, arrays, strict=True) if name}
    try:
        with np.errstate(all="raise"):
            results = ReferenceEvaluator(model).run(None, feeds)
    except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError):
        # Wrong as it stands (a division by zero, an index out of bounds): the runtime says so where it is reached.
        return None
    result = np.asarray(cast("list[Any]", results)[0])
    return result if _is_integral(result) and result.size <= LIMIT else None


def _is_integral(array: NDArray[Any]) -> bool:
    return array.dtype.kind in "iub"


def _expected_size(node: ir.Node, arrays: Sequence[NDArray[Any] | None]) -> int:
    """A bound on the elements of the result of the operators that turn small inputs into large results, else 0.

    Raises `IndexError` or `ValueError` for inputs that no result is defined for.
    """
    if node.op_type in _BROADCASTING:
        # Inputs of LIMIT elements each along an axis of its own give LIMIT to the power of their number.
        return math.prod(np.broadcast_shapes(*(x.shape for x in arrays if x is not None)))
    if node.op_type == "Concat":
        return sum(x.size for x in arrays if x is not None)
    values = [[] if array is None else array.reshape(-1).tolist() for array in arrays]
    if node.op_type == "ConstantOfShape":
        return math.prod(int(size) for size in values[0])
    if node.op_type == "Expand":
        return len(values[0]) * math.prod(int(size) for size in values[1])
    if node.op_type == "Range":
        # In steps of one at least.
        return abs(int(values[1][0]) - int(values[0][0]))
    return 0


def _replace(graph: ir.Graph, node: ir.Node, array: NDArray[Any]) -> None:
    """Put an initializer of the same name in the place of `node`, and drop constants that only it used."""
    old = node.outputs[0]
    tensor = ir.tensor(array, name=old.name)
    new = ir.Value(
        name=old.name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    old.replace_all_uses_with(new)
    sources = {value for value in node.inputs if value is not None and value.is_initializer()}
    graph.remove(node, safe=True)
    graph.register_initializer(new)
    for value in sources:
        if not value.uses() and not value.is_graph_input() and not value.is_graph_output():
            del graph.initializers[cast("str", value.name)]
