"""Sizes with symbols: what they turn out to be, targets that become constants, and what is left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from igonnx.graph.builder import GraphBuilder, dims
from igonnx.graph.symbolic_sizes import Size, settle_sizes
from igonnx.model import Model

Build = Callable[..., onnx.ModelProto]
CONSTANTS = {
    "zero": np.array([0]),
    "one": np.array([1]),
    "two": np.array([2]),
    "rest": np.array([-1]),
    "eight": np.array([8]),
    "heads": np.array([3]),
    "minus": np.array([-1, -1]),
    "ones": np.array([1, 1]),
    "row": np.zeros((1, 1), np.float32),
}
SIZES = """shape = Shape(x)
    n = Gather(shape, zero)
    t = Gather(shape, one)
    """


def settled(build: Build, text: str) -> ir.Model:
    used = {name: array for name, array in CONSTANTS.items() if name in text}
    copy = Model.load(build(text, used)).ir.clone()
    settle_sizes(GraphBuilder(copy))
    return copy


def targets(model: ir.Model) -> list[Any]:
    """Per Reshape its target, None where it is computed."""
    constants = [node.inputs[1].const_value for node in model.graph if node.op_type == "Reshape"]  # type: ignore[union-attr]
    return [None if value is None else value.numpy().tolist() for value in constants]


def test_heads_are_split_and_joined_by_constants(model: Build) -> None:
    graph = settled(
        model,
        f"""(float[N, T, 24] x) => (float[N, T, 24] y) {{
        {SIZES}
        apart = Concat<axis = 0>(n, t, rest, eight)
        a = Reshape(x, apart)
        b = Transpose<perm = [0, 2, 1, 3]>(a)
        c = Transpose<perm = [0, 2, 1, 3]>(b)
        together = Concat<axis = 0>(n, t, rest)
        y = Reshape(c, together)
        }}""",
    )
    assert targets(graph) == [[0, 0, 3, 8], [0, 0, 24]]
    shapes = {node.outputs[0].name: dims(node.outputs[0]) for node in graph.graph}
    assert shapes["b"] == ("N", 3, "T", 8)
    assert shapes["y"] == ("N", "T", 24)


def test_arithmetic_on_sizes(model: Build) -> None:
    """Products and quotients: [N * T, 24] and back; a product is not a size that a target can copy."""
    graph = settled(
        model,
        f"""(float[N, T, 24] x) => (float[N, T, 24] y) {{
        {SIZES}
        rows = Mul(n, t)
        flat = Concat<axis = 0>(rows, rest)
        f = Reshape(x, flat)
        per = Div(rows, t)
        back = Concat<axis = 0>(per, t, rest)
        y = Reshape(f, back)
        }}""",
    )
    shapes = {node.outputs[0].name: dims(node.outputs[0]) for node in graph.graph}
    assert shapes["f"][1] == 24
    assert shapes["y"] == ("N", "T", 24)
    assert targets(graph) == [None, None]


def test_an_expand_as_torch_writes_it(model: Build) -> None:
    """Where a wanted size is -1, the tensor keeps its own; symbols are never -1."""
    graph = settled(
        model,
        f"""(float[N, T] x) => (float[N, 1] y) {{
        {SIZES}
        wanted = Concat<axis = 0>(n, rest)
        kept = Equal(wanted, minus)
        sizes = Where(kept, ones, wanted)
        e = Expand(row, sizes)
        y = Identity(e)
        }}""",
    )
    assert dims(next(n for n in graph.graph if n.op_type == "Expand").outputs[0]) == ("N", 1)


def test_a_copied_size_must_stand_in_its_place(model: Build) -> None:
    """[N, T] to [T, N] moves no axis: its target cannot copy."""
    graph = settled(
        model,
        f"""(float[N, T] x) => (float[T, N] y) {{
        {SIZES}
        swapped = Concat<axis = 0>(t, n)
        y = Reshape(x, swapped)
        }}""",
    )
    assert targets(graph) == [None]


def test_unknown_sizes_stay_unknown(model: Build) -> None:
    graph = settled(
        model,
        f"""(float[N, T] x, int64[1] k) => (float[A, B] y) {{
        {SIZES}
        free = Concat<axis = 0>(k, rest)
        y = Reshape(x, free)
        }}""",
    )
    assert targets(graph) == [None]


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (4, 3)])
def test_the_function_stays(model: Build, shape: tuple[int, int]) -> None:
    text = f"""(float[N, T, 24] x) => (float[N, T, 24] y) {{
        {SIZES}
        apart = Concat<axis = 0>(n, t, heads, rest)
        a = Reshape(x, apart)
        b = Transpose<perm = [0, 1, 3, 2]>(a)
        together = Concat<axis = 0>(n, rest, eight)
        c = Reshape(b, together)
        y = Reshape(c, shape)
        }}"""
    source = model(text, {name: array for name, array in CONSTANTS.items() if name in text})
    x = np.random.default_rng(0).standard_normal((*shape, 24)).astype(np.float32)
    results = [
        onnxruntime.InferenceSession(proto, providers=["CPUExecutionProvider"]).run(None, {"x": x})
        for proto in (
            source.SerializeToString(),
            ir.to_proto(settled(model, text)).SerializeToString(),
        )
    ]
    np.testing.assert_array_equal(*(result[0] for result in results))


def test_sizes_multiply_and_divide() -> None:
    size = Size(6, ("a",)).times(Size(2, ("b", "a")))
    assert size == Size(12, ("a", "a", "b"))
    assert size.over(Size(4, ("a",))) == Size(3, ("a", "b"))
    assert size.over(Size(5)) is None
    assert size.over(Size(1, ("c",))) is None
    assert size.over(Size(0)) is None
