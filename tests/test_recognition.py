"""Gelu put back together for the native engine: in what forms, and what only looks like it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from igonnx.graph.builder import GraphBuilder
from igonnx.graph.native_target import NativeTarget
from igonnx.model import Model
from igonnx.recognition import recognise

Build = Callable[..., onnx.ModelProto]
NUMBERS = {"root": 2**0.5, "one": 1.0, "two": 2.0, "half": 0.5, "more": 0.51, "cubic": 0.0356774081}
NUMBERS |= {"linear": 0.7978845608, "three": 3.0, "near": 1.4143}


def recognised(build: Build, body: str, *, opset: int = 17, keep: str | None = None) -> list[Any]:
    """The attributes `tanh` of what was recognised, and how many inputs each has."""
    weights = {name: np.array(number, np.float32) for name, number in NUMBERS.items()}
    weights["bias"] = np.arange(4, dtype=np.float32)
    weights["table"] = np.ones((3, 4), np.float32)
    used = {name: array for name, array in weights.items() if name in body}
    source = build(
        f"(float[N, 3, 4] x) => (float[N, 3, 4] y) {{ {body} z = Neg(g)\n y = Abs(z) }}",
        used,
        opset=opset,
    )
    loaded = Model.load(source)
    graph = loaded.ir.clone()
    kept = [value for node in graph.graph for value in node.outputs if value.name == keep]
    recognise(GraphBuilder(graph, native=NativeTarget()), kept)
    found = [node for node in graph.graph if node.op_type == "GeluWithSlope"]
    return [(node.attributes["tanh"].as_int(), len(node.inputs)) for node in found]


GELU = "d = Div(x, root)\n e = Erf(d)\n o = Add(e, one)\n"


@pytest.mark.parametrize(
    "body",
    [
        GELU + "p = Mul(x, o)\n g = Mul(p, half)",
        GELU + "p = Mul(half, o)\n g = Mul(p, x)",
        GELU + "p = Mul(x, o)\n g = Div(p, two)",
        GELU + "h = Div(x, two)\n g = Mul(h, o)",
    ],
)
def test_forms_of_the_exact_one(model: Build, body: str) -> None:
    assert recognised(model, body + "\n") == [(0, 1)]


def test_the_form_by_tanh(model: Build) -> None:
    """c x + c a x^3, as a sum of two products."""
    body = """s = Mul(x, x)
    q = Mul(s, x)
    c = Mul(q, cubic)
    l = Mul(linear, x)
    i = Add(c, l)
    t = Tanh(i)
    o = Add(one, t)
    h = Mul(x, half)
    g = Mul(h, o)
    """
    assert recognised(model, body) == [(1, 1)]


def test_the_operator_itself(model: Build) -> None:
    assert recognised(model, "g = Gelu(x)\n", opset=20) == [(0, 1)]
    assert recognised(model, 'g = Gelu<approximate = "tanh">(x)\n', opset=20) == [(1, 1)]


@pytest.mark.parametrize(("addend", "inputs"), [("bias", 2), ("table", 1), ("one", 1)])
def test_a_bias_is_taken_along(model: Build, addend: str, inputs: int) -> None:
    """A vector along the last axis, not any other sum."""
    body = f"b = Add({addend}, x)\n g = Gelu(b)\n"
    assert recognised(model, body, opset=20) == [(0, inputs)]


@pytest.mark.parametrize(
    "body",
    [
        GELU + "p = Mul(x, o)\n g = Mul(p, more)",
        GELU + "p = Mul(x, o)\n g = Div(half, p)",
        "d = Div(x, near)\n e = Erf(d)\n o = Add(e, one)\n p = Mul(x, o)\n g = Mul(p, half)",
        "d = Div(x, root)\n e = Erf(d)\n o = Add(e, two)\n p = Mul(x, o)\n g = Mul(p, half)",
        GELU + "n = Neg(x)\n p = Mul(n, o)\n g = Mul(p, half)",
        GELU + "p = Mul(x, o)\n q = Mul(p, half)\n g = Sub(q, o)",
        "t = Tanh(x)\n o = Add(t, one)\n p = Mul(x, o)\n g = Mul(p, half)",
    ],
)
def test_what_only_looks_like_it(model: Build, body: str) -> None:
    assert recognised(model, body + "\n") == []


@pytest.mark.parametrize("keep", ["e", "o", "p", "g"])
def test_tensors_kept_are_still_computed(model: Build, keep: str) -> None:
    assert recognised(model, GELU + "p = Mul(x, o)\n g = Mul(p, half)\n", keep=keep) == []


def test_only_scales_that_nobody_else_reads_move(model: Build) -> None:
    """Of the two factors of the scores, one is read elsewhere as well."""
    source = model(
        """(float[N, 3, 3] x) => (float[N, 3, 3] y) {
        a = Mul(x, half)
        b = Div(x, two)
        c = MatMul(a, b)
        p = Softmax<axis = -1>(c)
        d = MatMul(a, p)
        y = Relu(d)
        }""",
        {name: np.array(NUMBERS[name], np.float32) for name in ("half", "two")},
    )
    graph = Model.load(source).ir.clone()
    recognise(GraphBuilder(graph, native=NativeTarget()), [])
    softmax = next(node for node in graph.graph if node.op_type == "Softmax")
    scaled = softmax.inputs[0]
    assert isinstance(scaled, ir.Value)
    producer = scaled.producer()
    assert producer is not None
    assert producer.op_type == "Mul"
    values = [value.const_value for value in producer.inputs if value is not None]
    # The first factor has another reader, and keeps its scale.
    assert [float(value.numpy()) for value in values if value is not None] == [0.5]
