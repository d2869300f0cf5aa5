"""What is known before running: of values that loops carry, behind convolutions, and of what callers may override."""

from __future__ import annotations

import numpy as np
import pytest

from igonnx.model import Model


def shapes(proto):
    """Shape of each tensor by name, of all graphs; an axis nobody knows is None, one with a name a string."""
    found = {}
    for node in Model.load(proto).ir.graph.all_nodes():
        for value in node.outputs:
            found[value.name] = value.shape and tuple(
                dim if isinstance(dim, int) else dim.value for dim in value.shape
            )
    return found


LOOP = """(int64 n, float[batch,3] x, float[1,3] w) => (float[a,b] z) {{
    y = Loop<body = step (int64 i, bool go, {entering}) => (on, {leaving}) {{ on = Identity(go) {body} }}>(n, , x)
    z = Exp(y)
}}"""


@pytest.mark.parametrize(
    ("entering", "leaving"), [("h", "g"), ("float[p,q] h", "float[p,q] g"), ("float[r,3] h", "g")]
)
def test_a_loop_keeps_what_its_body_keeps(model, entering, leaving):
    proto = model(LOOP.format(entering=entering, leaving=leaving, body="g = Mul(h, w)"))
    assert shapes(proto)["y"] == ("batch", 3)


@pytest.mark.parametrize(
    ("entering", "leaving"),
    [("h", "g"), ("float[p,q] h", "float[r,q] g"), ("float[batch,3] h", "g")],
)
def test_a_loop_that_grows(model, entering, leaving):
    body = "s = Sin(h) g = Concat<axis = 0>(s, w)"
    first, second = shapes(model(LOOP.format(entering=entering, leaving=leaving, body=body)))["y"]
    assert first not in ("batch", "p", "r")
    assert second == 3


def test_loops_in_loops_keep_shapes(model):
    body = """e = Sin(h)
        k = Loop<body = inner (int64 j, bool ongoing, f) => (and_on, m) {{
            and_on = Identity(ongoing) m = Mul(f, e) }}>(i, , e)
        g = Tanh(k)"""
    found = shapes(
        model(
            LOOP.format(entering="h", leaving="g", body=body.replace("{{", "{").replace("}}", "}"))
        )
    )
    assert found["y"] == found["k"] == found["m"] == ("batch", 3)


def test_a_wrong_guess_outside_is_dropped_inside(model):
    """The inner loop keeps what it is given, and the outer one grows."""
    body = """e = Sin(h)
        k = Loop<body = inner (int64 j, bool ongoing, f) => (and_on, m) {
            and_on = Identity(ongoing) m = Mul(f, f) }>(i, , e)
        g = Concat<axis = 0>(k, w)"""
    found = shapes(model(LOOP.format(entering="h", leaving="g", body=body)))
    for name in ("y", "k", "m", "e", "g"):
        assert found[name] is None or found[name][0] != "batch", name
        assert found[name] is None or found[name][1] == 3, name


def test_a_loop_that_changes_the_number_of_axes(model):
    body = "g = Unsqueeze(h, zero)"
    proto = model(
        LOOP.format(entering="h", leaving="g", body=body).replace("float[a,b] z", "float[a,b,c] z"),
        {"zero": np.array([0])},
    )
    assert shapes(proto)["g"] is None


def test_slices_of_a_scan(model):
    proto = model("""(float[batch,3] h, float[batch,time,3] x) => (float[batch,3] last, float[time,batch,3] ys) {
        last, ys = Scan<num_scan_inputs = 1, scan_input_axes = [-2], body = step (h1, x1) => (h2, y) {
            h2 = Add(h1, x1) y = Mul(h2, x1) }>(h, x)
    }""")
    assert shapes(proto)["h2"] == ("batch", 3)


def test_axes_behind_convolutions_with_weights_of_unknown_size(model):
    proto = model(
        "(float[n,3,h,w] x, float[o,i,k,l] weight) => (float[a,b,c,d] y) { z = Conv(x, weight) y = Exp(z) }"
    )
    found = shapes(proto)["z"]
    assert len(found) == 4
    assert found[0] == "n"


def test_initializers_that_callers_may_override_tell_nothing(model):
    proto = model(
        """(float[2,3] x, int64[2] s = {3, 2}) => (float[a,b] y) { r = Reshape(x, s) y = Exp(r) }"""
    )
    found = shapes(proto)["r"]
    assert len(found) == 2
    assert not any(isinstance(dim, int) for dim in found)
