"""Gradients through If, Scan and Loop against central differences, as shapes are known and as they are not."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import onnx
import pytest
from rule_cases.check import session, validate
from slopes import TOLERANCE, check, differences, parse

import igonnx
from igonnx.model import Model

RNG = np.random.default_rng(11)


def array(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape) * 0.7


def boolean(value: bool) -> np.ndarray:
    return np.array(value)


# -- If ------------------------------------------------------------------------------------------

CONDITIONS = pytest.mark.parametrize("condition", [True, False])

BRANCHES = {
    "shapes differ": """(bool c, double[2,3] x, double[3] w) => (double[a,b] y) {
        h = Mul(x, x)
        y = If(c) <
            then_branch = yes () => (p) { a = Exp(h) m = Mul(a, w) p = ReduceSum(m) },
            else_branch = no () => (q) { s = Sin(h) q = Concat<axis = 0>(s, h) }>
    }""",
    "ranks differ": """(bool c, double[2,3] x, double[3] w) => (double z) {
        h = Mul(x, x)
        y = If(c) <
            then_branch = yes () => (p) { m = Mul(h, w) p = ReduceSum<keepdims = 0>(m) },
            else_branch = no () => (q) { s = Sin(h) one = Constant<value_ints = [1]>() q = Unsqueeze(s, one) }>
        t = Tanh(y)
        z = ReduceSum<keepdims = 0>(t)
    }""",
    "rank differs and that is the output": """(bool c, double[2,3] x) => (double y) {
        y = If(c) <
            then_branch = yes () => (p) { p = ReduceSumSquare<keepdims = 0>(x) },
            else_branch = no () => (q) { s = Sin(x) q = ReduceSum<keepdims = 0>(s) }>
    }""",
    "one branch reads nothing": """(bool c, double[2,3] x, double[2,3] w) => (double[2,3] y) {
        y = If(c) <
            then_branch = yes () => (p) { p = Mul(x, w) },
            else_branch = no () => (q) { q = Constant<value = double[2,3] {1, 2, 3, 4, 5, 6}>() }>
    }""",
    "outputs are captured": """(bool c, double[2,3] x, double[2,3] w) => (double[2,3] y) {
        h = Exp(x)
        y, z = If(c) <
            then_branch = yes () => (p, r) { p = Identity(h) r = Identity(w) },
            else_branch = no () => (q, s) { q = Identity(w) s = Identity(w) }>
    }""",
    "an output twice used": """(bool c, double[2,3] x, double[3] w) => (double[2,3] z) {
        y, k = If(c) <
            then_branch = yes () => (p, r) { p = Mul(x, w) r = Mul(p, p) },
            else_branch = no () => (q, s) { q = Sin(x) s = Mul(q, w) }>
        a = Mul(y, k)
        z = Add(a, y)
    }""",
    "an unused output": """(bool c, double[2,3] x) => (double[2,3] z) {
        y, k = If(c) <
            then_branch = yes () => (p, r) { p = Mul(x, x) r = Mul(p, p) },
            else_branch = no () => (q, s) { q = Sin(x) s = Floor(q) }>
        z = Mul(y, x)
    }""",
    "nested": """(bool c, double[2,3] x, double[3] w) => (double[2,3] y) {
        t = ReduceSum<keepdims = 0>(x)
        zero = Constant<value = double {0.0}>()
        d = Less(t, zero)
        y = If(c) <
            then_branch = yes () => (p) {
                h = Exp(x)
                p = If(d) <
                    then_branch = yy () => (pp) { m = Mul(h, w) pp = Mul(m, h) },
                    else_branch = yn () => (pq) { m = Sin(h) pq = Mul(m, x) }>
            },
            else_branch = no () => (q) {
                h = Cos(x)
                q = If(d) <
                    then_branch = ny () => (pp) { m = Mul(h, w) pp = Sin(m) },
                    else_branch = nn () => (pq) { m = Sin(h) pq = Mul(m, w) }>
            }>
    }""",
    "a condition computed": """(bool c, double[2,3] x, double[2,3] w) => (double[2,3] y) {
        t = ReduceSum<keepdims = 0>(x)
        zero = Constant<value = double {0.0}>()
        d = Less(t, zero)
        e = Xor(c, d)
        y = If(e) <
            then_branch = yes () => (p) { p = Mul(x, w) },
            else_branch = no () => (q) { h = Exp(w) q = Mul(h, x) }>
    }""",
    "scan in if": """(bool c, double[2,3] x, double[3] w) => (double[2,3] y) {
        y = If(c) <
            then_branch = yes () => (p) {
                last, p = Scan<num_scan_inputs = 1, body = step (h, i) => (g, o) {
                    s = Add(h, i) g = Tanh(s) o = Mul(g, w) }>(w, x)
            },
            else_branch = no () => (q) { q = Mul(x, w) }>
    }""",
    "loop in if": """(bool c, double[2,3] x, double[3] w) => (double[2,3] y) {
        three = Constant<value = int64 {3}>()
        y = If(c) <
            then_branch = yes () => (p) {
                p = Loop<body = step (int64 i, bool go, h) => (on, g) {
                    on = Identity(go) s = Add(h, w) g = Tanh(s) }>(three, , x)
            },
            else_branch = no () => (q) { q = Mul(x, w) }>
    }""",
    "growing loop in if": """(bool c, double[2,3] x, double[1,3] w) => (double[a,3] y) {
        three = Constant<value = int64 {3}>()
        y = If(c) <
            then_branch = yes () => (p) {
                e = Exp(w)
                p = Loop<body = step (int64 i, bool go, h) => (on, g) {
                    on = Identity(go) s = Mul(h, e) t = Tanh(s) g = Concat<axis = 0>(t, w) }>(three, , x)
            },
            else_branch = no () => (q) { q = Mul(x, w) }>
    }""",
    "symbols": """(bool c, double[2,3] x, double[1,3] w) => (double[2,3] y) {
        y = If(c) <
            then_branch = yes () => (p) { e = Exp(x) p = Mul(e, w) },
            else_branch = no () => (q) { e = Mul(x, x) s = Softmax(e) q = Add(s, w) }>
    }""",
}


@CONDITIONS
@pytest.mark.parametrize("case", BRANCHES)
def test_if(case, condition):
    proto = parse(BRANCHES[case])
    feeds = {"c": boolean(condition), "x": array(2, 3)}
    for value in proto.graph.input[2:]:
        feeds[value.name] = array(*(d.dim_value for d in value.type.tensor_type.shape.dim))
    if case == "shapes differ":
        feeds["x"] *= 0.5
    check(proto, feeds)


@CONDITIONS
def test_if_of_a_branch_without_the_explained_tensor(condition):
    """The other branch has gradient zero, not an error."""
    proto = parse(BRANCHES["one branch reads nothing"])
    result = igonnx.gradient(proto, wrt="x")
    x = array(2, 3)
    feeds = {"c": boolean(condition), "x": x, "w": 2 * np.ones_like(x)}
    feeds["cotangent_y"] = np.ones_like(x)
    (gradient,) = session(result).run(["grad_x"], feeds)
    np.testing.assert_array_equal(gradient, np.full_like(x, 2.0 * condition))


def _with_constants_in_bodies() -> onnx.ModelProto:
    """Branches with initializers, each of the same name; one is an output as well."""
    branches = {}
    for name, operator, factor in (("then_branch", "Exp", 1.0), ("else_branch", "Sin", 2.0)):
        branches[name] = onnx.helper.make_graph(
            [
                onnx.helper.make_node(operator, ["x"], ["s"]),
                onnx.helper.make_node("Mul", ["s", "k"], ["m"]),
                onnx.helper.make_node("Add", ["m", "l"], ["p"]),
            ],
            name,
            [],
            [onnx.helper.make_empty_tensor_value_info(name) for name in ("p", "k")],
            [
                onnx.numpy_helper.from_array(np.array([1.0, 2.0, 3.0]) * factor, "k"),
                onnx.numpy_helper.from_array(np.array([4.0, 5.0, 6.0]) * factor, "l"),
            ],
        )
    proto = parse("(bool c, double[2,3] x) => (double[2,3] z) { z = Mul(y, k1) }")
    node = onnx.helper.make_node("If", ["c"], ["y", "k1"], **branches)
    proto.graph.node.insert(0, node)
    return proto


@CONDITIONS
def test_if_with_initializers_in_its_branches(condition):
    check(_with_constants_in_bodies(), {"c": boolean(condition), "x": array(2, 3)})


@CONDITIONS
def test_lstm_in_if(condition):
    """A listed silent failure of another differentiator; the runtime has LSTM in float32 only."""
    weights = {"W": array(1, 12, 2), "R": array(1, 12, 3), "B": array(1, 24)}
    text = """(bool c, float[4,2,2] x) => (float[1,2,3] y) {
        y = If(c) <
            then_branch = yes () => (p) { all, p = LSTM<hidden_size = 3>(x, W, R, B) },
            else_branch = no () => (q) { all, h = LSTM<hidden_size = 3>(x, W, R) q = Sin(h) }>
    }"""
    single = parse(text, **{name: a.astype(np.float32) for name, a in weights.items()})
    feeds = {"c": boolean(condition), "x": array(4, 2, 2)}
    (y,) = session(single).run(["y"], {**feeds, "x": feeds["x"].astype(np.float32)})
    # What the layer is written in runs in float64 too.
    double = igonnx.gradient(parse(text.replace("float", "double"), **weights))
    runtime = session(double)
    cotangent = array(1, 2, 3)
    given = {**feeds, "cotangent_y": cotangent}
    found, gradient = runtime.run(["y", "grad_x"], given)
    np.testing.assert_allclose(found, y, atol=1e-6)
    expected = differences(
        lambda changed: runtime.run(["y"], {**given, **changed})[0], feeds, "x", cotangent
    )
    np.testing.assert_allclose(gradient, expected, atol=TOLERANCE)


# -- Scan ----------------------------------------------------------------------------------------

SCANS = {
    "states and slices along other axes": (
        """(double[2] a, double[2,3] b, double[3,4,2] x, double[2,4] z, double[2,2] w)
            => (double[2] af, double[2,3] bf, double[4,2] ys) {
            af, bf, ys = Scan<num_scan_inputs = 2, scan_input_axes = [1, -1],
                body = step (a1, b1, x1, z1) => (a2, b2, y) {
                    p = MatMul(w, a1) s = Add(p, z1) a2 = Tanh(s)
                    t = Transpose<perm = [1, 0]>(x1) u = Mul(b1, t) b2 = Sin(u)
                    y = Mul(a2, z1)
                }>(a, b, x, z)
        }""",
        ("af", "bf", "ys"),
    ),
    "directions": (
        """(double[3] h, double[4,3] x, double[4,3] z) => (double[3] last, double[4,3] ys, double[4,3] zs) {
            last, ys, zs = Scan<num_scan_inputs = 2, scan_input_directions = [1, 0],
                scan_output_directions = [0, 1], body = step (h1, x1, z1) => (h2, y, zz) {
                    s = Mul(h1, z1) t = Add(s, x1) h2 = Tanh(t) y = Mul(h2, x1) zz = Mul(h1, h2) }>(h, x, z)
        }""",
        ("last", "ys", "zs"),
    ),
    "output axes": (
        """(double[3] h, double[4,3] x) => (double[3] last, double[3,4] ys, double[3,4] zs) {
            last, ys, zs = Scan<num_scan_inputs = 1, scan_output_axes = [1, -1], scan_output_directions = [1, 0],
                body = step (h1, x1) => (h2, y, z) {
                    s = Mul(h1, x1) h2 = Tanh(s) y = Mul(h2, x1) z = Sin(y) }>(h, x)
        }""",
        ("ys", "zs"),
    ),
    "no residuals": (
        """(double[3] h, double[4,3] x, double[3] w) => (double[3] last) {
            last = Scan<num_scan_inputs = 1, body = step (h1, x1) => (h2) { s = Sub(h1, x1) h2 = Add(s, w) }>(h, x)
        }""",
        ("last",),
    ),
    "no states": (
        """(double[4,3] x, double[3] w) => (double[4,3] ys) {
            ys = Scan<num_scan_inputs = 1, body = step (x1) => (y) { s = Mul(x1, w) y = Exp(s) }>(x)
        }""",
        ("ys",),
    ),
    "a state put out": (
        """(double[3] h, double[4,3] x) => (double[3] last, double[4,3] ys) {
            last, ys = Scan<num_scan_inputs = 1, body = step (h1, x1) => (h2, y) {
                h2 = Mul(h1, x1) y = Identity(h1) }>(h, x)
        }""",
        ("last", "ys"),
    ),
    "states that swap": (
        """(double[3] a, double[3] b, double[4,3] x) => (double[3] af, double[3] bf) {
            af, bf = Scan<num_scan_inputs = 1, body = step (a1, b1, x1) => (a2, b2) {
                s = Mul(a1, x1) b2 = Sin(s) a2 = Identity(b1) }>(a, b, x)
        }""",
        ("af", "bf"),
    ),
    "an integer state": (
        """(double[3] h, double[4,3] x) => (double[3] last) {
            zero = Constant<value = int64 {0}>()
            last, n = Scan<num_scan_inputs = 1, body = step (h1, k1, x1) => (h2, k2) {
                one = Constant<value = int64 {1}>() k2 = Add(k1, one) f = CastLike(k2, h1)
                s = Mul(h1, x1) t = Mul(s, f) h2 = Tanh(t) }>(h, zero, x)
        }""",
        ("last",),
    ),
    "one of two scanned outputs": (
        """(double[3] h, double[4,3] x) => (double[4,3] ys) {
            last, unused, ys = Scan<num_scan_inputs = 1, body = step (h1, x1) => (h2, z, y) {
                h2 = Mul(h1, x1) z = Floor(h2) y = Mul(h2, h2) }>(h, x)
        }""",
        ("ys",),
    ),
    "a growing loop": (
        """(double[1,3] h, double[4,1,3] x) => (double[1,3] last) {
            three = Constant<value = int64 {3}>() zero = Constant<value_ints = [0]>()
            last = Scan<num_scan_inputs = 1, body = outer (h1, x1) => (double[1,3] h2) {
                g = Sin(h1)
                long = Loop<body = inner (int64 j, bool ongoing, k1) => (and_on, k2) {
                    and_on = Identity(ongoing) s = Mul(k1, x1) t = Mul(s, g) k2 = Concat<axis = 0>(t, x1)
                }>(three, , g)
                h2 = ReduceSum(long, zero) }>(h, x)
        }""",
        ("last",),
    ),
    "nested": (
        """(double[3] h, double[4,2,3] x, double[3] w) => (double[3] last, double[4,2,3] ys) {
            last, ys = Scan<num_scan_inputs = 1, body = outer (h1, x1) => (h2, y) {
                g = Sin(h1)
                h2, y = Scan<num_scan_inputs = 1, body = inner (k1, z1) => (k2, v) {
                    s = Mul(k1, z1) t = Add(s, w) u = Mul(t, g) k2 = Tanh(u) v = Mul(k2, k1) }>(g, x1)
            }>(h, x)
        }""",
        ("last", "ys"),
    ),
}


def _feeds(proto: onnx.ModelProto, **given: np.ndarray) -> dict[str, np.ndarray]:
    """The inputs given, and random ones for all others."""
    found = dict(given)
    for value in proto.graph.input:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        found.setdefault(value.name, array(*shape))
    return found


@pytest.mark.parametrize("case", SCANS)
def test_scan(case):
    text, outputs = SCANS[case]
    proto = parse(text)
    feeds = _feeds(proto)
    for output in outputs:
        read = {"af": ["a", "z", "w"], "bf": ["b", "x"], "ys": ["a", "z", "w"]}
        wrt = read[output] if case.startswith("states and slices") else None
        check(proto, feeds, output=output, wrt=wrt)


# -- Loop ----------------------------------------------------------------------------------------

N = "int64 n"
LOOPS = {
    "trip count": (
        """(int64 n, double[3] h, double[3] w) => (double[3] last) {
            last = Loop<body = step (int64 i, bool go, h1) => (on, h2) {
                on = Identity(go) s = Mul(h1, w) h2 = Sin(s) }>(n, , h)
        }""",
        ("last",),
    ),
    "trip count and condition": (
        """(int64 n, double[3] h, double[3] w) => (double[3] last) {
            yes = Constant<value = bool {1}>()
            limit = Constant<value = double {20.0}>()
            last = Loop<body = step (int64 i, bool go, h1) => (on, h2) {
                h2 = Add(h1, w) s = ReduceSumSquare<keepdims = 0>(h2) on = Less(s, limit) }>(n, yes, h)
        }""",
        ("last",),
    ),
    "scanned outputs": (
        """(int64 n, double[3] h, double[6,3] x) => (double[3] last, double[m,3] ys, double[m,3] zs) {
            yes = Constant<value = bool {1}>()
            last, ys, zs = Loop<body = step (int64 i, bool go, h1) => (on, h2, y, z) {
                on = Identity(go) x1 = Gather(x, i) s = Mul(h1, x1) h2 = Tanh(s) y = Mul(h2, h1) z = Identity(h1)
            }>(n, yes, h)
        }""",
        ("last", "ys", "zs"),
    ),
    "grows": (
        """(int64 n, double[2,3] h, double[1,3] x) => (double[m,3] last) {
            last = Loop<body = step (int64 i, bool go, h1) => (on, h2) {
                on = Identity(go) p = Mul(h1, x) s = Sin(p) h2 = Concat<axis = 0>(s, x) }>(n, , h)
        }""",
        ("last",),
    ),
    "grows, as declared": (
        """(int64 n, double[2,3] h, double[1,3] x) => (double[m,3] last) {
            last = Loop<body = step (int64 i, bool go, double[k,3] h1) => (bool on, double[k2,3] h2) {
                on = Identity(go) p = Mul(h1, x) s = Sin(p) h2 = Concat<axis = 0>(s, x) }>(n, , h)
        }""",
        ("last",),
    ),
    "grows, and puts out": (
        """(int64 n, double[2,3] h, double[1,3] x) => (double[m,3] last, double[l,3] ys) {
            last, ys = Loop<body = step (int64 i, bool go, h1) => (on, h2, y) {
                on = Identity(go) p = Mul(h1, x) s = Sin(p) h2 = Concat<axis = 0>(s, x)
                y = ReduceSum<keepdims = 0>(p, zero) }>(n, , h)
        }""",
        ("last", "ys"),
    ),
    "integer state": (
        """(int64 n, double[3] h) => (double[3] last) {
            two = Constant<value = int64 {2}>()
            last, k = Loop<body = step (int64 i, bool go, h1, k1) => (on, h2, k2) {
                on = Identity(go) k2 = Add(k1, two) f = CastLike(k1, h1) s = Mul(h1, f) h2 = Sin(s) }>(n, , h, two)
        }""",
        ("last",),
    ),
    "states that swap": (
        """(int64 n, double[3] a, double[3] b) => (double[3] af, double[3] bf) {
            af, bf = Loop<body = step (int64 i, bool go, a1, b1) => (on, a2, b2) {
                on = Identity(go) s = Mul(a1, b1) b2 = Sin(s) a2 = Identity(b1) }>(n, , a, b)
        }""",
        ("af", "bf"),
    ),
    "states that swap places only": (
        """(int64 n, double[3] a, double[3] b) => (double[3] y) {
            af, bf = Loop<body = step (int64 i, bool go, a1, b1) => (on, b1, a1) { on = Identity(go) }>(n, , a, b)
            s = Sin(bf) y = Mul(s, af)
        }""",
        ("y",),
    ),
    "a state passed through": (
        """(int64 n, double[3] a, double[3] b) => (double[3] af, double[3] bf) {
            af, bf = Loop<body = step (int64 i, bool go, a1, b1) => (on, a2, b1) {
                on = Identity(go) s = Mul(a1, b1) a2 = Sin(s) }>(n, , a, b)
        }""",
        ("af", "bf"),
    ),
    "captured as it is": (
        """(int64 n, double[3] a, double[3] b) => (double[3] af, double[m,3] ys) {
            af, ys = Loop<body = step (int64 i, bool go, a1) => (on, a2, y) {
                on = Identity(go) y = Identity(b) a2 = Identity(b) }>(n, , a)
        }""",
        ("af", "ys"),
    ),
    "a residual of booleans and integers": (
        """(int64 n, double[3] a, double[3] b) => (double[3] af) {
            k = Constant<value = int64[1] {2}>()
            af = Loop<body = step (int64 i, bool go, a1) => (on, a2) {
                on = Identity(go) larger = Less(a1, b) s = Where(larger, a1, b)
                v, places = TopK(s, k) t = Mul(s, s) u = Sub(t, b) w = ReduceSum(v)
                a2 = Add(u, w) }>(n, , a)
        }""",
        ("af",),
    ),
    "nested": (
        """(int64 n, double[3] h, double[3] w) => (double[3] last) {
            last = Loop<body = outer (int64 i, bool go, h1) => (on, h2) {
                on = Identity(go) g = Sin(h1)
                h2 = Loop<body = inner (int64 j, bool ongoing, k1) => (and_on, k2) {
                    and_on = Identity(ongoing) s = Mul(k1, w) t = Add(s, g) k2 = Tanh(t) }>(i, , g)
            }>(n, , h)
        }""",
        ("last",),
    ),
    "nested and growing": (
        """(int64 n, double[1,3] h, double[1,3] w) => (double[m,3] last) {
            last = Loop<body = outer (int64 i, bool go, h1) => (on, h2) {
                on = Identity(go) g = Sin(h1)
                h2 = Loop<body = inner (int64 j, bool ongoing, k1) => (and_on, k2) {
                    and_on = Identity(ongoing) s = Mul(k1, w) k2 = Concat<axis = 0>(s, w) }>(i, , g)
            }>(n, , h)
        }""",
        ("last",),
    ),
    "if in loop": (
        """(int64 n, double[3] h, double[3] w) => (double[3] last) {
            one = Constant<value = int64 {1}>()
            last = Loop<body = outer (int64 i, bool go, h1) => (on, h2) {
                on = Identity(go) early = Less(i, one)
                h2 = If(early) <
                    then_branch = yes () => (p) { s = Mul(h1, w) p = Sin(s) },
                    else_branch = no () => (q) { s = Exp(h1) q = Mul(s, h1) }>
            }>(n, , h)
        }""",
        ("last",),
    ),
    "growing if in loop": (
        """(int64 n, double[1,3] h, double[1,3] w) => (double[m,3] last) {
            one = Constant<value = int64 {1}>()
            last = Loop<body = outer (int64 i, bool go, h1) => (on, h2) {
                on = Identity(go) early = Less(i, one) r = Sin(h1)
                h2 = If(early) <
                    then_branch = yes () => (p) { s = Mul(r, w) p = Concat<axis = 0>(s, r) },
                    else_branch = no () => (q) { s = Exp(r) q = Mul(s, h1) }>
            }>(n, , h)
        }""",
        ("last",),
    ),
    "no states": (
        """(int64 n, double[6,3] x) => (double[m,3] ys) {
            yes = Constant<value = bool {1}>()
            ys = Loop<body = step (int64 i, bool go) => (on, y) {
                on = Identity(go) x1 = Gather(x, i) y = Mul(x1, x1) }>(n, yes)
        }""",
        ("ys",),
    ),
}


@pytest.mark.parametrize("trips", [0, 1, 3])
@pytest.mark.parametrize("case", LOOPS)
def test_loop(case, trips):
    text, outputs = LOOPS[case]
    proto = parse(text)
    if case == "grows, and puts out":
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "zero"))
    feeds = _feeds(proto, n=np.array(trips))
    for output in outputs:
        if trips == 0 and output in ("ys", "zs"):
            continue  # the runtime does not know how many axes nothing has
        check(proto, feeds, output=output, wrt=_those_that_count(case, output))


def _those_that_count(case: str, output: str) -> list[str] | None:
    return {("a state passed through", "bf"): ["b"]}.get((case, output))


def test_loop_that_stops_by_its_condition():
    proto = parse("""(double[3] h, double[3] w) => (double[3] last, double[m] ys) {
        limit = Constant<value = double {50.0}>()
        last, ys = Loop<body = step (int64 i, bool go, h1) => (on, h2, y) {
            h2 = Mul(h1, w) y = ReduceSumSquare<keepdims = 0>(h2) on = Less(y, limit) }>( , , h)
    }""")
    feeds = {"h": np.array([1.1, 1.2, -1.3]), "w": np.array([1.3, 1.2, 1.1])}
    for output in ("last", "ys"):
        check(proto, feeds, output=output)


@pytest.mark.parametrize("body", ["grows", "scanned outputs"])
def test_output_of_a_loop_is_explained_beside_its_input(body):
    text, _ = LOOPS[body]
    proto = parse(text)
    proto.graph.node.append(onnx.helper.make_node("Sin", ["last"], ["out"]))
    proto.graph.output[0].name = "out"
    for value in list(proto.graph.output)[1:]:
        proto.graph.output.remove(value)
    feeds = _feeds(proto, n=np.array(2))
    for wrt in (["last", "h"], ["h", "last"]):
        result = igonnx.gradient(proto, wrt=wrt, output="out")
        validate(result)
        assert [value.name for value in result.graph.output][1:] == [f"grad_{n}" for n in wrt]
        y = session(proto).run(["out"], feeds)[0]
        found = session(result).run(
            ["grad_last", "grad_h"], {**feeds, "cotangent_out": np.ones_like(y)}
        )
        np.testing.assert_allclose(found[0], np.sqrt(1 - y**2), rtol=1e-6)
        assert found[1].shape == feeds["h"].shape


def test_siblings_whose_bodies_use_the_same_names():
    proto = parse("""(bool c, int64 n, double[3] x) => (double[3] z) {
        a = If(c) <then_branch = b () => (o) { t = Sin(x) o = Mul(t, x) },
                   else_branch = b () => (o) { t = Cos(x) o = Mul(t, x) }>
        y = If(c) <then_branch = b () => (o) { t = Cos(a) o = Mul(t, x) },
                   else_branch = b () => (o) { t = Tanh(a) o = Mul(t, a) }>
        v = Loop<body = b (int64 i, bool go, t) => (o, p) { o = Identity(go) q = Mul(t, a) p = Sin(q) }>(n, , y)
        z = Loop<body = b (int64 i, bool go, t) => (o, p) { o = Identity(go) q = Mul(t, y) p = Cos(q) }>(n, , v)
    }""")
    for condition in (True, False):
        check(proto, {"c": boolean(condition), "n": np.array(2), "x": array(3)})


def test_the_callers_model_is_left_alone():
    proto = _with_constants_in_bodies()
    before = proto.SerializeToString(deterministic=True)
    first = igonnx.gradient(proto)
    assert proto.SerializeToString(deterministic=True) == before
    assert igonnx.gradient(proto) == first
    loaded = Model.load(proto)
    assert igonnx.gradient(loaded) == igonnx.gradient(loaded) == first


# -- explanations --------------------------------------------------------------------------------

EXPLAINED = {
    "if": """(float[batch,3] x) => (float[batch,2] y) {
        t = ReduceSum<keepdims = 0>(x) zero = Constant<value = float {-100.0}>() c = Less(zero, t)
        h = If(c) <then_branch = yes () => (p) { p = Tanh(x) }, else_branch = no () => (q) { q = Sin(x) }>
        y = MatMul(h, w)
    }""",
    "scan": """(float[batch,5,3] x) => (float[batch,2] y) {
        first = Slice(x, zero, one, one) flat = Squeeze(first, one) h0 = Sin(flat)
        h = Scan<num_scan_inputs = 1, scan_input_axes = [1], body = step (h1, x1) => (h2) {
            m = MatMul(h1, k) s = Add(m, x1) h2 = Tanh(s) }>(h0, x)
        y = MatMul(h, w)
    }""",
    "loop": """(float[batch,3] x) => (float[batch,2] y) {
        three = Constant<value = int64 {3}>()
        h = Loop<body = step (int64 i, bool go, h1) => (on, h2) {
            on = Identity(go) m = MatMul(h1, k) s = Add(m, x) h2 = Tanh(s) }>(three, , x)
        y = MatMul(h, w)
    }""",
    "lstm": """(float[batch,5,3] x) => (float[batch,2] y) {
        t = Transpose<perm = [1, 0, 2]>(x)
        all, last = LSTM<hidden_size = 3>(t, W, R)
        zeroth = Constant<value_ints = [0]>()
        h = Squeeze(last, zeroth)
        y = MatMul(h, w)
    }""",
}


@pytest.mark.parametrize("case", EXPLAINED)
def test_attributions_add_up(case):
    weights = {"w": array(3, 2), "k": array(3, 3), "W": array(1, 12, 3), "R": array(1, 12, 3)}
    stored = {name: a.astype(np.float32) for name, a in weights.items()}
    if case == "scan":
        stored |= {"zero": np.array([0]), "one": np.array([1])}
    proto = parse(EXPLAINED[case], **stored)
    shape = (4, 5, 3) if "5,3" in EXPLAINED[case] else (4, 3)
    x = array(*shape).astype(np.float32)
    # One condition for all rows: they are explained one by one, and that is said.
    told = pytest.warns(UserWarning, match="influence") if case == "if" else nullcontext()
    with told:
        found = igonnx.Explainer(proto).integrated_gradients(x, target=1, steps=40)
    outputs = [session(proto).run(["y"], {"x": end})[0][:, 1] for end in (x, np.zeros_like(x))]
    values = found.of("x").reshape(4, -1).sum(axis=1)
    np.testing.assert_allclose(values, outputs[0] - outputs[1], atol=1e-4)
