"""`igonnx.gradient` against onnxruntime-training's gradient builder, both graphs run in that wheel's own runtime.

`make parity` runs this in a virtual environment of its own, because the wheel takes the place of onnxruntime.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from rule_cases import ALL
from rule_cases.case import OUTPUT, as_dtype, options

import igonnx
from igonnx.autodiff import ort_training
from igonnx.models import digits

pytestmark = pytest.mark.parity

if importlib.util.find_spec("onnxruntime.training") is None:
    pytest.skip("needs onnxruntime-training", allow_module_level=True)

DATA = Path(__file__).parents[1] / "data"
EXPORTS = sorted(path.stem for path in DATA.glob("*.onnx"))
ROUNDING = 1e-5
NEWEST_OPSET = 21  # that onnxruntime 1.19 reads
# It has no gradient for other operators of the standard, or gets them wrong.
OPERATORS = [
    "Abs", "Add", "AveragePool", "Clip", "Concat", "Conv", "Cos", "Div", "Dropout", "Erf", "Exp", "Expand",
    "Flatten", "Gather", "Gelu", "Gemm", "GlobalAveragePool", "LayerNormalization", "LeakyRelu", "Log",
    "LogSoftmax", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "Pad", "Pow", "Reciprocal", "ReduceL2",
    "ReduceLogSumExp", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Sigmoid", "Sin", "Slice", "Softmax", "Split",
    "Sqrt", "Squeeze", "Sub", "Tanh", "Tile", "Transpose", "Unsqueeze", "Where",
]  # fmt: skip
# Its pools want fixed sizes, and a broadcast in Where must be ruled out.
STATIC_ONLY = ["AveragePool", "MaxPool", "Where"]


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    chosen = options()
    # The optimiser of this old runtime fails on some small graphs ("Should be unreachable").
    chosen.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), chosen)


def gradients(model, feeds, names):
    """The outputs `grad_<name>`, of a gradient model."""
    runtime = session(model)
    given = {v.name: feeds[v.name] for v in runtime.get_inputs() if v.name in feeds}
    return runtime.run([f"grad_{name}" for name in names], given)


def distance(given, expected) -> float:
    """Relative L2 distance."""
    assert given.shape == expected.shape
    assert given.dtype == expected.dtype
    given, expected = given.astype(np.float64), expected.astype(np.float64)
    return np.linalg.norm(given - expected) / max(np.linalg.norm(expected), 1e-3)


@pytest.mark.parametrize("name", EXPORTS)
def test_networks(name):
    model = onnx.load(DATA / f"{name}.onnx")
    with np.load(DATA / f"{name}.npz") as arrays:
        feeds = {**arrays, "cotangent_logits": arrays["cotangent"]}
    wrt = str(feeds["wrt"])
    if name.startswith("resnet"):
        # Max pooling wants images of fixed sizes: those of any size are refused.
        with pytest.raises(igonnx.UnsupportedOperatorError, match=r"MaxPool.*not fixed"):
            ort_training.gradient(model)
        axes = model.graph.input[0].type.tensor_type.shape.dim
        for axis in (2, 3):
            axes[axis].dim_value = feeds[wrt].shape[axis]
    (theirs,) = gradients(ort_training.gradient(model, wrt=wrt), feeds, [wrt])
    (ours,) = gradients(igonnx.gradient(model, wrt=wrt), feeds, [wrt])
    assert distance(ours, theirs) < ROUNDING
    assert distance(theirs, feeds["gradient"]) < ROUNDING


def test_a_trained_network():
    model, images = digits.load(), digits.test_set()[0][:20]
    with pytest.raises(igonnx.UnsupportedOperatorError, match="operator BatchNormalization"):
        ort_training.gradient(model)
    wrt = "/5/BatchNormalization_output_0"
    feeds = {"image": images, "cotangent_logits": np.eye(10, dtype=np.float32)[np.arange(20) % 10]}
    (theirs,) = gradients(ort_training.gradient(model, wrt=wrt), feeds, [wrt])
    (ours,) = gradients(igonnx.gradient(model, wrt=wrt), feeds, [wrt])
    assert distance(ours, theirs) < ROUNDING


@pytest.mark.parametrize("layout", ["static", "named"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_operators(operator, layout):
    """Where both build a graph that runs, the numbers agree."""
    cases = [case for case in ALL if case.operator == operator and case.domain == ""]
    agreed = [agree(case, layout) for case in cases]
    assert any(agreed) or (layout == "named" and operator in STATIC_ONLY)


def agree(case, layout) -> bool:
    """Whether there were gradients to compare; they agree."""
    rng = np.random.default_rng(3)
    arrays = {name: as_dtype(array, np.float32) for name, array in case.draw(rng).items()}
    if not all(array.size for array in arrays.values()):
        return False  # its runtime divides by sizes: it crashes
    opset = min(NEWEST_OPSET, case.opsets[-1])
    try:
        forward = session(case.model(arrays, opset=opset, dtype=np.float32))
        given = {v.name: arrays[v.name] for v in forward.get_inputs()}
        shape = forward.run([OUTPUT], given)[0].shape
        model = case.model(arrays, opset=opset, dtype=np.float32, layout=layout, output=shape)
        feeds = {**arrays, f"cotangent_{OUTPUT}": rng.standard_normal(shape, np.float32)}
        theirs = gradients(ort_training.gradient(model, wrt=case.explained), feeds, case.explained)
    except (igonnx.ModelError, *RUNTIME_ERRORS):
        return False
    ours = gradients(igonnx.gradient(model, wrt=case.explained), feeds, case.explained)
    for given, expected in zip(theirs, ours, strict=True):
        assert distance(given, expected) < ROUNDING, case.label
    return True


def _runtime_errors():
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return state.Fail, state.InvalidArgument, state.NotImplemented, state.RuntimeException


RUNTIME_ERRORS = _runtime_errors()


def test_contract(model):
    """Names, order, dtypes and shapes are those of `igonnx.gradient`, at inputs and at what lies between."""
    proto = model(
        """(double[N, 3] x, double s) => (double[N, 3] first, double[N, 3] second) {
            a = Mul(x, x)
            first = Relu(x)
            b = Mul(a, s)
            second = Tanh(b)
        }"""
    )
    wrt = ["s", "a", "x"]
    theirs = ort_training.gradient(proto, wrt=wrt, output="second")
    ours = igonnx.gradient(proto, wrt=wrt, output="second")
    pairs = [(theirs.graph.input, ours.graph.input), (theirs.graph.output, ours.graph.output)]
    for given, expected in pairs:
        assert [v.SerializeToString() for v in given] == [v.SerializeToString() for v in expected]
    assert {(o.domain, o.version) for o in theirs.opset_import} >= {("", 17)}
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.standard_normal((4, 3)),
        "s": np.asarray(0.7),
        "cotangent_second": rng.standard_normal((4, 3)),
    }
    for given, expected in zip(
        gradients(theirs, feeds, wrt), gradients(ours, feeds, wrt), strict=True
    ):
        assert distance(given, expected) < 1e-12


def test_the_builder_alone_fails_on_layer_normalization(model):
    """What docs/accuracy.md quotes; `ort_training` switches the missing outputs on."""
    from onnxruntime.capi._pybind_state import GradientGraphBuilder

    proto = model(
        "(float[N, 3] x, float[3] s, float[3] b, float[N, 3] y_grad) => (float[N, 3] y) {"
        "    y = LayerNormalization(x, s, b)"
        "}"
    )
    builder = GradientGraphBuilder(
        proto.SerializeToString(), {"y"}, {"x"}, "", ort.SessionOptions()
    )
    with pytest.raises(RuntimeError, match=r"i < node_->OutputDefs\(\)\.size\(\) was false"):
        builder.build()


def test_an_operator_it_does_not_know_is_named(model):
    proto = model("(float[N, 3, 3] x) => (float[N] y) { t = Tanh(x) y = Det(t) }")
    with pytest.raises(igonnx.UnsupportedOperatorError, match=r"has no gradient for operator Det"):
        ort_training.gradient(proto)


def test_a_model_too_new_for_it(model):
    proto = model("(float[N, 3] x) => (float[N, 3] y) { y = Tanh(x) }", opset=22, ir_version=10)
    with pytest.raises(igonnx.ModelError, match=r"opset 22, and .* reads opset 21 at most"):
        ort_training.gradient(proto)


def test_a_new_stamp_on_an_old_model(model):
    proto = model("(float[N, 3] x) => (float[N, 3] y) { y = Tanh(x) }", opset=21, ir_version=11)
    assert ort_training.gradient(proto).ir_version <= 10


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(float[1, 2, 5] x) => (float[1, 2, 5] y) { y = Conv<auto_pad=\"SAME_UPPER\">(x, w) }", "auto_pad"),
        ("(float[N, 3] x, bool[N, 3] c, float[3] z) => (float[N, 3] y) { y = Where(c, x, z) }", "broadcasting"),
        ("(float[4, 3] x) => (float[2, 3] y) { y, unused = Split(x) }", "nobody uses"),
    ],
)  # fmt: skip
def test_its_known_mistakes_are_refused(model, text, reason):
    weights = {"w": np.ones((2, 2, 3), np.float32)} if "w)" in text else {}
    with pytest.raises(igonnx.UnsupportedOperatorError, match=reason):
        ort_training.gradient(model(text, weights))


def test_names_of_its_own_are_refused(model):
    proto = model("(float[N, 3] x) => (float[N, 3] y) { x_grad = Tanh(x) y = Exp(x_grad) }")
    with pytest.raises(igonnx.ModelError, match="already has a tensor called 'x_grad'"):
        ort_training.gradient(proto)


def test_it_keeps_quiet(model, capfd):
    ort_training.gradient(model("(float[N, 3] x) => (float[N, 3] y) { t = Tanh(x) y = Exp(t) }"))
    assert capfd.readouterr() == ("", "")
