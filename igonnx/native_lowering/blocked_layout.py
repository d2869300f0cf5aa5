"""Images that stay in ONNX Runtime's blocked layout, forwards and backwards.

The runtime's CPU provider convolves fastest in a layout of its own, NCHWc: b neighbouring channels of one pixel lie
together. It converts models to it by itself, but leaves the layout at every operator that it does not know there, so
that the gradient of a convolutional network spends a quarter of its time in reorderings. This pass does what the
runtime does (the operators of the domain com.microsoft.nchwc are those that it writes into optimised models), and takes
along the plugin's operators and whatever works element by element.

A value and its blocked twin hold the same numbers; the twin is declared [N, C padded to whole blocks, H, W], its memory
is [N, C/b, H, W, b]. What the padding channels hold is finite and meets only zero weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from igonnx.graph.builder import GraphBuilder, dims
from igonnx.graph.node_view import attributes_of, constant_of, take_place
from igonnx.native_lowering.convolution_gradient import NCHWC, lower_convolution_gradient
from igonnx.native_lowering.filters import (
    Weights,
    blocked_filter,
    depthwise_filter,
    fits,
    is_depthwise,
    padded,
)

__all__ = ["BlockedLayout"]

PLUGIN = "ai.igonnx"
# Activations that the runtime's blocked convolution applies itself.
_FUSED = {"Relu", "Sigmoid", "Tanh"}
# Element by element, and finite on the padding channels, where those of the operands are.
_ELEMENTWISE = {"Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "HardSwish", "Elu", "Selu"}
_ELEMENTWISE |= {"Softplus", "Gelu", "Mish", "Swish", "Erf", "Exp", "Neg", "Abs", "Clip"}
_ELEMENTWISE |= {"Add", "Sub", "Mul", "Sum", "Max", "Min", "Where"}
_BOOLEAN = {"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "And", "Or", "Xor", "Not"}
# Likewise, but not finite at zero.
_UNBOUNDED = {"Div", "Reciprocal", "Sqrt", "Log", "Pow"}
_MASKING = {"DepthwiseGradient": 2, "InterleavePhases": 0, "MaxPoolGradient": 2}


class BlockedLayout:
    """One run of the pass over the main graph of `model`, with blocks of `block` channels."""

    def __init__(self, model: ir.Model, block: int) -> None:
        self.op = GraphBuilder(model, scope="blocked")
        self.block = block
        self._twins: dict[ir.Value, ir.Value] = {}
        self._channels: dict[ir.Value, int] = {}  # of values with twins, without padding
        self._reordered: dict[ir.Value, ir.Value] = {}
        self._done: set[ir.Node] = set()
        self._position: dict[ir.Node, int] = {}

    def run(self) -> None:
        """Rewrite the graph in place."""
        graph = self.op.graph
        nodes = list(graph)
        self._position = {node: index for index, node in enumerate(nodes)}
        for node in nodes:
            handler = _HANDLERS.get((node.domain, node.op_type))
            if handler is None or any(value is None for value in node.inputs[:1]):
                continue
            with self.op.before(node):
                twin = handler(self, node)
            if twin is not None:
                if twin.type is None:
                    twin.type = node.outputs[0].type
                self._twins[node.outputs[0]] = twin
                self._done.add(node)
        self._leave()
        self.op.model.opset_imports.setdefault(NCHWC, 1)
        self.op.model.opset_imports.setdefault(PLUGIN, 1)

    # -- values ------------------------------------------------------------------------------

    def blocked(self, value: ir.Value) -> ir.Value:
        """The blocked twin of `value`; reordered here if it has none yet."""
        twin = self._twins.get(value, self._reordered.get(value))
        if twin is None:
            twin = cast("ir.Value", self.op.emit("ReorderInput", value, domain=NCHWC))
            self._reordered[value] = twin
        return twin

    def has_twin(self, value: ir.Value | None) -> bool:
        """Whether `value` comes from a blocked operator."""
        return value in self._twins

    def twin_or_same(self, value: ir.Value) -> ir.Value:
        """The twin of one number per channel without padding, or `value` itself: the layouts are alike."""
        return self._twins.get(value, value)

    def note(self, value: ir.Value, channels: int, like: ir.Value | None = None) -> None:
        """Remember how many channels `value` has, and that it has the shape of `like`."""
        self._channels[value] = channels
        if like is not None and value.shape is None:
            value.shape = like.shape

    def channels(self, value: ir.Value) -> int | None:
        """Channels of an image, without padding; None where they are not known."""
        if value in self._channels:
            return self._channels[value]
        if value.shape is None or len(value.shape) != 4:
            return None
        size = value.shape[1]
        return size if isinstance(size, int) else None

    def alone(self, value: ir.Value) -> bool:
        """Whether one node, and nothing else, uses `value`."""
        return len(value.uses()) == 1 and not value.is_graph_output()

    def used_last(self, value: ir.Value, by: ir.Node) -> bool:
        """Whether `by` is the last node that uses `value`, so that its memory may be taken over."""
        here = self._position[by]
        users = {node for node, _ in value.uses() if node is not by}
        return not value.is_graph_output() and all(
            self._position.get(user, here) < here for user in users
        )

    def apart(self, twin: ir.Value) -> ir.Value:
        """A blocked image as what it is in memory, [N, C/b, H, W, b]; H and W may be 1."""
        blocks = self.op.ints([0, -1, 0, 0, self.block])
        return cast("ir.Value", self.op.Reshape(twin, blocks))

    def together(self, value: ir.Value, channels: int) -> ir.Value:
        """The reverse of `apart`."""
        return cast("ir.Value", self.op.Reshape(value, self.op.ints([0, channels, 0, 0])))

    def _leave(self) -> None:
        """Reorder back what other nodes still use, and remove what has been replaced."""
        for value, twin in self._twins.items():
            users = [use for use in value.uses() if use.node not in self._done]
            if not users and not value.is_graph_output():
                continue
            node = cast("ir.Node", value.producer())
            with self.op.before(node):
                take_place(value, self._reordered_back(twin, value))
        self.op.graph.remove(list(self._done), safe=False)
        self.op.graph.sort()

    def _reordered_back(self, twin: ir.Value, value: ir.Value) -> ir.Value:
        boolean = twin.dtype == ir.DataType.BOOL
        number = self.op.cast(twin, ir.DataType.FLOAT) if boolean else twin
        back = self.op.emit("ReorderOutput", number, domain=NCHWC, channels=self._channels[value])
        if boolean:
            back = self.op.cast(back, ir.DataType.BOOL)
        back.shape, back.type = value.shape, value.type
        return cast("ir.Value", back)


Handler = Callable[[BlockedLayout, ir.Node], "ir.Value | None"]


def _constant(value: ir.Value | None) -> np.ndarray | None:
    constant = constant_of(value)
    return None if constant is None else constant.numpy()


def _spatial(value: ir.Value) -> tuple[Any, ...] | None:
    """Height and width, integers or symbols; None where they are not known."""
    if value.shape is None or len(value.shape) != 4:
        return None
    sizes = tuple(value.shape[2:])
    known = all(isinstance(size, int) or size.value is not None for size in sizes)
    return sizes if known else None


def _conv(layout: BlockedLayout, node: ir.Node) -> ir.Value | None:
    x, weight = cast("ir.Value", node.inputs[0]), _constant(node.inputs[1])
    bias_value = node.inputs[2] if len(node.inputs) > 2 else None
    bias = _constant(bias_value)
    if weight is None or weight.ndim != 4 or weight.dtype != np.float32:
        return None
    if bias_value is not None and bias is None:
        return None
    group, block = node.attributes.get_int("group", 1), layout.block
    arranged = _arranged(layout, x, weight, group)
    if arranged is None:
        return None
    image, filters = arranged
    operands: list[Any] = [image, filters]
    if bias is not None:
        whole = np.zeros(padded(len(bias), block), np.float32)
        whole[: len(bias)] = bias
        operands.append(whole)
    given = attributes_of(node)
    given.setdefault("kernel_shape", list(weight.shape[2:]))
    twin = layout.op.emit("Conv", *operands, domain=NCHWC, **given)
    layout.note(node.outputs[0], weight.shape[0])
    return cast("ir.Value", twin)


def _arranged(
    layout: BlockedLayout, x: ir.Value, weight: Weights, group: int
) -> tuple[ir.Value, Weights] | None:
    """The image and the filter for the runtime's blocked convolution; None where it has none that fits."""
    block = layout.block
    inputs = weight.shape[1]
    if is_depthwise(weight.shape, group):
        if weight.shape[0] % block:
            return None
        filters = depthwise_filter(weight, block).reshape(weight.shape)
        return layout.blocked(x), filters
    if group == 1 and inputs < block and not (layout.has_twin(x) and inputs % 4 == 0):
        # So few channels are read in the ordinary layout.
        return x, blocked_filter(weight, block, blocked_input=False)
    whole = group == 1 and inputs % 4 == 0
    if not whole and not fits(weight.shape, group, block):
        return None
    return layout.blocked(x), blocked_filter(weight, block)


def _conv_gradient(layout: BlockedLayout, node: ir.Node) -> ir.Value | None:
    weight = cast("ir.Value", node.inputs[1])
    shape = cast("ir.TensorProtocol", weight.const_value).shape.numpy()
    layout.note(node.outputs[0], shape[1] * node.attributes["group"].as_int())
    return lower_convolution_gradient(layout, node)


def _fuse_activation(conv: ir.Node | None, node: ir.Node) -> bool:
    """Let the blocked convolution that feeds it apply an activation itself, where it can."""
    if conv is None or (conv.domain, conv.op_type) != (NCHWC, "Conv"):
        return False
    if "activation" in conv.attributes:
        return False
    parameters: list[float] = []
    if any(value is not None and _constant(value) is None for value in node.inputs[1:]):
        return False
    if node.op_type == "Clip":
        bounds = [_constant(value) for value in (*node.inputs[1:], None, None)][:2]
        infinite = np.finfo(np.float32)
        lower, upper = (
            float(otherwise if bound is None else bound)
            for bound, otherwise in zip(bounds, (infinite.min, infinite.max), strict=True)
        )
        parameters = [lower, upper]
    elif node.op_type not in _FUSED:
        return False
    conv.attributes.add(ir.AttrString("activation", node.op_type))
    if parameters:
        conv.attributes.add(ir.AttrFloat32s("activation_params", parameters))
    return True


def _elementwise(layout: BlockedLayout, node: ir.Node) -> ir.Value | None:
    """Images of one shape and scalars; or an image and one number per channel."""
    values = [value for value in node.inputs if value is not None]
    images = [value for value in values if not _is_scalar(value)]
    twins = sum(layout.has_twin(value) for value in images)
    if twins * 2 < len(images) or not twins:
        return None  # more reordering than it saves
    counts = {layout.channels(value) for value in images}
    sizes = {_spatial(value) for value in images}
    if len(counts) != 1 or None in counts or None in sizes:
        return None
    count = cast("int", counts.pop())
    if node.op_type in _UNBOUNDED and count % layout.block:
        return None
    if len(sizes) > 1:
        return _per_channel(layout, node, count)
    strangers = [value for value in images if not layout.has_twin(value)]
    if any(count % 4 or value.dtype not in (None, ir.DataType.FLOAT) for value in strangers):
        return None
    whole = next((value for value in images if dims(value)[0] != 1), images[0])
    layout.note(node.outputs[0], count, whole)
    fused = _fused(layout, node, images)
    if fused is not None:
        return fused
    operands = [
        layout.blocked(value) if value in images else value  # a scalar, or an absent input
        for value in node.inputs
    ]
    given = attributes_of(node)
    return cast("ir.Value", layout.op.emit(node.op_type, *operands, **given))


def _fused(layout: BlockedLayout, node: ir.Node, images: list[ir.Value]) -> ir.Value | None:
    """The result where the blocked convolution that feeds `node` can compute it itself."""
    if len(images) == 1:
        twin = layout.blocked(images[0])
        if layout.alone(images[0]) and _fuse_activation(twin.producer(), node):
            return twin
    elif node.op_type in ("Add", "Sum") and len(images) == 2 == len(node.inputs):
        a, b = images
        return _fuse_sum(layout, node, a, b) or _fuse_sum(layout, node, b, a)
    return None


def _is_scalar(value: ir.Value) -> bool:
    constant = constant_of(value)
    return constant is not None and constant.size == 1 and len(value.shape or ()) < 4


def _per_channel(layout: BlockedLayout, node: ir.Node, count: int) -> ir.Value | None:
    """An image [N, C, H, W] and one number per channel, [N, C, 1, 1]: the layouts of the latter are the same."""
    values = [cast("ir.Value", value) for value in node.inputs]
    sizes = [_spatial(value) for value in values]
    if count % layout.block or len(values) != 2 or (1, 1) not in sizes:
        return None
    image = values[1 - sizes.index((1, 1))]
    if not layout.has_twin(image):
        return None
    layout.note(node.outputs[0], count, image)
    operands = [layout.apart(layout.twin_or_same(value)) for value in values]
    return layout.together(layout.op.emit(node.op_type, *operands), count)


def _fuse_sum(
    layout: BlockedLayout, node: ir.Node, from_conv: ir.Value, other: ir.Value
) -> ir.Value | None:
    """Let the blocked convolution behind `from_conv` add `other` itself, in the memory of `other`."""
    if not (layout.has_twin(from_conv) and layout.has_twin(other) and layout.alone(from_conv)):
        return None
    conv = layout.blocked(from_conv).producer()
    if conv is None or (conv.domain, conv.op_type) != (NCHWC, "Conv"):
        return None
    if "activation" in conv.attributes or len(conv.inputs) > 3:
        return None
    if from_conv is other or not layout.used_last(other, node) or conv.outputs[0].uses():
        return None
    if dims(from_conv)[0] != dims(other)[0]:
        return None  # a batch of one, repeated
    conv.resize_inputs(4)
    conv.replace_input_with(3, layout.blocked(other))
    # What it adds may be computed only behind its old place.
    graph = cast("ir.Graph", conv.graph)
    graph.remove(conv)
    graph.insert_before(node, conv)
    return layout.blocked(from_conv)


def _activation_mask(layout: BlockedLayout, node: ir.Node) -> ir.Value | None:
    g, y = (cast("ir.Value", value) for value in node.inputs)
    if not layout.has_twin(g) and not layout.has_twin(y):
        return None
    count = layout.channels(g) or layout.channels(y)
    if count is None or y.dtype not in (None, ir.DataType.FLOAT):
        return None
    if count % 4 and not (layout.has_twin(g) and layout.has_twin(y)):
        return None
    gradient, output = layout.blocked(g), layout.blocked(y)
    layout.note(node.outputs[0], count, y)
    producer = gradient.producer()
    if layout.alone(g) and producer is not None and producer.op_type in _MASKING:
        seen = producer.inputs[_MASKING[producer.op_type]]
        if seen is output and "lower" not in producer.attributes:
            for name in ("lower", "upper"):
                producer.attributes.add(node.attributes[name])
            return gradient
    given = attributes_of(node)
    return cast(
        "ir.Value", layout.op.emit("ActivationMask", gradient, output, domain=PLUGIN, **given)
    )


def _pool(layout: BlockedLayout, node: ir.Node) -> ir.Value | None:
    x = cast("ir.Value", node.inputs[0])
    if not layout.has_twin(x) or any(value.uses() for value in node.outputs[1:]):
        return None
    settings = node.attributes
    if settings.get_int("ceil_mode", 0) and settings.get_int("count_include_pad", 0):
        return None  # the blocked one counts what lies beyond the padding, too
    given = attributes_of(node)
    layout.note(node.outputs[0], cast("int", layout.channels(x)))
    return cast(
        "ir.Value",
        layout.op.emit(node.op_type, layout.blocked(x), domain=NCHWC, **given),
    )


def _max_pool_gradient(layout: BlockedLayout, node: ir.Node) -> ir.Value | None:
    g, y, x = (cast("ir.Value", value) for value in node.inputs)
    count = layout.channels(x)
    if not (layout.has_twin(x) and layout.has_twin(y)) or count is None or count % 4:
        return None
    given = attributes_of(node)
    given["block"] = layout.block
    operands = [layout.blocked(value) for value in (g, y, x)]
    layout.note(node.outputs[0], count, x)
    return cast("ir.Value", layout.op.emit("MaxPoolGradient", *operands, domain=PLUGIN, **given))


def _expand(layout: BlockedLayout, node: ir.Node) -> ir.Value | None:
    """One number per channel, spread over an image whose size is static."""
    x, shape = (cast("ir.Value", value) for value in node.inputs)
    source = shape.producer()
    like = source.inputs[0] if source is not None and source.op_type == "Shape" else None
    size = node.outputs[0] if like is None else like
    if _constant(shape) is not None:
        sizes: tuple[Any, ...] | None = tuple(cast("np.ndarray", _constant(shape))[2:].tolist())
    else:
        sizes = _spatial(size)
    count = layout.channels(size)
    if count is None or count % layout.block or sizes is None:
        return None
    if not all(isinstance(length, int) for length in sizes) or len(sizes) != 2:
        return None
    if layout.channels(x) != count or _spatial(x) != (1, 1):
        return None
    if size.shape is None or dims(x)[0] != dims(size)[0]:
        return None  # a batch of one, repeated
    value = layout.apart(layout.twin_or_same(x))
    spread = layout.op.Expand(value, layout.op.ints([1, 1, *sizes, 1]))
    layout.note(node.outputs[0], count, size)
    return layout.together(spread, count)


def _reduce(layout: BlockedLayout, node: ir.Node) -> ir.Value | None:
    """A sum or mean over height and width, which stay as axes of length 1."""
    x = cast("ir.Value", node.inputs[0])
    axes = _constant(node.inputs[1]) if len(node.inputs) > 1 else node.attributes.get_ints("axes")
    count = layout.channels(x)
    if not layout.has_twin(x) or axes is None or count is None or count % layout.block:
        return None
    if sorted(int(axis) % 4 for axis in axes) != [2, 3] or not node.attributes.get_int(
        "keepdims", 1
    ):
        return None
    value = layout.apart(layout.blocked(x))
    reduced = layout.op.reduce(node.op_type, value, [2, 3], keepdims=True)
    layout.note(node.outputs[0], count)
    if node.outputs[0].shape is None and x.shape is not None:
        node.outputs[0].shape = ir.Shape([*list(x.shape)[:2], 1, 1])
    return layout.together(reduced, count)


def _concat(layout: BlockedLayout, node: ir.Node) -> ir.Value | None:
    """Images joined along their channels, each of them whole blocks."""
    values = [cast("ir.Value", value) for value in node.inputs]
    counts = [layout.channels(value) for value in values]
    if node.attributes.get_int("axis", 0) not in (1, -3) or not all(map(layout.has_twin, values)):
        return None
    if any(count is None or count % layout.block for count in counts):
        return None
    layout.note(node.outputs[0], sum(cast("list[int]", counts)))
    return cast(
        "ir.Value",
        layout.op.Concat(*(layout.blocked(value) for value in values), axis=1),
    )


def _shape(layout: BlockedLayout, node: ir.Node) -> ir.Value | None:
    """The shape of an image without padding channels is that of its twin: asked there, it keeps no copy alive."""
    x = cast("ir.Value", node.inputs[0])
    count = layout.channels(x)
    if layout.has_twin(x) and count is not None and count % layout.block == 0:
        node.replace_input_with(0, layout.blocked(x))
    return None


_HANDLERS: dict[tuple[str, str], Handler] = {
    ("", "Conv"): _conv,
    (PLUGIN, "ConvGradient"): _conv_gradient,
    (PLUGIN, "ActivationMask"): _activation_mask,
    (PLUGIN, "MaxPoolGradient"): _max_pool_gradient,
    **{("", name): _elementwise for name in _ELEMENTWISE | _BOOLEAN | _UNBOUNDED},
    **{("", name): _pool for name in ("MaxPool", "AveragePool", "GlobalAveragePool")},
    **{("", name): _reduce for name in ("ReduceSum", "ReduceMean")},
    ("", "Expand"): _expand,
    ("", "Concat"): _concat,
    ("", "Shape"): _shape,
}
