"""Choosing a place early: the same function, computed for fewer places, and hands off where others are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray

from igonnx.model import Model
from igonnx.simplification import simplified

Build = Callable[..., onnx.ModelProto]
RNG = np.random.default_rng(0)
WEIGHTS = {
    "w": RNG.standard_normal((4, 6)).astype(np.float32),
    "b": RNG.standard_normal(6).astype(np.float32),
    "s": RNG.standard_normal(4).astype(np.float32),
    "table": RNG.standard_normal((5, 4)).astype(np.float32),
    "mask": RNG.standard_normal((2, 3, 5, 5)).astype(np.float32),
    "last": np.array(-1),
    "second": np.array([1]),
    "heads": np.array([0, 5, 2, 2]),
    "joined": np.array([0, 5, 4]),
    "merged": np.array([-1, 4]),
    "shift": np.array(0.5, np.float32),
}


def _run(model: ir.Model, x: NDArray[np.float32]) -> NDArray[Any]:
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


def _places(model: ir.Model, axis: int, length: int) -> list[str]:
    """Operators that still compute something for every place."""
    return [
        node.op_type
        for node in model.graph
        if (shape := node.outputs[0].shape) is not None
        and len(shape) > axis
        and shape[axis] == length
    ]


BODIES = {
    "elementwise": """t = Add(x, table)
        e = Tanh(t)
        m = Mul(e, x)
        y = Gather<axis = 1>(m, last)""",
    "normalised": """n = LayerNormalization<axis = -1>(x, s)
        y = Gather<axis = 1>(n, second)""",
    "product": """p = MatMul(x, w)
        q = Add(b, p)
        r = Relu(q)
        y = Gather<axis = 1>(r, second)""",
    "residual": """t = Tanh(x)
        n = LayerNormalization<axis = 2>(t, s)
        m = Sigmoid(n)
        a = Add(t, m)
        y = Gather<axis = -2>(a, last)""",
    "heads": """h = Reshape(x, heads)
        t = Transpose<perm = [0, 2, 1, 3]>(h)
        k = Mul(t, shift)
        u = Transpose<perm = [0, 2, 1, 3]>(k)
        j = Reshape(u, joined)
        y = Gather<axis = 1>(j, last)""",
    "where": """n = IsNaN(x)
        v = Where(n, shift, x)
        y = Gather<axis = 1>(v, second)""",
}


@pytest.mark.parametrize("body", BODIES)
def test_it_computes_the_same_for_one_place_only(model: Build, body: str) -> None:
    used = {name: array for name, array in WEIGHTS.items() if name in BODIES[body]}
    last = "M, 6" if body == "product" else "M, 4"
    shape = f"N, {last}" if "second" in used else f"N{last[1:]}"
    loaded = Model.load(
        model(f"(float[N, 5, 4] x) => (float[{shape}] y) {{ {BODIES[body]} }}", used)
    )
    narrowed = simplified(loaded, [])
    x = RNG.standard_normal((3, 5, 4)).astype(np.float32)
    np.testing.assert_allclose(_run(narrowed.ir, x), _run(loaded.ir, x), rtol=1e-5, atol=1e-6)
    assert _places(loaded.ir, 1, 5) or _places(loaded.ir, 2, 5)
    assert not _places(narrowed.ir, 1, 5)
    assert not _places(narrowed.ir, 2, 5)


def test_attention_is_narrowed_to_one_query(model: Build) -> None:
    source = model(
        """(float[N, 3, 5, 4] x) => (float[N, 3, 4] y) {
        k = Transpose<perm = [0, 1, 3, 2]>(x)
        c = MatMul(x, k)
        p = Softmax<axis = -1>(c)
        v = MatMul(p, x)
        y = Gather<axis = 2>(v, last)
        }""",
        {"last": WEIGHTS["last"]},
    )
    loaded = Model.load(source)
    narrowed = simplified(loaded, [])
    x = RNG.standard_normal((2, 3, 5, 4)).astype(np.float32)
    np.testing.assert_allclose(_run(narrowed.ir, x), _run(loaded.ir, x), rtol=1e-5, atol=1e-6)
    assert _places(narrowed.ir, 2, 5) == []


UNTOUCHED = {
    "softmax along it": "t = Softmax<axis = 1>(x)\n y = Gather<axis = 1>(t, last)",
    "normalised along it": "t = LayerNormalization<axis = 1>(x, table)\n y = Gather<axis = 1>(t, last)",
    "read elsewhere": "t = Tanh(x)\n g = Gather<axis = 1>(t, last)\n r = ReduceSum(t, second)\n"
    " q = Squeeze(r, second)\n y = Add(g, q)",
    "another place": "t = Tanh(x)\n g = Gather<axis = 1>(t, last)\n h = Gather<axis = 1>(t, first)\n"
    " y = Add(g, h)",
    "several places": "t = Tanh(x)\n y = Gather<axis = 1>(t, both)",
    "merged axes": "t = Reshape(x, merged)\n y = Gather<axis = 0>(t, last)",
}


@pytest.mark.parametrize("body", UNTOUCHED)
def test_what_needs_other_places_stays(model: Build, body: str) -> None:
    weights = {**WEIGHTS, "first": np.array(0), "both": np.array([0, 1])}
    used = {name: array for name, array in weights.items() if name in UNTOUCHED[body]}
    shape = {"several places": "N, 2, 4", "merged axes": "4"}.get(body, "N, 4")
    loaded = Model.load(
        model(f"(float[N, 5, 4] x) => (float[{shape}] y) {{ {UNTOUCHED[body]} }}", used)
    )
    before = [node.op_type for node in loaded.ir.graph]
    assert [node.op_type for node in simplified(loaded, []).ir.graph] == before


def test_tensors_kept_stay_whole(model: Build) -> None:
    source = model(
        """(float[N, 5, 4] x) => (float[N, 4] y) {
        t = Tanh(x)
        u = Sigmoid(t)
        y = Gather<axis = 1>(u, last)
        }""",
        {"last": WEIGHTS["last"]},
    )
    narrowed = simplified(Model.load(source), ["t"])
    kept = narrowed.find_tensor("t")
    assert kept.shape is not None
    assert list(kept.shape)[1:] == [5, 4]
    assert [node.op_type for node in narrowed.ir.graph] == [
        "Tanh",
        "Gather",
        "Sigmoid",
        "Squeeze",
        "Identity",
    ]


def test_a_chosen_tensor_keeps_its_name(model: Build) -> None:
    source = model(
        """(float[N, 5, 4] x) => (float[N, 4] y) {
        t = Tanh(x)
        chosen = Gather<axis = 1>(t, last)
        y = Neg(chosen)
        }""",
        {"last": WEIGHTS["last"]},
    )
    narrowed = simplified(Model.load(source), ["chosen"])
    shape = narrowed.find_tensor("chosen").shape
    assert shape is not None
    assert len(shape) == 2
    x = RNG.standard_normal((2, 5, 4)).astype(np.float32)
    np.testing.assert_allclose(_run(narrowed.ir, x), -np.tanh(x[:, -1]), rtol=1e-6)
