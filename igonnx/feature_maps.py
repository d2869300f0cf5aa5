"""Where a network keeps its feature maps, and which of their axes holds the channels: read from the graph itself.

What a convolution, a pooling or a normalisation by channel gives has its channels on axis 1, says ONNX; operators that
keep the number of axes keep them there, and a Transpose says where they go. Behind a Reshape nothing is known, but for
a normalisation of groups of channels, written as one of instances between two of them.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from igonnx.errors import InputError
from igonnx.graph.builder import dims
from igonnx.graph.node_view import attributes_of
from igonnx.model import Model

__all__ = ["channels_of_input", "last_feature_map", "map_channels"]

_CHANNELS_SECOND = frozenset(
    [
        *("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv", "DeformConv"),
        *("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"),
        *("BatchNormalization", "InstanceNormalization", "GroupNormalization", "LRN"),
    ]
)
_LOSES_AXES = frozenset(
    [
        *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile", "Gather", "Einsum"),
        *("Gemm", "Attention", "MultiHeadAttention", "If", "Loop", "Scan", "Shape", "Size"),
    ]
)
# What only passes a map on, smaller or larger: the map itself is the one in front.
_PASSES_ON = frozenset(
    [
        *("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean"),
        *("Identity", "Dropout", "Pad", "Resize", "Cast", "Transpose"),
    ]
)


def map_channels(model: Model) -> dict[str, int]:
    """The axis of the channels, batch axis counted, of every tensor of the model in which it is known."""
    axes: dict[ir.Value, int] = {}
    for node in model.ir.graph:
        value = node.outputs[0]
        axis = _axis_behind(node, axes)
        if axis is not None:
            axes[value] = axis
    return {value.name: axis for value, axis in axes.items() if value.name}


def _axis_behind(node: ir.Node, axes: dict[ir.Value, int]) -> int | None:
    if node.op_type == "InstanceNormalization" and _made_by(node.inputs[0], "Reshape"):
        return None  # of groups
    if node.op_type in _CHANNELS_SECOND:
        return 1
    if node.op_type == "Reshape":
        before = _before_groups(node)
        return None if before is None else axes.get(before)
    known = [value for value in node.inputs if value is not None and value in axes]
    if not known or node.op_type in _LOSES_AXES:
        return None
    axis = axes[known[0]]
    if node.op_type == "Transpose":
        order = attributes_of(node).get("perm")
        return list(order).index(axis) if order else None
    axes_of = [None if v.shape is None else len(v.shape) for v in (known[0], node.outputs[0])]
    if axes_of[0] is None or axes_of[0] != axes_of[1]:
        return None
    if node.op_type == "MatMul":  # of the last axis with a matrix
        alone = len(known) == 1 and known[0] is node.inputs[0]
        return axis if alone and axis == axes_of[0] - 1 else None
    return axis


def _before_groups(node: ir.Node) -> ir.Value | None:
    """What was reshaped into groups before these were normalised and `node`, a Reshape, gave back the shape it had."""
    normalisation = _made_by(node.inputs[0], "InstanceNormalization")
    into_groups = None if normalisation is None else _made_by(normalisation.inputs[0], "Reshape")
    value = None if into_groups is None else into_groups.inputs[0]
    if value is None:
        return None
    size = _made_by(node.inputs[1], "Shape")
    if size is not None and size.inputs[0] is value:
        return value
    shapes = [None if one.shape is None else dims(one)[1:] for one in (value, node.outputs[0])]
    return value if shapes[0] is not None and shapes[0] == shapes[1] else None


def _made_by(value: ir.Value | None, operator: str) -> ir.Node | None:
    """The node that makes `value`, if it is one of this operator."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == operator else None


def channels_of_input(model: Model, name: str) -> int | None:
    """The axis of the channels, batch axis counted, of the tensor called `name`, by the first convolution of it."""
    for node in model.ir.graph:
        if node.op_type not in ("Conv", "ConvInteger", "QLinearConv", "FusedConv"):
            continue
        value, axis = node.inputs[0], 1
        while value is not None and value.name != name:
            producer = value.producer()
            if producer is None or producer.op_type in _LOSES_AXES:
                break
            if producer.op_type == "Transpose":
                order = attributes_of(producer).get("perm")
                if not order:
                    break
                axis = list(order)[axis]
            value = producer.inputs[0]
        if value is not None and value.name == name:
            return axis
    return None


def last_feature_map(model: Model, on_the_way: Collection[str], output: str) -> str:
    """The name of the deepest tensor that still shows where in the input something is, of those `on_the_way`.

    For a convolutional network that is the last tensor that has channels and, beside the examples, other axes larger
    than 1, apart from such as are only pooled, padded, resized or transposed: what the last convolution gives, after
    its normalisation, activation and residual sum. Where attention follows it, its values on patches are that, as they
    come into the last attention: the last LayerNormalization [N, tokens, channels] in front of its softmax.

    Raises `InputError` where there is none, and where the output itself is such a map.
    """
    channels = map_channels(model)
    nodes = [node for node in model.ir.graph if node.outputs[0].name in on_the_way]
    if channels.get(output) is not None and _has_places(
        model.find_output(output), channels[output]
    ):
        raise InputError(
            f"output {output!r} has places of its own, so the last feature map is no summary: name one with layer="
        )
    maps = [
        index
        for index, node in enumerate(nodes)
        if node.op_type not in _PASSES_ON
        and (axis := channels.get(node.outputs[0].name or "")) is not None
        and _has_places(node.outputs[0], axis)
    ]
    attention = _last_attention(nodes, channels)
    if attention is not None and (not maps or attention > maps[-1]):
        tokens = _tokens_before(nodes, attention)
        if tokens is not None:
            return tokens
    elif maps:
        return nodes[maps[-1]].outputs[0].name or ""
    raise InputError(
        "no feature map was found between what is explained and the output; name a tensor with layer= "
        "('igonnx inspect --tensors' lists them)"
    )


def _has_places(value: ir.Value, channels: int) -> bool:
    """Whether an axis beside those of examples and channels is larger than 1, or may be."""
    if value.shape is None or len(value.shape) < 3:
        return False
    places = [size for axis, size in enumerate(dims(value)) if axis not in (0, channels)]
    return any(size != 1 for size in places)


def _last_attention(nodes: list[ir.Node], channels: dict[str, int]) -> int | None:
    """Which of `nodes` is the last softmax over tokens, or a whole attention."""
    found = None
    for index, node in enumerate(nodes):
        value = node.outputs[0]
        over_tokens = (
            node.op_type == "Softmax"
            and value.shape is not None
            and len(value.shape) >= 3
            and value.name not in channels
        )
        if over_tokens or node.op_type in ("Attention", "MultiHeadAttention"):
            found = index
    return found


def _tokens_before(nodes: list[ir.Node], attention: int) -> str | None:
    """The last LayerNormalization [N, tokens, channels] that node number `attention` depends on."""
    needed = {nodes[attention]}
    for node in reversed(nodes[: attention + 1]):
        if node not in needed:
            continue
        value = node.outputs[0]
        normalises = node.op_type in ("LayerNormalization", "SkipLayerNormalization")
        if normalises and value.shape is not None and len(value.shape) == 3:
            return value.name
        producers = (one.producer() for one in node.inputs if one is not None)
        needed |= {producer for producer in producers if producer is not None}
    return None
