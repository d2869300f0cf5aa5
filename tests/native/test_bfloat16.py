"""Matrix products in bfloat16: the operator against NumPy, the pass that brings it in, and `precision=`."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from plugin_sessions import open_session

import igonnx
from igonnx import _core
from igonnx.engine.precision import require_precision
from igonnx.native_lowering.bfloat16 import multiply_in_bfloat16

Array = NDArray[Any]


def _why_not() -> str | None:
    """Why this machine has no products in bfloat16, in the words of the error."""
    try:
        require_precision("bfloat16", "native", None)
    except igonnx.EngineError as error:
        return str(error)
    return None


WHY_NOT = _why_not()
available = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


def session_of(
    a: Array, b: Array, *, constant: bool, threads: int = 2, **attributes: float
) -> Callable[[Array, Array], Array]:
    """The operator for factors of these ranks, in a session; B is inside, or given with each call."""
    node = helper.make_node("MatMulBFloat16", ["a", "b"], ["c"], domain="ai.igonnx", **attributes)
    kinds = {"a": a.ndim} if constant else {"a": a.ndim, "b": b.ndim}
    graph = helper.make_graph(
        [node],
        "product",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)
            for name, rank in kinds.items()
        ],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(b, "b")] if constant else [],
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("ai.igonnx", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=8)
    session = open_session(model, threads)

    def run(a: Array, b: Array) -> Array:
        (result,) = session.run(None, {"a": a} if constant else {"a": a, "b": b})
        return np.asarray(result)

    return run


def rounded(array: Array) -> Array:
    return array.astype(ml_dtypes.bfloat16).astype(np.float64)


def swapped(array: Array, swap: bool) -> Array:
    return np.swapaxes(array, -1, -2) if swap else array


def random_array(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# Shapes of A and B as the product reads them; around the blocks of 64 rows, odd, empty, stacked.
MATRICES = [
    ((5, 7), (7, 3)),
    ((1, 33), (33, 65)),
    ((31, 16), (16, 16)),
    ((63, 48), (48, 20)),
    ((97, 40), (40, 64)),
    ((2, 95, 24), (24, 33)),
    ((3, 4, 50, 24), (24, 9)),
    ((0, 7), (7, 3)),
    ((4, 0), (0, 3)),
    ((2, 3, 7), (7, 0)),
]
STACKS = [
    ((3, 17, 9), (3, 9, 21)),
    ((2, 6, 37, 8), (2, 6, 8, 37)),
    ((2, 1, 5, 4), (3, 4, 6)),
    ((5, 4), (3, 4, 6)),
    ((2, 0, 5, 4), (1, 4, 6)),
    ((9,), (9,)),
    ((9,), (2, 9, 3)),
    ((2, 3, 9), (9,)),
]


def check(
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    *,
    constant: bool,
    transposed: tuple[bool, bool] = (False, False),
    alpha: float = 1.0,
) -> None:
    a = np.ascontiguousarray(swapped(random_array(*shapes[0]), transposed[0]))
    b = np.ascontiguousarray(swapped(random_array(*shapes[1], seed=1), transposed[1]))
    swaps = {"transA": int(transposed[0]), "transB": int(transposed[1])}
    result = session_of(a, b, constant=constant, alpha=alpha, **swaps)(a, b)
    scaled = (np.float32(alpha) * a).astype(np.float32)
    left, right = (
        swapped(rounded(scaled), transposed[0]),
        swapped(rounded(b), transposed[1]),
    )
    assert result.dtype == np.float32
    # Factors are exact from here on: what differs is the order in which float32 adds up.
    np.testing.assert_allclose(
        result, left @ right, rtol=1e-5, atol=1e-5 * max(1, abs(alpha)), strict=False
    )
    assert result.shape == (left @ right).shape


@available
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("shapes", MATRICES)
def test_a_matrix_equals_numpy(shapes: Any, constant: bool, transpose_b: bool) -> None:
    check(shapes, constant=constant, transposed=(False, transpose_b))


@available
@pytest.mark.parametrize("shapes", STACKS)
def test_stacks_broadcast_as_in_numpy(shapes: Any) -> None:
    check(shapes, constant=False)


@available
@pytest.mark.parametrize("transposed", [(True, False), (True, True), (False, True)])
@pytest.mark.parametrize("shapes", [STACKS[0], STACKS[1], STACKS[2], MATRICES[4]])
def test_transposed_factors(shapes: Any, transposed: tuple[bool, bool]) -> None:
    check(shapes, constant=False, transposed=transposed)
    check(shapes, constant=True, transposed=transposed)


@available
@pytest.mark.parametrize("alpha", [0.125, -3.7])
def test_a_factor_is_taken_in_before_rounding(alpha: float) -> None:
    check(MATRICES[4], constant=True, alpha=alpha)
    check(STACKS[0], constant=False, alpha=alpha)


@available
def test_factors_that_do_not_fit_are_refused() -> None:
    run = session_of(random_array(2, 3), random_array(3, 2), constant=False)
    with pytest.raises(Exception, match=r"A of shape \[2, 3\] and B of shape \[4, 2\] do not fit"):
        run(random_array(2, 3), random_array(4, 2))
    run = session_of(random_array(2, 3, 4), random_array(2, 4, 3), constant=False)
    with pytest.raises(Exception, match=r"stacks of shapes \[2\] and \[3\] do not broadcast"):
        run(random_array(2, 3, 4), random_array(3, 4, 3))


@available
def test_threads_and_other_rows_do_not_change_a_result() -> None:
    """Calls from many threads at once, of different sizes, give what each gives alone."""
    b = random_array(40, 24, seed=1)
    run = session_of(random_array(1, 40), b, constant=True)
    inputs = [random_array(rows, 40, seed=rows) for rows in (1, 30, 64, 65, 95, 96, 130, 300)]
    alone = [run(a, b) for a in inputs]
    for a, result in zip(inputs, alone, strict=True):
        np.testing.assert_allclose(result, rounded(a) @ rounded(b), rtol=1e-5, atol=1e-5)
    different: list[int] = []

    def call(first: int) -> None:
        for i in range(20):
            at = (first + i) % len(inputs)
            if not np.array_equal(run(inputs[at], b), alone[at]):
                different.append(at)

    threads = [threading.Thread(target=call, args=(first,)) for first in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert different == []


# -- the pass ----------------------------------------------------------------------------------

Model = Callable[..., onnx.ModelProto]


def lowered(proto: onnx.ModelProto) -> tuple[ir.Model, int]:
    typed = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    model = ir.from_proto(typed)
    return model, multiply_in_bfloat16(model)


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def same_within(model: ir.Model, proto: onnx.ModelProto, feeds: dict[str, Array]) -> None:
    """Both graphs agree as far as rounded factors allow."""
    results = [np.asarray(open_session(p).run(None, feeds)[0]) for p in (proto, ir.to_proto(model))]
    assert results[0].shape == results[1].shape
    assert 0 < np.linalg.norm(results[1] - results[0]) < 1e-2 * np.linalg.norm(results[0])


@available
def test_transposed_weights_are_read_as_they_are(model: Model) -> None:
    weights = random_array(5, 7)
    proto = model(
        "(float[N, 7] x) => (float[N, 7] y)"
        " { a = Transpose <perm = [1, 0]> (w)  b = MatMul(x, a)  y = MatMul(b, w) }",
        {"w": weights},
    )
    result, count = lowered(proto)
    assert count == 2
    assert operators(result) == ["MatMulBFloat16", "MatMulBFloat16"]
    assert {node.inputs[1].name for node in result.graph if node.inputs[1] is not None} == {"w"}
    same_within(result, proto, {"x": random_array(3, 7)})


@available
def test_gemm_keeps_its_bias_and_factor(model: Model) -> None:
    proto = model(
        "(float[7, N] x) => (float[N, 5] y)"
        " { y = Gemm <transA = 1, transB = 1, alpha = 0.5> (x, w, c) }",
        {"w": random_array(5, 7), "c": random_array(5, seed=2)},
    )
    result, count = lowered(proto)
    assert count == 1
    assert operators(result) == ["MatMulBFloat16", "Add"]
    same_within(result, proto, {"x": random_array(7, 3)})


@available
def test_attention_takes_its_transposes_in(model: Model) -> None:
    proto = model(
        "(float[N, 2, L, 8] q, float[N, 2, L, 8] k) => (float[N, 2, L, L] y)"
        " { t = Transpose <perm = [0, 1, 3, 2]> (k)  y = MatMul(q, t) }"
    )
    result, _ = lowered(proto)
    assert operators(result) == ["MatMulBFloat16"]
    feeds = {name: random_array(3, 2, 5, 8, seed=i) for i, name in enumerate("qk")}
    same_within(result, proto, feeds)


@available
def test_a_product_within_a_branch(model: Model) -> None:
    proto = model(
        "(float[N, 7] x, bool b) => (float[N, 5] y) {"
        "  y = If (b) <then_branch = t () => (float[N, 5] u) { u = MatMul(x, w) },"
        "              else_branch = e () => (float[N, 5] v) { z = MatMul(x, w)  v = Neg(z) }> }",
        {"w": random_array(7, 5)},
    )
    result, count = lowered(proto)
    assert count == 2
    same_within(result, proto, {"x": random_array(3, 7), "b": np.array(False)})


@pytest.mark.parametrize(
    "graph",
    [
        "(double[N, 7] x) => (double[N, 7] y) { y = MatMul(x, w) }",
        "(double[N, 7] x) => (double[N, 7] y) { y = Gemm(x, w) }",
    ],
)
def test_other_types_stay(model: Model, graph: str) -> None:
    result, count = lowered(model(graph, {"w": random_array(7, 7).astype(np.float64)}))
    assert count == 0
    assert "MatMulBFloat16" not in operators(result)


def test_a_scaled_bias_stays(model: Model) -> None:
    weights = {"w": random_array(7, 5), "c": random_array(5)}
    proto = model(
        "(float[N, 7] x) => (float[N, 5] y) { y = Gemm <beta = 0.5> (x, w, c) }",
        weights,
    )
    assert lowered(proto)[1] == 0


# -- precision= --------------------------------------------------------------------------------


def network(model: Model) -> onnx.ModelProto:
    """Two layers with a softmax between them, curved enough for a path to matter."""
    weights = {"v": random_array(24, 32) / 5, "w": random_array(32, 4, seed=1) / 5}
    return model(
        "(float[N, 6, 24] x) => (float[N, 4] y)"
        " { a = MatMul(x, v)  b = Softmax(a)  c = Mul(a, b)  d = MatMul(c, w)"
        "   axes = Constant <value_ints = [1]> ()  y = ReduceSum <keepdims = 0> (d, axes) }",
        weights,
    )


@available
def test_an_explanation_in_bfloat16(model: Model) -> None:
    x = random_array(3, 6, 24)
    proto = network(model)
    exact = igonnx.Explainer(proto).integrated_gradients(x, steps=8)
    explainer = igonnx.Explainer(proto, precision="bfloat16")
    result = explainer.integrated_gradients(x, steps=8)
    assert result.method.endswith("precision=bfloat16")
    assert result.target == exact.target
    distance = [
        np.linalg.norm(a - b) / np.linalg.norm(b)
        for a, b in zip(np.asarray(result.values), np.asarray(exact.values), strict=True)
    ]
    assert all(1e-5 < d < 2e-2 for d in distance)
    np.testing.assert_allclose(explainer.precision_error(x, steps=8), distance, rtol=1e-3)


def test_the_own_precision_costs_nothing(model: Model) -> None:
    explainer = igonnx.Explainer(network(model))
    assert np.array_equal(explainer.precision_error(random_array(2, 6, 24), steps=2), [0, 0])


@available
def test_a_model_without_products_is_refused(model: Model) -> None:
    proto = model("(float[N, 3] x) => (float[N, 3] y) { y = Mul(x, x) }")
    explainer = igonnx.Explainer(proto, precision="bfloat16")
    with pytest.raises(igonnx.ModelError, match="is for matrix products of float32 numbers"):
        explainer.integrated_gradients(random_array(1, 3), steps=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "float8"}, "precision is 'float8'; expected 'bfloat16' or None"),
        ({"precision": "bfloat16", "engine": "reference"}, "needs the engine 'native'"),
    ],
)
def test_what_cannot_be_had_is_said(model: Model, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(igonnx.InputError, match=message):
        igonnx.Explainer(network(model), **arguments)  # type: ignore[arg-type]


def error_of(code: str, **environment: str) -> str:
    """The last line of the error that `code` ends with in a process of its own: a library once loaded stays."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert result.returncode == 1
    return result.stderr.strip().splitlines()[-1]


@available
def test_a_processor_without_such_products_is_refused() -> None:
    code = (
        "from igonnx.engine.precision import require_precision as r; r('bfloat16', 'native', None)"
    )
    last = error_of(code, ONEDNN_MAX_CPU_ISA="AVX2")
    assert "needs a processor with bfloat16 products (AMX or AVX512_BF16)" in last


@pytest.mark.parametrize("path", ["/nowhere/libdnnl.so.3", _core.__file__])
def test_a_library_that_does_not_do(path: str) -> None:
    last = error_of(f"from igonnx import _core\n_core.load_onednn({path!r})")
    assert last.startswith(
        "igonnx.errors.EngineError: precision bfloat16 needs oneDNN 3: pip install 'igonnx[bfloat16]' ("
    )
