"""Native lowering into the blocked layout gives the numbers of the portable graph, whatever the convolution."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from plugin_sessions import open_session

import igonnx
from igonnx.engine.native_target import native_target
from igonnx.explanation_graph import build_explanation_graph
from igonnx.graph.native_target import NativeTarget
from igonnx.model import Model
from igonnx.native_lowering import lower
from igonnx.native_lowering.convolution_gradient import NCHWC
from igonnx.row_gradient import build_row_gradient

pytestmark = pytest.mark.skipif(
    native_target().block == 1, reason="this runtime has no blocked layout on this processor"
)


class Net:
    """A network of images, built layer by layer with random weights."""

    def __init__(self, shape: Sequence[int | str], seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.shape = list(shape)
        self.last = "x"

    def add(self, op_type: str, *more: str, source: str | None = None, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        inputs = [source or self.last, *more]
        self.nodes.append(helper.make_node(op_type, inputs, [name], **attributes))
        self.last = name
        return name

    def weight(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def conv(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        *,
        group: int = 1,
        **attributes: Any,
    ) -> str:
        sizes = (kernel, kernel) if isinstance(kernel, int) else kernel
        shape = (outputs, inputs // group, *sizes)
        scale = np.sqrt(1 / np.prod(shape[1:]))
        weight = self.weight((scale * self.rng.standard_normal(shape)).astype(np.float32))
        bias = self.weight(self.rng.standard_normal(outputs).astype(np.float32))
        return self.add("Conv", weight, bias, group=group, **attributes)

    def model(self) -> Model:
        """The network with a mean over height and width at its end, so that every size has logits."""
        self.add("GlobalAveragePool")
        self.add("Flatten")
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info(self.last, TensorProto.FLOAT, ["n", None])],
            self.weights,
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return Model.load(proto)


def graphs(model: Model) -> tuple[ir.Model, ir.Model]:
    """The explanation graph with standard operators only, and lowered for this machine."""
    found = []
    for target in (None, native_target()):
        rows = build_row_gradient(model, output=model.outputs[0].name, wrt=["x"], native=target)
        graph = build_explanation_graph(rows, []).model
        if target is not None:
            lower(graph, target)
        found.append(graph)
    return found[0], found[1]


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [np.asarray(value) for value in open_session(ir.to_proto(model)).run(None, feeds)]


def compare(
    net: Net, size: Sequence[int], rows: int = 3, bound: float = 1e-5
) -> collections.Counter[str]:
    """Run both graphs on images [2, C, *size]; return how often each operator is in the lowered one."""
    model = net.model()
    portable, lowered = graphs(model)
    rng = np.random.default_rng(1)
    shape = [2, int(net.shape[1]), *size]
    x, baseline = rng.standard_normal((2, *shape)).astype(np.float32)
    classes = run_forward(model, x).shape[1]
    feeds = {
        "x:x": x,
        "baseline:x": baseline,
        "row": np.sort(rng.integers(0, 2, rows)),
        "alpha": rng.random(rows, dtype=np.float32),
        "weight": rng.random(rows, dtype=np.float32),
        "cotangent": rng.standard_normal((2, classes)).astype(np.float32),
    }
    results = zip(run(lowered, feeds), run(portable, feeds), strict=True)
    for (given, expected), cancels in zip(results, (1, 10, 10), strict=True):
        assert np.abs(expected).max() > 0
        # In a score or slope, terms cancel.
        assert np.linalg.norm(given - expected) <= cancels * bound * np.linalg.norm(expected)
    assert any(node.domain == NCHWC for node in lowered.graph)
    return collections.Counter(node.op_type for node in lowered.graph)


def run_forward(model: Model, x: np.ndarray) -> np.ndarray:
    return run(model.clone(), {"x": x})[0]


SIZES = [(13, 16), (7, 7)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [(16, 32), (24, 40), (32, 12), (8, 16)])
@pytest.mark.parametrize(
    ("kernel", "stride", "pads"),
    [
        (1, 1, (0, 0, 0, 0)),
        (3, 1, (1, 1, 1, 1)),
        (3, 2, (1, 1, 1, 1)),
        (3, 2, (0, 0, 1, 1)),
        (5, 2, (2, 2, 2, 2)),
        (1, 2, (0, 0, 0, 0)),
        (2, 3, (0, 1, 0, 0)),
        (4, 3, (3, 0, 1, 2)),
        (7, 4, (3, 3, 3, 3)),
    ],
)
def test_convolutions(
    size: tuple[int, int],
    channels: tuple[int, int],
    kernel: int,
    stride: int,
    pads: tuple[int, ...],
) -> None:
    for height, width in [("h", "w"), size]:
        net = Net(["n", 3, height, width])
        net.conv(3, channels[0], 3, pads=[1, 1, 1, 1])
        net.add("Sigmoid")
        net.conv(*channels, kernel, strides=[stride, stride], pads=pads)
        net.add("Tanh")
        counts = compare(net, size)
        assert counts["ConvGradient"] == 0
        assert counts["InterleavePhases"] == (stride > 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (2, 4), (1, 7)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (1, 3)])
@pytest.mark.parametrize("dilations", [(1, 1), (2, 1)])
def test_depthwise_convolutions(
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
) -> None:
    net = Net(["n", 4, *size])
    net.conv(4, 32, 1)
    net.add("Tanh")
    net.conv(32, 32, kernel, group=32, strides=strides, dilations=dilations, pads=[1, 2, 1, 0])
    assert compare(net, size)["DepthwiseGradient"] == 1


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "pads"),
    [
        (3, 2, 1, (1, 1, 1, 1)),
        (3, 2, 1, (0, 0, 1, 1)),
        (7, 2, 1, (3, 3, 3, 3)),
        (3, 1, 2, (0, 2, 1, 0)),
        (4, 4, 1, (0, 0, 0, 0)),
        (2, 3, 1, (1, 0, 0, 1)),
    ],
)
def test_stems(
    channels: int, kernel: int, stride: int, dilation: int, pads: tuple[int, ...]
) -> None:
    for shape, size in ((["n", channels, "h", "w"], (9, 13)), (["n", channels, 70, 37], (70, 37))):
        net = Net(shape, seed=8)
        attributes = {"strides": [stride] * 2, "dilations": [dilation] * 2, "pads": pads}
        net.conv(channels, 16, kernel, **attributes)
        net.add("Tanh")
        net.conv(16, 16, 1)
        net.add("Sigmoid")
        assert compare(net, size)["StemGradient"] == 1


@pytest.mark.parametrize("activation", ["Relu", "Clip"])
@pytest.mark.parametrize("stride", [1, 2])
def test_masks_in_passing(activation: str, stride: int) -> None:
    net = Net(["n", 3, 12, 12], seed=9)
    bounds = [net.weight(np.array(bound, np.float32)) for bound in (0, 6)]
    bounds = bounds if activation == "Clip" else []
    for inputs, outputs, kernel, group in [(3, 32, 3, 1), (32, 32, 3, 32), (32, 48, 1, 1)]:
        strides = [stride if group > 1 else 1] * 2
        net.conv(inputs, outputs, kernel, group=group, strides=strides)
        net.add(activation, *bounds)
    # The one behind the depthwise convolution's gradient is part of that operator.
    assert compare(net, (12, 12))["ActivationMask"] == 2


@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (1, 2)])
def test_groups_of_whole_blocks(strides: tuple[int, int]) -> None:
    net = Net(["n", 16, 9, 12])
    net.conv(16, 64, 1)
    net.add("Sigmoid")
    net.conv(64, 32, 3, group=2, strides=strides, pads=[1, 1, 1, 1])
    compare(net, (9, 12))


@pytest.mark.parametrize(
    "activation",
    ["Relu", "Clip", "LeakyRelu", "HardSwish", "Sigmoid", "Elu", "Softplus", "HardSigmoid"],
)
@pytest.mark.parametrize("channels", [32, 20])
def test_activations_stay_blocked(activation: str, channels: int) -> None:
    net = Net(["n", 3, 10, 10], seed=2)
    bounds = (
        [net.weight(np.array(bound, np.float32)) for bound in (0, 6)]
        if activation == "Clip"
        else []
    )
    net.conv(3, channels, 3)
    net.add(activation, *bounds)
    net.conv(channels, channels, 3, pads=[1, 1, 1, 1])
    net.add(activation, *bounds)
    counts = compare(net, (10, 10))
    if activation in ("Relu", "Clip"):
        assert counts["Relu"] + counts["Clip"] == 0, "the convolution applies them itself"


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("activation", [None, "Relu"])
def test_residuals(stride: int, activation: str | None) -> None:
    net = Net(["n", 3, 14, 11], seed=4)
    net.conv(3, 32, 3, strides=[2, 2])
    entry = net.add("Relu") if activation else net.last
    for _ in range(2):
        net.conv(32, 48, 1)
        net.add("Relu")
        net.conv(48, 48, 3, group=48, pads=[1, 1, 1, 1])
        net.add("Relu")
        net.conv(48, 32, 1)
        entry = net.add("Add", entry)
        if activation:
            entry = net.add(activation)
    net.conv(32, 16, 3, strides=[stride, stride])
    compare(net, (14, 11))


def test_sums_are_left_to_the_convolution_where_the_memory_is_free() -> None:
    net = Net(["n", 3, 8, 8], seed=4)
    entry = net.conv(3, 16, 3)
    net.conv(16, 16, 1)
    net.add("Add", entry)
    net.conv(16, 16, 1)
    counts = compare(net, (8, 8))
    # One sum forwards and one backwards.
    assert counts["Sum"] == 0
    assert counts["Add"] == 1, "only that of interpolation"


@pytest.mark.parametrize(
    ("kernel", "stride", "pads", "ceil_mode"),
    list(itertools.product([2, 3], [1, 2], [(0, 0, 0, 0), (1, 0, 1, 1)], [0, 1])),
)
@pytest.mark.parametrize("channels", [32, 20, 6])
def test_max_pooling(
    kernel: int, stride: int, pads: tuple[int, ...], ceil_mode: int, channels: int
) -> None:
    for shape in (["n", 3, 11, 14], ["n", 3, "h", "w"]):
        net = Net(shape, seed=5)
        net.conv(3, channels, 3)
        net.add("Relu")
        net.add(
            "MaxPool",
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=pads,
            ceil_mode=ceil_mode,
        )
        net.conv(channels, 16, 1)
        assert compare(net, (11, 14))["MaxPoolGradient"] == 1


@pytest.mark.parametrize(
    ("kernel", "stride", "pads", "ceil_mode", "count_include_pad"),
    list(itertools.product([2, 3], [2, 3], [(0, 0, 0, 0), (1, 1, 1, 1)], [0, 1], [0, 1])),
)
def test_average_pooling(
    kernel: int, stride: int, pads: tuple[int, ...], ceil_mode: int, count_include_pad: int
) -> None:
    net = Net(["n", 3, 11, 14], seed=5)
    net.conv(3, 32, 3)
    net.add("Sigmoid")
    net.add(
        "AveragePool",
        kernel_shape=[kernel, kernel],
        strides=[stride, stride],
        pads=pads,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )
    net.conv(32, 16, 1)
    compare(net, (11, 14))


@pytest.mark.parametrize("constant_first", [True, False])
@pytest.mark.parametrize("convolved", [True, False])
def test_one_image_added_to_a_batch(constant_first: bool, convolved: bool) -> None:
    net = Net(["n", 3, 9, 9], seed=10)
    image = net.conv(3, 16, 3)
    if convolved:
        net.last = net.weight(net.rng.standard_normal((1, 3, 9, 9)).astype(np.float32))
        one = net.conv(3, 16, 3)
    else:
        one = net.weight(net.rng.standard_normal((1, 16, 7, 7)).astype(np.float32))
    first, second = (one, image) if constant_first else (image, one)
    net.add("Add", second, source=first)
    net.add("Tanh")
    net.conv(16, 16, 3)
    compare(net, (9, 9))


def test_masks_side_by_side() -> None:
    """Images of booleans joined, and read by an operator that is not there in the blocked layout."""
    net = Net(["n", 3, 9, 9], seed=11)
    zero = net.weight(np.array(0, np.float32))
    stem = net.conv(3, 16, 3)
    above = net.add("Greater", zero)
    below = net.add("Less", zero, source=stem)
    net.add("Concat", below, source=above, axis=1)
    mask = net.add("Cast", to=TensorProto.FLOAT)
    net.last = stem
    net.conv(16, 32, 1)
    net.add("Mul", mask)
    net.conv(32, 16, 1)
    compare(net, (9, 9))


LOOP = """(float[N, 16, 6, 6] x) => (float[N, K] y) {
    turns = Constant<value_int = 3>()
    go = Constant<value = bool {1}>()
    last = Loop(turns, go, x) <body = turn (int64 i, bool c, float[N, 16, 6, 6] h) => (bool d, float[N, 16, 6, 6] k) {
        d = Identity(c)
        a = Conv<pads = [1, 1, 1, 1]>(h, w)
        k = Tanh(a)
    }>
    z = Conv(last, w)
    p = GlobalAveragePool(z)
    y = Flatten(p)
}"""


def test_convolutions_in_the_body_of_a_loop(model: Callable[..., onnx.ModelProto]) -> None:
    """Bodies are not lowered; the rest of the graph is."""
    rng = np.random.default_rng(12)
    net = model(LOOP, {"w": rng.standard_normal((16, 16, 3, 3)).astype(np.float32) / 12})
    x = rng.standard_normal((2, 16, 6, 6)).astype(np.float32)
    native, reference = (
        igonnx.Explainer(net, engine=engine).integrated_gradients(x, steps=4)
        for engine in ("native", "reference")
    )
    np.testing.assert_allclose(native.values, reference.values, rtol=1e-4, atol=1e-6)


def test_gates_per_channel_as_in_squeeze_and_excitation() -> None:
    net = Net(["n", 3, 9, 9], seed=6)
    net.conv(3, 32, 3)
    image = net.add("Sigmoid")
    net.add("GlobalAveragePool")
    net.conv(32, 8, 1)
    net.add("Relu")
    net.conv(8, 32, 1)
    gate = net.add("Sigmoid")
    net.add("Mul", gate, source=image)
    net.conv(32, 16, 3)
    compare(net, (9, 9))


@pytest.mark.parametrize("channels", [(16, 32), (8, 24)])
def test_concatenated_images(channels: tuple[int, int]) -> None:
    net = Net(["n", 3, 9, 9], seed=7)
    stem = net.conv(3, 16, 3)
    left = net.conv(16, channels[0], 1)
    net.last = stem
    net.conv(16, channels[1], 3, pads=[1, 1, 1, 1])
    net.add("Concat", left, axis=1)
    net.conv(sum(channels), 16, 1)
    compare(net, (9, 9))


def test_a_target_without_blocks_is_left_alone() -> None:
    net = Net(["n", 3, 8, 8])
    net.conv(3, 16, 3)
    rows = build_row_gradient((model := net.model()), output=model.outputs[0].name, wrt=["x"])
    graph = build_explanation_graph(rows, []).model
    before = [node.op_type for node in graph.graph]
    lower(graph, NativeTarget(block=1))
    assert [node.op_type for node in graph.graph] == before
