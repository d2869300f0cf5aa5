"""Which operators are linear in which of their inputs, and products that are linear in each of two."""

from __future__ import annotations

import onnx_ir as ir

from igonnx.autodiff import registry
from igonnx.autodiff.gradient_values import is_real_tensor
from igonnx.autodiff.propagation.references import References
from igonnx.autodiff.registry import Gradients, Vjp
from igonnx.errors import UnsupportedOperatorError
from igonnx.graph.builder import GraphBuilder

__all__ = ["BILINEAR", "EVERY", "SOME", "is_linear", "mean_of_ends"]

# Linear in all inputs together.
EVERY = (
    "Add",
    "Sub",
    "Sum",
    "Mean",
    "Neg",
    "Identity",
    "Concat",
    "Cast",
    "Transpose",
    "Flatten",
    "AveragePool",
    "GlobalAveragePool",
    "DepthToSpace",
    "SpaceToDepth",
    "SequenceConstruct",
    "ConcatFromSequence",
    "Optional",
    "OptionalGetElement",
)
# Linear in these inputs together, while the others are fixed.
SOME: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(
        (
            "BatchNormalization",
            "CastLike",
            "Col2Im",
            "Compress",
            "CumSum",
            "DFT",
            "Div",
            "Dropout",
            "Expand",
            "Gather",
            "GatherElements",
            "GatherND",
            "GridSample",
            "MaxUnpool",
            "ReduceMean",
            "ReduceSum",
            "Reshape",
            "Resize",
            "ReverseSequence",
            "STFT",
            "SequenceAt",
            "SequenceErase",
            "Slice",
            "Split",
            "SplitToSequence",
            "Squeeze",
            "Tile",
            "Trilu",
            "Unsqueeze",
        ),
        (0,),
    ),
    "DeformConv": (0, 3),
    "OneHot": (2,),
    "Pad": (0, 2),
    "SequenceInsert": (0, 1),
    "TensorScatter": (0, 1),
    "Where": (1, 2),
}
_SCATTERS = ("ScatterElements", "ScatterND")
# Linear in each of the first two inputs, and in a third that is added.
_PRODUCTS = ("Mul", "MatMul", "Gemm", "Conv", "ConvTranspose")
BILINEAR = {("", name) for name in (*_PRODUCTS, "Einsum")}
_WEIGHTED = {("com.microsoft", "MatMulNBits"), ("com.microsoft", "MatMulBnb4")}


def is_linear(v: Vjp, live: list[int]) -> bool:
    """Whether the node is linear in its `live` inputs, the others being fixed; none being live counts."""
    kind = v.node.op_type
    if not live:
        return True
    if v.node.domain not in ("", "ai.onnx"):
        return (v.node.domain, kind) in _WEIGHTED and live == [0]
    if kind == "BatchNormalization" and v.attribute("training_mode", 0):
        return False
    if kind == "RoiAlign":
        return live == [0] and v.attribute("mode", "avg") == "avg"
    if kind in _PRODUCTS:
        return not {0, 1} <= set(live)
    if kind == "Einsum":
        return len(live) == 1
    if kind in _SCATTERS:
        adds = v.attribute("reduction", "none") in ("none", "add")
        return adds and set(live) <= {0, 2}
    if kind in ("Cast", "CastLike") and not is_real_tensor(v.x):
        return False
    return kind in EVERY or set(live) <= set(SOME.get(kind, ()))


def mean_of_ends(v: Vjp, references: References, live: list[int]) -> Gradients:
    """The ordinary rule of a product, with each live factor at the mean of itself and its reference."""
    rule = registry.find(v.node)
    if len(live) > (3 if v.node.op_type in _PRODUCTS else 2) or rule is None:
        raise UnsupportedOperatorError(
            f"{v.where()}: no DeepLIFT for a product of {len(live)} tensors that depend on the input; write it as "
            "products of two"
        )
    return rule(vjp_of(v, _at_means(v.op, v.node, references), v.gradients))


def vjp_of(v: Vjp, node: ir.Node, gradients: tuple[ir.Value | None, ...]) -> Vjp:
    """What a rule is given for `node` in the place of `v.node`."""
    return Vjp(v.op, node, gradients, v.wanted, v.captured, v.walk)


def _at_means(op: GraphBuilder, node: ir.Node, references: References) -> ir.Node:
    """The node with inputs halfway between the two; nobody reads its results, so it is not kept."""
    inputs = []
    for value in node.inputs:
        if value is not None and references.is_live(value):
            total = op.Add(value, references.of(value))
            half = op.Mul(total, op.scalar(0.5, value))
            half.shape, half.type = value.shape, value.type
            value = half
        inputs.append(value)
    mean = ir.Node(
        node.domain,
        node.op_type,
        inputs,
        list(node.attributes.values()),
        num_outputs=len(node.outputs),
        name=op.unique(node.op_type),
    )
    for old, new in zip(node.outputs, mean.outputs, strict=True):
        new.name = op.unique(node.op_type) if old.name else ""
        new.type, new.shape = old.type, old.shape
    op.graph.append(mean)
    return mean
