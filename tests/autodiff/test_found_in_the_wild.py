"""What exporters write that nobody would write by hand, each as small as it still shows what went wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from rule_cases.check import session
from slopes import check, parse

import igonnx
from igonnx.model import Model

Build = Callable[..., onnx.ModelProto]

RNG = np.random.default_rng(11)

# The legacy exporter asks for the rank of a scalar-or-tensor with an If; here it is the model's own output.
SETTLED_IF = """(double[2, 3] x) => (double[2, 3] y) {
    never = Constant<value = bool {0}>()
    s = Sin(x)
    y = If(never) <
        then_branch = flat () => (double[2, 3] a) { a = Neg(s) },
        else_branch = same () => (double[2, 3] b) { b = Identity(s) }>
}"""

# torch.Tensor.repeat, legacy exporter: axes are added in front where there are more repeats than axes.
REPEAT = """(double[2, 3] x) => (double[2, 6] y) {
    shape = Shape(x)
    axes = Size(shape)
    one = Constant<value = int64 {1}>()
    missing = Sub(axes, one)
    zero = Constant<value = int64[1] {0}>()
    fewer = Less(missing, zero)
    wide = If(fewer) <
        then_branch = more () => (double[k, m, n] a) {
            count = Constant<value = int64[1] {1}>()
            target = Concat<axis = 0>(count, shape)
            a = Reshape(x, target)
        },
        else_branch = same () => (double[m, n] b) { b = Identity(x) }>
    times = Constant<value = int64[2] {1, 2}>()
    tiled = Tile(wide, times)
    y = Sin(tiled)
}"""

# nn.EmbeddingBag, new exporter: a Loop that carries a sequence which is declared nowhere.
BAGS = """(double[6, 3] x) => (double[2, 3] y) {
    rows = SequenceEmpty<dtype = 11>()
    times = Constant<value = int64 {2}>()
    going = Constant<value = bool {1}>()
    two = Constant<value = int64[1] {2}>()
    three = Constant<value = int64[1] {3}>()
    last = Loop(times, going, rows) <body = row (int64 i, bool c, so_far) => (bool d, grown) {
        d = Identity(c)
        zero = Constant<value = int64[1] {0}>()
        place = Reshape(i, two_or_less)
        start = Mul(place, three)
        end = Add(start, three)
        part = Slice(x, start, end, zero)
        squares = Mul(part, part)
        found = ReduceSum<keepdims = 1>(squares, zero)
        grown = SequenceInsert(so_far, found)
    }>
    y = ConcatFromSequence<axis = 0>(last)
}""".replace("two_or_less", "one").replace(
    "two = Constant<value = int64[1] {2}>()", "one = Constant<value = int64[1] {1}>()"
)


@pytest.mark.parametrize("text", [SETTLED_IF, REPEAT, BAGS], ids=["settled_if", "repeat", "bags"])
def test_gradient(text: str) -> None:
    size = (6, 3) if text is BAGS else (2, 3)
    check(parse(text), {"x": RNG.standard_normal(size)})


def test_the_number_of_axes_is_known_where_their_lengths_are_not(model: Build) -> None:
    loaded = Model.load(
        model(
            "(float[N, 1, 3] x) => (float[?] y) "
            "{ h = Relu(x) s = Shape(h) n = Size(s) c = Cast<to = 1>(n) r = Mul(h, c) y = ReduceSum<keepdims = 0>(r) }"
        )
    )
    assert "Size" not in {node.op_type for node in loaded.ir.graph}


def test_an_embedding_read_inside_a_loop_is_found(model: Build) -> None:
    """A model of integers, whose first floating tensor is what a loop makes of its table."""
    proto = model(
        """(int64[4] ids) => (float[4, 2] y) {
            times = Constant<value = int64 {4}>()
            going = Constant<value = bool {1}>()
            found = Loop(times, going) <body = row (int64 i, bool c) => (bool d, float[2] r) {
                d = Identity(c)
                id = Gather(ids, i)
                r = Gather(table, id)
            }>
            y = Tanh(found)
        }""",
        {"table": RNG.standard_normal((5, 2)).astype(np.float32)},
    )
    assert "grad_found" in {value.name for value in igonnx.gradient(proto).graph.output}


def test_an_output_whose_size_is_found_in_the_input(model: Build) -> None:
    """A detector, batch fixed at 1: its two trial rows need not find equally many."""
    proto = model(
        """(float[1, 3, 8] x) => (float[3, k] y) {
            one = Constant<value = int64[1] {0}>()
            rows = Squeeze(x, one)
            zero = Constant<value = float {0}>()
            best = ReduceMax<axes = [0], keepdims = 0>(rows)
            kept = Greater(best, zero)
            y = Compress<axis = 1>(rows, kept)
        }"""
    )
    x = RNG.standard_normal((1, 3, 8)).astype(np.float32) - 0.5
    expected = np.compress(x[0].max(axis=0) > 0, x[0], axis=1)
    np.testing.assert_array_equal(igonnx.Explainer(proto).predict(x)["y"], expected)


@pytest.mark.parametrize(
    "body",
    [
        "y = Mul(x, w)",  # each place has a weight of its own
        "s = Constant<value = int64 {0}>() y = CumSum(x, s)",  # each row goes into those behind it
        "m = ReduceMean<axes = [0]>(x) y = Sub(x, m)",  # each row goes into all
    ],
    ids=["places", "order", "mean"],
)
def test_a_fixed_first_axis_that_does_not_count_examples(model: Build, body: str) -> None:
    """Rows of requests must not be put where the model takes something else: the numbers would be wrong."""
    weights = {"w": RNG.standard_normal((3, 4)).astype(np.float32)} if "w" in body else {}
    # The Reshape keeps the first axis from being freed.
    proto = model(
        f"(float[3, 4] z) => (float[3, 4] q) {{ t = Transpose(z) x = Transpose(t) {body} "
        "f = Constant<value = int64[1] {12}>() l = Reshape(y, f) "
        "s2 = Constant<value = int64[2] {3, 4}>() q = Reshape(l, s2) }",
        weights,
    )
    x = RNG.standard_normal((3, 4)).astype(np.float32)
    with pytest.raises(igonnx.ModelError, match="fixed at 3, but these are not examples"):
        igonnx.Explainer(proto).integrated_gradients(x, target=0)


def test_a_fixed_first_axis_that_counts_examples(model: Build) -> None:
    """The same, with rows that know nothing of each other."""
    proto = model(
        "(float[3, 4] z) => (float[3, 4] q) { y = Sin(z) f = Constant<value = int64[1] {12}>() l = Reshape(y, f) "
        "s2 = Constant<value = int64[2] {3, 4}>() q = Reshape(l, s2) }"
    )
    x = RNG.standard_normal((3, 4)).astype(np.float32)
    values = igonnx.Explainer(proto).integrated_gradients(x, target=1).values
    np.testing.assert_allclose(values[:, 1], np.sin(x[:, 1]), atol=1e-6)


def test_names_that_the_runtime_will_want_again(tmp_path: Path) -> None:
    """A model saved after optimisation: its sizes have the names that ONNX Runtime gives when it optimises again."""
    rng = np.random.default_rng(0)
    proto = parse(
        """(float[N, 5, 4] x) => (float[N, 5, 2] y) {
            a = MatMul(x, w)
            b = Add(a, v)
            t = Tanh(b)
            c = MatMul(t, u)
            y = Add(c, z)
        }""",
        w=rng.standard_normal((4, 3)).astype(np.float32),
        v=rng.standard_normal(3).astype(np.float32),
        u=rng.standard_normal((3, 2)).astype(np.float32),
        z=rng.standard_normal(2).astype(np.float32),
    )
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx")
    added = {tensor.name for tensor in optimised.graph.initializer} - set("wvuz")
    assert added, "the runtime fuses other things by now"
    kept = {tensor.name for tensor in igonnx.gradient(optimised).graph.initializer}
    assert not added & kept
    x = rng.standard_normal((2, 5, 4)).astype(np.float32)
    cotangent = np.ones((2, 5, 2), np.float32)
    first, second = (
        ort.InferenceSession(igonnx.gradient(m).SerializeToString()).run(
            ["grad_x"], {"x": x, "cotangent_y": cotangent}
        )[0]
        for m in (proto, optimised)
    )
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)


def test_what_hides_behind_an_operator_nobody_knows_is_not_blamed(model: Build) -> None:
    """A lowering that lacks shapes since there are none behind such an operator: the error names that one."""
    proto = model(
        """(float[N, 3] x) => (float[N, 3] y) {
            h = nowhere.Mystery(x)
            y = com.microsoft.FusedMatMul<transB = 1>(x, h)
        }""",
        domains=', "nowhere": 1, "com.microsoft": 1',
    )
    with pytest.raises(igonnx.UnsupportedOperatorError, match=r"nowhere::Mystery"):
        igonnx.gradient(proto)


def test_settings_among_the_inputs_are_left_out_by_default(model: Build) -> None:
    """An older export feeds the scales of its Resize; nothing but the image has a gradient."""
    proto = model(
        """(float[1, 2, 4, 4] image, float[4] scales) => (float[1, 2, h, w] y) {
            y = Resize<mode="nearest">(image, , scales)
        }"""
    )
    names = [value.name for value in igonnx.gradient(proto).graph.output]
    assert names == ["y", "grad_image"]
    with pytest.raises(igonnx.ModelError, match="no gradient reaches 'scales'"):
        igonnx.gradient(proto, wrt="scales")


@pytest.mark.parametrize(("opset", "parameters"), [(18, 2), (20, 2), (21, 4)])
def test_group_normalisation_of_every_opset(opset: int, parameters: int) -> None:
    """ONNX has withdrawn that of opset 18, with scale and bias per group; files have it, and runtimes run it."""
    rng = np.random.default_rng(opset)
    weights = {name: rng.random(parameters).astype(np.float32) for name in ("scale", "bias")}
    floats, shape = onnx.TensorProto.FLOAT, ["N", 4, 3]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("GroupNormalization", ["x", "scale", "bias"], ["y"], num_groups=2)],
        "main",
        [onnx.helper.make_tensor_value_info("x", floats, shape)],
        [onnx.helper.make_tensor_value_info("y", floats, shape)],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    proto = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=9
    )
    x, cotangent, direction = rng.standard_normal((3, 2, 4, 3)).astype(np.float32)
    forward = session(proto)
    y, gradient = session(igonnx.gradient(proto)).run(None, {"x": x, "cotangent_y": cotangent})
    np.testing.assert_allclose(y, forward.run(None, {"x": x})[0], rtol=1e-5)
    step = 1e-2
    ends = [forward.run(None, {"x": x + s * step * direction})[0] for s in (1, -1)]
    expected = ((ends[0] - ends[1]) * cotangent).sum() / (2 * step)
    assert abs(expected - (gradient * direction).sum()) < 1e-3 * np.abs(gradient * direction).sum()
