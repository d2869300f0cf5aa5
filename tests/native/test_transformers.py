"""A small transformer, natively lowered: the numbers of the portable graph, by the operators that are meant."""

from __future__ import annotations

import collections
import math
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from plugin_sessions import open_session

from igonnx.explanation_graph import build_explanation_graph
from igonnx.graph.native_target import NativeTarget
from igonnx.model import Model
from igonnx.native_lowering import lower
from igonnx.row_gradient import build_row_gradient
from igonnx.simplification import simplified

WIDTH, HEADS, TOKENS = 12, 3, 5
RUNTIME = tuple(int(part) for part in ort.__version__.split(".")[:2])
GELU = {
    "torch": """d = Div(h, root)
        e = Erf(d)
        o = Add(e, one)
        p = Mul(h, o)
        a = Mul(p, half)""",
    "factors": """s = Mul(h, inverse_root)
        e = Erf(s)
        o = Add(one, e)
        hh = Mul(half, h)
        a = Mul(hh, o)""",
    "tanh": """cube = Pow(h, three)
        scaled = Mul(cube, cubic)
        sum = Add(h, scaled)
        inner = Mul(sum, tanh_scale)
        e = Tanh(inner)
        o = Add(e, one)
        p = Mul(half, o)
        a = Mul(h, p)""",
}


def transformer(build: Any, gelu: str, dtype: type, *, masked: bool = False) -> onnx.ModelProto:
    """One layer of self-attention and a perceptron, with a classifier that reads the first of the tokens."""
    rng = np.random.default_rng(0)
    weights: dict[str, Any] = {
        name: (rng.standard_normal(shape) / math.sqrt(shape[0])).astype(dtype)
        for name, shape in {
            **{f"w{part}": (WIDTH, WIDTH) for part in "qkvo"},
            **{f"b{part}": (WIDTH,) for part in ("q", "k", "v", "o", "2")},
            "w1": (WIDTH, 20),
            "b1": (20,),
            "w2": (20, WIDTH),
            "wc": (WIDTH, 4),
            "s1": (WIDTH,),
            "s2": (WIDTH,),
            "s3": (WIDTH,),
        }.items()
    }
    weights |= {
        name: np.array(number, dtype)
        for name, number in {
            "root": math.sqrt(2),
            "inverse_root": math.sqrt(0.5),
            "one": 1,
            "half": 0.5,
            "three": 3,
            "cubic": 0.044715,
            "tanh_scale": math.sqrt(2 / math.pi),
            "share": (HEADS / WIDTH) ** 0.25,
            "zero": 0,
        }.items()
    }
    weights |= {"first": np.array(0), "i0": np.array(0), "i1": np.array(1), "at": np.array([0])}
    weights |= {"rest": np.array([-1]), "size": np.array([WIDTH // HEADS])}
    real = "float" if dtype is np.float32 else "double"
    heads = "".join(
        f"""m{part} = MatMul(n, w{part})
        f{part} = Add(b{part}, m{part})
        r{part} = Reshape(f{part}, apart)
        """
        for part in "qkv"
    )
    scores = (
        "z = Add(c, mask)\n y0 = Softmax<axis = -1>(z)" if masked else "y0 = Softmax<axis = -1>(c)"
    )
    safe = "nan = IsNaN(y0)\n y = Where(nan, zero, y0)" if masked else "y = Identity(y0)"
    inputs = f"{real}[N, {TOKENS}, {WIDTH}] x" + (
        f", {real}[N, 1, 1, {TOKENS}] mask" if masked else ""
    )
    return build(
        f"""({inputs}) => ({real}[N, 4] logits) {{
        n = LayerNormalization<axis = -1>(x, s1, bo)
        shape = Shape(n)
        d0 = Gather(shape, i0)
        d1 = Gather(shape, i1)
        u0 = Unsqueeze(d0, at)
        u1 = Unsqueeze(d1, at)
        apart = Concat<axis = 0>(u0, u1, rest, size)
        {heads}
        tq = Transpose<perm = [0, 2, 1, 3]>(rq)
        tk = Transpose<perm = [0, 2, 3, 1]>(rk)
        tv = Transpose<perm = [0, 2, 1, 3]>(rv)
        sq = Mul(tq, share)
        sk = Mul(tk, share)
        c = MatMul(sq, sk)
        {scores}
        {safe}
        v = MatMul(y, tv)
        t = Transpose<perm = [0, 2, 1, 3]>(v)
        together = Concat<axis = 0>(u0, u1, rest)
        r = Reshape(t, together)
        mo = MatMul(r, wo)
        fo = Add(mo, bo)
        x1 = Add(fo, x)
        n1 = LayerNormalization<axis = -1>(x1, s2, bo)
        h0 = MatMul(n1, w1)
        h = Add(h0, b1)
        {GELU[gelu]}
        m2 = MatMul(a, w2)
        f2 = Add(m2, b2)
        x2 = Add(f2, x1)
        n2 = LayerNormalization<axis = -1>(x2, s3, b2)
        chosen = Gather<axis = 1>(n2, first)
        logits = MatMul(chosen, wc)
        }}""",
        weights,
    )


def explained(
    source: onnx.ModelProto, wrt: str, *, native: bool, simple: bool = True
) -> tuple[onnx.ModelProto, collections.Counter[str]]:
    """The explanation graph and how many nodes of each operator it has."""
    loaded = Model.load(source)
    target = NativeTarget() if native else None
    rows = build_row_gradient(
        simplified(loaded, [wrt]) if simple else loaded, output="logits", wrt=[wrt], native=target
    )
    graph = build_explanation_graph(rows, rows.fixed)
    if target is not None:
        lower(graph.model, target)
    return ir.to_proto(graph.model), collections.Counter(n.op_type for n in graph.model.graph)


def run(model: onnx.ModelProto, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    return list(open_session(model).run(None, feeds))


def feeds_for(
    wrt: str, shape: tuple[int, ...], dtype: type, masked: bool
) -> dict[str, NDArray[Any]]:
    """Three rows of two requests; the second request masks its last two tokens."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, *shape)).astype(dtype)
    mask = np.zeros((2, 1, 1, TOKENS), dtype)
    mask[1, ..., -2:] = -np.inf
    return {
        f"x:{wrt}": x,
        f"baseline:{wrt}": np.zeros_like(x),
        "row": np.array([0, 1, 1]),
        "alpha": np.array([0.3, 1, 0.6], dtype),
        "weight": np.array([1, 0.4, 0.6], dtype),
        "cotangent": rng.standard_normal((2, 4)).astype(dtype),
        **({"fixed:mask": mask} if masked else {}),
    }


# In double precision the runtime has no erf, and before 1.26 no tanh.
DOUBLE = [(np.float64, "tanh")] if RUNTIME >= (1, 26) else []


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize(("dtype", "gelu"), [*((np.float32, gelu) for gelu in GELU), *DOUBLE])
def test_native_equals_portable(model: Any, dtype: type, gelu: str, masked: bool) -> None:
    source = transformer(model, gelu, dtype, masked=masked)
    feeds = feeds_for("x", (TOKENS, WIDTH), dtype, masked)
    oracle, _ = explained(source, "x", native=False, simple=False)
    expected = run(oracle, feeds)
    single = dtype is np.float32
    # The statistics of LayerNormalization are in single precision, whatever the rest is.
    tolerance = 1e-5 if single else 1e-6
    for native in (False, True):
        graph, operators = explained(source, "x", native=native)
        for result, wanted in zip(run(graph, feeds), expected, strict=True):
            assert np.linalg.norm(result - wanted) <= tolerance * np.linalg.norm(wanted)
        assert operators["GeluWithSlope"] == native
        assert operators["SoftmaxGradient"] == native
        assert operators["LayerNormGradient"] == 3 * (native and single)
        assert operators["Shape"] <= 4  # of the plan alone; the model computes on no sizes


@pytest.mark.parametrize("inner", ["c", "y0", "h", "o", "n1", "chosen"])
def test_an_explained_tensor_inside_stays(model: Any, inner: str) -> None:
    """Where the gradient is asked for in the middle of what would be put together."""
    source = transformer(model, "torch", np.float32)
    shapes = {
        "c": (HEADS, TOKENS, TOKENS),
        "y0": (HEADS, TOKENS, TOKENS),
        "h": (TOKENS, 20),
        "o": (TOKENS, 20),
        "n1": (TOKENS, WIDTH),
        "chosen": (WIDTH,),
    }
    feeds = feeds_for(inner, shapes[inner], np.float32, masked=False)
    oracle, _ = explained(source, inner, native=False, simple=False)
    given = {value.name for value in oracle.graph.input}
    feeds["fixed:x"] = (
        np.random.default_rng(2).standard_normal((2, TOKENS, WIDTH)).astype(np.float32)
    )
    feeds = {name: array for name, array in feeds.items() if name in given}
    expected = run(oracle, feeds)
    graph, operators = explained(source, inner, native=True)
    assert {value.name for value in graph.graph.input} == given
    for result, wanted in zip(run(graph, feeds), expected, strict=True):
        assert np.linalg.norm(result - wanted) <= 1e-5 * np.linalg.norm(wanted)
    assert operators["GeluWithSlope"] == (inner not in ("o", "chosen"))


def test_no_head_is_transposed_for_a_product(model: Any) -> None:
    """Forwards and backwards the heads are only moved in front of the tokens and back."""
    graph, operators = explained(transformer(model, "torch", np.float32), "x", native=True)
    moves = [
        tuple(attribute.ints)
        for node in graph.graph.node
        if node.op_type == "Transpose"
        for attribute in node.attribute
    ]
    assert {move for move in moves if len(move) == 4} == {(0, 2, 1, 3)}
    assert operators["FusedMatMul"] >= 3


def test_no_scale_is_left_on_the_way_back(model: Any) -> None:
    """The two factors of the scores share one scale, which the gradient of the softmax takes along."""
    graph, _ = explained(transformer(model, "torch", np.float32), "x", native=True)
    (gradient,) = [node for node in graph.graph.node if node.op_type == "SoftmaxGradient"]
    scale = {attribute.name: attribute.f for attribute in gradient.attribute}["scale"]
    assert scale == pytest.approx(math.sqrt(HEADS / WIDTH))
    residuals = [len(n.input) for n in graph.graph.node if n.op_type == "LayerNormGradient"]
    assert sorted(residuals) == [5, 6, 6]
