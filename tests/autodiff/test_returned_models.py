"""What `igonnx.gradient` promises of the file that it returns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

import igonnx

Build = Callable[..., onnx.ModelProto]


def _domains(proto: onnx.ModelProto) -> set[str]:
    return {entry.domain for entry in proto.opset_import}


def test_only_domains_in_use_are_imported(model: Build) -> None:
    """ONNX Runtime's operator is written in the standard's: the file needs no more than those."""
    fused = model(
        "(float[N, 3] x) => (float[N, 3] y) { y = com.microsoft.QuickGelu(x) }",
        domains=', "com.microsoft": 1',
    )
    result = igonnx.gradient(fused)
    assert _domains(result) == {node.domain for node in result.graph.node} | {""}
    assert not any(domain.startswith("ai.igonnx") for domain in _domains(result))


def test_an_imported_function_leaves_no_domain_behind() -> None:
    helper = onnx.helper
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    gelu = helper.make_node("Gelu", ["a"], ["b"], domain="com.microsoft")
    function = helper.make_function("mine", "Act", ["a"], ["b"], [gelu], opsets)
    graph = helper.make_graph(
        [helper.make_node("Act", ["x"], ["y"], domain="mine")],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 3])],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    proto = helper.make_model(graph, functions=[function], opset_imports=imports, ir_version=8)
    result = igonnx.gradient(proto)
    assert _domains(result) == {node.domain for node in result.graph.node} | {""}


def test_the_model_given_stays_as_it_is_and_twice_is_the_same(mlp: onnx.ModelProto) -> None:
    before = mlp.SerializeToString(deterministic=True)
    first, second = igonnx.gradient(mlp), igonnx.gradient(mlp)
    assert mlp.SerializeToString(deterministic=True) == before
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )


def test_codes_alone_have_nothing_to_be_explained_by(model: Build) -> None:
    """The first floating tensor is the output itself: that is no answer."""
    codes = model(
        "(uint8[N, 3] x) => (float[N, 3] y) { y = DequantizeLinear(x, s) }",
        {"s": np.float32(0.5)},
    )
    with pytest.raises(igonnx.ModelError, match="no differentiable path from 'x'"):
        igonnx.gradient(codes)


def test_a_model_without_inputs_says_so(model: Build) -> None:
    constant = model("() => (float y) { y = Constant<value = float {1.5}>() }")
    with pytest.raises(igonnx.ModelError, match="no inputs"):
        igonnx.gradient(constant)


def test_a_cycle_is_told_in_one_whole_sentence() -> None:
    helper = onnx.helper
    shape = onnx.TensorProto.FLOAT, ["N", 3]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])],
        "g",
        [helper.make_tensor_value_info("x", *shape)],
        [helper.make_tensor_value_info("b", *shape)],
    )
    with pytest.raises(igonnx.ModelError) as caught:
        igonnx.gradient(helper.make_model(graph, ir_version=8))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("is not output of any previous nodes.")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"forward", b"fordard", "direction 'fordard'"),
        (b"innermost", b"inner\xb2ost", "not UTF-8"),
    ],
)
def test_damaged_files_are_refused(model: Build, old: bytes, new: bytes, reason: str) -> None:
    weights = {"w": np.ones((1, 3, 4), np.float32), "r": np.ones((1, 3, 1), np.float32)}
    whole = model(
        """(float[T, N, 4] x) => (float[T, 1, N, 1] y) {
            innermost = Tanh(x)
            y, last = GRU<hidden_size = 1, direction = "forward">(innermost, w, r)
        }""",
        weights,
    )
    with pytest.raises(igonnx.Error, match=reason):
        igonnx.gradient(whole.SerializeToString().replace(old, new))


@pytest.mark.parametrize("imports", [("",), ("ai.onnx",), ("", "ai.onnx")])
def test_the_standard_has_two_names(model: Build, imports: tuple[str, ...]) -> None:
    """ONNX Runtime takes "ai.onnx" for the standard's domain, in nodes and in imports."""
    given = model("(float[N, 3] x) => (float[N, 3] y) { r = Relu(x) \n y = Tanh(r) }")
    plain = igonnx.gradient(given)
    given.graph.node[0].domain = "ai.onnx"
    del given.opset_import[:]
    for domain in imports:
        given.opset_import.add(domain=domain, version=17)
    result = igonnx.gradient(given)
    assert [node.op_type for node in result.graph.node] == [n.op_type for n in plain.graph.node]
    assert _domains(result) == {""}


def test_a_tensor_of_unknown_dtype_is_refused_with_the_operator(model: Build) -> None:
    foreign = model(
        "(float[N, 3] x) => (float[N, 3] y) { a = my.own.Op(x) \n y = Relu(a) }",
        domains=', "my.own": 1',
    )
    with pytest.raises(igonnx.InputError, match=r"result of operator my\.own::Op, has no"):
        igonnx.gradient(foreign, wrt="a")


def test_sparse_weights_without_a_type_are_refused(mlp: onnx.ModelProto) -> None:
    damaged = onnx.ModelProto()
    damaged.CopyFrom(mlp)
    damaged.graph.sparse_initializer.add().values.name = "s"
    with pytest.raises(igonnx.ModelError, match="not a valid ONNX model"):
        igonnx.gradient(damaged)
