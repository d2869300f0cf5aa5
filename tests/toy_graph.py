"""An explanation graph written by hand, for tests of the engines, and the same function in NumPy in double precision.

The model is F(z) = sum over explained tensors and k of cotangent_k * scale * (z^2 @ W)_k, whose gradient is
2 z * scale * (W @ cotangent).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from igonnx.engine import Requests, RowPlan, RowResult
from igonnx.engine.native import NativeEngine

__all__ = ["OUTPUTS", "Toy", "assert_same", "random_plan", "toy", "with_lookup", "with_loop"]

OUTPUTS = 3


@dataclass(frozen=True)
class Toy:
    """An explanation graph, what describes it, and the same function in NumPy."""

    model: onnx.ModelProto
    dims: dict[str, tuple[int, ...]]  # per explained tensor, without the requests axis
    weights: dict[str, np.ndarray]  # float64 [elements, OUTPUTS]
    dtype: type
    fixed_rows: int | None

    def engine(self, **changes: Any) -> NativeEngine:
        arguments: dict[str, Any] = {
            "explained": tuple(self.dims),
            "batched": ("scale",),
            "shared": ("gate",),
            "dtype": self.dtype,
            "fixed_rows": self.fixed_rows,
            "name": "toy",
        }
        return NativeEngine(self.model.SerializeToString(), **(arguments | changes))

    def requests(self, count: int, seed: int = 0) -> Requests:
        rng = np.random.default_rng(seed)

        def random(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape).astype(self.dtype)

        return Requests(
            x={name: random(count, *dims) for name, dims in self.dims.items()},
            baseline={name: random(count, *dims) for name, dims in self.dims.items()},
            batched={"scale": rng.integers(1, 4, count)},
            shared={"gate": np.array([True, False, True])},
            cotangent=random(count, OUTPUTS),
        )

    def expected(self, requests: Requests, plan: RowPlan) -> RowResult:
        count = len(plan.row)
        gated = requests.cotangent.astype(np.float64) * requests.shared["gate"]
        factor = (gated * requests.batched["scale"][:, None])[plan.row]  # [B, OUTPUTS]
        score, slope, weighted = np.zeros(count), np.zeros(count), {}
        for name, weights in self.weights.items():
            x, baseline = (
                array[name].astype(np.float64) for array in (requests.x, requests.baseline)
            )
            path = (x - baseline)[plan.row].reshape(count, len(weights))
            z = baseline[plan.row].reshape(path.shape) + plan.alpha[:, None] * path
            gradient = 2 * z * (factor @ weights.T)
            score += np.sum(factor * (z**2 @ weights), axis=1)
            slope += np.sum(gradient * path, axis=1)
            weighted[name] = np.zeros_like(x)
            rows = plan.weight[:, None] * gradient
            np.add.at(weighted[name], plan.row, rows.reshape(count, *self.dims[name]))
        return RowResult(weighted, score, slope)


def toy(
    dtype: type = np.float32,
    dims: dict[str, tuple[int, ...]] | None = None,
    *,
    scale: int = TensorProto.INT64,
    gate: int = TensorProto.BOOL,
    fixed_rows: int | None = None,
) -> Toy:
    dims = dims or {"image": (2, 3, 4)}
    nodes: list[onnx.NodeProto] = []
    integers: dict[str, Any] = {"axis0": [0], "axis1": [1], "zero": 0, "one": 1}
    initializers = [numpy_helper.from_array(np.array(v), name) for name, v in integers.items()]
    initializers.append(numpy_helper.from_array(np.array(2, dtype), "2.0"))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    rng = np.random.default_rng(42)
    weights: dict[str, np.ndarray] = {}

    def op(operator: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        out = out or f"{operator}_{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [out], **attributes))
        return out

    row_scale = op("Unsqueeze", op("Gather", op("Cast", "scale", to=kind), "row"), "axis1")
    gated = op("Mul", "cotangent", op("Cast", "gate", to=kind))
    factor = op("Mul", op("Gather", gated, "row"), row_scale)
    alpha = op("Unsqueeze", "alpha", "axis1")
    index = op("Range", "zero", op("Squeeze", op("Shape", "cotangent", end=1), "axis0"), "one")
    selected = op("Equal", op("Unsqueeze", index, "axis1"), op("Unsqueeze", "row", "axis0"))
    selection = op("Mul", op("Cast", selected, to=kind), op("Unsqueeze", "weight", "axis0"))
    scores, slopes = [], []
    for name, dim in dims.items():
        weights[name] = rng.standard_normal((int(np.prod(dim)), OUTPUTS)).astype(dtype)
        initializers.append(numpy_helper.from_array(weights[name], f"W:{name}"))
        start = op("Flatten", f"baseline:{name}")
        path = op("Gather", op("Sub", op("Flatten", f"x:{name}"), start), "row")
        z = op("Add", op("Gather", start, "row"), op("Mul", alpha, path))
        y = op("MatMul", op("Mul", z, z), f"W:{name}")
        upstream = op("MatMul", factor, op("Transpose", f"W:{name}"))
        gradient = op("Mul", op("Mul", z, "2.0"), upstream)
        scores.append(op("ReduceSum", op("Mul", factor, y), "axis1", keepdims=0))
        slopes.append(op("ReduceSum", op("Mul", gradient, path), "axis1", keepdims=0))
        total = op("MatMul", selection, gradient)
        op("Reshape", total, op("Shape", f"x:{name}"), out=f"weighted_gradient:{name}")
    op("Sum", *scores, out="score")
    op("Sum", *slopes, out="slope")

    rows = fixed_rows or "B"
    info = helper.make_tensor_value_info
    ends = [(f"{end}:{name}", dim) for end in ("x", "baseline") for name, dim in dims.items()]
    inputs = [
        *(info(name, kind, ["R", *dim]) for name, dim in ends),
        info("scale", scale, ["R"]),
        info("gate", gate, [OUTPUTS]),
        info("row", TensorProto.INT64, [rows]),
        info("alpha", kind, [rows]),
        info("weight", kind, [rows]),
        info("cotangent", kind, ["R", OUTPUTS]),
    ]
    outputs = [
        *(info(f"weighted_gradient:{name}", kind, ["R", *dim]) for name, dim in dims.items()),
        info("score", kind, [rows]),
        info("slope", kind, [rows]),
    ]
    graph = helper.make_graph(nodes, "toy", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    wide = {name: array.astype(np.float64) for name, array in weights.items()}
    return Toy(model, dims, wide, dtype, fixed_rows)


def random_plan(requests: int, rows: int, seed: int = 1) -> RowPlan:
    rng = np.random.default_rng(seed)
    return RowPlan(np.sort(rng.integers(0, requests, rows)), rng.random(rows), rng.random(rows))


def assert_same(got: RowResult, want: RowResult, tolerance: float) -> None:
    pairs = [(got.score, want.score), (got.slope, want.slope)]
    assert got.weighted_gradient.keys() == want.weighted_gradient.keys()
    pairs += [
        (got.weighted_gradient[name], want.weighted_gradient[name])
        for name in want.weighted_gradient
    ]
    for ours, theirs in pairs:
        assert ours.dtype == np.float64
        assert ours.shape == theirs.shape
        scale = np.abs(theirs).max(initial=0)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale)


def _finish(
    model: Toy, output: str, nodes: list[onnx.NodeProto], *tensors: onnx.TensorProto
) -> Toy:
    """`model` with `nodes` put behind `output`, which they find as "raw"."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model.model)
    raw = f"raw_{len(changed.graph.node)}"
    for node in [*changed.graph.node, *nodes]:
        names = node.input if node in nodes else node.output
        for i, name in enumerate(names):
            if name == ("raw" if node in nodes else output):
                names[i] = raw
    changed.graph.node.extend(nodes)
    changed.graph.initializer.extend(tensors)
    return replace(model, model=changed)


def with_lookup(model: Toy) -> Toy:
    """The same model, but a run with a request whose `scale` is 4 or more fails."""
    table = numpy_helper.from_array(np.zeros(4, model.dtype), "table")
    nodes = [
        helper.make_node("Gather", ["table", "scale"], ["looked_up"], name="look_up"),
        helper.make_node("Gather", ["looked_up", "row"], ["zeros"]),
        helper.make_node("Add", ["raw", "zeros"], ["score"]),
    ]
    return _finish(model, "score", nodes, table)


def with_loop(model: Toy) -> Toy:
    """The same model, but a run takes as many turns of a loop as the largest element of the input `turns` [S]."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(model.dtype))
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["more"], ["go_on"]),
            helper.make_node("Mul", ["value", "1/2"], ["next"]),
        ],
        "body",
        [
            info("turn", TensorProto.INT64, []),
            info("more", TensorProto.BOOL, []),
            info("value", kind, []),
        ],
        [info("go_on", TensorProto.BOOL, []), info("next", kind, [])],
        [numpy_helper.from_array(np.array(0.5, model.dtype), "1/2")],
    )
    nodes = [
        helper.make_node("ReduceMax", ["turns"], ["most"], keepdims=0),
        helper.make_node("Loop", ["most", "", "nothing"], ["still_nothing"], body=body),
        helper.make_node("Add", ["raw", "still_nothing"], ["score"]),
    ]
    changed = _finish(
        model, "score", nodes, numpy_helper.from_array(np.array(0, model.dtype), "nothing")
    )
    changed.model.graph.input.append(info("turns", TensorProto.INT64, ["S"]))
    return changed
