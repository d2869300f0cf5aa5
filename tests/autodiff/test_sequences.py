"""Gradients through sequences and optionals of tensors, against central differences."""

from __future__ import annotations

import numpy as np
import pytest
from slopes import check, parse

RNG = np.random.default_rng(7)
STORED = {
    "one": np.array(1),
    "zero": np.array(0),
    "last": np.array(-1),
    "three": np.array(3),
    "sizes": np.array([1, 3]),
    "axes": np.array([1]),
}

BODIES = {
    "construct and take": """s = SequenceConstruct(a, b, a) t = SequenceAt(s, one) u = SequenceAt(s, last)
        y = Mul(t, u)""",
    "insert at the end": "s = SequenceConstruct(a) r = SequenceInsert(s, b) y = ConcatFromSequence<axis = 0>(r)",
    "insert in front": """s = SequenceConstruct(a, a) r = SequenceInsert(s, b, zero) e = ConcatFromSequence<axis = 1>(r)
        y = Sin(e)""",
    "insert near the end": """s = SequenceConstruct(a, b) r = SequenceInsert(s, b, last)
        e = ConcatFromSequence<axis = 0>(r) y = Sin(e)""",
    "erase": """s = SequenceConstruct(a, b, a) r = SequenceErase(s, one) e = ConcatFromSequence<axis = 0>(r)
        y = Exp(e)""",
    "erase the last": """s = SequenceConstruct(a, b, a) r = SequenceErase(s) e = ConcatFromSequence<axis = -1>(r)
        y = Exp(e)""",
    "a new axis": "s = SequenceConstruct(a, b, a) e = ConcatFromSequence<axis = 1, new_axis = 1>(s) y = Sin(e)",
    "split by size": "s = SplitToSequence<axis = 1>(a, sizes) t = SequenceAt(s, one) y = Mul(t, t)",
    "split evenly": "s = SplitToSequence<axis = 1>(a, one) t = SequenceAt(s, one) y = Mul(t, b)",
    "split and drop the axis": "s = SplitToSequence<axis = 0, keepdims = 0>(a) t = SequenceAt(s, last) y = Mul(t, t)",
    "split and join": "s = SplitToSequence<axis = 1>(a) e = ConcatFromSequence<axis = 1>(s) y = Mul(e, b)",
    "used twice": """s = SequenceConstruct(a, b) t = SequenceAt(s, zero) e = ConcatFromSequence<axis = 0>(s)
        y = Mul(t, t) z = Neg(e)""",
    "two uses add up": """s = SequenceConstruct(a, b) e = ConcatFromSequence<axis = 1>(s)
        r = SequenceInsert(s, b) f = ConcatFromSequence<axis = 0>(r) g = ReduceSum(f) u = Sin(e) y = Mul(g, u)""",
    "an optional": "o = Optional(a) t = OptionalGetElement(o) y = Mul(t, b)",
    "filled by a loop": """e = SequenceEmpty<dtype = 11>()
        s = Loop<body = step (int64 i, bool go, seq(double[]) s1) => (on, s2) {
            on = Identity(go) f = CastLike(i, a) m = Mul(a, f) t = Sin(m) s2 = SequenceInsert(s1, t) }>(three, , e)
        c = ConcatFromSequence<axis = 0>(s) y = Mul(c, c)""",
    "read by a loop": """s = SequenceConstruct(a, b, a)
        y = Loop<body = step (int64 i, bool go, h) => (on, g) {
            on = Identity(go) t = SequenceAt(s, i) m = Mul(h, t) g = Sin(m) }>(three, , b)""",
    "chosen by a condition": """t = ReduceSum<keepdims = 0>(a) f = Sub(t, t) c = Less(t, f)
        s = If(c) <then_branch = yes () => (p) { p = SequenceConstruct(a, b) },
                   else_branch = no () => (q) { e = Exp(a) q = SequenceConstruct(e, a) }>
        u = SequenceAt(s, zero) v = SequenceAt(s, one) y = Mul(u, v)""",
    "inside a branch": """t = ReduceSum<keepdims = 0>(a) f = Sub(t, t) c = Less(f, t)
        y = If(c) <then_branch = yes () => (p) {
                       s = SequenceConstruct(a, b) r = SequenceInsert(s, a) u = SequenceAt(r, last) p = Mul(u, b) },
                   else_branch = no () => (q) {
                       s = SplitToSequence<axis = 1>(a) e = ConcatFromSequence<axis = 1>(s) q = Mul(e, b) }>""",
    "inside a loop": """y = Loop<body = step (int64 i, bool go, h) => (on, g) {
            on = Identity(go) k = Sin(h) s = SequenceConstruct(k, a) r = SequenceInsert(s, k, zero)
            t = SequenceAt(r, zero) u = SequenceAt(r, last) m = Mul(t, u) g = Mul(m, b) }>(three, , b)""",
}  # fmt: skip


@pytest.mark.parametrize("case", BODIES)
def test_sequence(case):
    axes = {"split and drop the axis": "d0"}.get(case, "d0, d1")
    if case == "a new axis":
        axes = "d0, d1, d2"
    if case == "split evenly":
        axes = "d0, d1"
    body = BODIES[case]
    proto = parse(f"(double[2,4] a, double[2,4] b) => (double[{axes}] y) {{ {body} }}", **STORED)
    feeds = {"a": RNG.standard_normal((2, 4)), "b": RNG.standard_normal((2, 4))}
    if case == "split evenly":
        feeds["b"] = RNG.standard_normal((2, 1))
        proto.graph.input[1].type.tensor_type.shape.dim[1].dim_value = 1
    read = [name for name in feeds if f"{name})" in body or f"{name}," in body]
    check(proto, feeds, wrt=read)
