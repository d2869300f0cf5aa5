"""Tensors of which nothing is known before running, not even the rank: some rules can do without."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from rule_cases.check import session

import igonnx

# r is x in a shape that is fed; what becomes of it, and the same in NumPy for the shape [2, 3, 4].
_NODES = [
    ("t = Mul(r, w)", lambda x, w: x * w),
    ("t = Div(w, r)", lambda x, w: w / x),
    ("t = Where(c, r, w)", lambda x, w: np.where([True, False, True, False], x, w)),
    ("t = Max(r, w)", np.maximum),
    ("t = Sum(r, w, w)", lambda x, w: x + w + w),
    ("t = Exp(r)", lambda x, w: np.exp(x) + 0 * w),
    ("t = Slice(r, one, last, back)", lambda x, w: x[:, :, 1:-1]),
    ("t = Slice(r, last, one, back, down)", lambda x, w: x[:, :, :1:-2]),
    ("t = Gather<axis=-1>(r, picked)", lambda x, w: x[:, :, [3, 0, 3]]),
    ("t = Gather<axis=1>(r, last)", lambda x, w: x[:, [-1]]),
    ("t = GatherND(r, pair)", lambda x, w: x[1, [0, 2]]),
    ("t = Compress<axis=2>(r, c)", lambda x, w: x[:, :, [0, 2]]),
    ("t = Concat<axis=-1>(r, r)", lambda x, w: np.concatenate([x, x], -1)),
    ("t = Transpose<perm=[2, 0, 1]>(r)", lambda x, w: x),
    ("t = ReduceMean(r)", lambda x, w: x.mean(keepdims=True)),
    ("t = ReduceProd<keepdims=0>(r)", lambda x, w: x.prod()),
    ("t = ReduceLogSumExp(r, last)", lambda x, w: np.log(np.exp(x).sum(-1))),
]


@pytest.mark.parametrize(("node", "formula"), _NODES, ids=[node for node, _ in _NODES])
def test_unknown_rank(node, formula):
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[N] x, int64[K] s, float[M] w, bool[4] c) => (float[1] y)'
        " <int64[1] one = {1}, int64[1] last = {-1}, int64[1] back = {-1}, int64[1] down = {-2},"
        " int64[3] picked = {3, 0, 3}, int64[2,2] pair = {1, 0, 1, 2}>"
        f" {{ r = Reshape(x, s) {node} q = Mul(t, t) z = ReduceSum<keepdims=0>(q) zero = Sub(one, one)"
        " y = Unsqueeze(z, zero) }"
    )
    rng = np.random.default_rng(0)
    x, w = rng.uniform(0.5, 1.5, 24).astype(np.float32), rng.uniform(0.5, 1.5, 4).astype(np.float32)
    wrt = ["x", "w"] if re.search(r"\bw\b", node) else ["x"]
    feeds = {"x": x, "w": w, "s": np.array([2, 3, 4]), "c": np.array([True, False, True, False])}
    given = session(igonnx.gradient(proto, wrt=wrt)).run(
        [f"grad_{name}" for name in wrt], {**feeds, "cotangent_y": np.ones(1, np.float32)}
    )

    def value(x, w):
        return np.sum(formula(x.reshape(2, 3, 4), w) ** 2)

    step = 1e-6
    for name, gradient in zip(wrt, given, strict=True):
        expected = np.zeros_like(feeds[name], dtype=np.float64)
        for i in range(len(expected)):
            ends = []
            for sign in (step, -step):
                moved = {key: feeds[key].astype(np.float64) for key in ("x", "w")}
                moved[name][i] += sign
                ends.append(value(**moved))
            expected[i] = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-3)
